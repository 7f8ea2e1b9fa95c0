"""What every connector that compares rows promises: its database gives the tallies that are made here of the rows it gives.

Here: the class that a system's test inherits. Not here: the systems (`test_comparing`), what is done with tallies (`execution`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.canonical import CanonicalColumn, Family, agree
from dataflow_assets.errors import DataflowError
from dataflow_assets.protocols import Comparable, Reconciles
from dataflow_assets.storage.local_digests import open_local
from dataflow_assets.tables import ReadRequest, WindowFilter, WriteMode
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.arrow_types import COLUMNS, NESTED
from dataflow_assets_tests.connectors.harness import DAY, EVENTS, MIDNIGHT, Harness, unit

HOUR = timedelta(hours=1)


def table_of(columns: dict[str, pa.Array]) -> pa.Table:
    """The columns side by side with an id, the shorter ones filled up with nulls."""
    rows = max(map(len, columns.values()))
    filled = {name: pa.concat_arrays([column, pa.nulls(rows - len(column), column.type)]) for name, column in columns.items()}
    return pa.table({"id": pa.array(range(rows), pa.int64()), **filled})


def locally(table: pa.Table) -> Any:
    """The rows as a `Comparable` made here."""
    return open_local(lambda: Opened(table))


class Opened:
    """A table as its reader."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __enter__(self) -> pa.RecordBatchReader:
        return self._table.to_reader(max_chunksize=7)

    def __exit__(self, *_: object) -> None:
        return None


def unequal(columns: Sequence[CanonicalColumn], here: Comparable, *sides: Comparable) -> tuple[list[str], set[str]]:
    """The columns whose tallies are not the same everywhere, and those that the first of `sides` cannot do."""
    able = [column for column in columns if sides[0].digests([column])]
    streamed = {column.name for column in columns} - {column.name for column in able}
    if all(side.tallies(able) == here.tallies(able) for side in sides):
        return [], streamed
    wrong = [column.name for column in able if any(side.tallies([column]) != here.tallies([column]) for side in sides)]
    return wrong or ["all together"], streamed


class ComparingPromises:
    """Inherit with a `harness`. `unkept`: columns that the system refuses or changes on the way in; `streamed`: families it cannot do."""

    unkept: ClassVar[Collection[str]] = ()
    streamed: ClassVar[Collection[Family]] = ()

    def test_every_type_has_the_tally_that_it_has_here(self, harness: Harness):
        columns = {name: column for name, column in COLUMNS.items() if name not in {*NESTED, *self.unkept}}
        connector, target = harness.connector, harness.make_target("every_type", WriteMode.REPLACE)
        assert isinstance(connector, Reconciles)
        harness.publish(table_of(columns), target, unit())
        read = harness.rows(target)
        with connector.compare_target(target, None) as there, locally(read) as here, locally(table_of(columns)) as sent:
            assert [name for name in there.schema.names if not name.startswith("_dataflow")] == ["id", *columns]
            agreed = agree(here.schema, there.schema, names=("here", "there"))
            wrong, streamed = unequal(agreed.columns, here, there, sent)
        assert wrong == [], wrong
        families = {column.family for column in agreed.columns if column.name in streamed}
        assert families == set(self.streamed), families

    def test_segments_and_rows_are_those_that_are_made_here(self, harness: Harness):
        rows = pa.table(
            {
                "id": pa.array([*range(300), 7, None], pa.int64()),
                "at": pa.array([MIDNIGHT + number * DAY / 100 for number in range(302)], pa.timestamp("us", "UTC")),
                "note": pa.array(["", None, "a,b", "~", "it's", "é"] * 50 + ["A", "a"], pa.string()),
            },
            schema=EVENTS,
        )
        target = harness.make_target("segments", WriteMode.REPLACE)
        harness.publish(rows, target, unit())
        connector = harness.connector
        assert isinstance(connector, Reconciles)
        with connector.compare_target(target, None) as there, locally(rows) as here:
            columns = agree(here.schema, there.schema, names=("here", "there")).columns
            for keys in ((), (0,), (2, 1)):
                first = here.tallies(columns, keys=keys, depth=1)
                found = there.tallies(columns, keys=keys, depth=1)
                assert first == found, (keys, first, found)
                assert sum(tally.rows for tally in first.values()) == 302
                within = sorted(first)[:3]
                finer = there.tallies(columns, keys=keys, depth=3, within=within)
                assert finer == here.tallies(columns, keys=keys, depth=3, within=within)
                assert {segment[0] for segment in finer} == set(within)
                rows_there = there.rows(columns, keys=keys, within=within)
                assert sorted(map(repr, rows_there)) == sorted(map(repr, here.rows(columns, keys=keys, within=within)))
                assert len(rows_there) == sum(first[segment].rows for segment in within)

    def test_a_query_and_a_window_are_compared_as_they_are_read(self, harness: Harness):
        rows = pa.table(
            {
                "id": [1, 2, 3, 4],
                "at": [MIDNIGHT, MIDNIGHT + DAY / 2, MIDNIGHT + DAY, None],
                "note": ["first", None, "", "no time"],
            },
            schema=EVENTS,
        )
        harness.publish(rows, harness.make_target("windowed", WriteMode.REPLACE), unit())
        connector = harness.connector
        assert isinstance(connector, Reconciles)
        window = WindowFilter("at", Window(MIDNIGHT, MIDNIGHT + DAY))
        request = ReadRequest(harness.source_options("windowed"), columns=("note", "id"), window=window)
        with connector.compare_source(request) as there, locally(rows.slice(0, 2)) as here:
            assert there.schema.names == ["note", "id"]
            columns = agree(there.schema, here.schema, names=("there", "here")).columns
            assert there.tallies(columns) == here.tallies(columns)
        with pytest.raises(DataflowError), connector.compare_source(ReadRequest(harness.source_options("no_such_table"))) as there:
            there.tallies([])

    def test_intervals_are_summed_up_in_one_query(self, harness: Harness):
        """Hours of the two nights in which the clocks of Europe change, rows on their edges, gaps between them, and rows without a time."""
        starts = [datetime(2024, 3, 31, 0, tzinfo=UTC), datetime(2024, 10, 27, 0, tzinfo=UTC)]
        hours = [Window(start + number * HOUR, start + (number + 1) * HOUR) for start in starts for number in range(3)]
        moments = [edge for window in hours for edge in (window.start, window.end, window.end - timedelta(microseconds=1))]
        moments += [starts[0] - DAY, starts[1] + DAY]
        rows = pa.table(
            {
                "id": pa.array(range(len(moments) + 1), pa.int64()),
                "at": pa.array([*moments, None], pa.timestamp("us", "UTC")),
                "note": pa.array([f"note {number % 3}" for number in range(len(moments) + 1)], pa.string()),
            },
            schema=EVENTS,
        )
        harness.publish(rows, harness.make_target("intervals", WriteMode.REPLACE), unit())
        connector = harness.connector
        assert isinstance(connector, Reconciles)
        span = WindowFilter("at", Window(hours[0].start, hours[-1].end))
        edges = sorted({int(edge.timestamp()) * 1_000_000 for window in hours for edge in (window.start, window.end)})
        with connector.compare_source(ReadRequest(harness.source_options("intervals"), window=span)) as there, locally(rows) as here:
            columns = agree(there.schema, here.schema, names=("there", "here")).columns
            at = columns[1]
            found = there.tallies_between(columns, by=at, edges=edges)
            assert found == here.tallies_between(columns, by=at, edges=edges)
            counted = there.tallies_between(columns, by=at, edges=edges, checksum=False)
        assert {place: tally.rows for place, tally in counted.items()} == {place: tally.rows for place, tally in found.items()}
        assert [found[place].rows for place in (0, 1, 2, 4, 5, 6)] == [2, 3, 3, 2, 3, 3]
        assert found[3].rows == 1, "what lies between two nights begins where the first one ends"
        only = [window for window in hours if window.start == starts[1]]
        with connector.compare_source(ReadRequest(harness.source_options("intervals"), window=WindowFilter("at", only[0]))) as alone:
            assert alone.tallies(columns)[""] == found[4]

    def test_an_empty_table_has_an_empty_tally(self, harness: Harness):
        target = harness.make_target("empty", WriteMode.REPLACE)
        harness.publish(EVENTS.empty_table(), target, unit())
        connector = harness.connector
        assert isinstance(connector, Reconciles)
        with connector.compare_target(target, None) as there:
            columns = agree(EVENTS, there.schema, names=("here", "there")).columns
            assert there.tallies(columns) == {}
            assert there.tallies(columns, depth=2) == {}
            assert there.rows(columns) == []
