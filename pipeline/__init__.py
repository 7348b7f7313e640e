"""What a user runs: the command line, and the rooms behind it (README.md is the map).

Holds one package a room, and the vocabulary that all rooms share: `records` and `config`. The rooms may import
`actors`, `trainers` and `sandbox`; those three must never know a room, only the vocabulary.
"""
