"""Verifiers of free text: models that solve, review, or write programs."""
