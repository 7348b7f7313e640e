"""A small whole run on disk, every kind of file in it, made by the code that makes real ones: without Ray, in a second.
What a GPU or a teacher would have made of it is a few bytes. A stage goes on from what there is of it, as real ones
do."""

import json
import shutil

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from pipeline import domains, report
from pipeline.config.loading import load
from pipeline.flow import trajectories, warmup
from pipeline.pools.buffer import _write as write_rollouts
from pipeline.records import Episode, Probe, Rollout, Skill, Verdict
from pipeline.skills import asked, candidates
from pipeline.skills.extraction import SkillLibrary, render
from pipeline.stages import acquire, synthesize
from pipeline.store import accounts, events
from pipeline.store.digests import files_below, write_manifest
from pipeline.store.ledger import Ledger
from pipeline.store.metrics import Metrics
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.snapshot import CHECKPOINTS, registered
from pipeline.store.tables import write_keyed, write_records
from tests.pipeline.judged import episode, probe, rollout, task, verdict

SETTINGS = ["synthesize.target=6", "synthesize.in_flight=4", "mgpo.steps=3", "solve.steps=2", "solve.warmup={}"]
AS_SET = [x for setting in SETTINGS for x in ("--set", setting)]
STEPS = {"sft": 2, "mgpo": 3, "synthesize": 2, "solve": 2}
SIZE = 4
"""Episodes of a step."""
_VACUOUS = {"tries": 20, "accepted": 4, "paid": 2, "exported": 1, "exploits": 0}
ADVERSARY = {"tries": 20, "exploit_share": 0.0, "by_fault": {}, "by_kind": {"vacuous": _VACUOUS}}
"""What the adversary found."""


def config(mirror=None, seed=0):
    return load(None, [*SETTINGS, f"seed={seed}", *([f"mirror={mirror}"] if mirror else [])])


def make(root, mirror=None, upto="evaluate", done=True, seed=0):
    """A run whose stages up to `upto` are finished; that one only if `done`. Returns it open."""
    run = RunDir.open(root, config(mirror, seed))
    run.adopt_prompts(domains.of(config().domain).prompts.digests())
    with Metrics(run) as log:
        for stage, of in STAGES.items():
            events.append(run, "stage_started", stage=stage, steps=0, pid=1)
            result = of(run, log)
            if stage != upto or done:
                run.finish(stage, result, 1.0)
                events.append(run, "stage_finished", stage=stage)
            if stage == upto:
                if not done and RUN_STAGES[stage].issues_attempts:
                    out(run, stage)
                break
    if done and upto == "evaluate":
        run.write_sealed("adversary.json", ADVERSARY)
        report.write(run)
    return run


def out(run, stage):
    """Attempts of a step that is not on disk yet."""
    ledger = Ledger(run, stage)
    ledger.begin(STEPS[stage] + 1)
    for i in range(SIZE):
        ledger.issue(f"{stage}-{STEPS[stage] + 1:06d}-{i}")
    ledger.close()


def _acquire(run, log):
    names = ("first", "second", "third")
    for number, name in list(enumerate(names, start=1))[len(run.steps("acquire")) :]:
        skill = Skill(
            id=name, category="maths", intent=f"does the {name}", method="a\n\nb", difficulty="d", tool_hint="t",
            score=0.9, source="s.md", script="def f(x):\n    return x\n" if name == "first" else None,
        )  # fmt: skip
        with run.new_step("acquire", number) as folder:
            source = f"{name}.md"
            told = {"document": number - 1, "source": source, "path": source, "origin": None, "license": None}
            (folder / asked.REPLIES).write_text(json.dumps(told | {"reply": render(skill)}) + "\n")
    proposed, _, _ = acquire.proposals(run, domains.of(config().domain), 3, print)
    kept, settled = candidates.settle(proposed, 0.5)
    library = SkillLibrary(kept)
    library.save(run.path("skills"), candidates=candidates.written(settled))
    return {"documents": 3, "kept": len(library), "skills": {"maths": 3}}


def played(run, log, stage):
    """Steps of episodes: of each four one is rejected, one fails, two are accepted."""
    accounts.check(run, stage)
    ledger = Ledger(run, stage)
    for step in range(1 + len(run.steps(stage)), STEPS[stage] + 1):
        ledger.begin(step)
        names = [f"{stage}-{step:06d}-{i}" for i in range(SIZE)]
        keys = [(name, ledger.issue(name)) for name in names]
        made = [
            episode(task(n, names[0]), a, f"In {stage}, what is {step} + {i}?", str(step + i))
            for i, (n, a) in enumerate(keys)
        ]  # each stage asks something of its own: what was asked before is a copy
        for key in keys:
            ledger.judged(key, 10, {"proposer": 2.0, "committee": 1.0, "prober": 0.5})
        if (stage, step) == ("mgpo", 1):
            ledger.quarantine(keys[-1], {"deaths": ["a worker died"]})
        judged = {
            k: verdict(e, "rejected" if i == 2 else "accepted") for i, (k, e) in enumerate(zip(keys, made, strict=True))
        }
        probed = {k: probe(e) for k, e in zip(keys, made, strict=True) if judged[k].accepted and stage != "sft"}
        kept = {"sft": keys[:2], "mgpo": keys[:3]}.get(stage, [])
        with run.new_step(stage, step) as folder:
            if stage != "synthesize":
                write_rollouts(table([rollout(n, a, tokens=20) for n, a in kept]), folder / "rollouts.parquet")
            write_records(folder / "episodes.parquet", made, Episode)
            write_keyed(folder / "verdicts.parquet", judged, Verdict)
            write_keyed(folder / "probes.parquet", probed, Probe)
            account = ledger.segment(folder, {k: "trained" if k in kept else "filtered" for k in keys})
            state = {"sandbox_level": "strong"} if stage == "synthesize" else {}
            (folder / "state.json").write_text(json.dumps({**state, "ledger": account}))
            log.log(stage, step, {"accepted_rate": 0.75, "reward": step / 10, "hard_yield_per_1k": 1.0 + step})
        ledger.commit(account)
    ledger.close()


def train(run, stage, each):
    """A checkpoint after each step that the trainer has not seen, of so many rollouts."""
    snapshot = run.path("checkpoints", stage, CHECKPOINTS)
    seen = int(max(registered(snapshot.read_bytes()))[-6:]) if snapshot.exists() else 0
    for step in range(1 + seen, STEPS[stage] + 1):
        checkpoint(run, stage, step, step * each)


def table(rollouts):
    return pa.Table.from_batches([Rollout.to_arrow(rollouts)])


def checkpoint(run, stage, step, rollouts):
    """As the trainer and Ray Train leave it."""
    base = run.path("checkpoints", stage)
    folder = base / f"step-{step:06d}"
    (folder / "trainer" / "engine").mkdir(parents=True)
    rng = np.random.default_rng(step)
    save_file({"w": rng.normal(size=64).astype(np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "trainer" / "engine" / "mp_rank_00_model_states.pt").write_bytes(rng.bytes(300))
    state = {"step": step, "rollouts": rollouts, "world": 1, "zero_stage": 0, "dtype": "float32"}
    (folder / "trainer" / "state.json").write_text(json.dumps(state))
    write_manifest(folder, folder.name, files_below(folder), "trainer/manifest-0.json", step=step, rollouts=rollouts)
    for old in sorted(base.glob("step-*"))[:-2]:  # Ray Train deletes them
        shutil.rmtree(old)
    names = sorted(p.name for p in base.glob("step-*"))
    results = [{"checkpoint_dir_name": name, "metrics": {"reward": 0.5}} for name in names]
    (base / CHECKPOINTS).write_text(json.dumps({"ray_version": "2.60.0", "checkpoint_results": results}))


def _sft(run, log):
    played(run, log, "sft")
    trajectories.write(run, "sft", "extraction", [rollout("extraction-000000", 1, tokens=20)])
    if not run.path("checkpoints", "sft").exists():
        checkpoint(run, "sft", 5, 8)
    return {"steps": 5, "accepted": 6, "checkpoint": str(run.path("checkpoints", "sft", "step-000005"))}


def _mgpo(run, log):
    played(run, log, "mgpo")
    train(run, "mgpo", 3)
    for steps in (1, 2):
        events.append(run, "stage_restarted", stage="mgpo", steps=steps, cause="a worker died", pools="kept")
    return {"steps": 3, "episodes": 12, "checkpoint": str(run.path("checkpoints", "mgpo", "step-000003"))}


def _synthesize(run, log):
    played(run, log, "synthesize")
    return synthesize.export(run, config())


def _warmup(run):
    trajectories.write(run, "solve", "warmup", [rollout("warmup-000000", 1, tokens=20)])
    if not run.path("checkpoints", warmup.NAME).exists():
        checkpoint(run, warmup.NAME, 3, 6)
    made = {"solutions": 1, "left_out": {}, "steps": 3, "loss_first": 2.0, "loss_last": 0.5}
    run.finish(warmup.NAME, made | {"checkpoint": str(run.path("checkpoints", warmup.NAME, "step-000003"))}, 1.0)


def _solve(run, log):
    accounts.check(run, "solve")
    if run.result(warmup.NAME) is None:
        _warmup(run)
    ledger = Ledger(run, "solve")
    for step in range(1 + len(run.steps("solve")), STEPS["solve"] + 1):
        ledger.begin(step)
        keys = [(name, ledger.issue(name)) for name in (f"solve-{step:06d}-0/{i}" for i in range(SIZE))]
        if step == 1:
            ledger.quarantine(keys[0], {"deaths": ["a worker died"]})
        with run.new_step("solve", step) as folder:
            write_rollouts(table([rollout(n, a, tokens=20) for n, a in keys]), folder / "rollouts.parquet")
            account = ledger.segment(folder, dict.fromkeys(keys, "trained"))
            (folder / "state.json").write_text(json.dumps({"ledger": account}))
            log.log("solve", step, {"reward": 0.5})
        ledger.commit(account)
    ledger.close()
    train(run, "solve", SIZE)
    return {"steps": 2, "problems": 6, "checkpoint": str(run.path("checkpoints", "solve", "step-000002"))}


def _evaluate(run, log):
    score = {"mean": 0.5, "interval": [0.4, 0.6], "by_category": {"maths": 0.5}, "by_steps": {"1": 0.5}, "unknown": 0}
    for number in (1, 2)[len(run.steps("evaluate")) :]:
        with run.new_step("evaluate", number) as folder:
            (folder / "score.json").write_text(json.dumps(score))
            log.log("evaluate", number, {"mean": 0.5})
    return {"problems": 4, "samples": 2, "before": score, "after": score, "gain": 0.0}


STAGES = {
    "acquire": _acquire,
    "sft": _sft,
    "mgpo": _mgpo,
    "synthesize": _synthesize,
    "solve": _solve,
    "evaluate": _evaluate,
}
