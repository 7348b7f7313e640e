"""Commands: one module or package for each `propose` command that is more than a few lines of `cli`.

Holds the driver of a run, doctor, replay, chaos, the ablation, and the keys of each `--json` object. May import every
other package; nobody but `cli` imports a command, and no package below must ever know that there are any.
"""
