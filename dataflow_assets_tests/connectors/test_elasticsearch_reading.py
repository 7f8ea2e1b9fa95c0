"""Reading an index: what is asked for, points in time, faults at every call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from dataflow_assets.connectors import _http_session
from dataflow_assets.connectors.elasticsearch import ElasticsearchSource
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.tables import ReadRequest, WindowFilter
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.over_elasticsearch import connect, read, read_from, stub_of
from dataflow_assets_tests.services.elasticsearch import Cluster, stubbed
from dataflow_assets_tests.services.http_server import Answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 0.001)


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
