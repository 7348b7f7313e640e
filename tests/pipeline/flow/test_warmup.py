"""A solver's warm-up: which solutions it learns from, what is handed to the trainer, and that it is done once."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.chat_templates import chat_format
from pipeline.commands import aside, ledger
from pipeline.config import SFTConfig
from pipeline.config.loading import load
from pipeline.dataset import folder
from pipeline.dataset.card import About
from pipeline.flow import training, trajectories, warmup
from pipeline.flow.context import Context
from pipeline.records import Failure, Problem, Rollout
from pipeline.store import accounts
from pipeline.store.metrics import Metrics
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.tables import read_records
from pipeline.store.verify import manifested
from pipeline.watch.progress import Progress
from tests.pipeline.judged import rollout

CODE = Problem.make(
    "Write f that adds 1.", "def f(x): return x + 1", "code", [json.dumps({"entry": "f", "args": [1], "expected": 2})]
)


def numbered(n):
    return Problem.make(f"Mia has {n} stones. Mia finds 5 more. How many stones does Mia have now?", str(n + 5))


@pytest.mark.parametrize(
    "problem, solution, said",
    [
        (numbered(2), "2 + 5 = 7\n\\boxed{7}", "2 + 5 = 7\n\\boxed{7}"),
        (numbered(2), "So it is 7.\n", "So it is 7.\n\\boxed{7}"),  # GRPO will ask for the box
        (numbered(2), "2 + 5 = 8\n\\boxed{8}", None),
        (numbered(2), r"\boxed{\frac{14}{2}}", r"\boxed{\frac{14}{2}}"),  # nobody said that it differs
        (CODE, "So:\n```python\ndef f(x):\n    return 1 + x\n```", "So:\n```python\ndef f(x):\n    return 1 + x\n```"),
        (CODE, "Add one to it.", None),
    ],
)
def test_a_solution_ends_in_its_answer_or_is_not_learned(problem, solution, said):
    assert warmup.taught(problem, solution) == said


class Trained(Exception):
    pass


@pytest.fixture
def trainer(monkeypatch):
    """In place of the trainer: notes what it was given and leaves a checkpoint; breaks where it is told to."""
    seen = SimpleNamespace(runs=[], breaks=False)

    async def train(context, logged, spec, loader, total):
        if seen.breaks:
            raise Trained("gone")
        rows = loader.kept
        seen.runs.append((logged, spec, total, rows))
        for step in range(1, total + 1):
            context.metrics.log(logged, step, {"loss": 2.0 / step})
        checkpoint = context.run.path("checkpoints", spec.name, f"step-{total:06d}")
        checkpoint.mkdir(parents=True)
        return SimpleNamespace(checkpoint=checkpoint)

    monkeypatch.setattr(warmup, "train_with_progress", train)
    return seen


def actor(cls, files, batch, epochs, seed):
    loader = cls(files, batch, epochs, seed)
    steps = SimpleNamespace(remote=loader.steps)
    return SimpleNamespace(steps=steps, kept=[r for f in files for r in read_records(Path(f), Rollout)])


def own(run, problems, solutions):
    """A data set as synthesis leaves one, as far as the warm-up reads it."""
    origins = [{"id": p.id, "solution": s, "votes": []} for p, s in zip(problems, solutions, strict=True)]
    folder.publish(run.path("dataset"), problems, [], origins, About("d", len(problems)), run="r", made_from={})


def warm(root, problems, *sets, solutions=None, dev=()):
    config = load(None, ["solve.warmup={epochs: 2, batch: 3}", *sets])
    run = RunDir.open(root, config)
    try:
        if solutions is not None:
            own(run, problems, solutions)
        with Metrics(run) as metrics, Progress() as progress:
            context = Context(config, run, SimpleNamespace(actor=actor), metrics, progress)
            base = context.domain.model(config.solve.base.path)
            posed = [p for p in problems if p not in dev]
            return run, base, asyncio.run(warmup.warmed(context, base, posed, dev))
    finally:
        run.close()


def texts(rows, base):
    chat = chat_format(base)
    return [chat.decode([t for t, m in zip(r.token_ids, r.loss_mask, strict=True) if m]) for r in rows]


def test_the_solutions_of_the_runs_own_data_set_are_what_the_trainer_is_handed(tmp_path, trainer):
    problems = [numbered(n) for n in range(2, 9)]
    solutions = [f"{n} + 5 = {n + 5}\n\\boxed{{{n + 5}}}" for n in range(2, 9)]
    solutions[3], solutions[4] = None, "\\boxed{99}"
    run, base, begins = warm(tmp_path / "r", problems, solutions=solutions, dev=problems[:1])
    ((logged, spec, total, rows),) = trainer.runs
    assert (logged, spec.name, total) == ("solve-warmup", "solve.warmup", 4)  # four solutions, batches of 3, two epochs
    assert (spec.base_model, spec.objective, spec.publish_every) == (base, SFTConfig(), None)
    assert texts(rows, base) == [solutions[i] for i in (1, 2, 5, 6)]
    prompt = chat_format(base).decode(rows[0].token_ids[: rows[0].loss_mask.index(1)])
    assert problems[1].question in prompt and all(r.terminal_reward == 1 for r in rows)
    told = warmup.told(run)
    assert told["left_out"] == {"no solution": 1, "comes to another answer": 1}
    assert (told["solutions"], told["loss_first"], told["loss_last"]) == (4, 2.0, 0.5)
    found: list[str] = []
    account = accounts._stage(run, "solve", found)
    assert (found, account["taught"], account["totals"]["issued"]) == ([], 4, 0)
    assert "before it, SFT on 4 worked solutions" in ledger.render({"stages": {"solve": account}, "findings": []})
    assert begins == run.path("checkpoints", "solve.warmup", "step-000004") == warmup.begun_with(run, base)


def test_a_warm_up_that_is_done_is_not_done_again_and_one_that_was_interrupted_is(tmp_path, trainer):
    problems, solutions = [numbered(n) for n in range(3)], [rf"\boxed{{{n + 5}}}" for n in range(3)]
    trainer.breaks = True
    with pytest.raises(Trained):
        warm(tmp_path / "r", problems, solutions=solutions)
    assert warmup.told(RunDir.look(tmp_path / "r")) is None
    trainer.breaks = False
    for _ in range(2):
        _, _, begins = warm(tmp_path / "r", problems)
    assert len(trainer.runs) == 1 and begins.is_dir()


def test_all_that_it_leaves_is_of_the_stage_that_redo_takes_away(tmp_path, trainer):
    run, _, _ = warm(tmp_path / "r", [numbered(1)], solutions=[r"\boxed{6}"])
    names = {path.as_posix() for path in aside.left_by(run.root, "solve")}
    assert names == {"stages/solve.warmup.json", "checkpoints/solve.warmup", "solutions"}
    assert aside.stage_of({"stage": "solve-warmup"}) == "solve"


def test_what_sft_cloned_beside_its_steps_stays(tmp_path, trainer):
    run = RunDir.open(tmp_path / "r", load(None, ["solve.warmup={epochs: 2, batch: 3}"]))
    cloned = trajectories.write(run, "sft", "extraction", [rollout("extraction-000000", tokens=20)])
    run.close()
    before = cloned.read_bytes()
    run, _, _ = warm(tmp_path / "r", [numbered(1)], solutions=[r"\boxed{6}"])
    assert cloned.read_bytes() == before
    for stage in ("sft", "solve"):
        name = RUN_STAGES[stage].gathers
        assert list(manifested(run, run.path(name), name)) == []


def test_without_being_asked_for_there_is_none(tmp_path, trainer):
    run, base, begins = warm(tmp_path / "r", [numbered(1)], "solve.warmup=null", solutions=[r"\boxed{6}"])
    assert (begins, warmup.told(run), trainer.runs) == (base, None, [])


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_the_users_has_them_in_a_column(tmp_path, trainer):
    rows = [{"question": numbered(n).question, "answer": str(n + 5)} for n in range(4)]
    for row, solution in zip(rows, ("Five more: 5.", None, "  ", "\\boxed{8}"), strict=True):
        row |= {"Solution": solution}
    file = lines(tmp_path / "own.jsonl", *rows)
    problems = [numbered(n) for n in range(4)]
    _, base, _ = warm(tmp_path / "a", problems, f"solve.data={file}")
    assert texts(trainer.runs[-1][3], base) == ["Five more: 5.\n\\boxed{5}", "\\boxed{8}"]
    # Another file than GRPO's, whose problems that GRPO keeps for dev stay away.
    warm(tmp_path / "b", problems, "solve.data=nowhere.jsonl", f"solve.warmup.data={file}", dev=problems[3:])
    assert texts(trainer.runs[-1][3], base) == ["Five more: 5.\n\\boxed{5}"]


def test_what_is_longer_than_the_solver_may_answer_is_left_out(tmp_path, trainer):
    problems, solutions = [numbered(1), numbered(2)], [r"\boxed{6}", "2 + 5 = 7\n" * 40 + r"\boxed{7}"]
    run, _, _ = warm(tmp_path / "r", problems, "solve.sampling.max_tokens=20", solutions=solutions)
    assert warmup.told(run)["left_out"] == {warmup.TOO_LONG: 1}


@pytest.mark.parametrize(
    "rows, says",
    [
        ([{"question": "q", "answer": "1"}], r"none of 1 problems has a worked solution .*1 no solution.*`solution`"),
        ([{"question": "q", "answer": "1", "solution": ["a"]}], r"x\.jsonl:1: solution is list; expected text"),
        ([{"question": "q"}], r"x\.jsonl:1: no field answer"),
    ],
)
def test_data_without_solutions_are_refused_by_a_line(tmp_path, trainer, rows, says):
    file = lines(tmp_path / "x.jsonl", *rows)
    with pytest.raises(Failure, match=says) as raised:
        warm(tmp_path / "r", [Problem.make("q", "1")], f"solve.data={file}")
    assert raised.value.kind == "data_error" and "\n" not in str(raised.value)


def test_its_training_is_planned_by_its_own_settings(tmp_path):
    config = load(None, ["solve.warmup={lr: 3.0e-4, epochs: 2}", "solve.lr=1e-6"])
    context = SimpleNamespace(config=config, run=RunDir(tmp_path), seed=lambda *_: 1)
    spec = training.spec_for(context, warmup.NAME, tmp_path, 7)
    assert (spec.lr, spec.steps, spec.schedule, spec.transport) == (3e-4, 7, "linear", "object_store")
    assert training.spec_for(context, "solve", tmp_path).lr == 1e-6
