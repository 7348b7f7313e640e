"""Free text and real models: documents, checkpoints and endpoints of the user's."""

from __future__ import annotations

from actors.chat import DEFAULT_SOLVER_PROMPT, DEFAULT_SYSTEM_PROMPT
from pipeline.domains.base import Domain, Prompts
from pipeline.skills.extraction import QA_PROMPT, TEXT_PROMPT


class TextDomain(Domain):
    categories = ("maths", "code", "science")
    prompts = Prompts(QA_PROMPT, TEXT_PROMPT, DEFAULT_SYSTEM_PROMPT, DEFAULT_SOLVER_PROMPT)
