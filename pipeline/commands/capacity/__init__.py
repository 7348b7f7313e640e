"""`propose plan pools`: what a stage would do with so many replicas. A simulation of its pools, times from a run or a
file, and the plan that follows.

May import what every command may. Must never start anything: it reads a config, a run or a file of times, and computes.
"""
