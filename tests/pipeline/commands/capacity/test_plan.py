"""`propose plan pools`: what it says of a config, of a run, of prices and GPUs, and what it refuses."""

import json

import pytest
import yaml

from pipeline.commands.keys import POOLS_KEYS
from tests.pipeline.made import make
from tests.pipeline.test_cli import propose

TIMES = {
    "pools": {
        "proposer": {"alone_s": 20, "slowdown": 0.02, "spread": 0.4},
        "sandbox": {"alone_s": 0.3, "spread": 1, "calls": 1.5},
        "committee": {"alone_s": 3, "slowdown": 0.02},
        "prober": {"alone_s": 6, "slowdown": 0.02},
    },
    "submitted": 0.95,
    "trainer": {"token_s": 0.0001, "step_s": 2},
    "between_s": 1,
}
GPUS = [
    "proposer.pool.num_gpus=1", "proposer.pool.max_ongoing=32", "prober.ladder.0.pool.num_gpus=1", "sandbox.slots=4",
    "trainer.use_gpu=true", "synthesize.max_episodes=100000",
]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "times.yaml"
    path.write_text(yaml.safe_dump(TIMES))
    return path


def planned(capsys, *words, sets=()):
    code, out, err = propose(capsys, "plan", "pools", "--json", *words, *(w for s in sets for w in ("--set", s)))
    assert code in (0, 2), err
    return json.loads(out)


def test_more_replicas_of_the_pool_that_binds_do_more_until_another_binds(capsys, file):
    flight = ["synthesize.in_flight=2000", "synthesize.target=900", "sandbox.slots=2"]
    rates = []
    for replicas in (1, 2, 64):
        found = planned(capsys, "--times", str(file), sets=[*GPUS, *flight, f"proposer.pool.max_replicas={replicas}"])
        rates.append(found["episodes_per_hour"])
        assert found["binds"] == ("proposer" if replicas < 64 else "sandbox")
        assert found["pools"]["proposer"]["replicas"] == replicas and found["gpus"] == replicas + 1
    assert list(found) == list(POOLS_KEYS)
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.1) and rates[2] > 1.5 * rates[1]
    assert found["pools"]["proposer"]["enough"] < 64 < found["pools"]["sandbox"]["most_per_hour"]
    assert found["pools"]["prober.ladder"]["busy"] < 0.8 <= found["pools"]["sandbox"]["busy"]


def test_what_is_too_little_at_a_time_keeps_all_pools_waiting(capsys, file):
    found = planned(capsys, "--times", str(file), sets=[*GPUS, "proposer.pool.max_replicas=8"])
    assert found["binds"] == "synthesize.in_flight"
    text = propose(capsys, "plan", "pools", "--times", str(file))[1]
    assert "binds: " in text and "episodes an hour" in text


def test_hours_and_money_follow_from_the_rate(capsys, file):
    prices = ["--gpu-hour", "2", "--cpu-hour", "0.5"]
    found = planned(capsys, "--times", str(file), *prices, sets=[*GPUS, "proposer.pool.max_replicas=3"])
    each = found["per_1000"]
    assert each["hours"] == pytest.approx(1000 / found["accepted_per_hour"], rel=1e-3)
    assert each["gpu_hours"] == pytest.approx(4 * each["hours"])
    assert each["money"] == pytest.approx(2 * each["gpu_hours"] + 0.5 * each["cpu_hours"])
    assert found["gpu_hours"] == pytest.approx(found["gpus"] * found["seconds"] / 3600, abs=1e-3)
    assert planned(capsys, "--times", str(file))["per_1000"]["money"] is None


def test_mgpo_has_the_trainer_beside_its_pools(capsys, file):
    sets = [*GPUS, "trainer.workers=2", "mgpo.steps=6", "mgpo.groups=20"]
    turns = planned(capsys, "--times", str(file), "--stage", "mgpo", sets=sets)
    assert turns["steps"] == 6 and turns["episodes"] == 6 * 160 and turns["gpus"] == 2 + 2
    assert turns["pools"]["trainer"]["replicas"] == 2
    overlapping = planned(capsys, "--times", str(file), "--stage", "mgpo", sets=[*sets, "mgpo.max_staleness=2"])
    assert overlapping["episodes_per_hour"] > turns["episodes_per_hour"]
    assert turns["memory"][0]["process"] == "training proposer"


REWRITES = "synthesize.rewrite={kind: metamath, seeds: mini:seeds}"
OURS = "teacher={kind: model, model: {path: mini:solver, pool: {num_gpus: 2, max_replicas: 3}}}"


def test_problems_that_are_rewritten_are_planned_for_the_teacher(capsys, file):
    """Who has the proposer's seats: a model of ours on its GPUs, or whoever an endpoint asks, on none."""
    asked = planned(capsys, "--times", str(file), sets=[*GPUS, REWRITES, OURS])
    assert "proposer" not in asked["pools"] and asked["pools"]["teacher"]["replicas"] == 3
    assert asked["pools"]["teacher"]["gpus"] == 6 and asked["gpus"] == 7, "and the prober's"
    assert {m["process"] for m in asked["memory"]} == {"teacher.model", "prober.ladder.0"}
    elsewhere = "teacher={kind: openai, base_url: http://127.0.0.1:1/v1, model: big, pool: {max_replicas: 2}}"
    far = planned(capsys, "--times", str(file), sets=[*GPUS, REWRITES, elsewhere])
    assert (far["pools"]["teacher"]["replicas"], far["gpus"]) == (2, 1)
    by_agent = planned(capsys, "--times", str(file), sets=[*GPUS, OURS])
    assert "teacher" not in by_agent["pools"] and by_agent["gpus"] == 2


def test_where_nothing_is_filtered_whatever_is_handed_in_counts(capsys, file):
    sets = [*GPUS, "synthesize.target=5000", "synthesize.in_flight=100"]
    kept, every = (
        planned(capsys, "--times", str(file), sets=[*sets, *more]) for more in ((), ["synthesize.filter=none"])
    )
    assert every["times"]["kept"] == pytest.approx(0.95, abs=0.02) and kept["times"]["kept"] < 0.6
    for found in (kept, every):
        assert 5000 <= found["episodes"] * found["times"]["kept"] < 5000 + 100
    text = propose(capsys, "plan", "pools", "--times", str(file), "--set", "synthesize.filter=none")[1]
    assert " are handed in" in text and "1,000 rows: " in text


def test_a_target_of_episodes_bounds_the_plan(capsys, file):
    sets = [*GPUS, "synthesize.target=5000", "synthesize.in_flight=100", "synthesize.target_episodes=300"]
    assert planned(capsys, "--times", str(file), sets=sets)["episodes"] == 300


def test_gpus_are_shared_out_so_that_no_pool_waits_for_another(capsys, file):
    sets = [*GPUS, "synthesize.in_flight=2000", "synthesize.target=900", "sandbox.pool.max_replicas=64"]
    found = planned(capsys, "--times", str(file), "--gpus", "20", sets=sets)
    proposer, prober = found["pools"]["proposer"], found["pools"]["prober.ladder"]
    assert 19 <= found["gpus"] == proposer["replicas"] + prober["replicas"] <= 20
    one_less = min(
        (row["replicas"] - 1) / row["replicas"] * row["most_per_hour"] for row in (proposer, prober)
    )  # moving a replica from one to the other would leave less
    assert one_less < min(proposer["most_per_hour"], prober["most_per_hour"])
    code, _, err = propose(capsys, "plan", "pools", "--times", str(file), "--gpus", "1", *_set(GPUS))
    assert code == 2 and "--gpus" in err


def test_a_thousand_replicas(capsys, file):
    sets = [
        *GPUS, "proposer.pool.max_replicas=600", "prober.ladder.0.pool.max_replicas=200",
        "prober.pool.max_replicas=200", "committee.pool.max_replicas=100", "sandbox.pool.max_replicas=200",
        "synthesize.in_flight=9600", "synthesize.target=4000",
    ]  # fmt: skip
    found = planned(capsys, "--times", str(file), sets=sets)
    assert sum(row["replicas"] for row in found["pools"].values()) == 1000
    assert found["simulated"]["episodes"] == 9600


def test_times_of_a_run_and_the_run_itself_beside_its_plan(capsys, tmp_path):
    root = tmp_path / "run"
    make(root, upto="synthesize").close()
    found = planned(capsys, "--from", str(root))
    assert found["times"]["episodes"] == found["measured"]["episodes"] == 4  # of the second wave
    assert found["times"]["kept"] == 0.75 and found["times"]["alone_s"]["committee"] <= 1.0
    other = planned(capsys, "--from", str(root), "--stage", "mgpo", sets=["mgpo.steps=5"])
    assert other["steps"] == 5 and other["times"]["episodes"] == 8
    assert other["measured"] is None  # the run has not done what is planned
    assert planned(capsys, "--from", str(root), "--stage", "mgpo")["measured"] is not None


def _set(sets):
    return [word for s in sets for word in ("--set", s)]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"pools": {**TIMES["pools"], "prober": {"alone_s": -1}}}, "pools.prober.alone_s: "),
        ({"pools": {"proposer": {"alone_s": 1}}}, "pools.committee: required"),
        ({**TIMES, "accepted": 2}, "accepted: "),
        ({**TIMES, "speed": 2}, "speed: unknown field"),
        ({**TIMES, "accepted": 0}, "none is accepted"),
        ([], "file: "),
    ],
)
def test_times_that_cannot_be_are_refused(capsys, tmp_path, change, told):
    path = tmp_path / "times.yaml"
    path.write_text(yaml.safe_dump(change))
    code, out, err = propose(capsys, "plan", "pools", "--times", str(path))
    assert code == 2 and told in err and "Traceback" not in err and not out


def test_times_come_from_one_place(capsys, tmp_path, file):
    for words, told in (
        ([], "--from RUN"),
        (["--times", str(file), "--from", str(tmp_path)], "--from RUN"),
        (["--times", str(tmp_path / "none")], "No such file"),
        (["--from", str(tmp_path / "none")], "none"),
    ):
        code, _, err = propose(capsys, "plan", "pools", *words)
        assert code == 2 and told in err, (words, err)
