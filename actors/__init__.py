"""Actors: what runs in the pools, beside the models.

Holds the engine, episodes, the committee with its verifiers, the prober, teachers, the sandbox pool and the weight
store. May import `sandbox`, `pipeline.records` and `pipeline.config`; must never know `trainers`, a stage, or a domain.
"""
