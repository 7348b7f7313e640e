"""Examples of extraction to learn from: a document, and the skills of the library that were read from it.

The paper's L_skill-acq is -E log pi(k | D) over k ~ p_skill, which is proportional to 1[r(k) >= tau_r] times how often
the teacher proposes k. Here each document of which a proposal was kept is one example, with all its kept skills as the
library has them: over the documents a skill comes as often as it was proposed, which is that weight.

Invariant: an example says what became of the document, no more. Where a reply could not be read, or a skill was put
away for another reason than its score, that the document holds nothing is not known, and nothing is taught.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.skills import asked
from pipeline.skills.candidates import Candidate
from pipeline.skills.extraction import Document, SkillLibrary, render

NOTHING = 0.2
"""At most this share of the examples are documents without a skill, which teach to say so."""


@dataclass(frozen=True)
class Example:
    document: Document
    skills: tuple[str, ...]
    """Of the library, in the order in which they were proposed; none: the document holds none."""

    def reply(self, library: SkillLibrary) -> str:
        """What should be said to the document."""
        return "\n".join(render(library[id]) for id in self.skills) or "NONE"


Passed = Literal["no text on disk", "no reply", "not known to hold none"]


def examples(
    rows: Iterable[asked.Saved], candidates: Sequence[Candidate], passed: Counter[Passed]
) -> Iterator[Example]:
    """Those of the documents in `rows`; `passed` counts the others. `candidates`: of the library that was made of
    them."""
    became = {(c.skill.source, asked.key(c.skill)): c for c in candidates}
    for row in rows:
        if "reply" not in row:
            passed["no reply"] += 1
        elif "text" not in row:
            passed["no text on disk"] += 1
        else:
            read = asked.read(row)
            found = [became.get((skill.source, asked.key(skill))) for skill in read.skills]
            ids = tuple(dict.fromkeys(c.of for c in found if c is not None and c.of is not None))
            if ids or (not read.faults and all(c is not None and c.cause in ("low score", "example") for c in found)):
                yield Example(Document(row["source"], row["asked_as"], row["text"]), ids)
            else:
                passed["not known to hold none"] += 1


def chosen(found: Iterable[Example], n: int, seed: int) -> list[Example]:
    """`n` of them at most, those first in the order of a hash of each; `NOTHING` is the largest share of those without
    a skill. Holds twice as many at once at most."""
    some: list[tuple[int, int, Example]] = []
    none: list[tuple[int, int, Example]] = []
    for place, example in enumerate(found):
        heap, most = (some, n) if example.skills else (none, int(NOTHING * n))
        item = (-_hash(seed, example.document), place, example)
        if len(heap) < most:
            heapq.heappush(heap, item)
        elif most:
            heapq.heappushpop(heap, item)
    silent = sorted(none, reverse=True)[: int(NOTHING / (1 - NOTHING) * len(some))]
    taken = sorted(some, reverse=True)[: n - len(silent)] + silent
    return [example for _, _, example in sorted(taken, reverse=True)]


def _hash(seed: int, document: Document) -> int:
    text = f"{seed} {document.source} {document.text}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
