"""The mini world's rewriting: every problem is sound by readers that share nothing with its writer."""

import asyncio
import json

import pytest

from actors.rewriting.wizardmath import DEPTH
from actors.verifiers.mini.compiler import compile_program
from actors.verifiers.mini.grammar import Fault, parse
from pipeline import domains
from pipeline.config import MetaMathConfig, MiniDomainConfig, WizardMathConfig
from pipeline.domains.mini import rewriting
from pipeline.domains.mini.combinations import is_heldout
from pipeline.domains.mini.generate import read
from pipeline.domains.mini.meaning import identity
from pipeline.domains.mini.teacher import ScriptedTeacher
from pipeline.records import Problem
from pipeline.scoring.problems import of_row
from pipeline.scoring.problems import read as rows_of

MINI = domains.of(MiniDomainConfig())
ROWS = rows_of(MINI.resolve("mini:seeds"))
SEEDS = [of_row(row) for row in ROWS]
METAMATH = MetaMathConfig(seeds="mini:seeds")
WIZARDMATH = WizardMathConfig(seeds="mini:seeds")


def solved(question):
    """The executing verifier's answer."""
    sentences = parse(question)
    assert not isinstance(sentences, Fault), (question, sentences)
    scope: dict = {}
    exec(compile_program(sentences), scope)
    return scope["outcome"](scope["GIVEN"], range(len(scope["STEPS"])))


def applied(settings, operation, problem, seed=0):
    """What the scripted teacher makes of a problem; None where the language cannot say it."""
    algorithm = settings.load()(settings, MINI.prompts.rewriting)
    reply = asyncio.run(ScriptedTeacher().complete(algorithm.ask(operation, problem), seed))
    return None if reply == "NONE" else algorithm.read(operation, reply, problem, MINI.answer_kind)


def test_the_bundled_seeds_are_what_the_code_makes_and_on_the_side_that_is_trained_on():
    assert list(rewriting.seeds(len(ROWS), 0)) == ROWS
    assert {row["category"] for row in ROWS} == set(MINI.categories)
    for problem in SEEDS:
        assert solved(problem.question) == problem.answer
        assert not is_heldout(read(problem.question).skills)


def test_a_rephrased_problem_means_the_same_and_reads_otherwise():
    for seed in SEEDS:
        try:
            new = applied(METAMATH, "rephrase", seed)
        except Exception as e:  # a sentence with one wording, and nobody's name
            assert "the one that was given" in str(e)
            continue
        assert new.question != seed.question and identity(new.question) == identity(seed.question)
        assert solved(new.question) == new.answer


@pytest.mark.parametrize("operation", ["self_verification", "fobar"])
def test_a_backward_question_tells_the_seed_from_its_answer_back(operation):
    made = [(seed, new) for seed in SEEDS if (new := applied(METAMATH, operation, seed)) is not None]
    assert len(made) == 11  # as README.md says
    for seed, new in made:
        assert solved(new.question) == new.answer
        assert f"has {seed.answer} " in new.question and new.answer in seed.question
        assert not is_heldout(read(new.question).skills)


@pytest.mark.parametrize("operation", WIZARDMATH.operations)
def test_an_evolved_problem_is_sound_but_for_answers_worked_out_in_the_head(operation):
    right, made = 0, 0
    for number, seed in enumerate(SEEDS):
        new = applied(WIZARDMATH, operation, seed, number)
        if new is None:
            continue
        made += 1
        text, before = read(new.question), read(seed.question)
        truth = solved(new.question)
        assert text.has_substance
        assert not is_heldout(text.skills) and text.category == before.category
        right += truth == new.answer
        longer = {"constrain": 1, "reason": 1, "downward": -1, "complicate": 0, "concretize": 0}.get(operation)
        assert longer is None or text.steps - before.steps == longer
    assert made >= len(SEEDS) * 0.6 and 0.4 * made < right < 0.9 * made


def test_depth_is_told_apart_by_its_words():
    assert len(set(DEPTH.values())) == len(DEPTH)
    seed = Problem.make("Mia has 40 stones. Mia finds 5 more. How many stones does Mia have now?", "45")
    assert applied(WIZARDMATH, "complicate", seed).question != applied(WIZARDMATH, "reason", seed).question


def test_a_problem_of_another_language_is_refused():
    with pytest.raises(Exception, match="not of the mini world's language"):
        applied(METAMATH, "rephrase", Problem.make("What is 2 + 2?", "4"))


def test_what_the_teacher_says_is_a_function_of_prompt_and_seed():
    ask = WIZARDMATH.load()(WIZARDMATH, MINI.prompts.rewriting).ask("reason", SEEDS[0])
    said = [asyncio.run(ScriptedTeacher().complete(ask, seed)) for seed in (3, 3, 4)]
    assert said[0] == said[1] != said[2] and json.loads(said[0])["question"]
