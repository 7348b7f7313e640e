"""An environment that teaches: what a turn lacked is said, the form is shown, a repetition ends the episode."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from actors.chat import ChatFormat, parse_turn
from actors.episode import Conversation
from actors.policies import TextPolicy
from actors.templates import own_form
from actors.tool_calls import Malformed, ToolCall
from actors.wording import Teaching
from pipeline.config import EpisodeLimits
from pipeline.domains.text import BUNDLED
from pipeline.records import COGNITIVE_STAGES
from tests.actors.endpoint import call
from tests.actors.test_episode import CHAT, SUBMIT, Tools, facts, ok, play, skill
from tests.actors.tiny_model import make_tokenizer

LIMITS = EpisodeLimits(max_tokens=20_000)
PROMPT = (BUNDLED / "proposer.md").read_text()


def teach(turns, *results, **options):
    """(episode, what the environment said after each turn)."""
    episode, _, seen = play(turns, Tools(*results), options.pop("limits", LIMITS), **options)
    return episode, [m["content"] for m in seen if m["role"] == "user"][1:]


# ---------------------------------------------------------------- one way to write a stage


def test_a_stage_is_written_in_one_way_by_everybody():
    """Prompt, task and answers hold the line that the reader reads, and no other form of it."""
    episode, said = teach(["## Draft\na", "## Check\n" + call("exec", code="1"), SUBMIT], ok("1"))
    texts = [PROMPT, Teaching(str).task("maths", []), *said]
    for text in texts:
        assert "Stage:" not in text
    for stage in COGNITIVE_STAGES:
        line = f"## {stage.capitalize()}"
        assert PROMPT.count(f"\n{line}\n") >= 1 and parse_turn(f"{line}\nbody") == (stage, "body", None)
    assert [text.splitlines()[-1] for text in said] == ["## Check", "## Finalize"]
    assert [t.notes for t in episode.turns] == [(), (), ()]


@pytest.mark.parametrize(
    "written", ["Stage: check\nx", "## Check\nx", "## Check: x", "**Check**\nx", "Stage: ## Check\nx"]
)
def test_other_ways_to_write_it_are_read(written):
    assert parse_turn(written)[:2] == ("check", "x")


# ---------------------------------------------------------------- what a turn lacked


def test_a_turn_without_header_is_told_and_shown_the_form():
    episode, said = teach(["Mia has 3.", SUBMIT])
    assert episode.turns[0].notes == ("no header",) and episode.turns[0].stage == "draft"
    assert "did not begin with a line that names its stage" in said[0] and said[0].endswith("\n## Check")


def test_a_check_that_runs_nothing_and_an_end_that_submits_nothing_are_shown_the_call():
    turns = ["## Draft\na", "## Check\nlooks right", "## Finalize\nThe answer is 3.", SUBMIT]
    episode, said = teach(turns)
    assert [t.notes for t in episode.turns] == [(), ("no check",), ("no submission",), ()]
    for text, name in ((said[1], "exec"), (said[2], "submit")):
        assert isinstance(found := parse_turn(text)[2], ToolCall) and found.name == name


def test_nothing_is_asked_for_that_the_agent_does_not_have():
    limits = LIMITS.model_copy(update={"tools": ("edit",)})
    episode, said = teach(["## Check\nlooks right", SUBMIT], limits=limits)
    assert episode.turns[0].notes == () and "exec" not in said[0]


def test_a_skill_that_is_called_as_a_tool_is_answered_with_how_skills_are_used():
    episode, said = teach(["## Check\n" + call("gcd", a=4, b=6), "## Check\n" + call("nothing", a=4), SUBMIT])
    assert [done for _, *done in facts(episode)[:2]] == [["think", "malformed"]] * 2  # whatever stage they name
    assert "'gcd' is a skill and no tool" in said[0] and '{"name": "exec"' in said[0]
    assert "no tool 'nothing'" in said[1]


def test_the_bare_environment_says_no_more_than_before():
    limits = LIMITS.model_copy(update={"teach": False, "max_repeats": None})
    turns = ["Mia has 3.", "Mia has 3.", "Mia has 3.", "## Check\n" + call("gcd", a=4), SUBMIT]
    episode, said = teach(turns, limits=limits)
    assert said[:3] == ["Stage: check", "Stage: finalize", "Stage: finalize"] and "no tool 'gcd'" in said[3]
    assert all(t.notes == () for t in episode.turns) and episode.outcome.kind == "ok"


# ---------------------------------------------------------------- repetition


def test_a_repetition_is_named_and_the_second_ends_the_episode():
    episode, said = teach(["## Draft\na", "## Draft\na", "## Draft\nb", "## Draft\nb", SUBMIT])
    assert (episode.outcome.kind, episode.outcome.reason) == ("model_error", "2 turns repeat earlier ones")
    assert [t.notes for t in episode.turns] == [(), ("repeated",), (), ("repeated",)]
    assert "word for word" in said[1] and "word for word" not in said[0] + said[2]


def test_turns_in_a_circle_are_a_repetition_and_the_same_check_of_something_new_is_none():
    episode, _ = teach(["## Draft\na", "## Draft\nb"] * 4)
    assert [bool(t.notes) for t in episode.turns] == [False, False, False, True, True]
    check = "## Check\n" + call("exec", code="print(3)")
    episode, _ = teach(
        [check, "## Refine\nclearer words", check, "## Refine\nclearer still", check, SUBMIT], *[ok("3")] * 3
    )
    assert episode.outcome.kind == "ok" and not any(t.notes for t in episode.turns)


def test_the_same_check_on_other_skills_is_no_repetition():
    check = "## Check\n" + call("exec", code="print(add())")
    episode, _ = teach([check, "## Refine\n" + call("edit", drop=["gcd"]), check, SUBMIT], ok("1"), ok("2"))
    assert episode.outcome.kind == "ok" and all(t.notes == () for t in episode.turns)


# ---------------------------------------------------------------- skills


def test_a_skill_shows_all_of_itself_but_the_body_of_its_script():
    script = '''
import math

def fits(a: int, b: int = 2) -> bool:
    """Whether a and b
    share a divisor."""
    return math.gcd(a, b) > SECRET

def _inner(): ...

def bare(*xs): return xs
'''
    shown = Teaching(str).skill(
        skill("gcd").model_copy(update={"script": script, "difficulty": "hides it", "tool_hint": "fits(a, b)"})
    )
    for part in ("gcd: intent of gcd", "method of gcd", "hides it", "fits(a, b)"):
        assert part in shown
    assert 'def fits(a: int, b: int=2) -> bool:\n    """Whether a and b\nshare a divisor."""' in shown
    assert "def bare(*xs): ..." in shown and "SECRET" not in shown and "_inner" not in shown


def test_the_skill_tool_gives_the_whole_skill_where_the_environment_teaches():
    _, said = teach(["## Draft\n" + call("skill", id="gcd"), SUBMIT])
    assert "Structure and action: method of gcd" in said[0] and "def gcd(): ..." in said[0]


# ---------------------------------------------------------------- the form of the model's own template

_TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'system' %}{{ m.content }}{% if tools %}\n\nYou may call:\n"
    "{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}{% else %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}%s{% endfor %}<|im_end|>\n{% endfor %}"
)
HERMES = _TOOLS.replace(
    "%s",
    '\n<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>',
)
XML = _TOOLS.replace(
    "%s",
    "\n<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}"
    "<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
)
TRAINED = HERMES.replace("{{ m.content }}{% endif %}", "{% generation %}{{ m.content }}{% endgeneration %}{% endif %}")
"""It marks what a trainer learns from, as templates may."""
UNREADABLE = _TOOLS.replace("%s", "CALL {{ c.function.name }} WITH {{ c.function.arguments }}")
NO_TOOLS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def of(template: str | list[dict[str, str]], folder: Path) -> ChatFormat:
    make_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return ChatFormat(folder)


@pytest.mark.parametrize(
    ("template", "mark"),
    [
        (HERMES, '{"name": "exec"'),
        (XML, "<function=exec>"),
        (TRAINED, '{"name": "exec"'),
        ([{"name": "default", "template": HERMES}, {"name": "tool_use", "template": XML}], "<function=exec>"),
        ([{"name": "rag", "template": NO_TOOLS}, {"name": "default", "template": XML}], "<function=exec>"),
    ],
)
def test_tools_and_calls_are_shown_as_the_models_template_shows_them(template, mark, tmp_path):
    chat = of(template, tmp_path / "model")
    system = chat.system(PROMPT, LIMITS)
    assert "You may call:" in system and "as JSON schemas" not in system and mark in system
    assert (mark in chat.example("exec")) and isinstance(parse_turn(chat.example("exec"))[2], ToolCall)
    code = parse_turn(system[system.index("## Check\nI list") :].partition("## Finalize")[0])[2]
    assert isinstance(code, ToolCall) and code.arguments["code"].endswith("\nprint(n * (n + 1) // 2 % 7)")
    withheld = chat.system(PROMPT, LIMITS.model_copy(update={"tools": ("exec",)}))
    assert '"name": "edit"' in system and '"name": "edit"' not in withheld


@pytest.mark.parametrize("code", ["print(1 < 2)", "print('<|im_end|>', 1)"])
def test_a_teachers_calls_are_learned_in_the_students_form(code, tmp_path):
    async def complete(messages):
        return "## Check\n" + call("exec", code=code)

    chat = of(XML, tmp_path / "model")
    sample = asyncio.run(TextPolicy(complete, chat)(Conversation(chat, []), 500, 0))
    assert "<function=exec>" in sample.text and parse_turn(sample.text)[2] == ToolCall("exec", {"code": code})


@pytest.mark.parametrize("template", [UNREADABLE, NO_TOOLS, "{% if %}", "{{ raise_exception('no') }}", "{{ 1 + '' }}"])
def test_a_template_that_teaches_nothing_readable_leaves_hermes(template, tmp_path):
    chat = of(template, tmp_path / "model")
    system = chat.system(PROMPT, LIMITS)
    assert "as JSON schemas" in system and '<tool_call>\n{"name": "exec"' in system
    assert chat.example("skill").startswith("<tool_call>\n{")


def test_the_day_that_a_template_tells_is_left_out(tmp_path):
    dated = HERMES.replace("You may call:", "Today: {{ strftime_now('%Y') }}. You may call:")
    assert "Today: . You may call:" in of(dated, tmp_path / "model").system(PROMPT, LIMITS)


def test_a_prompt_without_a_place_for_tools_is_left_alone():
    assert CHAT.system("You write problems.", LIMITS) == "You write problems." and own_form("/nowhere", []) is None


def test_the_example_of_the_bundled_prompt_is_read_as_it_is_meant():
    system = CHAT.system(PROMPT, LIMITS)
    assert "{{" not in system
    example = system[system.index("## Draft\nCounting") :]
    draft, check, end = (f"## {part}" for part in example.split("## ")[1:])
    assert parse_turn(draft)[0] == "draft" and parse_turn(draft)[2] is None
    stage, _, found = parse_turn(end)
    assert stage == "finalize" and isinstance(found, ToolCall) and not found.repairs
    assert r"$\frac{n(n+1)}{2}$" in found.arguments["question"] and found.arguments["answer_kind"] == "math"
    run = parse_turn(check)[2]
    assert isinstance(run, ToolCall) and not isinstance(run, Malformed)
    printed: list[object] = []
    exec(run.arguments["code"], {"print": printed.append})
    assert [str(value) for value in printed] == [found.arguments["answer"]]
