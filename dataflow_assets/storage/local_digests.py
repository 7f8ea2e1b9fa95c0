"""Tallies of rows that no database can sum up: Arrow batches through DuckDB, in bounded memory.

Here: Arrow values in canonical form, a stream summed up as it passes, and the scratch file that is searched for differences. Not here:
the form itself (`canonical`), the queries (`storage.digests`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.canonical import NAN_BITS, NUMBERS, UNREADABLE, CanonicalColumn, Family, Tally, family_of
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage.casts import cast_exactly, plain
from dataflow_assets.storage.digests import (
    DigestDialect,
    between_query,
    canonical_rows,
    cell,
    read_intervals,
    read_tallies,
    rows_query,
    tally_query,
    trimmed_decimal,
)

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "128MB"
OpenRows = Callable[[], AbstractContextManager[pa.RecordBatchReader]]
_STREAM, _KEPT = "dataflow_stream", "dataflow_kept"
_WIDEST = 38
_LAST_MICROSECOND = (2**63 - 1) // 1000


def decimal_text(text: str, kind: pa.DataType) -> str:
    """DuckDB prints a decimal without a digit before the point as .5."""
    trimmed = trimmed_decimal(text, kind)
    whole_fraction = pa.types.is_decimal(kind) and kind.precision == kind.scale
    return f"regexp_replace({trimmed}, '^(-?)(\\.|$)', '\\10\\2')" if whole_fraction else trimmed


def _number(text: str, kind: pa.DataType) -> str:
    return decimal_text(f"CAST({text} AS VARCHAR)", kind)


def _as_it_is(text: str, _: pa.DataType) -> str:
    return text


def _instant(value: str, kind: pa.DataType) -> str:
    """Of nanoseconds DuckDB's own casts would round up."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        nanoseconds = f"epoch_ns({value})"
        number = f"({nanoseconds} - (({nanoseconds} % 1000 + 1000) % 1000)) // 1000"
        edge = f"CASE WHEN {value} > TIMESTAMP '2000-01-01' THEN {_LAST_MICROSECOND} ELSE {-_LAST_MICROSECOND - 1} END"  # of Arrow as well
        return f"CASE WHEN {value} IS NOT NULL THEN CAST(COALESCE({number}, {edge}) AS VARCHAR) END"
    return _finite(f"epoch_us({value})", value)


def _finite(number: str, value: str) -> str:
    """Infinity is no number, and no null either."""
    return f"CASE WHEN isfinite({value}) THEN CAST({number} AS VARCHAR) ELSE CAST({value} AS VARCHAR) END"


DUCKDB_DIGESTS = DigestDialect(
    texts={
        Family.INTEGER: _number,
        Family.DECIMAL: _number,
        Family.BOOLEAN: lambda text, _: f"CAST(CAST({text} AS TINYINT) AS VARCHAR)",
        Family.FLOAT: lambda text, _: (
            f"CAST(CASE WHEN isnan({text}) THEN {NAN_BITS} ELSE CAST(CAST(CAST({text} AS DOUBLE) + 0.0::DOUBLE AS BIT) AS BIGINT) END"
            " AS VARCHAR)"
        ),
        Family.INSTANT: _instant,
        Family.DATE: lambda text, _: _finite(f"({text} - DATE '1970-01-01')", text),
        Family.TIME: lambda text, _: f"CAST(epoch_us({text}) AS VARCHAR)",
        Family.TEXT: _as_it_is,
        Family.BYTES: lambda text, _: f"lower(hex({text}))",
        Family.NESTED: lambda text, _: f"CAST(to_json({text}) AS VARCHAR)",
        Family.NULL: lambda text, _: f"CAST({text} AS VARCHAR)",
    },
    octets=lambda text: f"CAST(strlen({text}) AS VARCHAR)",
    md5=lambda text: f"md5({text})",
    total=lambda digits: f"sum(CAST('0x' || {digits} AS UBIGINT))",
)


def settled(column: pa.Array, wanted: CanonicalColumn) -> pa.Array:
    """The column as DuckDB takes it exactly, cast to the family in which it is compared.

    A value that cannot be read as that keeps its text, marked, so that it differs from every value of the other side.
    """
    column = plain(column)
    own = family_of(column.type)
    if own is Family.NULL:
        return pa.nulls(len(column), pa.string())
    if not wanted.fits(own):
        if own is Family.TEXT and wanted.family is not Family.BYTES:
            return _read_text(column, wanted)
        column, own = _moved(column, wanted), wanted.family
    return _plain_form(column, own if own in NUMBERS else wanted.family)


def _moved(column: pa.Array, wanted: CanonicalColumn) -> pa.Array:
    """A number as a float, a day as its midnight, text as its bytes."""
    if wanted.family is Family.FLOAT:
        return column.cast(pa.float64(), safe=False)
    return column.cast(pa.timestamp("us") if wanted.family is Family.INSTANT else pa.large_binary())


def _read_text(column: pa.Array, wanted: CanonicalColumn) -> pa.Array:
    """Text as the canonical text of what it says, found by halving where some of it says nothing."""
    try:
        return _canonical_text(cast_exactly(column, wanted.kind, name=wanted.name), wanted)
    except (ValueRefused, pa.ArrowException):
        if len(column) == 1:
            return pc.binary_join_element_wise(UNREADABLE, column.cast(pa.string()), "")
        middle = len(column) // 2
        halves = [_read_text(half, wanted) for half in (column.slice(0, middle), column.slice(middle))]
        return pa.concat_arrays(halves)


def _canonical_text(column: pa.Array, wanted: CanonicalColumn) -> pa.Array:
    """Values as canonical text, one short query for a batch."""
    import duckdb

    ready = _plain_form(column, wanted.family)
    if ready.type == pa.string():
        return ready
    with duckdb.connect(":memory:", config={"threads": "1"}) as connection:
        connection.register("batch", pa.table({"value": ready}))
        text = DUCKDB_DIGESTS.texts[family_of(ready.type) or Family.NULL]("value", ready.type)
        found = connection.sql(f"SELECT {text} AS value FROM batch").to_arrow_table()  # noqa: S608 - canonical text of a constant name
        return found.column(0).combine_chunks().cast(pa.string())


def _plain_form(column: pa.Array, family: Family) -> pa.Array:
    """Counts of days and microseconds and bits of floats as integers; text, bytes and decimals of widths that DuckDB has."""
    if family is Family.FLOAT:
        return _bits(column)
    if family is Family.INSTANT:
        return pc.floor_temporal(column.cast(pa.timestamp(column.type.unit)), unit="microsecond").cast(pa.timestamp("us")).cast(pa.int64())
    if family is Family.DATE:
        return column.cast(pa.date32()).cast(pa.int32())
    if family is Family.TIME:
        return column.cast(pa.time64("us"), safe=False).cast(pa.int64())
    if family is Family.DECIMAL and pa.types.is_decimal(column.type) and not _fits_duckdb(column.type):
        return pa.array([None if value is None else _digits(value) for value in column.to_pylist()], pa.string())
    if family is Family.BOOLEAN:
        return column.cast(pa.int8())
    if family is Family.TEXT:
        return column.cast(pa.large_string() if pa.types.is_large_string(column.type) else pa.string())
    return column.cast(pa.large_binary()) if family is Family.BYTES else column


def _fits_duckdb(kind: pa.DataType) -> bool:
    return bool(kind.precision <= _WIDEST and 0 <= kind.scale <= kind.precision)


def _digits(value: Any) -> str:
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _bits(column: pa.Array) -> pa.Array:
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    doubles = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
    bits = np.where(np.isnan(doubles), np.int64(NAN_BITS), doubles.view(np.int64))
    return pa.array(bits, mask=column.is_null().to_numpy(zero_copy_only=False))


class LocalRows:
    """Rows that are streamed from where they are. Is a `Comparable`; see `open_local`.

    A tally of everything is summed up as the rows pass. Segments need the rows more than once: these are read into a scratch file
    first, in canonical form.
    """

    def __init__(self, open_rows: OpenRows, connection: duckdb.DuckDBPyConnection, stack: ExitStack) -> None:
        self._open, self._connection, self._stack = open_rows, connection, stack
        self._stream = ExitStack()
        self._reader: pa.RecordBatchReader | None = None
        stack.callback(self._stream.close)
        self._broken: Exception | None = None
        self._kept: tuple[CanonicalColumn, ...] | None = None
        self._schema = self._take().schema

    @property
    def schema(self) -> pa.Schema:
        """The columns as they are read."""
        return self._schema

    def primary_key(self) -> Sequence[str]:
        """A stream has none."""
        return ()

    def digests(self, columns: Sequence[CanonicalColumn]) -> bool:
        """Whatever has a canonical form has it here."""
        return True

    def _take(self) -> pa.RecordBatchReader:
        """The rows from their start."""
        if self._reader is None:
            self._stream.close()
            self._reader = self._stream.enter_context(self._open())
        return self._reader

    @contextmanager
    def _passing(self, columns: Sequence[CanonicalColumn]) -> Iterator[str]:
        """SELECT of the canonical texts of the rows as they are streamed once."""
        reader = self._take()
        self._reader = None
        first = [settled(pa.nulls(0, reader.schema.field(column.name).type), column) for column in columns]
        schema = pa.schema([pa.field(cell(position), array.type) for position, array in enumerate(first)])
        values = [(cell(position), item.type) for position, item in enumerate(schema)]

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for batch in reader:
                    arrays = [settled(batch.column(batch.schema.get_field_index(column.name)), column) for column in columns]
                    arrays = [array.cast(item.type) for array, item in zip(arrays, schema, strict=True)]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            except Exception as error:
                self._broken = error  # DuckDB would hand on its text alone
                raise

        self._connection.register(_STREAM, pa.RecordBatchReader.from_batches(schema, batches()))
        try:
            yield canonical_rows(DUCKDB_DIGESTS, columns, values, _STREAM)
        finally:
            self._connection.unregister(_STREAM)
            self._stream.close()

    def _keep(self, columns: Sequence[CanonicalColumn]) -> str:
        """SELECT of the canonical texts from the scratch file, which is filled first."""
        if self._kept != tuple(columns):
            with self._passing(columns) as rows:
                self._run(f"CREATE OR REPLACE TABLE {_KEPT} AS {rows}")
            self._kept = tuple(columns)
        return f"SELECT * FROM {_KEPT}"  # noqa: S608 - a constant

    def _run(self, text: str) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            return self._connection.execute(text).fetchall()
        except duckdb.Error as error:
            if self._broken is not None:
                raise self._broken from error
            raise ReadFailed(f"comparing rows here: {error}") from error

    def tallies(
        self, columns: Sequence[CanonicalColumn], *, keys: Sequence[int] = (), depth: int = 0, within: Sequence[str] = ()
    ) -> dict[str, Tally]:
        """Count and checksum of each segment."""
        if not depth and not within and self._kept is None:
            with self._passing(columns) as rows:
                return read_tallies(self._run(tally_query(DUCKDB_DIGESTS, rows, columns, keys=keys, depth=0, within=())))
        inner = self._keep(columns)
        return read_tallies(self._run(tally_query(DUCKDB_DIGESTS, inner, columns, keys=keys, depth=depth, within=within)))

    def tallies_between(
        self, columns: Sequence[CanonicalColumn], *, by: CanonicalColumn, edges: Sequence[int], checksum: bool = True
    ) -> dict[int, Tally]:
        """Count and checksum of the rows in each interval, as they are streamed once."""
        wanted = (*(columns if checksum else ()), by)
        with self._passing(wanted) as rows:
            return read_intervals(self._run(between_query(DUCKDB_DIGESTS, rows, wanted, edges=edges, checksum=checksum)))

    def rows(
        self, columns: Sequence[CanonicalColumn], *, keys: Sequence[int] = (), within: Sequence[str] = ()
    ) -> list[tuple[str | None, ...]]:
        """The canonical texts of a few rows."""
        return self._run(rows_query(DUCKDB_DIGESTS, self._keep(columns), columns, keys=keys, within=within))


class Summing:
    """Sums up streams as they pass, with nothing on disk; opened once for many of them, since opening costs more than a small one."""

    def __init__(self) -> None:
        import duckdb

        self._connection = duckdb.connect(":memory:", config={"threads": "2", "memory_limit": MEMORY_LIMIT})

    def tally(self, open_rows: OpenRows, columns: Sequence[CanonicalColumn]) -> Tally:
        """Count and checksum of a stream."""
        with ExitStack() as stack:
            return LocalRows(open_rows, self._connection, stack).tallies(columns).get("", Tally())

    def close(self) -> None:
        """Let go of its memory."""
        self._connection.close()


@contextmanager
def open_local(open_rows: OpenRows, *, scratch: Path | None = None) -> Iterator[LocalRows]:
    """Rows to be compared here; what they need on disk lies in a folder of its own below `scratch`, deleted afterwards."""
    import duckdb

    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="dataflow-compare-", dir=scratch)))
        config: dict[str, Any] = {"threads": "2", "memory_limit": MEMORY_LIMIT, "preserve_insertion_order": "false"}
        connection = stack.enter_context(duckdb.connect(str(folder / "rows.duckdb"), config=config))
        yield LocalRows(open_rows, connection, stack)
