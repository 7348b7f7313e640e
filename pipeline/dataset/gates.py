"""All gates over a data set: what is counted, with examples.

Invariant: rows are counted under every gate that marks them; `barred` are those that should not be trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.dataset import matching, references, semantic, traces
from pipeline.dataset.matching import Array, Match
from pipeline.scoring import problems
from pipeline.scoring.quality import GATES, UNUSED, faults

EXAMPLES = 3
"""Shown of each gate."""
_SHOWN = 160


def check(
    rows: Sequence[Mapping[str, Any]],
    others: Mapping[str, Sequence[str]],
    benchmarks: Mapping[str, Sequence[str]],
    languages: Collection[str] = (),
    meaning: Callable[[Sequence[str]], Array] | None = None,
    alike: float = semantic.ALIKE,
    origins: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What the gates say of rows, against the questions of other data sets and of benchmarks, by name. With `meaning`,
    the vectors of texts, also what they say in other words, from the cosine `alike` on; with the rows' `origins`, which
    leave a skill unused."""
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
    for i, origin in enumerate(origins):
        if unused := sorted(set(origin.get("active", ())) - set(origin.get("used", origin.get("active", ())))):
            mark(i, UNUSED.name, UNUSED.bars, of=", ".join(unused))
    own = matching.sketch(questions)
    vectors = meaning(questions) if meaning else None
    same = matching.duplicates(own)
    if vectors is not None:
        same = semantic.joined(same, semantic.duplicates(own, vectors, alike))
    for match in same:
        mark(match.row, f"duplicate: {match.kind}", _bars(match), of=f"row {match.of + 1}")
    for given, what, passages in ((others, "in", False), (benchmarks, "benchmark", True)):
        for name, texts in given.items():
            reference = matching.sketch(texts)
            same = matching.against(own, reference, passages)
            if meaning and vectors is not None:
                same = semantic.joined(same, semantic.against(own, vectors, reference, meaning(texts), alike))
            for match in same:
                of = f"{name} {match.of + 1}: {_short(texts[match.of])}"
                mark(match.row, f"{what} {name}: {match.kind}", _bars(match), of=of)
    return {
        "rows": len(rows),
        "barred": len(barred),
        "gates": {gate.name: counts.pop(gate.name, 0) for gate in GATES} | dict(sorted(counts.items())),
        "examples": examples,
    }


def _bars(match: Match) -> bool:
    return match.kind != "changed numbers"


def check_place(
    place: Path,
    rows: Sequence[Mapping[str, Any]],
    others: Sequence[str],
    benchmarks: Sequence[str],
    languages: Collection[str],
    model: str | None = None,
    alike: float = semantic.ALIKE,
    origins: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The gates over the rows of a run, a folder or a file, and the traces of its making that its files hold; `others`
    and `benchmarks` as `references` knows them."""
    foreign, asked = ({p: references.questions(p) for p in places} for places in (others, benchmarks))
    found = check(rows, foreign, asked, languages, semantic.Embedder(model) if model else None, alike, origins)
    folder = place / "dataset" if (place / "config.yaml").is_file() else place
    told = [str(trace) for trace in traces.find(folder, traces.ids_of(folder))] if folder.is_dir() else []
    return found | {"traces": len(told), "traces_shown": told[:20]}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
