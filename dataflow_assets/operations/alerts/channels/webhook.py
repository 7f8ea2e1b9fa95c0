"""Messages as JSON to any address, signed where there is a secret to sign with.

Here: the document and its signature. Not here: what it says (`operations.alerts.wording`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from dataflow_assets.operations.alerts.channels.email import as_text
from dataflow_assets.operations.alerts.channels.http import post
from dataflow_assets.operations.alerts.messages import Message
from dataflow_assets.spec.alerts import WebhookChannel as Options

VERSION = 1
SIGNATURE, DELIVERY = "X-Dataflow-Signature", "Idempotency-Key"


class WebhookChannel:
    """An address that takes JSON."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def send(self, message: Message) -> None:
        """Post the message; `Idempotency-Key` is its id, the same when it is sent again. Raises ChannelFailed."""
        options = self._options
        body = json.dumps({**document(message), **options.body}, ensure_ascii=False).encode("utf-8", "replace")
        headers = {DELIVERY: message.id.encode("ascii", "replace").decode(), "User-Agent": "dataflow-assets"}
        headers |= {name: value.get_secret_value() for name, value in options.headers.items()}
        if options.secret is not None:
            headers[SIGNATURE] = signature(body, options.secret.get_secret_value())
        post(options.url.get_secret_value(), body, headers)


def signature(body: bytes, secret: str) -> str:
    """`sha256=` and the HMAC-SHA256 (RFC 2104) of the body in hexadecimal, as GitHub signs its webhooks."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def document(message: Message) -> dict[str, Any]:
    """The message as data; keys may be added in later versions, none is taken away or changes its meaning within `version`."""
    return {
        "version": VERSION,
        "id": message.id,
        "event": message.event,
        "severity": {"bad": "error", "warning": "warning", "good": "info"}[message.tone],
        "project": message.project,
        "pipeline": message.pipeline,
        "title": message.title,
        "text": as_text(message),
        "facts": dict(message.facts),
        "detail": message.detail,
        "next": list(message.commands),
        "link": message.link or None,
        "at": message.at.isoformat() if message.at else None,
        "alerts": list(message.more),
    }
