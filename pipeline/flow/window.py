"""Steps without waves: a window moves over the tasks of a stage, and one that takes long holds nobody.

    step 7   ■■■■■■■□■■■■   a straggler: the step waits for it, nothing else does
    step 8   ■■■■■■■■■■■■   whole; committed after step 7
    step 9   ■■□■■□□□····   a task begins wherever one comes back

Invariant: tasks begin, and are taken, in the order of the steps and in theirs, whatever came back when; steps are
committed in order. At most `at_once` tasks are under way, and at most `MOST_OPEN` steps are not committed, so memory is
bounded however long one task takes. What was begun and is not needed has its end in the ledger (`NOT_NEEDED`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.flow.stream import StepStream, Stream
from pipeline.pools.buffer import MOST_OPEN
from pipeline.records import Halt, Task
from pipeline.scoring.judged import Judged
from pipeline.store.ledger import Ledger

_CANCELLING_S = 1.0


@dataclass
class OpenStep:
    """A step that was begun and is not committed."""

    number: int
    tasks: Sequence[Task]
    ledger: Ledger
    stream: StepStream
    begun: int = 0
    taken: list[Judged] = field(default_factory=list)
    """What came of the first tasks, all of them."""
    ahead: dict[int, Judged] = field(default_factory=dict)
    """What came of others, which wait for one before them."""

    @property
    def whole(self) -> bool:
        return len(self.taken) == len(self.tasks)


class Window(ABC):
    """The steps of a stage that are not on disk. A stage says how they begin, what is played, taken and committed."""

    def __init__(self, stream: Stream, at_once: int, done: int):
        self.stream = stream
        self.under_way = 0
        self._at_once, self._begun = at_once, done
        self._open: deque[OpenStep] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._halt: Halt | None = None
        self._filling = True
        self._enough = False

    @abstractmethod
    def begin(self, number: int) -> OpenStep | None:
        """The step of this number; None if there is none to begin."""

    @abstractmethod
    async def play(self, step: OpenStep, task: Task) -> Judged: ...

    @abstractmethod
    async def commit(self, step: OpenStep) -> None:
        """Put on disk what was taken of a step. Others go on meanwhile."""

    def wanted(self) -> bool:
        """Whether another task is to begin now; asked again whenever one has come back. If none is when none is under
        way, the stage ends with what was begun."""
        return True

    def take(self, step: OpenStep, judged: Judged) -> bool:
        """What came of the next task, in order; True if no other is needed: the step ends with it."""
        return False

    async def run(self) -> None:
        """Play until there is no step to begin, or enough was taken, and commit what is whole. Raises what a task or a
        commit raises, and cancels the others; Halt when what was under way has come back: it may be whole without the
        call that was refused."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    await self._go_on()
                finally:
                    self._filling = False
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _go_on(self) -> None:
        self._fill()
        while (step := await self._next()) is not None:
            await self.commit(step)
            step.ledger.close()
            self._open.popleft()
            self._fill()

    async def _next(self) -> OpenStep | None:
        """The first open step, when it is to be committed."""
        while True:
            if self._enough:
                await self._end()
            ended = self._enough or not (self.under_way or self._halt)
            if self._open and (self._open[0].whole or (ended and self._open[0].taken)):
                return self._open[0]
            if not self.under_way:
                break
            self._news.clear()
            await self._news.wait()
        if self._halt is not None:
            raise self._halt
        return None

    async def _end(self) -> None:
        """Cancel what is under way: nobody needs it."""
        while self._tasks:  # a call that came back in the same moment takes no notice of the first time
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_CANCELLING_S)
        self.under_way = 0
        for step in self._open:
            self.stream.counts["failed"] += step.ledger.abandon({judged.key for judged in step.taken})
            if not step.taken:
                step.ledger.close()

    def _fill(self) -> None:
        while self._filling and self.under_way < self._at_once and self.wanted():
            if (step := self._with_room()) is None:
                return
            self.under_way += 1
            task = self._group.create_task(self._one(step, step.begun))
            step.begun += 1
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _with_room(self) -> OpenStep | None:
        """The step whose next task begins."""
        last = self._open[-1] if self._open else None
        if last is None or last.begun == len(last.tasks):
            if len(self._open) == MOST_OPEN or (last := self.begin(self._begun + 1)) is None:
                return None
            self._begun += 1
            self._open.append(last)
        return last

    async def _one(self, step: OpenStep, place: int) -> None:
        try:
            step.ahead[place] = await self.play(step, step.tasks[place])
            self._take()
        except Halt as e:
            self._halt, self._filling = self._halt or e, False
        except BaseException:
            self._filling = False
            raise
        self.under_way -= 1
        self._fill()
        self._news.set()

    def _take(self) -> None:
        for step in self._open:
            while not self._enough and len(step.taken) in step.ahead:
                step.taken.append(step.ahead.pop(len(step.taken)))
                self._enough = self.take(step, step.taken[-1])
                self._filling &= not self._enough
            if not step.whole:
                return
