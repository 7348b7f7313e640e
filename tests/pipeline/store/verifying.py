"""For tests of verifying and mending: the commands, on a made run, and what is found."""

from pipeline.store import verify
from pipeline.store.rundir import RunDir
from tests.pipeline import made, test_cli


def propose(capsys, *args):
    """(exit code, stdout, stderr) of a command on a made run, with the settings that it was made with."""
    return test_cli.propose(capsys, *args, *(made.AS_SET if args[0] not in ("report", "ledger") else ()))


def found(root):
    return [str(f) for f in verify.verify(RunDir(root))]
