"""Arrow record batches of `Rollout` -> the tokens of a step and its micro-batches.

Invariant: every loss token of every trajectory is in exactly one micro-batch, and no token of padding exists: a
micro-batch is one row in which whole trajectories follow each other (`boundaries` says where), so the linear layers
compute real tokens only; `policy.packed_attention` keeps trajectories apart. Token arrays stay numpy views of the
Arrow buffers until a micro-batch is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.records import COGNITIVE_STAGES, Failure, Rollout
from trainers.objectives.base import StepTokens


@dataclass(frozen=True)
class MicroBatch:
    """A packed row of L tokens, K of which are loss tokens."""

    input_ids_1L: Tensor
    position_ids_1L: Tensor
    boundaries: tuple[int, ...]
    """Starts of the trajectories in the row, and L."""
    predict_K: Tensor
    """Position whose output predicts the loss token: the one before it."""
    target_K: Tensor
    """Id of the loss token."""
    token_K: Tensor
    """Index of the loss token among the N of the step."""

    def to(self, device: torch.device) -> MicroBatch:
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    @classmethod
    def filler(cls) -> MicroBatch:
        """Without loss tokens: by it a rank keeps step with ranks that have more micro-batches."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(torch.zeros(1, 2, dtype=torch.int64), torch.arange(2)[None], (0, 2), none, none, none)


@dataclass(frozen=True)
class StepBatch:
    """One rank's share of a step."""

    tokens: StepTokens
    ids_T: np.ndarray
    start_S: np.ndarray
    """First token of each trajectory in `ids_T`; one entry more than trajectories."""
    loss_N: np.ndarray
    """Positions of the loss tokens in `ids_T`, ascending."""

    @property
    def trajectories(self) -> int:
        return len(self.start_S) - 1

    @classmethod
    def from_arrow(cls, batches: Sequence[pa.RecordBatch | pa.Table]) -> StepBatch:
        """Raises Failure, naming the trajectory, where token fields disagree."""
        table = pa.concat_tables([_table(batch) for batch in batches] or [Rollout.schema_arrow().empty_table()])
        table = table.combine_chunks()
        start_S = _starts(table, "token_ids")
        mask_T = _values(table, "loss_mask")
        action_T = _values(table, "action_index")
        action_start_S = _starts(table, "action_stage")
        _check(table, start_S, action_start_S, mask_T, action_T)

        loss_N = np.flatnonzero(mask_T)
        seq_T = np.repeat(np.arange(table.num_rows), np.diff(start_S))
        seq_A = np.repeat(np.arange(table.num_rows), np.diff(action_start_S))
        _, group_S = np.unique(table["group_id"].to_numpy(), return_inverse=True)
        tokens = StepTokens(
            engine_K=torch.from_numpy(_values(table, "logprobs")[loss_N]),
            action_K=torch.from_numpy((action_start_S[seq_T] + action_T)[loss_N]),
            seq_A=torch.from_numpy(seq_A),
            stage_A=torch.from_numpy(_values(table, "action_stage").astype(np.int64)),
            process_A=torch.tensor(_values(table, "process_rewards")),
            reward_S=torch.tensor(table["terminal_reward"].to_numpy()),
            group_S=torch.from_numpy(group_S.astype(np.int64)),
            length_S=torch.from_numpy(np.bincount(seq_T[loss_N], minlength=table.num_rows).astype(np.float32)),
            groups=int(group_S.max(initial=-1)) + 1,
        )
        return cls(tokens, _values(table, "token_ids"), start_S, loss_N)

    def select(self, keep_S: np.ndarray) -> StepBatch:
        """The trajectories of a mask alone."""
        t = self.tokens
        keep_T = np.repeat(keep_S, np.diff(self.start_S))
        keep_N = torch.from_numpy(keep_T[self.loss_N])
        keep_A = torch.from_numpy(keep_S)[t.seq_A]
        _, group_S = torch.unique(t.group_S[torch.from_numpy(keep_S)], return_inverse=True)
        tokens = StepTokens(
            engine_K=t.engine_K[keep_N],
            action_K=(keep_A.cumsum(0) - 1)[t.action_K[keep_N]],
            seq_A=(torch.from_numpy(keep_S).cumsum(0) - 1)[t.seq_A[keep_A]],
            stage_A=t.stage_A[keep_A],
            process_A=t.process_A[keep_A],
            reward_S=t.reward_S[torch.from_numpy(keep_S)],
            group_S=group_S,
            length_S=t.length_S[torch.from_numpy(keep_S)],
            groups=int(group_S.max()) + 1 if len(group_S) else 0,
        )
        start_S = np.concatenate([[0], np.cumsum(np.diff(self.start_S)[keep_S])])
        loss_N = (np.cumsum(keep_T) - 1)[self.loss_N[keep_N.numpy()]]
        return StepBatch(tokens, self.ids_T[keep_T], start_S, loss_N)

    def mini_batches(self, count: int, seed: Sequence[int]) -> list[StepBatch]:
        """`count` parts of whole groups, about equally many each, dealt out by the seed; the step itself as one part.
        A part is empty where there are fewer groups."""
        if count == 1:
            return [self]
        part_G = np.random.default_rng(seed).permutation(self.tokens.groups) % count
        part_S = part_G[self.tokens.group_S.numpy()] if self.tokens.groups else np.zeros(0, dtype=np.int64)
        return [self.select(part_S == part) for part in range(count)]

    def micro_batches(self, max_tokens: int) -> list[MicroBatch]:
        """Trajectories packed, longest first, into rows of at most `max_tokens` (a longer trajectory has its own).

        Those without a loss token are left out: they take part in the advantages only.
        """
        length_S = np.diff(self.start_S)
        rows: list[list[int]] = []
        free: list[int] = []
        for index in np.argsort(-length_S, kind="stable"):
            if self.tokens.length_S[index] == 0:
                continue
            length = int(length_S[index])
            row = next((r for r, room in enumerate(free) if room >= length), None)
            if row is None:
                rows.append([])
                free.append(max_tokens)
                row = len(rows) - 1
            rows[row].append(int(index))
            free[row] -= length
        return [self._pack(row) for row in rows]

    def _pack(self, trajectories: list[int]) -> MicroBatch:
        spans = [(int(self.start_S[s]), int(self.start_S[s + 1])) for s in trajectories]
        boundaries = np.cumsum([0] + [end - start for start, end in spans])
        positions, tokens = [], []
        for (start, end), offset in zip(spans, boundaries, strict=False):
            first, last = np.searchsorted(self.loss_N, [start, end])
            positions.append(self.loss_N[first:last] - start + offset)
            tokens.append(np.arange(first, last))
        ids_L = np.concatenate([self.ids_T[start:end] for start, end in spans]).astype(np.int64)
        position_K = np.concatenate(positions)
        return MicroBatch(
            input_ids_1L=torch.from_numpy(ids_L)[None],
            position_ids_1L=torch.from_numpy(np.concatenate([np.arange(end - start) for start, end in spans]))[None],
            boundaries=tuple(int(b) for b in boundaries),
            predict_K=torch.from_numpy(position_K - 1),
            target_K=torch.from_numpy(ids_L[position_K]),
            token_K=torch.from_numpy(np.concatenate(tokens)),
        )


def _table(batch: pa.RecordBatch | pa.Table) -> pa.Table:
    return batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])


def _starts(table: pa.Table, name: str) -> np.ndarray:
    """Offsets of a list column, from 0."""
    lengths = pa.compute.list_value_length(table[name]).to_numpy()
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _values(table: pa.Table, name: str) -> np.ndarray:
    """All values of a list column in one array."""
    return pa.compute.list_flatten(table[name]).to_numpy()


def _check(
    table: pa.Table, start_S: np.ndarray, action_start_S: np.ndarray, mask_T: np.ndarray, action_T: np.ndarray
) -> None:
    """The wire format's own rules; a batch that breaks one was written wrongly."""

    def fail(rows: np.ndarray, problem: str) -> None:
        if len(rows):
            raise Failure(f"rollout {table['episode_id'][int(rows[0])].as_py()}: {problem}")

    for name in ("loss_mask", "logprobs", "action_index"):
        fail(np.flatnonzero(_starts(table, name) != start_S) - 1, f"{name} and token_ids differ in length")
    for name in ("process_rewards", "action_kind"):
        fail(np.flatnonzero(_starts(table, name) != action_start_S) - 1, f"{name} and action_stage differ in length")
    seq_T = np.repeat(np.arange(table.num_rows), np.diff(start_S))
    actions_T = np.diff(action_start_S)[seq_T]
    fail(seq_T[(mask_T != 0) & ((action_T < 0) | (action_T >= actions_T))], "a loss token belongs to no action")
    first_S = start_S[:-1][np.diff(start_S) > 0]
    fail(seq_T[first_S[mask_T[first_S] != 0]], "its first token is a loss token, but nothing precedes it")
    stage_A = _values(table, "action_stage")
    seq_A = np.repeat(np.arange(table.num_rows), np.diff(action_start_S))
    fail(
        seq_A[(stage_A < 0) | (stage_A >= len(COGNITIVE_STAGES))],
        f"a stage index is outside 0..{len(COGNITIVE_STAGES) - 1}",
    )
    fail(seq_A[~np.isfinite(_values(table, "process_rewards"))], "a process reward is not finite")
    fail(np.flatnonzero(~np.isfinite(table["terminal_reward"].to_numpy())), "the terminal reward is not finite")
    fail(seq_T[(mask_T != 0) & ~np.isfinite(_values(table, "logprobs"))], "a log-probability is not finite")
