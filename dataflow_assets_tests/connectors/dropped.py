"""The promises about a target table that somebody has dropped: what was published into it counts for nothing.

Here: what holds for every connector of a database. Not here: how a table is dropped there (the connector's own test).
"""

from __future__ import annotations

import abc

import pyarrow as pa

from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.harness import Harness, assert_same_rows, day, events


class DroppedPromises(abc.ABC):
    """Inherited by the test of a connector, which offers `harness` and `drop`."""

    @abc.abstractmethod
    def drop(self, harness: Harness, table: str) -> None:
        """Drop the table with the system's own driver."""

    def test_the_ledger_of_a_dropped_table_is_empty(self, harness: Harness) -> None:
        target = harness.make_target("gone", WriteMode.REPLACE_WINDOW, window_column="at")
        for number in range(3):
            harness.publish(events(day(number)), target, day(number))
        self.drop(harness, "gone")
        assert harness.connector.ledger(target, pipeline="contract", step="write") == []

    def test_after_one_window_the_others_still_count_as_missing(self, harness: Harness) -> None:
        target = harness.make_target("gone", WriteMode.REPLACE_WINDOW, window_column="at")
        for number in range(3):
            harness.publish(events(day(number)), target, day(number))
        self.drop(harness, "gone")
        harness.publish(events(day(1)), target, day(1), "again")
        entries = harness.connector.ledger(target, pipeline="contract", step="write")
        assert [entry.unit.key for entry in entries] == [day(1).key]
        assert_same_rows(events(day(1)), harness.rows(target))

    def test_an_append_into_a_dropped_table_appends_again(self, harness: Harness) -> None:
        target = harness.make_target("gone", WriteMode.APPEND)
        for number in range(2):
            harness.publish(events(day(number)), target, day(number))
        self.drop(harness, "gone")
        for number in range(2):
            assert not harness.publish(events(day(number)), target, day(number), "again").already
        assert_same_rows(pa.concat_tables([events(day(0)), events(day(1))]), harness.rows(target))

    def test_another_tables_ledger_is_left_alone(self, harness: Harness) -> None:
        gone = harness.make_target("gone", WriteMode.APPEND)
        kept = harness.make_target("kept", WriteMode.APPEND)
        harness.publish(events(day(0)), gone, day(0))
        harness.publish(events(day(0)), kept, day(0))
        self.drop(harness, "gone")
        harness.publish(events(day(0)), gone, day(0), "again")
        assert harness.publish(events(day(0)), kept, day(0), "again").already

    def test_a_ledger_without_a_registry_gets_one(self, harness: Harness) -> None:
        """Ledgers of older versions have none; nor does one that somebody has dropped."""
        target = harness.make_target("kept", WriteMode.APPEND)
        harness.publish(events(day(0)), target, day(0))
        self.drop(harness, "_dataflow_schemas")
        harness.connector.close()
        harness._connector = None  # type: ignore[attr-defined] # as in a new process
        assert harness.connector.schemas(target) == []  # type: ignore[attr-defined]
        harness.publish(events(day(1)), target, day(1))
        (version,) = harness.connector.schemas(target)  # type: ignore[attr-defined]
        assert [column.name for column in version.columns] == ["id", "at", "note"]
        assert len(harness.connector.ledger(target, pipeline="contract", step="write")) == 2
