"""What every model of the spec is built from: the strict base class, and the field types that several of them use.

Here: `Model`, names, lists, shares, durations, SQL text that binds its values. Not here: any section that a user writes (`spec.models`
and the files beside it).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from dataflow_assets.windows import parse_duration

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*\Z")


class SqlMarker:
    """Marks a `str` field whose `{{ }}` values are bound as parameters, never pasted."""


SqlText = Annotated[str, SqlMarker()]


@cache
def sql_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names (and aliases) of a model's `SqlText` fields, also optional ones."""
    found: set[str] = set()
    for name, item in model.model_fields.items():
        if any(isinstance(mark, SqlMarker) for mark in item.metadata) or "SqlMarker" in repr(item.annotation):
            aliases = item.validation_alias
            found |= {name, *(map(str, aliases.choices) if isinstance(aliases, AliasChoices) else filter(None, [item.alias]))}
    return frozenset(found)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=list[str] | str)]


class Model(BaseModel):
    """Frozen and strict: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)


def _as_share(value: Any) -> Any:
    """`10%` as 0.1; a number as it is."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip().removesuffix("%")) / 100
        except ValueError:
            raise ValueError(f"{value!r} is not a share: write a percentage such as 10%, or a number between 0 and 1") from None
    return value


Share = Annotated[float, BeforeValidator(_as_share, json_schema_input_type=float | str), Field(ge=0, le=1)]


def duration(section: str = "") -> AfterValidator:
    """What makes a text field a length of time as written, such as `90s` or `2h`. `section`: what its errors name before the key."""

    def check(value: str, info: ValidationInfo) -> str:
        try:
            parse_duration(value)
        except ValueError as error:
            raise ValueError(f"{section}.{info.field_name}: {error}" if section else str(error)) from None
        return value

    return AfterValidator(check)


Duration = Annotated[str, duration()]
"""A length of time as written, such as `90s` or `2h`."""
