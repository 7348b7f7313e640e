"""What SFT learns from: where somebody else wrote it, and how it is collected."""

import asyncio
import json
from types import SimpleNamespace

from pipeline.config.loading import load
from pipeline.domains.mini.domain import SKILLS
from pipeline.flow.context import Context
from pipeline.pools.cluster import Cluster
from pipeline.pools.loaders import DatasetLoader
from pipeline.records import Rollout, Skill
from pipeline.skills.extraction import SkillLibrary
from pipeline.stages import sft
from pipeline.store import accounts
from pipeline.store.metrics import Metrics
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from pipeline.watch.progress import Progress
from tests.pipeline.judged import episode, rollout, verdict
from tests.pipeline.paced import handle


def test_given_trajectories_are_what_the_trainer_is_handed(tmp_path):
    talk = [{"role": role, "content": text} for role, text in (("user", "Go."), ("assistant", "## Draft\nFive coins."))]
    (tmp_path / "given.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 5)
    config = load(None, [f"sft.data={tmp_path / 'given.jsonl'}"])
    context = Context(config, RunDir.open(tmp_path / "run", config), None, None, None)
    for _ in range(2):  # the stage may begin again
        files, played, kept, _ = sft._given(context, context.domain.model(config.proposer.path))
        assert (played, kept) == (5, 5)
        assert asyncio.run(DatasetLoader(files, batch=2, epochs=3, seed=0).steps()) == 9


class Teaching:
    """Teachers whose second task comes back after `others` others; the committee rejects every third problem."""

    def __init__(self, config, others):
        actors = SimpleNamespace(once=lambda _, cls, *args, lasting: cls(*args))
        self.kept = Cluster.buffer(SimpleNamespace(config=config, actors=actors, start=lambda: None))
        self.played, self._others, self._enough = [], others, asyncio.Event()

    async def _this(self):
        return handle(self)

    teacher = committee = _this

    def buffer(self):
        return handle(self.kept)

    async def stop_teaching(self):
        self.stopped = True

    async def episode(self, task, attempt):
        place = len(self.played)
        if task.id.startswith("sft-000001-0001"):
            await self._enough.wait()
        self.played.append(task.id)
        if len(self.played) == self._others:
            self._enough.set()
        await self.kept.put(task.id, attempt, Rollout.to_arrow([rollout(task.id, attempt, task.group_id)]))
        return episode(task, attempt, question=f"Problem {task.id}?", answer=str(place))

    async def judge(self, problem, played, active):
        return verdict(played, "rejected" if int(played.id.split("-")[2]) % 3 == 0 else "accepted")


def test_a_straggler_holds_no_other_trajectory_and_every_rollout_finds_its_step(tmp_path, monkeypatch):
    """Ten steps of four; the first waits until all others were played, and none of theirs is lost meanwhile."""
    monkeypatch.setattr(sft, "STEP", 4)
    config = load(None, ["sft.trajectories=40", "synthesize.in_flight=3", "sft.balance=null"])
    common = {"method": "a\n\nb", "difficulty": "d", "tool_hint": "t", "score": 0.9, "source": "s"}
    run = RunDir.open(tmp_path / "run", config)
    SkillLibrary(Skill(id=s.id, category=s.category, intent=s.id, **common) for s in SKILLS).save(run.path("skills"))

    async def scene():
        teaching = Teaching(config, 39)
        with Metrics(run) as metrics, Progress() as progress:
            await asyncio.wait_for(sft._collect(Context(config, run, teaching, metrics, progress)), 60)
        return teaching

    teaching = asyncio.run(scene())
    steps = run.steps("sft")
    cloned = [[r.episode_id for r in read_records(step / "rollouts.parquet", Rollout)] for step in steps]
    assert cloned == [[f"sft-{n:06d}-{g:04d}-00" for g in (1, 2)] for n in range(1, 11)]
    assert accounts.check(run, "sft") | {"trained": 20, "filtered": 20, "live": 0} == accounts.check(run, "sft")
    assert teaching.kept._waiting == {} and teaching.stopped
    run.close()
