"""The flow: how one task becomes a judged episode, and how judged episodes become a step, a batch and a version.

Holds what every stage is given (`context`), the stream of episodes, the step epilogue, the trainer beside the driver,
and weight sync. May import pools, scoring, domains, skills, store and watch; must never know a stage, but for its name.
"""
