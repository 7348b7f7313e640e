"""The command line: `propose`, which ends with one of the exit codes of `commands.groups.base`.

Invariant: stdout holds the result alone (one JSON object with `--json`), everything else goes to stderr; whatever
happens, a line there says what, and what to do about it.

The commands themselves are in `commands/groups`, a module a group. Heavy imports (Ray, torch, vLLM) happen inside the
commands that need them, so that `--help` and `config` are instant.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
from pathlib import Path

from typer.exceptions import TyperException

from pipeline.commands import screens
from pipeline.commands.groups import cluster, configs, data, datasets, diagnosis, everyday, models, skills
from pipeline.commands.groups.base import FAULT, INPUT, INTERRUPTED, MEANS, OK, RETRY, Interrupted, app
from pipeline.records import Failure
from pipeline.watch import verbosity

GROUPS = (everyday, configs, data, skills, datasets, models, cluster, diagnosis)
"""Modules of commands; the help shows them in this order."""


def main(argv: list[str] | None = None) -> None:
    # Ray ends, without a word, a process whose raylet is gone and whose parent is process 1: an orphaned worker, but
    # also a driver in many containers. Told of another process to look at, before it is imported, it leaves us alone.
    os.environ["RAY_RAYLET_PID"] = str(os.getpid())
    verbosity.choose(verbosity.Verbosity.NORMAL)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # files may have names that are no text
    try:
        code = app(argv, prog_name="propose", standalone_mode=False) or OK
        if code == INTERRUPTED:  # which the library makes of a KeyboardInterrupt
            raise KeyboardInterrupt
    except TyperException as e:
        if not screens.is_help(e):
            screens.tell(screens.explain(e))
        code = INPUT
    except Failure as e:
        code = RETRY if e.kind == "infra_error" else INPUT
        screens.tell(f"{e} (worth a retry: exit code {RETRY})" if code == RETRY else str(e))
    except KeyboardInterrupt:
        screens.tell("interrupted; the same command goes on from here")
        code = INTERRUPTED
    except Interrupted as e:
        screens.tell(f"interrupted; {e} goes on from here")
        code = INTERRUPTED
    except BrokenPipeError:
        code = FAULT  # whoever read our output has gone
    except Exception as e:
        if told := _not_installed(e) or _not_allowed(e):
            screens.tell(told)
            code = INPUT
        else:
            path = _keep(traceback.format_exc())
            screens.tell(f"{type(e).__name__}: {e} (this is a fault in propose; traceback: {path})")
            code = FAULT
    sys.stdout.flush()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # a submitted job, whose status shows the end of its log
        screens.tell(f"exit code {code}: {MEANS[code]}")
    if code == INTERRUPTED:
        os._exit(code)  # sys.exit would wait for threads that wait for slow storage
    sys.exit(code)


def _not_installed(e: Exception) -> str | None:
    """What to do about a package that only the whole stack brings; None if that is not what happened."""
    package = e.name.partition(".")[0] if isinstance(e, ModuleNotFoundError) and e.name else None
    if package in (None, "pipeline", "actors", "trainers", "sandbox"):
        return None
    return f"package {package}: not installed; expected the whole stack, by ./deploy/run.sh or pip install '.[cpu]'"


def _not_allowed(e: Exception) -> str | None:
    """What to do about a file or folder of somebody else's; None if that is not what happened."""
    if not isinstance(e, PermissionError) or e.filename is None:
        return None
    return f"{os.fsdecode(e.filename)}: {e.strerror}; expected what this user may read"


def _keep(text: str) -> Path:
    """Write down a traceback, in the working directory or, where that cannot be, among temporary files."""
    name = f"propose-error-{os.getpid()}.log"
    try:
        path = Path(name).absolute()
        path.write_text(text)
    except OSError:
        path = Path(tempfile.gettempdir(), name)
        path.write_text(text)
    return path


if __name__ == "__main__":
    main()
