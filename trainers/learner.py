"""The optimizer updates of a step from one rank's share of it, in lock-step with the other ranks.

Under ZeRO-3 every module that is entered is a collective, so all ranks run the same passes over the same number of
micro-batches: a rank with fewer (or none) adds fillers, which have no loss token, and go through everything that the
others go through. Only sums are exchanged besides: token counts, the batch-scoped mean, metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import deepspeed
import numpy as np
import torch
from torch import Tensor

from trainers import adapters, diagnostics, ds_config
from trainers.batches import MicroBatch, StepBatch
from trainers.objectives import make
from trainers.objectives.base import Means, StepTokens, Totals
from trainers.policy import Policy, check
from trainers.ranks import Agreed, Ranks
from trainers.reference import Reference, WithoutAdapter
from trainers.spec import LARGE, TrainSpec


class Learner:
    """The policy under DeepSpeed, the frozen reference where the objective needs one, and the update."""

    def __init__(self, spec: TrainSpec, ranks: Ranks):
        self.spec = spec
        self.ranks = ranks
        self.objective = make(spec.objective)
        # Else DeepSpeed compiles its shared-memory collectives at start-up: half a minute, and fatal without a C++
        # compiler. Gloo does their work.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        policy = self._policy()
        again = spec.activation_checkpointing
        if policy.size > LARGE if again is None else again:
            policy.lm.gradient_checkpointing_enable()
        self.reference: Reference | WithoutAdapter | None = None
        if self.objective.needs_reference and spec.lora is None:
            self.reference = Reference(spec, ranks)
        trained = [p for p in policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay)
        self.engine, *_ = deepspeed.initialize(
            model=policy,
            optimizer=optimizer,
            config=ds_config.build(spec, policy.size, policy.trained),
            dist_init_required=False,
        )
        if self.objective.needs_reference and spec.lora is not None:
            self.reference = WithoutAdapter(self.engine)
        self._plain_norm = 0.0
        if self._plain:
            self.engine.clip_fp32_gradients = self._clip

    def _policy(self) -> Policy:
        """Shared out as it is loaded, where it is to be shared out; with its adapter, where one is trained."""
        spec, dtype = self.spec, getattr(torch, self.spec.dtype)
        if spec.zero_stage < 3:
            policy = self.ranks.agree(lambda: Policy.load(spec.base_model, dtype))
        else:
            self.ranks.agree(lambda: check(spec.base_model))  # before the first rank waits for the others in loading
            policy = Policy.load(spec.base_model, dtype, ds_config.build(spec, ds_config.BUCKET, ds_config.BUCKET))
        lora = spec.lora
        if lora is not None:
            self.ranks.agree(lambda: adapters.add(policy.lm, lora, dtype, spec.seed))
            policy.register_state_dict_post_hook(adapters.without_frozen)
        return policy

    def update(self, batch: StepBatch, step: int, lr: float) -> dict[str, float]:
        """Train on the step: `passes` times `mini_batches` updates; returns metrics that are equal on all ranks, means
        over all of them. Raises Agreed on an empty step."""
        spec, ranks = self.spec, self.ranks
        whole = self._totals(batch)
        if whole.tokens == 0:
            raise Agreed(f"step {step}: no loss token in {whole.sequences:g} trajectories; expected at least one")
        # What a step draws (dropout) is the same in a run that is resumed.
        torch.manual_seed(int(np.random.SeedSequence((spec.seed, step, ranks.rank)).generate_state(1)[0]))
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        found: list[tuple[Means, dict[str, float]]] = []
        for pass_ in range(spec.passes):
            # A rank has groups of its own, so each deals out its own.
            for part in batch.mini_batches(spec.mini_batches, (spec.seed, step, pass_, ranks.rank)):
                totals = self._totals(part)
                if totals.tokens:  # fewer groups than mini-batches
                    found.append(self._update(part, totals))
        means = {name: (_sum_of(found, name, 0), _sum_of(found, name, 1)) for name in found[0][0]}
        plain = {name: sum(own[name] for _, own in found) / len(found) for name in found[0][1]}
        metrics = diagnostics.reduce(means, ranks.total) | plain
        return metrics | {
            "tokens": whole.tokens * spec.passes,
            "trajectories": whole.sequences,
            "updates": float(len(found)),
            "lr": lr,
        }

    def _totals(self, batch: StepBatch) -> Totals:
        counts = torch.tensor([len(batch.loss_N), batch.trajectories], dtype=torch.float64)
        return Totals(*self.ranks.total(counts).tolist())

    def _update(self, batch: StepBatch, totals: Totals) -> tuple[Means, dict[str, float]]:
        """One optimizer update from the trajectories of `batch`; returns figures of this rank, and of all ranks."""
        ranks = self.ranks
        micro_batches = [m.to(ranks.device) for m in batch.micro_batches(self.spec.micro_batch_tokens)]
        passes = ranks.largest(len(micro_batches))
        micro_batches += [MicroBatch.filler().to(ranks.device)] * (passes - len(micro_batches))

        tokens = batch.tokens.to(ranks.device)
        ref_N = torch.zeros_like(tokens.engine_K)
        if self.reference is not None:
            with self.reference.at_hand() as reference:
                self._scan(reference, micro_batches, ref_N)
        logp_N, entropy_N, weight_N = (torch.zeros_like(ref_N) for _ in range(3))
        if self.objective.whole_step:
            self.engine.eval()
            self._scan(self.engine, micro_batches, logp_N)
            weight_N = self.objective.weights(tokens, logp_N, ref_N, totals, ranks.total)
        self.engine.train()
        for micro in micro_batches:
            logp_K, entropy_K = self.engine(micro)
            at_K = micro.token_K
            logp_N[at_K], entropy_N[at_K] = logp_K.detach(), entropy_K
            if not self.objective.whole_step:
                weight_N[at_K] = self._weights(tokens.select(at_K), logp_N[at_K], ref_N[at_K], totals)
            loss = -(weight_N[at_K] * logp_K).sum()
            # DeepSpeed averages gradients over ranks; the weights are normalised over all of them already.
            self.engine.backward(loss * ranks.world)
        norm = self._stepped()

        reference_N = ref_N if self.reference else None
        of_engine = self.objective.of_engine
        means = diagnostics.common(tokens, logp_N, reference_N, weight_N, entropy_N, totals.tokens, of_engine)
        means |= self.objective.diagnostics(tokens, logp_N, weight_N)
        loss_sum = float(ranks.total(-(weight_N.double() * logp_N).sum()))
        return means, {"loss": loss_sum, "grad_norm": norm, "grad_clipped": float(norm > self.spec.grad_clip)}

    def _stepped(self) -> float:
        """Let the optimizer step; returns the norm of the gradient before it was clipped."""
        self.engine.step()
        return self._plain_norm if self._plain else float(self.engine.get_global_grad_norm())

    @property
    def _plain(self) -> bool:
        """Whether the optimizer is torch's own, not one that DeepSpeed wraps."""
        return self.spec.zero_stage == 0 and self.spec.dtype == "float32"

    def _clip(self) -> None:
        """In place of DeepSpeed's, which keeps no norm. It calls this in its step, once gradients are those of all
        ranks."""
        parameters = self.engine.module.parameters()
        self._plain_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.spec.grad_clip))

    def _weights(self, tokens: StepTokens, logp_K: Tensor, ref_K: Tensor, totals: Totals) -> Tensor:
        return self.objective.weights(tokens, logp_K, ref_K, totals, self.ranks.total)

    @torch.no_grad()
    def _scan(self, model: Any, micro_batches: Sequence[MicroBatch], into_N: Tensor) -> None:
        """Log-probabilities of all loss tokens, without gradients."""
        for micro in micro_batches:
            into_N[micro.token_K], _ = model(micro)


def _sum_of(found: Sequence[tuple[Means, dict[str, float]]], name: str, part: int) -> Tensor:
    """Of the sums, or of the counts, of an entry of `Means` over all updates."""
    return torch.stack([means[name][part] for means, _ in found]).sum()
