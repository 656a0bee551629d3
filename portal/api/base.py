"""What bodies of requests are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=4_000_000)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]


class Strict(BaseModel):
    """Takes no field that it doesn't know, and no number in quotation marks."""

    model_config = ConfigDict(extra="forbid", strict=True)
