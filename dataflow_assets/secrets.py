"""Keeping secrets out of everything that is shown.

Here: the register of values that must never be printed, and the mask that every error, log line and event goes through.
Not here: where secrets come from (`spec`) and who uses them (`connectors`).
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

MASK = "****"
_URL_PASSWORD = re.compile(r"(?P<head>(?<![a-zA-Z0-9+.-])[a-zA-Z0-9+.-]+://[^/\s:@'\"]*):(?P<secret>[^/\s'\"]+)@")
_KEY_VALUE = re.compile(
    r"(?i)(?<![\w-])(?P<key>[\w-]*(?:password|passwd|pwd|passphrase|secret|token|api_?key|access_?key|private_?key))"
    r"(?P<sep>['\"]?\s*[=:]\s*)(?P<secret>'[^']*'|\"[^\"]*\"|[^\s,;&'\"]+)"
)
_SECRET_KEY = re.compile(r"(?i)(?:pass(?:word|wd|phrase)?|pwd|secret|token|credential|api_?key|access_?key|private_?key|dsn)(?:s|_.*)?$")
_registered: set[str] = set()


def looks_secret(key: str) -> bool:
    """Whether a value under this key of a configuration, or environment variable of this name, is likely a secret."""
    return bool(_SECRET_KEY.search(key))


def register_secret(value: str) -> None:
    """Mask `value`, also as URLs, Python and JSON write it, wherever text is shown from now on. Under 3 characters it is ignored."""
    if len(value) >= 3:
        _registered.update({value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1], json.dumps(value)[1:-1]})


def mask(text: str) -> str:
    """Return `text` with every registered secret and every password in a URL or key=value pair replaced."""
    for value in sorted(_registered, key=len, reverse=True):
        if value in text:
            text = text.replace(value, MASK)
    text = _URL_PASSWORD.sub(rf"\g<head>:{MASK}@", text)
    return _KEY_VALUE.sub(rf"\g<key>\g<sep>{MASK}", text)
