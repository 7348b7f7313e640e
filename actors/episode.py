"""The episode: one agent, one task, many turns.

The environment holds the observation <K_t, h_t, sigma_t> (active skills, history, stage), reads each turn, answers it,
and records it. `run_episode` is the whole loop; it waits for the policy and for the tools, each time at most until the
episode's wall-clock limit (in which the wait for a turn at an endpoint does not count), and whatever happens it ends in
an `Episode` with an `Outcome` and a `Rollout`.

Invariants of the rollout: arrays of one length, at most `max_tokens`; `loss_mask` is 1 exactly on tokens the policy
sampled; these are kept as sampled, with their log-probabilities and versions; `action_index` counts turns, and a turn's
tokens are `token_ids[turn.start:turn.end]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.chat import ChatFormat, Message, parse_turn
from actors.dependence import Run, dependence
from actors.queueing import WorkClock, stopping, work_timeout
from actors.sample import Sample
from actors.tool_calls import Malformed, ToolCall
from actors.wording import Wording, skill_is_no_tool
from pipeline.config import EpisodeLimits
from pipeline.records import (
    ACTIONS,
    COGNITIVE_STAGES,
    Action,
    AnswerKind,
    CognitiveStage,
    Episode,
    Failure,
    Note,
    Outcome,
    OutcomeKind,
    Problem,
    Rollout,
    Skill,
    Task,
    ToolResult,
    Turn,
)


class Tools(Protocol):
    """Where `exec` runs. One session an episode; it keeps its variables between calls."""

    async def set_skills(self, skills: Sequence[Skill]) -> None:
        """From now on exactly these skills' scripts are defined. Called before the first `exec`."""

    async def exec(self, code: str) -> ToolResult:
        """Raises Failure (infra_error) if the tool itself failed, not the code."""

    async def close(self) -> None:
        """Called once, if any of the others was."""


class Policy(Protocol):
    async def __call__(self, conversation: Conversation, max_tokens: int, seed: int) -> Sample:
        """The next assistant turn. Raises Failure if none can be had."""


class Conversation:
    """What the policy sees, as messages and as tokens, and how each token came to be."""

    def __init__(self, chat: ChatFormat, messages: list[Message]):
        self._chat = chat
        self.messages = list(messages)
        self.token_ids = chat.encode_messages(messages)
        self.logprobs = [0.0] * len(self.token_ids)
        self.versions = [-1] * len(self.token_ids)
        self.action_index = [-1] * len(self.token_ids)

    def add_turn(self, sample: Sample, index: int) -> tuple[int, int]:
        """Append a sampled turn; returns its token span."""
        start = len(self.token_ids)
        self.messages.append({"role": "assistant", "content": sample.text})
        self.token_ids += sample.token_ids
        self.logprobs += sample.logprobs
        self.versions += sample.versions
        self.action_index += [index] * len(sample.token_ids)
        return start, len(self.token_ids)

    def add_reply(self, text: str, room: int) -> bool:
        """Append the environment's answer if it leaves room for a token of the next turn."""
        ids = self._chat.encode_reply("user", text, closed=self.token_ids[-1] == self._chat.eos_id)
        if len(ids) >= room:
            return False
        self.messages.append({"role": "user", "content": text})
        self.token_ids += ids
        self.logprobs += [0.0] * len(ids)
        self.versions += [-1] * len(ids)
        self.action_index += [-1] * len(ids)
        return True


KindOf = Callable[[str], AnswerKind]
"""The kind of answer that a question asks for, where the submission does not say it."""


@dataclass(frozen=True)
class Answer:
    """What the environment made of a turn."""

    stage: CognitiveStage
    action: Action
    tool: ToolResult | None
    repairs: tuple[str, ...]
    """What of the call was mended."""
    notes: tuple[Note, ...]


class Environment:
    """The agent's surroundings: active skills, stage, calls left. Answers one turn at a time."""

    def __init__(self, task: Task, tools: Tools, limits: EpisodeLimits, kind_of: KindOf, chat: ChatFormat):
        self._tools, self._limits, self._kind_of, self._chat = tools, limits, kind_of, chat
        self.wording: Wording = chat.wording(limits)
        self._offered = {s.id: s for s in task.skills}
        self.active = dict(self._offered)
        self.stage: CognitiveStage = "draft"
        """The stage suggested for the next turn."""
        self.submitted: Problem | None = None
        self._writing: CognitiveStage | None = None
        """After an edit: the stage of the text that follows from it."""
        self._opened = False
        self._calls = 0
        self._said: dict[tuple[str, tuple[str, ...]], int] = {}
        """Each turn with the skills that were active -> when it was said last."""
        self._now = self._newest = 0
        """The number of this turn, and of the last one that said something new."""
        self.repeats = 0

    async def answer(self, text: str) -> Answer:
        """Afterwards `stage` holds the next suggestion.

        The stage follows from what was done and from where the episode stands; the one that the turn names is text.
        """
        named, _, call = parse_turn(text)
        notes = self._lacking(named, call, text)
        action: Action = "think"
        result: ToolResult | None = None
        if isinstance(call, Malformed):
            result = self._result("", "malformed", self._no_call(call))
        elif named is not None and named not in self._limits.stages:
            stages = ", ".join(self._limits.stages)
            result = self._result("", "malformed", f"Malformed turn: no stage {named}; stages are {stages}")
        elif isinstance(call, ToolCall):
            action, result = await self._call(call)
        stage = self._stage_of(action)
        if action != "edit" and result is None:
            self._writing = None
        self.stage = self._next(stage, action, result)
        return Answer(stage, action, result, call.repairs if isinstance(call, ToolCall) else (), notes)

    def _lacking(self, named: CognitiveStage | None, call: ToolCall | Malformed | None, text: str) -> tuple[Note, ...]:
        """What a turn should have had. A turn that comes again is taken as it is, and counted."""
        notes: list[Note] = []
        stage = named or self.stage
        if self._limits.teach:
            if named is None:
                notes.append("no header")
            if call is None and stage == "check" and "exec" in self._limits.tools:
                notes.append("no check")
            if call is None and stage == "finalize":
                notes.append("no submission")
        if self._limits.max_repeats is not None and self._is_repeated((text.strip(), tuple(self.active))):
            self.repeats += 1
            notes.append("repeated")
        return tuple(notes)

    def _is_repeated(self, said: tuple[str, tuple[str, ...]]) -> bool:
        """Said before, and nothing new since then: the same check after another draft is no repetition."""
        self._now += 1
        before, self._said[said] = self._said.get(said), self._now
        if before is None:
            self._newest = self._now
        return before is not None and self._newest <= before

    def _no_call(self, call: Malformed) -> str:
        if self._limits.teach and call.called in self._offered:
            return skill_is_no_tool(call.called, self._chat.example)
        return self._chat.written(call.message)

    def _stage_of(self, action: Action) -> CognitiveStage:
        """Code checks, a submission finalizes, an edit drafts where nothing is drafted yet and else refines; text
        belongs to the edit that it follows, else to the stage that was suggested."""
        if action in ("exec", "submit"):
            self._writing = None
            return "check" if action == "exec" else "finalize"
        if action == "edit":
            self._writing = self._writing or ("draft" if self.stage == "draft" else "refine")
        return self._writing or self.stage

    async def close(self) -> None:
        if self._opened:
            await self._tools.close()

    async def again(self, code: str) -> ToolResult:
        """Run code that the agent does not see the result of."""
        result = await self._tools.exec(code)
        return result.model_copy(update={"content": self._shown(result.content)})

    async def _call(self, call: ToolCall) -> tuple[Action, ToolResult]:
        a = call.arguments
        if call.name != "submit" and call.name not in self._limits.tools:
            tools = ", ".join((*self._limits.tools, "submit"))
            return "think", self._result("", "malformed", f"Malformed call: no tool {call.name!r}; tools are {tools}")
        if call.name == "exec":
            return "exec", await self._exec(a["code"])
        if call.name == "edit":
            return "edit", await self._edit(a["drop"], a["add"])
        if call.name == "skill":
            skill = self._offered.get(a["id"])
            if skill is None:
                return "think", self._unknown("skill", [a["id"]], self._offered)
            return "think", self._result("skill", "ok", self.wording.skill(skill))
        kind: AnswerKind = a["answer_kind"] or self._kind_of(a["question"])
        self.submitted = Problem.make(a["question"], a["answer"], kind, a["checks"])
        return "submit", self._result("submit", "ok", "Submitted.")

    async def _exec(self, code: str) -> ToolResult:
        if self._calls >= self._limits.max_tool_calls:
            return self._result("exec", "limit", "Error: no exec calls left.")
        self._calls += 1
        if not self._opened:
            self._opened = True
            await self._tools.set_skills(list(self.active.values()))
        result = await self._tools.exec(code)
        return result.model_copy(update={"content": self._shown(result.content)})

    async def _edit(self, drop: list[str], add: list[str]) -> ToolResult:
        if unknown := [i for i in drop if i not in self.active]:
            return self._unknown("edit", unknown, self.active)
        if unknown := [i for i in add if i not in self._offered]:
            return self._unknown("edit", unknown, self._offered)
        kept = (set(self.active) - set(drop)) | set(add)
        self.active = {i: s for i, s in self._offered.items() if i in kept}
        if self._opened:
            await self._tools.set_skills(list(self.active.values()))
        result = self._result("edit", "ok", f"Skills: {', '.join(self.active) or 'none'}")
        return result.model_copy(update={"active": tuple(self.active)})

    def _next(self, stage: CognitiveStage, action: Action, result: ToolResult | None) -> CognitiveStage:
        """The stage to suggest: the usual one, or where that is withheld a later one than this turn's."""
        suggested = _suggested(stage, action, result)
        if suggested in self._limits.stages:
            return suggested
        first = max(COGNITIVE_STAGES.index(stage) + 1, COGNITIVE_STAGES.index(suggested))
        return next((s for s in COGNITIVE_STAGES[first:] if s in self._limits.stages), "finalize")

    def _unknown(self, tool: str, ids: list[str], known: dict[str, Skill]) -> ToolResult:
        return self._result(tool, "error", f"Error: no skill {ids[0][:40]!r}; skills are {', '.join(known) or 'none'}")

    def _result(self, tool: str, status: str, content: str) -> ToolResult:
        return ToolResult(tool=tool, status=status, content=self._shown(content))  # type: ignore[arg-type]

    def _shown(self, text: str) -> str:
        """Text cut to what the agent may see: beginning and end, where results and error lines stand."""
        limit, gap = self._limits.max_tool_chars, "\n...\n"
        if len(text) <= limit:
            return text
        half = max(0, limit - len(gap)) // 2
        return text[:half] + gap + text[len(text) - half :] if half else text[:limit]


def _suggested(stage: CognitiveStage, action: Action, result: ToolResult | None) -> CognitiveStage:
    """Where the agent should go next; it may go elsewhere."""
    if result is not None and (result.status == "malformed" or (action == "edit" and result.status == "error")):
        return stage
    if action == "exec" and result is not None:
        return "finalize" if result.status == "ok" else "refine"
    if action == "think" and result is not None:  # it read a skill
        return stage
    if action == "edit" or stage in ("draft", "refine"):
        return "check"
    return "finalize"


async def run_episode(
    task: Task,
    attempt: int,
    policy: Policy,
    tools: Tools,
    chat: ChatFormat,
    system_prompt: str,
    limits: EpisodeLimits,
    clock: Callable[[], float],
    kind_of: KindOf = lambda _: "math",
) -> tuple[Episode, Rollout]:
    """Play one episode to its end. The rollout's rewards are 0 here; whoever judges the episode fills them in."""
    worked = WorkClock(clock)
    environment = Environment(task, tools, limits, kind_of, chat)
    opening = environment.wording.task(task.category, task.skills)
    system = chat.system(system_prompt, limits)
    talk = Conversation(chat, [{"role": "system", "content": system}, {"role": "user", "content": opening}])
    turns: list[Turn] = []
    try:
        with stopping(worked):
            outcome = await _play(task, attempt, policy, talk, environment, limits, turns, worked)
    except Failure as failure:
        outcome = Outcome(kind=failure.kind, reason=str(failure))
    finally:
        await environment.close()
    mask = [int(i >= 0) for i in talk.action_index]
    episode = Episode(
        id=task.id,
        attempt=attempt,
        task=task,
        turns=tuple(turns),
        active=tuple(environment.active),
        submitted=environment.submitted,
        outcome=outcome,
        policy_versions=tuple(sorted(set(talk.versions) - {-1})),
        prompt_tokens=len(mask) - sum(mask),
        sampled_tokens=sum(mask),
        wall_s=clock() - worked.begun,
    )
    rollout = Rollout(
        episode_id=task.id,
        attempt=attempt,
        group_id=task.group_id,
        token_ids=tuple(talk.token_ids),
        loss_mask=tuple(mask),
        logprobs=tuple(talk.logprobs),
        versions=tuple(talk.versions),
        action_index=tuple(talk.action_index),
        action_stage=tuple(COGNITIVE_STAGES.index(t.stage) for t in turns),
        action_kind=tuple(ACTIONS.index(t.action) for t in turns),
        process_rewards=(0.0,) * len(turns),
        terminal_reward=0.0,
    )
    return episode, rollout


async def _play(
    task: Task,
    attempt: int,
    policy: Policy,
    talk: Conversation,
    environment: Environment,
    limits: EpisodeLimits,
    turns: list[Turn],
    elapsed: Callable[[], float],
) -> Outcome:
    room = limits.max_tokens - len(talk.token_ids)
    if room < 1:
        return Outcome(kind="data_error", reason=f"prompt of {len(talk.token_ids)} tokens, limit {limits.max_tokens}")
    for index in range(limits.max_turns):
        try:
            async with work_timeout(limits.wall_s - elapsed()):
                sample = await policy(talk, min(limits.max_turn_tokens, room), turn_seed(task.seed, attempt, index))
        except TimeoutError:
            return _out_of_time(turns, limits)
        start, end = talk.add_turn(sample, index)
        turn = Turn(stage=environment.stage, action="think", start=start, end=end, text=sample.text)
        turns.append(turn.model_copy(update={"truncated": sample.truncated}))  # stands if the answer to it fails
        try:
            async with work_timeout(limits.wall_s - elapsed()):
                answer = await environment.answer(sample.text)
        except TimeoutError:
            return _out_of_time(turns, limits)
        turns[-1] = turns[-1].model_copy(update=vars(answer))
        if environment.submitted is not None:
            await mark_checks(turns, environment.submitted, environment.again, limits.wall_s - elapsed())
            return Outcome(kind="ok")
        if limits.max_repeats is not None and environment.repeats >= limits.max_repeats:
            return Outcome(kind="model_error", reason=f"{environment.repeats} turns repeat earlier ones")
        said = None if answer.tool is None else answer.tool.content
        reply = environment.wording.answer(environment.stage, said, answer.notes)
        if index + 1 < limits.max_turns and not talk.add_reply(reply, limits.max_tokens - len(talk.token_ids)):
            return Outcome(kind="model_error", reason="token limit")
        room = limits.max_tokens - len(talk.token_ids)
    return Outcome(kind="model_error", reason="turn limit")


async def mark_checks(turns: list[Turn], submitted: Problem, run: Run, left_s: float) -> None:
    """Say of the checks that ran whether what they print depends on the problem; they stay unmarked where that takes
    too long, or the tool fails."""
    ran = {i: t.tool for i, t in enumerate(turns) if t.action == "exec" and t.tool and t.tool.status == "ok"}
    codes = [call.arguments["code"] for i in ran if isinstance(call := parse_turn(turns[i].text)[2], ToolCall)]
    try:
        async with work_timeout(left_s):
            found = await dependence(codes, [tool.content for tool in ran.values()], submitted, run)
    except (Failure, TimeoutError):
        return
    for (i, tool), depends in zip(ran.items(), found, strict=True):
        turns[i] = turns[i].model_copy(update={"tool": tool.model_copy(update={"depends": depends})})


def _out_of_time(turns: list[Turn], limits: EpisodeLimits) -> Outcome:
    """The policy is to blame where its programs ran for half of the time; else an engine, a pool or a weight update
    held the episode up, and it says nothing about the policy."""
    ran_s = sum(turn.tool.wall_s for turn in turns if turn.tool)
    kind: OutcomeKind = "model_error" if ran_s >= limits.wall_s / 2 else "infra_error"
    return Outcome(kind=kind, reason=f"time limit: {limits.wall_s:g} s, of which programs ran {ran_s:.3g} s")


def turn_seed(task_seed: int, attempt: int, turn: int) -> int:
    """A sampling seed that depends on nothing but the task, the attempt and the turn."""
    digest = hashlib.sha256(f"{task_seed}/{attempt}/{turn}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
