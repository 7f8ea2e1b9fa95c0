"""Logging in over HTTP: what is sent, tokens that expire, and nothing secret in any message."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from dataflow_assets.connectors import _http_session
from dataflow_assets.connectors._http_options import HttpConnection
from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets_tests.connectors.contract_reading import messages
from dataflow_assets_tests.connectors.over_http import connect, read_from
from dataflow_assets_tests.services.http_server import Answer, Asked, served


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 0.001)


def seen(**keys: Any) -> Asked:
    """The first request that a connection with these keys sends for rows."""
    with served(lambda _: Answer([{"a": 1}])) as server:
        read_from(connect(server, **keys), path="rows")
        return server.log[0]


def test_ways_to_log_in() -> None:
    assert seen(username="me", password="s3cret-pass").headers["authorization"] == "Basic bWU6czNjcmV0LXBhc3M="
    assert seen(token="t0ken-value").headers["authorization"] == "Bearer t0ken-value"
    assert seen(api_key="k3y-value").headers["x-api-key"] == "k3y-value"
    assert seen(api_key="k3y-value", key_header="X-Mine").headers["x-mine"] == "k3y-value"
    assert seen(api_key="k3y value", key_parameter="key").query == {"key": ["k3y value"]}
    assert seen(headers={"X-Tenant": "7"}, token="t0ken-value").headers["x-tenant"] == "7"


@pytest.mark.parametrize(
    "keys",
    [
        {"username": "me"},
        {"password": "x"},
        {"token": "x", "api_key": "y"},
        {"oauth2_url": "token"},
        {"client_id": "a", "client_secret": "b"},
        {"key_parameter": "a"},
        {"api_key": "x", "key_header": "a", "key_parameter": "b"},
        {"base_url": "example.com"},
        {"base_url": "https://me:pw@example.com"},
        {"rate_limit": "fast"},
        {"timeout": "soon"},
    ],
)
def test_connections_that_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpConnection.model_validate({"base_url": "https://example.com", **keys})


class TokenServer:
    """Gives out tokens that each serve for some requests."""

    def __init__(self, uses: int = 99, lifetime: int = 3600, in_header: bool = False) -> None:
        self.uses, self.lifetime, self.in_header, self.given, self.left = uses, lifetime, in_header, 0, 0

    def route(self, asked: Asked) -> Answer:
        if asked.path == "/api/token":
            return self.give(asked)
        good = asked.headers.get("authorization") == f"Bearer token-number-{self.given}" and self.left > 0
        self.left -= good
        if not good:
            return Answer("expired", 401)
        page = int(asked.one("page"))
        return Answer([{"a": page}] if page < 4 else [])

    def give(self, asked: Asked) -> Answer:
        form = asked.body.decode()
        named = "client_secret=hush-hush-hush" in form and "client_id=me" in form
        if self.in_header:
            named = asked.headers.get("authorization") == "Basic bWU6aHVzaC1odXNoLWh1c2g=" and "secret" not in form
        if not named or "scope=read+all" not in form or "grant_type=client_credentials" not in form or "audience=them" not in form:
            return Answer({"error": "invalid_client"}, 400)
        self.given, self.left = self.given + 1, self.uses
        return Answer({"access_token": f"token-number-{self.given}", "expires_in": self.lifetime, "token_type": "Bearer"})


OAUTH2 = {
    "oauth2_url": "token",
    "client_id": "me",
    "client_secret": "hush-hush-hush",
    "scope": "read all",
    "oauth2_params": {"audience": "them"},
}


@pytest.mark.parametrize(("uses", "lifetime", "given"), [(99, 3600, 1), (2, 3600, 2), (99, 0, 1)])
@pytest.mark.parametrize("client_auth", ["body", "header"])
def test_oauth2(uses: int, lifetime: int, given: int, client_auth: str) -> None:
    tokens = TokenServer(uses, lifetime, client_auth == "header")
    with served(tokens.route) as server:
        found = read_from(connect(server, **OAUTH2, client_auth=client_auth), pagination={"type": "page"})
        assert found["a"].to_pylist() == [1, 2, 3]
        assert tokens.given == given


def test_a_refused_client_is_no_passing_failure() -> None:
    tokens = TokenServer()
    with served(tokens.route) as server, pytest.raises(ConnectionFailed, match="for a token") as caught:
        read_from(connect(server, **{**OAUTH2, "client_secret": "wrong-secret"}), pagination={"type": "page"})
    assert not caught.value.transient
    assert "client_secret" in caught.value.hint
    assert "wrong-secret" not in "".join(messages(caught.value))


def test_a_token_that_is_refused_anew_is_not_fetched_for_ever() -> None:
    tokens = TokenServer(uses=0)
    with served(tokens.route) as server, pytest.raises(ConnectionFailed, match="401"):
        read_from(connect(server, **OAUTH2), pagination={"type": "page"})
    assert tokens.given == 2


# -- nothing secret is shown


SECRETS = ("bearer-se/cret", "param-se/cret", "header-se/cret")


def test_no_secret_in_any_message(caplog: pytest.LogCaptureFixture) -> None:
    """Of any failure, for any way to log in, although the server repeats what it was sent."""
    caplog.set_level(logging.DEBUG)
    ways = [
        {"token": SECRETS[0]},
        {"api_key": SECRETS[1], "key_parameter": "key"},
        {"headers": {"Authorization": f"Bearer {SECRETS[2]}"}},
        {"username": "me", "password": SECRETS[0]},
    ]
    shown: list[str] = []

    def echo(asked: Asked) -> Answer:
        return Answer(f"{asked.headers} {asked.query}", int(asked.path.rpartition("/")[2]))

    with served(echo) as server:
        for way in ways:
            connector = connect(server, **way, retries=1)
            shown += [repr(connector), str(vars(connector)), repr(connector._options), repr(connector._session)]
            for status in (200, 400, 401, 403, 404, 429, 500):
                with pytest.raises(DataflowError) as caught:
                    read_from(connector, path=f"/{status}")
                shown += messages(caught.value)
            server.faults += [Answer(drop=True)] * 2
            with pytest.raises(ConnectionFailed) as caught:
                read_from(connector, path="/200")
            shown += messages(caught.value)
    shown += [record.getMessage() for record in caplog.records]
    assert len(shown) > 100
    assert any("HTTP Request" in text for text in shown), "httpx logs its requests"
    assert not [text for text in shown for secret in (*SECRETS, "bWU6YmVhcmVy") if secret in text or quote(secret, safe="") in text]
