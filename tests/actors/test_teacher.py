"""A teacher behind an endpoint: its turns differ in their seeds, and are held to a form where that is asked for."""

from __future__ import annotations

import asyncio

from actors.guidance import TURN
from actors.teacher import OpenAITeacher
from pipeline.config import OpenAITeacherConfig
from tests.actors.endpoint import endpoint, says

TASK = [{"role": "system", "content": "You write."}, {"role": "user", "content": "Category: maths"}]
NEXT = [*TASK, {"role": "assistant", "content": "## Draft"}, {"role": "user", "content": "go on"}]


def asked(*calls: tuple[str, list[dict[str, str]], int], guided: bool = False) -> list[dict]:
    """The bodies of the requests that these calls of a teacher send."""

    async def run() -> list[dict]:
        async with endpoint(says("## Draft\nx")) as requests:
            teacher = OpenAITeacher(OpenAITeacherConfig(base_url=requests.url, model="m", guided=guided))
            for method, messages, seed in calls:
                await getattr(teacher, method)(messages, seed=seed)
            return list(requests)

    return asyncio.run(run())


def test_each_turn_has_a_seed_of_its_own_which_the_task_and_the_turn_determine() -> None:
    seeds = [r["seed"] for r in asked(("turn", TASK, 7), ("turn", NEXT, 7), ("turn", TASK, 8), ("turn", TASK, 7))]
    assert len(set(seeds)) == 3 and seeds[0] == seeds[3] and all(0 <= seed < 2**31 for seed in seeds)


def test_only_turns_are_held_to_their_form_and_only_where_asked() -> None:
    free, held = (asked(("turn", TASK, 7), ("complete", TASK, 7), guided=guided) for guided in (False, True))
    assert [r.get("structured_outputs") for r in free] == [None, None]
    assert [r.get("structured_outputs") for r in held] == [{"regex": TURN}, None]
