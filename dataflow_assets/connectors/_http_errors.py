"""What went wrong over HTTP, as our errors: by status and by the class of httpx's error.

Here: which failures may pass by themselves, and what a server says about when. Not here: waiting and trying again
(`_http_session`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from dataflow_assets.error_kinds import STATUS_CODES, status_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, ReadFailed

_NOT_ALLOWED = frozenset({401, 403, 407})
ERROR_CODES = replace(
    STATUS_CODES,
    transient_also="no answer, or one that breaks off; Retry-After is honoured",
    configuration_also="a certificate that is not trusted",
)
_EXCERPT = 300
_UNREACHABLE = "check the address and that the server is up; it is tried again"
_BY_STATUS = {
    404: "correct path, or base_url of the connection",
    405: "correct method",
    410: "correct path, or base_url of the connection",
    413: "ask for less",
    414: "the parameters are too long for a URL",
}


@dataclass(frozen=True)
class Reply:
    """A complete answer. `url` is fit to be shown; the body is in `content`, or in the file `spool`."""

    status: int
    headers: Mapping[str, str]
    url: str
    content: bytes
    spool: Path | None = None


Judge = Callable[[Reply, str], DataflowError]


class Setback(Exception):
    """A try that failed: our error for it, and how many seconds the server asks to wait."""

    def __init__(self, error: DataflowError, *, after: float | None = None, status: int = 0) -> None:
        self.error, self.after, self.status = error, after, status
        super().__init__(str(error))


def judge_status(reply: Reply, doing: str) -> DataflowError:
    """The error for a status that is no success."""
    text = f"{doing}: the server answered {reply.status}{said(reply)}"
    if reply.status in _NOT_ALLOWED:
        return ConnectionFailed(text, hint="check the credentials of the connection and their rights", transient=False)
    if (kind := status_kind(reply.status)) == "transient":
        after = retry_after(reply)
        hint = f"it asks to wait {after:.0f} s; lower rate_limit, or raise retry_budget" if after else "it was tried again; try later"
        failed = ReadFailed(text, hint=hint, transient=True)
        failed.retry_after = after
        return failed
    hint = _BY_STATUS.get(reply.status, "see what it says; check path, params and body")
    return ReadFailed(text, hint=hint, kind=kind)


def said(reply: Reply) -> str:
    """The beginning of what the server said, empty when it said nothing."""
    text = " ".join(reply.content[: 4 * _EXCERPT].decode("utf-8", errors="replace").split())
    return f": {text[:_EXCERPT]}{'...' if len(text) > _EXCERPT else ''}" if text else ""


def retry_after(reply: Reply) -> float | None:
    """The seconds that Retry-After asks for, which is a number or a date; None without one."""
    value = reply.headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max((moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)


def transport_failure(error: Exception, doing: str, timeout: float) -> Setback | DataflowError:
    """The error for a request that got no complete answer."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return Setback(
            ConnectionFailed(f"{doing}: no answer within {timeout:g} s", hint="raise timeout of the connection, or ask for less")
        )
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL | httpx.LocalProtocolError):
        return ReadFailed(f"{doing}: {error}", hint="correct the address or the headers")
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        hint = "give the file of its certificates in verify"
        return ConnectionFailed(f"{doing}: the certificate is not trusted: {error}", hint=hint, transient=False)
    if isinstance(error, httpx.DecodingError):
        return Setback(ReadFailed(f"{doing}: the reply cannot be unpacked: {error}", hint="it was damaged on its way", transient=True))
    return Setback(ConnectionFailed(f"{doing}: {error or type(error).__name__}", hint=_UNREACHABLE))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
