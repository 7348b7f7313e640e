"""The store: everything that a run leaves on a disk or in a bucket, and what makes it resumable.

Holds whole files and their digests, the run directory with its identity and lock, tables, the ledger with its accounts,
what verifies them, metrics, and the mirror on a remote store. May import `watch` and the vocabulary; must never know
Ray, a pool, or how what it keeps was made.
"""
