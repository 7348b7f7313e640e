"""The watch: what tells a user how a run goes, and what keeps a wait from lasting for ever.

Holds progress lines, gauges, the watchdog, bounded fan-out and repeated attempts. May import the vocabulary, and Ray
only to show gauges where it is already running; must never know what is being watched.
"""
