"""The accounts of a run as people read them: a row a stage, a row a step on demand, and what the signs mean.

Invariant: no line is wider than 60 columns.
"""

from __future__ import annotations

from typing import Any

from pipeline.commands.tables import columns
from pipeline.store.ledger import ENDS

_COUNTS = ("issued", *ENDS, "live")
_WIDTH = 60

LEGEND = (
    "issued    attempts sent out; each ends once",
    "trained   given to the trainer (sft, mgpo, solve)",
    "filtered  judged, and not for the trainer",
    "failed    no reward could be derived; issued again, or",
    "          counted out",
    "live      has no end yet, of a step still under way",
)


def render(found: dict[str, Any], steps: bool = False) -> str:
    """`found` is what `store.accounts.audit` returns."""
    stages = found["stages"]
    if not stages:
        return "no stage has issued an attempt yet"
    table = _by_step(stages) if steps else _by_stage(stages)
    told = [line for stage, account in stages.items() for line in _notes(stage, account)]
    checked = "does not add up: see below" if found["findings"] else "everything adds up"
    return "\n".join([table, "", *LEGEND, *([_STEP_LEGEND] if steps else []), "", *told, checked])


_STEP_LEGEND = "·         in no checkpoint yet"


def _by_stage(stages: dict[str, Any]) -> str:
    rows = [("stage", "steps", *_COUNTS)]
    for stage, account in stages.items():
        totals = account["totals"]
        rows.append((stage, str(len(account["steps"])), *(f"{totals[c]}" for c in _COUNTS)))
    return columns(rows, right=range(1, 7))


def _by_step(stages: dict[str, Any]) -> str:
    rows = [("stage", "step", *_COUNTS)]
    for stage, account in stages.items():
        for row in account["steps"]:
            step = f"{row['step']}{'' if row['checkpointed'] or not account['checkpoints'] else '·'}"
            rows.append((stage, step, *(f"{row[c]}" for c in _COUNTS)))
        rows.append((stage, "all", *(f"{account['totals'][c]}" for c in _COUNTS)))
    return columns(rows, right=range(1, 7))


def _notes(stage: str, account: dict[str, Any]) -> list[str]:
    """What a row has no column for, if there is any."""
    notes = []
    again = sum(n for row in account["steps"] for a, n in row["attempts"].items() if int(a) > 1)
    if again:
        notes.append(f"{stage}: {again} attempts issued again")
    if interrupted := account["totals"]["interrupted"]:
        notes.append(f"{stage}: {interrupted} failed because the run ended")
    if not_needed := account["totals"]["not_needed"]:
        notes.append(f"{stage}: {not_needed} failed because it had enough")
    if account["taught"]:
        notes.append(f"{stage}: before it, SFT on {account['taught']} worked solutions")
    if account["checkpoints"]:
        last = max(account["checkpoints"], key=lambda c: c["step"])
        notes.append(f"{stage}: checkpoint of step {last['step']}, {last['rollouts']} rollouts")
    return notes
