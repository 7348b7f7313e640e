"""Free text and real models: documents, checkpoints and endpoints of the user's. README.md says what it tells them."""

from __future__ import annotations

from pathlib import Path

from actors import prompts
from pipeline.config import TextDomainConfig
from pipeline.domains.base import Domain, Prompts

BUNDLED = Path(__file__).parent / "prompts"


class TextDomain(Domain):
    def __init__(self, settings: TextDomainConfig):
        """Raises Failure where the user's prompts are not what the bundled ones can be replaced by."""
        super().__init__(settings)
        self.categories = settings.categories
        files = prompts.read(BUNDLED, Path(settings.prompts) if settings.prompts else None)
        self.prompts = Prompts(
            questions=files["extract_questions"],
            prose=files["extract_prose"],
            proposer=files["proposer"],
            solver=files["solver_math"],
            roles=files,
        )
