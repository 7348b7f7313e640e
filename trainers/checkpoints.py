"""Checkpoints: a Hugging Face directory that vLLM and transformers load, with the optimizer's state beside it.

    step-NNNNNN/  config.json · model*.safetensors · tokenizer files      from rank 0
                  adapter/                                                  of LoRA: the adapter as peft stores it; the
                                                                            weights above have it added
                  trainer/state.json                                        step, rollouts trained up to it, and the
                                                                            ranks and ZeRO stage it was written by
                  trainer/engine/*                                          DeepSpeed's state, one part from each rank
                  trainer/manifest-R.json                                   digests of what rank R wrote

Invariant: a checkpoint is what Ray Train has registered in its snapshot, which it does only when every rank has
uploaded its part; a folder that a crash left half written is in no snapshot, is never resumed from, and is
overwritten when the run comes to that step again. Each rank writes to its own temporary directory. Read is only what
has the digests that it had then; by another number of ranks than wrote it too (`reshard`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ray.train
from safetensors.torch import save_file

from pipeline.records import Failure
from pipeline.store.digests import digest, entries_of, files_below, unseal, write_manifest
from trainers import adapters, reshard
from trainers.learner import Learner
from trainers.ranks import Ranks
from trainers.weights import gathered
from trainers.wire import in_chunks

SHARD_BYTES = 4 << 30
OWN_FILES = ("config.json", "generation_config.json")
"""Written from the model itself; every other small file of the base directory is copied (the tokenizer's)."""


def save(learner: Learner, step: int, rollouts: int, metrics: dict[str, float]) -> None:
    """Store a checkpoint of `step`, which has trained `rollouts` in all. All ranks call it; it returns when
    all parts are uploaded."""
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
        root = Path(folder)
        write(learner, root, step, rollouts)
        ray.train.report(
            metrics | {"step": step},
            checkpoint=ray.train.Checkpoint.from_directory(root),
            checkpoint_dir_name=f"step-{step:06d}",
        )


def write(learner: Learner, root: Path, step: int, rollouts: int) -> None:
    """This rank's part of a checkpoint. All ranks call it."""
    _save_model(learner, root)
    adapted = learner.spec.lora is not None  # then the rest is in the model that the run began with
    learner.engine.save_checkpoint(
        str(root / "trainer"), tag="engine", save_latest=False, exclude_frozen_parameters=adapted
    )
    if learner.ranks.rank == 0:
        state = {"step": step, "rollouts": rollouts} | _written_by(learner)
        (root / "trainer" / "state.json").write_text(json.dumps(state))
    write_manifest(
        root, f"step-{step:06d}", files_below(root), _manifest(learner.ranks.rank), step=step, rollouts=rollouts
    )


def _written_by(learner: Learner) -> dict[str, Any]:
    """What a run must have alike to resume from the checkpoint, but for the number of ranks."""
    spec = learner.spec
    lora = None if spec.lora is None else spec.lora.model_dump(mode="json")
    return {"world": learner.ranks.world, "zero_stage": spec.zero_stage, "dtype": spec.dtype, "lora": lora}


def restore(learner: Learner) -> tuple[int, int]:
    """Load the run's last checkpoint; returns its step and rollouts, 0 and 0 where there is none. Raises Agreed."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, 0
    with checkpoint.as_directory() as folder:
        return read(learner, Path(folder))


def read(learner: Learner, root: Path) -> tuple[int, int]:
    """Load a checkpoint, by however many ranks it was written; returns its step and rollouts. All ranks call it. Raises
    Agreed where it is of another run, or not as it was written: before any rank loads, which ranks do together."""
    ranks = learner.ranks
    ranks.agree(lambda: _check(root, ranks.rank))
    state: dict[str, Any] = json.loads((root / "trainer" / "state.json").read_text())
    ranks.agree(lambda: _same_run(learner, state))
    ranks.agree(lambda: _check_others(root, ranks, state["world"]))
    engine, folder = learner.engine, root / "trainer"
    again = state["world"] != learner.ranks.world and learner.spec.zero_stage > 0
    if not (again and learner.spec.zero_stage == 3):  # there, what is trained comes with the optimizer's state
        whole = learner.spec.lora is None  # of an adapter it has the adapter alone
        loaded, _ = engine.load_checkpoint(
            str(folder), tag="engine", load_module_strict=whole, load_optimizer_states=not again
        )
        if loaded is None:
            raise Failure(f"checkpoint of step {state['step']}: DeepSpeed found no state in trainer/engine")
    if again:
        reshard.load(engine, folder / "engine", state["world"])
    return int(state["step"]), int(state["rollouts"])


def _same_run(learner: Learner, state: dict[str, Any]) -> None:
    mine = _written_by(learner) | {"world": state["world"]}
    if differing := {k: state.get(k) for k in mine if state.get(k) != mine[k]}:
        raise Failure(
            f"checkpoint of step {state['step']} was written with {differing}, this run has "
            f"{ {k: mine[k] for k in differing} }; resume with the former, or start a run of another name"
        )


def _manifest(rank: int) -> str:
    return f"trainer/manifest-{rank}.json"


def _check_others(root: Path, ranks: Ranks, written_by: int) -> None:
    """Those that had no rank of their own look at: each has its share of them."""
    for rank in range(ranks.rank + ranks.world, written_by, ranks.world):
        _check(root, rank)


def _check(root: Path, rank: int) -> None:
    """Raises Failure where a file of a rank's manifest is not what the manifest says."""
    name = _manifest(rank)
    if not (root / name).exists():
        return
    try:
        expected = entries_of(unseal((root / name).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Failure(f"checkpoint {root.name}: {name} is not what was written ({e})") from None
    for file, entry in expected.items():
        try:
            same = digest(root / file) == entry
        except OSError:
            same = False
        if not same:
            raise Failure(f"checkpoint {root.name}: {file} is not what was written; see `propose verify`")


def _save_model(learner: Learner, root: Path) -> None:
    """The Hugging Face part: weights in shards that rank 0 holds one at a time."""
    lm: Any = learner.engine.module.lm
    names: dict[str, str] = {}
    parts: list[Path] = []
    for chunk in in_chunks(gathered(lm, learner.ranks.rank, None), SHARD_BYTES):
        parts.append(root / f"part-{len(parts)}")
        save_file(chunk, parts[-1], metadata={"format": "pt"})
        names |= dict.fromkeys(chunk, parts[-1].name)
    if (lora := learner.spec.lora) is not None:
        adapters.save(lm, lora, learner.spec.base_model, learner.ranks.rank, root / adapters.FOLDER)
    if learner.ranks.rank != 0:
        return
    if len(parts) == 1:
        parts[0].rename(root / "model.safetensors")
    else:
        final = {p.name: f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i, p in enumerate(parts)}
        for part in parts:
            part.rename(root / final[part.name])
        index = {"metadata": {}, "weight_map": {name: final[part] for name, part in names.items()}}
        (root / "model.safetensors.index.json").write_text(json.dumps(index))
    lm.config.save_pretrained(root)
    if lm.generation_config is not None:
        lm.generation_config.save_pretrained(root)
    for file in learner.spec.base_model.iterdir():
        weights = file.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf") or ".index.json" in file.name
        if file.is_file() and not weights and file.name not in OWN_FILES:
            shutil.copyfile(file, root / file.name)
