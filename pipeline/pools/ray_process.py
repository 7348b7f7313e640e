"""Ray itself: a private one that this process starts and ends, or a cluster that it joins.

Invariant: what `start` starts, `close` ends, and a cluster that was joined goes on.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

import ray
from ray import serve
from ray._private import auto_init_hook
from ray._private.ray_constants import RAY_RUNTIME_ENV_HOOK
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from actors.meters import METERS
from pipeline.config import RayConfig
from pipeline.pools import environment
from pipeline.records import Failure, Lost
from pipeline.watch import verbosity

_KNOCK_S = 10.0
_ROOMY_CPUS = 8
"""From here on the Ray dashboard is started unasked."""

_SERVE_S = 120.0
"""How long Serve may take to start on a cluster."""
_SERVE: dict[str, Any] = {"proxy_location": "Disabled", "logging_config": {"log_level": "WARNING"}}
_START_SERVE = f"""
import sys
import ray
from ray import serve
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
serve.start(**{_SERVE!r})
"""


class RayProcess:
    def __init__(self, config: RayConfig):
        self._config = config
        self.private = False
        """Whether it was started here, and not joined."""
        self.dashboard = ""
        """Where the Ray dashboard is; "" where there is none."""

    def start(self) -> None:
        """Join the configured cluster, or start a private Ray. Raises Failure naming the address it could not join."""
        if ray.is_initialized():
            return
        # A thread of Serve's outlives our Ray for a moment; without this line it would connect us to any other Ray.
        auto_init_hook.enable_auto_connect = False
        address = self._config.joined
        if (address or "").startswith(("http://", "https://")):
            raise Failure(
                f"ray.address {address!r} takes jobs (`ray job submit --address …`); expected host:port, or auto"
            )
        self.private = address is None
        level = logging.INFO if verbosity.verbose() else logging.ERROR
        quiet: dict[str, Any] = {"logging_level": level, "log_to_driver": verbosity.verbose()}
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it tells of every process that a restart makes
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")  # pools share cores; no warnings about it
        on_terminate = signal.getsignal(signal.SIGTERM)
        store_mb = self._config.object_store_mb
        try:
            if self.private:
                cpus = self._config.num_cpus or usable_cpus()
                wanted = self._config.dashboard
                started = ray.init(
                    address="local",
                    num_cpus=cpus,
                    object_store_memory=None if store_mb is None else store_mb << 20,
                    # None: one that does not start is done without.
                    include_dashboard=wanted if wanted is not None else (None if cpus >= _ROOMY_CPUS else False),
                    runtime_env={"env_vars": environment.of_actor()},
                    **quiet,
                )
            else:
                _knock(address or "")
                started = ray.init(address=address, **quiet)  # no variables: Ray refuses those that a job sets itself
        except SystemExit:  # Ray's own answer to a SIGTERM that comes while it starts
            raise KeyboardInterrupt from None
        except (OSError, ValueError, RuntimeError) as e:
            if "Timed out waiting for file" in str(e):  # where a process of a private Ray, being late, names its port
                raise Lost(f"Ray did not start ({first_line(e)})") from None
            what = (
                "could not start a private Ray" if self.private else f"ray.address {address!r}: no Ray cluster answers"
            )
            raise Failure(f"{what} ({first_line(e)})", "infra_error") from None
        except Exception as e:  # what Ray raises where a busy machine does not start it in time
            raise Lost(f"Ray did not start ({first_line(e)})") from None
        finally:
            signal.signal(signal.SIGTERM, on_terminate)  # ray.init puts its own in, which would skip our clean-up
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        if not self.private and not _serve_runs():
            _start_serve()
        serve.start(**_SERVE)
        self.dashboard = started.dashboard_url or ""
        METERS.connect(_job())

    @property
    def logs(self) -> str:
        """Where Ray keeps the logs of its processes."""
        node = ray._private.worker._global_node
        return str(node.get_logs_dir_path()) if node is not None else "unknown"

    def damage(self) -> str | None:
        """A process of a private Ray that is gone, and without which nothing works any more."""
        if not self.private:
            return None
        node: Any = ray._private.worker._global_node
        if node is None:
            return "Ray"
        dead = {name for name, _ in node.dead_processes()} & {"gcs_server", "raylet"}
        return f"Ray's {min(dead)}" if dead else None

    def close(self, shutdown: bool = True) -> None:
        """End a private Ray, or leave the cluster that was joined.

        Without `shutdown`, what this process itself holds of Ray is left to its own end, which must come at once: a
        call of Serve's under way when work was cancelled, and made after a shutdown, ends the process with code 1.
        """
        METERS.disconnect()
        if shutdown:
            ray.shutdown()
            # Serve tells controllers apart by the job's number, which is 1 in this Ray and in the next one.
            serve.context._set_global_client(None)
        elif self.private:
            node: Any = ray._private.worker._global_node
            node.kill_all_processes(check_alive=False, allow_graceful=True)
            node.destroy_external_storage()


def _serve_runs() -> bool:
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _start_serve() -> None:
    """Start Serve on a cluster, as a job of its own that has neither package nor variables: those of the job that
    starts it stay with Serve, and reach the replicas of all jobs after. Raises Lost where it does not start."""
    env = {n: v for n, v in os.environ.items() if n not in (RAY_JOB_CONFIG_JSON_ENV_VAR, RAY_RUNTIME_ENV_HOOK)}
    env["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    command = [sys.executable, "-c", _START_SERVE, ray.get_runtime_context().gcs_address]
    with tempfile.TemporaryDirectory() as nowhere:  # Ray has the workers of a job import from where it was started, too
        try:
            done = subprocess.run(command, env=env, cwd=nowhere, capture_output=True, text=True, timeout=_SERVE_S)
        except subprocess.TimeoutExpired:
            raise Lost(f"Serve did not start within {_SERVE_S:g} s") from None
    if done.returncode and not _serve_runs():  # it may have been started by another at the same time
        raise Lost(f"Serve did not start ({(done.stderr.strip().splitlines() or ['no message'])[-1]})")


def _job() -> str:
    """The job that we are, as `ray job list` names it: by the submission where there was one, else by Ray's own id."""
    submitted: str | None = (environment.submitted().get("metadata") or {}).get("job_submission_id")
    return submitted or ray.get_runtime_context().get_job_id()


def _knock(address: str) -> None:
    """Raises OSError where nobody listens, which Ray itself finds out after minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def usable_cpus() -> int:
    """Cores that this process may use: its affinity, and the container's quota, which Ray knows how to read."""
    return min(len(os.sched_getaffinity(0)), int(ray._private.utils.get_num_cpus()))


def first_line(e: BaseException) -> str:
    """What an exception says, or its type where it says nothing."""
    return next(iter(str(e).strip().splitlines()), type(e).__name__)
