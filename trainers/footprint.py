"""What a training process holds in memory, by the sizes of its model. Imports neither torch nor transformers.

Invariant: it only computes, in bytes, from a model's `config.json` and the trainer's settings, what transformers'
layers keep for the backward pass, what `head` makes of the vocabulary, and what DeepSpeed's stages share out; nothing
is fitted to a measurement. A tensor that lives for a moment inside one operation is not counted, nor what Python and
its libraries take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config import LoRAConfig
from trainers.architectures import experts
from trainers.ds_config import BUCKET
from trainers.spec import CHUNK, LARGE

_GATHERED = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered, and that its optimizer steps at a time: DeepSpeed's own defaults."""

_INPUT = {"q_proj": "row", "k_proj": "row", "v_proj": "row", "o_proj": "attention", "gate_proj": "attended"}
_INPUT |= {"up_proj": "attended", "down_proj": "product"}
"""Linear layer -> what it takes; those that take the same keep it once."""

Reference = Literal["whole", "sharded", "offloaded"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that its memory follows from."""

    words: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    """Of a layer's MLP, or of one expert."""
    experts: int = 0
    """0: a dense model."""
    active: int = 1
    """Experts that a token goes through."""
    tied: bool = False
    head_norms: bool = False
    """Queries and keys are normalised (Qwen3)."""
    biases: bool = False
    """Queries, keys and values have biases (Qwen2)."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """None where the config does not say it."""
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        if not all(isinstance(config.get(name), int) for name in names):
            return None
        words, width, layers, heads, inner = (config[name] for name in names)
        kind = str(config.get("model_type", ""))
        return cls(
            words=words,
            width=width,
            layers=layers,
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or width // heads,
            inner=config.get("moe_intermediate_size") or inner if experts(config) else inner,
            experts=experts(config),
            active=config.get("num_experts_per_tok") or 1,
            tied=bool(config.get("tie_word_embeddings", False)),
            head_norms=kind.startswith("qwen3"),
            biases=kind.startswith("qwen2") or bool(config.get("attention_bias", False)),
        )

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Of keys or of values, a token and layer."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Elements of the largest tensor of a dense model."""
        return self.words * self.width

    @property
    def parameters(self) -> int:
        attention = 2 * self.width * (self.queries + self.keys)
        attention += self.biases * (self.queries + 2 * self.keys) + self.head_norms * 2 * self.head_dim
        mlp = 3 * self.width * self.inner
        if self.experts:
            mlp = self.experts * (mlp + self.width)
        layer = attention + mlp + 2 * self.width
        return self.embedding * (1 if self.tied else 2) + self.layers * layer + self.width

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """A layer's linear layers, those of experts left out: what each takes and gives."""
        w, q, k, i = self.width, self.queries, self.keys, self.inner
        attention = {"q_proj": (w, q), "k_proj": (w, k), "v_proj": (w, k), "o_proj": (q, w)}
        return attention | ({} if self.experts else {"gate_proj": (w, i), "up_proj": (w, i), "down_proj": (i, w)})

    def adapted(self, lora: LoRAConfig) -> dict[str, tuple[int, int]] | None:
        """Those with an adapter; None where some are asked for whose sizes are not known here."""
        names = self.linear if lora.targets is None else lora.targets
        return {name: self.linear[name] for name in names} if set(names) <= set(self.linear) else None

    def adapter(self, lora: LoRAConfig) -> int:
        """Elements of an adapter."""
        return self.layers * sum(lora.rank * (takes + gives) for takes, gives in (self.adapted(lora) or {}).values())

    def kept_a_token(self, size: int, lora: LoRAConfig | None = None) -> int:
        """Bytes that a layer keeps of a token for its backward pass, with elements of so many bytes.

        A norm keeps its input in float32, one scale, and the normalised in the model's type; what is made of it is kept
        by who reads it. Attention keeps queries, keys, values, its output twice (per trajectory, and of the row) and
        the sums of its rows. The MLP keeps both projections, the activation and the product. Of weights that are
        frozen nobody keeps an input: neither a norm the normalised, nor a layer what it takes, but for its adapter,
        which keeps what it makes of it as well, and after dropout a copy and its mask.
        """
        norms = 2 * (4 * self.width + 4)
        attention = size * (2 * self.queries + 2 * self.keys) + 4 * self.heads
        if self.head_norms:
            norms += 4 * (self.queries + self.keys + self.heads + self.kv_heads)
        kept = norms + attention + size * 3 * self.inner * self.active
        if lora is None:
            normalised = 2 * self.width + self.head_norms * (self.queries + self.keys)
            return kept + size * (normalised + 2 * self.width + self.queries + self.inner * self.active)
        on = self.adapted(lora) or {}
        if lora.dropout:
            return kept + size * sum(lora.rank + 2 * takes for takes, _ in on.values())
        inputs = {_INPUT[name]: takes for name, (takes, _) in on.items()}
        return kept + size * (lora.rank * len(on) + sum(inputs.values()))

    def passing_a_token(self, size: int) -> int:
        """Bytes of a token within the backward pass of a layer: gradients of the MLP, and of its ends."""
        return size * (3 * self.inner * self.active + 2 * self.width)

    def cache_a_token(self, size: int = 2) -> int:
        """Bytes of a token in an engine's KV cache."""
        return 2 * self.layers * self.keys * size


@dataclass(frozen=True)
class Settings:
    """Those of the trainer that its memory depends on."""

    dtype: Literal["float32", "bfloat16"]
    zero_stage: int
    workers: int
    tokens: int
    """Of the longest row."""
    checkpointing: bool | None
    reference: Reference | None
    """None: the objective needs none, or it is the policy without its adapter."""
    offload: Literal["optimizer", "parameters"] | None
    use_gpu: bool
    lora: LoRAConfig | None = None


@dataclass(frozen=True)
class Footprint:
    """Bytes of one rank."""

    parameters: float
    gradients: float
    optimizer: float
    """Two moments, and float32 weights where the model has others or they are shared out."""
    reference: float
    activations: float
    """What layers keep for the backward pass, or their inputs alone."""
    layer: float
    """Within the backward pass of one layer: what it keeps, where that is computed again, and its gradients."""
    logits: float
    """Within the vocabulary projection, before the first layer's turn."""
    buffers: float
    """What DeepSpeed gathers and reduces in."""
    update: float
    """For a moment, while the optimizer steps and activations are gone."""
    host: float = 0.0
    """In the machine's memory, of what is offloaded from a GPU."""

    @property
    def held(self) -> float:
        return self.parameters + self.gradients + self.optimizer + self.reference

    @property
    def peak(self) -> float:
        """From the second micro-batch on: before it there are no gradients."""
        return self.held + max(self.activations + max(self.layer, self.logits) + self.buffers, self.update)


def footprint(shape: Shape, s: Settings) -> Footprint:
    size = 2 if s.dtype == "bfloat16" else 4
    frozen = s.lora is not None
    n = shape.parameters + (shape.adapter(s.lora) if s.lora else 0)
    trained = shape.adapter(s.lora) if s.lora else n
    whole, share = n * size, trained / s.workers
    parameters = whole if s.zero_stage < 3 else whole / s.workers
    gathered = 0.0 if s.zero_stage < 3 or s.workers == 1 else min(n, _GATHERED) * size
    gradients = {0: trained * size, 1: trained * size, 2: share * 4, 3: share * 4}[s.zero_stage]
    wrapped = s.zero_stage > 0 or size == 2  # DeepSpeed keeps float32 weights beside the model's
    optimizer = (share if s.zero_stage else trained) * (8 + 4 * wrapped)
    stepped = {0: trained, 1: share, 2: share, 3: min(share, _GATHERED)}[s.zero_stage]
    one = min(shape.embedding, trained) if s.zero_stage == 0 else stepped  # torch's AdamW, one tensor at a time
    update = 4 * stepped * wrapped + 2 * 4 * one
    reference = {None: 0.0, "whole": whole, "offloaded": 0.0, "sharded": whole / s.workers}[s.reference]

    again = n > LARGE if s.checkpointing is None else s.checkpointing
    kept = shape.kept_a_token(size, s.lora)
    ends = s.tokens * ((1 if frozen else 2) * size + 4) * shape.width  # what the last norm keeps and gives
    activations = ends + s.tokens * shape.layers * (shape.width * size if again else kept)
    layer = s.tokens * (shape.passing_a_token(size) + (kept if again else 0))
    projection = 0 if frozen else shape.embedding * size  # its gradient; tied, it waits for that of the embedding
    logits = 3 * 4 * min(CHUNK, s.tokens * shape.words) + projection
    if s.tokens * shape.words > CHUNK and not frozen:
        logits += shape.embedding * 4
    if shape.tied:
        layer += projection
    buffers = gathered + (min(BUCKET, trained) * size if s.zero_stage else 0)
    host = whole if s.reference == "offloaded" else 0.0
    if s.offload is not None:
        host, optimizer, update = host + optimizer, 0.0, 0.0
        if s.zero_stage >= 2:
            host, gradients = host + gradients, 0.0
    if s.offload == "parameters":
        host, parameters = host + parameters, 0.0
    return Footprint(
        parameters,
        gradients,
        optimizer,
        reference,
        activations,
        layer,
        logits,
        buffers,
        update,
        host if s.use_gpu else 0.0,
    )
