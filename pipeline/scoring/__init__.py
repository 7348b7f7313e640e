"""Scoring: what an episode, a problem, an answer and a committee are worth.

Holds rewards, the rates and yields of a set of episodes, the solver's score, problems as rows, and the audit of the
committee. May import `actors`, domains and the store; is given the handle of a pool, and must never know how one is
started, nor which stage asks.
"""
