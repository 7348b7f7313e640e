"""Drives a run: opens what it needs, runs the stages, closes everything whatever happens.

Invariant: when `drive` returns or raises, no process that it started is left. An interrupt (Ctrl-C, SIGTERM) is
passed to the running stage as a cancellation; what is left `_CLOSE_S` after it, or after the end of the work, is
killed, whatever the stage does about the cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

from pipeline import stages
from pipeline.commands.preflight import download, loaded
from pipeline.config import Config
from pipeline.flow.context import Context
from pipeline.pools import endpoints, lease, nodes
from pipeline.pools.cluster import Cluster
from pipeline.records import Failure, Halt
from pipeline.store.identity import identity_of
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch.gauges import showing
from pipeline.watch.progress import Progress
from pipeline.watch.trackers import tracking
from sandbox import LEVELS

T = TypeVar("T")
_CLOSE_S = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def drive(config: Config, root: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Run the named stages in order in `root`; returns their results. Raises Failure with the cause."""
    run = RunDir.open(root, config)
    try:
        name = lease.name_of(config, run.root)
        with Metrics(run, name) as metrics, Progress() as progress:
            progress.say("run", f"{config.name} in {root}")
            context = Context(config, run, Cluster(config, run.root, progress.say), metrics, progress)
            run.adopt_prompts(context.domain.prompts.digests())

            async def work() -> dict[str, dict[str, Any]]:
                todo = [name for name in names if run.result(name) is None]
                models = download(config, todo)
                while (line := await asyncio.to_thread(next, models, None)) is not None:
                    progress.say("models", line)
                if context.cluster.joins and todo:
                    context.cluster.start()
                    await nodes.check(config, run.root, loaded(config, todo))
                with tracked(todo), endpoints.keeping(config, root):
                    try:
                        async with showing(metrics, "endpoints-now", lambda: endpoints.now(config)):
                            results = {name: await stages.run(context, name) for name in names}
                    except Halt as e:
                        raise Failure(str(e)) from None
                    finally:
                        _tell_spending(context)
                    await _tell_isolation(context)
                return results

            @contextlib.contextmanager
            def tracked(todo: list[str]) -> Iterator[None]:
                about = {"config": identity_of(config), "seed": config.seed, "run_dir": str(run.root.absolute())}
                wanted = config.trackers if todo else []
                with tracking(wanted, name, run.path("trackers"), about, progress.say) as metrics.trackers:
                    yield

            return asyncio.run(closing(context.cluster, work()))
    finally:
        run.close()


def _tell_spending(context: Context) -> None:
    """A line for each endpoint that was asked, and one row of the metrics."""
    spent = endpoints.spent()
    for name, s in spent.items():
        paid = f"{s['calls']:.0f} calls, {s['kept']:.0f} answered before, {s['tokens']:.0f} tokens, ${s['usd']:.4g}"
        context.progress.say("endpoints", f"{name}: {paid}")
    if spent:
        names = ("calls", "kept", "tokens", "usd")
        total = {name: sum(s[name] for s in spent.values()) for name in names}
        context.metrics.log("endpoints", 0, total | {f"usd/{name}": s["usd"] for name, s in spent.items()})


async def _tell_isolation(context: Context) -> None:
    """One row of the metrics: behind which walls this run had its programs."""
    with contextlib.suppress(Failure):  # a pool that does not answer any more is no reason to call the run failed
        stats = await context.cluster.sandbox_stats()
        if stats is not None:
            layers = {f"layer/{layer['name']}": layer["active"] for layer in stats["layers"]}
            level = LEVELS.index(stats["level"])
            context.metrics.log("sandbox", 0, {"level": level, "restarts": stats["restarts"], **layers})


async def closing(cluster: Cluster, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, then end every process of the cluster; an interrupt cancels `work` first.

    Meanwhile whatever is printed goes to stderr: threads of Ray print to stdout what happens to its nodes.
    """
    with contextlib.redirect_stdout(sys.stderr):
        return await _closing(cluster, work)


async def _closing(cluster: Cluster, work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    ending, ended, interrupted = threading.Event(), threading.Event(), threading.Event()
    threading.Thread(target=_backstop, args=(ending, ended, interrupted), daemon=True).start()

    def interrupt(*_: Any) -> None:
        if interrupted.is_set():  # it comes twice where both a process and its group are sent it
            return
        interrupted.set()
        ending.set()  # at once, because the stage may never come to its end
        loop.call_soon_threadsafe(task.cancel)

    # Not a handler of the loop's: that would run only when the loop is free.
    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        return await work
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        # A second Ctrl-C must not stop the clean-up, which the backstop bounds.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        ending.set()
        await cluster.idle()
        await loop.shutdown_default_executor()  # threads of `to_thread` call Ray too
        # Asked before Ray ends: without Ray's own processes, its workers are nobody's children.
        family = psutil.Process().children(recursive=True)
        cluster.close(shutdown=not interrupted.is_set())
        _reap(family)
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _reap(family: list[psutil.Process]) -> None:
    """Wait for those that were there with Ray, and end what outlives it (an engine whose replica was killed)."""
    _, left = psutil.wait_procs({*family, *psutil.Process().children(recursive=True)}, timeout=2)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)  # the memory of an engine is freed by then, on a busy machine too


def _backstop(ending: threading.Event, ended: threading.Event, interrupted: threading.Event) -> None:
    """If the end hangs: end every descendant, which frees whoever waits for one; if that does not help, ourselves."""
    ending.wait()
    if ended.wait(_CLOSE_S):
        return
    for process in psutil.Process().children(recursive=True):
        process.kill()
    if not ended.wait(3):
        line = "propose: the processes of this run did not end by themselves and were killed"
        print(f"{line}; the same command goes on from here", file=sys.stderr)
        os._exit(130 if interrupted.is_set() else 1)
