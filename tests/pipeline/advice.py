"""Advice, carried out to the letter: by a shell, and by our own commands. Only the work of a stage and of the adversary
is done without Ray, models and minutes."""

import contextlib
import io
import shlex
import subprocess

import pytest

from pipeline import stages
from pipeline.cli import main
from pipeline.commands import audit
from pipeline.records import Failure
from pipeline.store import verify
from tests.pipeline import made

WOULD_START = "the stage before which this run ends would start here"


class World:
    """Commands in this process, on runs that `made` has made. A stage does what `made` does, from what is on disk."""

    def __init__(self, monkeypatch):
        self.until = None
        """The stage before which runs end."""
        self.built_on = []
        """What was damaged when a stage began that builds on it."""
        self.codes = set()
        """With which commands have ended."""
        monkeypatch.setattr(stages, "with_restarts", self._with_restarts)
        monkeypatch.setattr(audit, "search", self._search)

    async def _with_restarts(self, context, stage, work):
        if stage == self.until:
            raise Failure(WOULD_START)
        found = verify.verify(context.run)
        self.built_on += [f"{stage}: {f}" for f in found if stage in verify.dependents(context.run, f)]
        return made.STAGES[stage](context.run, context.metrics)

    async def _search(self, *_):  # takes minutes
        return made.ADVERSARY | {"accepted": 4, "paid": 2, "exported": 1, "exploits": 0, "examples": {}}

    def propose(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            main(list(args))
        self.codes.add(end.value.code)
        return end.value.code, out.getvalue(), err.getvalue()

    def followed(self, command, root):
        """Follow what a command advises, until it ends well or advises nothing; returns what it said then, if it has
        not ended well."""
        for _ in range(8):
            code, out, err = self.propose(command, str(root))
            lines = [line for line in (out + err).splitlines() if "`" in line]
            if code == 0 or WOULD_START in err:
                return ""
            if not lines:
                return out + err
            self.follow(lines[0])
        return f"after eight times: {out}{err}"

    def follow(self, line):
        """Carry out the first command of a line, and where that tells of findings only, the command of the first."""
        command = line.split("`")[1]
        told = made.AS_SET if "with the --config and --set of the run" in line else ()
        for part in command.split(" && "):
            words = shlex.split(part)
            if words[0] != "propose":
                subprocess.run(part, shell=True, check=True)
                continue
            code, out, _ = self.propose(*words[1:], *told)
            if words[1] == "verify" and len(words) == 3:
                advised = [line for line in out.splitlines() if "`" in line]
                self.follow(advised[0])
            if code:
                return
