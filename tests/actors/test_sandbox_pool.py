"""The pool: many callers, few slots, and an answer for each. One test deploys it with Ray Serve."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors import sandbox_pool
from actors.calls import within
from actors.sandbox_pool import SandboxPool
from pipeline.records import Failure
from sandbox import Case, Limits, Request, Result, SandboxUnavailable, Session
from tests.actors.metered import metered

LIMITS = {"wall_s": 2.0, "cpu_s": 1.0, "memory_mb": 128}


@pytest.fixture(scope="module", autouse=True)
def bare() -> Iterator[None]:
    """Slots that start soon: no program here asks for the packages that runs find loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_pool, "PACKAGES", ())
        yield


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    pool = SandboxPool(slots=2, limits=LIMITS, queue=8, sessions=2)
    yield pool
    pool.close()


def test_a_batch_comes_back_in_order_and_a_failure_stays_alone(pool: SandboxPool) -> None:
    codes = [f"print({n})" if n % 5 else "1/0" for n in range(40)]
    results = asyncio.run(pool.run_batch([Request(code) for code in codes]))
    assert [r.stdout for r in results] == [f"{n}\n" if n % 5 else "" for n in range(40)]
    assert {r.status for n, r in enumerate(results) if n % 5 == 0} == {"error"}


def test_a_replica_measures_what_programs_ran_and_waited(pool: SandboxPool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = metered(monkeypatch)
    codes = ["import time; time.sleep(0.3)", "1/0", "import time; time.sleep(0.3)"]
    results = asyncio.run(pool.run_batch([Request(code) for code in codes]))
    asyncio.run(pool.session_run("measured", "x = 1"))
    ran = sorted((tags["status"], value) for name, value, tags in seen if name == "propose_sandboxed_seconds")
    assert [status for status, _ in ran] == ["error", "ok", "ok", "ok"]
    assert {(r.status, r.wall_s) for r in results} < set(ran) and max(value for _, value in ran) >= 0.3
    waited = [value for name, value, _ in seen if name == "propose_sandbox_waited_seconds"]
    assert len(waited) == 4 and all(value >= 0 for value in waited)


def test_runs_are_side_by_side(pool: SandboxPool) -> None:
    """Two that wait for each other's moment in time overlap; in turn, the spans would not."""
    code = "import time; a = time.time(); time.sleep(0.5); span = [a, time.time()]"
    first, second = asyncio.run(pool.run_batch([Request(code, value="span")] * 2))
    assert first.value[0] < second.value[1] and second.value[0] < first.value[1]


def test_a_full_queue_makes_callers_wait_and_says_so_in_the_end() -> None:
    pool = SandboxPool(slots=1, limits=LIMITS, queue=1, wait_s=0.4)
    try:
        nap = Request("import time; time.sleep(1)")
        results = asyncio.run(pool.run_batch([nap, nap, nap]))
        assert [r.status for r in results] == ["ok", "infra", "infra"]
        assert "queue is full" in results[1].reason
        assert asyncio.run(pool.run(Request("print(1)"))).stdout == "1\n"
    finally:
        pool.close()


def test_a_request_that_no_slot_took_in_time_is_answered() -> None:
    pool = SandboxPool(slots=1, limits=LIMITS, queue=8, wait_s=0.4)
    try:
        nap = Request("import time; time.sleep(1)")
        results = asyncio.run(pool.run_batch([nap, nap]))
        assert [r.status for r in results] == ["ok", "infra"] and "no free slot" in results[1].reason
    finally:
        pool.close()


def test_a_run_whose_caller_gave_up_in_the_queue_never_begins() -> None:
    pool = SandboxPool(slots=1, limits=LIMITS, queue=8)

    async def scene() -> None:
        nap = asyncio.create_task(pool.run(Request("import time; time.sleep(1)")))
        await asyncio.sleep(0.2)
        waiting = [asyncio.create_task(pool.run(Request("print(1)"))) for _ in range(5)]
        await asyncio.sleep(0.2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await nap).status == "ok"
        assert (await pool.run(Request("print(2)"))).stdout == "2\n"

    try:
        asyncio.run(scene())
        assert pool.stats()["statuses"] == {"ok": 2}
    finally:
        pool.close()


def test_a_session_whose_time_is_up_between_two_looks_goes_on_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SandboxPool(slots=1, limits=LIMITS)

    async def story() -> None:
        _, cells = await pool.session_run("s", "x = 1")
        session = pool._sessions["s"].session
        take = pool._take
        # Over as soon as it was looked at.
        monkeypatch.setattr(pool, "_take", lambda *given: (take(*given), setattr(session, "_ends", 0.0))[0])
        result, cells = await pool.session_run("s", "x += 1", cells, value="x")
        assert (result.status, result.value, [c.code for c in cells]) == ("ok", 2, ["x = 1", "x += 1"])

    try:
        asyncio.run(story())
    finally:
        pool.close()


def test_idle_sessions_hold_no_more_memory_than_runs_may_and_the_oldest_go_first() -> None:
    pool = SandboxPool(slots=1, limits=LIMITS)

    async def story() -> None:
        cells = {}
        for name, megabytes in (("small", 1), ("a", 80), ("b", 80)):
            result, cells[name] = await pool.session_run(name, f"x = bytearray(b'x') * ({megabytes} << 20)")
            assert result.ok
        assert list(pool._sessions) == ["b"]
        assert 80 << 10 <= sum(one.session.own_kb for one in pool._sessions.values()) <= 128 << 10
        await pool.session_run("small", "pass", cells["small"])
        assert list(pool._sessions) == ["b", "small"]
        result, _ = await pool.session_run("a", "n = len(x)", cells["a"], value="n")
        assert result.value == 80 << 20 and list(pool._sessions) == ["small", "a"]

    try:
        asyncio.run(story())
    finally:
        pool.close()


def test_closing_a_session_does_not_wait_for_the_runs_before_it() -> None:
    pool = SandboxPool(slots=1, limits=LIMITS, queue=8)

    async def scene() -> None:
        await pool.session_run("s", "x = 1")
        nap = asyncio.create_task(pool.run(Request("import time; time.sleep(1)")))
        await asyncio.sleep(0.2)
        await pool.close_session("s")
        assert not nap.done() and pool.stats()["sessions"] == 0
        await nap

    try:
        asyncio.run(scene())
    finally:
        pool.close()


def test_a_dead_zygote_is_mended_before_the_caller_notices(pool: SandboxPool) -> None:
    before = pool.stats()["restarts"]
    for slot in pool._slots:
        os.kill(slot._zygote.process.pid, signal.SIGKILL)
    results = asyncio.run(pool.run_batch([Request("print(1)")] * 6))
    assert [r.stdout for r in results] == ["1\n"] * 6
    assert pool.stats()["restarts"] > before
    pool.check_health()


def test_tests_are_judged_apart(pool: SandboxPool) -> None:
    cases = [Case(args=(n,), expected=n + 1) for n in range(4)] + [Case(args=(0,), expected=0)]
    verdicts = asyncio.run(pool.judge_calls("def f(n): return n + 1", "f", cases))
    assert [v.passed for v in verdicts] == [True] * 4 + [False]
    scripts = [Case(stdin="2", stdout="4"), Case(stdin="3", stdout="4")]
    assert [v.passed for v in asyncio.run(pool.judge_stdio("print(int(input()) * 2)", scripts))] == [True, False]


def test_a_session_goes_on_wherever_its_cells_are_brought(pool: SandboxPool) -> None:
    async def story() -> None:
        name = "a session"
        _, cells = await pool.session_run(name, "x = [1]")
        stopped, cells = await pool.session_run(name, "x.append(2)\nwhile True: pass", cells)
        assert stopped.status in ("timeout", "cpu_limit") and [c.code for c in cells] == ["x = [1]"]
        result, cells = await pool.session_run(name, "x.append(3)", cells, value="x")
        assert result.value == [1, 3]
        await pool.close_session(name)  # as if the replica were gone
        result, again = await pool.session_run(name, "", cells, value="x")
        assert result.value == [1, 3] and again[:2] == cells  # with the times they took when they were live
        # What the caller says is the state, even if another call's cells came in between.
        result, _ = await pool.session_run(name, "", cells[:1], value="x")
        assert result.value == [1]

    asyncio.run(story())


def test_live_sessions_are_bounded_and_evicted_ones_come_back(pool: SandboxPool) -> None:
    async def story() -> None:
        held = {}
        for n in range(4):
            name = f"session {n}"
            _, held[name] = await pool.session_run(name, f"x = {n}")
        assert pool.stats()["sessions"] <= 2
        for n, (name, cells) in enumerate(held.items()):
            assert (await pool.session_run(name, "", cells, value="x"))[0].value == n

    asyncio.run(story())


def test_a_session_goes_on_after_the_lifetime_of_its_process() -> None:
    pool = SandboxPool(slots=1, limits=LIMITS, lifetime_s=0.5)

    async def story() -> None:
        _, cells = await pool.session_run("s", "x = 1")
        await asyncio.sleep(0.6)
        result, cells = await pool.session_run("s", "x += 1", cells, value="x")
        assert (result.status, result.value, [c.code for c in cells]) == ("ok", 2, ["x = 1", "x += 1"])

    try:
        asyncio.run(story())
    finally:
        pool.close()


anything = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=5) | st.integers(), max_size=3)
code_or_not = st.sampled_from(["x = 1", "x += 1", "1/0"]) | anything


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    session=st.sampled_from(["a", "b"]) | anything,
    code=code_or_not,
    cells=st.lists(code_or_not, max_size=3) | anything,
    value=st.none() | st.just("x") | anything,
)
def test_any_call_of_a_session_is_answered_or_refused(
    pool: SandboxPool, session: Any, code: Any, cells: Any, value: Any
) -> None:
    try:
        result, kept = asyncio.run(pool.session_run(session, code, cells, value))
    except ValueError as e:
        assert str(e).startswith(("request", "session"))
        return
    assert result.reason or result.ok
    codes = [cell if isinstance(cell, str) else cell.code for cell in kept]
    assert codes in (list(cells), [*cells, code])


def test_below_the_minimum_the_pool_refuses_to_start() -> None:
    with pytest.raises(SandboxUnavailable, match="expected one of"):
        SandboxPool(minimum="portable-ish")


def test_the_pool_never_imports_torch() -> None:
    code = "import sys, actors.sandbox_pool; print([m for m in ('torch', 'vllm', 'ray') if m in sys.modules])"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root).stdout == "[]\n"


@pytest.mark.engine
def test_a_killed_replica_leaves_nothing_and_another_answers() -> None:
    import ray
    from ray import serve

    ray.init(address="local", include_dashboard=False, num_cpus=4, log_to_driver=False)
    try:
        deployment = serve.deployment(SandboxPool).options(
            num_replicas=2, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=64, health_check_period_s=1
        )
        handle = serve.run(deployment.bind(slots=1, limits=LIMITS), name="pool", route_prefix=None)
        batch = [Request(f"print({n})") for n in range(20)]
        assert [r.stdout for r in handle.run_batch.remote(batch).result(timeout_s=60)] == [f"{n}\n" for n in range(20)]
        replica = next(p for p in _processes() if "ServeReplica:pool" in p[1])[0]
        below = _descendants(replica)
        assert below
        os.kill(replica, signal.SIGKILL)
        end = time.monotonic() + 5
        while any(map(_alive, below)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(map(_alive, below))
        answers = []
        for n in range(20):
            try:
                answers.append(handle.run.remote(Request(f"print({n})")).result(timeout_s=60).stdout)
            except ray.exceptions.RayError:
                answers.append(handle.run.remote(Request(f"print({n})")).result(timeout_s=60).stdout)
        assert answers == [f"{n}\n" for n in range(20)]
        asyncio.run(_killed_under_a_call(handle))
    finally:
        serve.shutdown()
        ray.shutdown()


async def _killed_under_a_call(handle: Any) -> None:
    """Who waits for a run hears within seconds that its replica is gone, and that the program is not to blame."""
    sleeping = asyncio.ensure_future(within(handle.run.remote(Request("import time; time.sleep(1.8)")), "sandbox", 30))
    end = time.monotonic() + 10
    while not (running := _replicas_with_a_run()) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    os.kill(running[0], signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(Failure) as caught:
        await sleeping
    assert caught.value.kind == "infra_error" and time.monotonic() - began < 5
    assert (await within(handle.run.remote(Request("print(1)")), "sandbox", 60)).stdout == "1\n"


def _replicas_with_a_run() -> list[int]:
    replicas = [pid for pid, name in _processes() if "ServeReplica:pool" in name]
    return [pid for pid in replicas if any(map(_is_walled_in, _descendants(pid)))]


def _is_walled_in(pid: int) -> bool:
    """Whether it is a run, with its last wall in place."""
    try:
        return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _processes() -> list[tuple[int, str]]:
    mine = set(_descendants(os.getpid()))
    found = []
    for pid in mine:
        try:
            found.append((pid, Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()))
        except OSError:
            continue
    return found


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    except OSError:
        pass
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_limits_of_the_config_reach_the_runs(pool: SandboxPool) -> None:
    assert pool.limits == Limits(**LIMITS)
    result = asyncio.run(pool.run(Request("x = bytearray(200 << 20)")))
    assert result.status == "memory_limit"


@pytest.mark.parametrize("broken", [0, 1])
def test_a_slot_that_does_not_work_is_found_wherever_it_waits(broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SandboxPool(slots=2, limits=LIMITS)
    try:
        pool.check_health()
        monkeypatch.setattr(pool._free.queue[broken], "run", lambda *_: Result("infra", "broken"))
        with pytest.raises(RuntimeError, match="infra: broken"):
            pool.check_health()
        assert pool.stats()["free"] == 2
    finally:
        pool.close()


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), SandboxUnavailable("gone"), KeyError("x")])
def test_what_a_slot_raises_stays_the_affair_of_one_run(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SandboxPool(slots=2, limits=LIMITS)

    def raising(*_: object) -> Result:
        raise error

    async def story() -> list[Result]:
        cases = await pool.judge_calls("def f(n): return n", "f", [Case(args=(n,), expected=n) for n in range(12)])
        assert {(v.passed, v.result.status) for v in cases} <= {(True, "ok"), (None, "infra")}
        return [v.result for v in cases]

    try:
        monkeypatch.setattr(pool._slots[0], "run", raising)
        results = asyncio.run(story())
        assert "ok" in [r.status for r in results]
        assert {r.reason for r in results} <= {"", f"the slot raised {type(error).__name__}: {error}"}
        assert pool.stats()["free"] == 2
        monkeypatch.setattr(Session, "run", raising)
        result, cells = asyncio.run(pool.session_run("s", "x = 1", ("y = 1",)))
        assert (result.status, cells) == ("infra", ("y = 1",)) and type(error).__name__ in result.reason
        monkeypatch.undo()
        assert asyncio.run(pool.session_run("s", "z = y", ("y = 1",), "z"))[0].value == 1
        assert [r.status for r in asyncio.run(pool.run_batch([Request("")] * 6))] == ["ok"] * 6
    finally:
        pool.close()


def test_a_slot_that_fails_is_the_last_to_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SandboxPool(slots=2, limits=LIMITS)
    try:
        broken = pool._free.queue[-1]
        monkeypatch.setattr(broken, "run", lambda *_: Result("infra", "broken"))
        for _ in range(4):
            assert asyncio.run(pool.run(Request("print(1)"))).stdout == "1\n"
    finally:
        pool.close()


def test_health_checks_take_no_slot_away_from_runs() -> None:
    """Serve looks after a replica while it works: whoever comes just then waits a moment."""
    pool = SandboxPool(slots=2, limits=LIMITS)

    async def both() -> list[str]:
        runs = asyncio.gather(*(pool.run(Request("print(1)")) for _ in range(60)))
        while not runs.done():
            await asyncio.to_thread(pool.check_health)
        return [result.status for result in await runs]

    try:
        assert set(asyncio.run(both())) == {"ok"}
    finally:
        pool.close()
