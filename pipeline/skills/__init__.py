"""Skills: where they come from, and which of them the proposer is offered next.

Holds corpus readers, skill extraction with the library on disk, the curriculum, and the ladder of probers. May import
the store's files and the vocabulary; must never know Ray, a clock, or a domain, which is built on top of these.
"""
