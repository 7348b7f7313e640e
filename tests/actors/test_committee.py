"""The committee: its decision rule with given votes, its patience with bad verifiers, the real verifiers together."""

from __future__ import annotations

import asyncio

import pytest

from actors.committee import Committee
from actors.execution import Executor
from actors.verifiers.base import Asked
from actors.verifiers.text.model import ModelVerifier
from pipeline import config
from pipeline.records import Episode, Failure, Outcome, Problem, Skill, Task, ToolResult, Turn, Vote
from pipeline.scoring.judged import lacks_votes
from sandbox.api import Request, Result
from tests.actors.metered import metered
from tests.actors.pools import Boxes, solver_pool
from tests.mini import MINI, changed

ANYTHING = Asked(None, (), ())
PROBLEM = Problem.make("Mia has 34 stones. Mia finds 17 more. How many stones does Mia have now?", "51")
COMMITTEE = MINI.committee


def vote(valid, answer="51", flags=()):
    return Vote(verifier="?", valid=valid, answer=answer, flags=flags)


def abstain(kind):
    return Vote(verifier="?", valid=None, outcome=Outcome(kind=kind, reason="r"))


class Fake:
    """Votes as told: the first time `votes[0]`, in the second audit `votes[1]`; an exception is raised."""

    timeout_s = 0.3

    def __init__(self, name, *votes, derived=True):
        self.name, self.votes, self.derived, self.attempts = name, votes, derived, []

    async def vote(self, problem, trace, active, attempt):
        self.attempts.append(attempt)
        said = self.votes[min(attempt, len(self.votes) - 1)]
        if isinstance(said, BaseException):
            raise said
        return said


class Hung(Fake):
    async def vote(self, problem, trace, active, attempt):
        while True:  # will not be cancelled either
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(0.2)
                return vote(True)


def decide(*verifiers, section=COMMITTEE):
    return asyncio.run(Committee.of(section, verifiers).judge(PROBLEM, None, ("add",)))


YES, NO = vote(True), vote(False, "50")


def test_three_valid_votes_accept():
    verdict = decide(Fake("a", YES), Fake("b", YES), Fake("m", YES, derived=False))
    assert verdict.accepted and verdict.audit is None
    assert [v.verifier for v in verdict.votes] == ["a", "b", "m"]


def test_a_replica_measures_verdicts_and_votes(monkeypatch):
    seen = metered(monkeypatch)
    slow = Hung("slow")
    verdict = decide(Fake("a", YES), Fake("b", YES), slow)
    votes = {tags["verifier"]: (name, value, tags["outcome"]) for name, value, tags in seen if "verifier" in tags}
    assert {who: outcome for who, (_, _, outcome) in votes.items()} == {"a": "ok", "b": "ok", "slow": "infra_error"}
    assert {name for name, _, _ in votes.values()} == {"propose_voted_seconds"}
    assert votes["slow"][1] >= slow.timeout_s > votes["a"][1]
    ((name, value, tags),) = [one for one in seen if "decision" in one[2]]
    assert (name, tags["decision"]) == ("propose_judged_seconds", verdict.decision) and value >= slow.timeout_s


@pytest.mark.parametrize("flag", COMMITTEE.disqualifying)
def test_any_disqualifying_flag_rejects_whatever_the_votes(flag):
    verdict = decide(Fake("a", YES), Fake("b", YES), Fake("m", vote(True, flags=(flag,)), derived=False))
    assert verdict.decision == "rejected" and flag in verdict.flags


def test_a_flag_that_is_not_disqualifying_is_recorded_only():
    section = changed(MINI.committee, disqualifying=("unsolvable",))
    verdict = decide(
        Fake("a", YES),
        Fake("b", vote(True, flags=("trivial",))),
        section=config.CommitteeConfig.model_validate(section),
    )
    assert verdict.accepted and verdict.flags == ("trivial",)


def test_a_weak_model_does_not_overrule_two_derivations():
    model = Fake("m", NO, derived=False)
    verdict = decide(Fake("a", YES), Fake("b", YES), model)
    assert verdict.accepted and "a and b" in verdict.audit and model.attempts == [0]


def test_a_derivation_that_differs_is_never_overruled():
    verdict = decide(Fake("a", YES), Fake("b", NO), Fake("m", YES, derived=False))
    assert verdict.decision == "rejected" and "b derives another answer" in verdict.audit


def test_one_derivation_and_one_dissenting_model_reject():
    assert decide(Fake("a", YES), Fake("b", abstain("data_error")), Fake("m", NO, derived=False)).decision == "rejected"


@pytest.mark.parametrize(
    "second, decision", [(YES, "accepted"), (NO, "rejected"), (abstain("model_error"), "rejected")]
)
def test_a_committee_of_models_asks_the_dissenter_once_more(second, decision):
    models = [Fake(name, YES, derived=False) for name in "ab"] + [Fake("c", NO, second, derived=False)]
    verdict = decide(*models)
    assert verdict.decision == decision and verdict.audit
    assert [m.attempts for m in models] == [[0], [0], [0, 1]]


def models(*votes):
    return [Fake(name, *said, derived=False) for name, said in zip("abc", votes, strict=True)]


NO_MAJORITY = abstain("model_error")


@pytest.mark.parametrize(
    "second, decision",
    [
        (YES, "accepted"),
        (NO, "rejected"),
        (vote(True, flags=("ambiguous",)), "rejected"),
        (abstain("model_error"), "rejected"),  # the models could not decide
        (abstain("infra_error"), "undecided"),
        (RuntimeError("died"), "undecided"),
    ],
)
@pytest.mark.parametrize("third", [NO, NO_MAJORITY], ids=["differs", "no majority"])
def test_the_auditor_settles_what_the_models_do_not_agree_on(third, second, decision):
    auditor = Fake("audit", None, second, derived=False)
    judges = models((YES,), (YES,), (third,))
    verdict = asyncio.run(Committee.of(COMMITTEE, judges, auditor).judge(PROBLEM, None, ("add",)))
    assert verdict.decision == decision and verdict.audit and auditor.attempts == [1]
    assert [m.attempts for m in judges] == [[0]] * 3  # none of them is asked again
    assert [(v.verifier, v.second) for v in verdict.votes][3:] == [("audit", True)]
    assert lacks_votes(verdict) is (decision == "undecided")


def test_the_auditor_is_not_asked_where_nothing_differs_or_nothing_can_be_won():
    auditor = Fake("audit", YES, derived=False)
    for votes in (
        (YES, YES, YES),
        (YES, NO, NO),
        (YES, NO_MAJORITY, NO_MAJORITY),
        (YES, YES, vote(True, flags=("ambiguous",))),
    ):
        asyncio.run(Committee.of(COMMITTEE, models(*((v,) for v in votes)), auditor).judge(PROBLEM, None, ()))
    assert auditor.attempts == []


def test_the_auditor_is_shown_the_answers_that_were_found():
    class Reader(Fake):
        async def vote(self, problem, trace, asked, attempt):
            self.trace = trace
            return YES

    auditor = Reader("audit")
    judges = models((YES,), (YES,), (vote(False, "50"),))
    asyncio.run(Committee.of(COMMITTEE, judges, auditor).judge(PROBLEM, None, ()))
    assert auditor.trace == "Answers that were found:\n- 50\n- 51"


def test_no_majority_of_a_model_calls_the_audit_and_two_derivations_answer_it():
    silent = Fake("m", NO_MAJORITY, NO, derived=False)
    assert decide(Fake("a", YES), Fake("b", YES), silent).accepted and silent.attempts == [0]
    silent = Fake("m", NO_MAJORITY, YES, derived=False)
    verdict = decide(*models((YES,), (YES,), (NO_MAJORITY, YES)))
    assert verdict.accepted and verdict.audit
    assert not decide(*models((YES,), (YES,), (NO_MAJORITY, NO_MAJORITY))).accepted
    section = changed(MINI.committee, audit=False)
    assert not decide(*models((YES,), (YES,), (NO_MAJORITY,)), section=section).accepted
    assert decide(Fake("a", YES), Fake("b", YES), silent, section=section).accepted


def test_without_the_audit_differing_answers_reject():
    section = changed(MINI.committee, audit=False)
    verdict = decide(Fake("a", YES), Fake("b", YES), Fake("m", NO, derived=False), section=section)
    assert verdict.decision == "rejected"


def test_below_quorum_is_undecided_even_if_every_vote_cast_is_valid():
    verdict = decide(Fake("a", YES), Fake("b", abstain("infra_error")), Fake("m", abstain("model_error")))
    assert verdict.decision == "undecided"


def test_the_quorum_counts_votes_cast_not_verifiers():
    silent = Fake("m", abstain("infra_error"), derived=False)
    assert decide(Fake("a", YES), silent, silent).decision == "undecided"
    assert (
        decide(Fake("a", YES), Fake("b", YES), silent, section=changed(MINI.committee, quorum=3)).decision
        == "undecided"
    )
    assert decide(Fake("a", YES), Fake("b", YES), silent, section=changed(MINI.committee, quorum=2)).accepted


@pytest.mark.parametrize("kind", ["model_error", "data_error"])
def test_what_no_verifier_can_decide_is_rejected_and_not_undecided(kind):
    """Else a problem that nobody can read leaves its group unpunished."""
    silent = [Fake(n, abstain(kind), derived=False) for n in "bc"]
    assert decide(Fake("a", YES), *silent).decision == "rejected"
    assert decide(*(Fake(n, abstain(kind)) for n in "abc")).decision == "rejected"


def told(valid, used, category="maths", adherent=True):
    return vote(valid).model_copy(update={"used_skills": used, "category": category, "adherent": adherent})


def test_the_verdict_says_what_all_who_can_tell_find_used():
    a, b, m = told(True, ("add", "gcd")), told(True, ("add", "share")), vote(True)
    verdict = decide(Fake("a", a), Fake("b", b), Fake("m", m, derived=False))
    assert (verdict.used_skills, verdict.category, verdict.adherent) == (("add",), "maths", True)
    differing = decide(Fake("a", a), Fake("b", told(True, (), "code", False)), Fake("m", m, derived=False))
    assert (differing.used_skills, differing.category, differing.adherent) == ((), None, False)
    silent = decide(Fake("a", YES), Fake("b", YES))
    assert (silent.used_skills, silent.category, silent.adherent) == (None, None, None)


def test_an_accepted_problem_has_the_answer_that_was_derived_and_a_rejected_one_none():
    derived = vote(True, "51").model_copy(update={"answer": "fifty-one"})
    assert decide(Fake("m", YES, derived=False), Fake("a", derived)).answer == "fifty-one"
    assert decide(Fake("a", NO), Fake("b", NO)).answer is None


def test_verifiers_are_told_what_was_offered_and_what_was_kept():
    class Reader(Fake):
        async def vote(self, problem, trace, asked, attempt):
            self.asked = asked
            return YES

    def skill(id):
        return Skill(id=id, category="maths", intent="", method="", difficulty="", tool_hint="", score=1, source="")

    task = Task(id="e", group_id="g", category="maths", skills=(skill("add"), skill("gcd")), seed=0)
    episode = Episode(
        id="e", attempt=1, task=task, turns=(), active=("gcd",), submitted=PROBLEM, outcome=Outcome(kind="ok"),
        policy_versions=(0,), prompt_tokens=1, sampled_tokens=1, wall_s=0.0,
    )  # fmt: skip
    reader = Reader("a")
    asyncio.run(Committee.of(COMMITTEE, [reader]).judge(PROBLEM, episode, episode.active))
    assert reader.asked == Asked("maths", ("add", "gcd"), ("gcd",))
    asyncio.run(Committee.of(COMMITTEE, [reader]).judge(PROBLEM, None, ("add",)))
    assert reader.asked == Asked(None, ("add",), ("add",))


def test_a_vote_that_failed_and_could_still_decide_leaves_it_undecided():
    verdict = decide(Fake("a", YES), Fake("b", abstain("infra_error")), Fake("m", NO, derived=False))
    assert verdict.decision == "undecided"
    assert decide(Fake("a", NO), Fake("b", abstain("infra_error")), Fake("m", NO, derived=False)).decision == "rejected"


@pytest.mark.parametrize(
    "bad, kind, says",
    [
        (Hung("x"), "infra_error", "no vote within 0.3 s"),
        (Fake("x", RuntimeError("died")), "infra_error", "RuntimeError: died"),
        (Fake("x", Failure("endpoint gone", "infra_error")), "infra_error", "endpoint gone"),
        (Fake("x", {"vote": 1}), "model_error", "dict"),
        (Fake("x", None), "model_error", "NoneType"),
        (Fake("x", asyncio.CancelledError()), "infra_error", "cancelled"),
    ],
)
def test_a_bad_verifier_costs_its_vote_and_not_the_run(bad, kind, says):
    verdict = decide(Fake("a", YES), Fake("b", YES), bad)
    assert verdict.accepted
    lost = verdict.votes[2]
    assert (lost.verifier, lost.valid, lost.outcome.kind) == ("x", None, kind) and says in lost.outcome.reason


def test_verifiers_see_the_work_but_not_the_answer_that_was_handed_in():
    class Reader(Fake):
        async def vote(self, problem, trace, active, attempt):
            self.trace = trace
            return YES

    def turn(action, text, content):
        tool = ToolResult(tool=action, status="ok", content=content)
        return Turn(stage="check", action=action, start=0, end=1, text=text, tool=tool)

    task = Task(id="e", group_id="g", category="maths", skills=(), seed=0)
    episode = Episode(
        id="e", attempt=1, task=task,
        turns=(turn("exec", "I run it", "found"), turn("submit", "handed in: 51", "Submitted.")),
        active=(), submitted=PROBLEM, outcome=Outcome(kind="ok"), policy_versions=(0,), prompt_tokens=1,
        sampled_tokens=1, wall_s=0.0,
    )  # fmt: skip
    readers = [Reader("a"), Reader("b")]
    asyncio.run(Committee.of(COMMITTEE, readers).judge(PROBLEM, episode, ()))
    assert [r.trace for r in readers] == ["I run it\n-> found"] * 2


def test_all_verifiers_bad_is_undecided():
    verdict = decide(*(Fake(n, RuntimeError("died")) for n in "abc"))
    assert verdict.decision == "undecided" and not verdict.accepted


# ---------------------------------------------------------------- the sandbox side


def test_the_executor_batches_what_is_asked_together_and_keeps_the_order():
    batches = []

    async def run_batch(requests):
        batches.append(len(requests))
        return [Result("ok", value=r.code) for r in requests]

    async def main():
        executor = Executor(run_batch, max_batch=4)
        return await asyncio.gather(*(executor.run(Request(str(i))) for i in range(10)))

    assert [r.value for r in asyncio.run(main())] == [str(i) for i in range(10)]
    assert sorted(batches) == [2, 4, 4]


@pytest.mark.parametrize("broken", [RuntimeError("pool died"), []])
def test_a_failing_pool_gives_infra_results_to_every_caller(broken):
    async def run_batch(requests):
        if isinstance(broken, Exception):
            raise broken
        return broken

    async def main():
        executor = Executor(run_batch)
        return await asyncio.gather(*(executor.run(Request("1")) for _ in range(3)))

    assert [r.status for r in asyncio.run(main())] == ["infra"] * 3


# ---------------------------------------------------------------- the real committee


def judge(pool, problem, solver, active=("add",), section=COMMITTEE):
    committee = Committee(section, pool, solver_pool(solver))
    return asyncio.run(committee.judge(problem, None, active))


def test_a_right_problem_is_accepted_and_each_verifier_says_what_it_found(pool):
    verdict = judge(pool, PROBLEM, Boxes("51"))
    assert verdict.accepted and [v.answer for v in verdict.votes] == ["51"] * 3


def test_a_right_problem_the_solver_cannot_solve_is_accepted(pool):
    verdict = judge(pool, PROBLEM, Boxes("50"))
    assert verdict.accepted and verdict.audit
    assert [v.valid for v in verdict.votes] == [True, True, False]


def test_a_wrong_problem_on_which_the_solver_errs_alike_is_rejected(pool):
    verdict = judge(pool, Problem.make(PROBLEM.question, "50"), Boxes("50"))
    assert verdict.decision == "rejected" and [v.valid for v in verdict.votes] == [False, False, True]


@pytest.mark.parametrize("kind", ["choice", "text", "code"])
def test_a_right_answer_of_the_wrong_kind_is_rejected(pool, kind):
    """Solvers' answers would be compared by that kind's rules: 51.0 is another choice than 51."""
    verdict = judge(pool, Problem.make(PROBLEM.question, "51", kind), Boxes("51"))
    assert verdict.decision == "rejected" and [v.valid for v in verdict.votes][:2] == [False, False]


def test_skills_left_unused_disqualify(pool):
    assert judge(pool, PROBLEM, Boxes("51"), active=("add", "gcd")).flags == ("off_task",)


def test_a_dead_sandbox_leaves_problems_undecided():
    async def run_batch(requests):
        raise ConnectionError("gone")

    async def main():
        fake = type("P", (), {"run_batch": type("M", (), {"remote": staticmethod(run_batch)})})
        return await Committee(COMMITTEE, fake, solver_pool(Boxes("51"))).judge(PROBLEM, None, ("add",))

    verdict = asyncio.run(main())
    assert verdict.decision == "undecided"
    assert [v.outcome.kind for v in verdict.votes] == ["infra_error", "infra_error", "ok"]


# ---------------------------------------------------------------- the model verifier's majority


@pytest.mark.parametrize(
    "answers, valid",
    [
        (["51", "51.0", "51 stones", "50", None], True),
        (["51", "51", "50", "49", None], None),
        (["50", "50", "50", "51", "51"], False),
        (["50", "49", "48", "51", "47"], None),
        ([None], None),
    ],
)
def test_the_model_votes_with_its_majority_or_abstains(pool, answers, valid):
    section = config.ModelVerifierConfig(samples=5, majority=0.6)
    verifier = ModelVerifier("m", section, Executor(pool.run_batch.remote), solver_pool(Boxes(*answers)))
    found = asyncio.run(verifier.vote(PROBLEM, "", ANYTHING, 0))
    assert found.valid is valid
    assert found.outcome.kind == ("model_error" if valid is None else "ok")


def test_the_second_audit_asks_twice_as_many_with_another_seed(pool):
    boxes = Boxes("51")
    verifier = ModelVerifier("m", config.ModelVerifierConfig(), Executor(pool.run_batch.remote), solver_pool(boxes))
    asyncio.run(verifier.vote(PROBLEM, "", ANYTHING, 0))
    asyncio.run(verifier.vote(PROBLEM, "", ANYTHING, 1))
    (first, n1, seed1), (second, n2, seed2) = boxes.asked
    assert first == second == PROBLEM.question and n2 == 2 * n1 and seed1 != seed2


@pytest.mark.parametrize("asks_endpoint", [True, False])
def test_no_deadline_runs_while_the_judges_pool_waits_for_an_endpoint(pool, asks_endpoint):
    class Waiting(Boxes):
        async def answers(self, *asked):
            await asyncio.sleep(1.5)
            return await super().answers(*asked)

    section = config.ModelVerifierConfig(samples=1, timeout_s=1)
    solvers = solver_pool(Waiting("51"), asks_endpoint)
    verifier = ModelVerifier("m", section, Executor(pool.run_batch.remote), solvers)
    (vote,) = asyncio.run(Committee.of(COMMITTEE, [verifier]).judge(PROBLEM, None, ())).votes
    assert (vote.valid, vote.outcome.kind) == ((True, "ok") if asks_endpoint else (None, "infra_error"))


def test_a_model_verifier_without_a_model_is_refused():
    with pytest.raises(Failure, match="neither base_url nor a solver pool"):
        ModelVerifier("m", config.ModelVerifierConfig(), Executor(lambda r: None), None)
