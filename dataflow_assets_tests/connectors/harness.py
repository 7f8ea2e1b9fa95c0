"""What the contract suite needs to drive one connector, and how it compares rows.

Here: the abstract harness that each connector's test fills in, and equality by value. Not here: the promises (`contract`).
"""

from __future__ import annotations

import abc
import itertools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataflow_assets.batches import Checksum
from dataflow_assets.protocols import Connector
from dataflow_assets.tables import Claim, Published, PublishRequest, ReadRequest, Target, Unit, WindowFilter, WriteMode
from dataflow_assets.windows import Window

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIDNIGHT = datetime(2024, 3, 10, tzinfo=UTC)
EVENTS = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("note", pa.string())])


@dataclass(frozen=True)
class Lossy:
    """A type that a connector cannot keep: it refuses the value, or gives back `form(column)`."""

    reason: str
    form: Callable[[pa.Array], pa.Array] | None = None


@dataclass
class Harness(abc.ABC):
    """One connector with a place to write to. `scratch` is a folder for stages; fill in the three abstract members."""

    scratch: Path
    secret: str | None = None
    """A password planted in the connection, when the system has one: it must never be shown."""
    longest_name: int | None = None
    """Bytes of the longest column name, None when there is no limit below 300."""
    hostile_columns: Sequence[str] = (
        *("select", "Order", "MixedCase", "with space", 'double"quote', "single'quote", "back`tick", "1leading", "semi;colon"),
        *("per%cent", "co:lon", "do.t", "braces{}", "ques?tion", "back\\slash", "\U0001f600", "\u00e9", "comma,name", "line\nbreak"),
    )
    hostile_tables: Sequence[str] = (
        *("select", "MixedCase", "with space", "single'quote", "1leading", "semi;colon", "per%cent", "\U0001f600"),
    )
    _stages: itertools.count[int] = field(default_factory=itertools.count, repr=False)

    @property
    @abc.abstractmethod
    def connector(self) -> Connector:
        """The connector; the same one each time."""

    @abc.abstractmethod
    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        """A target called `name` (a table, or a file's stem); `options` go into the connector's Endpoint model."""

    @abc.abstractmethod
    def source_options(self, name: str) -> Any:
        """The connector's Source model that reads what `make_target(name, ...)` writes."""

    def fill(self, name: str, table: pa.Table) -> None:
        """Make `table` what a source of this name holds; by publishing it, where the connector can."""
        modes = self.connector.capabilities.modes
        self.publish(table, self.make_target(name, WriteMode.REPLACE if WriteMode.REPLACE in modes else WriteMode.APPEND), unit())

    def stage(self, table: pa.Table) -> tuple[str, ...]:
        """Write `table` as Parquet stage files, as execution does: two files when there are two rows or more, none without rows."""
        if table.num_rows == 0:
            return ()
        half = max(table.num_rows // 2, 1)
        paths = []
        for piece in filter(lambda piece: piece.num_rows, (table.slice(0, half), table.slice(half))):
            path = self.scratch / f"stage-{os.getpid()}-{next(self._stages)}.parquet"  # publishers share the folder
            pq.write_table(piece, path, store_schema=True)
            paths.append(str(path))
        return tuple(paths)

    def request(
        self, table: pa.Table, target: Target, claim: Claim, *, metrics: dict[str, float] | None = None, state: dict[str, str] | None = None
    ) -> PublishRequest:
        """The request that execution would make for `table`."""
        paths = self.stage(table)
        checksum = Checksum()
        for batch in table.to_batches():
            checksum = checksum.add(batch)

        def open_reader() -> pa.RecordBatchReader:
            batches = itertools.chain.from_iterable(pq.read_table(path, schema=table.schema).to_batches() for path in paths)
            return pa.RecordBatchReader.from_batches(table.schema, batches)

        return PublishRequest(target, claim, table.schema, table.num_rows, str(checksum), open_reader, paths, metrics or {}, state or {})

    def publish(self, table: pa.Table, target: Target, unit: Unit, attempt: str = "first", **ledger: Any) -> Published:
        """Stage, claim and publish `table`; `ledger` may give `metrics` and `state`."""
        claim = self.connector.claim(target, unit, attempt=attempt)
        return self.connector.publish(self.request(table, target, claim, **ledger))

    def read(self, name: str, *, columns: Sequence[str] | None = None, window: WindowFilter | None = None) -> pa.Table:
        """Everything a source step reads of `name`."""
        request = ReadRequest(self.source_options(name), columns=tuple(columns) if columns else None, window=window)
        with self.connector.read(request) as reader:
            return reader.read_all()

    def rows(self, target: Target, window: WindowFilter | None = None) -> pa.Table:
        """What the target holds now."""
        with self.connector.read_target(target, window) as reader:
            return reader.read_all()


class SourceHarness(Harness):
    """A connector that only reads: give `connector`, `source_options` and `fill`."""

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        raise AssertionError(f"{self.connector.kind} has no target")

    @abc.abstractmethod
    def fill(self, name: str, table: pa.Table) -> None: ...


def unit(key: str = "all", window: Window | None = None, *, pipeline: str = "contract", step: str = "write") -> Unit:
    """The unit of a window, or of a batch without one."""
    return Unit(pipeline, step, key, window)


def day(number: int) -> Unit:
    """The unit of the `number`-th day."""
    start = MIDNIGHT + number * DAY
    return unit(start.date().isoformat(), Window(start, start + DAY))


def hour(number: int) -> Unit:
    """The unit of the `number`-th hour."""
    start = MIDNIGHT + number * HOUR
    return unit(start.isoformat(), Window(start, start + HOUR))


def events(of: Unit, *, note: str = "first", rows: int = 24) -> pa.Table:
    """`rows` events spread evenly over the unit's window, the first at its very start; ids count the seconds since 1970."""
    assert of.window is not None
    step = (of.window.end - of.window.start) / rows
    moments = [of.window.start + step * number for number in range(rows)]
    return pa.table([[int(moment.timestamp()) for moment in moments], moments, [f"{note} {n}" for n in range(rows)]], schema=EVENTS)


def column_type(kind: pa.DataType) -> str:
    """The name under which a user declares values of this type in `column_types`."""
    if isinstance(kind, pa.DictionaryType | pa.BaseExtensionType):
        return column_type(kind.value_type if isinstance(kind, pa.DictionaryType) else kind.storage_type)
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    return {"halffloat": "float32", "float": "float32", "date64[ms]": "date", "string_view": "string"}.get(str(kind), str(kind))


def failing(request: PublishRequest, *, after: int = 1) -> PublishRequest:
    """The request with a stage that breaks off after `after` batches of one row."""
    whole = request.open_reader().read_all()

    def batches() -> Iterable[pa.RecordBatch]:
        yield from whole.slice(0, after).to_batches(max_chunksize=1)
        raise OSError("the stage broke off")

    return replace(request, paths=(), open_reader=lambda: pa.RecordBatchReader.from_batches(whole.schema, batches()))


def canonical(column: pa.Array | pa.ChunkedArray) -> tuple[str, list[Any]]:
    """The family of a column's type and its values in a form in which widths, units, layouts and zones no longer show."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return canonical(column.storage)
    if isinstance(kind, pa.DictionaryType):
        return canonical(column.dictionary_decode())
    if pa.types.is_nested(kind):
        return _nested(column)
    if pa.types.is_duration(kind):
        return "duration", _scaled(column.cast(pa.int64()), kind.unit)
    if pa.types.is_timestamp(kind):
        return ("instant" if kind.tz else "timestamp"), _scaled(column.cast(pa.timestamp(kind.unit)).cast(pa.int64()), kind.unit)
    if pa.types.is_time(kind):
        return "time", _scaled(column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()), kind.unit)
    if pa.types.is_floating(kind):
        return "float", [_float(value) for value in column.to_pylist()]
    for family, test in _FAMILIES.items():
        if test(kind):
            return family, column.to_pylist()
    return str(kind), column.to_pylist()


_FAMILIES: dict[str, Callable[[pa.DataType], bool]] = {
    "number": lambda kind: pa.types.is_integer(kind) or pa.types.is_decimal(kind),
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view",
    "binary": lambda kind: "binary" in str(kind),
    "date": pa.types.is_date,
    "bool": pa.types.is_boolean,
    "null": pa.types.is_null,
}


def _nested(column: pa.Array) -> tuple[str, list[Any]]:
    """Lists of any layout alike; a map is a list of its entries."""
    kind = column.type
    if pa.types.is_struct(kind):
        parts = [canonical(column.field(number)) for number in range(kind.num_fields)]
        rows = zip(*(values for _, values in parts), strict=True)
        family = ", ".join(f"{kind.field(number).name}: {family}" for number, (family, _) in enumerate(parts))
        return f"struct of {family}", [row if valid else None for row, valid in zip(rows, column.is_valid().to_pylist(), strict=True)]
    if pa.types.is_map(kind):
        family, entries = _nested(column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))))
        return f"map as {family}", entries
    family, values = canonical(column.flatten())
    rest = iter(values)
    lengths = pc.list_value_length(column).to_pylist()
    return f"list of {family}", [None if length is None else list(itertools.islice(rest, length)) for length in lengths]


def _scaled(column: Any, unit: str) -> list[int | None]:
    factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    return [None if value is None else value * factor for value in column.to_pylist()]


def _float(value: float | None) -> Any:
    if value is None or value != 0:
        return "nan" if value is not None and math.isnan(value) else value
    return "-0.0" if math.copysign(1, value) < 0 else 0.0


def assert_same_column(expected: Any, actual: Any) -> None:
    """Fail unless both hold the same values, in order, of one family of types (an all-null column may have any)."""
    family, values = canonical(expected)
    found_family, found = canonical(actual)
    assert found == values
    if any(value is not None for value in values):
        assert found_family == family, f"{expected.type} came back as {actual.type}"


def assert_same_rows(expected: pa.Table, actual: pa.Table) -> None:
    """Fail unless both hold the same rows, in any order, under the same column names."""
    assert sorted(actual.column_names) == sorted(expected.column_names)
    names = sorted(expected.column_names)

    def rows(table: pa.Table) -> list[str]:
        return sorted(repr(row) for row in zip(*(canonical(table[name])[1] for name in names), strict=True))

    assert rows(actual) == rows(expected)
