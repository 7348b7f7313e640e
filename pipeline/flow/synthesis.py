"""The steps of synthesis: tasks are begun until what was begun is expected to make the target whole.

Invariant: what is chosen of the tasks, and where the last step ends, follows from the tasks and what came of them in
their order. How many are begun beyond that follows from what came back when: they are in the accounts, and nowhere
else.
"""

from __future__ import annotations

from pipeline.flow.context import Context
from pipeline.flow.steps import write_step
from pipeline.flow.stream import Stream
from pipeline.flow.tasks import make_tasks
from pipeline.flow.window import OpenStep, Window
from pipeline.records import Task
from pipeline.scoring.judged import Judged
from pipeline.scoring.selection import Selection
from pipeline.scoring.summary import ends, raise_if_all_failed, summarize
from pipeline.skills.curriculum import Curriculum
from pipeline.store.ledger import Key, Ledger
from pipeline.watch.progress import Handle
from pipeline.watch.watchdog import Watchdog


class Synthesis(Window):
    """Steps of `in_flight` tasks each, until `selection` has the target: the last one ends with the task that brings
    its last problem."""

    def __init__(
        self,
        context: Context,
        stream: Stream,
        curriculum: Curriculum,
        prober: str,
        selection: Selection,
        sandbox_level: str,
        watchdog: Watchdog,
        progress: Handle,
    ):
        super().__init__(stream, context.config.synthesize.in_flight, len(context.run.steps("synthesize")))
        self._context, self._config = context, context.config.synthesize
        self._curriculum, self._prober = curriculum, prober
        self._selection, self._sandbox_level = selection, sandbox_level
        self._watchdog, self._progress = watchdog, progress
        self._back = 0
        self._solved_ahead = 0
        """Solved problems that wait for a task before them."""
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
        tasks = make_tasks(self._context, self._curriculum, "synthesize", number, groups=size, size=1)
        return OpenStep(number, tasks, ledger, self.stream.step(ledger))

    def wanted(self) -> bool:
        """What was begun is not expected to make the target whole, by the shares that were chosen so far."""
        chosen, selection = len(self._selection.chosen), self._selection
        of_solved, of_all = ((chosen + 1) / (n + 2) for n in (selection.solved, selection.taken))
        return chosen + self._solved_ahead * of_solved + self.under_way * of_all < self._config.target

    async def play(self, step: OpenStep, task: Task) -> Judged:
        judged = await step.stream.judged(task, self._prober)
        if not judged.failed:
            self._watchdog.beat(f"episodes of step {step.number}")
        self._back += 1
        if self._back % self._config.in_flight == 0:
            await self.stream.clear()
        self._solved_ahead += judged.solved
        return judged

    def take(self, step: OpenStep, judged: Judged) -> bool:
        self._solved_ahead -= judged.solved
        before = len(self._selection.chosen)
        self._copied[step.number].update(self._selection.take([judged]))
        self._chosen[step.number] = now = len(self._selection.chosen)
        self._progress.advance(now - before)
        return now == self._config.target

    async def commit(self, step: OpenStep) -> None:
        context, judged, number = self._context, step.taken, step.number
        raise_if_all_failed("synthesize", judged)
        facts = summarize(judged, self._copied.pop(number))
        facts |= await step.stream.spot_check(judged, context.domain, context.seed("synthesize", number, "spot"))
        facts |= await step.stream.canaries(judged, context.seed("synthesize", number, "canary"))
        account = await write_step(
            context, "synthesize", number, step.ledger, ends(judged, ()), judged=judged,
            state={"sandbox_level": self._sandbox_level}, facts=facts | {"accepted": self._chosen.pop(number)},
        )  # fmt: skip
        self.stream.committed(step.stream, account)
        self._progress.advance(0, accepted=facts["accepted_rate"])
