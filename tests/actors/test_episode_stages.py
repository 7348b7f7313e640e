"""The stage of an action, and whether a check has to do with the problem: both follow from what is done, not from what
it is called."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.actors.endpoint import call
from tests.actors.test_episode import ROOMY, SUBMIT, Tools, error, facts, ok, play


def test_a_stage_follows_from_what_is_done_and_where_the_episode_stands():
    check = call("exec", code="x")
    turns = [
        "a draft",
        call("edit", drop=["gcd"]),
        "another",
        check,
        "mended",
        call("edit", drop=["lcm"]),
        "x",
        check,
        "y",
    ]
    episode, _, _ = play([*turns, SUBMIT], Tools(error("Error"), ok("1")))
    assert [t.stage for t in episode.turns] == [
        "draft", "refine", "refine", "check", "refine", "refine", "refine", "check", "finalize", "finalize",
    ]  # fmt: skip
    episode, _, _ = play([call("edit", drop=["gcd"]), "a draft", check, SUBMIT], Tools(ok("1")))
    assert [t.stage for t in episode.turns] == ["draft", "draft", "check", "finalize"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["", *(f"## {s}\n" for s in ("Draft", "Check", "Refine", "Finalize"))]), min_size=7, max_size=7
    )
)
def test_what_a_turn_calls_itself_changes_nothing(labels):
    """Neither its stage nor what is suggested next."""
    bodies = [
        "a",
        call("exec", code="x"),
        "b",
        call("edit", drop=["gcd"]),
        "c",
        call("exec", code="y"),
        SUBMIT.partition("\n")[2],
    ]
    plain, _, said = play(bodies, Tools(error("Error"), ok("1")))
    named, _, heard = play([a + b for a, b in zip(labels, bodies, strict=True)], Tools(error("Error"), ok("1")))
    assert facts(named) == facts(plain)
    assert [m for m in heard if m["role"] == "user"] == [m for m in said if m["role"] == "user"]


def test_a_check_says_whether_it_depends_on_the_problem_once_that_is_submitted():
    class Python(Tools):
        """Answers with what the code prints, for code of this test."""

        async def exec(self, code):
            shown: list[str] = []
            exec(code, {"print": lambda x: shown.append(str(x))})
            return ok("\n".join(shown))

    checks = [call("exec", code=code) for code in ("print(3 * 4)", "print(12 + 0 * (3 * 4))")]
    submit = call("submit", question="Mia has 3 times 4. How many?", answer="12")
    episode, _, seen = play([*checks, submit], Python())
    assert [t.tool.depends for t in episode.turns] == [True, False, None]
    assert "12" in seen[-1]["content"]
    episode, _, _ = play(checks, Python(), ROOMY.model_copy(update={"max_turns": 2}))
    assert [t.tool.depends for t in episode.turns] == [None, None]
