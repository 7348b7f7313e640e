"""What a proposer learns of extraction in the mini world: recall and precision on documents that nobody saw.

    python -m tests.benchmarks.bench_extraction FOLDER [--documents 400] [--new 100] [--seed 0] [--set FIELD=VALUE …]

Documents are problems with their answers, as a text. `--documents` of them, of combinations that are not held out, are
what the teacher acquires skills from and what the proposer learns extraction from (SFT); `--new` others, of held-out
combinations, are then read by the teacher and by the trained proposer (`propose acquire RUN --with both`). The truth of
a document is the skills that it was written with, which neither is told. What is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from pipeline.commands import extract
from pipeline.domains.mini.domain import CATEGORIES
from pipeline.domains.mini.generate import combinations_of, draft
from pipeline.skills import candidates

SETTINGS = ["sft.trajectories=60", "sft.extraction=0.85", "sft.epochs=4", "acquire.sampling.temperature=0.3"]


def documents(n: int, seed: int, heldout: bool) -> dict[str, frozenset[str]]:
    """Text -> the skills that it was written with."""
    rng, found = Random(f"documents {seed} {heldout}"), dict[str, frozenset[str]]()
    while len(found) < n:
        category = CATEGORIES[len(found) % len(CATEGORIES)]
        pool = [c for c in combinations_of(category, heldout) if len(c) <= 2]
        text = draft(rng.choice(pool), rng, level=0)
        found[f"An example. {text.question} The answer is {text.answer}."] = text.skills
    return found


def write(path: Path, found: dict[str, frozenset[str]]) -> None:
    path.write_text("".join(json.dumps({"text": text, "source": str(n)}) + "\n" for n, text in enumerate(found)))


def against_truth(library: Path, truth: list[frozenset[str]]) -> dict[str, float]:
    """Of the skills of documents, by name: what share was found, and what share of what was found is right."""
    read: dict[int, set[str]] = {}
    for one in candidates.read(library):
        if one.of is not None:
            read.setdefault(int(one.origin or -1), set()).add(one.of)
    right = sum(len(read.get(n, set()) & skills) for n, skills in enumerate(truth))
    said, there = sum(map(len, read.values())), sum(map(len, truth))
    return {"recall": right / there, "precision": right / said if said else 0.0}


def propose(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def measured(folder: Path, n: int, new: int, seed: int, more: list[str]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    known, unseen = documents(n, seed, heldout=False), documents(new, seed, heldout=True)
    write(folder / "known.jsonl", known)
    write(folder / "new.jsonl", unseen)
    fields = "fields: {source: source}"
    sets = [*SETTINGS, f"seed={seed}", f"acquire.corpus=[{{path: {folder / 'known.jsonl'}, {fields}}}]", *more]
    run = folder / "run"
    for stage in ("acquire", "sft"):
        propose(stage, "--run-dir", str(run), *(f for s in sets for f in ("--set", s)))
    other = f"acquire.corpus=[{{path: {folder / 'new.jsonl'}, {fields}}}]"
    found: dict[str, Any] = json.loads(propose("acquire", str(run), "--with", "both", "--json", "--set", other))
    for by in ("teacher", "proposer"):
        _, root = extract.run_of(run, [other], by)
        found[f"{by}_against_truth"] = against_truth(root / "skills", list(unseen.values()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    print(json.dumps(measured(given.folder.absolute(), given.documents, given.new, given.seed, given.set), indent=2))


if __name__ == "__main__":
    main()
