"""The run directory: one holder, one config, and nothing half-written under a final name."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.config.loading import load
from pipeline.records import Failure
from pipeline.store.files import whole_folder
from pipeline.store.identity import default_root
from pipeline.store.rundir import RunDir


@pytest.fixture
def root(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run(root):
    run = RunDir.open(root, Config(domain="mini"))
    yield run
    run.close()


def test_a_directory_reopens_for_the_same_config(root):
    RunDir.open(root, Config(domain="mini")).close()
    RunDir.open(root, Config(domain="mini")).close()


def test_another_config_is_refused_with_the_field_named(root):
    run = RunDir.open(root, Config(domain="mini"))
    run.finish("acquire", {}, 1.0)
    run.close()
    before = (root / "config.yaml").read_text()
    with pytest.raises(Failure) as caught:
        RunDir.open(root, load(None, ["mgpo.objective.omega=0.7", "seed=3"]))
    text = str(caught.value)
    assert "\n" not in text and str(root) in text and "and 1 more" in text
    assert "seed was 0, is now 3" in text or "mgpo.objective.omega was 0.5, is now 0.7" in text
    assert (root / "config.yaml").read_text() == before
    RunDir.open(root, Config(domain="mini")).close()  # and the refusal let go of the lock


def test_a_run_that_has_made_nothing_yet_takes_another_config(root):
    RunDir.open(root, load(None, ["acquire.corpus=[/typo]"])).close()
    RunDir.open(root, Config(domain="mini")).close()
    assert RunDir.read(root)[1] == Config(domain="mini")


def test_a_run_may_go_on_with_other_resources(root):
    RunDir.open(root, Config(domain="mini")).close()
    elsewhere = load(None, ["ray.num_cpus=4", "sandbox.pool.max_replicas=3", "watchdog_s=5"])
    RunDir.open(root, elsewhere).close()
    _, config = RunDir.read(root)
    assert config == elsewhere


def test_the_default_root_follows_what_is_computed_not_where():
    base = default_root(Config(domain="mini"))
    assert default_root(load(None, ["ray.num_cpus=4"])) == base
    assert default_root(load(None, ["seed=1"])) != base


def test_a_config_that_was_broken_by_hand_is_one_line(root):
    run = RunDir.open(root, Config(domain="mini"))
    run.finish("acquire", {}, 1.0)
    run.close()
    for broken in ("seed: [", "- 1\n", ""):
        (root / "config.yaml").write_text(broken)
        with pytest.raises(Failure, match=r"config\.yaml"):
            RunDir.open(root, Config(domain="mini"))


def test_the_second_process_is_told_who_holds_it_and_gets_in_when_that_one_dies(root):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.config import Config\n"
        "from pipeline.store.rundir import RunDir\n"
        "run = RunDir.open(Path(sys.argv[1]), Config(domain='mini'))\nprint('held', flush=True)\ntime.sleep(120)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Failure, match=f"in use by process {holder.pid}"):
            RunDir.open(root, Config(domain="mini"))
        RunDir.read(root)  # a report needs no lock
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=30)
        holder.stdout.close()
    RunDir.open(root, Config(domain="mini")).close()


def test_reading_what_is_no_run(tmp_path):
    with pytest.raises(Failure, match=r"no config\.yaml"):
        RunDir.read(tmp_path)


# ---------------------------------------------------------------- steps


def test_a_step_interrupted_midway_does_not_exist(run):
    with pytest.raises(KeyboardInterrupt), run.new_step("mgpo", 1) as path:
        (path / "episodes.parquet").write_text("half")
        raise KeyboardInterrupt
    assert run.steps("mgpo") == []
    with run.new_step("mgpo", 1) as path:
        assert list(path.iterdir()) == [], "nothing of the first try is left"
        (path / "state.json").write_text("{}")
    (step,) = run.steps("mgpo")
    assert step.name == "000001" and (step / "state.json").read_text() == "{}"


def test_a_process_killed_inside_a_step_leaves_no_step(root):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.config import Config\n"
        "from pipeline.store.rundir import RunDir\n"
        "run = RunDir.open(Path(sys.argv[1]), Config(domain='mini'))\n"
        "with run.new_step('sft', 1) as path:\n"
        "    (path / 'a').write_text('half')\n    print('inside', flush=True)\n    time.sleep(120)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "inside\n"
    finally:
        child.kill()
        child.wait(timeout=30)
        child.stdout.close()
    run = RunDir.open(root, Config(domain="mini"))
    assert run.steps("sft") == []
    with run.new_step("sft", 1):
        pass
    assert len(run.steps("sft")) == 1
    run.close()


def test_a_gap_between_steps_is_named(run):
    for number in (1, 2, 3):
        with run.new_step("mgpo", number):
            pass
    assert [p.name for p in run.steps("mgpo")] == ["000001", "000002", "000003"]
    shutil.rmtree(run.path("steps", "mgpo", "000002"))
    with pytest.raises(Failure, match="step 2 is missing although step 3 exists"):
        run.steps("mgpo")


def test_a_full_disk_is_one_line_and_leaves_no_step(run):
    with pytest.raises(Failure, match="no space left") as caught, run.new_step("mgpo", 1):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.kind == "infra_error"
    assert run.steps("mgpo") == []


# ---------------------------------------------------------------- files and stages


def test_a_write_that_fails_keeps_the_old_file(run, monkeypatch):
    run.write_text("stages/sft.json", "old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failure, match="no space left"):
        run.write_text("stages/sft.json", "new")
    assert run.path("stages", "sft.json").read_text() == "old"


def test_a_stage_is_done_when_its_result_is_there(run):
    assert run.result("sft") is None
    run.finish("sft", {"accepted": 3}, 1.23456)
    assert run.result("sft") == {"stage": "sft", "wall_s": 1.23, "result": {"accepted": 3}}
    run.path("stages", "sft.json").write_text("{")
    with pytest.raises(Failure, match=r"sft\.json: is not what was written"):
        run.result("sft")


def test_texts_are_utf8_whatever_the_locale(root):
    program = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.config import Config\n"
        "from pipeline.store.rundir import RunDir\n"
        "run = RunDir.open(Path(sys.argv[1]), Config(domain='mini', name=chr(969)))\n"
        "run.write_json('a.json', {'q': chr(931)})\n"
        "RunDir.read(Path(sys.argv[1]))\n"
    )
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program, str(root)], env=env, check=True, timeout=60)
    assert json.loads((root / "a.json").read_text(encoding="utf-8")) == {"q": "Σ"}


# ---------------------------------------------------------------- places that cannot be written


def test_object_storage_is_said_to_be_unsupported():
    with pytest.raises(Failure, match="local path"):
        RunDir.open(Path("s3://bucket/run"), Config(domain="mini"))


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(Failure, match="expected a directory"):
            RunDir.open(place, Config(domain="mini"))


def test_a_directory_this_user_may_not_write_to(tmp_path):
    """As another user where the tests run as root, for root may write anywhere."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom pipeline.config import Config\n"
        "from pipeline.records import Failure\nfrom pipeline.store.rundir import RunDir\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: RunDir.open(Path(sys.argv[1]) / 'run', Config(domain='mini'))\n"
        "except Failure as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(locked)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "Permission denied; expected a directory this user may write to" in done.stdout
    assert list(locked.iterdir()) == []


def test_closing_lets_the_next_one_in_at_once(root):
    for _ in range(3):
        run = RunDir.open(root, Config(domain="mini"))
        with pytest.raises(Failure, match="in use"):
            RunDir.open(root, Config(domain="mini"))
        run.close()
        run.close()  # twice does no harm


def test_a_folder_takes_the_place_of_another_or_leaves_it_where_it_is(tmp_path, monkeypatch):
    final = tmp_path / "skills"
    final.mkdir()
    (final / "mine").write_text("mine")

    def written():
        with whole_folder(final, stays=lambda name: name == "mine") as new:
            (new / "ours").write_text("ours")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(Failure, match="Input/output error"):
            written()
    assert [p.name for p in tmp_path.rglob("*")] == ["skills", "mine"]
    final.rename(tmp_path / ".skills.old")  # as a process leaves it that is killed between two names
    written()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mine", "ours", "skills"]
