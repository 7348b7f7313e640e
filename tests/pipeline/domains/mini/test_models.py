"""The bundled models, the tokenizer and the command that makes them again."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chat import ChatFormat, parse_turn, solver_messages, system_prompt
from pipeline import domains
from pipeline.domains.mini import build as mini_build
from pipeline.domains.mini.combinations import is_heldout
from pipeline.domains.mini.lessons import proposer_lessons, solutions, solver_lessons
from pipeline.domains.mini.tokenizer import CONTROL, MARKS
from pipeline.records import Failure
from tests.mini import MINI, changed
from tests.pipeline.domains.mini.oracle import Bad, solve

WORLD = domains.of(MINI.domain)

PROPOSER, SOLVER = WORLD.resolve("mini:proposer"), WORLD.resolve("mini:solver")
CHAT = ChatFormat(PROPOSER)


def test_names_resolve_and_others_are_named(tmp_path):
    assert WORLD.resolve(str(tmp_path)) == tmp_path
    with pytest.raises(Failure, match="mini:teacher: no such file or folder; bundled are mini:proposer"):
        WORLD.resolve("mini:teacher")
    for name in ("", " "):
        with pytest.raises(Failure, match="no path"):
            WORLD.resolve(name)
    with pytest.raises(Failure, match="no such file"):
        WORLD.resolve(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Q?", "math"),
        ("Is it e or i?", "math"),
        ("Ben has 148 apples. Then Ben has 9 times as many. Is the number now even or odd?", "choice"),
    ],
)
def test_the_kind_of_an_answer_is_what_the_question_asks_for(question, kind):
    assert WORLD.answer_kind(question) == kind


# ---------------------------------------------------------------- the tokenizer


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_every_text_survives_the_tokenizer(text):
    assert CHAT.decode(CHAT.encode_text(text)) == text


@given(st.integers(0, 10**9), st.sampled_from(["", " ", "(", "[", '"', "x"]))
@settings(deadline=None)
def test_numbers_are_one_token_a_digit(number, before):
    ids = CHAT.encode_text(f"{before}{number}")
    pieces = [CHAT.decode([i]) for i in ids]
    assert [p for p in pieces if any(c.isdigit() for c in p)] == list(str(number))


def test_control_tokens_are_the_ones_of_the_chat_format():
    from transformers import AutoTokenizer

    for place in (PROPOSER, SOLVER):
        tokenizer = AutoTokenizer.from_pretrained(place)
        assert len(tokenizer) <= 1200
        for token in (*CONTROL, *MARKS):
            ids = tokenizer.encode(token, add_special_tokens=False)
            assert len(ids) == 1
            assert tokenizer.decode(ids, skip_special_tokens=True) == ("" if token in CONTROL else token)
        messages = [
            {"role": "system", "content": "You write problems."},
            {"role": "user", "content": "x = 12 <tool_call>"},
        ]
        templated = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert list(templated) == ChatFormat(place).encode_messages(messages)
        assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"


# ---------------------------------------------------------------- lessons and build


def test_lessons_show_no_heldout_combination_and_no_pruning():
    for lesson in islice(proposer_lessons(5), 1500):
        for message in lesson:
            for line in message["content"].replace("\\n", "\n").split("\n"):
                try:
                    _, used = solve(line)
                except Bad:
                    continue
                assert not is_heldout(used), line
        if lesson[1]["content"].startswith("Category: ") and "Stage: draft" in lesson[1]["content"]:
            assert not any('"edit"' in m["content"] for m in lesson), "the loop's pruning is left to SFT"
    assert any("?" not in lesson[1]["content"] for lesson in islice(solver_lessons(5), 20)), "drills among them"
    for lesson in islice(solutions(5), 500):
        answer, used = solve(lesson[1]["content"])
        assert not is_heldout(used) and lesson[2]["content"].endswith(f"\\boxed{{{answer}}}")


def test_lessons_and_their_tokens():
    first, again = (list(islice(proposer_lessons(3), 50)) for _ in range(2))
    assert first == again != list(islice(proposer_lessons(4), 50))
    for lesson in first:
        ids, own = mini_build.encode(CHAT, lesson)
        assert len(ids) == len(own) < 500
        said = [m["content"] for m in lesson if m["role"] == "assistant"]
        assert CHAT.decode([i for i, mine in zip(ids, own, strict=True) if mine]) == "".join(said)
        assert sum(i == CHAT.eos_id for i, mine in zip(ids, own, strict=True) if mine) == len(said)


def test_the_same_seed_builds_the_same_models(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file

    small = {"hidden": 32, "layers": 1, "heads": 1, "kv_heads": 1, "mlp": 32, "steps": 2, "batch_tokens": 512}
    monkeypatch.setattr(mini_build, "PROPOSER", replace(mini_build.PROPOSER, **small))
    monkeypatch.setattr(mini_build, "SOLVER", replace(mini_build.SOLVER, **small))
    before = torch.get_num_threads()
    said: list[str] = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        mini_build.build(tmp_path / name, seed=seed, threads=1, say=said.append)
    torch.set_num_threads(before)
    assert any(line.startswith("solver: step 2/2") for line in said)
    for model in ("proposer", "solver"):
        weights = [load_file(tmp_path / name / model / "model.safetensors") for name in "abc"]
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
        assert any(not torch.equal(weights[0][k], weights[2][k]) for k in weights[0] if weights[0][k].dim() > 1)
        assert all(t.dtype == torch.bfloat16 for t in weights[0].values())
        files = {p.name for p in (tmp_path / "a" / model).iterdir()}
        assert files == {p.name for p in WORLD.resolve(f"mini:{model}").iterdir()}
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["proposer", "solver"]


# ---------------------------------------------------------------- the models


def test_the_bundle_is_small():
    total = sum(p.stat().st_size for folder in (PROPOSER, SOLVER) for p in folder.iterdir())
    assert total <= 8 * 2**20, f"{total} bytes"


def say(model, chat: ChatFormat, messages, tokens: int) -> tuple[list[int], str]:
    import torch

    prompt = chat.encode_messages(messages)
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=chat.stop_ids,
        )[0].tolist()[len(prompt) :]
    return out, chat.decode(out)


def load(place: Path):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()


SOLVER_QUESTIONS = [
    "Mia has 12 stones. Mia finds 5 more. How many stones does Mia have now?",
    "Tom has 18 cards. Tom gives away 6. How many cards does Tom have now?",
    "A list holds 4, 9 and 7. Take the largest value. What is the final value?",
    "A test runs for 2 days. How many hours is that?",
    "Ana has 20 cups. Ana packs them in rows of 6 and keeps the rest. How many cups does Ana have now?",
    "A list holds 3, 8 and 2. Keep only the even values. What is the final list?",
]


def test_the_base_solver_works_step_by_step_and_does_easy_ones():
    model, chat = load(SOLVER), ChatFormat(SOLVER)
    prompt = system_prompt(SOLVER, "")
    assert prompt
    right = 0
    for question in SOLVER_QUESTIONS:
        _, text = say(model, chat, solver_messages(question, prompt), 100)
        boxed = re.findall(r"\\boxed\{(.*)\}$", text)
        assert boxed and "=" in text, text
        right += boxed[0] == solve(question)[0]
    assert right >= 3


TASK = "Category: maths\nSkills:\n- add: some more are added\n- subtract: some are taken away\nStage: draft"


def test_the_base_proposer_drafts_in_the_language_but_does_not_check():
    model, chat = load(PROPOSER), ChatFormat(PROPOSER)
    messages = [
        {"role": "system", "content": system_prompt(PROPOSER, "")},
        {"role": "user", "content": TASK},
    ]
    _, draft = say(model, chat, messages, 200)
    stage, question, _ = parse_turn(draft)
    _, used = solve(question)
    assert stage == "draft" and used >= {"add", "subtract"}
    messages += [{"role": "assistant", "content": draft}, {"role": "user", "content": "Stage: check"}]
    _, next_turn = say(model, chat, messages, 200)
    _, _, call = parse_turn(next_turn)
    assert call is not None and call.name == "submit", "a one-shot writer hands in at once"
    assert call.arguments["question"] == question


@pytest.mark.engine
@pytest.mark.slow
def test_the_engine_says_what_transformers_says():
    from actors.engine import PolicyEngine
    from pipeline import config

    model, chat = load(SOLVER), ChatFormat(SOLVER)
    prompts = [solver_messages(q, system_prompt(SOLVER, "")) for q in SOLVER_QUESTIONS]
    expected = [say(model, chat, p, 60)[1] for p in prompts]

    async def engine_texts() -> list[str]:
        engine = PolicyEngine(
            str(SOLVER), changed(MINI.proposer.engine, max_model_len=512, dtype="float32", kv_cache_gb=0.25), seed=0
        )
        await engine.start()
        try:
            greedy = config.SamplingConfig(temperature=0, max_tokens=60)
            samples = [await engine.generate(chat.encode_messages(p), greedy, 0) for p in prompts]
        finally:
            engine.stop()
        return [s.text for (s,) in samples]

    assert asyncio.run(engine_texts()) == expected
