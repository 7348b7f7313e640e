"""Trajectories that somebody else wrote, as rollouts to clone: a JSONL of conversations.

Invariant: a line is one episode, tokenised turn by turn as an episode of ours is; the loss is on the assistant's turns
alone. A line that is no conversation is refused by its number; one that is longer than an episode may be is left out
and counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.chat import ChatFormat, Message, parse_turn
from actors.episode import Conversation
from actors.sample import Sample
from actors.tool_calls import ToolCall
from pipeline.records import ACTIONS, COGNITIVE_STAGES, Action, Failure, Rollout
from pipeline.store.digests import write_manifest
from pipeline.store.files import whole_folder
from pipeline.store.run_stages import RUN_STAGES
from pipeline.store.rundir import RunDir
from pipeline.store.tables import write_records

_ACTIONS: dict[str, Action] = {"exec": "exec", "edit": "edit", "submit": "submit"}


def read(path: Path, chat: ChatFormat, max_tokens: int) -> tuple[list[Rollout], int]:
    """The rollouts of a file, and how many lines are longer than `max_tokens`. Raises Failure naming the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise Failure(f"sft.data {path}: {e}; expected a readable JSONL file") from None
    rollouts, left_out = [], 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            messages = _messages(json.loads(line))
        except (ValueError, RecursionError) as e:
            raise Failure(f"{path}:{number}: {e}") from None
        rollout = rollout_of(f"given-{number:06d}", messages, chat)
        if len(rollout.token_ids) > max_tokens:
            left_out += 1
        else:
            rollouts.append(rollout)
    if not rollouts:
        raise Failure(f"sft.data {path}: no trajectory to learn from; {left_out} exceed {max_tokens} tokens")
    return rollouts, left_out


def write(run: RunDir, stage: str, name: str, rollouts: Sequence[Rollout]) -> Path:
    """A file of rollouts that a stage made of what was given to it, as the loader reads one. It takes the place of what
    an earlier process wrote for this stage."""
    gathered = RUN_STAGES[stage].gathers
    assert gathered is not None, f"{stage} hands nothing to a trainer beside its steps"
    final = run.path(gathered)
    with whole_folder(final, stays=lambda _: False) as folder:
        write_records(folder / f"{name}.parquet", rollouts, Rollout)
        write_manifest(folder, final.name, [f"{name}.parquet"])
    return final / f"{name}.parquet"


def _messages(line: Any) -> list[Message]:
    """Raises ValueError that says what would be accepted."""
    found = line.get("messages") if isinstance(line, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError('expected {"messages": [{"role": …, "content": …}, …]}')
    for i, message in enumerate(found):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError(f"messages.{i}: expected role and content, both text")
    roles = [m["role"] for m in found]
    turns = roles[1:] if roles[0] == "system" else roles
    if len(turns) < 2 or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError(f"roles {', '.join(roles)[:80]}; expected system or none, then user and assistant by turns")
    return [{"role": m["role"], "content": m["content"]} for m in found]


def rollout_of(name: str, messages: list[Message], chat: ChatFormat) -> Rollout:
    """A conversation that ends with the assistant's turn, to be cloned."""
    first = next(i for i, m in enumerate(messages) if m["role"] == "assistant")
    talk = Conversation(chat, messages[:first])
    stages: list[int] = []
    kinds: list[int] = []
    for i in range(first, len(messages), 2):
        text = messages[i]["content"]
        if i > first:
            talk.add_reply(messages[i - 1]["content"], sys.maxsize)
        ids = [*chat.encode_text(text), chat.eos_id]
        talk.add_turn(Sample(text, ids, [0.0] * len(ids), [0] * len(ids), truncated=False), len(stages))
        stage, _, call = parse_turn(text)
        stages.append(COGNITIVE_STAGES.index(stage or "draft"))
        kinds.append(ACTIONS.index(_ACTIONS.get(call.name, "think") if isinstance(call, ToolCall) else "think"))
    return Rollout(
        episode_id=name,
        attempt=1,
        group_id=name,
        token_ids=tuple(talk.token_ids),
        loss_mask=tuple(int(i >= 0) for i in talk.action_index),
        logprobs=tuple(talk.logprobs),
        versions=tuple(talk.versions),
        action_index=tuple(talk.action_index),
        action_stage=tuple(stages),
        action_kind=tuple(kinds),
        process_rewards=(0.0,) * len(stages),
        terminal_reward=1.0,
    )
