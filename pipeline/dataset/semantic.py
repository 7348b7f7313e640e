"""Rows that say the same in other words, by a model of embeddings: mean of its last hidden states, compared by cosine.

Invariant: a match has the same numbers on both sides, for an embedding hardly sees them. Memory is one vector a text
and a block of similarities, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.dataset.matching import Array, Match, Sketches
from pipeline.domains import hub
from pipeline.records import Failure

ALIKE = 0.95
"""Cosine from which on two texts say the same; what is right depends on the model."""
_BATCH = 64
_TOKENS = 512
"""Of a text, those that the model is shown."""
_BLOCK = 4096
"""Rows a block of similarities has on each side."""


class Embedder:
    """A model of embeddings, from a folder or by its name on the Hub. Raises Failure where there is none."""

    def __init__(self, name: str):
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = Path(name)
        if not folder.is_dir():
            if not hub.is_name(name):
                raise Failure(f"--semantic {name}: no such folder; expected that of a model, or owner/name on the Hub")
            folder = hub.cached(name) or hub.download(name)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        except (OSError, ValueError) as e:
            raise Failure(f"--semantic {name}: {hub.line_of(e)}; expected a model that transformers reads") from None
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def __call__(self, given: Sequence[str]) -> Array:
        """n x width, each of length one."""
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(given), _BATCH):
                batch = self._tokenizer(
                    list(given[start : start + _BATCH]), padding=True, padding_side="right", truncation=True,
                    max_length=_TOKENS, return_tensors="pt",
                )  # fmt: skip
                mask = batch["attention_mask"]
                states = self._model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
                summed = (states * mask[..., None]).sum(1)
                parts.append(torch.nn.functional.normalize(summed, dim=1).numpy())
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def duplicates(rows: Sketches, vectors: Array, alike: float = ALIKE) -> list[Match]:
    """Rows that say what an earlier row does."""
    return list(_matches(rows, vectors, rows, vectors, alike, itself=True))


def against(rows: Sketches, vectors: Array, reference: Sketches, others: Array, alike: float = ALIKE) -> list[Match]:
    """Rows that say what a text of a reference does."""
    return list(_matches(rows, vectors, reference, others, alike, itself=False))


def _matches(
    rows: Sketches, vectors: Array, reference: Sketches, others: Array, alike: float, itself: bool
) -> Iterator[Match]:
    """Each row with the first text that it is like."""
    for start in range(0, len(rows), _BLOCK):
        found: dict[int, int] = {}
        mine = slice(start, start + _BLOCK)
        for other in range(0, min(len(reference), start + _BLOCK) if itself else len(reference), _BLOCK):
            theirs = slice(other, other + _BLOCK)
            hit = vectors[mine] @ others[theirs].T >= alike
            hit &= rows.numbers[mine, None] == reference.numbers[None, theirs]
            if itself:
                hit &= np.arange(start, start + hit.shape[0])[:, None] > np.arange(other, other + hit.shape[1])
            for row in np.flatnonzero(hit.any(1)):
                found.setdefault(int(row) + start, int(hit[row].argmax()) + other)
        yield from (Match(row, text, "semantic") for row, text in sorted(found.items()))


def joined(found: Sequence[Match], more: Sequence[Match]) -> list[Match]:
    """Each row's match by its words, or else by its meaning; one that only has other numbers comes last."""
    by = {m.row: m for m in found if m.kind == "changed numbers"} | {m.row: m for m in more}
    by |= {m.row: m for m in found if m.kind != "changed numbers"}
    return [by[row] for row in sorted(by)]
