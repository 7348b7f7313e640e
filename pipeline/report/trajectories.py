"""Problems with their whole trajectories, turn by turn: what the agent said, the call that it made as what it asks for
(code, a change of skills, a problem), and what came of it. All of it is the model's text: nothing goes out unescaped.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.tool_calls import Malformed, ToolCall, split
from pipeline.records import Turn, Vote
from pipeline.report.charts import number, text
from pipeline.report.facts import Sample
from pipeline.report.formulas import typeset, typeset_answer


def render(sample: Sample, opened: bool, marks: Sequence[str] = (), tags: Sequence[str] = ()) -> str:
    """`marks`: classes of the element; `tags`: shown beside the problem while it is closed."""
    e = sample.episode
    shown = typeset(e.submitted.question) if e.submitted else "nothing was submitted"
    mark = f' class="{" ".join(marks)}"' if marks else ""
    parts = [f"<details{mark}{' open' if opened else ''}><summary>"]
    if sample.why:
        parts.append(f"<b>{text(_capital(sample.why))}</b>")
    parts.append(" ".join(f'<span class="tag">{text(tag)}</span>' for tag in tags))
    parts.append(f'<div class="problem">{shown}</div></summary>')
    if e.submitted:
        parts.append(f"<p>Answer: <b>{typeset_answer(e.submitted.answer)}</b></p>")
    parts.append(f"<p>{_skills(sample)}</p>{_judged(sample)}")
    parts += [_turn(n, t) for n, t in enumerate(e.turns, start=1)]
    versions = ", ".join(map(str, e.policy_versions)) or "none"
    parts.append(
        f'<p class="soft">{text(sample.stage)} · episode {text(e.id)} · {number(len(e.turns))} turns · '
        f"{number(e.sampled_tokens)} sampled tokens · policy version {versions} · outcome: "
        f"{text(e.outcome.kind)}{text(': ' + e.outcome.reason if e.outcome.reason else '')}</p></details>"
    )
    return "".join(parts)


def _capital(why: str) -> str:
    return why[:1].upper() + why[1:]


def _skills(sample: Sample) -> str:
    e = sample.episode
    kept = set(e.active)
    offered = [
        f'<span class="tag{"" if s.id in kept else " dropped"}" title="{text(s.intent)}">{text(s.id)}</span>'
        for s in e.task.skills
    ]
    later = [f'<span class="tag">+ {text(s)}</span>' for s in e.active if s not in {k.id for k in e.task.skills}]
    return f"{text(e.task.category)}, skills offered: {' '.join(offered + later)}"


def _judged(sample: Sample) -> str:
    v, p = sample.verdict, sample.probe
    if v is None:
        return '<p><span class="bad">The committee saw nothing.</span></p>'
    tone = "good" if v.accepted else "bad"
    facts = [f'Committee: <b class="{tone}">{text(v.decision)}</b>']
    if v.reason:
        facts.append(text(v.reason))
    if v.flags:
        facts.append(f"flags: {text(', '.join(v.flags))}")
    if v.audit:
        facts.append(f"audit: {text(v.audit)}")
    if p:
        facts.append(
            f"{p.correct} of {p.n} samples of {text(p.prober)} right: <b>{number(p.rate, True)}</b> "
            f"[{number(p.rate_low, True)}, {number(p.rate_high, True)}], "
            f"Pass@{p.k} {number(p.pass_at_k, True)} [{number(p.low, True)}, {number(p.high, True)}], "
            f"{number(p.chance, True)} by chance{'' if p.solved else ': <b>solved by nobody above chance</b>'}"
        )
    return f'<p>{" · ".join(facts)}</p><ul class="votes">{"".join(map(_vote, v.votes))}</ul>'


def _vote(vote: Vote) -> str:
    said = "abstains" if vote.valid is None else "valid" if vote.valid else "not valid"
    answer = f", answers {typeset_answer(vote.answer)}" if vote.answer is not None else ""
    flags = f" · flags: {text(', '.join(vote.flags))}" if vote.flags else ""
    why = vote.rationale or vote.outcome.reason
    told = f'<br><span class="soft">{text(why)}</span>' if why else ""
    return f"<li>{text(vote.verifier)}: {said}{answer}{flags}{told}</li>"


# ---------------------------------------------------------------- turns


def _turn(n: int, turn: Turn) -> str:
    cut = " · cut off at the token limit" if turn.truncated else ""
    rest, call = split(turn.text)
    said = f'<div class="said">{typeset(rest)}</div>' if rest else ""
    result = ""
    if turn.tool:
        tone = "good" if turn.tool.status == "ok" else "bad"
        result = (
            f'<div class="tool"><span class="soft">{text(turn.tool.tool)} → </span>'
            f'<span class="{tone}">{text(turn.tool.status)}</span><pre>{text(turn.tool.content)}</pre></div>'
        )
    if isinstance(call, Malformed):  # as it was written, whatever that is
        said, asked = "", f'<pre>{text(turn.text)}</pre><p class="bad">{text(call.message)}</p>'
    else:
        asked = _call(call) if call else ""
    return (
        f'<div class="turn {text(turn.stage)}"><span class="soft">{n} · {text(turn.stage)} · '
        f"{text(turn.action)}{cut}</span>{said}{asked}{result}</div>"
    )


def _call(call: ToolCall) -> str:
    """A call by what it asks for, instead of its JSON."""
    given = dict(call.arguments)
    match call.name:
        case "exec":
            return f'<pre class="code">{text(given.pop("code"))}</pre>{_fields(given)}'
        case "submit":
            question, answer = typeset(str(given.pop("question"))), typeset_answer(str(given.pop("answer")))
            return f'<div class="problem">{question}</div><p>Answer: <b>{answer}</b></p>{_fields(given)}'
        case _:
            return _fields(given)


def _fields(given: dict[str, object]) -> str:
    """What else a call says, a line each."""
    lines = [f"{text(name)}: {text(_plain(value))}" for name, value in given.items() if value not in (None, [], "")]
    return f"<p>{'<br>'.join(lines)}</p>" if lines else ""


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
