"""Promises that need processes: whatever is killed, whenever, and whoever runs beside it, the rows end right.

Here: tests that a database connector's test class inherits beside the contract. Not here: the killed process (`publisher`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.harness import Harness, assert_same_rows, day, events
from dataflow_assets_tests.connectors.publisher import ROWS, start, target_of

ALL = ("begin", "after_delete", "mid_copy", "before_commit", "after_commit")
FAILPOINTS = {WriteMode.APPEND: ALL, WriteMode.REPLACE_WINDOW: ALL, WriteMode.REPLACE: ALL[1:], WriteMode.UPSERT: ALL[2:]}
KILLED = -9


class KillPromises:
    """Inherit, and provide `place`: what `publisher.harness_of` needs to find the same database."""

    kind: str
    failpoints: ClassVar[Mapping[WriteMode, Sequence[str]]] = FAILPOINTS
    """The places of a publish where it is killed, in order."""

    @pytest.fixture
    def place(self) -> str:
        raise AssertionError("a subclass says where its database is")

    @pytest.mark.parametrize("mode", list(WriteMode))
    def test_killed_at_each_phase_the_next_attempt_ends_right(self, harness: Harness, place: str, mode: WriteMode) -> None:
        """Before the commit the old rows stand, after it the new ones; the next attempt leaves exactly its own."""
        target = target_of(harness, mode)
        harness.publish(events(day(1), note="neighbour"), target, day(1))
        expected = [events(day(1), note="neighbour")]
        for failpoint in self.failpoints[mode]:
            harness.connector.close()
            child = start(self.kind, place, mode, attempt=f"killed {failpoint}", note=failpoint, failpoints=f"publish.{failpoint}=kill")
            output = child.communicate(timeout=60)
            assert child.returncode == KILLED, output
            committed = failpoint == "after_commit"
            if committed:
                expected = self._after(mode, failpoint)
            assert_same_rows(pa.concat_tables(expected), harness.rows(target))
            if mode is WriteMode.APPEND and not committed:
                continue
            done = harness.publish(events(day(0), note=f"again {failpoint}", rows=ROWS), target, day(0), f"again {failpoint}")
            assert done.already == (mode is WriteMode.APPEND)
            expected = self._after(mode, failpoint if mode is WriteMode.APPEND else f"again {failpoint}")
            assert_same_rows(pa.concat_tables(expected), harness.rows(target))
        published = harness.connector.ledger(target, pipeline="contract", step="write")
        assert {entry.unit.key: entry.rows for entry in published} == {day(0).key: ROWS, day(1).key: 24}

    @staticmethod
    def _after(mode: WriteMode, note: str) -> list[pa.Table]:
        rows = [events(day(0), note=note, rows=ROWS)]
        return rows if mode is WriteMode.REPLACE else [*rows, events(day(1), note="neighbour")]

    def test_processes_beside_each_other_end_right(self, harness: Harness, place: str) -> None:
        """Two attempts at each of two neighbouring windows of a table that none of them finds: one row set each, nobody deadlocks."""
        harness.connector.close()
        numbers = list(itertools.product((0, 1), ("a", "b")))
        children = [
            start(
                self.kind, place, WriteMode.REPLACE_WINDOW, attempt=note, note=note, number=number, failpoints="publish.mid_copy=sleep:0.2"
            )
            for number, note in numbers
        ]
        outputs = [child.communicate(timeout=120) for child in children]
        for (number, _), child, output in zip(numbers, children, outputs, strict=True):
            assert child.returncode == 0 or "Fenced" in output, f"day {number}: {output}"
        target = target_of(harness, WriteMode.REPLACE_WINDOW)
        winners = {entry.unit.key: entry.attempt for entry in harness.connector.ledger(target, pipeline="contract", step="write")}
        assert set(winners) == {day(0).key, day(1).key}
        expected = [events(day(number), note=winners[day(number).key], rows=ROWS) for number in (0, 1)]
        assert_same_rows(pa.concat_tables(expected), harness.rows(target))

    def test_a_slow_attempt_is_fenced_in_the_middle(self, harness: Harness, place: str) -> None:
        """A claim made while an older attempt writes: the older one must not end up in the table."""
        target = target_of(harness, WriteMode.REPLACE_WINDOW)
        harness.publish(events(day(0), note="old"), target, day(0), "old")
        harness.connector.close()
        child = start(self.kind, place, WriteMode.REPLACE_WINDOW, attempt="slow", note="slow", failpoints="publish.mid_copy=sleep:1.5")
        assert child.stdout.readline() == "claimed generation 2\n"
        harness.publish(events(day(0), note="quick"), target, day(0), "quick")
        output = child.communicate(timeout=60)
        assert "Fenced" in output or child.returncode == 0, output
        assert_same_rows(events(day(0), note="quick"), harness.rows(target))
