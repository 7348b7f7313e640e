"""Trainers: what turns the rollouts of a step into new weights, under Ray Train and DeepSpeed.

Holds objectives, packed batches, the train loop, checkpoints, and the two ways in which weights leave. May import
`pipeline.records` and `pipeline.config`; must never know `actors`, `sandbox`, a stage, or what a problem is.
"""
