"""Free text and real models: documents, checkpoints and endpoints of the user's. README.md says what it tells them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actors import prompts
from pipeline.config import TextDomainConfig
from pipeline.domains.base import Domain, Planted, Prompts, Sound
from pipeline.domains.text import defects
from pipeline.records import Failure
from pipeline.skills import rubric
from pipeline.watch.fanout import map_bounded

if TYPE_CHECKING:
    from actors.teacher import Teacher  # brings Ray

_AT_ONCE = 16
BUNDLED = Path(__file__).parent / "prompts"


class TextDomain(Domain):
    def __init__(self, settings: TextDomainConfig):
        """Raises Failure where the user's prompts are not what the bundled ones can be replaced by."""
        super().__init__(settings)
        self.categories = settings.categories
        self._heldout = settings.heldout
        files = prompts.read(BUNDLED, Path(settings.prompts) if settings.prompts else None)
        if unasked := [item for item in rubric.ITEMS if item not in files["score_skill"]]:
            raise Failure(
                f"prompts {settings.prompts}/score_skill.md: does not ask for {unasked[0]}; expected all of "
                + ", ".join(rubric.ITEMS)
            )
        self.prompts = Prompts(
            questions=files["extract_questions"],
            prose=files["extract_prose"],
            proposer=files["proposer"],
            solver=files["solver_math"],
            roles=files,
            rubric=files["score_skill"],
            rewriting={role: text for role, text in files.items() if role.startswith(("metamath_", "wizardmath_"))},
        )

    def is_heldout(self, skills: Collection[str]) -> bool:
        """By a hash of their names: the same ones in every run, whatever library they are part of."""
        digest = hashlib.sha256("\n".join(sorted(skills)).encode()).digest()
        return len(skills) > 1 and int.from_bytes(digest[:8]) < self._heldout * 2**64

    def plant(self, sound: Sequence[Sound], seed: int) -> list[Planted]:
        return defects.plant(sound, seed)

    async def plant_by_model(
        self, sound: Sequence[Sound], teacher: Teacher, seed: int
    ) -> tuple[list[Planted], dict[str, int]]:
        """Which defect is asked for takes turns."""
        kinds = list(defects.BY_MODEL)

        async def one(index: int) -> Planted | str:
            problem, active = sound[index]
            defect = kinds[index % len(kinds)]
            try:
                reply = await teacher.complete(defects.ask(self.prompts.roles["spoil"], problem, defect), seed + index)
            except Failure as e:
                return e.kind
            spoiled = defects.read(reply, problem)
            return "no spoiled problem in the reply" if spoiled is None else Planted(f"{defect}/model", spoiled, active)

        found = await map_bounded(one, range(len(sound)), _AT_ONCE)
        return [f for f in found if isinstance(f, Planted)], dict(Counter(f for f in found if isinstance(f, str)))
