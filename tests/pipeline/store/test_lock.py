"""One process at a time, whatever happens to the lock's file; and what a disk that takes nothing leaves possible."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import Config
from pipeline.records import Failure
from pipeline.store import files
from pipeline.store.rundir import RunDir
from tests.pipeline import made


@pytest.fixture
def root(tmp_path):
    return tmp_path / "run"


def test_a_lock_that_was_deleted_while_held_lets_nobody_else_in_and_its_holder_is_told(root):
    run = RunDir.open(root, Config(domain="mini"))
    (root / ".lock").unlink()
    with pytest.raises(Failure, match="in use by process"):
        RunDir.open(root, Config(domain="mini"))
    with pytest.raises(Failure, match=r"\.lock: was moved or deleted"), run.new_step("mgpo", 1):
        pytest.fail("a step was begun")
    run.close()
    RunDir.open(root, Config(domain="mini")).close()


def test_a_directory_that_was_moved_away_is_noticed(root):
    run = RunDir.open(root, Config(domain="mini"))
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(Failure, match="was moved or deleted"):
        run.check_mirror()
    run.close()


@pytest.mark.parametrize("what", ["link", "folder"])
def test_what_stands_in_the_place_of_the_lock_is_not_written_to(root, tmp_path, what):
    root.mkdir()
    target = tmp_path / "precious"
    target.write_text("precious")
    (root / ".lock").symlink_to(target) if what == "link" else (root / ".lock").mkdir()
    with pytest.raises(Failure, match=r"\.lock: is a link or a folder") as caught:
        RunDir.open(root, Config(domain="mini"))
    assert target.read_text() == "precious"
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    RunDir.open(root, Config(domain="mini")).close()
    assert target.read_text() == "precious"


def test_two_that_write_one_file_at_once_do_not_disturb_each_other(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.store.files import replace\n"
        "for _ in range(300):\n    replace(Path(sys.argv[1]), sys.argv[2] * 5000)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    writers = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "page", x], env=env) for x in "ab"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert (tmp_path / "page").read_text() in ("a" * 5000, "b" * 5000)
    assert [p.name for p in tmp_path.iterdir()] == ["page"]


def test_what_a_killed_writer_left_is_swept_and_what_a_live_one_writes_is_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".page.{dead.pid}-0.tmp").touch()
    (tmp_path / f".page.{os.getpid()}-0.tmp").touch()
    (tmp_path / ".other.tmp").touch()
    files.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.tmp", f".page.{os.getpid()}-0.tmp"]


def test_a_name_that_is_no_text_is_refused_in_one_line(capsys, tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff"))
    root.mkdir()
    (root / "config.yaml").touch()
    for command in ("acquire", "ledger", "report", "verify"):
        with pytest.raises(SystemExit) as end:
            main([command, "--run-dir", str(root)])
        _, err = capsys.readouterr()
        assert end.value.code == 2 and "is not UTF-8" in err and err.count("\n") == 1


def test_a_folder_that_this_user_may_not_look_into_is_one_line(tmp_path):
    """Where the tests run as root, without what lets root look everywhere."""
    root = tmp_path / "run"
    made.make(root).close()
    folders = ("stages", "steps/mgpo", "steps/mgpo/000002", "ledger/mgpo", "checkpoints/mgpo", "tensorboard", "skills")
    program = (
        "import os, sys\nfrom pipeline.cli import main\nroot = sys.argv[1]\n"
        "for folder in sys.argv[2:]:\n"
        "    os.chmod(f'{root}/{folder}', 0)\n"
        "    for command in ('verify', 'status', 'report'):\n"
        "        try: main([command, '--run-dir', root])\n"
        "        except SystemExit as e: print('ended', folder, command, e.code)\n"
        "    os.chmod(f'{root}/{folder}', 0o755)\n"
    )
    caps = "-dac_override,-dac_read_search"
    as_user = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"] if os.getuid() == 0 else []
    if as_user and shutil.which("setpriv") is None:
        pytest.skip("root may look everywhere")
    child = [*as_user, sys.executable, "-c", program, str(root), *folders]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(child, capture_output=True, text=True, timeout=240, cwd=tmp_path, env=env)
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ended")]
    assert len(ended) == 3 * len(folders), done.stderr
    assert all(code in ("0", "2") for _, _, code in ended), ended
    assert all(code == "2" for folder, command, code in ended if command == "verify" or folder == "stages"), ended
    assert "fault" not in done.stderr


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_of_a_finished_run_everything_can_be_read_on_a_disk_that_takes_nothing(capsys, disk, state):
    place = disk("4m")
    root = place / "run"
    made.make(root).close()
    if state == "full":
        with pytest.raises(OSError), (place / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
    else:
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    before = sorted(p.name for p in root.rglob("*") if p.is_file())
    for command in ("ledger", "verify", "report", *(["run"] if state == "full" else [])):
        with pytest.raises(SystemExit) as end:
            main([command, "--run-dir", str(root)])
        assert end.value.code == 0, (command, capsys.readouterr().err)
    name, new = str(root), str(place / "forked")
    for words in (
        ("verify", name, "--set-aside", "steps/synthesize/000002"),
        ("redo", "mgpo", name, "--no-run"),
        ("fork", name, "--set", "mgpo.steps=4", "--run-dir", new),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(words))
        assert end.value.code == (75 if state == "full" else 2) and capsys.readouterr().err.count("\n") == 1, words
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == before, "part of it was moved"
    assert sorted(p.name for p in place.iterdir()) == (["ballast", "run"] if state == "full" else ["run"])
