"""Asking over HTTP: one pooled client, credentials for one origin only, redirects, pace, and tries with patience.

Here: from a call to a complete reply, or one of our errors. Not here: what a status means (`_http_errors`), who logs in
(`_http_auth`), pages (`_http_pages`). httpx is imported when the first call is made.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

from dataflow_assets.connectors._http_errors import Judge, Reply, Setback, judge_status, retry_after, transport_failure
from dataflow_assets.error_kinds import status_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, MissingDriver, ReadFailed
from dataflow_assets.secrets import mask

if TYPE_CHECKING:
    import httpx

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 60.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_ERROR_BYTES = 64 * 1024
_BODY = {bytes: "content"}
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Policy:
    """How long to wait and how often to try; seconds and bytes."""

    timeout: float = 30.0
    response_timeout: float = 600.0
    retries: int = 5
    budget: float = 300.0
    interval: float = 0.0
    verify: bool | str = True
    largest: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """One request. `doing` names it in errors, without its query."""

    url: str
    doing: str
    method: str = "GET"
    params: tuple[tuple[str, str], ...] = ()
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_form: bool = False

    def with_params(self, values: Mapping[str, str]) -> Call:
        """The call with these parameters set, in place of earlier ones of the same names."""
        kept = tuple(item for item in self.params if item[0] not in values)
        return replace(self, params=(*kept, *values.items()))

    def with_body(self, values: Mapping[str, Any]) -> Call:
        """The call with these top-level keys of its JSON body set."""
        return replace(self, body={**(self.body or {}), **values})


class Credentials(Protocol):
    """What proves who asks, added to requests to the system's own origin and to no other."""

    def headers(self, session: Session) -> Mapping[str, str]:
        """Headers for the next request."""
        ...

    def params(self) -> Mapping[str, str]:
        """Query parameters for the next request."""
        ...

    def renew(self) -> bool:
        """After the server refused them: whether fresh ones may be taken."""
        ...


class Anonymous:
    """No credentials."""

    def headers(self, session: Session) -> Mapping[str, str]:
        return {}

    def params(self) -> Mapping[str, str]:
        return {}

    def renew(self) -> bool:
        return False


class Session:
    """A pooled client for the system at `base`. Safe to share between threads."""

    def __init__(
        self, base: str, policy: Policy, *, kind: str, credentials: Credentials | None = None, judge: Judge = judge_status
    ) -> None:
        self.base, self._policy, self._kind = base, policy, kind
        self._credentials, self._judge = credentials or Anonymous(), judge
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._next_slot = 0.0

    def __repr__(self) -> str:
        return f"Session({shown(self.base)})"

    def address(self, path: str) -> str:
        """The URL of a path below the base; a whole URL is taken as it is."""
        if "://" in path:
            return path
        return f"{self.base.rstrip('/')}/{path.lstrip('/')}" if path else self.base

    def is_own(self, url: str) -> bool:
        """Whether a URL lies on the system's own origin, where its credentials may go."""
        return origin(url) == origin(self.base)

    def fetch(
        self,
        call: Call,
        parse: Callable[[Reply], Parsed],
        *,
        spool: Path | None = None,
        credentials: Credentials | None = None,
        stop: threading.Event | None = None,
    ) -> Parsed:
        """Ask until there is a complete reply, and return what `parse` makes of it.

        Tries again after transient failures, those of `parse` included, as the policy allows. `spool`: write the body to this
        file in place of memory. Raises ConnectionFailed or ReadFailed.
        """
        proof = credentials or self._credentials
        patience = _Patience(self._policy, stop or threading.Event())
        renewed = False
        while True:
            try:
                self._keep_pace(patience)
                return parse(self._ask(call, proof, spool))
            except Setback as setback:
                if setback.status == 401 and not renewed and proof.renew():
                    renewed = True
                    continue
                patience.wait(setback.error, setback.after, again=not setback.status or status_kind(setback.status) == "transient")
            except DataflowError as error:
                patience.wait(error)

    def _keep_pace(self, patience: _Patience) -> None:
        """Wait for this call's slot: no two begin closer together than the rate limit allows."""
        if not self._policy.interval:
            return
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next_slot)
            self._next_slot = slot + self._policy.interval
        patience.pause(slot - now)

    def _ask(self, call: Call, proof: Credentials, spool: Path | None) -> Reply:
        """One request, redirects followed. Raises Setback."""
        url, method, headers = _with_query(call.url, call.params), call.method, dict(call.headers)
        own = self.is_own(url) or proof is not self._credentials
        for _ in range(_MOST_REDIRECTS + 1):
            added = proof.headers(self) if own else {}
            target = _with_query(url, tuple(proof.params().items())) if own else url
            body = call.body if method == call.method else None
            reply = self._send(replace(call, url=target, method=method, headers={**headers, **added}, body=body), spool)
            if reply.status not in _REDIRECTS:
                return reply
            url, method = self._redirected(call, url, urljoin(url, reply.headers["location"]), reply.status)
            if not (self.is_own(url) and own):
                own, headers = False, {"accept": headers.get("accept", "*/*")}
        raise ReadFailed(f"{call.doing}: more than {_MOST_REDIRECTS} redirects", hint="correct the address; see where it leads")

    def _redirected(self, call: Call, old: str, new: str, status: int) -> tuple[str, str]:
        """Where a redirect leads and how it is asked for. Raises ReadFailed for one that must not be followed."""
        if urlsplit(old).scheme == "https" and urlsplit(new).scheme != "https":
            raise ReadFailed(f"{call.doing}: redirected from https to {shown(new)}", hint="correct base_url or path")
        method = "GET" if status == 303 else call.method
        if method != "GET" and not self.is_own(new):
            raise ReadFailed(f"{call.doing}: a {method} was redirected to another host, {shown(new)}", hint="correct base_url or path")
        return new, method

    def _send(self, call: Call, spool: Path | None) -> Reply:
        import httpx

        client = self._open()
        content: dict[str, Any] = {} if call.body is None else {_BODY.get(type(call.body), "json"): call.body}
        content = {"data": call.body} if call.is_form else content
        deadline = time.monotonic() + self._policy.response_timeout
        try:
            request = client.build_request(call.method, call.url, headers=dict(call.headers), **content)
            response = client.send(request, stream=True)
            try:
                reply = Reply(response.status_code, response.headers, shown(call.url), b"", spool)
                good = 200 <= reply.status < 300
                largest = self._policy.largest if good else _ERROR_BYTES
                body = _received(response, call.doing, deadline, spool if good else None, largest=largest, strict=good)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise transport_failure(error, call.doing, self._policy.timeout) from _bare(error)
        reply = replace(reply, content=body)
        if not good and not (reply.status in _REDIRECTS and reply.headers.get("location")):
            raise Setback(self._judge(reply, call.doing), after=retry_after(reply), status=reply.status)
        return reply

    def _open(self) -> httpx.Client:
        try:
            import httpx
        except ImportError as error:
            raise MissingDriver(kind=self._kind, module="httpx") from error
        import logging

        with self._lock:
            if self._client is None:
                for name in _LOGGERS:
                    logging.getLogger(name).addFilter(_masked)
                self._client = httpx.Client(
                    timeout=self._policy.timeout, verify=_verification(self._policy.verify), headers={"user-agent": "dataflow-assets"}
                )
            return self._client

    def close(self) -> None:
        """Close the pooled connections; the next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")


def _masked(record: Any) -> bool:
    """httpx logs every URL with its query, where a key may stand."""
    record.msg, record.args = mask(record.getMessage()), ()
    return True


def _verification(verify: bool | str) -> Any:
    if isinstance(verify, bool):
        return verify
    import ssl

    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise ConnectionFailed(
            f"the certificates in {verify} cannot be loaded: {error}", hint="correct verify: of the connection", transient=False
        ) from error


def _bare(error: Any) -> Any:
    """The error without its request, which holds headers and URL."""
    if getattr(error, "_request", None) is not None:
        error.request = None
    return error


def _received(response: Any, doing: str, deadline: float, spool: Path | None, *, largest: int, strict: bool) -> bytes:
    """The whole body, or nothing when it went to the file. Raises ReadFailed when it is too large, Setback when it takes too long."""
    held = bytearray()
    file = spool.open("wb") if spool else None
    try:
        for chunk in response.iter_bytes():  # as they come: a chunk size would wait until it is full
            if time.monotonic() > deadline:
                raise Setback(
                    ReadFailed(f"{doing}: the reply took too long", hint="raise response_timeout, or ask for less", transient=True)
                )
            if file is not None:
                file.write(chunk)
                continue
            held += chunk
            if len(held) > largest:
                if not strict:
                    break
                raise ReadFailed(
                    f"{doing}: the reply is larger than {largest >> 20} MB", hint="ask for smaller pages, or take ndjson or csv"
                )
    finally:
        if file is not None:
            file.close()
    return bytes(held[:largest])


class _Patience:
    """The tries and the time that one call may still spend waiting."""

    def __init__(self, policy: Policy, stop: threading.Event) -> None:
        self._left, self._budget, self._stop, self._tries = policy.retries, policy.budget, stop, 0

    def wait(self, error: DataflowError, after: float | None = None, *, again: bool = True) -> None:
        """Wait before the next try; raises `error` when it is no use, or there is nothing left."""
        delay = min(_FIRST_DELAY * 2**self._tries, _LONGEST_DELAY)
        delay = delay * random.uniform(0.5, 1.0) if after is None else after
        if not (error.transient and again) or self._tries >= self._left or delay > self._budget:
            raise error
        self._tries += 1
        self._budget -= delay
        self.pause(delay)
        if self._stop.is_set():
            raise error

    def pause(self, seconds: float) -> None:
        """Sleep, unless whoever asked has gone."""
        if seconds > 0:
            self._stop.wait(seconds)


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what has to be equal for credentials to go along."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def shown(url: str) -> str:
    """A URL as errors show it: without query, user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _with_query(url: str, params: tuple[tuple[str, str], ...]) -> str:
    """The URL with parameters added to the query that it has; httpx would replace that."""
    if not params:
        return url
    base, mark, fragment = url.partition("#")
    return f"{base}{'&' if '?' in base else '?'}{urlencode(params, quote_via=quote)}{mark}{fragment}"
