"""Every row of the table in pipeline/scoring/rewards.py, and the ways to earn a reward without deserving it."""

import json
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.passk import estimate
from pipeline.config import RewardConfig
from pipeline.config.loading import validate
from pipeline.domains.base import Identity
from pipeline.records import Episode, Failure, Outcome, Problem, Skill, Task, ToolResult, Turn, Verdict
from pipeline.scoring import chance
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged
from pipeline.scoring.rewards import paid, process, terminal
from tests.mini import changed

R = RewardConfig()
SKILLS = tuple(
    Skill(id=i, category="maths", intent="", method="", difficulty="", tool_hint="", score=1.0, source="s")
    for i in ("add", "share", "lcm")
)


def call(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def turn(action, stage, text, tool=None):
    return Turn(stage=stage, action=action, start=0, end=1, text=text, tool=tool)


def check(code="print(add(3, 4))", status="ok", content="7"):
    return turn("exec", "check", call("exec", code=code), ToolResult(tool="exec", status=status, content=content))


def fails(code="print(share(7, 2))"):
    return check(code, "error", "Error: ValueError: 2 does not divide 7")


def think(stage="refine"):
    return turn("think", stage, "Let me take other numbers.")


def edit(drop, now, status="ok"):
    """What the agent was shown is left to the environment: no reward depends on its wording."""
    result = ToolResult(tool="edit", status=status, content="shown", active=now if status == "ok" else None)
    return turn("edit", "refine", call("edit", drop=[drop], add=[]), result)


SUBMIT = turn(
    "submit", "finalize", call("submit", question="q", answer="7"), ToolResult(tool="submit", status="ok", content="")
)
BAD = turn("think", "check", "<tool_call>\n{oops\n</tool_call>", ToolResult(tool="", status="malformed", content="no"))


def rewards(*turns, reward=R, answer="7", kind="math", verdict=None):
    return process(episode(answer, kind, turns), reward, verdict)


def episode(answer, kind="math", turns=()):
    """`answer` of the problem that was submitted; None: none was."""
    return Episode(
        id="e", attempt=1, task=Task(id="e", group_id="g", category="maths", skills=SKILLS, seed=0), turns=turns,
        active=("add",), submitted=Problem.make("q", answer, kind) if answer else None, outcome=Outcome(kind="ok"),
        policy_versions=(0,), prompt_tokens=1,
        sampled_tokens=1, wall_s=0.0,
    )  # fmt: skip


# ---------------------------------------------------------------- terminal


def verdict(decision):
    return Verdict(problem_id="p", votes=(), flags=(), decision=decision, reason="r")


@pytest.mark.parametrize(
    "correct, expected",
    [(0, 0.0), (8, 1.0), (1, 1.0 + 2.0 * 0.5), (4, 1.0 + 2.0 * (1 / 70))],
)
def test_terminal_pays_validity_and_for_solvable_problems_their_difficulty(correct, expected):
    """n = 8, k = 4. Pass@4 is 1 - C(8-c, 4) / C(8, 4): 0, 1, 1/2, 69/70."""
    reward = RewardConfig(base=1.0, difficulty=2.0, rho="pass_at_k")
    probe = chance.measured(estimate("p", correct, 8 - correct, 0, 4, "m"), 0.0, reward)
    assert terminal(verdict("accepted"), probe, reward) == pytest.approx(expected)


@pytest.mark.parametrize("correct, expected", [(0, 0.0), (8, 1.0), (1, 1.0 + 2.0 * 7 / 8), (4, 1.0 + 2.0 * 0.5)])
def test_with_the_rate_difficulty_is_paid_evenly(correct, expected):
    reward = RewardConfig(base=1.0, difficulty=2.0, rho="rate")
    probe = chance.measured(estimate("p", correct, 8 - correct, 0, 4, "m"), 0.0, reward)
    assert terminal(verdict("accepted"), probe, reward) == pytest.approx(expected)


def test_what_no_prober_solves_earns_the_share_that_the_config_says():
    probe = estimate("p", 0, 8, 0, 4, "m")
    assert terminal(verdict("accepted"), probe, RewardConfig(base=1.5, unsolved=1.0)) == 1.5  # as in the paper
    assert terminal(verdict("accepted"), probe, RewardConfig(base=1.5, unsolved=0.2)) == pytest.approx(0.3)


@pytest.mark.parametrize("correct", range(9))
def test_what_guesses_explain_earns_nothing_and_what_they_do_not_by_what_is_above_them(correct):
    """One of seven is right by chance: 1, 2 or 3 of 8 are what a guesser has; of more, the difficulty is the share of
    Pass@4 that is missing of what a guesser leaves, who misses all four with (6/7)^4."""
    reward = changed(R, rho="pass_at_k")
    probe = chance.measured(estimate("p", correct, 8 - correct, 0, 4, "m"), 1 / 7, reward)
    missing = comb(8 - correct, 4) / comb(8, 4)
    expected = R.base + R.difficulty * min(1, missing / (6 / 7) ** 4) if correct >= 4 else 0
    assert terminal(verdict("accepted"), probe, reward) == pytest.approx(expected)


PAPER = RewardConfig(base=1.5, difficulty=2.5, significance=1, unsolved=1, repeats=10**9)


@given(
    st.integers(0, 8), st.integers(1, 8), st.floats(0, 1), st.integers(1, 300), st.booleans(),
    st.sampled_from(["rate", "pass_at_k"]),
)  # fmt: skip
def test_significance_1_unsolved_1_and_large_repeats_give_the_paper_back(correct, k, guess, earlier, accepted, reading):
    """r_T = V (base + 1[rho > 0] difficulty (1 - rho)), whatever a guess is worth and however often a skeleton came,
    with either reading of rho."""
    probe = chance.measured(estimate("p", correct, 8 - correct, 0, k, "m"), guess, changed(PAPER, rho=reading))
    rho = correct / 8 if reading == "rate" else 1 - comb(8 - correct, k) / comb(8, k)
    seen = Register(lambda question: Identity(question, "one skeleton"))
    for n in range(earlier):
        seen.add(Identity(str(n), "one skeleton"))
    judged = Judged(episode("7"), verdict("accepted" if accepted else "rejected"), probe if accepted else None)
    paper = (1.5 + (rho > 0) * 2.5 * (1 - rho)) * accepted
    assert paid(judged, False, seen, PAPER) == pytest.approx(paper)
    assert paid(judged, True, seen, PAPER) == 0  # what remains ours: a copy is no new problem


def test_terminal_pays_nothing_for_rejected_or_missing_problems():
    assert terminal(verdict("rejected"), None, R) == 0.0
    assert terminal(None, None, R) == 0.0


@pytest.mark.parametrize("decision", ["undecided", "accepted"])
def test_terminal_derives_nothing_from_what_is_not_known(decision):
    with pytest.raises(Failure) as e:
        terminal(verdict(decision), None, R)
    assert e.value.kind == "infra_error"


# ---------------------------------------------------------------- process


def test_a_check_that_passes_at_once():
    assert rewards(think("draft"), check(), SUBMIT) == (0, R.exec_ok, 0)


def test_a_failed_check_repaired_by_reflection():
    assert rewards(fails(), think(), check(), SUBMIT) == (R.exec_error, R.reflection, R.exec_ok, 0)


def test_a_failed_check_repaired_by_an_edit():
    assert rewards(fails(), edit("share", ["add", "lcm"]), think(), check(), SUBMIT) == (
        R.exec_error, R.useful_edit, 0, R.exec_ok, 0,
    )  # fmt: skip


def test_only_the_reflection_that_led_to_success_is_paid():
    assert rewards(fails(), think(), fails("print(share(9, 2))"), think(), check()) == (
        R.exec_error, 0, R.exec_error, R.reflection, R.exec_ok,
    )  # fmt: skip


def test_thinking_outside_refine_repairs_nothing():
    assert rewards(fails(), think("draft"), check())[1] == 0


def test_an_edit_or_reflection_without_a_failed_check_is_not_paid():
    assert rewards(edit("lcm", ["add", "share"]), think(), check()) == (0, 0, R.exec_ok)


def test_nothing_is_paid_for_a_check_that_a_later_failure_refutes():
    assert rewards(check(), fails(), SUBMIT) == (0, R.exec_error, 0)


@pytest.mark.parametrize("status", ["error", "timeout", "limit"])
def test_every_way_a_check_can_fail_costs(status):
    assert rewards(check(status=status, content="")) == (R.exec_error,)


def test_infrastructure_failures_are_neither_success_nor_failure():
    assert rewards(check(status="infra", content="try again"), check()) == (0, R.exec_ok)


def test_malformed_calls_cost():
    assert rewards(BAD, check()) == (R.malformed, R.exec_ok)


def test_refused_edits_and_going_back_cost():
    there, back = edit("lcm", ["add", "share"]), edit("x", ["lcm", "share", "add"])
    assert rewards(edit("nope", [], "error"), there, back) == (R.needless_edit, 0, R.needless_edit)


def test_the_selection_is_what_the_edit_left_active_not_what_the_agent_was_shown():
    none = edit("all", [])
    assert rewards(none, edit("x", ["add"]), none) == (0, 0, R.needless_edit)
    assert rewards(edit("x", ["add", "share", "lcm"])) == (R.needless_edit,)


def test_an_edit_of_which_nobody_wrote_down_what_it_left_active_is_one_line():
    old = edit("lcm", ["add"]).model_copy(update={"tool": ToolResult(tool="edit", status="ok", content="Skills: add")})
    with pytest.raises(Failure, match=r"^episode e: turn 1 is an edit without `tool.active`") as caught:
        rewards(check(), old)
    assert "\n" not in str(caught.value)


def test_an_edit_after_which_a_check_that_stood_fails_costs():
    harmful = edit("lcm", ["add", "share"])
    assert rewards(check(), harmful, fails()) == (0, R.needless_edit, R.exec_error)
    assert rewards(check(), harmful, check("print(add(5, 6))", content="11")) == (R.exec_ok, 0, 0)
    assert rewards(harmful, fails()) == (0, R.exec_error)  # nothing stood


def test_an_edit_that_a_check_confirmed_is_not_to_blame_for_a_later_failure():
    confirmed = check("print(add(2, 5))")
    assert rewards(check(), edit("lcm", ["add", "share"]), confirmed, fails()) == (0, 0, 0, R.exec_error)


def test_an_edit_that_leaves_what_was_offered_repairs_nothing():
    trace = (fails(), edit("share", ["add", "lcm"]), check(), SUBMIT)
    adherent, off = (
        Verdict(problem_id="p", votes=(), flags=(), decision=d, reason="r", adherent=a)
        for d, a in (("accepted", True), ("rejected", False))
    )
    assert rewards(*trace, verdict=adherent)[1] == R.useful_edit
    assert rewards(*trace, verdict=off)[1] == 0


@pytest.mark.parametrize("depends, paid", [(True, True), (None, True), (False, False)])
def test_a_check_that_does_not_depend_on_the_problem_is_not_paid(depends, paid):
    tool = ToolResult(tool="exec", status="ok", content="7", depends=depends)
    assert rewards(check().model_copy(update={"tool": tool}), SUBMIT)[0] == (R.exec_ok if paid else 0)


def test_nothing_is_paid_where_nothing_was_submitted():
    assert rewards(check(), answer=None) == (0,)
    assert rewards(fails(), think(), check(), answer=None) == (R.exec_error, 0, 0)


# ---------------------------------------------------------------- acting for the reward


@pytest.mark.parametrize(
    "code, content", [("print(7)", "7"), ("print('ok', 3)", "ok 3"), ("x = 7", ""), ("add(3, 4)", " ")]
)
def test_code_that_computes_or_shows_nothing_is_not_paid(code, content):
    assert rewards(check(code, content=content)) == (0,)


@pytest.mark.parametrize(
    "content, answer, paid",
    [
        ("7", "7", True), ("3\nx = 7", "7", True), ("[1, 2]", "[1, 2]", True), ("7\n", "7", True),
        ("7", "8", False), ("17", "7", False), ("7\n8", "7", False), ("1 2 7 9", "7", False),
        ("-7", "7", False), ("x = -7", "7", False), ("1.7", "7", False), ("1/7", "7", False), ("1,7", "7", False),
        ("3/4", r"\frac{3}{4}", True), ("p = 0.75", "3/4", True), ("7.0", "7", True), ("-7", "-7", True),
    ],
)  # fmt: skip
def test_a_check_is_paid_where_its_last_word_is_the_submitted_answer(content, answer, paid):
    assert rewards(check(content=content), SUBMIT, answer=answer) == (R.exec_ok if paid else 0, 0)


PROGRAM = "def f(n):\n    return n * n\n\ng = f"


@pytest.mark.parametrize(
    "code, paid",
    [
        (PROGRAM + "\nassert g(3) == 9", True),
        ("import math\ndef f(n):  # squares\n    return (n*n)\ng=f\nprint(g(math.pi))", True),
        ("def f(n):\n    return n * n\nprint(f(3))", False),
        ("def f(n):\n    return n + n\ng = f\nprint(g(3))", False),
        ("print(3 * 3)", False),
        (f"x = 3 * 3\nprint({PROGRAM!r})", False),
    ],
)
def test_a_check_of_a_program_runs_the_program(code, paid):
    assert rewards(check(code, content="9"), SUBMIT, answer=PROGRAM, kind="code") == (R.exec_ok if paid else 0, 0)


@pytest.mark.parametrize("program", ["# nothing", "int main() { return 0; }"])
def test_no_check_is_paid_for_a_program_that_is_none(program):
    assert rewards(check(), SUBMIT, answer=program, kind="code") == (0, 0)


def test_code_beside_the_problem_repairs_nothing():
    beside = check("print(add(1, 1))", content="2")
    assert rewards(fails(), think(), beside, SUBMIT, answer="7") == (R.exec_error, 0, 0, 0)


def test_the_same_call_again_costs_however_it_is_laid_out():
    again = check("print( add(3,4) )  # once more")
    assert rewards(check(), again, again) == (R.exec_ok, R.repeated, R.repeated)


def test_after_an_edit_the_same_check_is_no_repetition():
    assert rewards(fails(), edit("share", ["add", "lcm"]), check("print(share(7, 2))")) == (
        R.exec_error, R.useful_edit, R.exec_ok,
    )  # fmt: skip


def test_a_second_good_check_earns_nothing():
    assert rewards(check(), check("print(add(5, 6))", content="11")) == (R.exec_ok, 0)


def test_a_repeated_check_shows_no_repair():
    assert rewards(check(), fails(), think(), check()) == (0, R.exec_error, 0, R.repeated)


def test_many_different_checks_earn_as_much_as_one():
    assert sum(rewards(*(check(f"print(add({i}, 1))", content=str(i)) for i in range(20)))) == pytest.approx(R.exec_ok)


moves = st.sampled_from(
    [
        lambda i: check(f"print(add({i}, 1))"), lambda i: check(), lambda i: fails(f"print(share({i}, 2))"),
        lambda i: fails(), lambda i: think(), lambda i: edit("share", ["add", "lcm"]),
        lambda i: edit("add", [f"s{i}"]), lambda i: edit("q", [], "error"), lambda i: BAD, lambda i: check("print(7)"),
    ]
)  # fmt: skip


@given(st.lists(moves, max_size=12))
def test_no_sequence_of_moves_earns_more_than_one_good_check(chosen):
    """Failing on purpose, repeating, toggling edits, spamming: the sum never exceeds a single check that passes."""
    assert sum(rewards(*(move(i) for i, move in enumerate(chosen)))) <= R.exec_ok + 1e-9


@pytest.mark.parametrize("field", ["reflection", "useful_edit"])
def test_the_config_refuses_rewards_that_make_failing_pay(field):
    with pytest.raises(Failure, match=f"reward.*{field}.*failing on purpose"):
        validate({"domain": "mini", "reward": {field: 0.5}})
