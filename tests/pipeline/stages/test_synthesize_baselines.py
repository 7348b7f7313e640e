"""Baselines: problems written from seeds, judged by the mini world's own committee, and problems that nobody checks."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from actors.committee import Committee
from pipeline import report
from pipeline.commands.keys import STAGE_KEYS
from pipeline.config.loading import load
from pipeline.domains.mini.truth import faults
from pipeline.flow.context import Context
from pipeline.pools import catalogue
from pipeline.records import Failure
from pipeline.scoring.problems import of_row
from pipeline.stages import synthesize
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Progress
from tests.actors.pools import handle, sandbox
from tests.pipeline.judged import probe
from tests.pipeline.stages.test_synthesize import Pools
from tests.pipeline.stages.test_synthesize import run as run_agent

JUDGES = "committee.verifiers=[{kind: symbolic}, {kind: executing}]"


class Cluster:
    """The pools as the catalogue makes them, in this process; a prober that is right one time in two."""

    def __init__(self, config, domain, run_batch):
        self._config, self._domain, self._run_batch = config, domain, run_batch
        self.drop = self.clear = SimpleNamespace(remote=self._nothing)
        self.probe = SimpleNamespace(remote=self._probe)

    async def seed_writer(self):
        spec = catalogue.seed_writer(self._config, self._domain, {})
        return handle(spec.cls(**spec.arguments), "episode")

    async def committee(self):
        pool = SimpleNamespace(run_batch=SimpleNamespace(remote=self._run_batch))
        return handle(Committee(self._config.committee, pool), "judge", "judge_many")

    async def prober(self):
        return self

    def buffer(self):
        return self

    async def sandbox_stats(self):
        return {"level": "strong"}

    async def _nothing(self, *_):
        return None

    async def _probe(self, problem, prober, seed, enough=1):
        return probe(SimpleNamespace(submitted=problem), pass_at_k=0.5)


@pytest.fixture(scope="module")
def run_batch():
    pool, opened = sandbox()
    yield opened.run_batch.remote
    pool.close()


def written(root, run_batch, *sets):
    config = load(None, ["synthesize.in_flight=8", "committee.spot_checks=0", "committee.canaries=0", JUDGES, *sets])
    run = RunDir.open(root, config)
    try:
        with Metrics(run) as metrics, Progress() as progress:
            context = Context(config, run, None, metrics, progress)
            cluster = Cluster(config, context.domain, run_batch)
            context = Context(config, run, cluster, metrics, progress)
            result = asyncio.run(asyncio.wait_for(synthesize.run(context), 120))
            run.finish("synthesize", result, 1.0)
        report.write(run)  # a page can be made of it
        return result
    finally:
        run.close()


def rows(root, name="problems"):
    return [json.loads(line) for line in (root / "dataset" / f"{name}.jsonl").read_text().splitlines()]


def wrong(root):
    """What is wrong with each row, by the generator's own rules."""
    origins = rows(root, "provenance")
    return [faults(of_row(row), origin["category"], ()) for row, origin in zip(rows(root), origins, strict=True)]


METAMATH = "synthesize.rewrite={kind: metamath, seeds: mini:seeds}"
WIZARDMATH = "synthesize.rewrite={kind: wizardmath, seeds: mini:seeds, rounds: 2}"


def test_rewritten_problems_pass_the_committee_and_say_where_they_come_from(tmp_path, run_batch):
    found = written(tmp_path, run_batch, METAMATH, "synthesize.target=12")
    assert (found["accepted"], found["ended_by"]) == (12, "problems")
    assert set(found) == set(STAGE_KEYS["synthesize"])
    assert not any(wrong(tmp_path))
    origins = rows(tmp_path, "provenance")
    assert {origin["operations"][0] for origin in origins} == {"metamath"}
    assert "rephrase" in {origin["operations"][1] for origin in origins}
    assert len({origin["seed"] for origin in origins}) == 12  # each seed once before any comes again
    assert all(origin["skills"] == [] and origin["decision"] == "accepted" for origin in origins)
    assert {origin["proposer"] for origin in origins} == {"scripted, rewriting by metamath"}
    card = (tmp_path / "dataset" / "README.md").read_text()
    assert "accepted by a committee" in card and "- mini:seeds" in card


def test_unfiltered_whatever_was_handed_in_is_a_row_and_the_card_says_so(tmp_path, run_batch):
    kept, every = tmp_path / "kept", tmp_path / "every"
    sets = (WIZARDMATH, "synthesize.target=200", "synthesize.target_episodes=24")
    one = written(kept, run_batch, *sets)
    other = written(every, run_batch, *sets, "synthesize.filter=none")
    assert (one["episodes"], other["episodes"]) == (24, 24) and one["ended_by"] == other["ended_by"] == "episodes"
    assert one["validity"] == other["validity"]  # the same episodes: filtering is the only difference
    assert not any("wrong" in found for found in wrong(kept)) and frozenset({"wrong"}) in wrong(every)
    assert one["accepted"] < other["accepted"]
    assert {tuple(row.items()) for row in rows(kept)} < {tuple(row.items()) for row in rows(every)}
    origins = rows(every, "provenance")
    assert {origin["decision"] for origin in origins} == {"accepted", "rejected"}
    assert all((origin["pass_at_k"] is None) == (origin["decision"] == "rejected") for origin in origins)
    card = (every / "dataset" / "README.md").read_text()
    assert "not checked" in card and f"| rows that it accepted | {one['accepted'] + one['unsolved']} |" in card
    run = RunDir.look(every)
    assert "Nobody was to check them" in (every / "report.html").read_text()
    assert report.summary(run)["mean_pass_at_k"] == 0.5  # of those that were probed


def test_a_budget_of_episodes_ends_the_agents_work_too_and_begins_none_beyond_it(tmp_path):
    pools = Pools(lambda n: n)
    found = run_agent(tmp_path / "r", pools, target=100, sets=["synthesize.target_episodes=13"])
    assert (found["episodes"], found["ended_by"], len(pools.begun)) == (13, "episodes", 13)
    assert found["accepted"] == 8  # of 0 to 12 those that three does not divide


def test_what_cannot_be_rewritten_is_refused(tmp_path, run_batch):
    code = {"question": "Write f.", "answer": "def f(): ...", "checks": [{"entry": "f", "args": [], "expected": 1}]}
    (tmp_path / "code.jsonl").write_text(json.dumps(code) + "\n")
    with pytest.raises(Failure, match=r"rewrite\.seeds .*code\.jsonl: every answer is a program"):
        written(tmp_path / "r", run_batch, f"synthesize.rewrite={{kind: metamath, seeds: {tmp_path}/code.jsonl}}")
    with pytest.raises(Failure, match=r"nowhere\.jsonl: no such file"):
        written(tmp_path / "s", run_batch, "synthesize.rewrite={kind: metamath, seeds: nowhere.jsonl}")
    for sets, says in (
        (["synthesize.rewrite={kind: promptcot, seeds: x}"], "metamath.*wizardmath"),
        (["synthesize.filter=none", "synthesize.difficulty=[{low: 0, high: 1, share: 1}]"], "with filter none nobody"),
        ([METAMATH, "synthesize.proposer={path: x}"], "proposer and rewrite: each says who writes"),
    ):
        with pytest.raises(Failure, match=says):
            load(None, sets)
