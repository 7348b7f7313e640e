"""Inside the walls: a run that becomes another program, one stage of a compiler or what it made.

Invariant: no byte of the source or the binary enters this interpreter; the kernel copies and loads them. The program
has the walls of every run and none of the interpreter's descriptors but 0, 1 and 2; so what is said on `report` was
said before it, and is believed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from typing import NoReturn

from . import kernel
from .toolchains import Stage


def lay_out(stage: Stage, program: int, facts: int) -> None:
    """Before the last walls: the stage's input, which `program` holds, into scratch; its output open to the
    supervisor, who takes it when the run is dead; and the tool itself as `program`."""
    source = os.open(stage.source, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    size, done = os.fstat(program).st_size, 0
    while done < size:
        done += os.sendfile(source, program, done, size - done)
    output = os.open(stage.output, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with socket.socket(fileno=os.dup(facts)) as supervisor:
        socket.send_fds(supervisor, [b'{"output": 1}'], [output])
    os.dup2(os.open(stage.tool, os.O_PATH | os.O_CLOEXEC), program)


def become(stage: Stage | None, program: int, report: int, memory: int) -> NoReturn:
    """The tool of a stage, or a binary, from `program`. A failure to start it is told on `report`."""
    for fd in (program, report):
        os.set_inheritable(fd, False)
    if stage is None and resource.getrlimit(resource.RLIMIT_STACK)[1] == resource.RLIM_INFINITY:
        # The main thread's stack is bounded by the memory, and each other's is 2 MB: what glibc makes of no limit.
        kernel.lower_limit(resource.RLIMIT_STACK, resource.RLIM_INFINITY)
    for name in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and that would be inherited
        signal.signal(name, signal.SIG_DFL)
    try:
        kernel.execute(program, stage.argv if stage else ("main",), memory)
    except OSError as e:
        os.write(report, json.dumps({"reason": f"the program cannot be started: {e.strerror}"}).encode())
    os._exit(1)
