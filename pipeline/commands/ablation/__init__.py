"""`propose ablate`: which parts of the method carry the gain, each arm trained and measured with the same budget.

grid       what is compared: arms as overrides of the config, comparisons as pairs of arms that differ in one thing
plan       the tests that a grid makes, what matters, and what so many seeds would tell
inference  the statistics: paired intervals, Holm, TOST, power
runs       trains and measures every (arm, seed), each a run directory; resumable
measure    what one arm's proposer writes on held-out skill combinations, and what a solver learns from it
rounds     a proposer and its solver in turns, under a gate
rows       what each finished (arm, seed) came to, seed by seed
table      means over seeds with intervals, paired differences with their verdicts, Markdown and HTML
"""
