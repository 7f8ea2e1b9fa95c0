"""What a dataset holds, column by column, measured in one pass and in bounded memory.

Here: nulls, ends, lengths, few distinct values, repeats, simple shapes of text. Not here: which rules follow from that
(`checks._suggestion`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.batches import hash_column
from dataflow_assets.checks._facts import plain, plain_type
from dataflow_assets.checks._hash_runs import HashRuns

FEW = 20
"""Most distinct values that are kept."""
SHAPES = (
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    r"^[0-9]+$",
    r"^[A-Z]+$",
    r"^[A-Z0-9]+$",
    r"^[a-z]+$",
    r"^[a-z0-9_]+$",
)
"""From the narrowest to the widest; understood alike by RE2, Python and Rust."""
_RUN_HASHES = 1 << 17


@dataclass(frozen=True)
class ColumnProfile:
    """What one column was seen to hold. `low` and `high` are the ends of its values, of text those of its lengths."""

    name: str
    type: pa.DataType
    rows: int
    nulls: int
    nan: bool = False
    low: Any = None
    high: Any = None
    distinct: tuple[str, ...] = ()
    """Every value of a text column with at most `FEW`, sorted; empty otherwise."""
    unique: bool = False
    shape: str = ""


class Profiler:
    """Sees the batches of one dataset."""

    def __init__(self, schema: pa.Schema, scratch: Path) -> None:
        self.rows = 0
        self._columns = [_Column(item, scratch) for item in schema]

    def update(self, batch: pa.RecordBatch) -> None:
        """See the next batch."""
        self.rows += batch.num_rows
        for column, values in zip(self._columns, batch.columns, strict=True):
            column.update(plain(values))

    def finish(self) -> list[ColumnProfile]:
        """What was seen, in the order of the columns."""
        return [column.finish(self.rows) for column in self._columns]


class _Column:
    def __init__(self, item: pa.Field, scratch: Path) -> None:
        self.name, self.type = item.name, item.type
        kind = plain_type(item.type)
        self._text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        self._ordered = self._text or _has_ends(kind)
        self._floating = pa.types.is_floating(kind)
        self._hashes = HashRuns(scratch, run_hashes=_RUN_HASHES) if self._text or pa.types.is_integer(kind) else None
        self._distinct: dict[str, None] | None = {} if self._text else None
        self._shapes = list(SHAPES) if self._text else []
        self._nulls = 0
        self._nan = False
        self._low: Any = None
        self._high: Any = None

    def update(self, values: pa.Array) -> None:
        self._nulls += values.null_count
        if self._hashes is not None:
            self._watch_repeats(values)
        if self._text:
            self._watch_text(values)
        if self._ordered:
            self._watch_ends(pc.utf8_length(values) if self._text else values)

    def _watch_repeats(self, values: pa.Array) -> None:
        if values.null_count or pc.count_distinct(values).as_py() < len(values):
            self._hashes = None
        elif self._hashes is not None:
            self._hashes.add(hash_column(values))

    def _watch_text(self, values: pa.Array) -> None:
        if self._distinct is not None:
            few = pc.unique(values.drop_null())
            self._distinct = None if len(few) > FEW else self._distinct | dict.fromkeys(few.to_pylist())
            if self._distinct is not None and len(self._distinct) > FEW:
                self._distinct = None
        self._shapes = [shape for shape in self._shapes if pc.all(pc.match_substring_regex(values, shape), min_count=0).as_py()]

    def _watch_ends(self, values: pa.Array) -> None:
        if self._floating:
            nan = pc.is_nan(values)
            self._nan = self._nan or bool(pc.any(nan).as_py())
            values = values.filter(pc.invert(nan))
        ends = pc.min_max(values)
        low, high = ends["min"], ends["max"]
        if low.is_valid:
            self._low = low if self._low is None or pc.less(low, self._low).as_py() else self._low
            self._high = high if self._high is None or pc.greater(high, self._high).as_py() else self._high

    def finish(self, rows: int) -> ColumnProfile:
        unique = self._hashes is not None and rows > 0 and all(counts is None for _, counts in self._hashes.partitions())
        some = rows > self._nulls
        return ColumnProfile(
            name=self.name,
            type=self.type,
            rows=rows,
            nulls=self._nulls,
            nan=self._nan,
            low=_value(self._low),
            high=_value(self._high),
            distinct=tuple(sorted(self._distinct)) if some and self._distinct is not None else (),
            unique=unique,
            shape=self._shapes[0] if some and self._shapes else "",
        )


def _has_ends(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_timestamp(kind)
    )


def _value(scalar: pa.Scalar | None) -> Any:
    """The value in Python's terms; a moment to the second below, which is as far as a rule about it goes."""
    if scalar is None:
        return None
    if pa.types.is_timestamp(scalar.type):
        seconds = pc.floor_temporal(scalar.cast(pa.timestamp(scalar.type.unit)), unit="second").cast(pa.timestamp("s"))
        return seconds.as_py()
    return scalar.as_py()
