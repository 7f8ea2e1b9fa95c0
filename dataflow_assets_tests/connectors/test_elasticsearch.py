"""The Elasticsearch connector: the contract of a source, logging in, the example; against a stub unless a real cluster is named."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from dataflow_assets.connectors import _http_session
from dataflow_assets.connectors.elasticsearch import Connector, ElasticsearchConnection, ElasticsearchSource
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.execution.events import StepFinished, WindowFailed
from dataflow_assets.storage.casts import is_bytes, is_list, plain_type
from dataflow_assets_tests.connectors.arrow_types import FLOATS
from dataflow_assets_tests.connectors.contract_reading import SourceContract, messages
from dataflow_assets_tests.connectors.harness import Lossy, SourceHarness, column_type
from dataflow_assets_tests.connectors.json_rows import as_json_text, json_rows
from dataflow_assets_tests.connectors.over_elasticsearch import connect, read_from, stub_of
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


@dataclass
class ElasticsearchHarness(SourceHarness):
    """An index for each table; types that a mapping has not are declared."""

    cluster: Cluster | None = None
    hostile_tables: Sequence[str] = ("select", "1leading", "single'quote", "semi;colon", "per%cent", "\U0001f600", "dots.and-dashes")
    types: dict[str, str] = field(default_factory=dict)
    arrays: list[str] = field(default_factory=list)
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
        kinds = {item.name: plain_type(item.type) for item in table.schema}
        told = {column: kind for column, kind in kinds.items() if str(kind) not in MAPPED and not pa.types.is_nested(kind)}
        self.types = {column: "binary" if is_bytes(kind) else column_type(kind) for column, kind in told.items()}
        self.arrays = [column for column, kind in kinds.items() if is_list(kind) or pa.types.is_list_view(kind)]
        properties = {column: _mapped(kind) for column, kind in kinds.items() if not pa.types.is_null(kind)}
        self.names[name] = self.cluster.put(name, {"properties": properties}, json_rows(table, bytes_as_base64=True))

    def source_options(self, name: str) -> ElasticsearchSource:
        options = {"column_types": self.types, "arrays": self.arrays, "nested": "struct", "page_size": 10_000}
        return ElasticsearchSource(index=self.names.get(name, name), **options)


def _mapped(kind: pa.DataType) -> dict[str, Any]:
    """A list is mapped as its values are."""
    if pa.types.is_map(kind):
        return {"type": "flattened"}
    if pa.types.is_struct(kind):
        return {"properties": {item.name: _mapped(item.type) for item in kind}}
    if pa.types.is_nested(kind):
        return _mapped(kind.value_type)
    return {"type": "date"} if pa.types.is_timestamp(kind) and str(kind) not in MAPPED else MAPPED.get(str(kind), _TEXT)


class TestElasticsearch(SourceContract):
    """Types by the mapping, others declared."""

    lossy: ClassVar[dict[str, Lossy]] = {
        **dict.fromkeys(FLOATS, Lossy("JSON has no NaN and no infinity")),
        "duration_us": Lossy("JSON has no durations"),
        "list_of_lists": Lossy("an index knows no lists of lists"),
        "map": Lossy("a map has keys that no mapping names: it becomes JSON text", as_json_text),
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


@pytest.fixture
def filled() -> Iterator[Cluster]:
    """A stub with 100 documents in the index `things`."""
    with stubbed() as cluster:
        cluster.put("things", {"properties": {"n": {"type": "long"}}}, [f'{{"n": {number}}}' for number in range(100)])
        yield cluster


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
