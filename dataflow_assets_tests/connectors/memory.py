"""A connector that keeps its tables in memory: the smallest one that keeps every promise of the contract.

Here: the reference against which the suite itself is tested. Not here: speed, durability.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dataflow_assets.batches import resize
from dataflow_assets.errors import Fenced, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.base import Model
from dataflow_assets.spec.models import EndpointOptions, SourceOptions
from dataflow_assets.tables import (
    Claim,
    LedgerEntry,
    Published,
    PublishRequest,
    ReadRequest,
    TableName,
    Target,
    Unit,
    WindowFilter,
    WriteMode,
    schema_fingerprint,
    utc_now,
)
from dataflow_assets_tests.connectors.harness import Harness

Key = tuple[str, str, str]


class Options(Model):
    """No keys: there is one memory."""


class Source(SourceOptions):
    """Which table to read."""

    table: str = Field(min_length=1)


class Endpoint(EndpointOptions):
    """Which table to write."""

    table: str = Field(min_length=1)


@dataclass
class Memory:
    """One table with its ledger."""

    rows: pa.Table | None = None
    claims: dict[Key, int] = field(default_factory=dict)
    entries: dict[Key, LedgerEntry] = field(default_factory=dict)


class Connector:
    """Tables in a dictionary, under one lock."""

    kind: ClassVar[str] = "memory"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode))
    Connection: ClassVar[type[Options]] = Options
    Source: ClassVar[type[Source]] = Source
    Endpoint: ClassVar[type[Endpoint]] = Endpoint
    example: ClassVar[str] = """
pipeline_name: remember
steps:
  - {id: read, type: source, source_type: memory, config: {table: a}}
  - {id: write, type: endpoint, endpoint_type: memory, depends_on: [read], config: {table: b}}
"""

    def __init__(self, connection: Options, context: ConnectionContext) -> None:
        self.tables: dict[str, Memory] = {}
        self.lock = threading.Lock()

    def probe(self) -> str:
        return "memory"

    def close(self) -> None:
        return None

    def source_table(self, options: Source) -> TableName:
        return TableName(options.table)

    def target_table(self, options: Endpoint) -> TableName:
        return TableName(options.table)

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        memory = self.tables.get(request.options.table)
        if memory is None or memory.rows is None:
            raise ReadFailed(f"there is no table {request.options.table!r}", hint="publish it first")
        table = self.filtered(memory.rows, request.window)
        names = request.columns or table.column_names
        if unknown := sorted(set(names) - set(table.column_names)):
            raise ReadFailed(f"table {request.options.table!r} has no column {', '.join(unknown)}")
        table = table.select(names)
        yield pa.RecordBatchReader.from_batches(table.schema, resize(table.to_batches(), rows=request.batch_rows))

    def filtered(self, table: pa.Table, window: WindowFilter | None) -> pa.Table:
        return table if window is None else table.filter(inside(table, window))

    @contextmanager
    def read_target(self, target: Target, window: WindowFilter | None) -> Iterator[pa.RecordBatchReader]:
        with self.read(ReadRequest(Source(table=target.table.name), window=window)) as reader:
            yield reader

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        with self.lock:
            memory = self.tables.setdefault(target.table.name, Memory())
            generation = memory.claims[key(unit)] = memory.claims.get(key(unit), 0) + 1
            return Claim(unit, generation, attempt, memory.entries.get(key(unit)))

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        memory = self.tables.get(target.table.name, Memory())
        return [entry for (one, two, _), entry in memory.entries.items() if (one, two) == (pipeline, step)]

    def publish(self, request: PublishRequest) -> Published:
        with self.lock:
            memory, claim = self.tables[request.target.table.name], request.claim
            self.fence(request, memory)
            if done := self.done(request, memory):
                return done
            try:
                staged = request.open_reader().read_all()
            except OSError as error:
                raise WriteFailed(f"the stage of {claim.unit} cannot be read: {error}") from error
            self.verify(request, staged, memory)
            memory.rows = self.merged(request, staged, memory.rows)
            memory.entries.pop(key(claim.unit), None)
            memory.entries[key(claim.unit)] = entry(request)
            return Published(staged.num_rows, claim.generation, target_rows=memory.rows.num_rows)

    def fence(self, request: PublishRequest, memory: Memory) -> None:
        newest = memory.claims[key(request.claim.unit)]
        if newest > request.claim.generation:
            unit, generation = str(request.claim.unit), request.claim.generation
            raise Fenced(target=str(request.target.table), unit=unit, generation=generation, newest=newest)

    def done(self, request: PublishRequest, memory: Memory) -> Published | None:
        old = memory.entries.get(key(request.claim.unit))
        if old is None:
            return None
        same = (old.generation, old.attempt) == (request.claim.generation, request.claim.attempt)
        if not same and request.target.mode is not WriteMode.APPEND:
            return None
        note = "" if old.checksum == request.checksum else "the rows have changed since they were appended"
        return Published(old.rows, old.generation, already=True, note=note)

    def verify(self, request: PublishRequest, staged: pa.Table, memory: Memory) -> None:
        if staged.num_rows != request.rows:
            raise WriteFailed(f"the stage holds {staged.num_rows} rows instead of {request.rows}")
        if memory.rows is not None and request.target.mode is not WriteMode.REPLACE:
            missing, extra = (
                set(memory.rows.column_names) - set(staged.column_names),
                set(staged.column_names) - set(memory.rows.column_names),
            )
            if missing or extra:
                raise ValueRefused(f"columns do not match: missing {sorted(missing)}, extra {sorted(extra)}")
        for name in request.target.keys:
            if staged[name].null_count:
                raise ValueRefused(f"key column {name!r} holds nulls")
        if (window := window_of(request)) and pc.sum(inside(staged, window)).as_py() not in {None, staged.num_rows}:
            raise ValueRefused(f"rows lie outside the window: see column {window.column}")
        if window and staged[window.column].null_count:
            raise ValueRefused(f"rows lie in no window: null in column {window.column}")

    def merged(self, request: PublishRequest, staged: pa.Table, old: pa.Table | None) -> pa.Table:
        mode = request.target.mode
        if mode is WriteMode.UPSERT:
            staged = last_of_each_key(staged, request.target.keys)
        if old is None or mode is WriteMode.REPLACE:
            return staged
        if window := window_of(request):
            old = old.filter(pc.invert(pc.fill_null(inside(old, window), False)))
        if mode is WriteMode.UPSERT:
            old = without_keys(old, staged, request.target.keys)
        return pa.concat_tables([old, staged.select(old.column_names)], promote_options="permissive")


def key(unit: Unit) -> Key:
    return unit.pipeline, unit.step, unit.key


def window_of(request: PublishRequest) -> WindowFilter | None:
    if request.target.mode is not WriteMode.REPLACE_WINDOW or request.claim.unit.window is None:
        return None
    return WindowFilter(request.target.window_column or "", request.claim.unit.window, request.target.timezone)


def inside(table: pa.Table, window: WindowFilter) -> Any:
    column = table[window.column]
    start, end = (pa.scalar(bound).cast(column.type) for bound in window.bounds(column.type))
    return pc.fill_null(pc.and_(pc.greater_equal(column, start), pc.less(column, end)), False)


def last_of_each_key(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    last = {row: number for number, row in enumerate(zip(*(table[name].to_pylist() for name in keys), strict=True))}
    return table.take(pa.array(sorted(last.values()), type=pa.int64()))


def without_keys(old: pa.Table, new: pa.Table, keys: Sequence[str]) -> pa.Table:
    taken = set(zip(*(new[name].to_pylist() for name in keys), strict=True))
    rows = zip(*(old[name].to_pylist() for name in keys), strict=True)
    return old.filter(pa.array([row not in taken for row in rows], type=pa.bool_()))


def entry(request: PublishRequest) -> LedgerEntry:
    target, claim = request.target, request.claim
    return LedgerEntry(
        *(str(target.table), claim.unit, target.mode, claim.generation, claim.attempt, request.rows, request.checksum),
        schema_fingerprint(request.schema),
        utc_now(),
        dict(request.metrics),
        dict(request.state),
    )


@dataclass
class MemoryHarness(Harness):
    """Drives a memory connector, or one broken on purpose."""

    kind: type[Connector] = Connector

    def __post_init__(self) -> None:
        self._connector = self.kind(Options(), ConnectionContext("memory", self.scratch))

    @property
    def connector(self) -> Connector:
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = Endpoint(table=name, mode=mode, upsert_keys=list(keys), **options)
        return Target(TableName(name), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> Source:
        return Source(table=name)
