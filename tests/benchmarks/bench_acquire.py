"""A large corpus through `acquire`: what the driver holds, what kills cost, and whether the library is the same.

    python -m tests.benchmarks.bench_acquire FOLDER [--mb 64] [--kills 3] [--chars 32000] [--lessons 1600]

`--mb` of generated documents (before compression) in files of some megabytes: .jsonl, .parquet, .txt, .md, .html, .gz,
.zst; a corpus that is in FOLDER already is taken as it is. Each names lessons; the teacher, an endpoint on this
machine, proposes a skill for each lesson that it reads, in varying words, some in a form that needs a repair, some with
a script that fails, and holds each against the rubric. What the library must be follows from the lessons alone.
`propose acquire` is killed (-9) `--kills` times, spread over the waves, and goes on; then the same documents are read
by a run of another name, which finds every reply kept. Peaks are of the driver's own resident memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.records import Skill
from pipeline.skills import candidates
from pipeline.skills.extraction import SkillLibrary, render
from pipeline.skills.rubric import ITEMS
from tests.actors.endpoint import chat, serving

FILE = 8 << 20
"""Characters of a file, about."""
POOR, BROKEN, MALFORMED = 5, 41, 13
"""Of so many lessons one is scored low, has a script that fails, is written in a form that needs a repair."""
LESSON = re.compile(r"Lesson (\d+), which comes as number (\d+),")
_FIRST = [f"{a}{b}" for a in ("ba", "ko", "mi", "ru", "ta", "ve", "zo", "pi") for b in ("go", "lu", "no", "su", "wo")]
_SECOND = [f"{a}{b}" for a in ("da", "fe", "hu", "jo", "ki", "la", "po", "qui") for b in ("mo", "ru", "to", "xu", "zu")]


# ---------------------------------------------------------------- documents


def documents(megabytes: float, lessons: int, chars: int, seed: int = 0) -> Iterator[str]:
    """Texts of up to `chars` letters, of all about `megabytes`; one in five names no lesson, others one to three."""
    rng = Random(f"corpus {seed}")
    filler = [" ".join(rng.choices(_WORDS, k=90)).capitalize() + "." for _ in range(2000)]
    filler += ["".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张", k=120)) + "。" for _ in range(40)]
    left, number = megabytes * 1e6, 0
    while left > 0:
        size = int(chars * rng.uniform(0.3, 0.95))
        parts = rng.choices(filler, k=max(size // 600, 1))
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            number += 1
            told = f"Lesson {rng.randrange(lessons)}, which comes as number {number}, is taught here."
            parts.insert(rng.randrange(len(parts) + 1), told)
        text = "\n\n".join(parts)
        left -= len(text.encode())
        yield text


_WORDS = [f"{a}{b}" for a in ("ber", "chan", "dis", "form", "gar", "hol", "lan", "mor", "nat", "plen", "ster", "thin")
          for b in ("", "al", "der", "est", "ic", "land", "ner", "or", "ton", "ward")]  # fmt: skip


def write(folder: Path, texts: Iterator[str]) -> None:
    """Files of the formats in turn, each of about `FILE` characters."""
    folder.mkdir(parents=True)
    made, held, size = 0, list[str](), 0
    for text in texts:
        held.append(text)
        size += len(text)
        kind = _KINDS[made % len(_KINDS)]
        if size > (FILE >> 5 if kind == "html" else FILE):  # a page is read whole
            _file(folder, made, kind, held)
            made, held, size = made + 1, [], 0
    if held:
        _file(folder, made, "jsonl", held)


_KINDS = ("jsonl", "parquet", "txt", "jsonl.gz", "jsonl", "txt.zst", "parquet", "html", "md", "jsonl")


def _file(folder: Path, number: int, kind: str, texts: list[str]) -> None:
    path = folder / f"part-{number:05d}.{kind}"
    rows = [{"text": text, "source": f"collection {number % 40}", "license": "cc0-1.0"} for text in texts]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=16)
        return
    if kind == "html":
        paragraphs = "".join(f"<p>{part}</p>" for text in texts for part in text.split("\n\n"))
        content = f"<html><body><article><h1>A page</h1>{paragraphs}</article></body></html>"
    elif kind.startswith("jsonl"):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        content = "\n\n".join(texts)
    raw = content.encode()
    path.write_bytes(gzip.compress(raw, 1) if kind.endswith(".gz") else _zstd(raw) if kind.endswith(".zst") else raw)


def _zstd(raw: bytes) -> bytes:
    return pa.compress(raw, "zstd", asbytes=True)


# ---------------------------------------------------------------- the teacher


def name_of(lesson: int) -> tuple[str, str]:
    return _FIRST[lesson % len(_FIRST)], _SECOND[lesson // len(_FIRST) % len(_SECOND)]


LESSONS = len(_FIRST) * len(_SECOND)
"""That have names of their own."""


@cache
def _own(lesson: int) -> tuple[str, str]:
    """What is said of a lesson, whoever says it."""
    rng = Random(f"lesson {lesson}")
    return (" ".join(rng.choices(_WORDS, k=25)), " ".join(rng.choices(_WORDS, k=25)))


def proposed(lesson: int, number: int) -> Skill:
    """A lesson, as it is proposed where it comes as this number."""
    one, two = name_of(lesson)
    about, done = _own(lesson)
    rng = Random(f"{lesson} {number}")
    name = rng.choice((f"{one}_{two}", f"{two}_{one}", f"{one}_{two}_calculation", f"find_{one}_{two}"))
    script = None
    if lesson % 7 == 0 or lesson % BROKEN == 0:
        gives = 5 if lesson % BROKEN == 0 else 4
        script = (
            f'def {one}_{two}(x):\n    """Twice.\n\n    >>> {one}_{two}(2)\n    {gives}\n    """\n    return 2 * x\n'
        )
    return Skill(
        id=name, category=("maths", "code", "science")[lesson % 3], intent=f"find the {one} of a {two} {number % 7}",
        method=f"There is {about}.\n\nTake {done}.", difficulty=rng.choice(_WORDS), tool_hint="plain Python",
        score=0.9, source="s", script=script,
    )  # fmt: skip


def reply(messages: list[dict[str, str]]) -> str:
    first, last = messages[0]["content"], messages[-1]["content"]
    if first.startswith("You hold a skill"):
        named = set(re.findall(r"^name: (\w+)", first, re.MULTILINE)[-1].split("_"))
        lesson = next(n for n, _ in _told(first) if set(name_of(n)) <= named)
        points = 1 if lesson % POOR == 0 else 3 + len(named) % 2
        return json.dumps({item: {"reason": "It is one step.", "points": points} for item in ITEMS})
    found = [(n, render(proposed(n, number))) for n, number in _told(first)]
    if len(messages) == 1:
        found = [(n, text.replace("## Effect", "## Then") if n % MALFORMED == 0 else text) for n, text in found]
    else:
        found = [(n, text) for n, text in found if n % MALFORMED == 0]
        assert found, last[:200]
    return "\n".join(text for _, text in found) or "NONE"


def _told(text: str) -> list[tuple[int, int]]:
    return [(int(lesson), int(number)) for lesson, number in LESSON.findall(text)]


# ---------------------------------------------------------------- runs


@dataclass
class Went:
    """A command, from its start to its end or to the kill."""

    code: int
    seconds: float
    peak_mb: float
    said: str


def acquire(config: Path, run: Path, until: int | None = None) -> Went:
    """`propose acquire`; killed as soon as there are `until` waves on disk."""
    began, peak, waves = time.monotonic(), 0.0, run / "steps" / "acquire"
    log = run.with_suffix(".log")
    with log.open("a") as out:
        command = [sys.executable, "-m", "pipeline", "acquire", "--config", str(config), "--run-dir", str(run)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
        while process.poll() is None:
            peak = max(peak, _resident_mb(process.pid))
            if until is not None and waves.is_dir() and (waves / f"{until:06d}").is_dir():
                process.kill()
                process.wait()
            time.sleep(0.1)
    return Went(process.returncode, time.monotonic() - began, peak, log.read_text()[-2000:])


def _resident_mb(pid: int) -> float:
    """Its most so far."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


NAMES = ("killed", "again")


def measured(folder: Path, megabytes: float, kills: int, chars: int = 32000, lessons: int = LESSONS) -> dict[str, Any]:
    assert lessons <= LESSONS, f"names are known for {LESSONS}"
    if not (folder / "corpus").exists():
        write(folder / "corpus", documents(megabytes, lessons, chars))
    corpus = [{"path": str(folder / "corpus"), "fields": {"source": "source", "license": "license"}}]
    with serving(lambda body: chat(reply(body["messages"]))) as (url, asked):
        configs = {name: config(folder / f"{name}.yaml", url, corpus, max_document_chars=chars) for name in NAMES}
        n = sum(1 for _ in documents(megabytes, lessons, chars))
        at = [max(n // 32 * (k + 1) // (kills + 1), k + 1) for k in range(kills)]
        went = [acquire(configs["killed"], folder / "killed", until) for until in at]
        went.append(acquire(configs["killed"], folder / "killed"))
        assert went[-1].code == 0, went[-1].said
        first = asked.total()
        again = acquire(configs["again"], folder / "again")
        assert again.code == 0, again.said
    runs = [folder / name for name in NAMES]
    tables = [[c.model_dump() for c in candidates.read(run / "skills")] for run in runs]
    result = json.loads((folder / "killed" / "stages" / "acquire.json").read_text())["result"]
    taught = {n for text in documents(megabytes, lessons, chars) for n, _ in _told(text)}
    expected = {name_of(n) for n in taught if n % POOR and n % BROKEN}
    kept = {_named(skill.id) for skill in SkillLibrary.load(folder / "killed" / "skills")}
    replies = [sorted((run / "steps" / "acquire").iterdir()) for run in runs]
    return {
        "megabytes": megabytes,
        "on_disk_mb": round(sum(p.stat().st_size for p in (folder / "corpus").iterdir()) / 1e6, 1),
        "files": sum(1 for _ in (folder / "corpus").iterdir()),
        "documents": result["documents"],
        "shards": len(replies[0]),
        "killed": [w.code for w in went[:-1]],
        "seconds": [round(w.seconds, 1) for w in (*went, again)],
        "peak_mb": [round(w.peak_mb) for w in (*went, again)],
        "calls": first,
        "calls_of_second_run": asked.total() - first,
        "outcomes": {k: result[k] for k in ("candidates", "kept", "duplicates", "dropped_low_score", "refused")},
        "expected_skills": len(expected),
        "as_expected": kept == expected and len(kept) == result["kept"],
        "same_library": _version(runs[0]) == _version(runs[1]),
        "same_candidates": tables[0] == tables[1],
    }


def _named(id: str) -> tuple[str, str]:
    one, two = sorted((set(id.split("_")) - {"find", "calculation"}), key=_SECOND.__contains__)
    return one, two


def _version(run: Path) -> str:
    return SkillLibrary.load(run / "skills").version


def config(path: Path, url: str, corpus: list[dict[str, Any]], **acquire: Any) -> Path:
    """A config of the text domain, written to `path`, in which every model is behind one endpoint."""
    asked = {"base_url": url, "model": "teacher"}
    tree = {
        "domain": "text", "name": path.stem, "acquire": {"corpus": corpus, **acquire},
        "teacher": {"kind": "openai", "concurrency": 8, **asked},
        "committee": {"verifiers": [{"kind": "model", "base_url": url, "model": name} for name in ("one", "other")]},
        "proposer": {"endpoint": asked}, "prober": {"ladder": [{"endpoint": asked}]},
        "solve": {"base": {"endpoint": asked}}, "evaluate": {"benchmark": "none.jsonl"},
        "sandbox": {"minimum": "unsafe"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--chars", type=int, default=32000)
    parser.add_argument("--lessons", type=int, default=LESSONS)
    given = parser.parse_args()
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    found = measured(given.folder.absolute(), given.mb, given.kills, given.chars, given.lessons)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
