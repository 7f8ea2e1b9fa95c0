"""Dates and times as text in SQLite: the one form that is written, and windows over whatever form is there.

Here: text and predicates. Not here: types by name (`_sqlite_types`), who runs the predicates.

SQLite has no type for a moment. Written is `2024-03-10 05:00:00.000000`, instants in UTC with `+00:00` behind: such text sorts as the
moments do. Other programs write `2024-03-10T05:00`, `...Z` or `...+02:00` into such columns, which do not sort among it; so a source is
cut out roughly by the index and exactly afterwards, and a target with such text near its window is refused.
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import WriteFailed
from dataflow_assets.storage import sql
from dataflow_assets.storage.sql import Dialect, Statement
from dataflow_assets.tables import TableName

_DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_TIME_GLOB = "[0-9][0-9]:[0-9][0-9]:[0-9][0-9]"
_FARTHEST_OFFSET = timedelta(days=1)
Bounds = tuple[datetime | date, datetime | date]
Fetch = Callable[[Statement], list[tuple[Any, ...]]]


def as_text(column: pa.Array) -> pa.Array:
    """Dates, times and timestamps as the text that SQLite keeps."""
    kind = column.type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        return column.cast(pa.string())
    utc = column.cast(pa.int64()).cast(pa.timestamp(kind.unit)).cast(pa.string())
    return pc.binary_join_element_wise(utc, "+00:00", "")


def bound_text(bound: datetime | date) -> str:
    """A bound in its shortest form: what begins alike and is longer is not before it."""
    if not isinstance(bound, datetime):
        return bound.isoformat()
    text = bound.replace(tzinfo=None).isoformat(" ", timespec="microseconds")
    return text.rstrip("0").removesuffix(".") if bound.microsecond else text[:19]


def exact_window(dialect: Dialect, column: str, bounds: Bounds, *, first: int = 1) -> Statement:
    """The rows of a window whose text has the form that is written."""
    texts = (bound_text(bounds[0]), bound_text(bounds[1]))
    return Statement(sql.window_predicate(dialect, column, bounds, first=first).text, texts)


def rough_window(dialect: Dialect, column: str, bounds: Bounds, *, first: int = 1) -> Statement:
    """The rows of a window, and those nearby whose text has another form; an index on the column serves it."""
    if not isinstance(bounds[0], datetime):
        return exact_window(dialect, column, bounds, first=first)
    near = _near(dialect, column, bounds, first=first)
    exact = exact_window(dialect, column, bounds, first=first + 2)
    other = _other_form(dialect, column, instant=bounds[0].tzinfo is not None)
    return Statement(f"{near.text} AND (({exact.text}) OR {other})", near.values + exact.values)


def target_window(fetch: Fetch, dialect: Dialect, table: TableName, column: str, bounds: Bounds) -> Statement:
    """The predicate of a window's rows in a target. Raises WriteFailed when text near it has another form, and so no place."""
    instant, dates = isinstance(bounds[0], datetime) and bounds[0].tzinfo is not None, not isinstance(bounds[0], datetime)
    near, name = _near(dialect, column, bounds), dialect.quote(column)
    form = _other_form(dialect, column, instant=instant, dates=dates)
    counted = f"SELECT min({name}), count(*) FROM {dialect.table(table)} WHERE {near.text} AND {form}"
    ((value, count),) = fetch(Statement(counted, near.values))
    if count:
        wanted = "YYYY-MM-DD" if dates else "YYYY-MM-DD HH:MM:SS, an instant in UTC with +00:00"
        raise WriteFailed(
            f"table {table}: column {column!r} holds {value!r} near the window ({count} such values), "
            f"which is not of the form {wanted}, so that nothing tells whether it lies inside",
            hint=f"rewrite such values in {dialect.table(table)}",
        )
    return exact_window(dialect, column, bounds)


def within(column: pa.Array, bounds: Bounds) -> pa.Array:
    """Whether each moment lies in the window; null lies in none."""
    start, end = (pa.scalar(bound, column.type) for bound in bounds)
    return pc.fill_null(pc.and_(pc.greater_equal(column, start), pc.less(column, end)), False)


def strange(dialect: Dialect, column: str) -> str:
    """The predicate of values that do not even begin as a date: they sort anywhere, so no window would find or miss them rightly."""
    return f"{dialect.quote(column)} NOT GLOB '{_DATE_GLOB}*'"


def _near(dialect: Dialect, column: str, bounds: Bounds, *, first: int = 1) -> Statement:
    """From the day before to the day after, whatever the offset; all forms of text begin with the day."""
    days = [bound.date() if isinstance(bound, datetime) else bound for bound in bounds]
    low = days[0] - _FARTHEST_OFFSET if days[0] > date.min else days[0]
    high = days[1] + 2 * _FARTHEST_OFFSET if days[1] < date.max - 2 * _FARTHEST_OFFSET else date.max
    return Statement(sql.window_predicate(dialect, column, (low, high), first=first).text, (low.isoformat(), high.isoformat()))


def _other_form(dialect: Dialect, column: str, *, instant: bool, dates: bool = False) -> str:
    quoted = dialect.quote(column)
    if dates:
        return f"{quoted} NOT GLOB '{_DATE_GLOB}'"
    zoned = f" AND ({quoted} GLOB '*+00:00' OR {quoted} GLOB '*Z')" if instant else ""
    return f"NOT ({quoted} GLOB '{_DATE_GLOB} {_TIME_GLOB}*'{zoned})"
