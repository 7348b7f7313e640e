"""Ranks as processes of their own, over gloo, without Ray: what a test asks of two or three of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

PATIENCE = timedelta(seconds=60)
"""How long a rank waits for the others in a collective: ranks out of step fail, they do not hang."""


def in_ranks(world: int, work: Callable[..., Any], folder: Path, *given: Any) -> list[Any]:
    """`work(ranks, *given)` in each of so many processes; what each returned, saved and loaded by torch."""
    processes.start_processes(_rank, (world, work, folder, given), nprocs=world, start_method="spawn")
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, work: Callable[..., Any], folder: Path, given: tuple[Any, ...]) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    from trainers.ranks import Ranks

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world, timeout=PATIENCE
    )
    torch.save(work(Ranks(rank, world, torch.device("cpu")), *given), folder / f"rank-{rank}.pt")
    dist.destroy_process_group()
