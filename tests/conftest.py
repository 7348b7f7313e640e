"""For all tests: no example of hypothesis has a deadline, because a busy machine is no failure; and what a test starts
can be interrupted, though a shell's background job, which the tests may be, hands its children SIGINT ignored.
"""

import signal

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
signal.signal(signal.SIGINT, signal.default_int_handler)
