"""The scripted teacher: its replies parse, its trajectories follow the protocol and are sometimes wrong."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from random import Random
from types import SimpleNamespace

import pytest

from actors.chat import ChatFormat, parse_turn
from actors.episode import run_episode
from actors.policies import TextPolicy
from actors.sandbox_pool import SandboxPool
from actors.tool_calls import ToolCall
from actors.tools import SandboxTools
from pipeline import domains
from pipeline.commands.ablation.grid import ARMS
from pipeline.config import EpisodeLimits
from pipeline.config.loading import load
from pipeline.domains.mini.combinations import feasible, is_heldout
from pipeline.domains.mini.domain import CATEGORIES, SKILL_IDS, skills_in
from pipeline.domains.mini.knowledge import KNOWLEDGE
from pipeline.domains.mini.teacher import ScriptedTeacher
from pipeline.records import Failure, Skill, Task, ToolResult
from pipeline.skills.extraction import Document, SkillLibrary, acquisition_messages
from pipeline.skills.replies import read
from tests.mini import MINI
from tests.pipeline.domains.mini.oracle import Bad, solve
from tests.pipeline.domains.mini.test_skills import select

WORLD = domains.of(MINI.domain)

TEACHER = ScriptedTeacher()


def asked(document: Document) -> list[dict[str, str]]:
    return acquisition_messages(document, WORLD.prompts.extraction(document.kind))


def documents() -> list[Document]:
    found = []
    for path in sorted(WORLD.resolve("mini:corpus").iterdir()):
        if path.suffix == ".jsonl":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                row = json.loads(line)
                text = f"Question: {row['question']}\nAnswer: {row['answer']}"
                found.append(Document(f"{path.name}:{number}", "qa", text))
        else:
            found.append(Document(path.name, "text", path.read_text()))
    return found


def candidates() -> list[Skill]:
    return [
        skill
        for document in documents()
        for skill in read(asyncio.run(TEACHER.complete(asked(document))), document.source).skills
    ]


@pytest.fixture(scope="module")
def library() -> SkillLibrary:
    return select(candidates(), min_score=0.5)


# ---------------------------------------------------------------- acquisition


def test_every_skill_is_found_in_the_corpus_and_nothing_else_passes_the_filter(library):
    assert {s.id for s in library} == set(SKILL_IDS)
    for skill in library:
        assert skill.category in CATEGORIES and skill.source and skill.script and skill.score >= 0.5


def test_the_filter_has_work_to_do():
    found = candidates()
    assert any(s.score < 0.5 for s in found), "noise must give candidates of low score"
    assert any(s.id not in SKILL_IDS for s in found), "the same knowledge must come under a second name"
    assert any(not asyncio.run(TEACHER.complete(asked(d))).startswith("---") for d in documents())


def test_a_reply_holds_several_skills_and_never_the_problem_itself():
    document = next(d for d in documents() if d.kind == "qa")
    reply = asyncio.run(TEACHER.complete(asked(document)))
    assert len(read(reply, "x").skills) >= 2
    assert document.text.splitlines()[0].removeprefix("Question: ") not in reply


def test_replies_depend_on_messages_and_seed_alone():
    document = documents()[0]

    async def reply(seed: int) -> str:
        return await ScriptedTeacher().complete(asked(document), seed)

    assert asyncio.run(reply(3)) == asyncio.run(reply(3))
    with pytest.raises(Failure, match="asked something else"):
        asyncio.run(TEACHER.complete([{"role": "user", "content": "What is the weather?"}]))


# ---------------------------------------------------------------- the proposer


class Interpreter:
    """The scripts as they are, without a sandbox: the teacher's own code is ours."""

    def __init__(self) -> None:
        self.names: dict = {}
        self.log: list[tuple[str, bool]] = []

    async def set_skills(self, skills) -> None:
        for id in SKILL_IDS:
            self.names.pop(id, None)
        for skill in skills:
            exec(skill.script, self.names)

    async def exec(self, code: str) -> ToolResult:
        printed: list[str] = []
        self.names["print"] = lambda value: printed.append(str(value))
        try:
            exec(code, self.names)
        except Exception as e:
            self.log.append((code, False))
            return ToolResult(tool="exec", status="error", content=f"Error: {type(e).__name__}: {e}")
        self.log.append((code, True))
        return ToolResult(tool="exec", status="ok", content="\n".join(printed))

    async def close(self) -> None:
        pass


CHAT = ChatFormat(WORLD.resolve("mini:proposer"))
LIMITS = MINI.episode.limits


def tasks(n: int, seed: int, library: SkillLibrary) -> list[Task]:
    rng = Random(seed)
    found: list[Task] = []
    while len(found) < n:
        category = rng.choice(CATEGORIES)
        skills = rng.sample(skills_in(category), rng.randint(2, 5))
        if not is_heldout(skills):
            id = f"t{len(found)}"
            offered = tuple(library[s] for s in skills)
            found.append(Task(id=id, group_id=id, category=category, skills=offered, seed=rng.randrange(10**6)))
    return found


def play(task: Task, limits: EpisodeLimits = LIMITS):
    tools = Interpreter()
    policy = TextPolicy(lambda messages: TEACHER.complete(messages, task.seed), CHAT)
    episode, rollout = asyncio.run(
        run_episode(task, 0, policy, tools, CHAT, "You write problems.", limits, lambda: 0.0)
    )
    return episode, rollout, tools


def verdict(episode) -> str:
    try:
        answer, used = solve(episode.submitted.question)
    except Bad:
        return "unsolvable"
    if set(episode.active) - used:
        return "off task"
    return "ok" if answer == episode.submitted.answer else "wrong answer"


@pytest.fixture(scope="module")
def played(library):
    return [play(task) for task in tasks(240, 1, library)]


def test_every_trajectory_keeps_to_the_protocol_and_its_limits(played):
    for episode, rollout, _ in played:
        assert episode.outcome.kind == "ok", episode.outcome
        assert len(rollout.token_ids) <= LIMITS.max_tokens
        for turn in episode.turns:
            assert not turn.truncated and (turn.tool is None or turn.tool.status in ("ok", "error"))
            stage, _, call = parse_turn(turn.text)
            assert stage == turn.stage, "every turn names its stage"
            assert call is None or isinstance(call, ToolCall)
        assert episode.turns[0].stage == "draft" and episode.turns[-1].action == "submit"


def test_most_problems_are_valid_and_some_are_wrong_so_that_the_filter_matters(played):
    seen = Counter(verdict(episode) for episode, _, _ in played)
    assert 0.80 < seen["ok"] / len(played) < 0.95, seen
    assert seen["wrong answer"] and seen["unsolvable"]
    assert not seen["off task"]


def test_styles_vary(played):
    shapes = Counter(" ".join(f"{t.stage}:{t.action}" for t in episode.turns) for episode, _, _ in played)
    assert shapes["draft:think finalize:submit"] > 12, "submitted at once"
    assert shapes["draft:think check:exec finalize:submit"] > 36, "checked once"
    assert shapes["draft:think check:exec check:exec finalize:submit"] > 3, "checked in two ways"
    assert shapes["draft:think check:exec refine:think check:exec finalize:submit"] > 6, "mended"
    assert shapes["draft:edit draft:think check:exec finalize:submit"] > 12, "pruned in the draft"
    late = "draft:think check:exec refine:edit refine:think check:exec finalize:submit"
    assert shapes[late] > 3, "pruned after the tool's error"


def test_pruning_happens_only_where_skills_conflict_and_leaves_skills_that_fit(played):
    for episode, _, _ in played:
        offered = frozenset(s.id for s in episode.task.skills)
        pruned = any(t.action == "edit" for t in episode.turns)
        if pruned:
            assert not feasible(offered) and feasible(frozenset(episode.active)) and episode.active
        else:
            assert set(episode.active) == offered


def test_a_checked_answer_is_what_the_tool_printed(played):
    for episode, _, tools in played:
        results = [t.tool for t in episode.turns if t.action == "exec"]
        if results and results[-1].status == "ok":
            assert episode.submitted.answer == results[-1].content
        if any(t.tool.status == "error" for t in episode.turns if t.action == "exec"):
            assert any(not ok for _, ok in tools.log)


@pytest.mark.parametrize("arm", ["one-shot", "reflection", "tools", "no-pruning"])
def test_the_teacher_makes_do_without_a_stage_or_a_tool(library, arm):
    """What the ablation's arms learn from: it comes to an end, and what it is refused it does not try twice."""
    limits = load(None, ARMS[arm].overrides).episode.limits
    episodes = [play(task, limits)[0] for task in tasks(80, 2, library)]
    assert all(e.outcome.kind == "ok" for e in episodes)
    for e in episodes:
        refused = [t for t in e.turns if t.tool and t.tool.status == "malformed"]
        assert len(refused) <= 2 and all("no tool" in t.tool.content for t in refused if t.tool)
        assert {t.stage for t in e.turns} <= set(limits.stages)
        assert not any(t.action in ("exec", "edit") and t.action not in limits.tools for t in e.turns)
    fitting = [e for e in episodes if feasible(frozenset(s.id for s in e.task.skills))]
    assert sum(verdict(e) == "ok" for e in fitting) > 0.4 * len(fitting)


def test_problems_of_a_task_never_cross_the_heldout_split(played):
    for episode, _, _ in played:
        if verdict(episode) == "ok":
            assert not is_heldout(solve(episode.submitted.question)[1])


def test_the_same_seed_gives_the_same_trajectory_and_another_seed_another(library):
    (task,) = tasks(1, 9, library)
    texts = [[t.text for t in play(task.model_copy(update={"seed": seed}))[0].turns] for seed in (4, 4, 5)]
    assert texts[0] == texts[1] != texts[2]


def test_the_teacher_reads_all_it_needs_from_the_conversation(library):
    """A fresh teacher in the middle of a conversation answers as the one that began it."""
    (task,) = tasks(1, 3, library)
    said: list[list[dict]] = []

    async def complete(messages):
        said.append([dict(m) for m in messages])
        return await ScriptedTeacher().complete(messages, task.seed)

    policy = TextPolicy(complete, CHAT)
    first, _ = asyncio.run(run_episode(task, 0, policy, Interpreter(), CHAT, "s", LIMITS, lambda: 0.0))
    again = asyncio.run(ScriptedTeacher().complete(said[-1], task.seed))
    assert again == first.turns[-1].text


def test_the_real_sandbox_gives_the_same_trajectories(library, played):
    """Scripts, active skills and errors mean in the sandbox what they mean in a bare interpreter."""
    errors = [p for p in played if any(t.action == "exec" and t.tool.status == "error" for t in p[0].turns)]

    async def replay() -> None:
        pool = SandboxPool(slots=1, minimum="strong", limits={"wall_s": 20, "cpu_s": 20})
        handle = Handle(pool)
        try:
            for episode, rollout, _ in (*played[:6], *errors[:6]):
                task = episode.task
                policy = TextPolicy(lambda messages, seed=task.seed: TEACHER.complete(messages, seed), CHAT)
                real, tokens = await run_episode(
                    task, 0, policy, SandboxTools(handle), CHAT, "You write problems.", LIMITS, lambda: 0.0
                )
                assert [t.text for t in real.turns] == [t.text for t in episode.turns]
                assert tokens.token_ids == rollout.token_ids
        finally:
            pool.close()

    assert len(errors) >= 6
    asyncio.run(replay())


class Handle:
    """A sandbox pool in this process, called as if it were deployed."""

    def __init__(self, pool: SandboxPool):
        self._pool = pool

    def __getattr__(self, method: str) -> SimpleNamespace:
        return SimpleNamespace(remote=getattr(self._pool, method))


# ---------------------------------------------------------------- scripts


def test_scripts_agree_with_the_language_and_refuse_what_does_not_fit():
    names: dict = {}
    for lore in KNOWLEDGE.values():
        exec(lore.script, names)
    km, g = (180, "km"), (80, "g")
    assert names["gcd"](12, 18) == 6 and names["lcm"](4, 6) == 12 and names["digit_sum"](482) == 14
    assert names["keep_above"]([3, 8, 5, 10], 5) == [8, 10] and names["position"]([3, 8, 5], 3) == 5
    assert names["fuel"](km, 4) == (720, "kJ") and names["duration"](2) == (48, "h")
    refused: list[tuple] = [
        ("subtract", 3, 5), ("share", 7, 2), ("position", [1, 2], 3), ("list_max", []), ("list_max", 12),
        ("list_sum", 12), ("double", [1]), ("parity", "odd"), ("multiple", "odd", 3), ("fuel", g, 2), ("km_to_m", g),
        ("travel_more", km, 5), ("part", g, 7), ("g_to_mg", km), ("add_mass", km, 3), ("h_to_min", g),
    ]  # fmt: skip
    for name, *arguments in refused:
        with pytest.raises(ValueError, match=name):
            names[name](*arguments)


def test_every_script_defines_the_function_that_carries_its_id():
    for id, lore in KNOWLEDGE.items():
        assert re.match(rf"def {id}\(", lore.script)
