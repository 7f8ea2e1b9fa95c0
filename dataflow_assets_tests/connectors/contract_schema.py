"""The promises about columns that change: what each schema policy does, and that every version of a table is kept.

Here: `SchemaPromises` for every connector that writes tables or files, `SchemaKillPromises` for a database whose publish is killed
between the change of the table and its rows. Not here: the decision itself (`dataflow_assets_tests/storage/test_agreement.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.errors import DataflowError, Fenced
from dataflow_assets.tables import SchemaPolicy, SchemaVersion, Target, WriteMode
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.harness import Harness, assert_same_column, assert_same_rows, day, events
from dataflow_assets_tests.connectors.publisher import start, target_of

EVOLVE, FREEZE, DISCARD = SchemaPolicy.EVOLVE, SchemaPolicy.FREEZE, SchemaPolicy.DISCARD


def with_coupon(number: int, *, rows: int = 24) -> pa.Table:
    """A day with a column more."""
    table = events(day(number), rows=rows)
    return table.append_column("coupon", pa.array([f"c{n}" if n else None for n in range(rows)]))


def numbers(number: int, kind: pa.DataType, values: Sequence[Any]) -> pa.Table:
    """A day with a column `n` of this type."""
    return events(day(number), rows=len(values)).append_column("n", pa.array(values, type=kind))


def versions(harness: Harness, target: Target) -> list[SchemaVersion]:
    """What the registry beside the target holds."""
    found: list[SchemaVersion] = harness.connector.schemas(target)  # type: ignore[attr-defined]
    return found


def changes(harness: Harness, target: Target) -> list[tuple[str, ...]]:
    """The first words of each change, by version: `added 'coupon'`."""
    return [tuple(" ".join(text.split()[:2]) for text in version.changes) for version in versions(harness, target)]


class SchemaPromises:
    """Inherit, and provide `harness`."""

    widens: ClassVar[bool] = True
    """Whether the system can give an integer column a wider type."""

    @pytest.fixture
    def harness(self, tmp_path: Any) -> Harness:
        raise AssertionError("a subclass gives the harness of its connector")

    @staticmethod
    def target(harness: Harness, policy: SchemaPolicy | None, mode: WriteMode = WriteMode.REPLACE_WINDOW) -> Target:
        keys = ("id",) if mode is WriteMode.UPSERT else ()
        window_column = "at" if mode is WriteMode.REPLACE_WINDOW else None
        return replace(harness.make_target("things", mode, keys=keys, window_column=window_column), schema_policy=policy)

    @pytest.mark.parametrize("mode", [WriteMode.REPLACE_WINDOW, WriteMode.APPEND, WriteMode.UPSERT])
    def test_evolve_adds_a_column_that_is_null_in_older_rows(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, EVOLVE, mode)
        harness.publish(events(day(0)), target, day(0))
        done = harness.publish(with_coupon(1), target, day(1))
        assert [(change.action, change.column) for change in done.schema_changes] == [("added", "coupon")]
        assert "coupon" in str(done.schema_changes[0])
        old = events(day(0)).append_column("coupon", pa.nulls(24, pa.string()))
        assert_same_rows(pa.concat_tables([old, with_coupon(1)]), harness.rows(target))
        again = harness.publish(with_coupon(1, rows=5), target, day(1), "second")
        assert again.schema_changes == ()
        assert changes(harness, target) == [(), ("added 'coupon'",)]

    def test_evolve_leaves_a_column_null_that_the_data_lacks(self, harness: Harness) -> None:
        target = self.target(harness, EVOLVE)
        harness.publish(with_coupon(0), target, day(0))
        done = harness.publish(events(day(1)), target, day(1))
        assert [(change.action, change.column) for change in done.schema_changes] == [("absent", "coupon")]
        new = events(day(1)).append_column("coupon", pa.nulls(24, pa.string()))
        assert_same_rows(pa.concat_tables([with_coupon(0), new]), harness.rows(target))
        assert changes(harness, target) == [()]

    @pytest.mark.parametrize("policy", [FREEZE, None])
    def test_freeze_refuses_and_shows_the_difference(self, harness: Harness, policy: SchemaPolicy | None) -> None:
        target = self.target(harness, policy)
        harness.publish(events(day(0)), target, day(0))
        with pytest.raises(DataflowError) as caught:
            harness.publish(with_coupon(1).drop_columns(["note"]), target, day(1))
        lines = str(caught.value).splitlines()
        assert any(line.split()[:2] == ["+", "coupon"] for line in lines), lines
        assert any(line.split()[:2] == ["-", "note"] for line in lines), lines
        assert "evolve" in lines[-1]
        assert_same_rows(events(day(0)), harness.rows(target))
        assert changes(harness, target) == [()]

    @pytest.mark.parametrize("mode", [WriteMode.REPLACE_WINDOW, WriteMode.UPSERT])
    def test_discard_leaves_the_column_out_and_says_so(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, DISCARD, mode)
        harness.publish(events(day(0)), target, day(0))
        done = harness.publish(with_coupon(1), target, day(1))
        assert [(change.action, change.column) for change in done.schema_changes] == [("discarded", "coupon")]
        assert_same_rows(pa.concat_tables([events(day(0)), events(day(1))]), harness.rows(target))
        with pytest.raises(DataflowError, match="note"):
            harness.publish(events(day(2)).drop_columns(["note"]), target, day(2))
        assert changes(harness, target) == [()]

    def test_a_wider_integer_widens_its_column_or_is_refused(self, harness: Harness) -> None:
        target = self.target(harness, EVOLVE)
        harness.publish(numbers(0, pa.int32(), [1, None, -3]), target, day(0))
        wide = numbers(1, pa.int64(), [2**40, None, -(2**40)])
        frozen = replace(target, schema_policy=FREEZE)
        if self.widens:
            with pytest.raises(DataflowError, match="n"):
                harness.publish(wide, frozen, day(1))
            done = harness.publish(wide, target, day(1))
            assert [(change.action, change.column) for change in done.schema_changes] == [("widened", "n")]
            assert changes(harness, target)[1] == ("changed 'n'",)
        else:
            harness.publish(wide, target, day(1))  # its integers are wide from the first
        found = harness.rows(target, where(day(1)))
        assert_same_column(pa.array([2**40, None, -(2**40)]), found.sort_by("id")["n"])
        assert_same_column(pa.array([1, None, -3]), harness.rows(target, where(day(0))).sort_by("id")["n"])
        narrow = harness.publish(numbers(2, pa.int16(), [7, 8]), target, day(2))
        assert narrow.schema_changes == ()

    def test_a_change_that_is_not_safe_is_refused(self, harness: Harness) -> None:
        target = self.target(harness, EVOLVE)
        harness.publish(numbers(0, pa.int64(), [1, 2]), target, day(0))
        for kind, values in ((pa.string(), ["one", "two"]), (pa.float64(), [1.5, 2.5])):
            with pytest.raises(DataflowError, match="n"):
                harness.publish(numbers(1, kind, values), target, day(1))
        assert_same_rows(numbers(0, pa.int64(), [1, 2]), harness.rows(target))
        assert changes(harness, target) == [()]

    def test_a_column_without_values_waits_for_its_type(self, harness: Harness) -> None:
        target = self.target(harness, EVOLVE)
        harness.publish(events(day(0)), target, day(0))
        done = harness.publish(numbers(1, pa.null(), [None, None]), target, day(1))
        assert [(change.action, change.column) for change in done.schema_changes] == [("waiting", "n")]
        harness.publish(numbers(2, pa.int64(), [1, 2]), target, day(2))
        assert sorted(harness.rows(target, where(day(2)))["n"].to_pylist()) == [1, 2]

    def test_an_older_attempt_changes_nothing(self, harness: Harness) -> None:
        target = self.target(harness, EVOLVE)
        harness.publish(events(day(0)), target, day(0))
        slow = harness.connector.claim(target, day(0), attempt="slow")
        harness.connector.claim(target, day(0), attempt="quick")
        with pytest.raises(Fenced):
            harness.connector.publish(harness.request(with_coupon(0), target, slow))
        assert_same_rows(events(day(0)), harness.rows(target))

    def test_windows_beside_each_other_add_a_column_once(self, harness: Harness) -> None:
        target = self.target(harness, EVOLVE)
        harness.publish(events(day(0)), target, day(0))
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda number: harness.publish(with_coupon(number), target, day(number)), range(1, 4)))
        old = events(day(0)).append_column("coupon", pa.nulls(24, pa.string()))
        assert_same_rows(pa.concat_tables([old, *(with_coupon(number) for number in range(1, 4))]), harness.rows(target))
        assert changes(harness, target) == [(), ("added 'coupon'",)]

    def test_a_version_tells_everything(self, harness: Harness) -> None:
        target = self.target(harness, EVOLVE)
        assert versions(harness, target) == []
        harness.publish(events(day(0)), target, day(0), "one")
        harness.publish(with_coupon(1), target, day(1), "two")
        first, second = versions(harness, target)
        assert (first.version, second.version) == (1, 2)
        assert [column.name for column in first.columns] == ["id", "at", "note"]
        assert [column.name for column in second.columns] == ["id", "at", "note", "coupon"]
        assert all(column.type for column in second.columns)
        assert (second.pipeline, second.step, second.unit_key, second.attempt) == ("contract", "write", day(1).key, "two")
        assert first.recorded_at < second.recorded_at
        assert first.target == str(target.table)


class SchemaKillPromises:
    """Inherit beside `KillPromises`, whose `kind` and `place` it uses."""

    kind: str
    kills: ClassVar[Sequence[str]] = ("after_alter", "before_commit")
    """The failpoints after which the table has changed and the rows are not there."""

    def test_killed_after_the_change_the_next_attempt_ends_right(self, harness: Harness, place: str) -> None:
        target = replace(target_of(harness, WriteMode.REPLACE_WINDOW), schema_policy=EVOLVE)
        harness.publish(events(day(0)), target, day(0))
        harness.connector.close()
        for failpoint in self.kills:
            child = start(
                self.kind,
                place,
                WriteMode.REPLACE_WINDOW,
                attempt=failpoint,
                note="x",
                extra="coupon",
                failpoints=f"publish.{failpoint}=kill",
            )
            output = child.communicate(timeout=60)
            assert child.returncode == -9, output
            assert_same_rows(events(day(0)), harness.rows(target).select(["id", "at", "note"]))
            harness.connector.close()
        done = harness.publish(with_coupon(0), target, day(0), "again")
        assert not done.already
        assert_same_rows(with_coupon(0), harness.rows(target))
        assert changes(harness, target) == [(), ("added 'coupon'",)]
