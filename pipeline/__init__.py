"""What a user runs: the command line, and the packages behind it (README.md is the map).

Holds one package a role, and the vocabulary that all of them share: `records` and `config`. They may import
`actors`, `trainers` and `sandbox`; those three must never know one, only the vocabulary.
"""
