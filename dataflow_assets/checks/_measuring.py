"""The numbers of one stage, all worked out together.

Here: the short names of metrics as SQL, one query for every metric of a step (a second one where a dimension's values must be counted
first). Not here: the options (`checks._metric`), what is made of the numbers (`anomalies`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.errors import DataflowError, TransformFailed
from dataflow_assets.protocols import StagedInput, StepContext
from dataflow_assets.tables import Bind, Query

if TYPE_CHECKING:
    from dataflow_assets.storage.sandbox import Sandbox

ROW_COUNT = "row_count"
OTHERS = "(others)"
NULL = "(null)"
_NAMED = re.compile(r"^\s*(?P<name>null_share|distinct_count|freshness)\s*\(\s*(?P<column>.+?)\s*\)\s*$", re.IGNORECASE | re.DOTALL)
_ADDITIVE = re.compile(r"^\s*(count|sum)\s*\((?!\s*distinct)[^()]*\)\s*(filter\s*\([^()]*\))?\s*$", re.IGNORECASE)
_SECONDS = 3600.0
_LONGEST = 100


@dataclass(frozen=True)
class Wanted:
    """A metric to work out; with `dimension` also for each of its values: `kept` first, then the most frequent, up to `top`, the rest
    together."""

    metric: str
    dimension: str = ""
    top: int = 10
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """The metric of the rows with one value of a dimension."""

    value: float | None
    rows: int


@dataclass(frozen=True)
class Measurement:
    """What a metric came to: None when SQL says null or NaN, or with an `error`; `parts` by value of the dimension."""

    value: float | None = None
    error: str = ""
    parts: Mapping[str, Part] = field(default_factory=dict)


def is_additive(metric: str) -> bool:
    """Whether the metric of all rows is the sum of those of its parts."""
    return metric.strip() == ROW_COUNT or bool(_ADDITIVE.match(metric))


class Measuring:
    """The metrics of a step: `add` them before the stage is there, `of` works all of them out at the first call."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._wanted: dict[Wanted, None] = {}
        self._found: dict[Wanted, Measurement] | None = None

    def add(self, wanted: Wanted) -> Wanted:
        """Ask for a metric."""
        self._wanted[wanted] = None
        return wanted

    def of(self, wanted: Wanted, stage: StagedInput) -> Measurement:
        """What the metric came to over this stage."""
        if self._found is None:
            self._found = measure(list(self._wanted), stage, self._context)
        return self._found[wanted]


def measure(wanted: Sequence[Wanted], stage: StagedInput, context: StepContext) -> dict[Wanted, Measurement]:
    """Work the metrics out over a stage. What cannot be has an `error`; the others are not touched by it."""
    if all(item.metric == ROW_COUNT and not item.dimension for item in wanted):
        return {item: Measurement(float(stage.rows)) for item in wanted}
    from dataflow_assets.storage.sandbox import open_sandbox

    try:
        with open_sandbox({"input": stage}, scratch=context.scratch, step=context.step) as sandbox:
            return _measured(wanted, sandbox, context)
    except DataflowError as error:
        return {item: Measurement(error=error.message) for item in wanted}


def _measured(wanted: Sequence[Wanted], sandbox: Sandbox, context: StepContext) -> dict[Wanted, Measurement]:
    try:
        return _together(wanted, sandbox, context)
    except DataflowError as error:
        if len(wanted) == 1:
            return {wanted[0]: Measurement(error=error.message)}
        # one of them is wrong: on its own each shows whether it is the one
        return {item: found for one in wanted for item, found in _measured([one], sandbox, context).items()}


def _together(wanted: Sequence[Wanted], sandbox: Sandbox, context: StepContext) -> dict[Wanted, Measurement]:
    """One query with a grouping set for all rows and one for each dimension."""
    splits = list(dict.fromkeys((item.dimension, item.top, item.kept) for item in wanted if item.dimension))
    values = [_values(sandbox, *split) for split in splits]
    parts: list[str | Bind] = ["SELECT "]
    for number, item in enumerate(wanted):
        # a line of its own: the user's text may end in a comment
        parts += [f"(\n{_sql(item.metric, context)}\n) AS metric_{number}, "]
    parts += ["count(*) AS counted"]
    for number in range(len(splits)):
        parts += [f", grouping(part_{number}) AS apart_{number}, part_{number}"]
    parts += [" FROM (SELECT *"]
    for number, split in enumerate(splits):
        parts += [", ", *_part(split[0], values[number]), f" AS part_{number}"]
    sets = ", ".join(["()", *(f"(part_{number})" for number in range(len(splits)))])
    parts += [' FROM "input")', f" GROUP BY GROUPING SETS ({sets})" if splits else ""]
    table = sandbox.select(Query(tuple(parts))).read_all()
    _refuse_no_numbers(wanted, table)
    rows = table.to_pylist()
    whole = next((row for row in rows if all(row[f"apart_{number}"] for number in range(len(splits)))), None)
    found = {}
    for number, item in enumerate(wanted):
        inside: dict[str, Part] = {}
        if item.dimension:
            place = splits.index((item.dimension, item.top, item.kept))
            inside = _parts(rows, values[place], metric=f"metric_{number}", part=f"_{place}")
        found[item] = Measurement(_number(whole[f"metric_{number}"]) if whole else None, parts=inside)
    return found


def _values(sandbox: Sandbox, dimension: str, top: int, kept: tuple[str, ...]) -> list[str | None]:
    """The values of a dimension that are told apart; None stands for null."""
    column = _text_of(dimension)
    text = f'SELECT {column} AS value FROM "input" GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {top}'  # noqa: S608 - a quoted name, a number
    frequent: list[str | None] = sandbox.select(Query.of(text)).read_all().column(0).to_pylist()
    known: list[str | None] = [None if value == NULL else value for value in kept if value != OTHERS]
    return list(dict.fromkeys([*known, *frequent]))[:top]


def _part(dimension: str, values: Sequence[str | None]) -> list[str | Bind]:
    """The number of the row's value among those told apart, -1 for the others."""
    column = _text_of(dimension)
    parts: list[str | Bind] = ["CASE"]
    for number, value in enumerate(values):
        parts += [f" WHEN {column} IS NULL THEN {number}"] if value is None else [f" WHEN {column} = ", Bind(value), f" THEN {number}"]
    return [*parts, " ELSE -1 END"] if values else ["-1"]


def _parts(rows: Sequence[Mapping[str, Any]], values: Sequence[str | None], *, metric: str, part: str) -> dict[str, Part]:
    names = {number: NULL if value is None else value for number, value in enumerate(values)} | {-1: OTHERS}
    return {names[row[f"part{part}"]]: Part(_number(row[metric]), row["counted"]) for row in rows if not row[f"apart{part}"]}


def _sql(metric: str, context: StepContext) -> str:
    if metric.strip() == ROW_COUNT:
        return "count(*)"
    match = _NAMED.match(metric)
    if match is None:
        return metric
    column = match["column"] if match["column"].startswith('"') else _identifier(match["column"])
    end = context.window.end if context.window is not None else context.now or datetime.now(UTC)
    return {
        "null_share": f"avg(CASE WHEN {column} IS NULL THEN 1.0 ELSE 0.0 END)",
        "distinct_count": f"count(DISTINCT {column})",
        "freshness": f"({end.timestamp()!r} - epoch(max({column}))) / {_SECONDS}",
    }[match["name"].lower()]


def _refuse_no_numbers(wanted: Sequence[Wanted], table: pa.Table) -> None:
    for number, item in enumerate(wanted):
        kind = table.schema.field(number).type
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if not (numeric or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
            hint = "write an aggregate such as avg(price); for the age of a time, freshness(column)"
            raise TransformFailed(f"{item.metric!r} gives a value of type {kind}, not one number", hint=hint)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _text_of(dimension: str) -> str:
    """A dimension's value as text; the first characters of a long one, since the ledger keeps it."""
    return f"left(CAST({_identifier(dimension)} AS VARCHAR), {_LONGEST})"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
