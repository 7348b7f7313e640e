"""What `propose dataset` does: a run's data set, or anybody's folder or file, checked, counted, told of, exported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.commands import target
from pipeline.dataset import card, folder, gates, layouts, push, semantic
from pipeline.records import Failure, Problem
from pipeline.scoring import problems
from pipeline.scoring.identity import Register, diversity
from pipeline.scoring.quality import language
from pipeline.store.rundir import RunDir


def check(
    place: str,
    against: Sequence[str],
    benchmarks: Sequence[str],
    languages: Sequence[str],
    model: str | None = None,
    alike: float | None = None,
) -> dict[str, Any]:
    """With a `model` of embeddings also what says the same in other words, from a cosine of `alike` on."""
    path = _place(place)
    close = semantic.ALIKE if alike is None else alike
    return gates.check_place(path, _rows(path), against, benchmarks, languages, model, close, _origins(path))


def render_check(found: dict[str, Any]) -> str:
    lines = [f"{found['rows']} rows, {found['barred']} barred"]
    for gate, count in found["gates"].items():
        lines.append(f"  {count:>7}  {gate}")
        for example in found["examples"].get(gate, ()):
            of = f"  ~  {example['of']}" if "of" in example else ""
            lines.append(f"           row {example['row']}: {example['question']}{of}")
    lines.append(f"{found['traces']} traces of how rows were made in training files")
    return "\n".join([*lines, *(f"  {line}" for line in found["traces_shown"])])


def stats(place: str) -> dict[str, Any]:
    path = _place(place)
    rows, origins = problems_of(path), _origins(path)
    words = sorted(len(p.question.split()) for p in rows)
    answers = Counter(p.answer for p in rows)
    (top, most), *_ = answers.most_common(1) or [("", 0)]
    seen = Register(lambda question: None)
    solved = sorted(o["pass_at_k"] for o in origins if o.get("pass_at_k") is not None)
    return {
        "rows": len(rows),
        "kinds": dict(sorted(Counter(str(p.answer_kind) for p in rows).items())),
        "categories": dict(sorted(Counter(o["category"] for o in origins if "category" in o).items())),
        "question_words": {"median": median(words or [0]), "p95": _at(words, 0.95), "longest": _at(words, 1.0)},
        "answers": {"distinct": len(answers), "top": top, "top_share": most / max(len(rows), 1)},
        "languages": dict(sorted(Counter(language(p.question) or "unknown" for p in rows).items())),
        "pass_at_k": {
            "median": median(solved), "zero": sum(s <= 0 for s in solved), "one": sum(s >= 1 for s in solved),
        } if solved else None,
        "skeletons": diversity([seen.identify(p.question) for p in rows]),
    }  # fmt: skip


def render_stats(found: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {shown(v)}" for name, v in value.items()) or "-"
        return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)

    width = max(map(len, found))
    return "\n".join(f"{name:<{width}}  {shown(value)}" for name, value in found.items())


def card_of(place: str) -> str:
    """The card of a folder that has one; else, and of a single file, one of what the rows say."""
    path = _place(place)
    begun = _begun(path)
    if path.is_dir() and not begun and (own := _folder(path) / "README.md").is_file():
        return own.read_text(encoding="utf-8")
    rows = problems_of(path)
    kinds = dict(sorted(Counter(str(p.answer_kind) for p in rows).items()))
    about = card.About(path.stem, len(rows), counts={"Kinds of answers": kinds})
    files = [] if begun else folder.training_files(path)
    names = [file.relative_to(_folder(path)).as_posix() for file in files]
    return card.text(about, names, None)


def export(place: str, out: Path, layout: str, to: str | None = None, private: bool = True) -> dict[str, Any]:
    """Write a data set in a layout into a folder, and put that on the Hub under the name `to`."""
    token = push.token_for(to) if to else None  # before anything is written
    path = _place(place)
    rows = problems_of(path)
    license, name = None, path.stem
    if (path / "config.yaml").is_file():
        _, config = RunDir.read(path)
        license, name = config.acquire.license, config.name
    files = layouts.write(layout, rows, out, license, name)
    address = push.push(out, to, token, private) if to and token else None
    return {"rows": len(rows), "layout": layout, "out": str(out), "files": files, "pushed": address}


def problems_of(path: Path) -> list[Problem]:
    """The problems of a place; of a run whose synthesis is not done, those that its steps hold: what it has written of
    a data set may be older, or cut off."""
    if _begun(path):
        from pipeline.stages import synthesize  # brings Ray

        return synthesize.accepted(*RunDir.read(path))
    return [problems.of_row(row) for row in folder.rows_of(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [problems.row(problem) for problem in problems_of(path)] if _begun(path) else folder.rows_of(path)


def _begun(path: Path) -> bool:
    """Whether it is a run whose synthesis is not done."""
    done, steps = path / "stages" / "synthesize.json", path / "steps" / "synthesize"
    return (path / "config.yaml").is_file() and steps.is_dir() and not done.exists()


def _place(name: str) -> Path:
    """A run by its path or its name, a folder or a file. Raises Failure for what is not there."""
    path = Path(name) if Path(name).is_file() else target.existing(name)
    if not path.exists():
        raise Failure(f"{name}: no such run, folder or file")
    return path


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() else path / "dataset" if (path / "config.yaml").is_file() else path


def _origins(path: Path) -> list[dict[str, Any]]:
    beside = _folder(path) / "provenance.jsonl"
    if path.is_file() or _begun(path) or not beside.is_file():
        return []
    return [json.loads(line) for line in beside.read_text(encoding="utf-8").split("\n") if line]


def _at(ordered: Sequence[int], share: float) -> int:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0
