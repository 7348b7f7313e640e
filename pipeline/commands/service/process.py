"""The process behind `propose serve`: pools of a run, and a server in front of them.

Invariant: it writes nothing to the run that it reads, and when `serve` returns or raises, no process that it started is
left. The first SIGTERM or Ctrl-C closes the door and lets those inside come to their end, for `STOP_S`; the second ends
everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import uvicorn

from pipeline.commands.driver import closing
from pipeline.commands.service.app import make_app
from pipeline.commands.service.door import Door
from pipeline.commands.service.writing import Event, write
from pipeline.config import Config
from pipeline.flow.steps import state_of
from pipeline.flow.stream import Stream
from pipeline.pools import endpoints
from pipeline.pools.cluster import Cluster
from pipeline.records import Failure, Task
from pipeline.skills import probing
from pipeline.skills.extraction import SkillLibrary
from pipeline.stages.synthesize import skills_of, writer_of
from pipeline.store.rundir import RunDir

STOP_S = 300
"""How long those who are inside may take once the service stops."""


class _Server(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(root: Path, key: str, host: str, port: int, waiting: int, say: Callable[[str], None]) -> None:
    """Serve the proposer of the run in `root` until a signal. `waiting`: requests that may wait beside those at work.
    Raises Failure."""
    run, config = RunDir.read(root)
    try:
        listening = socket.create_server((host, port))
    except OSError as e:
        raise Failure(f"--host {host} --port {port}: {e.strerror or e}; expected an address that is free") from None
    # Names and spending of its own: the run itself may be driven beside.
    own = root.absolute().with_name(f"{root.absolute().name}-serve")
    with listening, endpoints.keeping(config, own):
        cluster = Cluster(config, own, lambda part, line: say(f"{part} · {line}"))
        asyncio.run(closing(cluster, _serving(run, config, cluster, key, listening, waiting, say)))


async def _serving(
    run: RunDir,
    config: Config,
    cluster: Cluster,
    key: str,
    listening: socket.socket,
    waiting: int,
    say: Callable[[str], None],
) -> None:
    model = writer_of(run, config)
    skills = {skill.id: skill for skill in SkillLibrary.load(skills_of(run, config))}
    ladder = probing.Ladder()
    if trained := run.steps("mgpo"):
        ladder = probing.Ladder.model_validate(state_of(trained[-1])["ladder"])
    prober = probing.prober(ladder, config.prober)

    playing = cluster.writer(model) if model else cluster.proposer(Path(_checkpoint(run)))
    proposer, committee, pool = await asyncio.gather(playing, cluster.committee(), cluster.prober())
    played = config if model is None else config.model_copy(update={"proposer": model})
    stream = Stream(played, proposer, committee, pool, cluster.buffer())
    size = played.proposer.pool
    door = Door(size.max_ongoing * size.max_replicas + waiting)

    def writes(task: Task) -> AsyncGenerator[Event]:
        return write(stream, task, prober)

    app = make_app(key, skills, writes, door)
    server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=STOP_S))
    with _first_signal(lambda: _stop(server, door, say)):
        address = "{}:{}".format(*listening.getsockname()[:2])
        say(f"{config.name} · {len(skills)} skills · http://{address} · {door.most} requests at once")
        await cluster.guarded(server.serve(sockets=[listening]))


def _checkpoint(run: RunDir) -> str:
    done = run.result("mgpo")
    assert done is not None  # `writer_of` has looked
    checkpoint: str = done["result"]["checkpoint"]
    return checkpoint


def _stop(server: uvicorn.Server, door: Door, say: Callable[[str], None]) -> None:
    say(f"stops; {door.inside} requests come to their end")
    door.close()
    server.should_exit = True


@contextlib.contextmanager
def _first_signal(stop: Callable[[], None]) -> Iterator[None]:
    """`stop` at the first SIGTERM or SIGINT; the next one does what it did before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    loop = asyncio.get_running_loop()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(*_: object) -> None:
        restore()
        loop.call_soon_threadsafe(stop)

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        restore()
