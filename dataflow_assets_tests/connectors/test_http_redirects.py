"""Where the HTTP connector lets itself be led, and what it takes along: redirects, pages elsewhere, certificates."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets.errors import ConnectionFailed, ReadFailed
from dataflow_assets_tests.connectors.contract_reading import messages
from dataflow_assets_tests.connectors.over_http import connect, read_from
from dataflow_assets_tests.services.http_server import Answer, Asked, served


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
