"""Verifiers of the mini world's controlled language: they read it, and derive the answer."""
