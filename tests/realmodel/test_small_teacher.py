"""SmolLM2-135M as the teacher of `acquire`: what a model that is too small for it makes of real documents, and whether
its marks tell planted bad skills from good ones. Nothing is asked of the model but that whatever it says has an end
that is told; the figures are printed (-s).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from actors.tool_calls import visible
from pipeline.skills import asked, rubric
from pipeline.store.rundir import RunDir
from tests.actors.endpoint import chat, serving
from tests.benchmarks.bench_acquire import acquire, config
from tests.pipeline import real_documents
from tests.pipeline.skills.test_rubric_tells import skills
from tests.realmodel import smollm

pytestmark = [pytest.mark.realmodel, pytest.mark.timeout(3600)]

DOCUMENTS, LETTERS = 3, 700
Say = Callable[[list[list[dict[str, str]]], int], list[str]]
"""(conversations, most tokens of a reply) -> replies."""


@pytest.fixture(scope="module")
def say() -> Say:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm.model_dir()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    alone = threading.Lock()

    def replies(conversations: list[list[dict[str, str]]], most: int) -> list[str]:
        texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
        given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with alone, torch.inference_mode():
            made = model.generate(**given, max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        return tokenizer.batch_decode(made[:, given["input_ids"].shape[1] :], skip_special_tokens=True)

    return replies


def test_marks_of_planted_skills_by_a_small_judge(say: Say) -> None:
    found = skills()
    conversations = [rubric.messages(rubric.PROMPT, document, "A text about many things.") for _, document in found]
    read = [rubric.read(reply) for reply in say(conversations, 220)]
    scores = [None if isinstance(marks, str) else rubric.score(marks) for marks in read]
    good = [score for (kind, _), score in zip(found, scores, strict=True) if kind == "good"]
    bad = [score for (kind, _), score in zip(found, scores, strict=True) if kind != "good"]
    pairs = [(a, b) for a, b in product(good, bad) if a is not None and b is not None]
    ordered = sum((a > b) + (a == b) / 2 for a, b in pairs)
    figures = {
        "judged": len(scores),
        "read": sum(score is not None for score in scores),
        "auc_of_those_read": ordered / len(pairs) if pairs else None,
        "auc_unread_are_ties": (ordered + (len(good) * len(bad) - len(pairs)) / 2) / (len(good) * len(bad)),
        "scores": {"good": good, "bad": bad},
        "faults": sorted({marks for marks in read if isinstance(marks, str)})[:5],
    }
    print(json.dumps(figures, indent=1))
    assert len(scores) == len(found) and all(score is None or 0 <= score <= 1 for score in scores)


def test_documents_by_a_small_teacher(say: Say, tmp_path: Any) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "corpus").mkdir()
    real_documents.collect(tmp_path / "all")
    found = [*sorted((tmp_path / "all").glob("*/README.md"))[: DOCUMENTS - 1], real_documents.CHINESE / "同余.md"]
    for number, file in enumerate(found):
        (tmp_path / "corpus" / f"{number}.md").write_text(file.read_text()[:LETTERS])
    places = [{"path": str(tmp_path / "corpus"), "license": None}]
    with serving(lambda body: chat(_one(say, body["messages"]))) as (url, calls):
        path = config(tmp_path / "c.yaml", url, places, max_document_chars=3 * LETTERS)
        path.write_text(path.read_text().replace("concurrency: 8", "concurrency: 1\n  timeout_s: 1200"))
        went = acquire(path, tmp_path / "run", until=1)
    run, _ = RunDir.read(tmp_path / "run")
    tries = list(asked.saved(run, 10_000))
    read = [asked.read(saved) for saved in tries if "reply" in saved]
    told = {
        "code": went.code,
        "calls": calls.total(),
        "documents": len(tries),
        "replies": len(read),
        "with_a_skill": sum(bool(one.skills) for one in read),
        "said_none": sum(not one.skills and not one.faults for one in read),
        "unreadable": sum(bool(one.faults) for one in read),
        "faults": sorted({fault.partition(": ")[2][:90] for one in read for fault in one.faults})[:8],
    }
    print(json.dumps(told, indent=1, ensure_ascii=False))
    assert len(tries) == DOCUMENTS and all(
        ("reply" in saved) != ("failure" in saved and "reply" not in saved) for saved in tries
    )


def _one(say: Say, messages: list[dict[str, str]]) -> str:
    (reply,) = say([messages], 200)
    return visible(reply) or "NONE"
