"""Types through SQLAlchemy: told by Postgres' description or by the values, kept exactly or refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.errors import ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.tables import Bind, WriteMode
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events, hour, unit
from dataflow_assets_tests.connectors.test_sqlalchemy import SQLAlchemyHarness, admin, harness_of, read, with_secret


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[SQLAlchemyHarness]:
    made = harness_of(str(tmp_path), tmp_path)
    yield made
    made.connector.close()


@pytest.fixture
def on_postgres(postgres_dsn: str, tmp_path: Path) -> Iterator[SQLAlchemyHarness]:
    made = harness_of(with_secret(postgres_dsn), tmp_path)
    yield made
    made.connector.close()


# -- types of Postgres

KEPT: dict[str, tuple[str, Any, str]] = {
    "bigint": ("9223372036854775807::bigint", 2**63 - 1, "int64"),
    "real": ("0.1::real", 0.10000000149011612, "float"),
    "double precision": ("0.1::double precision", 0.1, "double"),
    "numeric(10, 2)": ("12.50::numeric(10, 2)", Decimal("12.50"), "decimal128(10, 2)"),
    "numeric": ("12.5::numeric", Decimal("12.5"), "decimal128(38, 9)"),
    "boolean": ("true", True, "bool"),
    "bytea": ("'\\x00ff'::bytea", b"\x00\xff", "binary"),
    "date": ("'2024-02-29'::date", date(2024, 2, 29), "date32[day]"),
    "timestamp": ("'2024-02-29 10:00'::timestamp", datetime(2024, 2, 29, 10), "timestamp[us]"),
    "timestamptz": ("'2024-02-29 10:00-05'::timestamptz", datetime(2024, 2, 29, 15, tzinfo=UTC), "timestamp[us, tz=UTC]"),
    "uuid": ("'00000000-0000-0000-0000-00000000000a'::uuid", "00000000-0000-0000-0000-00000000000a", "string"),
    "json": ("""'{"a": 1.50}'::json""", '{"a": 1.50}', "string"),
    "interval": ("'1 month 2 days'::interval", "1 mon 2 days", "string"),
    "inet": ("'10.0.0.1/8'::inet", "10.0.0.1/8", "string"),
    "integer[]": ("'{1,NULL}'::integer[]", "{1,NULL}", "string"),
    "timetz": ("'10:00+02'::timetz", "10:00:00+02", "string"),
    "bit(3)": ("'101'::bit(3)", "101", "string"),
}


@pytest.mark.parametrize("case", sorted(KEPT))
def test_a_type_is_read_exactly_and_written_back(on_postgres: SQLAlchemyHarness, case: str) -> None:
    expression, value, kind = KEPT[case]
    with admin(on_postgres) as other:
        other.execute(f"CREATE TABLE kept (v {case})".encode())
    found = read(on_postgres.connector, f"SELECT {expression} AS v")
    assert found["v"].to_pylist() == [value]
    assert str(found["v"].type) == kind
    target = on_postgres.make_target("kept", WriteMode.APPEND)
    on_postgres.publish(found, target, unit())
    assert on_postgres.rows(target).equals(found)


@pytest.mark.parametrize(
    "expression", ["'infinity'::timestamptz", "'NaN'::numeric", "1e30::numeric", "0.00000000001::numeric", "'-infinity'::date"]
)
def test_what_has_no_exact_form_is_refused(on_postgres: SQLAlchemyHarness, expression: str) -> None:
    with pytest.raises((ValueRefused, ReadFailed)):
        read(on_postgres.connector, f"SELECT {expression} AS v")


@pytest.mark.parametrize("definition", ["varchar(3)", "numeric(4, 1)", "timestamptz(0)", "smallint", "uuid"])
def test_a_value_that_the_target_would_change_is_refused(on_postgres: SQLAlchemyHarness, definition: str) -> None:
    values = {
        "varchar(3)": "long",
        "numeric(4, 1)": Decimal("1.25"),
        "timestamptz(0)": datetime(2024, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC),
        "smallint": 40_000,
        "uuid": "nonsense",
    }
    with admin(on_postgres) as other:
        other.execute(f"CREATE TABLE kept (v {definition})".encode())
    target = on_postgres.make_target("kept", WriteMode.APPEND)
    with pytest.raises(ValueRefused):
        on_postgres.publish(pa.table({"v": [values[definition]]}), target, unit())
    assert on_postgres.rows(target).num_rows == 0


@pytest.mark.parametrize("value", ["it's", "$1 ? %s :x %(a)s", 5, None, Decimal("1.50"), datetime(2024, 3, 10, tzinfo=UTC)], ids=repr)
def test_values_reach_the_query_as_values(on_postgres: SQLAlchemyHarness, on_sqlite: SQLAlchemyHarness, value: Any) -> None:
    for harness in (on_postgres, on_sqlite):
        if harness is on_sqlite and isinstance(value, Decimal | datetime):
            continue
        found = read(harness.connector, "SELECT 'a%' AS \"per%cent\", ", Bind(value), " AS v WHERE 'x' LIKE '%' -- 100%")
        assert found.column_names == ["per%cent", "v"]
        assert found["per%cent"].to_pylist() == ["a%"]
        assert found["v"].to_pylist() == [value]


def test_names_that_occur_twice_are_refused(on_postgres: SQLAlchemyHarness) -> None:
    with pytest.raises(ValueRefused, match="'a' more than once"):
        read(on_postgres.connector, "SELECT 1 AS a, 2 AS a")


def test_another_driver_of_the_same_dialect(postgres_dsn: str, tmp_path: Path) -> None:
    harness = SQLAlchemyHarness(tmp_path, url=postgres_dsn.replace("postgresql://", "postgresql+psycopg2://"))
    target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    for attempt in ("first", "second"):
        harness.publish(events(day(0), rows=3_000), target, day(0), attempt)
    assert_same_rows(events(day(0), rows=3_000), harness.rows(target))
    assert str(read(harness.connector, "SELECT 12.50::numeric(10, 2) AS v")["v"].type) == "decimal128(10, 2)"
    harness.connector.close()


# -- types that only the values tell


def test_the_first_rows_of_a_query_tell_its_types(on_sqlite: SQLAlchemyHarness) -> None:
    found = read(on_sqlite.connector, "SELECT 1 AS a, 'x' AS b, 1.5 AS c, NULL AS d, x'00' AS e")
    assert [str(item.type) for item in found.schema] == ["int64", "string", "double", "string", "binary"]
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)"
    late = f"{numbers} SELECT CASE WHEN x > 1000 THEN 'late' ELSE 1 END AS v FROM n"
    with pytest.raises(ValueRefused, match="'late'") as caught:
        read(on_sqlite.connector, late)
    assert "column_types" in caught.value.hint
    with pytest.raises(ValueRefused, match="no single type"):
        read(on_sqlite.connector, "SELECT 1 AS v UNION ALL SELECT 'a'")


FOREIGN = ["2024-03-10T05:30:00", "2024-03-10 05:00:00", "2024-03-10 05:59:59.999999", "2024-03-10 06:00:00", "2024-03-10 04:59:59", None]


def test_a_window_in_sqlite_finds_every_form_of_a_moment(on_sqlite: SQLAlchemyHarness) -> None:
    with sqlite3.connect(on_sqlite.scratch / "test.sqlite") as other:
        other.execute("CREATE TABLE t (id INTEGER, at DATETIME)")
        other.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(FOREIGN)))
    other.close()
    assert sorted(on_sqlite.read("t", window=where(hour(5)))["id"].to_pylist()) == [0, 1, 2]
    query = ("SELECT * FROM t",)
    with pytest.raises(ValueRefused, match="'at'"):
        read(on_sqlite.connector, *query, window=where(hour(5)))
    assert sorted(read(on_sqlite.connector, *query, window=where(hour(5)), at="timestamp")["id"].to_pylist()) == [0, 1, 2]
    target = on_sqlite.make_target("t", WriteMode.REPLACE_WINDOW, window_column="at")
    with pytest.raises(WriteFailed, match="2024-03-10T05:30:00"):
        on_sqlite.publish(pa.table({"id": [7], "at": [datetime(2024, 3, 10, 5)]}), target, hour(5))
