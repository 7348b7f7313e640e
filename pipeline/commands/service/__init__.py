"""`propose serve`: the trained proposer behind HTTP. Who is let in, what a request is told, the routes, the process.

May import what every command may. Must never know how a run is trained: it reads a run, and writes nothing to it.
"""
