"""Faults of the HTTP connector's server: those that pass are waited out, those that stay are told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from dataflow_assets.connectors import _http_session
from dataflow_assets.connectors._http_options import HttpSource
from dataflow_assets.errors import ConnectionFailed, ReadFailed
from dataflow_assets.tables import ReadRequest
from dataflow_assets_tests.connectors.over_http import connect, read_from
from dataflow_assets_tests.connectors.paged_api import IDS, ROWS, Api, read
from dataflow_assets_tests.services.http_server import Answer, Asked, served


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 0.001)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with served(api.route) as api.server:
        yield api


@pytest.mark.parametrize(
    "fault",
    [
        Answer("slow down", 429, {"Retry-After": "0"}),
        Answer("oh", 500),
        Answer("gateway", 502),
        Answer("later", 503),
        Answer(drop=True),
        Answer({"items": ROWS[:10]}, cut=40),
        Answer({"items": ROWS[:10]}, headers={"Content-Length": "", "Transfer-Encoding": "chunked"}, cut=40),
        Answer('{"items": [{"id": 1}, {"id"', headers={"Content-Type": "application/json"}),
        Answer('{"items": [{"id": "abc', headers={"Content-Type": "application/json"}),
        Answer(b"\x1f\x8b broken", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["429", "500", "502", "503", "dropped", "cut off", "cut off chunk", "broken JSON", "broken text", "broken gzip"],
)
@pytest.mark.parametrize("page", [0, 2])
def test_a_fault_passes(api: Api, fault: Answer, page: int) -> None:
    """On the first page or in the middle: every row comes once."""
    plain = api.route
    answers = iter([*[None] * page, fault, fault])

    def sometimes(asked: Asked) -> Answer:
        return next(answers, None) or plain(asked)

    api.server.route = sometimes
    assert read(api, "page", {"type": "page"})["id"].to_pylist() == IDS
    assert len(api.server.log) == 6


@pytest.mark.parametrize(
    ("fault", "kind", "calls", "transient"),
    [
        (Answer("no", 400), ReadFailed, 1, False),
        (Answer("no", 401), ConnectionFailed, 1, False),
        (Answer("no", 403), ConnectionFailed, 1, False),
        (Answer("no", 404), ReadFailed, 1, False),
        (Answer("no", 418), ReadFailed, 1, False),
        (Answer("no", 501), ReadFailed, 1, False),
        (Answer("no", 302), ReadFailed, 1, False),
        (Answer("<html>", 200, {"Content-Type": "text/html; charset=utf-8"}), ReadFailed, 1, False),
        (Answer("nonsense"), ReadFailed, 1, False),
        (Answer(b'[{"a": "\xff"}]'), ReadFailed, 1, False),
        (Answer("[" * 200_000), ReadFailed, 1, False),
        (Answer("busy", 429), ReadFailed, 4, True),
        (Answer("busy", 500), ReadFailed, 4, True),
        (Answer(drop=True), ConnectionFailed, 4, True),
        (Answer("[1, "), ReadFailed, 4, True),
    ],
)
def test_a_fault_that_stays(api: Api, fault: Answer, kind: type[Exception], calls: int, transient: bool) -> None:
    api.server.faults += [fault] * 9
    with pytest.raises(kind, match="/api/page") as caught:
        read(api, "page", {"type": "page"}, connection={"retries": 3})
    assert len(api.server.log) == calls
    assert caught.value.transient is transient  # type: ignore[attr-defined]
    assert caught.value.hint  # type: ignore[attr-defined]


def test_retry_after_is_waited_for(api: Api) -> None:
    for after in ("1", ""):
        api.server.log.clear()
        after = after or format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        api.server.faults.append(Answer("busy", 429, {"Retry-After": after}))
        read(api, "page", {"type": "page", "total": "total"})
        assert api.server.log[1].at - api.server.log[0].at >= 0.9


def test_a_wait_beyond_the_budget_is_not_begun(api: Api) -> None:
    api.server.faults.append(Answer("busy", 503, {"Retry-After": "3600"}))
    with pytest.raises(ReadFailed, match="503: busy") as caught:
        read(api, "page", {"type": "page"}, connection={"retry_budget": "1min"})
    assert len(api.server.log) == 1
    assert caught.value.transient
    assert "wait 3600 s" in caught.value.hint


def test_waits_grow_and_differ(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 0.5)
    monkeypatch.setattr(_http_session._Patience, "pause", lambda _, seconds: waited.append(seconds))
    api.server.faults += [Answer("oh", 500)] * 6
    with pytest.raises(ReadFailed):
        read(api, "page", {"type": "page"}, connection={"retries": 5})
    assert len(waited) == 5
    assert all(0.25 * 2**n <= seconds <= 0.5 * 2**n for n, seconds in enumerate(waited))


def test_the_budget_ends_the_tries(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 10.0)
    monkeypatch.setattr(_http_session._Patience, "pause", lambda *_: None)
    api.server.faults += [Answer("oh", 500)] * 99
    with pytest.raises(ReadFailed):
        read(api, "page", {"type": "page"}, connection={"retries": 50, "retry_budget": "1min"})
    assert 3 <= len(api.server.log) <= 6


def test_a_server_that_is_silent(api: Api) -> None:
    api.server.faults.append(Answer(delay=1.0))
    with pytest.raises(ConnectionFailed, match=r"no answer within 0.2 s"):
        read(api, "page", {"type": "page"}, connection={"timeout": "200ms", "retries": 0})


def test_a_body_that_trickles(api: Api) -> None:
    """Each byte comes in time, the whole would take minutes."""
    api.server.faults.append(Answer({"items": ROWS}, pause=0.05))
    began = time.monotonic()
    with pytest.raises(ReadFailed, match="took too long"):
        read(api, "page", {"type": "page"}, connection={"timeout": "5s", "response_timeout": "300ms", "retries": 0})
    assert time.monotonic() - began < 40


def test_a_body_that_is_too_large(api: Api) -> None:
    api.server.faults.append(Answer([{"a": "x" * 2_000_000}]))
    with pytest.raises(ReadFailed, match="larger than 1 MB"):
        read(api, "page", {"type": "page"}, connection={"max_response_mb": 1})


def test_no_server() -> None:
    with served(lambda _: Answer([])) as server:
        pass
    with pytest.raises(ConnectionFailed, match="refused") as caught:
        read_from(connect(server, retries=1))
    assert caught.value.transient
    with pytest.raises(ConnectionFailed):
        connect(server, retries=0).probe()


def test_the_pace_is_kept(api: Api) -> None:
    read(api, "page", {"type": "page"}, connection={"rate_limit": "20/s"})
    moments = [asked.at for asked in api.server.log][1:]  # the first one waited for its connection
    assert len(moments) == 3
    assert all(later - earlier >= 0.04 for earlier, later in pairwise(moments))


def test_a_read_that_is_left_asks_no_more(api: Api) -> None:
    options = HttpSource.model_validate({"path": "page", "rows": "items", "pagination": {"type": "page"}, "column_types": {}})
    api.rows = [{"id": number} for number in range(200_000)]
    api.most = 5_000
    connector = connect(api.server)
    with connector.read(ReadRequest(options, batch_rows=1_000)) as reader:
        reader.read_next_batch()
    connector.close()
    assert len(api.server.log) < 10
