"""What is behind `propose`: in `groups` what each command takes and prints, beside it what commands do.

Holds preflight, plan, driver and summary of a run, status, rework, doctor, replay, chaos, the ablation, and the keys of
each `--json` object. May import every other package; nobody but `cli` imports a command, and no package below must ever
know that there are any.
"""
