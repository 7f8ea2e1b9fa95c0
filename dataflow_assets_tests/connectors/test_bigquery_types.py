"""Types of BigQuery, kept or refused, and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.connectors import _bigquery_types as types
from dataflow_assets.connectors._bigquery_read import by_name
from dataflow_assets.connectors._bigquery_types import Column, route, source_kind, sql_type, taken
from dataflow_assets.connectors.bigquery import BigQuerySource, Connector
from dataflow_assets.errors import ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.storage.widening import widened
from dataflow_assets.tables import Bind, Query, ReadRequest, WindowFilter, WriteMode
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.test_bigquery import BigQueryHarness
from dataflow_assets_tests.services.bigquery import BigQuery, make_table


@pytest.fixture
def harness(bigquery_keys: dict[str, Any], tmp_path: Path) -> Iterator[BigQueryHarness]:
    made = BigQueryHarness(tmp_path, keys=bigquery_keys)
    yield made
    made.connector.close()


def read(connector: Connector, *parts: str | Bind, window: WindowFilter | None = None) -> pa.Table:
    with connector.read(ReadRequest(BigQuerySource(query="rendered"), query=Query(parts), window=window)) as reader:
        return reader.read_all()


# -- types without a server


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (Column("v", "INT64"), "int64"),
        (Column("v", "NUMERIC"), "decimal128(38, 9)"),
        (Column("v", "NUMERIC", precision=20), "decimal128(20, 0)"),
        (Column("v", "BIGNUMERIC"), "decimal256(76, 38)"),
        (Column("v", "BIGNUMERIC", precision=38, scale=38), "decimal128(38, 38)"),
        (Column("v", "FLOAT64"), "double"),
        (Column("v", "BOOL"), "bool"),
        (Column("v", "STRING", longest=3), "string"),
        (Column("v", "BYTES"), "binary"),
        (Column("v", "DATE"), "date32[day]"),
        (Column("v", "TIME"), "time64[us]"),
        (Column("v", "DATETIME"), "timestamp[us]"),
        (Column("v", "TIMESTAMP"), "timestamp[us, tz=UTC]"),
        (Column("v", "DATETIME", repeated=True), "list<item: timestamp[us]>"),
        (
            Column("v", "STRUCT", fields=(Column("a", "INT64"), Column("b", "STRING", repeated=True))),
            "struct<a: int64, b: list<item: string>>",
        ),
    ],
    ids=str,
)
def test_what_a_described_column_becomes(column: Column, kind: str) -> None:
    assert str(source_kind(column)) == kind


@pytest.mark.parametrize("family", ["GEOGRAPHY", "INTERVAL", "RANGE", "JSON"])
def test_a_type_without_an_exact_form_is_refused(family: str) -> None:
    with pytest.raises(ValueRefused, match="'v'") as caught:
        source_kind(Column("v", "STRUCT", fields=(Column("v", family),)))
    assert "cast it" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (pa.uint8(), "INT64"),
        (pa.uint64(), "NUMERIC(20,0)"),
        (pa.decimal128(38, 9), "NUMERIC(38,9)"),
        (pa.decimal128(38, 8), "BIGNUMERIC(38,8)"),
        (pa.decimal128(12, 2), "NUMERIC(12,2)"),
        (pa.decimal128(3, -2), "NUMERIC(5,0)"),
        (pa.decimal256(76, 38), "BIGNUMERIC(76,38)"),
        (pa.float32(), "FLOAT64"),
        (pa.timestamp("ns"), "DATETIME"),
        (pa.timestamp("s", "Europe/Berlin"), "TIMESTAMP"),
        (pa.time32("s"), "TIME"),
        (pa.list_(pa.timestamp("us", "UTC")), "ARRAY<TIMESTAMP>"),
    ],
    ids=str,
)
def test_what_the_data_make_of_a_table(kind: pa.DataType, made: str) -> None:
    assert sql_type(kind, name="v") == made


@pytest.mark.parametrize(
    "kind",
    [pa.decimal256(40, 0), pa.decimal128(38, -1), pa.struct([("a", pa.int64())]), pa.list_(pa.list_(pa.int64())), pa.duration("s")],
    ids=str,
)
def test_a_type_that_has_no_place_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(ValueRefused, match="no exact place"):
        sql_type(kind, name="v")


@pytest.mark.parametrize(
    ("kind", "column", "wire", "expression"),
    [
        (pa.int32(), Column("v", "INT64"), "int64", "c0"),
        (pa.float64(), Column("v", "NUMERIC"), "decimal128(38, 9)", "PARSE_NUMERIC(c0)"),
        (pa.decimal128(5, 2), Column("v", "BIGNUMERIC"), "decimal256(76, 38)", "PARSE_BIGNUMERIC(c0)"),
        (pa.timestamp("ns"), Column("v", "DATETIME"), "timestamp[us]", "DATETIME(TIMESTAMP_MICROS(c0))"),
        (pa.timestamp("s", "UTC"), Column("v", "TIMESTAMP"), "timestamp[us, tz=UTC]", "TIMESTAMP_MICROS(c0)"),
        (pa.time32("s"), Column("v", "TIME"), "time64[us]", "TIME_ADD(TIME '00:00:00', INTERVAL c0 MICROSECOND)"),
        (pa.string(), Column("v", "JSON"), "string", "PARSE_JSON(c0, wide_number_mode => 'exact')"),
        (pa.list_(pa.int8()), Column("v", "INT64", repeated=True), "list<item: int64>", "c0"),
        (
            pa.list_(pa.timestamp("s", "UTC")),
            Column("v", "TIMESTAMP", repeated=True),
            "list<item: timestamp[us, tz=UTC]>",
            "ARRAY(SELECT TIMESTAMP_MICROS(item) FROM UNNEST(c0) AS item WITH OFFSET AS at ORDER BY at)",
        ),
    ],
    ids=str,
)
def test_how_a_column_travels(kind: pa.DataType, column: Column, wire: str, expression: str) -> None:
    way = route("v", kind, column)
    assert str(way.wire) == wire
    assert taken("c0", column) == expression
    assert types.staged(pa.nulls(0, way.wire)).type == types.staged_kind(way.wire)


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        (pa.int64(), Column("v", "JSON")),
        (pa.string(), Column("v", "GEOGRAPHY")),
        (pa.int64(), Column("v", "INT64", repeated=True)),
        (pa.list_(pa.int64()), Column("v", "INT64")),
        (pa.struct([("a", pa.int64())]), Column("v", "STRUCT", fields=(Column("a", "INT64"),))),
    ],
    ids=str,
)
def test_a_column_that_cannot_travel_is_refused(kind: pa.DataType, column: Column) -> None:
    with pytest.raises(ValueRefused, match="does not fit"):
        route("v", kind, column)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (Column("v", "NUMERIC", precision=10, scale=2), pa.array([Decimal("1.005")])),
        (Column("v", "STRING", longest=3), pa.array(["abcd"])),
        (Column("v", "BYTES", longest=3), pa.array([b"abcd"])),
        (Column("v", "INT64", repeated=True), pa.array([[2**63]], pa.list_(pa.uint64()))),
    ],
    ids=str,
)
def test_a_value_that_its_column_cannot_hold_is_refused(column: Column, values: pa.Array) -> None:
    with pytest.raises(ValueRefused, match=r"'v'|'element'"):
        route("v", values.type, column).fit(values)
    assert len(route("v", pa.string(), Column("v", "STRING", longest=3)).fit(pa.array(["ab\U0001f600"]))) == 1


@pytest.mark.parametrize(
    ("column", "incoming", "made"),
    [
        (Column("v", "NUMERIC", precision=5, scale=2), pa.decimal128(7, 3), "NUMERIC(7,3)"),
        (Column("v", "NUMERIC", precision=20), pa.decimal128(30, 0), "BIGNUMERIC"),
        (Column("v", "NUMERIC"), pa.decimal128(38, 9), None),
        (Column("v", "NUMERIC"), pa.decimal128(30, 15), "BIGNUMERIC"),
        (Column("v", "NUMERIC"), pa.int64(), None),
        (Column("v", "BIGNUMERIC", precision=30), pa.decimal128(35, 0), "BIGNUMERIC(35,0)"),
        (Column("v", "BIGNUMERIC"), pa.decimal128(38, 38), None),
        (Column("v", "NUMERIC", repeated=True), pa.list_(pa.decimal128(38, 0)), None),
        (Column("v", "INT64"), pa.uint64(), None),
        (Column("v", "INT64"), pa.decimal128(38, 0), None),
        (Column("v", "GEOGRAPHY"), pa.string(), None),
    ],
    ids=str,
)
def test_what_a_column_is_widened_to(column: Column, incoming: pa.DataType, made: str | None) -> None:
    """BigQuery lets a NUMERIC become a BIGNUMERIC; the emulator knows one type for both."""
    held = types.held_column(column)
    wider = widened(held.kind, incoming) if held.kind is not None else None
    assert (types.agreed_type(wider, held) if wider is not None else None) == made


def test_a_column_tells_whether_it_may_be_left_out() -> None:
    bigquery = pytest.importorskip("google.cloud.bigquery")
    of = {"name": "v", "type": "INTEGER", "mode": "REQUIRED", "defaultValueExpression": "0"}
    held = types.held_column(Column.of(bigquery.SchemaField.from_api_repr(of)))
    assert (held.declared, held.nullable, held.filled) == ("INT64", False, True)
    held = types.held_column(Column.of(bigquery.SchemaField("v", "STRING", max_length=5)))
    assert (held.declared, held.nullable, held.filled, held.longest) == ("STRING(5)", True, False, 5)
    assert types.held_column(Column.of(bigquery.SchemaField("v", "STRING", mode="REPEATED", max_length=5))).longest is None


def test_no_column_is_wider_than_a_bignumeric() -> None:
    with pytest.raises(ValueRefused, match="no exact place"):
        types.agreed_type(pa.decimal256(60, 9), types.held_column(Column("v", "NUMERIC")))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ValueRefused, match="more than once"):
        by_name([Column("v", "INT64"), Column("v", "STRING")])


# -- types in tables

FITS: dict[str, tuple[dict[str, Any], pa.Array, list[Any] | None]] = {
    "float to numeric": ({"type": "NUMERIC"}, pa.array([0.1]), [Decimal("0.1")]),
    "number to float": ({"type": "FLOAT64"}, pa.array([2**53 + 1]), None),
    "number too long": ({"type": "INT64"}, pa.array([2**63], pa.uint64()), None),
    "instant to wall clock": ({"type": "DATETIME"}, pa.array([datetime(2024, 1, 1, tzinfo=UTC)]), None),
    "date to wall clock": ({"type": "DATETIME"}, pa.array([date(9999, 12, 31)]), [datetime(9999, 12, 31)]),
    "json": ({"type": "JSON"}, pa.array(['{"b": [1, 2.5, null]}', None, '"text"']), ['{"b":[1,2.5,null]}', None, '"text"']),
    "broken json": ({"type": "JSON"}, pa.array(["{"]), None),
    "list": ({"type": "INT64", "mode": "REPEATED"}, pa.array([[3, 1, 2], []]), [[3, 1, 2], []]),
    "list of instants": (
        {"type": "TIMESTAMP", "mode": "REPEATED"},
        pa.array([[datetime(2024, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)], []], pa.list_(pa.timestamp("us", "UTC"))),
        [[datetime(2024, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)], []],
    ),
    "list of texts": ({"type": "STRING", "mode": "REPEATED"}, pa.array([["b", "a'"], ["\U0001f600"]]), [["b", "a'"], ["\U0001f600"]]),
    "null list": ({"type": "INT64", "mode": "REPEATED"}, pa.array([[1], None]), None),
    "null in a list": ({"type": "INT64", "mode": "REPEATED"}, pa.array([[1, None]]), None),
}


@pytest.mark.parametrize("case", sorted(FITS))
def test_a_column_fits_its_target_or_is_refused(harness: BigQueryHarness, case: str) -> None:
    declared, values, expected = FITS[case]
    make_table(harness.keys, "kept", {"name": "id", "type": "INT64"}, {"name": "v", **declared})
    target = harness.make_target("kept", WriteMode.APPEND)
    table = pa.table({"id": list(range(len(values))), "v": values})
    if expected is None:
        with pytest.raises((ValueRefused, WriteFailed)):
            harness.publish(table, target, unit())
        assert harness.rows(target).num_rows == 0
    else:
        harness.publish(table, target, unit())
        assert harness.rows(target).sort_by("id")["v"].to_pylist() == expected


def test_a_table_is_made_of_lists(harness: BigQueryHarness) -> None:
    target = harness.make_target("kept", WriteMode.APPEND)
    moments = pa.array([[time(1, 2, 3)], []], pa.list_(pa.time64("us")))
    table = pa.table({"id": [1, 2], "numbers": pa.array([[1, 2], []], pa.list_(pa.int16())), "times": moments})
    harness.publish(table, target, unit())
    assert harness.rows(target).sort_by("id").to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    "value",
    [
        *("it's", 'say "@p1" ? %s :1', "\\", "\U0001f600", 5, -(2**63), 2**70, None, Decimal("1.50"), True, 0.1),
        *(datetime(2024, 3, 10, 1, 2, 3, 456789, tzinfo=UTC), datetime(2024, 3, 10), date(2024, 2, 29), time(1, 2, 3)),
    ],
    ids=repr,
)
def test_values_reach_the_query_as_values(harness: BigQueryHarness, value: Any) -> None:
    assert read(harness.connector, "SELECT ", Bind(value), " AS V -- end")["V"].to_pylist() == [value]


# -- queries


def test_columns_and_window_are_pushed_down(harness: BigQueryHarness, bigquery_project: BigQuery) -> None:
    harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND), day(0))
    if bigquery_project.emulated:
        bigquery_project.control()
    window = WindowFilter("at", day(0).window)  # type: ignore[arg-type]
    assert harness.read("things", columns=["note"], window=window).column_names == ["note"]
    if bigquery_project.emulated:
        address = f"`test-project`.`{harness.keys['dataset']}`.`things`"
        assert bigquery_project.control() == [f"SELECT `note` AS `c0` FROM {address} WHERE `at` >= @p1 AND `at` < @p2"]


def test_a_query_may_have_values_a_window_and_a_comment(harness: BigQueryHarness) -> None:
    harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND), day(0))
    parts = ("SELECT * FROM ", f"{harness.keys['dataset']}.things WHERE note = ", Bind("first 3"), " -- end")
    assert read(harness.connector, *parts, window=WindowFilter("at", day(0).window))["note"].to_pylist() == ["first 3"]  # type: ignore[arg-type]
    assert read(harness.connector, *parts, window=WindowFilter("at", day(1).window)).num_rows == 0  # type: ignore[arg-type]


def test_a_query_that_is_none_is_told_as_such(harness: BigQueryHarness) -> None:
    for text in ("SELECT nonesuch FROM UNNEST([1]) AS x", "SELECT 1 FROM nodataset.t"):
        with pytest.raises(ReadFailed, match="the query of connection 'warehouse'") as caught:
            read(harness.connector, text)
        assert caught.value.hint


def test_json_and_nested_columns_are_read(harness: BigQueryHarness) -> None:
    found = read(
        harness.connector,
        """SELECT STRUCT(1 AS x, 'a' AS y) AS s, [1, 2] AS l, [STRUCT('b' AS z)] AS ls, DATETIME '2024-01-02 03:04:05.678901' AS d""",
    )
    assert found.to_pylist() == [
        {"s": {"x": 1, "y": "a"}, "l": [1, 2], "ls": [{"z": "b"}], "d": datetime(2024, 1, 2, 3, 4, 5, 678901)},
    ]


# -- the Storage Read API, and REST in its place

MIXED = pa.table(
    {
        "id": pa.array(range(3_000), pa.int64()),
        "f": pa.array([None if n % 7 == 0 else n / 3 for n in range(3_000)], pa.float64()),
        "b": pa.array([n % 2 == 0 for n in range(3_000)]),
        "t": pa.array([f"é{n}\U0001f600" for n in range(3_000)]),
        "raw": pa.array([bytes([n % 256]) for n in range(3_000)]),
        "d": pa.array(list(range(3_000)), pa.date32()),
        "tm": pa.array([n * 1_001 for n in range(3_000)], pa.time64("us")),
        "dt": pa.array([n * 10**12 + 1 for n in range(3_000)], pa.timestamp("us")),
        "ts": pa.array([n * 10**12 + 1 for n in range(3_000)], pa.timestamp("us", "UTC")),
        "n": pa.array([Decimal(n) / 8 for n in range(3_000)], pa.decimal128(38, 9)),
        "l": pa.array([[n, n + 1] for n in range(3_000)]),
    }
)


@pytest.mark.parametrize("how", ["storage", "denied", "rest"])
def test_a_large_result_comes_back_whole(harness: BigQueryHarness, bigquery_project: BigQuery, how: str) -> None:
    harness.publish(MIXED, harness.make_target("mixed", WriteMode.APPEND), unit())
    other = BigQueryHarness(harness.scratch, keys={**harness.keys, "storage_api": how != "rest"})
    if bigquery_project.emulated:
        bigquery_project.control(deny_storage=int(how == "denied"))
    try:
        assert_same_rows(MIXED.drop_columns("l"), other.read("mixed", columns=MIXED.column_names[:-1]))
        assert other.read("mixed", columns=["id", "l"]).sort_by("id")["l"].to_pylist() == MIXED["l"].to_pylist()
    finally:
        other.connector.close()
        if bigquery_project.emulated:
            assert bigquery_project.control(deny_storage=0).count("CreateReadSession") == (2 if how == "storage" else 0)
