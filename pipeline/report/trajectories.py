"""Sample problems with their whole trajectories. All of it is the model's text: nothing goes out unescaped."""

from __future__ import annotations

from pipeline.records import Turn, Vote
from pipeline.report.charts import number, text
from pipeline.report.facts import Sample


def render(sample: Sample, opened: bool) -> str:
    e = sample.episode
    shown = e.submitted.question if e.submitted else "nothing was submitted"
    parts = [f"<details{' open' if opened else ''}><summary><b>{text(_capital(sample.why))}</b>"]
    parts.append(f'<div class="problem">{text(shown)}</div></summary>')
    if e.submitted:
        parts.append(f"<p>Answer: <b>{text(e.submitted.answer)}</b></p>")
    parts.append(f"<p>{_skills(sample)}</p><p>{_judged(sample)}</p>")
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
        return '<span class="bad">The committee saw nothing.</span>'
    tone = "good" if v.accepted else "bad"
    facts = [f'Committee: <b class="{tone}">{text(v.decision)}</b> ({", ".join(_vote(vote) for vote in v.votes)})']
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
    return " · ".join(facts)


def _vote(vote: Vote) -> str:
    said = "abstains" if vote.valid is None else "valid" if vote.valid else "not valid"
    answer = f", answers {text(vote.answer)}" if vote.answer is not None else ""
    return f'<span title="{text(vote.rationale or vote.outcome.reason)}">{text(vote.verifier)}: {said}{answer}</span>'


def _turn(n: int, turn: Turn) -> str:
    cut = " · cut off at the token limit" if turn.truncated else ""
    tool = ""
    if turn.tool:
        tone = "good" if turn.tool.status == "ok" else "bad"
        tool = (
            f'<div class="tool"><span class="soft">{text(turn.tool.tool)} → </span>'
            f'<span class="{tone}">{text(turn.tool.status)}</span><pre>{text(turn.tool.content)}</pre></div>'
        )
    return (
        f'<div class="turn {text(turn.stage)}"><span class="soft">{n} · {text(turn.stage)} · '
        f"{text(turn.action)}{cut}</span><pre>{text(turn.text)}</pre>{tool}</div>"
    )
