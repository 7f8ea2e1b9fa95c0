"""Types of Elasticsearch fields: kept exactly, or refused with the document."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.connectors._elasticsearch_dates import dates
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets_tests.connectors.over_elasticsearch import column, connect, read, read_from
from dataflow_assets_tests.services.elasticsearch import Cluster

KEPT: dict[str, tuple[dict[str, Any], list[str], pa.DataType, list[Any]]] = {
    "long": ({"type": "long"}, ["9223372036854775807", '"7"', "7.0", "1e3", "null", "[]"], pa.int64(), [2**63 - 1, 7, 7, 1000, None, None]),
    "unsigned_long": ({"type": "unsigned_long"}, ["18446744073709551615"], pa.uint64(), [2**64 - 1]),
    "double": ({"type": "double"}, ["0.1", "1e300", '"2.5"', "3"], pa.float64(), [0.1, 1e300, 2.5, 3.0]),
    "float": ({"type": "float"}, ["0.1"], pa.float64(), [0.1]),
    "scaled_float": (
        {"type": "scaled_float", "scaling_factor": 100},
        ["12.34", "1", "-0.10"],
        pa.decimal128(19, 2),
        [Decimal("12.34"), Decimal(1), Decimal("-0.10")],
    ),
    "scaled_float by no power of ten": ({"type": "scaled_float", "scaling_factor": 60}, ["0.5"], pa.float64(), [0.5]),
    "boolean": ({"type": "boolean"}, ["true", '"false"', '""', "null"], pa.bool_(), [True, False, False, None]),
    "keyword": ({"type": "keyword"}, ['"a"', "5", "1.50", "true", '["b"]'], pa.string(), ["a", "5", "1.50", "true", "b"]),
    "ip": ({"type": "ip"}, ['"192.168.0.1"', '"2001:db8::1"'], pa.string(), ["192.168.0.1", "2001:db8::1"]),
    "binary": ({"type": "binary"}, ['"AAEC"'], pa.binary(), [b"\0\1\2"]),
    "constant_keyword": ({"type": "constant_keyword", "value": "x"}, ["null"], pa.string(), ["x"]),
    "date": (
        {"type": "date"},
        ['"2024-02-29T12:30:15.123456Z"', '"2024-02-29"', "1709164800000", '"2024-02-29T01:00+01:00"', '"2024"'],
        pa.timestamp("us", "UTC"),
        [datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC), *[datetime(2024, 2, 29, tzinfo=UTC)] * 3, datetime(2024, 1, 1, tzinfo=UTC)],
    ),
    "date with formats": (
        {"type": "date", "format": "yyyy-MM-dd HH:mm:ss||dd/MM/yyyy||epoch_second"},
        ['"2024-02-29 12:00:00"', '"29/02/2024"', "1709164800", "1709164800.5"],
        pa.timestamp("us", "UTC"),
        [
            datetime(2024, 2, 29, 12, tzinfo=UTC),
            datetime(2024, 2, 29, tzinfo=UTC),
            datetime(2024, 2, 29, tzinfo=UTC),
            datetime(2024, 2, 29, 0, 0, 0, 500_000, tzinfo=UTC),
        ],
    ),
    "date of days": (
        {"type": "date", "format": "basic_date||strict_date"},
        ['"20240229"', '"2024-03-01"'],
        pa.date32(),
        [date(2024, 2, 29), date(2024, 3, 1)],
    ),
    "date of an unknown format": ({"type": "date", "format": "EEE dd MMM yyyy"}, ['"Thu 29 Feb 2024"'], pa.string(), ["Thu 29 Feb 2024"]),
    "object": ({"properties": {"a": {"type": "double"}}}, ['{"a": 1.10, "b": [1]}', "null"], pa.string(), ['{"a":1.10,"b":[1]}', None]),
    "nested": ({"type": "nested", "properties": {"a": {"type": "long"}}}, ['[{"a": 1}, {"a": 2}]'], pa.string(), ['[{"a":1},{"a":2}]']),
    "geo_point": ({"type": "geo_point"}, ['{"lat": 1.5, "lon": 2}', '"1.5,2"'], pa.string(), ['{"lat":1.5,"lon":2}', "1.5,2"]),
}


@pytest.mark.parametrize("case", KEPT)
def test_values_are_kept(elasticsearch: Cluster, case: str) -> None:
    mapping, values, kind, expected = KEPT[case]
    assert column(elasticsearch, mapping, *values) == (kind, expected)


def test_nanoseconds(elasticsearch: Cluster) -> None:
    found = read(elasticsearch, {"v": {"type": "date_nanos"}}, '{"v": "2024-02-29T00:00:00.123456789Z"}')["v"]
    assert found.cast(pa.int64()).to_pylist() == [1709164800123456789]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a fraction in a long": ({"type": "long"}, "5.5", "5.5 cannot be kept as int64: it has a fraction"),
    "too large": ({"type": "byte"}, "128", "128 cannot be kept as int8"),
    "text in a long": ({"type": "long"}, '"many"', '"many" cannot be kept as int64'),
    "true in a long": ({"type": "long"}, "true", "true cannot be kept as int64"),
    "digits that a double loses": ({"type": "double"}, "0.12345678901234567890", "more digits than a float keeps"),
    "beyond a double": ({"type": "double"}, "1e400", "more digits than a float keeps"),
    "more digits than scaled": ({"type": "scaled_float", "scaling_factor": 10}, "1.25", "more digits than decimal128"),
    "no truth": ({"type": "boolean"}, '"yes"', "cannot be kept as bool"),
    "several values": ({"type": "keyword"}, '["a", "b"]', "there are several values; name the column in arrays"),
    "an object in a keyword": ({"type": "keyword"}, '{"a": 1}', "cannot be kept as string"),
    "no date": ({"type": "date"}, '"soon"', "cannot be kept as timestamp"),
    "no day": ({"type": "date"}, '"2023-02-29"', "cannot be kept as timestamp"),
    "nanoseconds in a date": ({"type": "date"}, '"2024-01-01T00:00:00.123456789Z"', "does not keep its last digits"),
    "no base64": ({"type": "binary"}, '"*"', "cannot be kept as binary"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_kept_is_refused_with_its_document(elasticsearch: Cluster, case: str) -> None:
    mapping, value, culprit = REFUSED[case]
    if elasticsearch.stub is None:
        pytest.skip("a real index refuses most of these itself")
    with pytest.raises(ValueRefused, match="document '0001': field 'v'") as caught:
        column(elasticsearch, mapping, "null", value)
    assert culprit in caught.value.message
    assert "v" in caught.value.hint
    assert not elasticsearch.stub.points


def test_declared_types_take_the_place_of_the_mapping(elasticsearch: Cluster) -> None:
    assert column(elasticsearch, {"type": "double"}, "0.12345678901234567890", column_types={"v": "decimal(38,20)"}) == (
        pa.decimal128(38, 20),
        [Decimal("0.12345678901234567890")],
    )
    assert column(elasticsearch, {"type": "date"}, '"2024-01-01T00:00:00Z"', column_types={"v": "timestamp"}) == (
        pa.timestamp("us"),
        [datetime(2024, 1, 1)],
    )
    assert column(elasticsearch, {"type": "keyword"}, '["a", "b"]', column_types={"v": "string"})[1] == ['["a","b"]']
    with pytest.raises(ValueRefused, match="column 'v': dates of the format 'EEE' cannot be read; take string"):
        column(elasticsearch, {"type": "date", "format": "EEE"}, '"x"', column_types={"v": "date"})


def test_lists(elasticsearch: Cluster) -> None:
    kind, values = column(elasticsearch, {"type": "long"}, "[1, 2]", "3", "null", "[]", "[null, 4]", arrays=["v"])
    assert kind == pa.list_(pa.int64())
    assert values == [[1, 2], [3], None, [], [None, 4]]
    found = read(
        elasticsearch,
        {"items": {"properties": {"sku": {"type": "keyword"}}}},
        '{"items": [{"sku": "a"}, {"sku": ["b", "c"]}, {}]}',
        columns=["items.sku"],
        arrays=["items.sku"],
    )
    assert found["items.sku"].to_pylist() == [["a", "b", "c"]]


STRUCT = {
    "properties": {
        "name": {"type": "keyword"},
        "born": {"type": "date", "format": "strict_date"},
        "address": {"properties": {"zip": {"type": "integer"}}},
        "tags": {"type": "keyword"},
    }
}


def test_structs(elasticsearch: Cluster) -> None:
    found = read(
        elasticsearch,
        {"user": STRUCT, "orders": {"type": "nested", "properties": {"n": {"type": "long"}}}},
        '{"user": {"name": "a", "born": "2000-01-01", "address": {"zip": 7}, "tags": ["x", "y"]}, "orders": [{"n": 1}, {"n": 2}]}',
        '{"user": {"address.zip": 8, "tags": "z"}, "orders": {"n": 3}}',
        '{"user.name": "dotted", "user.address": {"zip": 9}}',
        nested="struct",
        arrays=["user.tags"],
        column_types={"user.address.zip": "string"},
    )
    none = {"name": None, "born": None, "address": None, "tags": None}
    assert found["user"].to_pylist() == [
        {"name": "a", "born": date(2000, 1, 1), "address": {"zip": "7"}, "tags": ["x", "y"]},
        {**none, "address": {"zip": "8"}, "tags": ["z"]},
        {**none, "name": "dotted", "address": {"zip": "9"}},
    ]
    assert found["orders"].to_pylist() == [[{"n": 1}, {"n": 2}], [{"n": 3}], None]
    assert found.schema.field("orders").type == pa.list_(pa.struct([("n", pa.int64())]))


def test_a_struct_loses_no_field(elasticsearch: Cluster) -> None:
    mapping = {"properties": {"a": {"type": "long"}}, "dynamic": False}
    with pytest.raises(ValueRefused, match="it has b, which the mapping has not; take nested: text"):
        column(elasticsearch, mapping, '{"a": 1, "b": 2}', nested="struct")
    assert column(elasticsearch, mapping, '{"a": 1, "b": 2}')[1] == ['{"a":1,"b":2}']


def test_dotted_names_and_objects_are_the_same(elasticsearch: Cluster) -> None:
    properties = {"user": {"properties": {"name": {"type": "keyword"}, "age": {"type": "byte"}}}}
    sources = ('{"user": {"name": "a", "age": 1}}', '{"user.name": "b", "user": {"age": 2}}', '{"user.name": "c"}', "{}")
    found = read(elasticsearch, properties, *sources, columns=["_id", "user.name", "user.age"])
    assert found.to_pydict() == {"user.name": ["a", "b", "c", None], "user.age": [1, 2, None, None]}
    whole = read(elasticsearch, properties, *sources)["user"].to_pylist()
    assert [value and json.loads(value) for value in whole] == [{"name": "a", "age": 1}, {"name": "b", "age": 2}, {"name": "c"}, None]


def test_ids_and_fields_that_are_not_mapped(elasticsearch: Cluster) -> None:
    index = elasticsearch.put(
        "things", {"dynamic": False, "properties": {"a": {"type": "long"}}}, [("k1", '{"a": 1, "extra": {"x": 1.10}}')]
    )
    assert read_from(connect(elasticsearch), index=index).to_pylist() == [{"_id": "k1", "a": 1}]
    assert read_from(connect(elasticsearch), index=index, columns=["_index", "_id"]).to_pylist() == [{"_index": index, "_id": "k1"}]
    found = read_from(connect(elasticsearch), index=index, column_types={"extra": "string"})
    assert found.to_pylist() == [{"_id": "k1", "a": 1, "extra": '{"x":1.10}'}]


def test_several_indices(elasticsearch: Cluster) -> None:
    first = {"a": {"type": "integer"}, "b": {"type": "keyword"}, "o": {"properties": {"x": {"type": "long"}}}}
    second = {"a": {"type": "long"}, "b": {"type": "long"}, "o": {"properties": {"y": {"type": "long"}}}, "c": {"type": "boolean"}}
    elasticsearch.put("many-1", {"properties": first}, [("1", '{"a": 1, "b": "x", "o": {"x": 1}}')])
    elasticsearch.put("many-2", {"properties": second}, [("2", '{"a": 4294967296, "b": 2, "c": true, "o": {"y": 2}}')])
    index = f"{elasticsearch.prefix}many-*"
    with pytest.raises(ReadFailed, match="'b' is keyword and long in different indices") as caught:
        read_from(connect(elasticsearch), index=index)
    assert "column_types: {b: string}" in caught.value.hint
    found = read_from(connect(elasticsearch), index=index, column_types={"b": "string"}, nested="struct").sort_by("_id").to_pydict()
    assert found == {
        "_id": ["1", "2"],
        "a": [1, 4294967296],
        "b": ["x", "2"],
        "o": [{"x": 1, "y": None}, {"x": None, "y": 2}],
        "c": [None, True],
    }


@pytest.mark.parametrize(
    ("source", "culprit"),
    [
        ({"enabled": False}, "does not keep its documents"),
        ({"excludes": ["v*"]}, "does not keep 'v'"),
        ({"includes": ["w"]}, "does not keep 'v'"),
    ],
)
def test_documents_that_are_not_kept_are_not_read_as_nulls(elasticsearch: Cluster, source: dict[str, Any], culprit: str) -> None:
    mapping = {"_source": source, "properties": {"v": {"type": "long"}, "w": {"type": "long"}}}
    index = elasticsearch.put("things", mapping, ['{"v": 1, "w": 2}'])
    with pytest.raises(ReadFailed, match=culprit):
        read_from(connect(elasticsearch), index=index)


@pytest.mark.parametrize(
    ("formats", "text", "expected"),
    [
        ("strict_date_optional_time", "2024-01-01T00:00:00,5-0130", "2024-01-01T01:30:00.500000+00:00"),
        ("strict_date_optional_time", "2024-01-01T10", "2024-01-01T10:00:00+00:00"),
        ("strict_date_optional_time", "2024-1-1", None),
        ("yyyy-M-d", "2024-1-1", "2024-01-01T00:00:00+00:00"),
        ("date_time", "2024-01-01T00:00:00.001Z", "2024-01-01T00:00:00.001000+00:00"),
        ("basic_date_time_no_millis", "20240101T120000Z", "2024-01-01T12:00:00+00:00"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "2024-01-01T00:00:00.250Z", "2024-01-01T00:00:00.250000+00:00"),
        ("yyyy/MM/dd''HH", "2024/01/01'07", "2024-01-01T07:00:00+00:00"),
        ("8uuuu-MM-dd HH:mm:ssXXX", "2024-01-01 00:00:00+02:00", "2023-12-31T22:00:00+00:00"),
        ("epoch_millis", "-1", "1969-12-31T23:59:59.999000+00:00"),
        ("epoch_millis", "soon", None),
        ("strict_date_optional_time", "2024-01-01T25:00:00Z", None),
    ],
)
def test_formats_of_dates(formats: str, text: str, expected: str | None) -> None:
    reader = dates(formats)
    assert reader is not None
    found = reader.read(text)
    shown = None if found is None else datetime.fromtimestamp(found // 10**9, UTC).replace(microsecond=found // 1000 % 10**6).isoformat()
    assert shown == expected


@pytest.mark.parametrize("formats", ["EEE", "yyyy-MM-dd a", "yy-MM-dd", "week_date", "yyyy[-MM"])
def test_formats_that_are_not_known(formats: str) -> None:
    assert dates(formats) is None
