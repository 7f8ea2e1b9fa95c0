"""Rows set aside: what is kept of each.

Here: the columns of a quarantine, one row for each row that broke a rule, however many rules it broke; the row itself as text that is read
back exactly. Not here: which rows those are (`checks`), where they stand (`plan.quarantine`), when they are published and taken out again
(`execution`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.protocols import BrokenRows
from dataflow_assets.storage.row_text import (
    TEXT,
    rows_as_text,
    schema_as_text,
    values_as_text,
)

WINDOW_COLUMN = "window_start"
_INSTANT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        pa.field("pipeline", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("window_start", _INSTANT, nullable=False),
        pa.field("window_end", _INSTANT),
        pa.field("window_key", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("rules", pa.string(), nullable=False),
        pa.field("column_name", pa.string()),
        pa.field("value", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("row_json", pa.string(), nullable=False),
        pa.field("row_schema", pa.string(), nullable=False),
        pa.field("quarantined_at", _INSTANT, nullable=False),
        pa.field("released_as", pa.string()),
    ]
)
"""`step` is where the row was caught; `window_start` the start of the window, or, without windows, the moment when rows of the batch were
first set aside; `column_name` and `value` those of the first rule broken; `released_as` the unit that publishes the row, mostly null."""


@dataclass(frozen=True)
class Origin:
    """Where rows come from: what is the same for all rows of one step in one window."""

    pipeline: str
    step: str
    window_key: str
    window_start: datetime
    window_end: datetime | None
    run: str
    attempt: str
    at: datetime


def broken_rows(picked: Sequence[BrokenRows]) -> pa.BooleanArray | None:
    """Which rows of a batch break any rule; None when none does."""
    mask = None
    for one in picked:
        mask = one.rows if mask is None else pc.or_(mask, one.rows)
    return mask if mask is not None and mask.true_count else None


def chosen_rows(batch: pa.RecordBatch, mask: pa.BooleanArray) -> pa.RecordBatch:
    """The rows where `mask` is true; Arrow cannot filter views as they are."""
    views = {pa.string_view(): TEXT, pa.binary_view(): pa.large_binary()}
    plain = pa.schema([item.with_type(views.get(item.type, item.type)) for item in batch.schema])
    found = batch.filter(mask) if plain.equals(batch.schema) else batch.cast(plain).filter(mask).cast(batch.schema)
    return found.replace_schema_metadata(batch.schema.metadata)


def kept_aside(batch: pa.RecordBatch, picked: Sequence[BrokenRows], reasons: Mapping[str, str], origin: Origin) -> pa.RecordBatch:
    """The rows of `batch` that break a rule, as rows of a quarantine. `reasons`: a rule's name -> what it asks for."""
    mask = broken_rows(picked)
    assert mask is not None
    rows = chosen_rows(batch, mask)
    broken = [BrokenRows(one.rule, one.column, one.rows.filter(mask)) for one in picked]
    columns, values = _first_broken(rows, broken)
    constants = {
        "pipeline": origin.pipeline,
        "step": origin.step,
        "window_start": origin.window_start,
        "window_end": origin.window_end,
        "window_key": origin.window_key,
        "run": origin.run,
        "attempt": origin.attempt,
        "row_schema": schema_as_text(batch.schema),
        "quarantined_at": origin.at,
        "released_as": None,
    }
    found = {name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), rows.num_rows) for name, value in constants.items()}
    found |= {
        "rules": _listed(broken, {one.rule: one.rule for one in broken}, ", "),
        "column_name": columns,
        "value": values,
        "reason": _listed(broken, reasons, "; "),
        "row_json": rows_as_text(rows),
    }
    return pa.RecordBatch.from_arrays([found[item.name].cast(item.type) for item in SCHEMA], schema=SCHEMA)


def _listed(broken: Sequence[BrokenRows], texts: Mapping[str, str], between: str) -> pa.Array:
    """For each row the texts of the rules that it breaks, joined."""
    nothing = pa.scalar(None, TEXT)
    named = [pc.if_else(one.rows, pa.scalar(texts.get(one.rule) or one.rule, TEXT), nothing) for one in broken]
    return pc.binary_join_element_wise(*named, pa.scalar(between, TEXT), null_handling="skip")


def _first_broken(rows: pa.RecordBatch, broken: Sequence[BrokenRows]) -> tuple[pa.Array, pa.Array]:
    """The column of the first rule that each row breaks, and the value there; null for a rule of several columns."""
    columns = values = pa.nulls(rows.num_rows, TEXT)
    for one in reversed(broken):
        column = pa.scalar(one.column or None, TEXT)
        value = values_as_text(rows.column(one.column)) if one.column in rows.schema.names else pa.scalar(None, TEXT)
        columns, values = pc.if_else(one.rows, column, columns), pc.if_else(one.rows, value, values)
    return columns, values
