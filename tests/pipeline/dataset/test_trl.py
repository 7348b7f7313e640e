"""TRL trains on its layout as it stands: `load_dataset(folder)`, `GRPOTrainer`, a step."""

import pytest

from pipeline.dataset import layouts
from pipeline.records import Problem
from tests.actors.tiny_model import make_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_grpo_takes_a_step_on_the_folder(tmp_path):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.rewards import accuracy_reward

    problems = [Problem.make(f"What is {n} + 1?", str(n + 1)) for n in range(8)]
    problems.append(Problem.make("Write f.", "def f(): ...", "code", ('{"entry": "f", "args": [], "expected": null}',)))
    layouts.write("trl", problems, tmp_path / "trl", "mit", "set")
    rows = datasets.load_dataset(str(tmp_path / "trl"), cache_dir=str(tmp_path / "cache"))["train"]
    make_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = CHATML
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen = []

    def reward(completions, solution, answer_kind, checks, **_):
        """Takes the layout's columns, and tells the answers of a group apart."""
        seen.extend(zip(solution, answer_kind, checks, strict=True))
        return [float(i % 2) for i in range(len(completions))]

    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=[reward, accuracy_reward],
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=4, num_generations=4,
            max_completion_length=8, learning_rate=1e-3, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
        ),
        train_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip
    assert trainer.train().global_step == 1
    assert {(solution, kind) for solution, kind, _ in seen} <= {
        *((f"\\boxed{{{n + 1}}}", "math") for n in range(8)),
        ("def f(): ...", "code"),
    } and seen
    assert any(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
