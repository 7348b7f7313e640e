"""The profiles with models of their own, each from its file to its end, nothing replaced but models and sizes.

Models that are trained and served become small ones of the same kind (SmolLM2-135M; a random Qwen3; a random mixture of
experts), endpoints one that knows the truth, and a GPU a share of this machine's CPU. What a profile says of the method
(objectives, ZeRO, Pass@k, judges, ladder) stays. (`endpoints-only` has its own test, in tests/pipeline.)
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.actors.endpoint import serving
from tests.actors.tiny_model import make_model, make_tokenizer, randomize
from tests.realmodel.smollm import model_dir
from tests.realmodel.truth import SKILLS, TRAJECTORIES, completion

pytestmark = [pytest.mark.pipeline, pytest.mark.nightly, pytest.mark.timeout(7200)]

CONFIGS = Path(__file__).parents[2] / "deploy" / "configs"
CONTEXT = 24576
"""Tokens of the small models, whose tokenizer knows bytes alone."""


def smollm(folder: Path) -> Path:
    return model_dir()


def qwen3(folder: Path) -> Path:
    make_model(folder)
    return _longer(folder)


def mixture(folder: Path) -> Path:
    """A random Qwen3-MoE, its experts stored one by one, as on the Hub."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    make_tokenizer(folder)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
    width = {"vocab_size": 272, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    ends = {"bos_token_id": None, "eos_token_id": 258, "pad_token_id": 256}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**width, **heads, **experts, **ends, tie_word_embeddings=False))
    randomize(model, 0)
    model.to(torch.bfloat16).save_pretrained(folder)
    return _longer(folder)


def _longer(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": CONTEXT}))
    return folder


def replaced(tree: Any, field: str, by: Callable[[Any], Any]) -> Any:
    """A tree with the value of every field of that name put through `by`."""
    if isinstance(tree, list):
        return [replaced(item, field, by) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {k: by(v) if k == field else replaced(v, field, by) for k, v in tree.items()}


def over(tree: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`more` laid over `tree`, section by section."""
    both = {
        k: over(tree[k], v) if isinstance(v, dict) and isinstance(tree.get(k), dict) else v for k, v in more.items()
    }
    return tree | both


def small(folder: Path, profile: str, made: Path, turn: int, url: str) -> Path:
    """The profile with models and sizes of this machine, in `folder`. `turn`: tokens that a turn may have."""
    names: dict[str, str] = {}

    def model(path: str) -> str:
        if path not in names:
            names[path] = str(folder / f"model-{len(names)}")
            Path(names[path]).symlink_to(made)
        return names[path]

    tree = yaml.safe_load((CONFIGS / f"{profile}.yaml").read_text())
    tree = replaced(replaced(tree, "path", model), "base_url", lambda _: url)
    # So small a model solves and writes nothing that counts: in two places the one behind the endpoint.
    tree["prober"]["ladder"][0] = {"endpoint": {"base_url": url, "model": "prober"}}
    tree["synthesize"] = {"proposer": {"endpoint": {"base_url": url, "model": "writer"}}}
    on_cpu = {"num_gpus": 0, "num_cpus": 0.1, "min_replicas": 1, "max_replicas": 1, "start_timeout_s": 900}
    tree = replaced(tree, "pool", lambda pool: pool | on_cpu)
    size = {"tensor_parallel_size": 1, "max_num_seqs": 8, "kv_cache_gb": 0.5}
    tree = replaced(tree, "engine", lambda engine: engine | size | _at_most(engine, "max_model_len", CONTEXT))
    (folder / "corpus").mkdir()
    for skill in SKILLS:
        (folder / "corpus" / f"{skill.id}.md").write_text(f"{skill.id}: {skill.intent}.\n")
    rows = [{n: t[n] for n in ("question", "answer")} for t in TRAJECTORIES if t["kind"] == "math"][:3]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = {"max_tokens": 24}
    step = {"steps": 1, "group_size": 2, "warmup_steps": 0, "checkpoint_every": 1}
    tree = over(
        tree,
        {
            "ray": {"address": None, "num_cpus": 4, "object_store_mb": 512},
            "sandbox": {"minimum": "unsafe"},
            "acquire": {"corpus": [str(folder / "corpus")]},
            "episode": {"limits": {"max_turns": 8, "max_turn_tokens": turn}, "sampling": {"max_tokens": turn}},
            "prober": {"n": 4, "k": 2, "sampling": short},
            "trainer": {"use_gpu": False, "workers": min(2, tree["trainer"].get("workers", 1)), "threads": 1},
            "sft": {"trajectories": 4, "epochs": 1, "batch": 4, "warmup_steps": 0},
            "mgpo": step | {"groups": 1, "curriculum": {"min_skills": 2, "max_skills": 2}},
            "synthesize": {"target": 2, "max_episodes": 32, "in_flight": 4},
            "solve": step | {"problems": 2, "sampling": short}
            | ({"data": str(folder / "problems.jsonl")} if "data" in tree["solve"] else {}),
            "evaluate": {"benchmark": str(folder / "problems.jsonl"), "samples": 2, "sampling": short},
        },
    )  # fmt: skip
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _at_most(section: dict[str, Any], field: str, most: int) -> dict[str, Any]:
    return {field: min(section[field], most)} if field in section else {}


def propose(stage: str, config: Path, run: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "pipeline.cli", stage, "--config", str(config), "--run-dir", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    ("profile", "model", "turn", "stages"),
    [
        pytest.param("text-cpu", smollm, 300, ["run"], marks=pytest.mark.realmodel),
        ("qwen3-4b-8gpu", qwen3, 1500, ["run"]),
        ("qwen3-30b-a3b-solver", mixture, 1500, ["solve", "evaluate"]),
    ],
)
def test_a_profile_runs_to_its_end(
    profile: str, model: Callable[[Path], Path], turn: int, stages: list[str], tmp_path: Path
) -> None:
    with serving(completion) as (url, asked):
        config = small(tmp_path, profile, model(tmp_path / "made"), turn, url)
        for stage in stages:
            propose(stage, config, tmp_path / "run")
    run = tmp_path / "run"
    assert (asked["writer"] and asked["prober"]) if stages == ["run"] else not asked.total()
    before, after = (json.loads(p.read_text()) for p in sorted((run / "steps/evaluate").glob("*/score.json")))
    assert 0 <= before["mean"] <= 1 and 0 <= after["mean"] <= 1
    (checkpoint,) = (run / "checkpoints/solve").glob("step-*")
    assert _tensors(checkpoint) == _tensors(tmp_path / "model-0")
    shutil.rmtree(run)


def _tensors(folder: Path) -> dict[str, list[int]]:
    """Name -> shape of what a model directory holds, by the headers of its files."""
    from safetensors import safe_open

    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            found |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    return found
