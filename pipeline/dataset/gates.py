"""All gates over a data set: what is counted, with examples.

Invariant: rows are counted under every gate that marks them; `barred` are those that should not be trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.dataset import matching, traces
from pipeline.dataset.folder import rows_of
from pipeline.dataset.matching import Match, Sketches
from pipeline.scoring import problems
from pipeline.scoring.quality import GATES, faults

EXAMPLES = 3
"""Shown of each gate."""
_SHOWN = 160


def check(
    rows: Sequence[Mapping[str, Any]],
    others: Mapping[str, Sequence[str]],
    benchmarks: Mapping[str, Sequence[str]],
    languages: Collection[str] = (),
) -> dict[str, Any]:
    """What the gates say of rows, against the questions of other data sets and of benchmarks, by name."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = {}
    barred: set[int] = set()

    def mark(row: int, gate: str, bars: bool, **more: Any) -> None:
        counts[gate] += 1
        if bars:
            barred.add(row)
        if len(shown := examples.setdefault(gate, [])) < EXAMPLES:
            shown.append({"row": row + 1, "question": _short(questions[row]), **more})

    questions = [str(row["question"]) for row in rows]
    for i, row in enumerate(rows):
        problem = problems.of_row(dict(row))
        for gate in faults(problem.question, problem.answer, problem.answer_kind, languages):
            mark(i, gate.name, gate.bars)
    own = matching.sketch(questions)
    for match in matching.duplicates(own):
        mark(match.row, f"duplicate: {match.kind}", _bars(match), of=f"row {match.of + 1}")
    for name, texts in others.items():
        _marked(own, f"in {name}", name, texts, False, mark)
    for name, texts in benchmarks.items():
        _marked(own, f"benchmark {name}", name, texts, True, mark)
    return {
        "rows": len(rows),
        "barred": len(barred),
        "gates": {gate.name: counts.pop(gate.name, 0) for gate in GATES} | dict(sorted(counts.items())),
        "examples": examples,
    }


def _marked(own: Sketches, gate: str, name: str, texts: Sequence[str], passages: bool, mark: Any) -> None:
    for match in matching.against(own, matching.sketch(texts), passages):
        mark(match.row, f"{gate}: {match.kind}", _bars(match), of=f"{name} {match.of + 1}: {_short(texts[match.of])}")


def _bars(match: Match) -> bool:
    return match.kind != "changed numbers"


def check_place(
    place: Path,
    rows: Sequence[Mapping[str, Any]],
    others: Sequence[Path],
    benchmarks: Sequence[Path],
    languages: Collection[str],
) -> dict[str, Any]:
    """The gates over the rows of a run, a folder or a file, and the traces of its making that its files hold."""
    read = {str(path): [str(row["question"]) for row in rows_of(path)] for path in (*others, *benchmarks)}
    found = check(rows, {str(p): read[str(p)] for p in others}, {str(p): read[str(p)] for p in benchmarks}, languages)
    folder = place / "dataset" if (place / "config.yaml").is_file() else place
    told = [str(trace) for trace in traces.find(folder, traces.ids_of(folder))] if folder.is_dir() else []
    return found | {"traces": len(told), "traces_shown": told[:20]}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
