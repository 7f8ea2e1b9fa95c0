"""One POST of JSON, for the channels that are addresses.

Here: the request with the standard library, so that alerts need no driver; no redirect is followed, since a secret would go along.
Not here: what is posted.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message as Headers
from typing import IO

from dataflow_assets.operations.alerts.channels import TIMEOUT_SECONDS, ChannelFailed
from dataflow_assets.secrets import mask

_LATER = frozenset({408, 425, 429, *range(500, 600)})
_SHOWN = 200
_CUT = 1000


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> None:
        """Nothing: the answer stays an answer."""
        return


def post(url: str, body: bytes, headers: Mapping[str, str]) -> str:
    """POST `body`; the first 1,000 characters of the answer. Raises ChannelFailed for any answer but 2xx, or none."""
    request = urllib.request.Request(url, data=body, method="POST", headers={"Content-Type": "application/json; charset=utf-8", **headers})
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return str(answer.read(_CUT).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            said = _first_words(error)
        raise ChannelFailed(f"the address answers {error.code}{said}{_wait(error.headers)}", transient=error.code in _LATER) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        certificate = isinstance(reason, ssl.SSLCertVerificationError) or isinstance(error, ValueError)
        raise ChannelFailed(
            f"the address gives no answer: {type(reason).__name__}: {mask(str(reason))}", transient=not certificate
        ) from None


def _first_words(error: urllib.error.HTTPError) -> str:
    try:
        said = error.read(_CUT).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    return f": {mask(said)[:_SHOWN]}" if said else ""


def _wait(headers: Headers) -> str:
    seconds = headers.get("Retry-After", "") if headers else ""
    return f" (asks to wait {seconds[:20]} s)" if seconds.isdigit() else ""
