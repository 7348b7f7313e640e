"""Run directories to report on, written with the records and the layout that the stages use. Numbers are chosen, so
that tests can say what a report must show."""

import json
import math
import random

from pipeline.config import Config
from pipeline.records import Episode, Outcome, Probe, Problem, Skill, Task, ToolResult, Turn, Verdict, Vote
from pipeline.skills.extraction import SkillLibrary
from pipeline.store.manifest import seal_folder
from pipeline.store.metrics import Metrics
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.tables import write_keyed, write_records

CATEGORIES = ("code", "maths", "science")


def skill(category, i):
    return Skill(
        id=f"{category}_skill_{i}", category=category, intent="adds a step", method="m", difficulty="d", tool_hint="t",
        score=0.9, source="corpus.md",
    )  # fmt: skip


def episode(name, category, question, *, pruned=False, refined=False, outcome=None, answer="42"):
    skills = tuple(skill(category, i) for i in range(3))
    turns = [
        Turn(stage="draft", action="think", start=10, end=30, text=f"Let me draft: {question}"),
        Turn(
            stage="check", action="exec", start=30, end=60,
            text='<tool_call>{"name": "exec", "arguments": {"code": "print(6 * 7)"}}</tool_call>',
            tool=ToolResult(tool="exec", status="ok" if not refined else "error", content="42"),
        ),
    ]  # fmt: skip
    if pruned or refined:
        turns.append(
            Turn(
                stage="refine", action="edit", start=60, end=80, text="These two do not go together.",
                tool=ToolResult(tool="edit", status="ok", content=f"dropped {skills[2].id}"),
            )
        )  # fmt: skip
    turns.append(Turn(stage="finalize", action="submit", start=80, end=120, text="submitted"))
    return Episode(
        id=name, attempt=1,
        task=Task(id=name, group_id=name, category=category, skills=skills, seed=1),
        turns=tuple(turns),
        active=tuple(s.id for s in (skills[:2] if pruned else skills)),
        submitted=None if outcome else Problem.make(question, answer),
        outcome=outcome or Outcome(kind="ok"), policy_versions=(3,), prompt_tokens=10, sampled_tokens=100, wall_s=1.0,
    )  # fmt: skip


def verdict(e, decision, reason=""):
    votes = tuple(
        Vote(verifier=v, valid=decision == "accepted", answer=e.submitted.answer, rationale="computed")
        for v in ("symbolic", "executing")
    )
    return Verdict(problem_id=e.submitted.id, votes=votes, flags=(), decision=decision, reason=reason)


def probe(e, correct):
    return Probe(
        problem_id=e.submitted.id, n=8, correct=correct, k=4,
        pass_at_k=1 - math.comb(8 - correct, 4) / math.comb(8, 4), low=0.1, high=0.9, prober="mini:solver",
    )  # fmt: skip


def step(run, stage, number, rng, size=12, hostile=""):
    """One step: of each 12 episodes 6 are accepted (3 pruned), 3 rejected (1 pruned), 1 undecided, 1 ran out of turns,
    1 failed. Returns (episode, probe) of the accepted ones."""
    episodes, verdicts, probes = [], {}, {}
    for i in range(size):
        kind, name, category = i % 12, f"{stage}-{number}-{i}", CATEGORIES[i % 3]
        question = f"A box holds {rng.randrange(10**6)} balls ({name}). How many are left after {i} draws?{hostile}"
        if kind == 10:
            lost = Outcome(kind="model_error", reason="turn limit")
            episodes.append(episode(name, category, question, outcome=lost))
            continue
        if kind == 11:
            lost = Outcome(kind="infra_error", reason="replica died")
            episodes.append(episode(name, category, question, outcome=lost))
            continue
        e = episode(name, category, question, pruned=kind in (0, 1, 2, 6), refined=kind == 4)
        episodes.append(e)
        if kind < 6:
            verdicts[e.id, e.attempt] = verdict(e, "accepted")
            probes[e.id, e.attempt] = probe(e, rng.choice([0, 1, 1, 2, 3, 4, 8]))
        else:
            reason = "answers differ" + hostile if kind < 9 else "1 of 2 votes"
            verdicts[e.id, e.attempt] = verdict(e, "rejected" if kind < 9 else "undecided", reason)
    with run.new_step(stage, number) as folder:
        write_records(folder / "episodes.parquet", episodes, Episode)
        write_keyed(folder / "verdicts.parquet", verdicts, Verdict)
        write_keyed(folder / "probes.parquet", probes if stage != "sft" else {}, Probe)
        if stage == "mgpo":
            (folder / "state.json").write_text(json.dumps({"curriculum": curriculum(number, hostile)}))
    return [(e, probes[e.id, e.attempt]) for e in [e for e in episodes if e.submitted][:6]]


def curriculum(number, hostile=""):
    """As a step leaves it: of 30 skills one goes well, the others worse and worse."""
    skills = {f"{CATEGORIES[i % 3]}_skill_{i}{hostile}": [29.0 - i, float(i)] for i in range(30)}
    pairs = {"code_skill_0 code_skill_3": [0.0, 8.0], "code_skill_3 code_skill_6": [6.0, 1.0]}
    return {"proficiency": {"code": 0.1, "maths": 0.4, "science": 0.9}, "skills": skills, "pairs": pairs}


def upto(root, last, hostile="", mgpo_steps=12):
    """A run in which every stage up to `last` is done ("nothing": none)."""
    rng = random.Random(7)
    run = RunDir.open(root, Config(domain="mini"))
    with Metrics(run) as log:
        for stage in RUN_STAGES:
            if last == "nothing":
                break
            FILL[stage](run, log, rng, hostile, mgpo_steps)
            if stage == last:
                break
    return run


def _acquire(run, log, rng, hostile, mgpo_steps):
    skills = {"code": 6, "maths": 9, "science": 5}
    SkillLibrary(skill(category, i) for category, n in skills.items() for i in range(n)).save(run.path("skills"))
    never = {f"law{hostile}": "1 skills"}
    result = {"documents": 40, "candidates": 60, "kept": 20, "skills": skills, "never_offered": never}
    run.finish("acquire", result, 2.0)


def _sft(run, log, rng, hostile, mgpo_steps):
    for n in (1, 2):
        step(run, "sft", n, rng, 24, hostile)
    for n in range(1, 41):
        log.log("sft", n, {"loss": 0.2 + 2.5 * math.exp(-n / 8) + rng.random() * 0.05, "tokens": 4000})
    played = {"played": 24, "accepted": 14, "cloned": 12}
    run.finish("sft", {"trajectories": 48, "accepted": 24, "validity": 0.6, "steps": 40, "loss_last": 0.21,
                       "styles": {"at_once": played, "pruned": played}, "by_teacher": {f"big{hostile}": played},
                       "rejected": {f"rejected: 1 of 3{hostile}": 20, "turn limit": 4}}, 130.0)  # fmt: skip


def _mgpo(run, log, rng, hostile, mgpo_steps):
    for n in range(1, mgpo_steps + 1):
        step(run, "mgpo", n, rng, 24, hostile)
        t = n / mgpo_steps + 0.1 * rng.random()
        log.log("mgpo", n, {
            "hard_yield_per_1k": 1 + 2 * t, "solved_yield_per_1k": 0.5 + t, "accepted_rate": 0.5 + 0.3 * t,
            "submitted_rate": 0.9, "undecided_rate": 0.05,
            "difficulty": 0.4 + 0.2 * t, "reward": 1 + 0.6 * t, "prune_rate": 0.12 + 0.05 * rng.random(),
            "exec_error_rate": 0.1 - 0.05 * t, "duplicate_rate": 0.02, "turns": 5 + t, "sampled_tokens_per_s": 3000.0,
            **{f"proficiency/{c}": 0.2 * i + 0.3 * t for i, c in enumerate(CATEGORIES)},
        })  # fmt: skip
        log.log("mgpo-train", n, {
            "train/loss": -0.02 * n + 0.02 * rng.random(), "train/ref_kl": 0.004 * n, "train/engine_kl": 0.0008,
            "train/gate": 0.99, "train/gate_saturated": 0.003, "train/entropy": 0.9 - 0.02 * n,
        })  # fmt: skip
    run.finish("mgpo", {"steps": mgpo_steps, "episodes": 24 * mgpo_steps}, 410.0)


def _synthesize(run, log, rng, hostile, mgpo_steps):
    lines, facts = [], []
    for n in range(1, 11):
        for e, p in step(run, "synthesize", n, rng, hostile=hostile):
            lines.append({"question": e.submitted.question, "answer": e.submitted.answer})
            facts.append({
                "id": e.submitted.id, "category": e.task.category, "skills": [s.id for s in e.task.skills],
                "active": list(e.active), "answer_kind": "math", "episode_id": e.id, "pass_at_k": p.pass_at_k,
                "chance": 0.5 * (len(facts) % 2), "skeleton": f"has add {len(facts) % 3}",
                "votes": [], "pruned": len(e.active) < 3, "turns": len(e.turns),
            })  # fmt: skip
        log.log("synthesize", n, {"accepted": len(lines), "accepted_rate": 0.6})
    for name, rows in (("problems", lines), ("provenance", facts)):
        run.write_text(f"dataset/{name}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    seal_folder(run.path("dataset"), "dataset", ("problems.jsonl", "provenance.jsonl"), made_from={})
    run.finish("synthesize", {
        "accepted": len(lines), "episodes": 120, "validity": 0.6, "unsolved": 7, "guessable": 30, "skeletons": 3,
        "skeleton_entropy": 0.27, "skeleton_top_share": 0.34,
        "left_out": {"copies": 5, "answer stated in the question": 3}, "marked": {"unused skill": 2},
        "examples": {"copies": [{"question": f"How many are $\\frac{{4}}{{2}}$ and 1?{hostile}", "answer": "3"}],
                     "unused skill": [{"question": f"What is 1 + 1?{hostile}", "answer": f"2{hostile}"}] * 2},
    }, 95.0)  # fmt: skip


def _solve(run, log, rng, hostile, mgpo_steps):
    for n in range(1, 25):
        log.log("solve", n, {"reward": 0.4 + 0.008 * n + 0.05 * rng.random(), "response_tokens": 40 + rng.random()})
        log.log("solve-train", n, {"train/loss": 0.01 * rng.random()})
    run.finish("solve", {"steps": 24, "problems": 60, "reward_first": 0.42, "reward_last": 0.6}, 160.0)


def _evaluate(run, log, rng, hostile, mgpo_steps):
    kind = {"tries": 200, "accepted": 40, "paid": 20, "exported": 19, "exploits": 3}
    by_kind = {"vacuous" + hostile: kind}
    found = {"tries": 200, "exploit_share": 0.015, "by_fault": {"vacuous": 0.015}, "by_kind": by_kind}
    run.write_sealed("adversary.json", found)
    run.finish("evaluate", {
        "problems": 240, "samples": 4, "gain": 0.075,
        "before": {"mean": 0.425, "by_category": {"code": 0.3, "maths": 0.5, "science": 0.45},
                   "by_steps": {"1": 0.7, "2": 0.55, "3": 0.3, "4": 0.12}, "interval": [0.38, 0.47],
                   "measures": {"mean@4": {"value": 0.425}, "pass@1": {"value": 0.425}, "pass@4": {"value": 0.6}}},
        "after": {"mean": 0.5, "by_category": {"code": 0.4, "maths": 0.58, "science": 0.5},
                  "by_steps": {"1": 0.72, "2": 0.65, "3": 0.41, "4": 0.2}, "interval": [0.46, 0.54]},
    }, 40.0)  # fmt: skip


FILL = {
    "acquire": _acquire,
    "sft": _sft,
    "mgpo": _mgpo,
    "synthesize": _synthesize,
    "solve": _solve,
    "evaluate": _evaluate,
}
