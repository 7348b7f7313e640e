"""The replica that writes problems from seeds: it stands in the proposer's place, and what judges notices no
difference.

Consumes tasks, each of which names its seed problem (`Task.group_id`); produces episodes of one turn an operation, the
last of which hands in the problem. It waits for the teacher, within the episode's wall-clock limit. No rollout is sent:
nobody learns from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from actors.chat import ChatFormat
from actors.chat_templates import PlainText, chat_format
from actors.episode import turn_seed
from actors.queueing import WorkClock, stopping, work_timeout
from actors.rewriting.base import KindOf, Rewriting, Unusable
from actors.teacher import Teacher, of
from pipeline import config
from pipeline.records import Episode, Failure, Outcome, OutcomeKind, Problem, Task, ToolResult, Turn


class SeedWriter:
    """Serve replica. `seeds`: problem by `group_id` · `model_dir`: whose tokenizer counts tokens; None: by length."""

    def __init__(
        self,
        teacher: Teacher,
        rewriting: Rewriting,
        seeds: Mapping[str, Problem],
        model_dir: str | None,
        limits: config.EpisodeLimits,
        kind_of: KindOf,
    ):
        self._teacher, self._rewriting, self._seeds = teacher, rewriting, seeds
        self._chat: ChatFormat = PlainText() if model_dir is None else chat_format(model_dir)
        self._limits, self._kind_of = limits, kind_of

    async def episode(self, task: Task, attempt: int) -> Episode:
        """Rewrite the task's seed by the operations that its seed number says."""
        teacher, problem, worked = of(self._teacher, task.seed), self._seeds[task.group_id], WorkClock(time.monotonic)
        texts: list[str] = []
        read = 0
        kind: OutcomeKind = "ok"
        why = ""
        try:
            with stopping(worked):
                for number, operation in enumerate(self._rewriting.plan(task.seed)):
                    messages = self._rewriting.ask(operation, problem)
                    read += len(self._chat.encode_messages(messages))
                    async with work_timeout(self._limits.wall_s - worked()):
                        texts.append(await teacher.complete(messages, turn_seed(task.seed, attempt, number)))
                    problem = self._rewriting.read(operation, texts[-1], problem, self._kind_of)
        except Unusable as e:
            kind, why = "model_error", f"round {len(texts)}: {e}"
        except Failure as e:
            kind, why = e.kind, str(e)
        except TimeoutError:
            kind, why = "infra_error", f"time limit: {self._limits.wall_s:g} s"
        turns = self._turns(texts, submits=kind == "ok")
        return Episode(
            id=task.id, attempt=attempt, task=task, turns=turns, active=(), submitted=problem if kind == "ok" else None,
            outcome=Outcome(kind=kind, reason=why), policy_versions=(), prompt_tokens=read,
            sampled_tokens=turns[-1].end if turns else 0, wall_s=time.monotonic() - worked.begun,
        )  # fmt: skip

    def _turns(self, texts: list[str], submits: bool) -> tuple[Turn, ...]:
        """A turn a reply; spans count the replies alone."""
        turns: list[Turn] = []
        for number, text in enumerate(texts, start=1):
            start = turns[-1].end if turns else 0
            last = submits and number == len(texts)
            turns.append(
                Turn(
                    stage="finalize" if last else "draft",
                    action="submit" if last else "think",
                    start=start,
                    end=start + len(self._chat.encode_text(text)),
                    text=text,
                    tool=ToolResult(tool="submit", status="ok", content="Submitted.") if last else None,
                )
            )
        return tuple(turns)
