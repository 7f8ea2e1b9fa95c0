"""ClickHouse types on their way out and in: kept exactly, or refused by name."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.connectors._clickhouse_types import parse
from dataflow_assets.connectors.clickhouse import ClickHouseConnection, ClickHouseEndpoint, ClickHouseSource, Connector
from dataflow_assets.errors import ConnectionFailed, DataflowError, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Bind, Query, ReadRequest, WriteMode
from dataflow_assets_tests.connectors.harness import unit
from dataflow_assets_tests.connectors.test_clickhouse import SECRET, ClickHouseHarness, connect
from dataflow_assets_tests.services.clickhouse import ClickHouseServer, fresh_database

NIL = "00000000-0000-0000-0000-00000000000a"
WIDEST = str(2**127 - 1)
KEPT: dict[str, tuple[str, Any, str]] = {
    "UInt64": ("toUInt64('18446744073709551615')", 2**64 - 1, "uint64"),
    "Int128": (f"toInt128('-{WIDEST}')", Decimal(-(2**127) + 1), "decimal256(39, 0)"),
    "UInt256": ("toUInt256('9" + "0" * 75 + "')", Decimal(9) * 10**75, "decimal256(76, 0)"),
    "Decimal(76, 10)": ("toDecimal256('1.5', 10)", Decimal("1.5000000000"), "decimal256(76, 10)"),
    "Decimal(9, 2)": ("toDecimal32('-1.5', 2)", Decimal("-1.50"), "decimal128(9, 2)"),
    "infinity": ("-inf", float("-inf"), "double"),
    "Float32": ("toFloat32(0.1)", pytest.approx(0.1), "float"),
    "BFloat16": ("CAST(1.5 AS BFloat16)", 1.5, "float"),
    "Bool": ("true", True, "bool"),
    "String": ("'\u00e9\\0\U0001f600'", "\u00e9\0\U0001f600", "string"),
    "FixedString": ("toFixedString('ab', 3)", b"ab\0", "fixed_size_binary[3]"),
    "UUID": (f"toUUID('{NIL}')", NIL, "string"),
    "Enum": ("CAST('so-so' AS Enum('glad' = 1, 'so-so' = 2))", "so-so", "string"),
    "IPv4": ("toIPv4('10.0.0.1')", "10.0.0.1", "string"),
    "IPv6": ("toIPv6('::1')", "::1", "string"),
    "JSON": ('CAST(\'{"a": {"b": 1}}\' AS JSON)', '{"a":{"b":1}}', "string"),
    "LowCardinality": ("CAST('a' AS LowCardinality(Nullable(String)))", "a", "string"),
    "Date": ("toDate('2149-06-06')", date(2149, 6, 6), "date32[day]"),
    "Date32": ("toDate32('1900-01-01')", date(1900, 1, 1), "date32[day]"),
    "DateTime": (
        "toDateTime('2024-03-10 01:00:00', 'America/New_York')",
        datetime(2024, 3, 10, 6, tzinfo=UTC),
        "timestamp[s, tz=America/New_York]",
    ),
    "DateTime without zone": ("toDateTime('2024-03-10 01:00:00')", datetime(2024, 3, 10, 1), "timestamp[s]"),
    "DateTime64(4)": (
        "toDateTime64('2024-03-10 01:00:00.1234', 4, 'UTC')",
        datetime(2024, 3, 10, 1, 0, 0, 123400, UTC),
        "timestamp[us, tz=UTC]",
    ),
    "DateTime64(3) without zone": ("toDateTime64('2024-03-10 01:00:00.5', 3)", datetime(2024, 3, 10, 1, 0, 0, 500_000), "timestamp[ms]"),
    "Time": ("CAST('23:59:59' AS Time)", time(23, 59, 59), "time32[s]"),
    "Time64(6)": ("CAST('23:59:59.000001' AS Time64(6))", time(23, 59, 59, 1), "time64[us]"),
    "Array": ("[1, NULL]", [1, None], "list<item: uint8>"),
    "Array of UUID": (f"[toUUID('{NIL}')]", [NIL], "list<item: string not null>"),
    "Array of Int256": ("[toInt256(5)]", [Decimal(5)], "list<item: decimal256(76, 0)>"),
    "Array of arrays": ("[[toDate('2024-01-01')], []]", [[date(2024, 1, 1)], []], "list<item: list<item: date32[day] not null> not null>"),
    "Tuple": (
        "CAST((1, 'a') AS Tuple(x Int8, `y, z` Enum('a' = 1)))",
        {"x": 1, "y, z": "a"},
        "struct<x: int8 not null, y, z: string not null>",
    ),
    "Map": ("map('a', toDate('2024-01-01'))", [("a", date(2024, 1, 1))], "map<string, date32[day]>"),
    "Point": ("(1., 2.)::Point", {"1": 1.0, "2": 2.0}, "struct<1: double not null, 2: double not null>"),
    "SimpleAggregateFunction": ("CAST(5 AS SimpleAggregateFunction(sum, Int64))", 5, "int64"),
    "Nothing": ("NULL", None, "null"),
}
REFUSED = {
    "bytes that are no text": "'a\\xff'",
    "bytes in an array": "['a\\xff']",
    "Int256 of 77 digits": "toInt256('-57896044618658097711785492504343953926634992332820282019728792003956564819968')",
    "time beyond a day": "CAST('25:00:00' AS Time)",
    "interval": "INTERVAL 1 DAY",
    "aggregate state": "uniqState(1)",
    "wide integer in a map": "map('a', toInt256(1))",
    "throw in the middle": "throwIf(number = 299999) FROM numbers(300000)",
}


@pytest.fixture(scope="module")
def place(clickhouse_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """One database for the file."""
    with fresh_database(clickhouse_server) as server:
        yield server


@pytest.fixture(scope="module")
def reader(place: ClickHouseServer) -> Iterator[Connector]:
    connector = connect(place.url)
    yield connector
    connector.close()


def read(connector: Connector, *parts: str | Bind) -> pa.Table:
    with connector.read(ReadRequest(ClickHouseSource(query="rendered"), query=Query(parts))) as found:
        return found.read_all()


@pytest.mark.parametrize("case", sorted(KEPT))
def test_a_type_is_read_exactly(reader: Connector, case: str) -> None:
    expression, value, kind = KEPT[case]
    column = read(reader, f"SELECT {expression} AS v")["v"]
    assert column.to_pylist() == [value]
    assert str(column.type) == kind


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_has_no_exact_form_is_refused(reader: Connector, case: str) -> None:
    expression = REFUSED[case]
    with pytest.raises(DataflowError) as caught:
        read(reader, f"SELECT {expression.replace(' FROM', ' AS v FROM')}" + ("" if " FROM" in expression else " AS v"))
    assert isinstance(caught.value, ValueRefused | ReadFailed)


BOUND = [
    *(
        "it's",
        "back\\slash",
        "$1 %s {a:b} ?",
        "'; DROP TABLE x; --",
        "tab\there",
        "line\nbreak",
        "\0",
        5,
        -1,
        2**40,
        2**63,
        2**100,
        True,
        False,
        None,
    ),
    *(
        Decimal("1.50"),
        date(2024, 2, 29),
        b"\x00'",
        datetime(2024, 3, 10, 1, 2, 3, 4, tzinfo=UTC),
        datetime(2024, 3, 10),
        ["a'b", None],
        [1, 2],
    ),
    *(uuid.UUID(int=5), 1e300, -0.1),
]


@pytest.mark.parametrize("value", BOUND, ids=repr)
def test_values_reach_the_query_as_values(reader: Connector, value: Any) -> None:
    (row,) = read(reader, "SELECT ", Bind(value), " AS v, '{a:b} {dataflow_1:String}' AS braces -- end").to_pylist()
    as_read = {uuid.UUID: str, bytes: bytes.decode}.get(type(value), lambda item: item)
    assert row["v"] == as_read(value)
    assert read(reader, "SELECT 1 AS x WHERE ", Bind(value), " IS NOT DISTINCT FROM ", Bind(value)).num_rows == 1


def test_two_columns_of_one_name_are_refused(reader: Connector) -> None:
    with pytest.raises(DataflowError, match="x"):
        read(reader, "SELECT 1 AS x, 2 AS x")


def test_a_query_may_end_as_people_write_it(reader: Connector) -> None:
    assert read(reader, "WITH a AS (SELECT 1 AS x)\nSELECT x FROM a;  ").num_rows == 1
    assert read(reader, "SELECT 1 AS x -- the end").num_rows == 1


def test_types_are_taken_apart() -> None:
    kind = parse("Tuple(`a, (b` Enum8('it\\'s, (' = 1), c Map(String, Array(Nullable(DateTime64(6, 'UTC')))))")
    assert kind.arguments == ("`a, (b` Enum8('it\\'s, (' = 1)", "c Map(String, Array(Nullable(DateTime64(6, 'UTC'))))")


@pytest.fixture
def harness(place: ClickHouseServer, reader: Connector, tmp_path: Path) -> ClickHouseHarness:
    client = place.client()
    for table in ("kept", "_dataflow_ledger"):
        client.command(f"DROP TABLE IF EXISTS {table}")
    client.close()
    return ClickHouseHarness(tmp_path, place=place.url, _connector=reader)


def into(harness: ClickHouseHarness, definition: str, values: pa.Array) -> list[str]:
    """Publish one column into an existing table; the column as text."""
    client = ClickHouseServer.of(harness.place).client()
    client.command(f"CREATE TABLE kept (v {definition}) ENGINE = MergeTree ORDER BY tuple()")
    try:
        harness.publish(pa.table({"v": values}), harness.make_target("kept", WriteMode.APPEND), unit())
        return client.raw_query("SELECT v FROM kept", fmt="TSVRaw").decode().splitlines()  # type: ignore[no-any-return]
    finally:
        client.close()


STRUCT = pa.struct([("x", pa.int8()), ("y", pa.string())])
WRITTEN: dict[str, tuple[str, pa.Array, list[str]]] = {
    "int64 to Nullable(Int32)": ("Nullable(Int32)", pa.array([5, None]), ["5", "\\N"]),
    "int64 to UInt8": ("UInt8", pa.array([255]), ["255"]),
    "int64 to Int256": ("Int256", pa.array([-5]), ["-5"]),
    "decimal to UInt128": ("UInt128", pa.array([Decimal(10**37)]), [str(10**37)]),
    "float to Decimal": ("Decimal(10, 2)", pa.array([0.1]), ["0.1"]),
    "text to Decimal": ("Decimal(76, 2)", pa.array(["1.5"]), ["1.5"]),
    "text to UUID": ("UUID", pa.array([NIL.upper()]), [NIL]),
    "text to Enum": ("Enum('glad' = 1)", pa.array(["glad"]), ["glad"]),
    "text to IPv4": ("IPv4", pa.array(["10.0.0.1"]), ["10.0.0.1"]),
    "text to IPv6": ("Nullable(IPv6)", pa.array(["::1", None]), ["::1", "\\N"]),
    "text to JSON": ("JSON", pa.array(['{"b": 1}']), ['{"b":1}']),
    "text to LowCardinality": ("LowCardinality(Nullable(String))", pa.array(["a", None, ""]), ["a", "\\N", ""]),
    "text to FixedString": ("FixedString(2)", pa.array(["DE"]), ["DE"]),
    "bytes to String": ("String", pa.array([b"ab"]), ["ab"]),
    "date to Date": ("Date", pa.array([date(2024, 1, 1)]), ["2024-01-01"]),
    "instant to DateTime": ("DateTime('UTC')", pa.array([datetime(2024, 1, 1, tzinfo=UTC)]), ["2024-01-01 00:00:00"]),
    "instant to another zone": (
        "DateTime64(3, 'America/New_York')",
        pa.array([datetime(2024, 1, 1, tzinfo=UTC)]),
        ["2023-12-31 19:00:00.000"],
    ),
    "instant to DateTime64(4)": ("DateTime64(4, 'UTC')", pa.array([datetime(2024, 1, 1, 0, 0, 0, 100, UTC)]), ["2024-01-01 00:00:00.0001"]),
    "wall clock to DateTime64": ("DateTime64(6)", pa.array([datetime(2024, 1, 1)]), ["2024-01-01 00:00:00.000000"]),
    "time to Time64": ("Time64(6)", pa.array([time(1, 2, 3, 4)]), ["01:02:03.000004"]),
    "list to Array": ("Array(Nullable(Int32))", pa.array([[1, None], []]), ["[1,NULL]", "[]"]),
    "texts to Array(UUID)": ("Array(UUID)", pa.array([[NIL]]), [f"['{NIL}']"]),
    "struct to Tuple": ("Tuple(x Int8, y String)", pa.array([{"x": 1, "y": "a"}], STRUCT), ["(1,'a')"]),
    "map to Map": ("Map(String, Int64)", pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), ["{'a':1}"]),
    "nulls": ("Nullable(Decimal(5, 2))", pa.nulls(1), ["\\N"]),
}
UNWRITTEN: dict[str, tuple[str, pa.Array]] = {
    "null into what holds none": ("Int64", pa.array([1, None])),
    "null into LowCardinality": ("LowCardinality(String)", pa.array(["a", None])),
    "null into a list": ("Array(Int64)", pa.array([[1, None]])),
    "null in a list of lists": ("Array(Array(Int64))", pa.array([[[1], None]])),
    "null for a list": ("Array(Int64)", pa.array([[1], None])),
    "null in a tuple": ("Tuple(x Int8, y String)", pa.array([{"x": 1, "y": None}], STRUCT)),
    "Int32 overflow": ("Int32", pa.array([2**40])),
    "negative to unsigned": ("UInt128", pa.array([-1])),
    "Decimal would round": ("Decimal(10, 2)", pa.array([Decimal("1.005")])),
    "Decimal overflow": ("Decimal(3, 0)", pa.array([1000])),
    "float to int": ("Int64", pa.array([1.5])),
    "decimal to float": ("Float64", pa.array([Decimal("1.5")])),
    "big int to float": ("Float64", pa.array([2**53 + 1])),
    "FixedString too long": ("FixedString(2)", pa.array(["abc"])),
    "FixedString too short": ("FixedString(2)", pa.array(["a"])),
    "Date before 1970": ("Date", pa.array([date(1969, 12, 31)])),
    "Date32 before 1900": ("Date32", pa.array([date(1899, 12, 31)])),
    "dates in a list": ("Array(Date32)", pa.array([[date(2300, 1, 1)]])),
    "DateTime after 2106": ("DateTime('UTC')", pa.array([datetime(2107, 1, 1, tzinfo=UTC)])),
    "DateTime before 1970": ("Nullable(DateTime('UTC'))", pa.array([datetime(1960, 1, 1, tzinfo=UTC), None])),
    "finer than DateTime": ("DateTime('UTC')", pa.array([datetime(2024, 1, 1, 0, 0, 0, 1, UTC)])),
    "finer than DateTime64(4)": ("DateTime64(4, 'UTC')", pa.array([datetime(2024, 1, 1, 0, 0, 0, 10, UTC)])),
    "instant to wall clock": ("DateTime64(6)", pa.array([datetime(2024, 1, 1, tzinfo=UTC)])),
    "wall clock to instant": ("DateTime64(6, 'UTC')", pa.array([datetime(2024, 1, 1)])),
    "moment to date": ("Date32", pa.array([datetime(2024, 1, 1, 12)])),
    "nonsense to UUID": ("UUID", pa.array(["nonsense"])),
    "unknown of an Enum": ("Enum('glad' = 1)", pa.array(["sad"])),
    "number to UUID": ("UUID", pa.array([1])),
    "other members": ("Tuple(x Int8, z String)", pa.array([{"x": 1, "y": "a"}], STRUCT)),
    "computed column": ("Int64 MATERIALIZED 5, w Nullable(Int8) DEFAULT 1", pa.array([1])),
    "broken CHECK": ("Int64, CONSTRAINT positive CHECK v > 0", pa.array([-1])),
}


@pytest.mark.parametrize("case", sorted(WRITTEN))
def test_a_column_fits_its_target_exactly(harness: ClickHouseHarness, case: str) -> None:
    definition, values, expected = WRITTEN[case]
    assert into(harness, definition, values) == expected


@pytest.mark.parametrize("case", sorted(UNWRITTEN))
def test_a_column_that_does_not_fit_is_refused(harness: ClickHouseHarness, case: str) -> None:
    definition, values = UNWRITTEN[case]
    with pytest.raises((ValueRefused, WriteFailed)) as caught:
        into(harness, definition, values)
    assert not caught.value.transient
    assert harness.rows(harness.make_target("kept", WriteMode.APPEND)).num_rows == 0


@pytest.mark.parametrize("kind", ["list", "map", "struct", "nested list"])
def test_nested_values_come_back(harness: ClickHouseHarness, kind: str) -> None:
    columns = {
        "list": pa.array([["a", None], []], pa.list_(pa.string())),
        "map": pa.array([[("a", 1), ("b", None)], []], pa.map_(pa.string(), pa.int64())),
        "struct": pa.array([{"x": 1, "y": None}, {"x": None, "y": "b"}], STRUCT),
        "nested list": pa.array([[[1], []], []], pa.list_(pa.list_(pa.int64()))),
    }
    target = harness.make_target("kept", WriteMode.APPEND)
    harness.publish(pa.table({"v": columns[kind]}), target, unit())
    assert harness.rows(target)["v"].to_pylist() == columns[kind].to_pylist()


@pytest.mark.parametrize("given", [{"port": 9000}, {"port": 9440}, {"dsn": "clickhouse://h:9000/d"}])
def test_the_native_port_is_explained(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="8123"):
        ClickHouseConnection.model_validate(given)


@pytest.mark.parametrize(
    "given", [{"dsn": "mysql://h/d"}, {"dsn": "http://h/d", "host": "x"}, {"hots": "x"}, {"port": "many"}, {"lock_timeout": "soon"}]
)
def test_connection_keys_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClickHouseConnection.model_validate(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"dsn": "https://u:p%40ss@h/d"}, ("h", 8443, "u", "p@ss", "d", True)),
        ({"url": "http://h:9000"}, ("h", 9000, "default", "", "default", False)),
        ({"host": "h", "username": "u", "password": "p w'", "dbname": "d", "secure": True}, ("h", 8443, "u", "p w'", "d", True)),
        ({}, ("localhost", 8123, "default", "", "default", False)),
    ],
)
def test_connection_keys(given: dict[str, Any], expected: tuple[Any, ...]) -> None:
    options = Connector(ClickHouseConnection.model_validate(given), ConnectionContext("x", Path()))._server.options
    assert (options.host, options.port, options.user, options.password, options.database, options.secure) == expected


@pytest.mark.parametrize("engine", ["ReplicatedMergeTree('/a', 'b')", "SharedMergeTree", "Memory", "MergeTree; DROP TABLE x"])
def test_engines_that_are_refused(engine: str) -> None:
    with pytest.raises(ValidationError):
        ClickHouseEndpoint(table="t", engine=engine)


def test_an_unreachable_server(place: ClickHouseServer) -> None:
    connector = Connector(ClickHouseConnection(host=place.host, port=1, password=SECRET), ConnectionContext("warehouse", Path()))
    with pytest.raises(ConnectionFailed, match="warehouse") as caught:
        connector.probe()
    assert caught.value.transient
    assert SECRET not in str(caught.value)


def test_a_database_that_is_not_there(place: ClickHouseServer) -> None:
    options = ClickHouseConnection(host=place.host, port=place.port, database="nowhere")
    connector = Connector(options, ConnectionContext("warehouse", Path()))
    with pytest.raises(DataflowError, match="nowhere"):
        read(connector, "SELECT * FROM things")
    connector.close()
