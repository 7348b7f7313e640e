"""Whether there is room: GPUs in each stage, and models that the trainer cannot carry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline import domains
from pipeline.commands import doctor, preflight, room
from pipeline.commands.doctor_config import Check
from pipeline.config.loading import load
from pipeline.pools import gpus
from pipeline.store.run_stages import RUN_STAGES
from tests.mini import MINI

CONFIGS = Path(__file__).parents[3] / "deploy" / "configs"
ALL = list(RUN_STAGES)


def taken(name, *settings, stages=ALL):
    """Stage -> GPUs under full load."""
    up = gpus.reserved(load(CONFIGS / f"{name}.yaml", settings), stages)
    return {stage: sum(one.most for one in parts) for stage, parts in up.items()}


def test_the_gpus_of_a_profile_add_up_as_it_says():
    said = {"acquire": 0, "sft": 6, "mgpo": 8, "synthesize": 6, "solve": 8, "evaluate": 6}
    assert taken("qwen3-4b-8gpu") == said
    assert taken("qwen3-30b-a3b-solver", stages=["solve", "evaluate"]) == {"solve": 24, "evaluate": 8}
    assert set(taken("text-cpu").values()) == set(taken("endpoints-only").values()) == {0}


def test_a_stage_done_alone_has_its_own_pools_only():
    assert taken("qwen3-4b-8gpu", stages=["evaluate"]) == {"evaluate": 6}
    assert taken("qwen3-4b-8gpu", "sft.data=x.jsonl", stages=["sft"]) == {"sft": 2}
    alone = taken("qwen3-4b-8gpu", "evaluate.model.path=m", "evaluate.model.pool.num_gpus=3", stages=["evaluate"])
    assert alone == {"evaluate": 3}
    several = "evaluate.models=[{path: m, pool: {num_gpus: 1}}, {path: n, pool: {num_gpus: 3}}, {path: o}]"
    assert taken("qwen3-4b-8gpu", several, stages=["evaluate"]) == {"evaluate": 3}, "one after the other"


def test_probers_on_cpus_stay_up_while_the_solver_is_trained():
    config = load(None, ["proposer.pool.num_gpus=1"])
    fields = {stage: [one.field for one in parts] for stage, parts in gpus.reserved(config, ALL).items()}
    assert fields["mgpo"] == ["prober.ladder.0", "proposer"] and fields["solve"] == ["prober.ladder.0", "solve.base"]


def test_a_teacher_that_rewrites_problems_is_gone_while_the_solver_is_trained():
    teacher = "teacher={kind: model, model: {path: m, pool: {num_gpus: 2}}}"
    config = load(None, [teacher, "synthesize.rewrite={kind: metamath, seeds: mini:seeds}"])
    fields = {stage: [one.field for one in parts] for stage, parts in gpus.reserved(config, ALL).items()}
    assert "teacher.model" in fields["synthesize"] and fields["solve"] == ["prober.ladder.0", "solve.base"]


@pytest.mark.parametrize(("there", "status"), [(0, "fail"), (7, "fail"), (8, "ok")])
def test_gpus_that_are_missing_are_told(there, status):
    (check,) = room.gpus(load(CONFIGS / "qwen3-4b-8gpu.yaml"), ALL, there)
    assert check.status == status
    assert (
        "mgpo takes 8 GPUs: trainer 2, prober.ladder.0 1, prober.ladder.1 1, prober.ladder.2 2, proposer 2"
        in check.found
    )


@pytest.mark.parametrize(("there", "status"), [(5, "fail"), (6, "warn"), (8, "ok")])
def test_pools_that_may_be_empty_take_turns_on_the_gpus_but_one_must_fit(there, status):
    rungs = [f"{{path: p{n}, pool: {{num_gpus: {gpus}, min_replicas: 0}}}}" for n, gpus in enumerate((1, 1, 2))]
    config = load(CONFIGS / "qwen3-4b-8gpu.yaml", [f"prober.ladder=[{', '.join(rungs)}]"])
    (check,) = room.gpus(config, ["mgpo"], there)
    assert check.status == status and (check.detail["least"]["mgpo"], check.detail["most"]["mgpo"]) == (6, 8)


def test_a_pool_that_cannot_grow_is_a_warning_and_a_cluster_has_its_own_gpus():
    config = load(None, ["proposer.pool.num_gpus=1", "proposer.pool.max_replicas=4"])
    assert [c.status for c in room.gpus(config, ALL, 1)] == ["warn"]
    assert [c.status for c in room.gpus(load(None, ["proposer.pool.num_gpus=1", "ray.address=auto"]), ALL, 0)] == ["ok"]
    assert list(room.gpus(load(), ALL, 0)) == []


@pytest.mark.parametrize(("limit", "status"), [(5, "fail"), (6, "ok")])
def test_a_limit_leaves_what_a_stage_cannot_do_without(limit, status):
    """An elastic trainer counts whole: nobody else gets what it may come back for."""
    config = load(CONFIGS / "qwen3-4b-8gpu.yaml", [
        f"ray.max_gpus={limit}", "trainer.min_workers=1", "trainer.resources={trainer: 1}",
        "prober.ladder=[{path: p, pool: {num_gpus: 1}}, {path: q, pool: {num_gpus: 1, min_replicas: 0}}]",
        "proposer.pool.min_replicas=2",
    ])  # fmt: skip
    (check,) = room.gpus(config, ["mgpo"], 8)
    assert check.status == status
    assert list(room.above_limit(config, ["mgpo"])) == [check] * (status == "fail")
    assert (f"ray.max_gpus ({limit}): " in check.todo) == (status == "fail"), check
    assert (
        "mgpo takes 6 GPUs at least: trainer 2, prober.ladder.0 1, prober.ladder.1 1, proposer 2" in check.found
    ) == (status == "fail")


@pytest.fixture
def model(tmp_path):
    shutil.copytree(domains.of(MINI.domain).resolve("mini:solver"), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("look", ["preflight", "doctor"])
def test_a_model_that_the_trainer_cannot_carry_is_refused_before_the_run(model, tmp_path, look):
    config = load(None, [f"solve.base.path={model}", "solve.data=x"])
    settings = json.loads((model / "config.json").read_text())

    def said():
        if look == "doctor":
            found = [Check(**c) for c in doctor.inspect(config)["checks"]]
        else:
            found = list(preflight.problems(config, tmp_path / "run", ["solve"]))
        return [c.found for c in found if c.name == "model" and c.status == "fail"]

    assert said() == []
    (model / "config.json").write_text(json.dumps(settings | {"quantization_config": {"quant_method": "fp8"}}))
    (line,) = said()
    assert line.startswith(f"solve.base.path {model}: cannot be trained: quantized weights (fp8); expected bfloat16")


def test_a_window_is_held_against_statement_and_answer(model):
    window = {"layer_types": ["sliding_attention"], "sliding_window": 100}
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | window))
    short = [f"solve.base.path={model}", "solve.sampling.max_tokens=64"]
    assert list(room.untrainable(load(None, [*short, "solve.base.engine.max_model_len=100"]), ["solve"])) == []
    (check,) = room.untrainable(load(None, [*short, "solve.base.engine.max_model_len=128"]), ["solve"])
    assert "attention over 100 tokens, trajectories of up to 128" in check.found


def test_all_checkpoints_among_which_dev_chooses_have_their_room():
    settings = ["solve.steps=9", "solve.checkpoint_every=2", "trainer.keep_checkpoints=2"]
    plain, chosen = load(None, settings), load(None, [*settings, "solve.dev=3"])
    assert [preflight._copies(plain, stage) for stage in ("sft", "mgpo", "solve")] == [3, 3, 3]
    assert [preflight._copies(chosen, stage) for stage in ("sft", "mgpo", "solve")] == [3, 3, 5]


def test_experts_go_by_the_object_store(model):
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"num_experts": 8}))
    pushed = [f"solve.base.path={model}", "trainer.use_gpu=true", "solve.base.pool.num_gpus=1"]
    assert list(room.untrainable(load(None, pushed), ["solve"])) == []
    (check,) = room.untrainable(load(None, [*pushed, "solve.base.engine.weight_transport=nccl"]), ["solve"])
    assert "is a mixture of experts" in check.found and "object_store" in check.todo


def test_an_adapter_on_layers_that_the_model_has_not_is_refused_before_the_run(model):
    def said(lora):
        config = load(None, [f"solve.base.path={model}", f"trainer.lora={lora}"])
        return [c.found for c in room.untrainable(config, ["solve"])]

    assert said("{}") == said("{targets: [q_proj, down_proj]}") == said("null") == []
    (line,) = said("{targets: [q_proj, c_attn]}")
    there = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert line == (
        f"trainer.lora: solve.base.path {model}: targets: c_attn is no linear layer of the model; expected some of "
        + there
    )
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"num_experts": 8}))
    (line,) = said("{}")
    assert "adapters do not reach the experts of a mixture; expected trainer.lora.targets among down_proj" in line
    assert said("{targets: [q_proj]}") == said("null") == []
    headers = (b"[]", b'{"a":3}', b'{"layers.0.q.weight":{"shape":3}}', b"[" * 90_000)
    for damage in (b"", b"\0" * 20, b"\xff" * 20, *(len(text).to_bytes(8, "little") + text for text in headers)):
        (model / "model.safetensors").write_bytes(damage)
        assert said("{targets: [c_attn]}") == []  # what is wrong with the weights is told elsewhere


def test_the_doctor_looks_at_the_stages_that_a_config_can_run_or_those_it_is_told():
    assert room.possible(load(CONFIGS / "endpoints-only.yaml")) == ["acquire", "synthesize"]
    assert room.possible(load()) == ALL
    found = doctor.inspect(
        load(CONFIGS / "qwen3-30b-a3b-solver.yaml", ["ray.address=null"]), stages=["solve", "evaluate"]
    )
    missing = {f for c in found["checks"] if c["name"] == "model" for f in c["detail"]["fields"]}
    assert missing == {"solve.base.path"} and not [c for c in found["checks"] if c["name"] in ("endpoint", "corpus")]
    (stages,) = [c for c in found["checks"] if c["name"] == "stages"]
    assert stages["found"] == "for solve, evaluate; not for acquire, sft, mgpo, synthesize"
