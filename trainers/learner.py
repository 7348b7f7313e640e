"""One optimizer update from one rank's share of a step, in lock-step with the other ranks.

Under ZeRO-3 every forward and backward pass is a collective, so all ranks run the same number of them: a rank with
fewer micro-batches (or none) adds fillers, whose loss is zero. Only sums are exchanged besides: token counts, the
batch-scoped mean, metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import deepspeed
import torch
from torch import Tensor

from trainers import diagnostics, ds_config
from trainers.batches import MicroBatch, StepBatch
from trainers.objectives import make
from trainers.objectives.base import StepTokens, Totals
from trainers.policy import Policy
from trainers.ranks import Agreed, Ranks
from trainers.spec import TrainSpec


class Learner:
    """The policy under DeepSpeed, the frozen reference where the objective needs one, and the update."""

    def __init__(self, spec: TrainSpec, ranks: Ranks):
        self.spec = spec
        self.ranks = ranks
        self.objective = make(spec.objective)
        dtype = getattr(torch, spec.dtype)
        policy = ranks.agree(lambda: Policy.load(spec.base_model, dtype))
        if spec.activation_checkpointing:
            policy.lm.gradient_checkpointing_enable()
        self.reference: Policy | None = None
        if self.objective.needs_reference:
            self.reference = Policy.load(spec.base_model, dtype).to(ranks.device).eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay)
        parameters = sum(p.numel() for p in policy.parameters())
        # Else DeepSpeed compiles its shared-memory collectives at start-up: half a minute, and fatal without a C++
        # compiler. Gloo does their work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.engine, *_ = deepspeed.initialize(
            model=policy,
            optimizer=optimizer,
            config=ds_config.build(spec, parameters),
            dist_init_required=False,
        )

    def update(self, batch: StepBatch, step: int, lr: float) -> dict[str, float]:
        """Train on the step; returns metrics that are equal on all ranks. Raises Agreed on an empty step."""
        ranks = self.ranks
        counts = torch.tensor([len(batch.loss_N), batch.trajectories], dtype=torch.float64)
        totals = Totals(*ranks.total(counts).tolist())
        if totals.tokens == 0:
            raise Agreed(f"step {step}: no loss token in {totals.sequences:g} trajectories; expected at least one")
        micro_batches = [m.to(ranks.device) for m in batch.micro_batches(self.spec.micro_batch_tokens)]
        passes = ranks.largest(len(micro_batches))
        micro_batches += [MicroBatch.filler().to(ranks.device)] * (passes - len(micro_batches))
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr

        tokens = batch.tokens.to(ranks.device)
        ref_N = torch.zeros_like(tokens.engine_K)
        if self.reference is not None:
            self._scan(self.reference, [m for m in micro_batches if m.real], ref_N)
        logp_N, entropy_N, weight_N = (torch.zeros_like(ref_N) for _ in range(3))
        if self.objective.whole_step:
            self.engine.eval()
            self._scan(self.engine, micro_batches, logp_N)
            weight_N = self.objective.weights(tokens, logp_N, ref_N, totals, ranks.total)
        self.engine.train()
        for micro in micro_batches:
            logp_K, entropy_K = self.engine(micro)
            if micro.real:
                at_K = micro.token_K
                logp_N[at_K], entropy_N[at_K] = logp_K.detach(), entropy_K
                if not self.objective.whole_step:
                    weight_N[at_K] = self._weights(tokens.select(at_K), logp_N[at_K], ref_N[at_K], totals)
                loss = -(weight_N[at_K] * logp_K).sum()
            else:
                loss = 0 * logp_K.sum()
            # DeepSpeed averages gradients over ranks; the weights are normalised over all of them already.
            self.engine.backward(loss * ranks.world)
        self.engine.step()

        reference_N = ref_N if self.reference else None
        of_engine = self.objective.of_engine
        means = diagnostics.common(tokens, logp_N, reference_N, weight_N, entropy_N, totals.tokens, of_engine)
        means |= self.objective.diagnostics(tokens, logp_N, weight_N)
        metrics = diagnostics.reduce(means, ranks.total)
        loss_sum = ranks.total(-(weight_N.double() * logp_N).sum())
        return metrics | {"loss": float(loss_sum), "tokens": totals.tokens, "trajectories": totals.sequences, "lr": lr}

    def _weights(self, tokens: StepTokens, logp_K: Tensor, ref_K: Tensor, totals: Totals) -> Tensor:
        return self.objective.weights(tokens, logp_K, ref_K, totals, self.ranks.total)

    @torch.no_grad()
    def _scan(self, model: Any, micro_batches: Sequence[MicroBatch], into_N: Tensor) -> None:
        """Log-probabilities of all loss tokens, without gradients."""
        for micro in micro_batches:
            logp_K, _ = model(micro)
            if micro.real:
                into_N[micro.token_K] = logp_K
