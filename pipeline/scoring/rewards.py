"""Rewards of an episode: the terminal reward r_T and one process reward a turn, as pure functions.

Terminal (PAPER): r_T = V * (base + 1[rho > 0] * difficulty * (1 - rho)), with V the committee's verdict and rho the
prober's rate of right answers, or its Pass@k (`rho`: the paper's words allow both). Ours departs in three ways, each a
field of the config: solved means oftener than guessing explains (`significance`), and rho counts above what guessing
gives (chance.py); what no prober solves so is paid `unsolved` of the base; and a problem whose skeleton the run has
seen before is paid a share (`repeats`, identity.py).

Process (the paper gives credit for tool calls that run and for coherent reflection, and leaves sizes and judge open).
A *check* is an `exec` turn. It *passes* if it ran, is no repetition, its code computes something that depends on the
numbers of the problem (actors/dependence.py), and its last line of output ends in the answer that was submitted. Of an
answer that is a program, the code holds the program instead, statement for statement. Where nothing was submitted no
check passes. What a turn can earn:

| turn | reward |
|---|---|
| a call that could not be read | `malformed` |
| the same call as before, with the same skills active | `repeated` |
| a check that fails (error, timeout, limit) | `exec_error` |
| the check that stands: the first one that passes after the last failure | `exec_ok` |
| the repair between a failed check and the next one that passes: the last edit | `useful_edit` |
| the same, of a problem that is not what was offered | 0 |
| where there was no edit: the last refine turn | `reflection` |
| an edit that was refused, or that returns to a selection of skills held before | `needless_edit` |
| the last edit between the last check that passed and the next one, if that fails | `needless_edit` |
| anything else, infrastructure failures included | 0 |

With `reward.judge` a model's credit for coherent reflections is added (`actors/reflection.py`), bounded an episode.

Why nothing is gained by acting for the reward: `exec_ok` is paid once an episode, whatever the number of checks; a
repair is paid once a failure and earns no more than the failure costs (the config enforces it), so that failing on
purpose brings nothing; every repetition costs; an edit is paid only where a check went from failing to passing; and
code that has nothing to do with the answer passes for no check. MGPO's stage advantage is a z-score, in which a sum
over turns means nothing: there, what holds is that the turn which fails is worth less than a check that passed, so its
own tokens are made less likely wherever another member's check passed. What these rules cannot see: code that was
written to print the answer that the agent had in mind. The committee judges that answer.
"""

from __future__ import annotations

import ast
import json
import re

from actors.answers import compare
from actors.chat import parse_turn
from actors.tool_calls import ToolCall
from pipeline.config import RewardConfig
from pipeline.records import Episode, Failure, Probe, Problem, ToolResult, Turn, Verdict
from pipeline.scoring import chance
from pipeline.scoring.identity import Register
from pipeline.scoring.judged import Judged


def terminal(verdict: Verdict | None, probe: Probe | None, reward: RewardConfig) -> float:
    """r_T of an episode; `verdict` is None where the model submitted nothing.

    Raises Failure where no reward can be derived: an undecided verdict, or an accepted problem without a probe.
    """
    if verdict is None or verdict.decision == "rejected":
        return 0.0
    if verdict.decision == "undecided":
        raise Failure(f"problem {verdict.problem_id}: undecided ({verdict.reason}), no reward follows", "infra_error")
    if probe is None:
        raise Failure(f"problem {verdict.problem_id}: accepted, but no probe says how hard it is", "infra_error")
    if not probe.solved:
        return reward.base * reward.unsolved
    return reward.base + reward.difficulty * chance.difficulty(probe)


def paid(judged: Judged, copied: bool, seen: Register, reward: RewardConfig) -> float:
    """r_T as a step pays it, once `seen` holds the whole step. A copy is worth what a rejected problem is, and one of
    many with the same skeleton a share: nothing is gained by writing the same again (our choice). Raises Failure as
    `terminal` does."""
    if copied:
        return 0.0
    worth = terminal(judged.verdict, judged.probe, reward)
    if not judged.accepted or judged.problem is None:
        return worth
    return seen.share(seen.identify(judged.problem.question).skeleton, reward.repeats) * worth


def process(episode: Episode, reward: RewardConfig, verdict: Verdict | None = None) -> tuple[float, ...]:
    """r_proc, one number a turn. Raises Failure for an edit whose result does not say what it left active."""
    adherent = verdict is None or verdict.adherent is not False
    turns = episode.turns
    rewards = [0.0] * len(turns)
    selection = frozenset(skill.id for skill in episode.task.skills)
    selections = {selection}
    seen: set[tuple[frozenset[str], str]] = set()
    failed: int | None = None
    standing: int | None = None
    edited: int | None = None  # the last one since the check that stands
    for i, turn in enumerate(turns):
        if turn.tool is None or turn.tool.status == "infra":
            continue
        call = parse_turn(turn.text)[2]
        if turn.tool.status == "malformed" or not isinstance(call, ToolCall):
            rewards[i] = reward.malformed
            continue
        identity = (selection, _identity(call))
        repeated = identity in seen
        seen.add(identity)
        if turn.action == "exec":
            if turn.tool.status != "ok":
                rewards[i] = reward.exec_error
                if edited is not None:
                    rewards[edited] = reward.needless_edit
                failed, standing, edited = i, None, None
            elif not repeated and _checks(call, turn.tool, episode.submitted):
                if failed is not None:
                    _pay_repair(turns, rewards, failed, i, reward, adherent)
                    failed = None
                if standing is None:
                    standing = i
                edited = None  # what came before this check, it confirms
        elif turn.action == "edit":
            if turn.tool.status == "ok":
                if turn.tool.active is None:
                    raise Failure(
                        f"episode {episode.id}: turn {i} is an edit without `tool.active`, as earlier versions wrote "
                        "it; expected the ids of the skills it left active"
                    )
                selection = frozenset(turn.tool.active)
            if selection in selections:
                rewards[i] = reward.needless_edit
            selections.add(selection)
            edited = i if standing is not None else None
        if repeated:
            rewards[i] = min(rewards[i], reward.repeated)
    if standing is not None:
        rewards[standing] = reward.exec_ok
    return tuple(rewards)


def _pay_repair(
    turns: tuple[Turn, ...], rewards: list[float], failed: int, passed: int, reward: RewardConfig, adherent: bool
) -> None:
    """Credit the one turn between a failed and a passed check that can have made the difference; an edit only where
    the problem is still what was offered."""
    between = [i for i in range(passed - 1, failed, -1) if rewards[i] == 0]
    edits = [i for i in between if turns[i].action == "edit"]
    thoughts = [i for i in between if turns[i].action == "think" and turns[i].stage == "refine"]
    if edits:
        rewards[edits[0]] = reward.useful_edit if adherent else 0.0
    elif thoughts:
        rewards[thoughts[0]] = reward.reflection


def _parsed(code: str) -> ast.Module | None:
    """Parsed only, never run; None where it is no Python."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _identity(call: ToolCall) -> str:
    """What a call is, whatever the layout and the comments of its code."""
    code = _parsed(call.arguments["code"]) if call.name == "exec" else None
    return ast.dump(code) if code is not None else json.dumps([call.name, call.arguments], sort_keys=True)


def _checks(call: ToolCall, result: ToolResult, submitted: Problem | None) -> bool:
    """The code computes something of the problem's, and what it ran or printed is the answer that was submitted."""
    code = _parsed(call.arguments["code"])
    if submitted is None or code is None or not _computes(code) or result.depends is False:
        return False
    if submitted.answer_kind == "code":
        return _holds(code, submitted.answer)
    return _shows(result.content, submitted)


def _holds(code: ast.Module, program: str) -> bool:
    """Every statement of the program stands in the code, whatever the layout and the comments."""
    wanted = _parsed(program)
    if wanted is None or not wanted.body:
        return False
    return {ast.dump(statement) for statement in wanted.body} <= {ast.dump(statement) for statement in code.body}


def _shows(output: str, submitted: Problem) -> bool:
    """The output is about the problem: its last line ends in the answer, as it was submitted or in other notation."""
    line = output.rstrip().rpartition("\n")[2].strip()
    if not line:
        return False
    # The end of "-7", "1.7", "1/7" and "1,7" is no 7.
    if re.search(rf"(?<![\w.,/−-]){re.escape(submitted.answer)}$", line):
        return True
    words = (line, line.split()[-1])
    return any(compare(submitted.answer_kind, submitted.answer, word) == "equal" for word in words)


def _computes(code: ast.Module) -> bool:
    """The code does something to its numbers: it holds an operation, or a call other than print."""
    return any(
        isinstance(node, ast.BinOp | ast.Compare)
        or (isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id == "print"))
        for node in ast.walk(code)
    )
