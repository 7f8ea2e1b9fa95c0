"""Pages, faults and redirects of the HTTP connector, against a real local server that fails on purpose."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.connectors import _http_session
from dataflow_assets.connectors._http_options import HttpSource
from dataflow_assets.errors import ConnectionFailed, ReadFailed
from dataflow_assets.tables import ReadRequest
from dataflow_assets_tests.connectors.contract_reading import messages
from dataflow_assets_tests.connectors.test_http import connect, read_from
from dataflow_assets_tests.services.http_server import Answer, Asked, Server, served

ROWS = [{"id": number, "v": f"row {number}"} for number in range(25)]
IDS = list(range(25))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 0.001)


class Api:
    """25 rows, at most 10 at a time, in every manner of pages."""

    def __init__(self) -> None:
        self.rows, self.most, self.server, self.steps = ROWS, 10, Server(self.route), 0

    def route(self, asked: Asked) -> Answer:
        kind = asked.path.rpartition("/")[2]
        found: Answer = getattr(self, kind)(asked)
        self.steps += 1
        return found

    def cut(self, start: int, size: int | None = None) -> list[dict[str, Any]]:
        return self.rows[start : start + min(size or self.most, self.most)]

    def page(self, asked: Asked) -> Answer:
        return Answer({"items": self.cut((int(asked.one("page")) - 1) * self.most), "total": len(self.rows)})

    def offset(self, asked: Asked) -> Answer:
        found = self.cut(int(asked.one("offset")), int(asked.one("limit", "10")))
        return Answer({"items": found}, headers={"X-Total-Count": str(len(self.rows))})

    def cursor(self, asked: Asked) -> Answer:
        given = asked.json.get("after") if asked.method == "POST" else asked.one("cursor")
        start = int(str(given or "c0")[1:])
        more = start + self.most < len(self.rows)
        return Answer({"items": self.cut(start), "meta": {"next": f"c{start + self.most}"} if more else {}})

    def link(self, asked: Asked) -> Answer:
        start = int(asked.one("from", "0"))
        links = [f'<{self.server.url}/api/link?from=0&q=a,b>; rel="first"']
        if start + self.most < len(self.rows):
            links.append(f'<{self.server.url}/api/link?from={start + self.most}&q=a,b>; title="x"; rel="next last"')
        return Answer({"items": self.cut(start)}, headers={"Link": ", ".join(links)})

    def url(self, asked: Asked) -> Answer:
        start = int(asked.one("from", "0"))
        following = f"/api/url?from={start + self.most}" if start + self.most < len(self.rows) else None
        return Answer({"items": self.cut(start), "next": following})

    def ignorant(self, asked: Asked) -> Answer:
        """Knows no pages: always the first rows."""
        return Answer({"items": self.cut(0)})

    def circle(self, asked: Asked) -> Answer:
        """Leads back to where it began."""
        return Answer({"items": self.cut(0), "next": "/api/circle?again"})

    def shifting(self, asked: Asked) -> Answer:
        """A row is added in front after the first page."""
        rows = self.rows if self.steps == 0 else [{"id": -1, "v": "new"}, *self.rows]
        start = int(asked.one("offset"))
        return Answer({"items": rows[start : start + 10], "total": len(rows)})

    def shrinking(self, asked: Asked) -> Answer:
        """Says that there are more rows than it hands out."""
        return Answer({"items": self.cut(int(asked.one("offset"))), "total": len(self.rows) + 1})


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with served(api.route) as api.server:
        yield api


def read(api: Api, path: str, pagination: dict[str, Any], **options: Any) -> pa.Table:
    """What a source reads of one of the API's manners."""
    keys = options.pop("connection", {})
    return read_from(connect(api.server, **keys), path=path, rows="items", pagination=pagination, **options)


def params(api: Api, name: str) -> list[str]:
    return [asked.one(name) for asked in api.server.log]


def test_pages_by_number(api: Api) -> None:
    assert read(api, "page", {"type": "page"})["id"].to_pylist() == IDS
    assert params(api, "page") == ["1", "2", "3", "4"], "a short page is not the last one: the server may give fewer at a time"


def test_pages_by_number_end_at_the_total(api: Api) -> None:
    assert read(api, "page", {"type": "page", "total": "total"})["id"].to_pylist() == IDS
    assert params(api, "page") == ["1", "2", "3"]


def test_pages_by_offset_when_the_server_gives_fewer_than_asked(api: Api) -> None:
    pagination = {"type": "offset", "size_parameter": "limit", "size": 1000}
    assert read(api, "offset", pagination)["id"].to_pylist() == IDS
    assert params(api, "offset") == ["0", "10", "20", "25"]
    assert set(params(api, "limit")) == {"1000"}


def test_pages_by_offset_end_at_the_total_of_a_header(api: Api) -> None:
    assert read(api, "offset", {"type": "offset", "total": "header X-Total-Count"})["id"].to_pylist() == IDS
    assert params(api, "offset") == ["0", "10", "20"]


def test_pages_by_cursor(api: Api) -> None:
    assert read(api, "cursor", {"type": "cursor", "next": "meta.next"})["id"].to_pylist() == IDS
    assert params(api, "cursor") == ["", "c10", "c20"]


def test_pages_by_cursor_in_the_body(api: Api) -> None:
    pagination = {"type": "cursor", "next": "meta.next", "parameter": "after", "place": "body", "size_parameter": "size", "size": 10}
    assert read(api, "cursor", pagination, method="POST", body={"q": "all"})["id"].to_pylist() == IDS
    assert [asked.json for asked in api.server.log] == [
        {"q": "all", "size": 10},
        {"q": "all", "size": 10, "after": "c10"},
        {"q": "all", "size": 10, "after": "c20"},
    ]


def test_pages_by_link_header(api: Api) -> None:
    keys = {"api_key": "k3y-value", "key_parameter": "key"}
    assert read(api, "link", {"type": "link"}, params={"q": "a,b"}, connection=keys)["id"].to_pylist() == IDS
    assert params(api, "from") == ["", "10", "20"]
    assert params(api, "q") == ["a,b"] * 3
    assert params(api, "key") == ["k3y-value"] * 3


def test_pages_by_url_in_the_body(api: Api) -> None:
    assert read(api, "url", {"type": "next_url", "next": "next"})["id"].to_pylist() == IDS


# -- a cut-off is an error


def test_a_link_to_more_is_not_overlooked(api: Api) -> None:
    with pytest.raises(ReadFailed, match="names a next page") as caught:
        read(api, "link", {"type": "none"})
    assert "type: link" in caught.value.hint


def test_too_many_pages(api: Api) -> None:
    with pytest.raises(ReadFailed, match="more than 2 pages"):
        read(api, "page", {"type": "page"}, max_pages=2)
    assert read(api, "page", {"type": "page"}, max_pages=4).num_rows == 25


def test_an_api_that_knows_no_pages(api: Api) -> None:
    with pytest.raises(ReadFailed, match="page 2 holds the same as the one before") as caught:
        read(api, "ignorant", {"type": "page"})
    assert "'page'" in caught.value.hint


def test_pages_in_a_circle(api: Api) -> None:
    with pytest.raises(ReadFailed, match="leads back"):
        read(api, "circle", {"type": "next_url", "next": "next"})


@pytest.mark.parametrize(
    ("pagination", "culprit"),
    [
        ({"type": "cursor", "next": "mata.next"}, "no key 'mata' in an object with 'items', 'meta'"),
        ({"type": "cursor", "next": "items[0]"}, "leads to no key"),
        ({"type": "cursor", "next": "meta"}, "no single value"),
        ({"type": "cursor", "next": "meta.next", "total": "count"}, "no number at 'count'"),
        ({"type": "cursor", "next": "meta.next", "total": "header X-Nope"}, "no number at 'header X-Nope'"),
    ],
)
def test_a_path_of_pagination_that_leads_nowhere(api: Api, pagination: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ReadFailed, match=culprit):
        read(api, "cursor", pagination)


@pytest.mark.parametrize(
    "pagination",
    [
        {"type": "cursor"},
        {"type": "next_url"},
        {"type": "page", "next": "a"},
        {"type": "link", "parameter": "p"},
        {"type": "page", "size": 1},
        {"type": "cursor", "next": "a[*].b"},
        {"type": "cursor", "next": "a", "first": 1},
        {"type": "offset", "place": "body"},
    ],
)
def test_pagination_that_is_refused(pagination: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpSource.model_validate({"pagination": pagination})


# -- rows that move


def test_a_row_that_comes_twice_is_noticed(api: Api) -> None:
    assert read(api, "shifting", {"type": "offset"})["id"].to_pylist().count(9) == 2, "nothing tells"
    api.steps = 0
    with pytest.raises(ReadFailed, match="id = 9 came twice") as caught:
        read(api, "shifting", {"type": "offset"}, key="id")
    assert caught.value.transient


def test_a_total_that_changes_is_noticed(api: Api) -> None:
    with pytest.raises(ReadFailed, match="25 rows in all, now there are 26") as caught:
        read(api, "shifting", {"type": "offset", "total": "total"})
    assert caught.value.transient


def test_rows_that_are_missing_are_noticed(api: Api) -> None:
    with pytest.raises(ReadFailed, match="25 rows came, of 26"):
        read(api, "shrinking", {"type": "offset", "total": "total"})


def test_a_key_that_is_no_column(api: Api) -> None:
    with pytest.raises(ReadFailed, match="row 1 has no 'nope' of key"):
        read(api, "page", {"type": "page"}, key="nope")


# -- faults that pass


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
        assert 0.9 <= api.server.log[1].at - api.server.log[0].at <= 2.5


def test_a_wait_beyond_the_budget_is_not_begun(api: Api) -> None:
    api.server.faults.append(Answer("busy", 503, {"Retry-After": "3600"}))
    began = time.monotonic()
    with pytest.raises(ReadFailed, match="503: busy") as caught:
        read(api, "page", {"type": "page"}, connection={"retry_budget": "1min"})
    assert time.monotonic() - began < 1
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
    assert time.monotonic() - began < 4


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


# -- redirects


class Hosts:
    """Two servers: `own` redirects, `other` answers."""

    def __init__(self, stack: ExitStack) -> None:
        self.own = stack.enter_context(served(self.redirect))
        self.other = stack.enter_context(served(lambda _: Answer([{"a": 1}])))
        self.target: Callable[[Asked], Answer] = lambda _: Answer([{"a": 1}])

    def redirect(self, asked: Asked) -> Answer:
        return self.target(asked)

    def answer(self, place: str, status: int = 302) -> None:
        self.target = lambda asked: Answer([{"a": 1}]) if asked.path == "/there" else Answer(status=status, headers={"Location": place})


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        yield Hosts(stack)


WAYS = [
    {"token": "se/cret-token"},
    {"username": "me", "password": "se/cret-token"},
    {"api_key": "se/cret-token", "key_parameter": "key"},
    {"api_key": "se/cret-token"},
    {"headers": {"X-Custom": "se/cret-token"}},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_do_not_follow_to_another_host(hosts: Hosts, way: dict[str, Any], status: int) -> None:
    hosts.answer(f"{hosts.other.url}/export?signature=1", status)
    assert read_from(connect(hosts.own, **way))["a"].to_pylist() == [1]
    (asked,) = hosts.other.log
    assert asked.query == {"signature": ["1"]}
    assert set(asked.headers) == {"host", "accept", "accept-encoding", "connection", "user-agent"}


@pytest.mark.parametrize("way", WAYS)
def test_credentials_follow_on_the_same_host(hosts: Hosts, way: dict[str, Any]) -> None:
    hosts.answer("/there")
    assert read_from(connect(hosts.own, **way))["a"].to_pylist() == [1]
    first, second = hosts.own.log
    assert second.path == "/there"
    kept = {"authorization", "x-api-key", "x-custom"}
    assert {name: value for name, value in first.headers.items() if name in kept} == {
        name: value for name, value in second.headers.items() if name in kept
    }
    assert first.query == second.query


def test_credentials_do_not_come_back_from_another_host(hosts: Hosts) -> None:
    """Once a stranger has said where to go, nothing secret goes there, not even to the own host."""
    hosts.other.route = lambda _: Answer(status=302, headers={"Location": f"{hosts.own.url}/there"})
    hosts.answer(f"{hosts.other.url}/x")
    read_from(connect(hosts.own, token="se/cret-token"))
    assert [asked.path for asked in hosts.own.log] == ["/api", "/there"]
    assert "authorization" not in hosts.own.log[1].headers


def test_redirects_without_end(hosts: Hosts) -> None:
    hosts.answer("/api")
    with pytest.raises(ReadFailed, match="more than 5 redirects"):
        read_from(connect(hosts.own))


def test_a_post_is_not_sent_to_another_host(hosts: Hosts) -> None:
    hosts.answer(f"{hosts.other.url}/x", 307)
    with pytest.raises(ReadFailed, match="a POST was redirected to another host"):
        read_from(connect(hosts.own, token="se/cret-token"), method="POST", body={"a": 1})
    assert hosts.other.log == []


def test_a_post_is_sent_again_on_the_same_host(hosts: Hosts) -> None:
    hosts.answer("/there", 308)
    read_from(connect(hosts.own), method="POST", body={"a": 1})
    assert [(asked.method, asked.json) for asked in hosts.own.log] == [("POST", {"a": 1})] * 2


@pytest.mark.parametrize("pagination", [{"type": "link"}, {"type": "next_url", "next": "next"}])
def test_the_next_page_on_another_host_is_refused(hosts: Hosts, pagination: dict[str, Any]) -> None:
    place = f"{hosts.other.url}/more"
    hosts.target = lambda _: Answer({"rows": [{"a": 1}], "next": place}, headers={"Link": f'<{place}>; rel="next"'})
    with pytest.raises(ReadFailed, match="lies on another host") as caught:
        read_from(connect(hosts.own, token="se/cret-token"), rows="rows", pagination=pagination)
    assert hosts.other.log == []
    assert "se/cret-token" not in "".join(messages(caught.value))


def test_a_path_on_another_host_is_refused(hosts: Hosts) -> None:
    with pytest.raises(ReadFailed, match="another host than base_url"):
        read_from(connect(hosts.own, token="se/cret-token"), path=f"{hosts.other.url}/x")
    assert hosts.other.log == []


# -- certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of 127.0.0.1 that nobody has signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run(made, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key").read_text() + (folder / "cert").read_text())
    return both


def test_a_certificate_that_is_not_trusted(certificate: Path) -> None:
    with served(lambda _: Answer([{"a": 1}]), certificate=certificate) as server:
        with pytest.raises(ConnectionFailed, match="certificate is not trusted") as caught:
            read_from(connect(server, verify=True))
        assert not caught.value.transient
        assert "verify" in caught.value.hint
        for verify in (False, str(certificate.with_name("cert"))):
            assert read_from(connect(server, verify=verify))["a"].to_pylist() == [1]
        with pytest.raises(ConnectionFailed, match="cannot be loaded"):
            read_from(connect(server, verify=str(certificate.with_name("nope"))))


def test_a_redirect_away_from_https_is_refused(certificate: Path, hosts: Hosts) -> None:
    away = Answer(status=302, headers={"Location": f"{hosts.other.url}/x"})
    with served(lambda _: away, certificate=certificate) as server, pytest.raises(ReadFailed, match="redirected from https"):
        read_from(connect(server, token="se/cret-token"))
    assert hosts.other.log == []
