"""Bounds that fields of several sections share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Majority = Annotated[float, Field(gt=0.5, le=1)]
Seconds = Annotated[float, Field(gt=0)]
