"""What bodies of requests are made of."""

from __future__ import annotations

from typing import Annotated, Any

from django.conf import settings
from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=4_000_000)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]


def example(**fields: Any) -> ConfigDict:
    """For the description: a body that works, with the installation's default model."""

    def add(schema: dict[str, Any]) -> None:
        schema["example"] = {"model": settings.LLMASOS.default_model, **fields}

    return ConfigDict(json_schema_extra=add)


class Strict(BaseModel):
    """Takes no field that it doesn't know, and no number in quotation marks."""

    model_config = ConfigDict(extra="forbid", strict=True)
