"""The promises that every connector keeps, as tests that a connector's own test class inherits.

Here: `ConnectorContract`, with the promises about values, names and manners. Give it a fixture `harness`, and declare in `lossy`
the types that the system cannot keep. Not here: publishing (`contract_writing`), reading and connectors that only read
(`contract_reading`), what one system alone promises (its own test file), the values (`arrow_types`), how rows are compared
(`harness`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pytest

from dataflow_assets.errors import DataflowError, ReadFailed
from dataflow_assets.tables import ReadRequest, WriteMode
from dataflow_assets_tests.connectors.arrow_types import COLUMNS
from dataflow_assets_tests.connectors.contract_base import MODES, Promises, pairs, where
from dataflow_assets_tests.connectors.contract_reading import ReadingPromises
from dataflow_assets_tests.connectors.contract_retiring import RetirePromises
from dataflow_assets_tests.connectors.contract_writing import FailurePromises, LedgerPromises, ModePromises
from dataflow_assets_tests.connectors.harness import EVENTS, Harness, assert_same_rows, day, events, failing, hour, unit


class ValuePromises(Promises):
    """Nothing changes silently on the way."""

    @pytest.mark.parametrize("case", sorted(COLUMNS))
    def test_a_value_comes_back_or_is_refused(self, harness: Harness, case: str) -> None:
        """With its checksum."""

        def way(name: str, table: pa.Table) -> Iterator[pa.Table]:
            target = harness.make_target(name, WriteMode.APPEND)
            harness.publish(table, target, unit())
            yield harness.rows(target)
            yield harness.read(name)

        self.send(harness, case, way)

    @pytest.mark.parametrize("mode", MODES)
    def test_an_empty_table_comes_back(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, mode)
        harness.publish(EVENTS.empty_table(), target, day(0))
        found = harness.rows(target)
        assert found.num_rows == 0
        assert found.column_names == EVENTS.names
        assert harness.read("things").num_rows == 0
        assert [entry.rows for entry in harness.connector.ledger(target, pipeline="contract", step="write")] == [0]
        self.came_back_empty(harness)


class NamePromises(Promises):
    """Names are data: quoted, never cut, never pasted; columns meet by name."""

    def test_hostile_column_names(self, harness: Harness) -> None:
        names = list(harness.hostile_columns)
        table = pa.table({name: pa.array([number, None], type=pa.int64()) for number, name in enumerate(names)})
        table = table.append_column("key", pa.array([1, 2], type=pa.int64()))
        for mode in harness.connector.capabilities.modes - {WriteMode.REPLACE_WINDOW}:
            target = harness.make_target(f"hostile_{mode.value}", mode, keys=("key",) if mode is WriteMode.UPSERT else ())
            harness.publish(table, target, unit())
            assert_same_rows(table, harness.rows(target))
        assert harness.read("hostile_append", columns=[names[0], names[4]]).column_names == [names[0], names[4]]

    def test_hostile_key_and_window_columns(self, harness: Harness) -> None:
        table = events(day(0)).rename_columns(['i"d; --', "a't %s", "note"])
        upsert = harness.make_target("keyed", self.target(harness, WriteMode.UPSERT).mode, keys=('i"d; --',))
        windowed = harness.make_target("windowed", self.target(harness, WriteMode.REPLACE_WINDOW).mode, window_column="a't %s")
        for target in (upsert, windowed):
            for attempt in ("first", "second"):
                harness.publish(table, target, day(0), attempt)
            assert_same_rows(table, harness.rows(target))
        assert harness.read("windowed", window=where(hour(3), "a't %s")).num_rows == 1

    def test_hostile_table_names(self, harness: Harness) -> None:
        for number, name in enumerate(harness.hostile_tables):
            target = self.target(harness, WriteMode.APPEND, name)
            harness.publish(pairs((number, name)), target, unit())
            assert_same_rows(pairs((number, name)), harness.read(name))
            assert harness.connector.source_table(harness.source_options(name)) == harness.connector.target_table(target.options)

    def test_a_name_that_is_too_long_is_refused_not_cut(self, harness: Harness) -> None:
        if harness.longest_name is None:
            pytest.skip("names may be as long as they like")
        long, cut = "x" * (harness.longest_name + 1), "x" * harness.longest_name
        with pytest.raises(DataflowError, match=r"x{60}"):
            harness.publish(pa.table({long: [1]}), self.target(harness, WriteMode.APPEND), unit())
        harness.publish(pa.table({cut: [1]}), self.target(harness, WriteMode.APPEND, "fits"), unit())
        assert harness.rows(self.target(harness, WriteMode.APPEND, "fits")).column_names == [cut]

    @pytest.mark.parametrize("mode", MODES)
    def test_columns_meet_by_name_not_by_position(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, mode)
        harness.publish(events(day(0)).select(["note", "at", "id"]), target, day(0))
        harness.publish(events(day(1)).select(["id", "note", "at"]), target, day(1))
        found = harness.rows(target)
        kept = [1] if mode is WriteMode.REPLACE else [0, 1]
        assert_same_rows(pa.concat_tables([events(day(number)) for number in kept]), found.select(EVENTS.names))

    @pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.REPLACE_WINDOW, WriteMode.UPSERT])
    def test_a_missing_or_extra_column_is_refused_by_name(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, mode)
        harness.publish(events(day(0)), target, day(0))
        extra = events(day(1)).append_column("surplus", pa.nulls(24, type=pa.int64()))
        for table, culprit in ((extra, "surplus"), (events(day(1)).drop_columns(["note"]), "note")):
            with pytest.raises(DataflowError, match=culprit):
                harness.publish(table, target, day(1))
        assert_same_rows(events(day(0)), harness.rows(target))


class MannerPromises(Promises):
    """Readers that let go, capabilities that are true, secrets that stay hidden."""

    def test_a_reader_may_be_left_early(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE)
        harness.publish(events(day(0), rows=50_000), target, unit())
        for _ in range(3):
            with harness.connector.read(ReadRequest(harness.source_options("things"), batch_rows=1_000)) as reader:
                reader.read_next_batch()
        harness.publish(events(day(0), rows=5), target, unit(), "second")
        assert harness.rows(target).num_rows == 5

    def test_a_mode_that_is_not_declared_is_refused(self, harness: Harness) -> None:
        for mode in set(MODES) - harness.connector.capabilities.modes:
            target = harness.make_target("things", mode, keys=("id",), window_column="at")
            with pytest.raises(DataflowError):
                harness.publish(events(day(0)), target, day(0))

    def test_no_secret_is_shown(self, harness: Harness) -> None:
        if harness.secret is None:
            pytest.skip("the system has no password")
        shown = [repr(harness.connector), str(harness.connector), harness.connector.probe()]
        target = self.target(harness, WriteMode.APPEND)
        shown += [repr(target), repr(harness.connector.claim(target, day(0), attempt="first"))]
        attempts = [
            lambda: harness.read("nowhere"),
            lambda: harness.publish(pa.table({"id": [1]}), target, unit("b")),
            lambda: harness.publish(events(day(0)), target, unit("c")),
            lambda: harness.connector.publish(
                failing(harness.request(events(day(0)), target, harness.connector.claim(target, day(0), attempt="x")))
            ),
        ]
        for attempt in attempts:
            try:
                attempt()
            except DataflowError as error:
                shown += [str(error), repr(error), repr(error.__cause__), str(vars(error))]
        assert not [text for text in shown if harness.secret in text]

    def test_it_can_be_closed_and_used_again(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        harness.publish(events(day(0)), target, day(0))
        harness.connector.close()
        with suppress(ReadFailed):
            harness.read("nowhere")
        harness.connector.close()
        assert_same_rows(events(day(0)), harness.read("things"))


class ConnectorContract(
    ValuePromises, ModePromises, FailurePromises, LedgerPromises, RetirePromises, NamePromises, MannerPromises, ReadingPromises
):
    """All promises; inherit this one."""
