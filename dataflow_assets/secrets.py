"""Keeping secrets out of everything that is shown.

Here: the register of values that must never be printed, and the mask that every error, log line and event goes through.
Not here: where secrets come from (`spec`) and who uses them (`connectors`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

MASK = "****"
_URL_PASSWORD = re.compile(r"(?P<head>(?<![a-zA-Z0-9+.-])[a-zA-Z0-9+.-]+://[^/\s:@'\"]*):(?P<secret>[^/\s'\"]+)@")
_KEY_VALUE = re.compile(
    r"(?i)(?<![\w-])(?P<key>[\w-]*(?:password|passwd|pwd|passphrase|secret|token|api_?key|access_?key|private_?key)s?)"
    r"(?P<sep>['\"]?\s*[=:]\s*)(?P<secret>'[^']*'|\"[^\"]*\"|[^\s,;&'\"]+)"
)
_SECRET_KEY = re.compile(
    r"(?i)(?:pass(?:word|wd|phrase)?|pwd|secret|token|credential|api_?key|access_?key|private_?key|dsn|authorization)(?:s|_.*)?$"
)
_LOGIN = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:(?P<password>.+)@", re.DOTALL)
_SLASH = r"(?:\\|%(?:25)*5[cC])"
_WORD = re.compile(r"[a-zA-Z0-9_]+")
_OTHER_FORMS = {
    "&": ("&amp;",),
    "<": ("&lt;",),
    ">": ("&gt;",),
    '"': ("&quot;",),
    # YAML breaks lines at spaces, and doubles a line's end
    " ": (r"\+", r"\s+"),
    "\n": ("n", r"\n\s*"),
    "\t": ("t",),
    "\r": ("r",),
    "\b": ("b",),
    "\f": ("f",),
}
_SHORTEST, _SHORTEST_PIECE, _SHORTEST_HALF, _SHORTEST_WRITTEN = 3, 4, 12, 8
_WRITTEN_KEY = re.compile(r"(?<![\w-])[\"']?(?P<key>[\w-]+)[\"']?\s*:(?=\s)")
_WRITTEN_URL = re.compile(r"(?P<head>[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:).+@")
_FROM_ENVIRONMENT = re.compile(r"""["']?(?:\{\{\s*env_var\(\s*["']\w+["']\s*\)\s*\}\}|\$\{\w+\})["']?""")
_registered: set[str] = set()


def looks_secret(key: str) -> bool:
    """Whether a value under this key of a configuration, or environment variable of this name, is likely a secret."""
    return bool(_SECRET_KEY.search(key))


def register_secret(value: str) -> None:
    """Mask `value` wherever text is shown from now on, and the password in it where it is a URL. Under 3 characters it is ignored.

    It is recognised as URLs, Python, JSON, YAML, SQL and HTML write it, also when one of them quotes what another has quoted, and
    when it was cut off behind or before its middle, as servers cut long values.
    """
    if len(value) >= _SHORTEST:
        _registered.add(value)
    for part in _passwords_of(value):
        if len(part) >= _SHORTEST:
            _registered.add(part)


def register_written(block: Mapping[str, Any]) -> None:
    """Register what a user wrote out in a configuration instead of taking it from the environment: values of keys that name a secret,
    and passwords in URLs. Not templates, nor words such as `postgres`, which would be masked in every text from then on: those
    wait until the connection is opened."""
    for key, value in block.items():
        if isinstance(value, Mapping):
            register_written(value)
        elif isinstance(value, str) and not any(sign in value for sign in ("{{", "{%", "${")):
            for part in ([value] if looks_secret(str(key)) else []) + _passwords_of(value):
                if len(part) >= _SHORTEST_WRITTEN and not (part.isalpha() and part.islower()):
                    register_secret(part)


def _passwords_of(url: str) -> list[str]:
    """The password of a URL, as it stands there and as a server is told it. Where it is not quoted, a driver takes its pieces for
    host, port and path, and repeats them in its errors: so the pieces too."""
    found = _LOGIN.match(url)
    if found is None:
        return []
    password = found["password"]
    try:
        told = urlsplit(url)
        is_quoted = told.netloc.count("@") == 1 and told.password is not None and told.port != -1
    except ValueError:
        is_quoted, told = False, None
    if is_quoted and told is not None:
        return [str(told.password), unquote(str(told.password))]
    return [password, unquote(password), *(piece for piece in re.split("[@/?#:]", password) if len(piece) >= _SHORTEST_PIECE)]


def mask(text: str) -> str:
    """Return `text` with every registered secret and every password in a URL or key=value pair replaced."""
    values = sorted(_registered, key=len, reverse=True)
    for anchor, pattern in (*map(_pattern, values), *(half for value in values for half in _halves(value))):
        if anchor in text:
            text = pattern.sub(MASK, text)
    text = _URL_PASSWORD.sub(rf"\g<head>:{MASK}@", text)
    return _KEY_VALUE.sub(rf"\g<key>\g<sep>{MASK}", text)


def mask_values(value: Any) -> Any:
    """`value` with every text in it masked by itself: what is masked as JSON may be none any more."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {name: mask_values(item) for name, item in value.items()}
    return [mask_values(item) for item in value] if isinstance(value, list | tuple) else value


def mask_line(line: str) -> str:
    """A line that a user wrote, without what stands after a key that names a secret, unless it is read from the environment, and
    without the password of a URL, which may hold any character."""
    for found in _WRITTEN_KEY.finditer(line):
        if looks_secret(found["key"]) and not _FROM_ENVIRONMENT.fullmatch(line[found.end() :].strip()):
            line = f"{line[: found.end()]} {MASK}"
            break
    return mask(_WRITTEN_URL.sub(rf"\g<head>{MASK}@", line))


@lru_cache(maxsize=1024)
def _halves(value: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """How what is left of a long secret is found. Of a URL the halves would hide a host too."""
    middle = len(value) // 2
    if middle < _SHORTEST_HALF or "://" in value:
        return ()
    return _pattern(value[:middle]), _pattern(value[middle:])


@lru_cache(maxsize=4096)
def _pattern(value: str) -> tuple[str, re.Pattern[str]]:
    """The longest part of a secret that is the same in every form, and the expression that finds all of them.

    A run of backslashes is one part, and what escapes a character is taken with it, so that no two repetitions follow each other.
    """
    parts: list[str] = []
    rest = value
    while rest:
        body = rest.lstrip("\\")
        slashes = len(rest) - len(body)
        before = f"{_SLASH}{{{slashes},}}" if slashes else f"{_SLASH}*" if parts and not _WORD.match(body) else ""
        parts.append(before + (_forms(body[0]) if body else ""))
        rest = body[1:]
    anchor = max(_WORD.findall(value), key=len, default="")
    return anchor, re.compile("".join(parts))


def _forms(character: str) -> str:
    """How a character may be written, without the backslashes before it."""
    if _WORD.fullmatch(character):
        return character
    encoded, units = character.encode("utf-8", "surrogatepass"), character.encode("utf-16-be", "surrogatepass").hex()
    number = ord(character)
    forms = [
        re.escape(character),
        "".join(f"%(?:25)*(?i:{byte:02x})" for byte in encoded),
        f"{_SLASH}*".join(f"u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4)),
        f"{_SLASH}*".join(f"x(?i:{byte:02x})" for byte in encoded),
        f"x(?i:{number:02x})",
        f"U(?i:{number:08x})",
        f"&#0*{number};",
        f"&#[xX]0*(?i:{number:x});",
        *_OTHER_FORMS.get(character, ()),
    ]
    if character in "'\"":  # SQL, YAML and CSV write a quote twice
        forms.insert(0, rf"{character}\\*{character}")
    return f"(?:{'|'.join(forms)})"
