"""The steps of synthesis: tasks are begun until what was begun is expected to make a target whole.

Invariant: what is chosen of the tasks, and where the last step ends, follows from the tasks and what came of them in
their order; only `target_hours` and `target_usd` end it at a moment, and then after all that was begun. How many tasks
are begun beyond the last that is needed follows from what came back when: they are in the accounts, and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from pipeline.config import SynthesizeStage
from pipeline.flow.context import Context
from pipeline.flow.steps import state_of, write_step
from pipeline.flow.stream import Stream
from pipeline.flow.window import OpenStep, Window
from pipeline.pools import endpoints
from pipeline.records import Task
from pipeline.scoring.judged import Judged
from pipeline.scoring.selection import Selection, tokens_of
from pipeline.scoring.statistics import mean
from pipeline.scoring.summary import ends, raise_if_all_failed, summarize
from pipeline.store.ledger import Key, Ledger
from pipeline.store.rundir import RunDir
from pipeline.watch.progress import Handle
from pipeline.watch.watchdog import Watchdog

Target = Literal["problems", "episodes", "tokens", "hours", "usd"]
Tasks = Callable[[int], Sequence[Task]]
"""The tasks of the step of this number."""
_RECENT = 200
"""Last tasks that say what is to be expected of others."""


@dataclass(frozen=True)
class Spent:
    """What writing took."""

    seconds: float = 0.0
    usd: float = 0.0
    """Of all endpoints of the run."""

    @classmethod
    def of(cls, run: RunDir) -> Spent:
        """By the end of the last step on disk."""
        steps = run.steps("synthesize")
        state = state_of(steps[-1]) if steps else {}
        return cls(state.get("seconds", 0.0), state.get("usd", 0.0))

    def over(self, config: SynthesizeStage) -> Target | None:
        """The target after which nothing begins."""
        if config.target_hours is not None and self.seconds >= 3600 * config.target_hours:
            return "hours"
        return "usd" if config.target_usd is not None and self.usd >= config.target_usd else None


def ended_by(config: SynthesizeStage, selection: Selection, spent: Spent) -> Target | None:
    """The target that was reached."""
    if len(selection.chosen) >= config.target:
        return "problems"
    if config.target_episodes is not None and selection.episodes >= config.target_episodes:
        return "episodes"
    if config.target_tokens is not None and selection.tokens >= config.target_tokens:
        return "tokens"
    return spent.over(config)


class Synthesis(Window):
    """Steps of `in_flight` tasks each, until a target is reached: the last one ends with the task that brings the last
    problem or token, or the last that was begun in time."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        tasks: Tasks,
        prober: str,
        selection: Selection,
        sandbox_level: str,
        watchdog: Watchdog,
        progress: Handle,
    ):
        super().__init__(stream, context.config.synthesize.in_flight, len(context.run.steps("synthesize")))
        self._context, self._config = context, context.config.synthesize
        self._tasks_of, self._prober = tasks, prober
        self._selection, self._sandbox_level = selection, sandbox_level
        self._watchdog, self._progress = watchdog, progress
        self._before = Spent.of(context.run)
        self._began, self._had_paid = asyncio.get_running_loop().time(), endpoints.paid()
        self._chosen_before = len(selection.chosen)
        self._tokens_before = selection.tokens
        self._back = 0
        self._ahead = self._solved_ahead = self._tokens_ahead = 0
        """Of tasks that are back, and wait for one before them."""
        self._recent = deque[tuple[bool, bool, int]](maxlen=_RECENT)
        """Of each task: whether its problem promised to be chosen, whether it was, tokens."""
        self._copied: dict[int, set[Key]] = {}
        self._chosen: dict[int, int] = {}
        """Step -> copies in it, and problems chosen by its end."""

    def begin(self, number: int) -> OpenStep | None:
        size = self._config.in_flight
        if (number - 1) * size >= self._config.max_episodes:
            return None
        ledger = Ledger(self._context.run, "synthesize")
        ledger.begin(number)
        self._copied[number] = set()
        return OpenStep(number, self._tasks_of(number), ledger, self.stream.step(ledger))

    @property
    def spent(self) -> Spent:
        seconds = asyncio.get_running_loop().time() - self._began
        return Spent(self._before.seconds + seconds, self._before.usd + endpoints.paid() - self._had_paid)

    def wanted(self) -> bool:
        """There is time and money, and what was begun is not expected to make a target whole, by what became of the
        last tasks; before there are any, by one chosen of two."""
        config, selection = self._config, self._selection
        if (config.target_hours or config.target_usd) and self.spent.over(config):
            return False
        begun = selection.episodes + self._ahead + self.under_way
        if config.target_episodes is not None and begun >= config.target_episodes:
            return False
        solved, chosen = (sum(task[i] for task in self._recent) for i in (0, 1))
        of_solved, of_all = ((chosen + 1) / (n + 2) for n in (solved, len(self._recent)))
        problems = len(selection.chosen) + self._solved_ahead * of_solved + self.under_way * of_all
        tokens = selection.tokens + self._tokens_ahead + self.under_way * mean([task[2] for task in self._recent])
        return problems < config.target and (config.target_tokens is None or tokens < config.target_tokens)

    async def play(self, step: OpenStep, task: Task) -> Judged:
        judged = await step.stream.judged(task, self._prober)
        if not judged.failed:
            self._watchdog.beat(f"episodes of step {step.number}")
        self._back += 1
        if self._back % self._config.in_flight == 0:
            await self.stream.clear()
        self._ahead += 1
        self._solved_ahead += self._selection.promises(judged)
        self._tokens_ahead += tokens_of(judged)
        return judged

    def take(self, step: OpenStep, judged: Judged) -> bool:
        self._ahead -= 1
        self._solved_ahead -= self._selection.promises(judged)
        self._tokens_ahead -= tokens_of(judged)
        before = len(self._selection.chosen)
        self._copied[step.number].update(self._selection.take([judged]))
        self._chosen[step.number] = now = len(self._selection.chosen)
        self._recent.append((self._selection.promises(judged), now > before, tokens_of(judged)))
        self._progress.advance(now - before)
        return ended_by(self._config, self._selection, Spent()) is not None

    async def commit(self, step: OpenStep) -> None:
        context, judged, number = self._context, step.taken, step.number
        raise_if_all_failed("synthesize", judged)
        facts = summarize(judged, self._copied.pop(number))
        facts |= await step.stream.spot_check(judged, context.domain, context.seed("synthesize", number, "spot"))
        facts |= await step.stream.canaries(judged, context.seed("synthesize", number, "canary"))
        account = await write_step(
            context, "synthesize", number, step.ledger, ends(judged, ()), judged=judged,
            state={"sandbox_level": self._sandbox_level, **asdict(self.spent)},
            facts=facts | {"accepted": self._chosen.pop(number)} | self._pace(),
        )  # fmt: skip
        self.stream.committed(step.stream, account)
        shown = {name: value for name, value in self._pace().items() if name != "left_s"}
        self._progress.advance(0, accepted=facts["accepted_rate"], **shown)

    def _pace(self) -> dict[str, float]:
        """What a problem takes in this process, and how long until a target is reached at that; nothing before there is
        a problem."""
        config, selection = self._config, self._selection
        problems, tokens = len(selection.chosen) - self._chosen_before, selection.tokens - self._tokens_before
        spent = self.spent
        seconds, usd = spent.seconds - self._before.seconds, spent.usd - self._before.usd
        if not (problems and seconds):
            return {}
        left = [(config.target - len(selection.chosen)) * seconds / problems]
        if config.target_episodes is not None:
            left.append((config.target_episodes - selection.episodes) * seconds / max(self._back, 1))
        if config.target_tokens is not None and tokens:
            left.append((config.target_tokens - selection.tokens) * seconds / tokens)
        if config.target_hours is not None:
            left.append(3600 * config.target_hours - spent.seconds)
        if config.target_usd is not None and usd:
            left.append((config.target_usd - spent.usd) * seconds / usd)
        return {
            "tokens_per_problem": tokens / problems,
            "seconds_per_problem": seconds / problems,
            "left_s": max(0.0, min(left)),
        } | ({"usd_per_problem": usd / problems} if usd else {})
