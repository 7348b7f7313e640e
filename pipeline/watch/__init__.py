"""The watch: what tells a user how a run goes, and what keeps a wait from lasting for ever.

Holds progress lines, figures and gauges, trackers, the watchdog, bounded fan-out and repeated attempts. May import the
vocabulary and `actors.meters`, which exports gauges where Ray is running; must never know what is being watched.
"""
