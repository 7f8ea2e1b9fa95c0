"""Who asks: the ways to log in over HTTP that connections know.

Here: headers and parameters that prove it, and tokens of the OAuth2 client credentials grant (RFC 6749, 4.4), kept until they
expire. Not here: sending them (`_http_session`, to the system's own origin only).
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dataflow_assets.connectors._http_errors import Reply, judge_status
from dataflow_assets.connectors._http_session import Anonymous, Call, Session
from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets.secrets import register_secret

_LEEWAY = 60.0
_LIFETIME = 300.0


@dataclass(frozen=True)
class Fixed:
    """Headers and parameters that stay the same."""

    fixed_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    fixed_params: Mapping[str, str] = field(default_factory=dict, repr=False)

    def headers(self, session: Session) -> Mapping[str, str]:
        return self.fixed_headers

    def params(self) -> Mapping[str, str]:
        return self.fixed_params

    def renew(self) -> bool:
        return False


def basic(user: str, password: str) -> str:
    """The value of an Authorization header for a name and a password."""
    value = base64.b64encode(f"{user}:{password}".encode()).decode()
    register_secret(value)
    return f"Basic {value}"


class ClientCredentials:
    """An OAuth2 token for a client, fetched when first needed and again when it expires or is refused."""

    def __init__(self, url: str, client: str, secret: str, *, more: Mapping[str, str], in_header: bool, headers: Mapping[str, str]) -> None:
        self._url, self._client, self._secret = url, client, secret
        self._more, self._in_header, self._headers = dict(more), in_header, dict(headers)
        self._token, self._expires = "", 0.0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ClientCredentials({self._url})"

    def headers(self, session: Session) -> Mapping[str, str]:
        with self._lock:
            if not self._token or time.monotonic() > self._expires:
                self._token, lifetime = session.fetch(self._call(session), _token_of, credentials=_Nobody())
                self._expires = time.monotonic() + max(lifetime - _LEEWAY, lifetime / 2)
            return {**self._headers, "authorization": f"Bearer {self._token}"}

    def params(self) -> Mapping[str, str]:
        return {}

    def renew(self) -> bool:
        with self._lock:
            self._token = ""
        return True

    def _call(self, session: Session) -> Call:
        form = {"grant_type": "client_credentials", **self._more}
        headers = {"accept": "application/json"}
        if self._in_header:
            headers["authorization"] = basic(self._client, self._secret)
        else:
            form |= {"client_id": self._client, "client_secret": self._secret}
        url = session.address(self._url)
        return Call(url, f"POST {url.partition('?')[0]} for a token", "POST", body=form, headers=headers, is_form=True)


class _Nobody(Anonymous):
    """The token's own call carries its proof by itself."""


def _token_of(reply: Reply) -> tuple[str, float]:
    """The token and its lifetime in seconds. What the server said is not shown: it may hold the token."""
    doing = f"POST {reply.url} for a token"
    try:
        found: Any = json.loads(reply.content)
        token, lifetime = str(found["access_token"]), float(found.get("expires_in") or _LIFETIME)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConnectionFailed(f"{doing}: the reply holds no access_token", hint="check oauth2_url", transient=False) from error
    register_secret(token)
    return token, lifetime


def judge_login(reply: Reply, doing: str) -> DataflowError:
    """As `judge_status`, but a refusal of the token's own call (RFC 6749, 5.2: 400 or 401) is one of the credentials."""
    if reply.status == 400 and doing.endswith("for a token"):
        return ConnectionFailed(f"{doing}: the server answered 400", hint="check client_id, client_secret and scope", transient=False)
    return judge_status(reply, doing)
