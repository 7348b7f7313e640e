"""The state of DeepSpeed's optimizer, cut anew for another number of ranks than wrote it.

DeepSpeed reads back what as many ranks wrote, each its own part. Here each rank takes what is its own now out of all
the parts that there are, mapped from their files, so that it reads little more than that.

    ZeRO 0     every rank has everything: nothing to cut
    ZeRO 1, 2  all parameters one after another, in as many equal parts as there are ranks
    ZeRO 3     each parameter in as many equal parts; a rank's lie one after another, in sub-groups

What a part is filled up with at its end means nothing, and is left behind.

Invariant: master weights, both moments and the count of steps are those that were written, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.checkpoint.constants import (
    BASE_OPTIMIZER_STATE,
    FP32_FLAT_GROUPS,
    OPTIMIZER_STATE_DICT,
    PARTITION_COUNT,
    SINGLE_PARTITION_OF_FP32_GROUPS,
)
from torch import Tensor

from pipeline.records import Failure

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each element."""


def parts_of(folder: Path, ranks: int) -> list[Path]:
    """The files of DeepSpeed's that so many ranks have written. Raises Failure for one that is not there."""
    found = []
    for rank in range(ranks):
        name = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        part = next(iter(sorted(folder.glob(f"*{name}"))), None)
        if part is None:
            raise Failure(f"checkpoint {folder.parent.parent.name}: rank {rank}'s part is gone; expected {name}")
        found.append(part)
    return found


def load(engine: Any, folder: Path, ranks: int) -> None:
    """Give a DeepSpeed engine under ZeRO 1 to 3, which has trained nothing yet, the state that `ranks` ranks wrote into
    a folder. All ranks call it. Of its parameters, those of ZeRO 3 are set too."""
    files = parts_of(folder, ranks)
    parts = [torch.load(f, map_location="cpu", mmap=True, weights_only=False)[OPTIMIZER_STATE_DICT] for f in files]
    optimizer, world = engine.optimizer, dist.get_world_size()
    if engine.zero_optimization_stage() < 3:
        optimizer.load_state_dict(
            [_flat(optimizer, parts)] * world, load_from_fp32_weights=True
        )  # it takes this rank's
        return
    optimizer.checkpoint_event_prologue()
    optimizer.load_state_dict([_parameters(optimizer, parts)] * world)
    optimizer.checkpoint_event_epilogue()


def _flat(optimizer: Any, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of ZeRO 1 and 2. The trainer has one group of parameters."""
    weights = [part[SINGLE_PARTITION_OF_FP32_GROUPS][0] for part in parts]  # already without what fills them up
    total = sum(part.numel() for part in weights)
    size = optimizer.single_partition_of_fp32_groups[0].numel()
    first = dist.get_rank() * size

    def of(key: str) -> Tensor:
        return span([part[BASE_OPTIMIZER_STATE]["state"][0][key] for part in parts], first, size, total)

    base = parts[0][BASE_OPTIMIZER_STATE]
    state = {0: {"step": base["state"][0]["step"].clone()} | {key: of(key) for key in _MOMENTS}}
    return parts[0] | {
        SINGLE_PARTITION_OF_FP32_GROUPS: [span(weights, first, size, total)],
        BASE_OPTIMIZER_STATE: base | {"state": state},
    }


def _parameters(optimizer: Any, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of ZeRO 3."""
    own = parts[0][OPTIMIZER_STATE_DICT]
    weights = _regrouped(optimizer, [part[FP32_FLAT_GROUPS] for part in parts])

    def moments(key: str) -> list[Tensor]:
        written = [part[OPTIMIZER_STATE_DICT]["state"] for part in parts]
        return _regrouped(optimizer, [[group[key] for _, group in sorted(state.items())] for state in written])

    moved = {key: moments(key) for key in _MOMENTS}
    steps = own["state"][0]["step"]  # the optimizer counts on in the tensor that it is given, so each gets its own
    state = {
        number: {"step": steps.clone()} | {key: groups[number] for key, groups in moved.items()}
        for number in range(len(weights))
    }
    groups = [own["param_groups"][0] | {"params": list(state)}]
    return parts[0] | {
        FP32_FLAT_GROUPS: weights,
        OPTIMIZER_STATE_DICT: {"state": state, "param_groups": groups},
        PARTITION_COUNT: optimizer.partition_count,
    }


def _regrouped(optimizer: Any, written: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Each rank's sub-groups, as they were written -> this rank's of now."""
    rank, at = dist.get_rank(), 0
    groups = []
    for group in optimizer.fp16_groups:
        pieces = []
        for parameter in group:
            whole = parameter.ds_numel
            before, now = -(-whole // len(written)), parameter.partition_numel()
            pieces.append(_piece(written, at, before, rank * now, now, whole))
            at += before
        groups.append(torch.cat(pieces))
    return groups


def _piece(written: Sequence[Sequence[Tensor]], at: int, before: int, first: int, size: int, whole: int) -> Tensor:
    """`size` elements from `first` on of a parameter of `whole`, of which each rank had `before`, from `at` on of all
    that it had."""
    piece = torch.zeros(size)
    for rank, groups in enumerate(written):
        start, end = max(first, rank * before), min(first + size, (rank + 1) * before, whole)
        if start < end:
            there = at + start - rank * before
            piece[start - first : end - first] = span(groups, there, end - start, there + end - start)
    return piece


def span(parts: Sequence[Tensor], first: int, size: int, total: int) -> Tensor:
    """(size,) elements from `first` on of the parts laid end to end, of which `total` count; zeros after those."""
    found, at = torch.zeros(size), 0
    for part in parts:
        start, end = max(first, at), min(first + size, at + part.numel(), total)
        if start < end:
            found[start - first : end - first] = part[start - at : end - at]
        at += part.numel()
    return found
