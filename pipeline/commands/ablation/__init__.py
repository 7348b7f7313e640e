"""`propose ablate`: which parts of the method carry the gain, each arm trained and measured with the same budget.

grid     what is compared: arms as overrides of the config, comparisons in the order the paper found
runs     trains and measures every (arm, seed), each a run directory; resumable
measure  what one arm's proposer writes on held-out skill combinations, and what a solver learns from it
table    means over seeds with intervals, paired differences, Markdown and HTML
"""
