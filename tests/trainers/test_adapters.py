"""LoRA against peft: its merged model, its gradients, and a plain loop of torch with it. Ranks over gloo, no Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from pipeline.config import GRPOConfig, LoRAConfig, MGPOConfig, SFTConfig
from pipeline.records import Failure, Rollout
from tests.trainers.oracles import plain_loss
from tests.trainers.processes import in_ranks
from tests.trainers.test_policy import one_by_one, packed
from tests.trainers.test_updates import spec_of
from tests.trainers.worlds import batch_of, save_tiny_qwen3, some_rollouts
from trainers import adapters
from trainers.architectures import linear_layers
from trainers.policy import Policy
from trainers.push import Source
from trainers.weights import gathered

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def plain(base: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype)


def adapted(base: Path, lora: LoRAConfig, dtype: torch.dtype = torch.float32) -> Policy:
    """A policy whose adapter says something: as it begins, B is 0."""
    policy = Policy.load(base, dtype)
    adapters.add(policy.lm, lora, dtype, 0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in policy.lm.named_parameters():
        if ".lora_B." in name:
            parameter.data = (0.1 * torch.randn(parameter.shape, generator=generator)).to(dtype)
    return policy


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "experts"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / request.param
    torch.manual_seed(0)
    if request.param == "qwen3":
        return save_tiny_qwen3(folder)
    if request.param == "qwen2":  # its queries, keys and values have biases, and nothing is tied
        Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False)).save_pretrained(folder)
    else:
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
        Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **experts)).save_pretrained(folder)
    return folder


def targets_of(base: Path) -> Any:
    return LINEAR[:4] if base.name == "experts" else None


# ---------------------------------------------------------------- the plain model


@pytest.mark.parametrize("targets", ["all", "some"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_what_goes_out_is_pefts_own_merged_model(base: Path, tmp_path: Path, targets: str, dtype: torch.dtype) -> None:
    """Of the adapter as a checkpoint has it, on the model as it was."""
    lora = LoRAConfig(rank=4, alpha=6, targets=("v_proj", "o_proj") if targets == "some" else targets_of(base))
    policy = adapted(base, lora, dtype)
    sent = dict(gathered(policy.lm, 0, torch.float32))
    adapters.save(policy.lm, lora, base, 0, tmp_path / "adapter")

    theirs = peft.PeftModel.from_pretrained(plain(base, dtype), tmp_path / "adapter")
    settings = theirs.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.base_model_name_or_path) == (4, 6, str(base))
    expected = theirs.float().merge_and_unload()
    expected.save_pretrained(tmp_path / "merged")
    before = {name: tensor.clone() for name, tensor in gathered(Policy.load(base, dtype).lm, 0, torch.float32)}
    assert sent.keys() == before.keys()
    merged = dict(gathered(Policy.load(tmp_path / "merged", torch.float32).lm, 0, None))
    changed = {name.split(".")[-2] for name in sent if not torch.equal(sent[name], before[name])}
    assert changed == set(lora.targets or LINEAR)
    for name, tensor in sent.items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-5, atol=1e-6, msg=name)

    pushed = Source(policy.lm, torch.float32)  # what goes from GPU to GPU
    if base.name != "experts":  # which the object store alone carries
        assert [(m.name, m.shape) for m in pushed.metadata()] == [(name, tuple(t.shape)) for name, t in sent.items()]
        assert all(torch.equal(tensor, sent[name]) for name, tensor in pushed)


def test_the_policy_is_the_merged_model_and_without_its_adapter_the_model_that_it_is_on(base: Path) -> None:
    rollouts = some_rollouts(0)
    batch, plainly = batch_of(rollouts), Policy.load(base, torch.float32)
    policy = adapted(base, LoRAConfig(rank=4, targets=targets_of(base)))
    for again in range(2):
        logp, _ = packed(policy, batch, 50)
        with adapters.off(policy.lm):
            assert torch.equal(packed(policy, batch, 50)[0], packed(plainly, batch, 50)[0]), again
        assert torch.equal(packed(policy, batch, 50)[0], logp)
    merged = plain(base)
    merged.load_state_dict({part.name: part.whole(None) for part in adapters.parts(policy.lm)}, strict=False)
    torch.testing.assert_close(logp, one_by_one(merged, rollouts), rtol=1e-4, atol=1e-5)
    assert float((logp - packed(plainly, batch, 50)[0]).detach().abs().max()) > 0.01

    trained = {name for name, p in policy.lm.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    assert policy.trained == sum(p.numel() for p in policy.parameters() if p.requires_grad) < policy.size


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
def test_gradients_are_pefts(base: Path, tmp_path: Path, again: bool) -> None:
    rollouts = some_rollouts(1)
    lora = LoRAConfig(rank=4, targets=targets_of(base))
    policy = adapted(base, lora)
    adapters.save(policy.lm, lora, base, 0, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(plain(base), tmp_path / "adapter", is_trainable=True)
    if again:
        policy.lm.gradient_checkpointing_enable()
    packed(policy.train(), batch_of(rollouts), 64)[0].sum().backward()
    one_by_one(theirs, rollouts).sum().backward()
    expected = {name.removeprefix("base_model.model."): p.grad for name, p in theirs.named_parameters()}
    found = {name: p.grad for name, p in policy.lm.named_parameters()}
    assert found.keys() == expected.keys() and any(grad is not None for grad in found.values())
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_an_adapter_begins_with_its_seed_and_adds_nothing(base: Path) -> None:
    lora = LoRAConfig(rank=2, targets=targets_of(base))
    first, again, other = (Policy.load(base, torch.float32) for _ in range(3))
    for policy, seed in ((first, 5), (again, 5), (other, 6)):
        torch.rand(policy.size % 7)  # whatever was drawn before
        adapters.add(policy.lm, lora, torch.float32, seed)
    a, b, c = (dict(policy.lm.named_parameters()) for policy in (first, again, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a if ".lora_A." in name)
    batch = batch_of(some_rollouts(0))
    assert torch.equal(packed(first, batch, 50)[0], packed(Policy.load(base, torch.float32), batch, 50)[0])


def test_a_frozen_output_layer_costs_no_gradient(tmp_path: Path) -> None:
    policy = adapted(save_tiny_qwen3(tmp_path / "base"), LoRAConfig(rank=2))
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made.append(found := func(*args, **(kwargs or {})))
            return found

    (micro,) = batch_of(some_rollouts(2)).micro_batches(10_000)
    logp, _ = policy(micro)
    with Watch():
        logp.sum().backward()
    assert not any(isinstance(t, torch.Tensor) and t.shape == (40, 32) for t in made)
    assert all((p.grad is not None) == p.requires_grad for p in policy.parameters())


# ---------------------------------------------------------------- what is refused


def test_layers_that_a_model_has_not_are_refused_by_its_own(base: Path) -> None:
    """By the trainer, and before by the headers of the weights."""
    policy = Policy.load(base, torch.float32)
    known = linear_layers(base.glob("*.safetensors"))
    assert known == set(LINEAR[:4] if base.name == "experts" else LINEAR)
    there = ", ".join(sorted(known))
    for wrong in ("c_attn", "lm_head", "embed_tokens", "gate"):
        with pytest.raises(Failure) as caught:
            adapters.add(policy.lm, LoRAConfig(targets=("q_proj", wrong)), torch.float32, 0)
        line = f"trainer.lora: targets: {wrong} is no linear layer of the model; expected some of {there}"
        assert str(caught.value) == line
    if base.name == "experts":
        with pytest.raises(Failure, match=r"experts of a mixture; expected trainer.lora.targets among k_proj, o_proj"):
            adapters.add(policy.lm, LoRAConfig(), torch.float32, 0)
    assert not any("lora" in name for name, _ in policy.lm.named_parameters())


# ---------------------------------------------------------------- training, on one rank and on several

OBJECTIVES: dict[str, Any] = {
    "sft": SFTConfig(),
    "mgpo": MGPOConfig(scope="batch"),
    "grpo": GRPOConfig(importance_cap=None, kl=0.1),
}
RATE = 1e-2
LORA = LoRAConfig(rank=4, alpha=8, targets=("q_proj", "v_proj", "o_proj", "up_proj", "down_proj"))
STEPS = [some_rollouts(seed, groups=groups) for seed, groups in ((3, 3), (4, 1), (5, 2))]
"""In the second step one of two ranks has nothing to do."""


def share(rollouts: list[Rollout], rank: int, world: int) -> list[Rollout]:
    groups = sorted({rollout.group_id for rollout in rollouts})
    return [rollout for rollout in rollouts if groups.index(rollout.group_id) % world == rank]


def spec_for(base: Path, objective: str, zero_stage: int, world: int, **changes: Any) -> Any:
    settings = {"lora": LORA, "micro_batch_tokens": 60, "grad_clip": 0.5, "lr": RATE} | changes
    return spec_of(base, objective=OBJECTIVES[objective], zero_stage=zero_stage, workers=world, **settings)


def called(objective: str, zero_stage: int, changes: dict[str, Any]) -> str:
    return "-".join([objective, str(zero_stage), *changes])


def train(ranks: Any, base: Path, folder: Path, cases: list[tuple[str, int, dict[str, Any]]]) -> dict[str, Any]:
    """Case -> the weights that go out after the last step, each step's metrics, what the optimizer holds, and the same
    weights of a run that is resumed from a checkpoint of the second step."""
    from trainers import checkpoints, ds_config
    from trainers.learner import Learner

    settings = ds_config.build

    def nothing_small(*given: Any) -> dict[str, Any]:
        """ZeRO-3 shares out every tensor, and fetches it before its turn, as at a real size."""
        found = settings(*given)
        found["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return found

    ds_config.build = nothing_small
    found = {}
    for objective, zero_stage, changes in cases:
        spec = spec_for(base, objective, zero_stage, ranks.world, **changes)
        root = folder / called(objective, zero_stage, changes)
        root.mkdir(exist_ok=True)
        learner = Learner(spec, ranks)
        metrics = []
        for number, rollouts in enumerate(STEPS, 1):
            metrics.append(learner.update(batch_of(share(rollouts, ranks.rank, ranks.world)), number, RATE))
            if number == 2:
                own = folder / f"{root.name}-of-{ranks.rank}"
                own.mkdir()
                checkpoints.write(learner, own, 2, 7)
                shutil.copytree(own, root, dirs_exist_ok=True)  # as Ray Train puts the parts of all ranks together
                torch.distributed.barrier()
        resumed = Learner(spec, ranks)
        assert checkpoints.read(resumed, root) == (2, 7)
        again = resumed.update(batch_of(share(STEPS[2], ranks.rank, ranks.world)), 3, RATE)
        resumed.spec = spec.model_copy(update={"lora": LORA.model_copy(update={"alpha": 9})})
        with pytest.raises(Failure, match=r"was written with .*'alpha': 8.* this run has .*'alpha': 9"):
            checkpoints.read(resumed, root)
        found[root.name] = {
            "weights": dict(gathered(learner.engine.module.lm, 0, None)),
            "resumed": dict(gathered(resumed.engine.module.lm, 0, None)),
            "metrics": metrics,
            "again": again,
            "held": held(learner),
            "trained": learner.engine.module.trained,
            "reference": type(learner.reference).__name__,
        }
    return found


def held(learner: Any) -> float:
    """Elements of the optimizer's two moments on this rank."""
    optimizer = learner.engine.optimizer
    state = getattr(optimizer, "optimizer", optimizer).state
    return sum(t.numel() for of in state.values() for t in of.values() if torch.is_tensor(t) and t.dim()) / 2


def plainly(base: Path, objective: Any) -> tuple[dict[str, torch.Tensor], list[float], list[float]]:
    """The same steps in one process by torch and peft: weights once merged, losses, norms."""
    reference, own = plain(base), plain(base)
    torch.manual_seed(0)
    settings = peft.LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=list(LORA.targets or ()))
    lm = peft.get_peft_model(own, settings)
    optimizer = torch.optim.AdamW(
        [p for p in lm.parameters() if p.requires_grad], lr=RATE, betas=(0.9, 0.95), weight_decay=0.0
    )
    losses, norms = [], []
    for rollouts in STEPS:
        optimizer.zero_grad()
        logp = one_by_one(lm, rollouts)
        with torch.no_grad():
            ref = one_by_one(reference, rollouts)
        loss = plain_loss(rollouts, objective, logp, ref)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(lm.parameters(), 0.5)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return dict(lm.merge_and_unload().named_parameters()), losses, norms


def check(found: dict[str, Any], base: Path, cases: list[Any], world: int) -> None:
    """Against torch and peft; what draws (dropout) or rounds (bfloat16) against its own resumption alone."""
    before = plain(base).state_dict()
    adapter = sum(a + b for a, b in ((32, 32), (32, 16), (32, 32), (32, 48), (48, 32))) * LORA.rank * 2
    for case in cases:
        objective, stage, changes = case
        of = found[called(*case)]
        for name, tensor in of["weights"].items():
            assert torch.equal(tensor, of["resumed"][name]), (case, name)
        assert of["again"]["loss"] == of["metrics"][-1]["loss"]
        assert of["trained"] == adapter
        assert of["held"] == pytest.approx(adapter / (world if stage else 1), rel=0.02), case
        assert of["reference"] == ("NoneType" if objective == "sft" else "WithoutAdapter")
        if {"lora", "dtype"} & changes.keys():
            continue
        expected, losses, norms = plainly(base, OBJECTIVES[objective])
        moved = max(float((tensor - before[name]).abs().max()) for name, tensor in expected.items())
        assert moved > 5e-3
        for name, tensor in expected.items():
            torch.testing.assert_close(of["weights"][name], tensor, rtol=0, atol=0.03 * moved, msg=f"{case} {name}")
        if objective != "grpo":  # see `plain_loss`
            assert [m["loss"] for m in of["metrics"]] == pytest.approx(losses, rel=1e-3, abs=1e-4)
        assert [m["grad_norm"] for m in of["metrics"]] == pytest.approx(norms, rel=1e-2)


AGAIN = {"activation_checkpointing": True}
DROPOUT = {"lora": LORA.model_copy(update={"dropout": 0.2})}


@pytest.mark.engine
@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_training_an_adapter_is_that_of_torch_and_peft_and_goes_on_where_it_was(tmp_path: Path, world: int) -> None:
    base = save_tiny_qwen3(tmp_path / "base")
    cases: list[Any] = [("mgpo", 0, {}), ("sft", 1, {}), ("grpo", 2, {}), ("mgpo", 3, AGAIN)]
    cases += [("sft", 0, DROPOUT | AGAIN), ("grpo", 3, DROPOUT | {"dtype": "bfloat16"})]
    check(in_ranks(world, train, tmp_path, base, tmp_path, cases)[0], base, cases, world)
    check_checkpoint(base, tmp_path / called("sft", 1, {}))


@pytest.mark.slow
def test_whatever_is_trained_shared_and_offloaded(tmp_path: Path) -> None:
    base = save_tiny_qwen3(tmp_path / "base")
    cases: list[Any] = [(objective, stage, {}) for objective in OBJECTIVES for stage in (0, 1, 2, 3)]
    cases += [("mgpo", stage, {"dtype": "bfloat16"}) for stage in (0, 1, 2, 3)]
    cases += [("grpo", stage, {"offload": "optimizer"}) for stage in (1, 2, 3)]
    cases += [("grpo", 3, {"offload": "parameters"})]
    check(in_ranks(2, train, tmp_path, base, tmp_path, cases)[0], base, cases, 2)


def stored(root: Path) -> dict[str, Any]:
    """Tensors of DeepSpeed's state of a model, which is what a checkpoint has beside the weights that go out."""
    (file,) = root.glob("trainer/engine/mp_rank_00_model_states.pt")
    return torch.load(file, weights_only=False)["module"]


def check_checkpoint(base: Path, root: Path) -> None:
    """It is a plain model, the adapter beside it, and the rest of the trainer's state is of the adapter alone."""
    merged = plain(root)
    theirs = peft.PeftModel.from_pretrained(plain(base), root / adapters.FOLDER).merge_and_unload()
    for name, tensor in theirs.named_parameters():
        torch.testing.assert_close(merged.get_parameter(name), tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert any(not torch.equal(merged.get_parameter(n), p) for n, p in plain(base).named_parameters())
    assert all(".lora_" in name for name in stored(root)) and stored(root)
    assert json.loads((root / "trainer" / "state.json").read_text())["lora"]["rank"] == LORA.rank
