"""The commands of `propose`, one module a group of its help. A command is a function with `@command` above it, in the
module of its group; nothing else registers it.

Holds what a command takes and prints, and calls the package that does the work, which it imports itself, so that a help
screen loads neither Ray, torch nor vLLM. Only `cli` knows these modules.
"""
