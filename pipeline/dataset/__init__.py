"""Data sets: what a folder of problems holds, what is wrong with one, and the forms that trainers read.

Holds the folder's files and its card, the layouts of other frameworks, the gates and the proof that no training file
tells how its rows were made. May import scoring and below; must never know Ray, a pool, or a stage.
"""
