"""Types of Snowflake, kept or refused, and the errors of its driver."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.connectors import _snowflake_read
from dataflow_assets.connectors import _snowflake_types as types
from dataflow_assets.connectors._snowflake_login import SnowflakeConnection, login
from dataflow_assets.connectors._snowflake_session import Described, failure
from dataflow_assets.connectors._snowflake_types import Declared, route, source_kind, sql_type, taken
from dataflow_assets.connectors.snowflake import Connector, SnowflakeSource
from dataflow_assets.errors import ConnectionFailed, DataflowError, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Bind, Query, ReadRequest, WindowFilter, WriteMode
from dataflow_assets_tests.connectors.harness import day, events, unit
from dataflow_assets_tests.connectors.test_snowflake import SnowflakeHarness, connect
from dataflow_assets_tests.services.ladder import free_port
from dataflow_assets_tests.services.snowflake import Snowflake, run


@pytest.fixture
def harness(snowflake_keys: dict[str, Any], tmp_path: Path) -> Iterator[SnowflakeHarness]:
    made = SnowflakeHarness(tmp_path, keys=snowflake_keys)
    yield made
    made.connector.close()


def read(connector: Connector, *parts: str | Bind, window: WindowFilter | None = None) -> pa.Table:
    with connector.read(ReadRequest(SnowflakeSource(query="rendered"), query=Query(parts), window=window)) as reader:
        return reader.read_all()


# -- types without a server


@pytest.mark.parametrize(
    ("family", "precision", "scale", "kind"),
    [
        ("FIXED", 18, 0, "int64"),
        ("FIXED", 19, 0, "int64"),
        ("FIXED", 20, 0, "decimal128(20, 0)"),
        ("FIXED", 38, 0, "decimal128(38, 0)"),
        ("FIXED", 5, 2, "decimal128(5, 2)"),
        ("REAL", None, None, "double"),
        ("TEXT", None, None, "string"),
        ("BINARY", None, None, "binary"),
        ("BOOLEAN", None, None, "bool"),
        ("DATE", None, None, "date32[day]"),
        ("TIME", 0, 9, "time64[ns]"),
        ("TIME", 0, 3, "time64[us]"),
        ("TIMESTAMP_NTZ", 0, 9, "timestamp[ns]"),
        ("TIMESTAMP_NTZ", 0, 6, "timestamp[us]"),
        ("TIMESTAMP_LTZ", 0, 3, "timestamp[us, tz=UTC]"),
        ("TIMESTAMP_TZ", 0, 9, "timestamp[ns, tz=UTC]"),
        ("VARIANT", None, None, "string"),
        ("OBJECT", None, None, "string"),
        ("ARRAY", None, None, "string"),
    ],
)
def test_what_a_described_column_becomes(family: str, precision: int | None, scale: int | None, kind: str) -> None:
    assert str(source_kind(family, precision, scale, name="v")) == kind


@pytest.mark.parametrize("family", ["GEOGRAPHY", "VECTOR", "MAP", "FILE", "INTERVAL_DAY_TIME", "UNKNOWN"])
def test_a_type_without_an_exact_form_is_refused(family: str) -> None:
    with pytest.raises(ValueRefused, match="'v'") as caught:
        source_kind(family, None, None, name="v")
    assert "cast it" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "declared", "wire", "expression"),
    [
        (pa.int32(), "NUMBER(38,0)", "int64", '"C0"'),
        (pa.int64(), "NUMBER(10,0)", "decimal128(10, 0)", '"C0"'),
        (pa.uint64(), "NUMBER(38,0)", "decimal128(38, 0)", '"C0"'),
        (pa.float32(), "FLOAT", "double", '"C0"'),
        (pa.timestamp("us"), "TIMESTAMP_NTZ(9)", "timestamp[us]", 'TO_TIMESTAMP_NTZ("C0", 6)'),
        (pa.timestamp("ns"), "TIMESTAMP_NTZ(9)", "timestamp[ns]", 'TO_TIMESTAMP_NTZ("C0", 9)'),
        (pa.timestamp("ns"), "TIMESTAMP_NTZ(6)", "timestamp[us]", 'TO_TIMESTAMP_NTZ("C0", 6)'),
        (pa.timestamp("s", "UTC"), "TIMESTAMP_TZ(9)", "timestamp[us, tz=UTC]", 'TO_TIMESTAMP_TZ("C0", 6)'),
        (pa.timestamp("s", "UTC"), "TIMESTAMP_LTZ(0)", "timestamp[us, tz=UTC]", 'TO_TIMESTAMP_LTZ("C0", 6)'),
        (pa.time64("ns"), "TIME(9)", "time64[ns]", 'CAST(TO_TIMESTAMP_NTZ("C0", 9) AS TIME(9))'),
        (pa.string(), "VARIANT", "string", 'PARSE_JSON("C0")'),
        (pa.string(), "ARRAY", "string", 'CAST(PARSE_JSON("C0") AS ARRAY)'),
    ],
    ids=str,
)
def test_how_a_column_travels(kind: pa.DataType, declared: str, wire: str, expression: str) -> None:
    way = route("v", kind, Declared.of(declared))
    assert str(way.wire) == wire
    assert taken('"C0"', way.wire, Declared.of(declared)) == expression
    assert pa.types.is_integer(types.staged_kind(way.wire)) or types.staged_kind(way.wire) == way.wire


@pytest.mark.parametrize(
    ("kind", "declared"), [(pa.int64(), "VARIANT"), (pa.string(), "GEOGRAPHY"), (pa.list_(pa.int64()), "ARRAY")], ids=str
)
def test_a_column_that_cannot_travel_is_refused(kind: pa.DataType, declared: str) -> None:
    with pytest.raises(ValueRefused, match="does not fit"):
        route("v", kind, Declared.of(declared))


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.decimal128(38, 38), pa.decimal256(40, 0)], ids=str
)
def test_a_type_that_has_no_place_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(ValueRefused, match="no exact place"):
        sql_type(kind, name="v")


# -- types in tables

FITS: dict[str, tuple[str, pa.Array, list[Any] | None]] = {
    "short number": ("NUMBER(5,0)", pa.array([5, None]), [5, None]),
    "number too long": ("NUMBER(5,0)", pa.array([2**40]), None),
    "float to number": ("NUMBER(10,2)", pa.array([0.1]), [Decimal("0.10")]),
    "number cut": ("NUMBER(10,2)", pa.array([Decimal("1.005")]), None),
    "number to float": ("FLOAT", pa.array([Decimal("1.5")]), None),
    "text too long": ("VARCHAR(3)", pa.array(["abcd"]), None),
    "text in place": ("VARCHAR(3)", pa.array(["ab\U0001f600"]), ["ab\U0001f600"]),
    "instant to wall clock": ("TIMESTAMP_NTZ", pa.array([datetime(2024, 1, 1, tzinfo=UTC)]), None),
    "instant with offset": (
        "TIMESTAMP_TZ",
        pa.array([datetime(2024, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "America/New_York")),
        [datetime(2024, 1, 1, tzinfo=UTC), None],
    ),
    "date to timestamp": ("TIMESTAMP_NTZ", pa.array([date(9999, 12, 31)]), [datetime(9999, 12, 31)]),
    "text to number": ("NUMBER(10,2)", pa.array(["1.50"]), [Decimal("1.50")]),
    "json": ("VARIANT", pa.array(['{"b": [1, 2.5, null]}', None, '"text"']), ['{"b":[1,2.5,null]}', None, '"text"']),
    "broken json": ("VARIANT", pa.array(["{"]), None),
}


@pytest.mark.parametrize("case", sorted(FITS))
def test_a_column_fits_its_target_or_is_refused(harness: SnowflakeHarness, case: str) -> None:
    definition, values, expected = FITS[case]
    run(harness.keys, f'CREATE TABLE "kept" ("id" NUMBER(19,0), "v" {definition})')
    target = harness.make_target("kept", WriteMode.APPEND)
    table = pa.table({"id": list(range(len(values))), "v": values})
    if expected is None:
        with pytest.raises((ValueRefused, WriteFailed)):
            harness.publish(table, target, unit())
        assert harness.rows(target).num_rows == 0
    else:
        harness.publish(table, target, unit())
        assert harness.rows(target).sort_by("id")["v"].to_pylist() == expected


def test_a_number_of_19_digits_beyond_64_bits_is_refused(harness: SnowflakeHarness) -> None:
    run(harness.keys, 'CREATE TABLE "kept" ("v" NUMBER(19,0))', 'INSERT INTO "kept" VALUES (9223372036854775808)')
    with pytest.raises(ValueRefused, match="'v'"):
        harness.read("kept")
    assert read(harness.connector, 'SELECT CAST("v" AS NUMBER(20,0)) AS v FROM "kept"')["V"].to_pylist() == [2**63]


@pytest.mark.parametrize(
    "value",
    [
        "it's",
        "? %s :1",
        5,
        None,
        Decimal("1.50"),
        True,
        datetime(2024, 3, 10, 1, 2, 3, 456789, tzinfo=UTC),
        datetime(2024, 3, 10),
        date(2024, 2, 29),
    ],
    ids=repr,
)
def test_values_reach_the_query_as_values(harness: SnowflakeHarness, value: Any) -> None:
    assert read(harness.connector, "SELECT ", Bind(value), " AS V -- end")["V"].to_pylist() == [value]


# -- queries


def test_columns_and_window_are_pushed_down(harness: SnowflakeHarness, snowflake_account: Snowflake) -> None:
    harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND), day(0))
    if snowflake_account.emulated:
        snowflake_account.control()
    assert harness.read("things", columns=["note"], window=WindowFilter("at", day(0).window)).column_names == ["note"]
    if snowflake_account.emulated:
        (said,) = [text for text in snowflake_account.control() if "WHERE" in text]
        assert said == 'SELECT "note" AS "note" FROM "things" WHERE "at" >= ? AND "at" < ?'


def test_unquoted_names_of_a_query_are_upper_case(harness: SnowflakeHarness) -> None:
    found = read(harness.connector, "SELECT 1 AS id, 'x' AS \"name\";")
    assert found.column_names == ["ID", "name"]


def test_a_column_that_comes_twice_is_refused() -> None:
    """The emulator would give the second one another name."""
    column = Described("A", "FIXED", 1, 0)
    with pytest.raises(ValueRefused, match="'A' more than once"):
        _snowflake_read.by_name([column, column])


@pytest.mark.parametrize(("query", "hint"), [("SELEC 1", "worksheet"), ('SELECT * FROM "nowhere"', "upper and lower case")])
def test_a_query_that_fails_says_what_to_do(harness: SnowflakeHarness, query: str, hint: str) -> None:
    with pytest.raises(ReadFailed, match="warehouse") as caught:
        read(harness.connector, query)
    assert hint in caught.value.hint
    assert not caught.value.transient


# -- errors and keys


@pytest.mark.parametrize(
    ("number", "name", "kind", "transient"),
    [
        (250001, "OperationalError", ConnectionFailed, True),
        (250003, "OperationalError", ConnectionFailed, True),
        (290503, "ServiceUnavailableError", ConnectionFailed, True),
        (253003, "OperationalError", ConnectionFailed, True),
        (390112, "ProgrammingError", ConnectionFailed, True),
        (390100, "DatabaseError", ConnectionFailed, False),
        (390144, "DatabaseError", ConnectionFailed, False),
        (251005, "ProgrammingError", ConnectionFailed, False),
        (100038, "ProgrammingError", ValueRefused, False),
        (100078, "ProgrammingError", ValueRefused, False),
        (625, "ProgrammingError", WriteFailed, True),
        (604, "ProgrammingError", WriteFailed, False),
        (2003, "ProgrammingError", WriteFailed, False),
        (606, "ProgrammingError", WriteFailed, False),
        (3001, "ProgrammingError", WriteFailed, False),
    ],
)
def test_an_error_is_told_by_its_number(number: int, name: str, kind: type[DataflowError], transient: bool) -> None:
    errors = pytest.importorskip("snowflake.connector.errors")
    made = errors.Error("said", errno=number, send_telemetry=False)
    made.__class__ = getattr(errors, name)
    found = failure(made, "writing", WriteFailed)
    assert type(found) is kind
    assert found.transient is transient
    assert "writing" in found.message


def test_an_unreachable_host(tmp_path: Path, snowflake_account: Snowflake) -> None:
    keys = {"account": "nowhere", "user": "u", "password": "hidden words", "host": "127.0.0.1", "port": free_port(), "protocol": "http"}
    with pytest.raises(ConnectionFailed, match="warehouse") as caught:
        connect(keys, tmp_path, login_timeout="1s", statement_timeout="1s").probe()
    assert caught.value.transient
    assert "hidden words" not in str(caught.value)


def pem(passphrase: bytes | None = None) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how).decode()


def keys_of(folder: Path, **options: Any) -> dict[str, Any]:
    return login(SnowflakeConnection.model_validate({"account": "acme-prod", **options}), ConnectionContext("warehouse", folder))


def test_private_keys_are_read(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    (tmp_path / "key.p8").write_text(pem(b"open sesame"))
    found = [
        keys_of(tmp_path, private_key=pem()),
        keys_of(tmp_path, private_key_path="key.p8", private_key_passphrase="open sesame"),
    ]
    assert all(keys["private_key"].startswith(b"\x30\x82") for keys in found)
    assert all("private_key_passphrase" not in keys for keys in found)
    with pytest.raises(ConnectionFailed, match="private key") as caught:
        keys_of(tmp_path, private_key_path="key.p8", private_key_passphrase="wrong words")
    assert not caught.value.transient
    assert "wrong words" not in str(caught.value)
    with pytest.raises(ConnectionFailed, match="nowhere"):
        keys_of(tmp_path, private_key_path="nowhere.p8")
    with pytest.raises(ValidationError, match="either private_key or private_key_path"):
        SnowflakeConnection.model_validate({"account": "a", "private_key": "x", "private_key_path": "y"})


def test_the_keys_reach_the_driver(tmp_path: Path) -> None:
    found = keys_of(
        tmp_path, user="u", password="p", role="LOADER", warehouse="WH", database="DB", schema="RAW", authenticator="oauth", token="t"
    )
    wanted = {"account": "acme-prod", "user": "u", "password": "p", "role": "LOADER", "warehouse": "WH", "database": "DB", "schema": "RAW"}
    assert wanted.items() <= found.items()
    assert (found["authenticator"], found["token"], found["autocommit"]) == ("oauth", "t", False)
    assert found["session_parameters"]["TIMEZONE"] == "UTC"
    assert found["session_parameters"]["LOCK_TIMEOUT"] == 600
    assert found["platform_detection_timeout_seconds"] == 0
    assert "host" not in found
