"""The things that a template can name: dates that print as ISO text, windows, state, identifiers, and the functions.

Here: plain values without any template machinery. Not here: how names are found (`spec.templates`), what may be done with the
values (`spec.sandbox`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from dataflow_assets.errors import TemplateError
from dataflow_assets.windows import as_utc

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_ISO_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[-+]\d\d:?\d\d)?\Z")
MAX_IDENTIFIER = 255


class Day(date):
    """A date that can also be sliced like its ISO text, as templates written for text do: `today()[:7]` is the month."""

    def __getitem__(self, part: int | slice) -> str:
        return self.isoformat()[part]

    @classmethod
    def of(cls, day: date) -> Day:
        """The day of a date or datetime."""
        return cls(day.year, day.month, day.day)


@dataclass(frozen=True)
class Identifier:
    """A name to be pasted into SQL, quoted there; `parts` are schema and table, or one column."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True)
class WindowNames:
    """`window.start`, `window.end` (aware, on the pipeline's wall clock) and `window.key`."""

    start: datetime
    end: datetime
    key: str | None


class DateRange(NamedTuple):
    """Two days, both inclusive."""

    start: Day
    end: Day


@dataclass(frozen=True)
class StateNames:
    """`state.get(key, default)`; a day or moment comes back as one, and prints as the text it is kept as."""

    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """The value kept under `key` by the newest published batch."""
        return as_time_if_iso(self.values[key]) if key in self.values else default


@dataclass(frozen=True)
class IncrementalNames:
    """`incremental.get_date_range_to_process(...)`."""

    state: StateNames
    today: Day

    def get_date_range_to_process(self, start_date: Any = None, end_date: Any = None, default_lookback_days: int = 30) -> DateRange:
        """The day after the last one processed (or `default_lookback_days` ago) until yesterday; either end may be given."""
        last = self.state.get("last_processed_date")
        if start_date is not None:
            start = as_day(start_date)
        else:
            start = as_day(last) + timedelta(days=1) if last is not None else self.today - timedelta(days=default_lookback_days)
        return DateRange(Day.of(start), Day.of(as_day(end_date) if end_date is not None else self.today - timedelta(days=1)))


def as_time_if_iso(value: Any) -> Any:
    """ISO text of a day or moment as that; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        if _ISO_DATE.match(value):
            return Day.fromisoformat(value)
        return datetime.fromisoformat(value) if _ISO_MOMENT.match(value) else value
    except ValueError:
        return value


def as_day(value: Any, *, timezone: str = "UTC") -> Day:
    """A date, datetime (its day in `timezone` when aware) or ISO text as a day. Raises ValueError."""
    if isinstance(value, str):
        value = date.fromisoformat(value) if _ISO_DATE.match(value) else datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(ZoneInfo(timezone))
    if not isinstance(value, date):
        raise ValueError(f"{value!r} is not a date; write it as YYYY-MM-DD")
    return Day.of(value)


def as_moment(value: Any, *, timezone: str = "UTC") -> datetime:
    """A datetime, date or ISO text as an aware datetime on the wall clock of `timezone`. Raises ValueError."""
    if not isinstance(value, (str, date)):
        raise ValueError(f"{value!r} is not a time; write it as YYYY-MM-DDTHH:MM:SS")
    return as_utc(value, timezone).astimezone(ZoneInfo(timezone))


def as_identifier(value: Any) -> Identifier:
    """Text (`table`, `schema.table`) or a list of parts as an identifier. Raises TemplateError for what cannot be a name."""
    parts = value.parts if isinstance(value, Identifier) else tuple(value.split(".")) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not parts:
        raise TemplateError(f"{value!r} is not an SQL identifier", hint="an identifier is text such as orders or public.orders")
    for part in parts:
        if not isinstance(part, str) or not part.strip() or len(part) > MAX_IDENTIFIER or not part.isprintable():
            raise TemplateError(
                f"{str(value)[:80]!r} is not an SQL identifier",
                hint=f"each part must be 1 to {MAX_IDENTIFIER} printable characters; parts are parted by a dot",
            )
    return Identifier(tuple(parts))


def text_of(value: Any, *, label: str) -> str:
    """How a value reads inside text: ISO for times, true and false. Raises TemplateError for null and for collections in text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if value is None:
        raise TemplateError(f"{{{{ {label} }}}} is null and stands inside text", hint=f"give it a value, or write {{{{ {label} or '' }}}}")
    if isinstance(value, (list, tuple, set, dict)):
        raise TemplateError(f"{{{{ {label} }}}} is a collection and stands inside text", hint=f"join it: {{{{ {label} | join(', ') }}}}")
    return str(value)
