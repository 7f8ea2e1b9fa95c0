"""SQLite's declared types on their way out and in, and windows over text: kept exactly, or refused by name and rowid."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.errors import ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events, hour, unit
from dataflow_assets_tests.connectors.test_sqlite import SQLiteHarness, read, shell


@pytest.fixture
def harness(tmp_path: Path) -> SQLiteHarness:
    return SQLiteHarness(tmp_path)


# -- what a declared type means

KEPT: dict[str, tuple[str, Any, Any, str]] = {
    "integer": ("INTEGER", 2**63 - 1, 2**63 - 1, "int64"),
    "bigint": ("UNSIGNED BIG INT", -5, -5, "int64"),
    "boolean": ("BOOLEAN", 1, True, "bool"),
    "real": ("DOUBLE PRECISION", 0.1, 0.1, "double"),
    "infinity": ("REAL", float("inf"), float("inf"), "double"),
    "text": ("VARCHAR(3)", "longer", "longer", "string"),
    "blob": ("BLOB", b"\x00", b"\x00", "binary"),
    "date": ("DATE", "2024-02-29", date(2024, 2, 29), "date32[day]"),
    "datetime": ("DATETIME", "2024-02-29 12:00", datetime(2024, 2, 29, 12), "timestamp[us]"),
    "datetime with T": ("DATETIME", "2024-02-29T12:00:00.5", datetime(2024, 2, 29, 12, 0, 0, 500_000), "timestamp[us]"),
    "instant": ("TIMESTAMPTZ", "2024-02-29T12:00:00+02:00", datetime(2024, 2, 29, 10, tzinfo=UTC), "timestamp[us, tz=UTC]"),
    "instant with Z": ("TIMESTAMP WITH TIME ZONE", "2024-02-29 12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC), "timestamp[us, tz=UTC]"),
    "decimal as float": ("DECIMAL(10,2)", "1.10", Decimal("1.10"), "decimal128(10, 2)"),
    "decimal as integer": ("NUMERIC(10, 2)", 2, Decimal("2.00"), "decimal128(10, 2)"),
    "decimal as text": ("DECIMAL_TEXT(38,10)", "1.1000000001", Decimal("1.1000000001"), "decimal128(38, 10)"),
    "no type, integers": ("", 5, 5, "int64"),
    "no type, text": ("", "5", "5", "string"),
    "numeric": ("NUMERIC", 1.5, 1.5, "double"),
    "json": ("JSON", '{"a": 1.50}', '{"a": 1.50}', "string"),
}


@pytest.mark.parametrize("case", sorted(KEPT))
def test_the_declared_type_decides(harness: SQLiteHarness, case: str) -> None:
    declared, stored, value, kind = KEPT[case]
    with shell(harness) as other:
        other.execute(f"CREATE TABLE kept (v {declared})")
        other.executemany("INSERT INTO kept VALUES (?)", [(stored,), (None,)])
    for found in (harness.read("kept"), read(harness.connector, "SELECT v FROM kept")):
        assert found["v"].to_pylist() == [value, None]
        assert str(found["v"].type) == kind


MISFITS: dict[str, tuple[str, Any]] = {
    "text in integers": ("INTEGER", "abc"),
    "a fraction in integers": ("INTEGER", 1.5),
    "bytes in text": ("TEXT", b"abc"),
    "text in bytes": ("BLOB", "abc"),
    "two as a boolean": ("BOOLEAN", 2),
    "true as a boolean": ("BOOLEAN", "true"),
    "a number as a date": ("DATE", 19_700),
    "another order of days": ("DATE", "29.02.2024"),
    "a moment as a date": ("DATE", "2024-02-29 12:00:00"),
    "seconds as a timestamp": ("TIMESTAMP", 1_700_000_000),
    "an offset in a naive column": ("DATETIME", "2024-02-29 12:00:00Z"),
    "no offset in an instant": ("TIMESTAMPTZ", "2024-02-29 12:00:00"),
    "nanoseconds": ("DATETIME", "2024-02-29 12:00:00.123456789"),
    "too many digits": ("DECIMAL(10,2)", 1.005),
    "no decimal": ("DECIMAL_TEXT(10,2)", "many"),
    "text in floats": ("REAL", "abc"),
}


@pytest.mark.parametrize("case", sorted(MISFITS))
def test_a_value_that_does_not_fit_is_refused_with_its_rowid(harness: SQLiteHarness, case: str) -> None:
    declared, stored = MISFITS[case]
    fitting = {"INTEGER": 1, "BOOLEAN": 1, "REAL": 1.0, "TEXT": "a", "BLOB": b"a", "DATE": "2024-01-01"}.get(declared)
    with shell(harness) as other:
        other.execute(f"CREATE TABLE kept (id INTEGER PRIMARY KEY, v {declared})")
        other.executemany("INSERT INTO kept VALUES (?, ?)", [(number, fitting) for number in range(1, 700)] + [(777, stored)])
    with pytest.raises(ValueRefused, match=r"column 'v' in rowid 777 holds .* though the column is declared") as caught:
        harness.read("kept")
    assert "column_types" in caught.value.hint
    assert harness.read("kept", columns=["id"]).num_rows == 700
    with pytest.raises(ValueRefused, match="column 'v' holds"):
        read(harness.connector, "SELECT v FROM kept")


def test_column_types_win_over_the_declared_ones(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (a TEXT, b DATETIME, c INTEGER, d)")
        other.execute("INSERT INTO t VALUES ('1.50', '2024-02-29T12:00:00Z', 1, '2024-02-29')")
    types = {"a": "decimal(10,2)", "b": "timestamp[UTC]", "c": "bool", "d": "date"}
    found = read(harness.connector, "SELECT * FROM t", **types)
    expected = [{"a": Decimal("1.50"), "b": datetime(2024, 2, 29, 12, tzinfo=UTC), "c": True, "d": date(2024, 2, 29)}]
    assert found.to_pylist() == expected
    with pytest.raises(ReadFailed, match="nonesuch"):
        read(harness.connector, "SELECT * FROM t", nonesuch="date")


def test_values_of_several_kinds_without_a_type_are_refused(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (v)")
        other.executemany("INSERT INTO t VALUES (?)", [(1,), ("a",)])
    with pytest.raises(ValueRefused, match="integer and text") as caught:
        harness.read("t")
    assert "column_types" in caught.value.hint
    assert read(harness.connector, "SELECT v FROM t WHERE typeof(v) = 'integer'")["v"].to_pylist() == [1]
    assert read(harness.connector, "SELECT CAST(v AS TEXT) AS v FROM t")["v"].to_pylist() == ["1", "a"]


def test_expressions_get_the_type_of_all_their_values(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (v REAL)")
        other.executemany("INSERT INTO t VALUES (?)", [(None,)] * 1_000 + [(1.5,)])
    found = read(harness.connector, "SELECT v + 0 AS late, 1 AS one, NULL AS empty, 'a' AS text FROM t -- end")
    assert [str(item.type) for item in found.schema] == ["double", "int64", "string", "string"]
    assert found["late"].null_count == 1_000


def test_text_that_is_no_unicode_is_refused(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (v TEXT)")
        other.execute("INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
    with pytest.raises(ValueRefused, match="'v'"):
        harness.read("t")


def test_a_strict_table_keeps_its_own_types(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n REAL, s TEXT, b BLOB, a ANY) STRICT")
    target = harness.make_target("t", WriteMode.UPSERT, keys=["id"])
    table = pa.table({"id": [1, 2], "n": [1.5, None], "s": ["007", None], "b": [b"x", None], "a": ["1.50", None]})
    harness.publish(table, target, unit("one"))
    assert_same_rows(table, harness.rows(target))
    wrong = pa.table({"id": [1.5], "n": [1.5], "s": ["x"], "b": [b"x"], "a": ["x"]})
    with pytest.raises(ValueRefused, match="id"):
        harness.publish(wrong, target, unit("two"))


# -- what is written


@pytest.mark.parametrize(
    ("declared", "values", "expected"),
    [
        ("INTEGER", pa.array([Decimal("5"), None]), [5, None]),
        ("REAL", pa.array([5, None]), [5.0, None]),
        ("DECIMAL(10,2)", pa.array([Decimal("0.10"), Decimal("12345678.91")]), [Decimal("0.10"), Decimal("12345678.91")]),
        ("DECIMAL(20,2)", pa.array([Decimal("1234567890123.45")]), [Decimal("1234567890123.45")]),
        ("DATETIME", pa.array([date(2024, 2, 29)]), [datetime(2024, 2, 29)]),
        ("TEXT", pa.array([date(2024, 2, 29)]), ["2024-02-29"]),
        ("JSON", pa.array(['{"a": 1.50}']), ['{"a": 1.50}']),
        ("", pa.array(["007"]), ["007"]),
        ("INTEGER", pa.array([2**63], type=pa.uint64()), None),
        ("INTEGER", pa.array([1.5]), None),
        ("INTEGER", pa.array([True]), None),
        ("REAL", pa.array([float("nan")]), None),
        ("REAL", pa.array([2**53 + 1]), None),
        ("DECIMAL(20,2)", pa.array([Decimal("123456789012345678.91")]), None),
        ("DECIMAL(10,2)", pa.array([Decimal("1.005")]), None),
        ("JSON", pa.array(["1.50"]), None),
        ("DATETIME", pa.array([datetime(2024, 1, 1, tzinfo=UTC)]), None),
        ("TIMESTAMPTZ", pa.array([datetime(2024, 1, 1)]), None),
        ("", pa.array([date(2024, 2, 29)]), None),
    ],
    ids=str,
)
def test_a_column_fits_its_target_or_is_refused(
    harness: SQLiteHarness, declared: str, values: pa.Array, expected: list[Any] | None
) -> None:
    with shell(harness) as other:
        other.execute(f"CREATE TABLE kept (v {declared})")
    target = harness.make_target("kept", WriteMode.APPEND)
    if expected is None:
        with pytest.raises(ValueRefused, match="'v'"):
            harness.publish(pa.table({"v": values}), target, unit())
        assert harness.rows(target).num_rows == 0
    else:
        harness.publish(pa.table({"v": values}), target, unit())
        assert harness.rows(target)["v"].to_pylist() == expected


def test_what_is_written_is_plain_sqlite(harness: SQLiteHarness) -> None:
    table = pa.table(
        {
            "at": pa.array([datetime(2024, 3, 10, 5, tzinfo=UTC)], pa.timestamp("us", "America/New_York")),
            "day": pa.array([date(2024, 3, 10)]),
            "amount": pa.array([Decimal("1.10")]),
            "flag": pa.array([True]),
        }
    )
    harness.publish(table, harness.make_target("t", WriteMode.APPEND), unit())
    with shell(harness) as other:
        assert other.execute("SELECT * FROM t").fetchall() == [("2024-03-10 05:00:00.000000+00:00", "2024-03-10", "1.10", 1)]
        assert other.execute("SELECT datetime(at), at < '2024-03-10 06' FROM t").fetchall() == [("2024-03-10 05:00:00", 1)]
        types = [row[2] for row in other.execute("PRAGMA table_info(t)")]
    assert types == ["TIMESTAMPTZ", "DATE", "DECIMAL_TEXT(3,2)", "BOOLEAN"]


# -- windows over whatever text is there

FOREIGN = [
    *("2024-03-10T05:30:00Z", "2024-03-10 05:00:00+00:00", "2024-03-10 05:59:59.999999+00:00", "2024-03-10 07:10:00+02:00"),
    *("2024-03-09T21:45:00-08:00", "2024-03-10T05:00Z"),
]
NEIGHBOURS = ["2024-03-10T06:00:00Z", "2024-03-10 05:30:00+02:00", "2024-03-10 04:59:59.999999+00:00", "2024-03-12T05:00:00Z", None]


def test_a_window_finds_every_form_of_a_moment(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (id INTEGER, at TIMESTAMPTZ)")
        other.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(FOREIGN + NEIGHBOURS)))
    for found in (harness.read("t", window=where(hour(5))), read(harness.connector, "SELECT * FROM t", window=where(hour(5)))):
        assert sorted(found["id"].to_pylist()) == list(range(len(FOREIGN)))


@pytest.mark.parametrize("value", ["10/03/2024", "yesterday", 1_710_000_000, b"2024-03-10"])
def test_a_window_refuses_what_it_cannot_place(harness: SQLiteHarness, value: Any) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (at TIMESTAMP)")
        other.executemany("INSERT INTO t VALUES (?)", [("2024-03-10 05:00:00",), (value,)])
    for attempt in (
        lambda: harness.read("t", window=where(hour(5))),
        lambda: read(harness.connector, "SELECT * FROM t", window=where(hour(5))),
    ):
        with pytest.raises(ValueRefused, match="'at'"):
            attempt()


def test_a_window_of_a_table_uses_its_index(harness: SQLiteHarness) -> None:
    """Every statement of a window: the ends, the rows, what a publish deletes, counts and checks."""
    target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    for number in range(3):
        harness.publish(events(day(number), rows=5_000), target, day(number))
    steps = []
    with shell(harness) as other:
        from dataflow_assets.connectors import _sqlite_times as times
        from dataflow_assets.connectors._sqlite_session import SQLITE

        bounds = where(day(1)).bounds(pa.timestamp("us", "UTC"))
        for predicate in (times.exact_window(SQLITE, "at", bounds), times.rough_window(SQLITE, "at", bounds)):
            plan = other.execute(f"EXPLAIN QUERY PLAN SELECT * FROM things WHERE {predicate.text}", predicate.values).fetchall()
            steps += [row[3] for row in plan]
    assert all(step.startswith("SEARCH things USING") for step in steps), steps


def test_a_target_with_other_forms_near_the_window_is_refused(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE things (id INTEGER, at TIMESTAMPTZ, note TEXT)")
        other.execute("INSERT INTO things VALUES (1, '2024-03-10T05:00:00Z', 'foreign')")
    target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    with pytest.raises(WriteFailed, match="2024-03-10T05:00:00Z"):
        harness.publish(events(day(0)), target, day(0))
    harness.publish(events(day(5)), target, day(5))
    with shell(harness) as other:
        other.execute("UPDATE things SET at = '2024-03-10 05:00:00Z' WHERE note = 'foreign'")
    harness.publish(events(day(0)), target, day(0))
    assert_same_rows(pa.concat_tables([events(day(0)), events(day(5))]), harness.rows(target))
