"""What the keys of a rule may hold: limits, lists, patterns, tolerances. Each refusal says what to write instead.

Here: values alone, as ValueErrors of the fields that hold them. Not here: which keys go together (`checks._rules`), what a value means
for a column's type (`checks._literals`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

Count = Annotated[int, Field(ge=0)]
_SHARE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


@dataclass(frozen=True)
class Allowance:
    """How many rows may break a rule: a number of rows, or a share of the rows that the rule looks at."""

    rows: int | None = None
    share: Fraction | None = None

    @classmethod
    def of(cls, written: int | str) -> Allowance:
        """From `10` or `0.5%`. Raises ValueError for anything else."""
        if isinstance(written, int) and not isinstance(written, bool) and written >= 0:
            return cls(rows=written)
        if isinstance(written, str) and (match := _SHARE.match(written)) and (share := Fraction(match[1]) / 100) <= 1:
            return cls(share=share)
        raise ValueError(f"{written!r} is not a tolerance: write a number of rows such as 10, or a share of them such as 0.5%")

    def permits(self, failed: int, checked: int) -> bool:
        """Whether so many failed rows out of `checked` are still within it; exactly at the limit they are."""
        return failed <= (self.rows if self.rows is not None else (self.share or 0) * checked)

    def __str__(self) -> str:
        return f"{self.rows:,}" if self.rows is not None else f"{float((self.share or Fraction()) * 100):g} %"


def _tolerance(value: Any) -> Any:
    Allowance.of(value)
    return value


Tolerance = Annotated[int | str, BeforeValidator(_tolerance)]


def refuse_crossed(low: Any, high: Any, *, low_key: str, high_key: str, open_end: bool = False) -> None:
    """Raise ValueError when both limits are there and cannot both hold; with an `open_end` also when they are equal."""
    if low is None or high is None:
        return
    try:
        crossed = low >= high if open_end else low > high
    except TypeError as error:
        raise ValueError(
            f"{low_key} {low!r} and {high_key} {high!r} cannot be compared with each other: write both as the same type"
        ) from error
    if crossed:
        raise ValueError(f"{low_key} {low!r} is {'not below' if low == high else 'above'} {high_key} {high!r}: no value could pass")


def refuse_no_limit(value: Any) -> Any:
    """`value` when it can be a limit. Raises ValueError for lists, booleans, NaN and infinity."""
    if isinstance(value, bool | list | dict | set | tuple):
        raise ValueError(f"{value!r} is not a limit: write a number, a date, a time or text")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is not a limit: leave the key out for no limit")
    return value


def refuse_bad_values(value: list[Any] | None) -> list[Any] | None:
    """`value` when it can be a list of allowed or rejected values. Raises ValueError for an empty list, nested values and NaN."""
    if value is not None and not value:
        raise ValueError("the list is empty: no value could pass, or every one")
    for item in value or ():
        if isinstance(item, list | dict | set | tuple) or (isinstance(item, float) and math.isnan(item)):
            raise ValueError(f"{item!r} cannot be an allowed value: write numbers, text, dates or booleans")
    return value


def refuse_bad_regex(pattern: str | None) -> str | None:
    """`pattern` when RE2 can read it. Raises ValueError."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        if pattern is not None:
            pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{pattern!r} is not a regular expression of RE2 (which has no look-around and no back-references): {error}"
        ) from error
    return pattern
