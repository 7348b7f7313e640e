"""What MetaMath and WizardMath make of replies, and the replica that plays a task by them."""

import asyncio
import json

import pytest

from actors.answers.replies import visible
from actors.prompts import places
from actors.rewriting.base import Unusable, question_and_answer
from actors.rewriting.wizardmath import DEPTH
from actors.rewriting.writer import SeedWriter
from pipeline import domains
from pipeline.config import EpisodeLimits, MetaMathConfig, TextDomainConfig, WizardMathConfig
from pipeline.records import Failure, Problem, Task

SEED = Problem.make("A jug holds 3 litres. How many jugs fill a tub of 45 litres?", "15")
PROMPTS = domains.of(TextDomainConfig()).prompts.rewriting


def made(settings):
    return settings.load()(settings, PROMPTS)


METAMATH = made(MetaMathConfig(seeds="s.jsonl"))
WIZARDMATH = made(WizardMathConfig(seeds="s.jsonl", rounds=3))


def math(_):
    return "math"


def reply(question, answer, **more):
    return "So it goes.\n" + json.dumps({"question": question, "answer": answer, **more})


@pytest.mark.parametrize(
    "rewriting, operation",
    [(METAMATH, op) for op in MetaMathConfig(seeds="s").operations]
    + [(WIZARDMATH, op) for op in WizardMathConfig(seeds="s").operations],
)
def test_every_operation_has_words_and_shows_the_problem_as_data(rewriting, operation):
    (message,) = rewriting.ask(operation, SEED)
    assert SEED.question in message["content"] and '"answer": "15"' in message["content"]
    assert not places(message["content"])
    assert operation not in DEPTH or DEPTH[operation] in message["content"]


def test_a_prompts_worked_example_is_a_reply_that_can_be_read():
    for prompt in PROMPTS.values():
        example = prompt[prompt.index("Example") :].split("<problem>")[0]
        assert question_and_answer(example) is not None, prompt[:60]


def test_a_rephrased_question_keeps_the_seeds_answer_whatever_the_model_says():
    new = METAMATH.read("rephrase", reply("A tub takes 45 litres. How many jugs of 3?", "16"), SEED, math)
    assert (new.question, new.answer, new.answer_kind) == ("A tub takes 45 litres. How many jugs of 3?", "15", "math")


@pytest.mark.parametrize("operation", ["self_verification", "fobar"])
def test_a_backward_question_asks_for_a_number_of_the_seed(operation):
    new = METAMATH.read(operation, reply("A jug holds x litres, 15 fill 45. What is x?", "3.0"), SEED, lambda _: "text")
    assert (new.answer, new.answer_kind) == ("3.0", "math")
    with pytest.raises(Unusable, match="no number of the one"):
        METAMATH.read(operation, reply("What is x?", "15"), SEED, math)  # which is the seed's answer
    with pytest.raises(Unusable, match="holds no problem"):
        METAMATH.read(operation, "Nothing follows. NONE", SEED, math)


def test_an_evolved_problem_is_of_the_kind_that_its_writer_says_and_has_evolved():
    new = WIZARDMATH.read("deepen", reply("Is 15 odd?", "yes", answer_kind="choice"), SEED, math)
    assert (new.answer, new.answer_kind) == ("yes", "choice")
    assert WIZARDMATH.read("deepen", reply("Is 15 odd?", "yes"), SEED, lambda _: "text").answer_kind == "text"
    with pytest.raises(Unusable, match="the one that was given"):
        WIZARDMATH.read("deepen", reply(SEED.question.replace(" ", "  "), "15"), SEED, math)
    with pytest.raises(Unusable, match="is a program"):
        WIZARDMATH.read("breadth", reply("Write f.", "def f(): 1", answer_kind="code"), SEED, math)


def test_the_last_object_of_a_reply_counts():
    text = 'Of {"question": "old", "answer": "1"} I make: {"question": "a \\\\frac{1}{2}", "answer": "2"} Done.'
    assert question_and_answer(text)["question"] == r"a \frac{1}{2}"
    assert question_and_answer(f"<think>{text}</think>") is None
    assert visible(f"<think>{text}</think>") == ""


def test_what_a_task_gets_follows_from_its_seed_by_the_shares():
    seeds = range(400)
    only = made(MetaMathConfig(seeds="s", operations={"rephrase": 0, "self_verification": 0, "fobar": 1}))
    assert {only.plan(s) for s in seeds} == {("fobar",)}
    plans = [WIZARDMATH.plan(s) for s in seeds]
    assert plans == [WIZARDMATH.plan(s) for s in seeds]
    lengths = [len(plan) for plan in plans]
    assert all(lengths.count(n) > 400 / 5 for n in (1, 2, 3)) and max(lengths) == 3
    with pytest.raises(ValueError, match="every share is 0"):
        MetaMathConfig(seeds="s", operations={"rephrase": 0, "self_verification": 0, "fobar": 0})


class Teacher:
    """Says what it was given, a reply a call."""

    def __init__(self, *replies):
        self.replies, self.asked, self.seeds = list(replies), [], []

    async def complete(self, messages, seed=0):
        self.asked.append(messages[0]["content"])
        self.seeds.append(seed)
        said = self.replies[len(self.asked) - 1]
        if isinstance(said, Exception):
            raise said
        if said is None:
            await asyncio.sleep(60)
        return said


def play(rewriting, *replies, seed=None, wall_s=60.0):
    teacher = Teacher(*replies)
    seed = next(s for s in range(99) if len(rewriting.plan(s)) == len(replies)) if seed is None else seed
    task = Task(id="t", group_id="seed-1", category="maths", skills=(), seed=seed)
    limits = EpisodeLimits(wall_s=wall_s)
    writer = SeedWriter(teacher, rewriting, {"seed-1": SEED}, None, limits, math)
    return teacher, asyncio.run(writer.episode(task, 1))


def test_each_round_starts_from_the_problem_of_the_one_before():
    one, two, three = (f"How much is 1 + {n}?" for n in (1, 2, 3))
    teacher, episode = play(WIZARDMATH, reply(one, "2"), reply(two, "3"), reply(three, "4"))
    assert [q in asked for q, asked in zip((SEED.question, one, two), teacher.asked, strict=True)] == [True] * 3
    assert len(set(teacher.seeds)) == 3
    assert (episode.submitted.question, episode.submitted.answer) == (three, "4")
    assert episode.outcome.kind == "ok" and [t.action for t in episode.turns] == ["think", "think", "submit"]
    assert episode.sampled_tokens == episode.turns[-1].end == sum(t.end - t.start for t in episode.turns) > 0
    assert episode.prompt_tokens > sum(map(len, teacher.asked)) // 4  # a token is three bytes here


def test_a_round_that_brings_no_problem_ends_the_episode_with_why():
    _, episode = play(WIZARDMATH, reply("How much is 1 + 1?", "2"), "I would rather not.")
    assert (episode.outcome.kind, episode.submitted) == ("model_error", None)
    assert episode.outcome.reason == "round 2: the reply holds no problem with question and answer"
    assert len(episode.turns) == 2 and episode.sampled_tokens > 0


def test_a_teacher_that_fails_or_hangs_is_not_the_problems_fault():
    _, lost = play(METAMATH, Failure("endpoint: gone", "infra_error"))
    assert (lost.outcome.kind, lost.outcome.reason) == ("infra_error", "endpoint: gone")
    _, late = play(METAMATH, None, wall_s=0.05)
    assert late.outcome.kind == "infra_error" and "time limit" in late.outcome.reason
