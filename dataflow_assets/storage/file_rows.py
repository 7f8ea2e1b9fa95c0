"""Which rows of a file stay when a unit is published, and whether the new ones may come in.

Here: columns meeting by name, rows inside and outside a window, the last row of each key. Not here: reading or writing files
(`files` and its formats).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataflow_assets.errors import ValueRefused, WriteFailed
from dataflow_assets.storage.casts import cast_exactly, plain, plain_type
from dataflow_assets.storage.widening import widened
from dataflow_assets.tables import WindowFilter

_MEMORY = "192MB"
Mask = NDArray[np.bool_]


def meet(old: pa.Schema, new: pa.Schema, *, where: str) -> pa.Schema:
    """The columns that a file has after new rows joined it: its own, where a column so far without values takes the new type.

    Raises ValueRefused naming missing and surplus columns.
    """
    missing = [name for name in old.names if name not in new.names]
    surplus = [name for name in new.names if name not in old.names]
    if missing or surplus:
        parts = [f"the data lacks {_names(missing)}" if missing else "", f"the file lacks {_names(surplus)}" if surplus else ""]
        raise ValueRefused(
            f"{where}: " + ", ".join(filter(None, parts)),
            hint="give the query the columns of the file, or write a new file (mode: replace)",
        )
    return pa.schema([new.field(item.name) if pa.types.is_null(item.type) else item for item in old])


def combined(schemas: Iterable[pa.Schema]) -> pa.Schema | None:
    """The columns of files that were written to one target: each column of any of them, in the type that holds the values of all."""
    fields: dict[str, pa.DataType] = {}
    found = False
    for schema in {id(schema): schema for schema in schemas}.values():  # of a thousand windows nearly all have the same one
        found = True
        for item in schema:
            old = fields.get(item.name)
            if old != item.type:
                fields[item.name] = item.type if old is None or pa.types.is_null(old) else widened(old, item.type) or old
    return pa.schema(list(fields.items())) if found else None


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Names and plain types; nullability and metadata of the stage are no matter of the file. Raises ValueRefused for a name used twice."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ValueRefused(f"the data has two columns named {_names(twice)}", hint="rename one of them in the query")
    return pa.schema([(item.name, plain_type(item.type)) for item in schema])


def _names(names: Sequence[str]) -> str:
    return ("column " if len(names) == 1 else "columns ") + ", ".join(map(repr, names))


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows with the columns of `schema`, by name; null where they have none. Raises ValueRefused where a value would change."""
    columns = [
        cast_exactly(batch.column(item.name), item.type, name=item.name)
        if item.name in batch.schema.names
        else pa.nulls(batch.num_rows, type=item.type)
        for item in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def inside(column: pa.Array, window: WindowFilter) -> pa.Array:
    """Whether each value lies in the window, null where there is none. Raises ValueRefused for a column that has no time."""
    kind = column.type
    start, end = (pa.scalar(bound).cast(kind) for bound in _comparable(window, kind))
    return pc.and_(pc.greater_equal(column, start), pc.less(column, end))


def _comparable(window: WindowFilter, kind: pa.DataType) -> tuple[Any, Any]:
    """The bounds; rounded up to whole seconds or milliseconds they part such a column's values as before."""
    bounds = window.bounds(kind)
    if pa.types.is_timestamp(kind) and kind.unit in {"s", "ms"}:
        step = 1_000_000 if kind.unit == "s" else 1_000
        return _rounded_up(bounds[0], step), _rounded_up(bounds[1], step)
    return bounds


def _rounded_up(moment: Any, step: int) -> Any:
    from datetime import timedelta

    return moment + timedelta(microseconds=-moment.microsecond % step)


def refuse_outside(batch: pa.RecordBatch, window: WindowFilter) -> None:
    """Raises ValueRefused when a row is outside the window: the next run of its own window would double it."""
    mask = inside(batch.column(window.column), window)
    if mask.null_count:
        raise ValueRefused(
            f"{mask.null_count} rows have no value in column {window.column!r}, so they lie in no window",
            hint="filter them out in the query, or give them a time",
        )
    if not pc.all(mask, min_count=0).as_py():
        stray = batch.column(window.column).filter(pc.invert(mask))[0]
        raise ValueRefused(
            f"column {window.column!r}: a row at {stray} lies outside the window {window.window}",
            hint="filter the source by the window, or name the column that the source is filtered by as event_time_column",
        )


def outside(batch: pa.RecordBatch, window: WindowFilter) -> pa.RecordBatch:
    """The rows that are not in the window; a row without a time is in none."""
    return batch.filter(pc.invert(pc.fill_null(inside(batch.column(window.column), window), False)))


class Keys:
    """The keys of new rows, held by DuckDB so that they may outgrow the memory."""

    def __init__(self, connection: Any, names: Sequence[str]) -> None:
        self._connection, self.names, self.rows = connection, tuple(names), 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Remember the keys of the next rows. Raises ValueRefused for a null."""
        for name in self.names:
            if batch.column(name).null_count:
                raise ValueRefused(f"key column {name!r} holds nulls, which no row can be found by", hint="filter them out in the query")
        self._load("new_keys", batch, self.rows)
        self.rows += batch.num_rows

    def last_rows(self) -> Mask:
        """For each new row whether it is the last one of its key."""
        kept = np.zeros(self.rows, dtype=np.bool_)
        if self.rows:
            query = f"SELECT max(n) AS n FROM new_keys GROUP BY {self._columns}"  # noqa: S608 - the names are k0, k1 ...
            kept[self._numbers(query)] = True
        return kept

    def known_rows(self, batches: Iterable[pa.RecordBatch]) -> Mask:
        """For each of these old rows whether its key is among the new ones; `batches` need hold no more than the keys."""
        total = 0
        for batch in batches:
            self._load("old_keys", batch, total)
            total += batch.num_rows
        found = np.zeros(total, dtype=np.bool_)
        if self.rows and total:
            query = f"SELECT n FROM old_keys SEMI JOIN new_keys USING ({self._columns})"  # noqa: S608 - the names are k0, k1 ...
            found[self._numbers(query)] = True
        return found

    @property
    def _columns(self) -> str:
        return ", ".join(f"k{number}" for number in range(len(self.names)))

    def _load(self, table: str, batch: pa.RecordBatch, first: int) -> None:
        columns = {f"k{number}": _comparable_key(batch.column(name)) for number, name in enumerate(self.names)}
        columns["n"] = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
        self._connection.register("incoming", pa.table(columns))
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS {table} AS FROM incoming LIMIT 0")
        self._connection.execute(f"INSERT INTO {table} FROM incoming")
        self._connection.unregister("incoming")

    def _numbers(self, query: str) -> Any:
        return self._connection.execute(query).fetchnumpy()["n"]


def _comparable_key(column: pa.Array) -> pa.Array:
    """A form in which DuckDB tells any two values apart: it has no zoned nanoseconds and no wide decimals."""
    column = plain(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp(kind.unit)).cast(pa.int64())
    if pa.types.is_time(kind):
        return column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    return column.cast(pa.string()) if pa.types.is_decimal(kind) else column


@contextmanager
def keys_of(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Iterator[Keys]:
    """The keys of all rows of `batches`. Raises WriteFailed for key columns that the data lacks."""
    import tempfile

    import duckdb

    with tempfile.TemporaryDirectory(prefix="dataflow-keys-") as spill:
        connection = duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "temp_directory": spill, "threads": 2})
        try:
            keys = Keys(connection, names)
            for batch in batches:
                if missing := [name for name in names if name not in batch.schema.names]:
                    raise WriteFailed(f"the data lacks the key {_names(missing)}", hint="name its columns in upsert_keys")
                keys.add(batch)
            yield keys
        finally:
            connection.close()
