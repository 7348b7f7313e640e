"""For all tests: no example of hypothesis has a deadline, because a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
