"""Log-probabilities some logits at a time, computed again backwards, against all logits at once: time, peak memory.

    python -m tests.benchmarks.bench_head [--words 49152] [--width 576] [--tokens 2048 8192] [--rounds 3] [--json FILE]

`chunked` is the trainer's output layer; `whole` is the same layer with log_softmax in float32 under autograd. Forward
and backward, on one thread. The peak is that of a process of its own above what it held before, one pass of one kind.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from tests.benchmarks.sides import seconds, tell
from tests.realmodel.test_memory import forget, resident
from tests.trainers.processes import in_ranks
from trainers.head import Head


def passes(words: int, width: int, tokens: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, words, bias=False)
    head, hidden_KD = Head(layer), torch.randn(tokens, width, requires_grad=True)
    target_K = torch.randint(words, (tokens,))

    def chunked() -> None:
        head(hidden_KD, target_K)[0].sum().backward()

    def whole() -> None:
        logp_KV = functional.linear(hidden_KD, layer.weight).float().log_softmax(-1)
        logp_KV.gather(-1, target_K[:, None]).sum().backward()

    return {"chunked": chunked, "whole": whole}


def peak(_: Any, name: str, *shape: int) -> int:
    """Bytes."""
    work = passes(*shape)[name]
    before = resident("VmRSS")
    forget()
    work()
    return resident("VmHWM") - before


def timed(_: Any, rounds: int, *shape: int) -> dict[str, float]:
    return seconds(passes(*shape), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=49152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, float] = {}
    for tokens in args.tokens:
        shape = (args.words, args.width, tokens)
        peaks = {}
        for name in ("chunked", "whole"):
            with tempfile.TemporaryDirectory() as folder:
                (peaks[name],) = in_ranks(1, peak, Path(folder), name, *shape)
            found[f"{tokens} tokens, {name}, peak MB"] = peaks[name] / 1e6
        with tempfile.TemporaryDirectory() as folder:
            (took,) = in_ranks(1, timed, Path(folder), args.rounds, *shape)
        found[f"{tokens} tokens, chunked's peak of whole's"] = peaks["chunked"] / peaks["whole"]
        found[f"{tokens} tokens, chunked's time of whole's"] = took["chunked"] / took["whole"]
    tell(found, args.json)


if __name__ == "__main__":
    main()
