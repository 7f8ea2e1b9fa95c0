"""Postgres types on their way out and in: kept exactly, or refused by name."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from dataflow_assets.connectors.postgres import Connector, PostgresSource
from dataflow_assets.errors import DataflowError, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.tables import Bind, Query, ReadRequest, WriteMode
from dataflow_assets_tests.connectors.harness import unit
from dataflow_assets_tests.connectors.test_postgres import PostgresHarness, connect
from dataflow_assets_tests.services.postgres import PostgresServer, fresh_database

KEPT: dict[str, tuple[str, Any, str]] = {
    "numeric(p,s)": ("12.50::numeric(10,2)", Decimal("12.50"), "decimal128(10, 2)"),
    "numeric(50,10)": ("(repeat('9', 40) || '.0123456789')::numeric(50,10)", Decimal("9" * 40 + ".0123456789"), "decimal256(50, 10)"),
    "numeric without precision": ("123.456789::numeric", Decimal("123.456789000"), "decimal128(38, 9)"),
    "sum of numeric": ("sum(x::numeric(8,2)) FROM generate_series(1, 3) x", Decimal(6), "decimal128(38, 9)"),
    "money": ("12.34::money", Decimal("12.34"), "decimal128(38, 9)"),
    "bigint": ("9223372036854775807::bigint", 2**63 - 1, "int64"),
    "oid": ("4294967295::oid", 2**32 - 1, "int64"),
    "uuid": ("'00000000-0000-0000-0000-00000000000a'::uuid", "00000000-0000-0000-0000-00000000000a", "string"),
    "json": ("'{\"a\": 1.50}'::json", '{"a": 1.50}', "string"),
    "jsonb": ("'{\"a\": 12345678901234567890.50}'::jsonb", '{"a": 12345678901234567890.50}', "string"),
    "text[]": ("ARRAY['a', NULL, '{,}']", ["a", None, "{,}"], "list<item: string>"),
    "int4[]": ("'{}'::int4[]", [], "list<item: int32>"),
    "uuid[]": ("ARRAY['00000000-0000-0000-0000-00000000000a'::uuid]", ["00000000-0000-0000-0000-00000000000a"], "list<item: string>"),
    "numeric[]": ("ARRAY[1.5, NULL]::numeric(4,2)[]", [Decimal("1.50"), None], "list<item: decimal128(4, 2)>"),
    "interval": ("interval '1 mon 2 days 03:04:05.6'", "P1M2DT3H4M5.6S", "string"),
    "inet": ("'10.0.0.0/8'::inet", "10.0.0.0/8", "string"),
    "bit": ("B'00101'", "00101", "string"),
    "int4range": ("int4range(1, 5)", "[1,5)", "string"),
    "char(5)": ("'a'::char(5)", "a    ", "string"),
    "time": ("time '23:59:59.999999'", time(23, 59, 59, 999999), "time64[us]"),
    "timetz": ("timetz '10:00+02'", "10:00:00+02", "string"),
    "timestamptz": ("timestamptz '2024-03-10 00:00-05'", datetime(2024, 3, 10, 5, tzinfo=UTC), "timestamp[us, tz=UTC]"),
    "bytea": (r"'\x00ff'::bytea", b"\x00\xff", "binary"),
    "date": ("date '0001-01-01'", date(1, 1, 1), "date32[day]"),
    "null": ("NULL", None, "string"),
    "xml": ("'<a/>'::xml", "<a/>", "string"),
}
REFUSED = {
    "infinity": "'infinity'::timestamptz",
    "-infinity": "'-infinity'::timestamp",
    "infinite date": "'infinity'::date",
    "infinity in an array": "ARRAY['infinity'::timestamptz]",
    "numeric NaN": "'NaN'::numeric(5,2)",
    "average of integers": "avg(x) FROM (VALUES (1), (1), (2)) t(x)",
    "long fraction": "1.0000000001::numeric",
    "two dimensions": "ARRAY[[1, 2], [3, 4]]",
    "array counted from 0": "'[0:1]={1,2}'::int4[]",
}


@pytest.fixture(scope="module")
def module_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """One database for the file: its tests share no table."""
    with fresh_database(postgres_server) as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE TYPE mood AS ENUM ('glad', 'so-so'); CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
        yield dsn


@pytest.fixture(scope="module")
def reader(module_dsn: str) -> Iterator[Connector]:
    connector = connect(module_dsn)
    yield connector
    connector.close()


def read(connector: Connector, *parts: str | Bind) -> pa.Table:
    with connector.read(ReadRequest(PostgresSource(query="rendered"), query=Query(parts))) as reader:
        return reader.read_all()


@pytest.mark.parametrize("case", sorted(KEPT))
def test_a_type_is_read_exactly(reader: Connector, case: str) -> None:
    expression, value, kind = KEPT[case]
    column = read(reader, f"SELECT {expression.replace(' FROM', ' AS v FROM')}" + ("" if " FROM" in expression else " AS v"))["v"]
    assert column.to_pylist() == [value]
    assert str(column.type) == kind


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_has_no_exact_form_is_refused(reader: Connector, case: str) -> None:
    expression = REFUSED[case]
    with pytest.raises(DataflowError) as caught:
        read(reader, f"SELECT {expression.replace(' FROM', ' AS v FROM')}" + ("" if " FROM" in expression else " AS v"))
    assert isinstance(caught.value, ValueRefused | ReadFailed)
    assert not caught.value.transient


def test_enum_and_domain(reader: Connector) -> None:
    found = read(reader, "SELECT 'so-so'::mood AS m, 5::positive AS p, ARRAY['glad'::mood] AS ms")
    assert found.to_pylist() == [{"m": "so-so", "p": 5, "ms": ["glad"]}]


BOUND = [
    *("it's", "back\\slash", "$1 %s :x ?", "'; DROP TABLE x; --", 5, -1, 2**40, True, None, Decimal("1.50"), date(2024, 2, 29), b"\x00'"),
    *(datetime(2024, 3, 10, 1, 2, 3, 4, tzinfo=UTC), datetime(2024, 3, 10), ["a'b", None], uuid.UUID(int=5), 1e300, time(1, 2)),
]


@pytest.mark.parametrize("value", BOUND, ids=repr)
def test_values_reach_the_query_as_values(reader: Connector, value: Any) -> None:
    (row,) = read(
        reader, "SELECT ", Bind(value), " IS NOT DISTINCT FROM ", Bind(value), " AS same, (", Bind(value), ")::text AS v -- end"
    ).to_pylist()
    assert row["same"]
    if isinstance(value, str):
        assert row["v"] == value


def test_two_columns_of_one_name_are_refused(reader: Connector) -> None:
    with pytest.raises(ValueRefused, match="'x' more than once"):
        read(reader, "SELECT 1 AS x, 2 AS x")


def test_a_query_may_end_as_people_write_it(reader: Connector) -> None:
    assert read(reader, "WITH a AS (SELECT 1 AS x)\nSELECT x FROM a;  ").num_rows == 1
    assert read(reader, "SELECT 1 AS x -- the end").num_rows == 1


@pytest.fixture
def harness(module_dsn: str, reader: Connector, tmp_path: Path) -> PostgresHarness:
    with psycopg.connect(module_dsn, autocommit=True) as admin:
        admin.execute("DROP TABLE IF EXISTS kept, _dataflow_ledger")
    return PostgresHarness(tmp_path, dsn=module_dsn, _connector=reader)


def into(harness: PostgresHarness, definition: str, values: pa.Array) -> list[Any]:
    """Publish one column into an existing table; the column as text."""
    with psycopg.connect(harness.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE TABLE kept (v {definition})".encode())
    harness.publish(pa.table({"v": values}), harness.make_target("kept", WriteMode.APPEND), unit())
    with psycopg.connect(harness.dsn) as admin:
        return [value for (value,) in admin.execute("SELECT v::text FROM kept")]


WRITTEN: dict[str, tuple[str, pa.Array, list[str | None]]] = {
    "int8 to int4": ("int4", pa.array([5, None]), ["5", None]),
    "int to numeric": ("numeric(10,2)", pa.array([5]), ["5.00"]),
    "float to numeric": ("numeric(10,2)", pa.array([0.1]), ["0.10"]),
    "float to free numeric": ("numeric", pa.array([0.1, 1e22]), ["0.1", "10000000000000000000000"]),
    "wide decimal to numeric": ("numeric(10,2)", pa.array([Decimal("1.500000")]), ["1.50"]),
    "text to numeric": ("numeric(10,2)", pa.array(["1.5"]), ["1.50"]),
    "text to uuid": ("uuid", pa.array(["00000000-0000-0000-0000-00000000000A"]), ["00000000-0000-0000-0000-00000000000a"]),
    "text to jsonb": ("jsonb", pa.array(['{"b":1}', None]), ['{"b": 1}', None]),
    "text to enum": ("mood", pa.array(["glad"]), ["glad"]),
    "text to interval": ("interval", pa.array(["P1M2DT3H4M5.6S"]), ["1 mon 2 days 03:04:05.6"]),
    "text to inet": ("inet", pa.array(["10.0.0.0/8"]), ["10.0.0.0/8"]),
    "text to bit": ("bit(3)", pa.array(["101"]), ["101"]),
    "text to timestamptz": ("timestamptz", pa.array(["2024-03-10T02:00:00+02:00"]), ["2024-03-10 00:00:00+00"]),
    "text to varchar": ("varchar(3)", pa.array(["abc"]), ["abc"]),
    "decimal to money": ("money", pa.array([Decimal("1.50")]), ["$1.50"]),
    "list to array": ("int4[]", pa.array([[1, None], []]), ["{1,NULL}", "{}"]),
    "texts to uuid[]": ("uuid[]", pa.array([["00000000-0000-0000-0000-00000000000a"]]), ["{00000000-0000-0000-0000-00000000000a}"]),
    "int to domain": ("positive", pa.array([5]), ["5"]),
    "int to identity": ("int8 GENERATED ALWAYS AS IDENTITY", pa.array([7]), ["7"]),
    "whole seconds to timestamp(0)": ("timestamp(0)", pa.array([datetime(2024, 1, 1)]), ["2024-01-01 00:00:00"]),
}
UNWRITTEN: dict[str, tuple[str, pa.Array]] = {
    "int4 overflow": ("int4", pa.array([2**40])),
    "numeric would round": ("numeric(10,2)", pa.array([Decimal("1.005")])),
    "numeric from text would round": ("numeric(10,2)", pa.array(["1.005"])),
    "numeric from float would round": ("numeric(10,2)", pa.array([1.005])),
    "numeric overflow": ("numeric(3,0)", pa.array([1000])),
    "float to int": ("int8", pa.array([1.5])),
    "decimal to float": ("float8", pa.array([Decimal("1.5")])),
    "big int to float": ("float8", pa.array([2**53 + 1])),
    "double to real": ("float4", pa.array([0.1])),
    "varchar cut": ("varchar(3)", pa.array(["abcd"])),
    "varchar cut of blanks": ("varchar(3)", pa.array(["abc "])),
    "bit cut": ("bit(2)", pa.array(["101"])),
    "timestamp(0) would round": ("timestamp(0)", pa.array([datetime(2024, 1, 1, 0, 0, 0, 500_000)])),
    "instant to wall clock": ("timestamp", pa.array([datetime(2024, 1, 1, tzinfo=UTC)])),
    "wall clock to instant": ("timestamptz", pa.array([datetime(2024, 1, 1)])),
    "offset dropped": ("timestamp", pa.array(["2024-03-10T02:00:00+02:00"])),
    "moment to date": ("date", pa.array([datetime(2024, 1, 1, 12)])),
    "text to uuid": ("uuid", pa.array(["nonsense"])),
    "bytes to text": ("text", pa.array([b"x"])),
    "domain": ("positive", pa.array([-5])),
}


@pytest.mark.parametrize("case", sorted(WRITTEN))
def test_a_column_fits_its_target_exactly(harness: PostgresHarness, case: str) -> None:
    definition, values, expected = WRITTEN[case]
    assert into(harness, definition, values) == expected


@pytest.mark.parametrize("case", sorted(UNWRITTEN))
def test_a_column_that_does_not_fit_is_refused(harness: PostgresHarness, case: str) -> None:
    definition, values = UNWRITTEN[case]
    with pytest.raises((ValueRefused, WriteFailed)) as caught:
        into(harness, definition, values)
    assert not caught.value.transient
    assert harness.rows(harness.make_target("kept", WriteMode.APPEND)).num_rows == 0


def test_given_types_make_the_table(harness: PostgresHarness) -> None:
    target = harness.make_target(
        "typed", WriteMode.APPEND, columns={"id": "integer PRIMARY KEY", "tag": "uuid", "made": "timestamptz DEFAULT now()"}
    )
    table = pa.table({"id": [1], "tag": ["00000000-0000-0000-0000-00000000000a"], "extra": [1.5]})
    harness.publish(table, target, unit())
    with psycopg.connect(harness.dsn) as admin:
        rows = admin.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'typed' ORDER BY ordinal_position"
        )
        assert rows.fetchall() == [("id", "integer"), ("tag", "uuid"), ("made", "timestamp with time zone"), ("extra", "double precision")]
