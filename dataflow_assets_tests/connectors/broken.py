"""Connectors that are broken on purpose, one fault each, with the test of the contract that must catch it.

Here: subclasses of the memory connector. Not here: running them (`test_contract`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.errors import DataflowError, ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities
from dataflow_assets.tables import Claim, Published, PublishRequest, ReadRequest, Target, Unit, WindowFilter, WriteMode
from dataflow_assets_tests.connectors import memory
from dataflow_assets_tests.connectors.memory import Connector, Memory, key

PASSWORD = "hunter2-very-secret"


@dataclass(frozen=True)
class Caught:
    """The test that catches a broken connector, with its arguments."""

    test: str
    arguments: dict[str, Any] = field(default_factory=dict)


def _changed(request: PublishRequest, change: Any) -> PublishRequest:
    table = change(request.open_reader().read_all())
    return replace(request, schema=table.schema, paths=(), open_reader=lambda: table.to_reader())


class WidensIntegers(Connector):
    """An integer with a null becomes a float, as in pandas."""

    caught: ClassVar = Caught("test_a_value_comes_back_or_is_refused", {"case": "int64"})

    def publish(self, request: PublishRequest) -> Published:
        def change(table: pa.Table) -> pa.Table:
            return table.set_column(1, "v", table["v"].cast(pa.float64(), safe=False)) if pa.types.is_integer(table["v"].type) else table

        return super().publish(_changed(request, change))


class RoundsDecimals(Connector):
    """A decimal becomes a float."""

    caught: ClassVar = Caught("test_a_value_comes_back_or_is_refused", {"case": "decimal_5_2"})

    def publish(self, request: PublishRequest) -> Published:
        return super().publish(_changed(request, lambda table: table.set_column(1, "v", table["v"].cast(pa.float64()))))


class DropsZones(Connector):
    """An instant becomes a wall-clock time."""

    caught: ClassVar = Caught("test_a_value_comes_back_or_is_refused", {"case": "instant_new_york_us"})

    def publish(self, request: PublishRequest) -> Published:
        return super().publish(_changed(request, lambda table: table.set_column(1, "v", table["v"].cast(pa.timestamp("us")))))


class TrimsText(Connector):
    """Spaces at the ends of text are lost."""

    caught: ClassVar = Caught("test_a_value_comes_back_or_is_refused", {"case": "string"})

    def publish(self, request: PublishRequest) -> Published:
        return super().publish(_changed(request, lambda table: table.set_column(1, "v", pc.utf8_trim_whitespace(table["v"]))))


class EmptyIsNull(Connector):
    """The empty text becomes null."""

    caught: ClassVar = Caught("test_a_value_comes_back_or_is_refused", {"case": "string"})

    def publish(self, request: PublishRequest) -> Published:
        def change(table: pa.Table) -> pa.Table:
            return table.set_column(1, "v", pc.if_else(pc.equal(table["v"], ""), pa.scalar(None, pa.string()), table["v"]))

        return super().publish(_changed(request, change))


class WritesByPosition(Connector):
    """Columns meet by their position; what does not fit there becomes null."""

    caught: ClassVar = Caught("test_columns_meet_by_name_not_by_position", {"mode": WriteMode.APPEND})

    def merged(self, request: PublishRequest, staged: pa.Table, old: pa.Table | None) -> pa.Table:
        if old is None:
            return staged
        pairs = zip(old.schema, staged.columns, strict=True)
        columns = [column if column.type == item.type else pa.nulls(len(column), item.type) for item, column in pairs]
        return super().merged(request, pa.table(columns, schema=old.schema), old)


class FillsMissingColumns(Connector):
    """A column that the data lacks becomes null."""

    caught: ClassVar = Caught("test_a_missing_or_extra_column_is_refused_by_name", {"mode": WriteMode.APPEND})

    def publish(self, request: PublishRequest) -> Published:
        def change(table: pa.Table) -> pa.Table:
            return table if "note" in table.column_names else table.append_column("note", pa.nulls(table.num_rows, pa.string()))

        return super().publish(_changed(request, change))


class ClosedBounds(Connector):
    """The end of a window belongs to it."""

    caught: ClassVar = Caught("test_bounds_are_half_open", {"kind": pa.timestamp("us")})

    def filtered(self, table: pa.Table, window: WindowFilter | None) -> pa.Table:
        if window is None:
            return table
        end = window.bounds(table[window.column].type)[1]
        at_end = pc.equal(table[window.column], pa.scalar(end).cast(table[window.column].type))
        return table.filter(pc.or_(memory.inside(table, window), at_end))


class DeletesTheDay(Connector):
    """Replacing an hour deletes its day."""

    caught: ClassVar = Caught("test_an_hour_leaves_the_rest_of_its_day")

    def merged(self, request: PublishRequest, staged: pa.Table, old: pa.Table | None) -> pa.Table:
        if old is not None and request.target.mode is WriteMode.REPLACE_WINDOW and request.claim.unit.window:
            start = request.claim.unit.window.start.replace(hour=0)
            whole = replace(request.claim.unit.window, start=start, end=start + timedelta(days=1))
            old = old.filter(pc.invert(memory.inside(old, WindowFilter("at", whole))))
        return super().merged(request, staged, old)


class DeletesFirst(Connector):
    """The old rows are gone before the new ones are read."""

    caught: ClassVar = Caught("test_a_failed_publish_leaves_the_old_rows", {"mode": WriteMode.REPLACE, "after": 3})

    def publish(self, request: PublishRequest) -> Published:
        table = self.tables[request.target.table.name]
        if table.rows is not None:
            table.rows = table.rows.slice(0, 0)
        return super().publish(request)


class RecordsFirst(Connector):
    """The ledger says published before the rows are there."""

    caught: ClassVar = Caught("test_a_failed_publish_leaves_the_old_rows", {"mode": WriteMode.APPEND, "after": 0})

    def publish(self, request: PublishRequest) -> Published:
        request.open_reader().schema  # noqa: B018 - the stage is opened, nothing more
        entries = self.tables[request.target.table.name].entries
        before = dict(entries)
        entries[key(request.claim.unit)] = memory.entry(request)
        if key(request.claim.unit) in before:
            entries.update(before)
        try:
            request.open_reader().read_all()
        except OSError as error:
            raise WriteFailed("the stage broke off") from error
        entries.clear()
        entries.update(before)
        return super().publish(request)


class CommitsWhileReading(Connector):
    """Rows become visible one batch after the other."""

    caught: ClassVar = Caught("test_a_failed_publish_leaves_the_old_rows", {"mode": WriteMode.APPEND, "after": 3})

    def publish(self, request: PublishRequest) -> Published:
        table = self.tables[request.target.table.name]
        before = table.rows
        try:
            for batch in request.open_reader():
                piece = pa.Table.from_batches([batch])
                table.rows = piece if table.rows is None else pa.concat_tables([table.rows, piece])
        except OSError as error:
            raise WriteFailed("the stage broke off") from error
        table.rows = before
        return super().publish(request)


class AcceptsShortStages(Connector):
    """Nobody counts the rows."""

    caught: ClassVar = Caught("test_a_stage_that_is_short_of_rows_is_refused", {"mode": WriteMode.APPEND})

    def verify(self, request: PublishRequest, staged: pa.Table, memory: Memory) -> None:
        super().verify(replace(request, rows=staged.num_rows), staged, memory)


class AcceptsStrays(Connector):
    """Rows outside the window come in."""

    caught: ClassVar = Caught("test_rows_outside_their_window_are_refused")

    def verify(self, request: PublishRequest, staged: pa.Table, memory: Memory) -> None:
        super().verify(replace(request, target=replace(request.target, mode=WriteMode.APPEND)), staged, memory)


class AppendsAgain(Connector):
    """An append of a published unit doubles it."""

    caught: ClassVar = Caught("test_append_of_one_unit_twice_appends_once")

    def done(self, request: PublishRequest, memory: Memory) -> Published | None:
        return None


class AppendsOnlyNewRows(Connector):
    """Equal rows of another unit are taken for a repetition."""

    caught: ClassVar = Caught("test_append_of_equal_rows_in_two_units_appends_both")

    def done(self, request: PublishRequest, memory: Memory) -> Published | None:
        same = [entry for entry in memory.entries.values() if entry.checksum == request.checksum]
        return Published(same[0].rows, same[0].generation, already=True) if same else super().done(request, memory)


class ForgetsTheFence(Connector):
    """An older attempt publishes after a newer one."""

    caught: ClassVar = Caught("test_an_older_claim_is_fenced", {"mode": WriteMode.REPLACE})

    def fence(self, request: PublishRequest, memory: Memory) -> None:
        return None


class RacingClaims(Connector):
    """Two attempts may get one generation."""

    caught: ClassVar = Caught("test_concurrent_claims_are_distinct")

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        table = self.tables.setdefault(target.table.name, Memory())
        generation = table.claims.get(key(unit), 0) + 1
        time.sleep(0.01)
        table.claims[key(unit)] = generation
        return Claim(unit, generation, attempt, table.entries.get(key(unit)))


class FirstWins(Connector):
    """Of two rows with one key the first stays."""

    caught: ClassVar = Caught("test_upsert_lets_the_last_row_of_a_key_win")

    def publish(self, request: PublishRequest) -> Published:
        return super().publish(_changed(request, lambda table: table.take(pa.array(range(table.num_rows - 1, -1, -1), type=pa.int64()))))


class LosesMetrics(Connector):
    """The ledger keeps no metrics."""

    caught: ClassVar = Caught("test_the_ledger_tells_everything")

    def publish(self, request: PublishRequest) -> Published:
        return super().publish(replace(request, metrics={}))


class AbsentIsEmpty(Connector):
    """A table that is not there reads as one without rows."""

    caught: ClassVar = Caught("test_an_absent_table_is_named_with_a_hint")

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        self.tables.setdefault(request.options.table, Memory(rows=pa.table({})))
        with super().read(request) as reader:
            yield reader


class OneBatch(Connector):
    """Everything comes in one batch."""

    caught: ClassVar = Caught("test_reading_streams")

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        with super().read(replace(request, batch_rows=10**9)) as reader:
            yield reader.read_all().combine_chunks().to_reader()


class LiveReader(Connector):
    """A reader sees what is written after it was opened."""

    caught: ClassVar = Caught("test_an_open_reader_keeps_its_snapshot")

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        table = self.tables[request.options.table]
        assert table.rows is not None

        def batches() -> Iterator[pa.RecordBatch]:
            start = 0
            while table.rows is not None and (piece := table.rows.slice(start, request.batch_rows)).num_rows:
                start += piece.num_rows
                yield from piece.combine_chunks().to_batches()

        yield pa.RecordBatchReader.from_batches(table.rows.schema, batches())


class KeepsTheWindowColumn(Connector):
    """Columns that were not asked for come along."""

    caught: ClassVar = Caught("test_reading_a_window_without_its_column")

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        columns = (*(request.columns or ()), request.window.column) if request.window else request.columns
        with super().read(replace(request, columns=columns)) as reader:
            yield reader


class DoesMoreThanItSays(Connector):
    """A mode works that is not declared, so no plan can rely on what is."""

    caught: ClassVar = Caught("test_a_mode_that_is_not_declared_is_refused")
    capabilities: ClassVar = Capabilities(modes=frozenset(WriteMode) - {WriteMode.UPSERT})


class TalksTooMuch(Connector):
    """The password stands in an error."""

    caught: ClassVar = Caught("test_no_secret_is_shown")

    def publish(self, request: PublishRequest) -> Published:
        try:
            return super().publish(request)
        except DataflowError as error:
            raise WriteFailed(f"memory {PASSWORD}: {error}") from error


class NamelessErrors(Connector):
    """An error does not say which table."""

    caught: ClassVar = Caught("test_an_absent_table_is_named_with_a_hint")

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        if request.options.table not in self.tables:
            raise ReadFailed("no such table", hint="look for it")
        with super().read(request) as reader:
            yield reader


BROKEN: tuple[Any, ...] = tuple(kind for kind in Connector.__subclasses__() if hasattr(kind, "caught"))
