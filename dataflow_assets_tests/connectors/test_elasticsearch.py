"""The Elasticsearch connector: the contract of a source, types, points in time, faults; against a stub unless a real cluster is named."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from dataflow_assets.connectors import _http_session
from dataflow_assets.connectors._elasticsearch_dates import dates
from dataflow_assets.connectors._json_format import JsonFormat
from dataflow_assets.connectors.elasticsearch import Connector, ElasticsearchConnection, ElasticsearchSource
from dataflow_assets.errors import ConnectionFailed, ReadFailed, ValueRefused
from dataflow_assets.execution.events import StepFinished, WindowFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest, WindowFilter
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.contract_reading import SourceContract, messages
from dataflow_assets_tests.connectors.harness import Lossy, SourceHarness
from dataflow_assets_tests.docs.example_projects import run_pipeline
from dataflow_assets_tests.services.elasticsearch import API_KEY, Cluster, stubbed
from dataflow_assets_tests.services.http_server import Answer

SECRET = API_KEY.partition(":")[2]
MAPPED: dict[str, Any] = {
    "int8": {"type": "byte"},
    "int16": {"type": "short"},
    "int32": {"type": "integer"},
    "int64": {"type": "long"},
    "uint8": {"type": "short"},
    "uint16": {"type": "integer"},
    "uint32": {"type": "long"},
    "uint64": {"type": "unsigned_long"},
    "float": {"type": "float"},
    "double": {"type": "double"},
    "decimal128(5, 2)": {"type": "scaled_float", "scaling_factor": 100.0},
    "bool": {"type": "boolean"},
    "binary": {"type": "binary"},
    "date32[day]": {"type": "date", "format": "strict_date"},
    "timestamp[us, tz=UTC]": {"type": "date"},
    "timestamp[ns, tz=UTC]": {"type": "date_nanos"},
}
_TEXT = {"type": "keyword", "doc_values": False, "index": False}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 0.001)


def connect(cluster: Cluster, **keys: Any) -> Connector:
    """A connector for a test cluster."""
    options = {"url": cluster.url, "verify": cluster.stub is None, **cluster.keys, **keys}  # loading certificates takes time
    return Connector(ElasticsearchConnection.model_validate(options), ConnectionContext("search", Path()))


@dataclass
class ElasticsearchHarness(SourceHarness):
    """An index for each table; types that a mapping has not are declared."""

    cluster: Cluster | None = None
    hostile_tables: Sequence[str] = ("select", "1leading", "single'quote", "semi;colon", "per%cent", "\U0001f600", "dots.and-dashes")
    types: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        assert self.cluster is not None
        if self._connector is None:
            self._connector = connect(self.cluster)
        return self._connector

    def fill(self, name: str, table: pa.Table) -> None:
        assert self.cluster is not None
        kinds = {item.name: getattr(item.type, "value_type", item.type) for item in table.schema}
        self.types = {column: _declared(kind) for column, kind in kinds.items() if str(kind) not in MAPPED}
        properties = {column: self._mapped(kind) for column, kind in kinds.items() if not pa.types.is_null(kind)}
        self.names[name] = self.cluster.put(name, {"properties": properties}, documents(table))

    @staticmethod
    def _mapped(kind: pa.DataType) -> dict[str, Any]:
        return {"type": "date"} if pa.types.is_timestamp(kind) and str(kind) not in MAPPED else MAPPED.get(str(kind), _TEXT)

    def source_options(self, name: str) -> ElasticsearchSource:
        return ElasticsearchSource(index=self.names.get(name, name), column_types=self.types, page_size=10_000)


def _declared(kind: pa.DataType) -> str:
    return "binary" if pa.types.is_fixed_size_binary(kind) else str(kind)


def documents(table: pa.Table) -> list[str]:
    """The rows as JSON; bytes as base64."""
    for number, item in enumerate(table.schema):
        if pa.types.is_binary(item.type) or pa.types.is_fixed_size_binary(item.type):
            texts = [None if value is None else base64.b64encode(value).decode() for value in table.column(number).to_pylist()]
            table = table.set_column(number, item.name, pa.array(texts))
    text = io.BytesIO()
    writer = JsonFormat(lines=True).create(text, table.schema, [])
    for batch in table.to_batches():
        writer.write(batch)
    return text.getvalue().decode().split("\n")[:-1]


class TestElasticsearch(SourceContract):
    """Types by the mapping, others declared."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "float64": Lossy("JSON has no NaN and no infinity"),
        "float32": Lossy("JSON has no NaN and no infinity"),
    }

    @pytest.fixture
    def harness(self, elasticsearch: Cluster, tmp_path: Path) -> Iterator[ElasticsearchHarness]:
        harness = ElasticsearchHarness(tmp_path, cluster=elasticsearch, secret=SECRET if elasticsearch.stub else None)
        yield harness
        harness.connector.close()
        assert not elasticsearch.stub or not elasticsearch.stub.points, "a point in time was left open"


class TestOpenSearch(SourceContract):
    """The same over the calls of OpenSearch."""

    lossy: ClassVar[dict[str, Lossy]] = TestElasticsearch.lossy

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[ElasticsearchHarness]:
        with stubbed("opensearch") as cluster:
            harness = ElasticsearchHarness(tmp_path, cluster=cluster, secret=SECRET)
            yield harness
            harness.connector.close()
            assert cluster.stub is not None
            assert not cluster.stub.points, "a point in time was left open"


# -- types


def read_from(
    connector: Connector, *, within: WindowFilter | None = None, columns: Sequence[str] | None = None, **options: Any
) -> pa.Table:
    """What a source step with these options reads."""
    request = ReadRequest(ElasticsearchSource.model_validate(options), columns=tuple(columns) if columns else None, window=within)
    try:
        with connector.read(request) as reader:
            return reader.read_all()
    finally:
        connector.close()


def read(cluster: Cluster, properties: dict[str, Any], *sources: str, **options: Any) -> pa.Table:
    """What a source reads of an index with this mapping and these documents, in their order."""
    index = cluster.put("things", {"properties": properties}, [(f"{number:04}", source) for number, source in enumerate(sources)])
    found = read_from(connect(cluster), index=index, **options)
    return found.sort_by("_id").drop_columns(["_id"]) if "_id" in found.column_names else found


def column(cluster: Cluster, mapping: dict[str, Any], *values: str, **options: Any) -> tuple[pa.DataType, list[Any]]:
    """The type and the values of one field, given as JSON text."""
    found = read(cluster, {"v": mapping}, *(f'{{"v": {value}}}' for value in values), **options)["v"]
    return found.type, found.to_pylist()


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


# -- what is asked for


def test_window_query_and_columns_are_pushed_down() -> None:
    with stubbed() as cluster:
        assert cluster.stub is not None
        properties = {"at": {"type": "date", "format": "yyyy-MM-dd HH:mm:ss"}, "state": {"type": "keyword"}, "big": {"type": "text"}}
        sources = [f'{{"at": "2024-03-10 {hour:02}:00:00", "state": "{"ab"[hour % 2]}", "big": "x"}}' for hour in range(24)]
        window = WindowFilter("at", Window(datetime(2024, 3, 10, 5, tzinfo=UTC), datetime(2024, 3, 10, 9, tzinfo=UTC)))
        query = {"term": {"state": "a"}}
        found = read(cluster, properties, *sources, within=window, query=query, columns=["state"])
        assert found.to_pydict() == {"state": ["a", "a"]}
        (asked,) = cluster.stub.searched
        assert asked["_source"] == ["state", "at"]
        bounds = {"gte": "2024-03-10T05:00:00.000000Z", "lt": "2024-03-10T09:00:00.000000Z", "format": "strict_date_optional_time"}
        assert asked["query"] == {"bool": {"filter": [query, {"range": {"at": bounds}}]}}


def test_a_window_column_must_be_a_date(elasticsearch: Cluster) -> None:
    window = WindowFilter("v", Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)))
    with pytest.raises(ReadFailed, match="'v' is keyword, so it cannot place a document in a window"):
        read(elasticsearch, {"v": {"type": "keyword"}}, '{"v": "2024-01-01"}', within=window)
    with pytest.raises(ValueRefused, match="several"):
        read(elasticsearch, {"v": {"type": "date"}}, '{"v": ["2024-01-01", "2024-01-05"]}', within=window, columns=["_id"])


def test_a_missing_index_has_near_names(elasticsearch: Cluster) -> None:
    index = elasticsearch.put("orders", {}, [])
    with pytest.raises(ReadFailed, match="there is no index") as caught:
        read_from(connect(elasticsearch), index=index.replace("orders", "oders"))
    assert f"did you mean '{index}'" in caught.value.hint
    with pytest.raises(ReadFailed, match=r"there is no index 'nothing-\*'"):
        read_from(connect(elasticsearch), index="nothing-*")
    with pytest.raises(ReadFailed, match="no field 'sate'") as caught:
        read(elasticsearch, {"state": {"type": "keyword"}}, "{}", columns=["sate"])
    assert caught.value.hint == "did you mean 'state'?"


# -- points in time


@pytest.mark.parametrize("system", ["elasticsearch", "opensearch"])
@pytest.mark.parametrize("slices", [1, 3])
def test_every_document_comes_once(system: str, slices: int) -> None:
    with stubbed(system) as cluster:
        assert cluster.stub is not None
        sources = [f'{{"n": {number}}}' for number in range(257)]
        found = read(cluster, {"n": {"type": "long"}}, *sources, page_size=10, slices=slices)
        assert sorted(found["n"].to_pylist()) == list(range(257))
        assert cluster.stub.points == {}
        ids = [str(body["pit"]["id"]) for body in cluster.stub.searched]
        assert slices > 1 or ids == [f"point-1.{number}" for number in range(26)], "the id of the reply before is the one to use"
        assert [body["track_total_hits"] for body in cluster.stub.searched].count(True) == slices
        sort = {"_shard_doc": "asc"} if system == "elasticsearch" else {"_id": "asc"}
        assert all(body["sort"] == [sort] for body in cluster.stub.searched)


def test_a_read_sees_one_snapshot(elasticsearch: Cluster) -> None:
    index = elasticsearch.put("things", {"properties": {"n": {"type": "long"}}}, [f'{{"n": {number}}}' for number in range(500)])
    connector = connect(elasticsearch)
    with connector.read(ReadRequest(ElasticsearchSource(index=index, page_size=10), batch_rows=10)) as reader:
        first = reader.read_next_batch()
        elasticsearch.add(index, ['{"n": -1}'] * 50)
        rest = reader.read_all()
    connector.close()
    assert sorted([*first["n"].to_pylist(), *rest["n"].to_pylist()]) == list(range(500))


@pytest.fixture
def filled() -> Iterator[Cluster]:
    """A stub with 100 documents in the index `things`."""
    with stubbed() as cluster:
        cluster.put("things", {"properties": {"n": {"type": "long"}}}, [f'{{"n": {number}}}' for number in range(100)])
        yield cluster


def stub_of(cluster: Cluster) -> Any:
    assert cluster.stub is not None
    return cluster.stub


def test_the_point_in_time_is_closed_whatever_happens(filled: Cluster) -> None:
    stub = stub_of(filled)
    connector = connect(filled)
    options = ElasticsearchSource(index="things", page_size=10, slices=2)
    with connector.read(ReadRequest(options, batch_rows=10)) as reader:
        reader.read_next_batch()
    assert stub.points == {}
    with pytest.raises(ReadFailed), connector.read(ReadRequest(ElasticsearchSource(index="things", columns=["nope"]))):
        pass
    assert stub.points == {}
    with pytest.raises(ReadFailed, match="400 parsing_exception: unknown query"):
        read_from(connector, index="things", query={"fuzzy": {"n": 1}})
    assert stub.points == {}
    assert threading.active_count() < 10


def test_a_point_in_time_that_cannot_be_closed_is_no_failure(filled: Cluster) -> None:
    stub = stub_of(filled)

    def forget(number: int, reply: dict[str, Any]) -> None:
        if number == 10:
            stub.points.clear()

    stub.meddle = forget
    assert read_from(connect(filled), index="things", page_size=10).num_rows == 100


def test_an_expired_point_in_time_is_transient(filled: Cluster) -> None:
    stub = stub_of(filled)

    def expire(number: int, reply: dict[str, Any]) -> None:
        if number == 3:
            stub.points.clear()

    stub.meddle = expire
    with pytest.raises(ReadFailed, match="the point in time is gone") as caught:
        read_from(connect(filled), index="things", page_size=10)
    assert caught.value.transient
    assert "keep_alive" in caught.value.hint
    assert len(stub.searched) == 4, "the same search again would not help"


@pytest.mark.parametrize(
    "fault",
    [
        Answer({"error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}, "status": 429}, 429),
        Answer({"error": {"type": "circuit_breaking_exception", "reason": "too large"}, "status": 429}, 429, {"Retry-After": "0"}),
        Answer("no backend", 503),
        Answer(drop=True),
        Answer({"hits": {}}, cut=3),
    ],
    ids=["rejected", "breaker", "503", "dropped", "cut off"],
)
@pytest.mark.parametrize("call", [0, 1, 2, 3, 7])
def test_a_fault_passes(filled: Cluster, fault: Answer, call: int) -> None:
    """At any call of a read: every document comes once, and no point in time stays."""
    stub = stub_of(filled)
    plain = stub.route
    calls = iter([*[None] * call, fault, fault])
    stub.server.route = lambda asked: next(calls, None) or plain(asked)
    assert sorted(read_from(connect(filled), index="things", page_size=20)["n"].to_pylist()) == list(range(100))
    assert len(stub.points) == 0


def test_shards_that_do_not_answer_are_an_error(filled: Cluster) -> None:
    stub = stub_of(filled)
    for broken in ({"_shards": {"total": 2, "failed": 1, "failures": [{"reason": "shard is gone"}]}}, {"timed_out": True}):
        stub.meddle = lambda number, reply, broken=broken: reply.update(broken)
        with pytest.raises(ReadFailed, match="not every shard has answered") as caught:
            read_from(connect(filled, retries=1), index="things")
        assert caught.value.transient
        assert stub.points == {}


def test_documents_that_are_missing_are_noticed(filled: Cluster) -> None:
    """A tiebreaker that is not unique skips documents."""
    stub = stub_of(filled)
    filled.put("twins", {"properties": {"n": {"type": "long"}}}, [f'{{"n": {number // 7}}}' for number in range(100)])
    with pytest.raises(ReadFailed, match="documents came, of 100") as caught:
        read_from(connect(filled), index="twins", tiebreaker="n", page_size=10)
    assert "tiebreaker" in caught.value.hint
    stub.meddle = lambda number, reply: reply["hits"]["hits"].pop()
    with pytest.raises(ReadFailed, match="99 documents came, of 100"):
        read_from(connect(filled), index="things", page_size=100)


# -- the cluster


@pytest.mark.parametrize(("system", "shown"), [("elasticsearch", "Elasticsearch 9.5.0"), ("opensearch", "OpenSearch 2.19.0")])
def test_the_probe_tells_which_it_is(system: str, shown: str) -> None:
    with stubbed(system) as cluster:
        connector = connect(cluster)
        assert connector.probe() == shown
        connector.close()
        stub_of(cluster).server.faults.append(Answer({"hello": "world"}))
        with pytest.raises(ConnectionFailed, match="neither Elasticsearch nor OpenSearch"):
            connector.probe()
        connector.close()


def test_who_may_not_ask_for_the_version_says_which_it_is(filled: Cluster) -> None:
    stub = stub_of(filled)
    plain = stub.route
    stub.server.route = lambda asked: (
        Answer({"error": {"type": "security_exception", "reason": "no"}}, 403) if asked.path == "/" else plain(asked)
    )
    with pytest.raises(ConnectionFailed, match="security_exception") as caught:
        read_from(connect(filled), index="things")
    assert "system: elasticsearch or opensearch" in caught.value.hint
    assert read_from(connect(filled, system="elasticsearch"), index="things").num_rows == 100


@pytest.mark.parametrize(
    "keys",
    [
        {"api_key": "c3R1Yi1pZDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk="},
        {"api_key": API_KEY},
        {"username": "me", "password": "s3cret-pass"},
        {"token": "t0ken-value"},
    ],
)
def test_ways_to_log_in(filled: Cluster, keys: dict[str, str]) -> None:
    stub = stub_of(filled)
    expected = {"password": "Basic bWU6czNjcmV0LXBhc3M=", "token": "Bearer t0ken-value"}
    stub.login = next((value for name, value in expected.items() if name in keys), stub.login)
    filled.keys.clear()
    assert read_from(connect(filled, **keys), index="things").num_rows == 100
    with pytest.raises(ConnectionFailed, match="401 security_exception") as caught:
        read_from(connect(filled, api_key="wrong-key:wrong-secret"), index="things")
    assert not caught.value.transient
    shown = "".join(messages(caught.value))
    assert "wrong-secret" not in shown
    assert base64.b64encode(b"wrong-key:wrong-secret").decode() not in shown


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://es.example.com:9200", "https://es.example.com:9200"),
        ("prod:" + base64.b64encode(b"eu-west-1.aws.found.io$abc$def").decode(), "https://abc.eu-west-1.aws.found.io:443"),
        ("prod:" + base64.b64encode(b"found.io:9243$abc$def").decode(), "https://abc.found.io:9243"),
        ("prod:" + base64.b64encode(b"found.io$abc:9244$").decode(), "https://abc.found.io:9244"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert ElasticsearchConnection.model_validate({"cloud_id": text}).url == url


@pytest.mark.parametrize(
    "keys",
    [
        {"url": "es.example.com"},
        {"url": "https://me:pw@es.example.com"},
        {"url": "https://x", "api_key": "a", "token": "b"},
        {"url": "https://x", "username": "a"},
        {"url": "prod:%%%"},
    ],
)
def test_connections_that_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ElasticsearchConnection.model_validate(keys)


# -- the example


def test_the_example_runs(tmp_path: Path) -> None:
    mapping = {
        "properties": {
            "@timestamp": {"type": "date"},
            "event": {"properties": {"action": {"type": "keyword"}, "outcome": {"type": "keyword"}}},
            "user": {"properties": {"name": {"type": "keyword"}, "id": {"type": "keyword"}}},
            "source": {"properties": {"ip": {"type": "ip"}}},
            "tags": {"type": "keyword"},
        }
    }

    def login(minute: int) -> str:
        outcome = "failure" if minute % 5 == 0 else "success"
        rest = f'"event": {{"action": "login", "outcome": "{outcome}"}}, "source.ip": "10.0.0.{minute}", "tags": ["a", "b"]'
        return f'{{"@timestamp": "2024-01-01T{minute // 60:02}:{minute % 60:02}:00Z", "user": {{"name": "u{minute}", "id": "x"}}, {rest}}}'

    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "logins.yml").write_text(Connector.example)
    with stubbed("opensearch") as cluster:
        cluster.put("logs-auth-1", mapping, [(f"a{minute}", login(minute)) for minute in range(60)])
        cluster.put("logs-auth-2", mapping, [(f"b{minute}", login(minute)) for minute in range(60, 90)])
        cluster.put("logs-other", mapping, [login(0)])
        project = {"project_name": "p", "connections": {"logs": {"type": "opensearch", "url": cluster.url, "api_key": API_KEY}}}
        (tmp_path / "dataflow_project.yml").write_text(yaml.safe_dump(project))
        events = run_pipeline(tmp_path, windows=3)
        assert [event.error for event in events if isinstance(event, WindowFailed)] == []
        assert [event.published.rows for event in events if isinstance(event, StepFinished) and event.published] == [12, 6, 0]
        assert not stub_of(cluster).points
    found = pq.read_table(tmp_path / "lake" / "failed_logins").sort_by("@timestamp").to_pylist()
    assert found[13] == {
        "_id": "b65",
        "@timestamp": datetime(2024, 1, 1, 1, 5, tzinfo=UTC),
        "user.name": "u65",
        "source.ip": "10.0.0.65",
        "tags": ["a", "b"],
    }
