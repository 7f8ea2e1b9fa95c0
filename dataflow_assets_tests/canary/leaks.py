"""The planted password, and finding it in whatever form it was written.

Here: the password, and a search through bytes and folders. Not here: who might show it (`scenes`), what must be clean (`test_canary`).
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

HEAD, TAIL = "c4naryHead", "c4naryTail"
PLAIN = HEAD + "/p@ss:w'd\"%41+\\{x}$#&<y? z" + TAIL
"""What URLs, YAML, SQL, Python, JSON, shells and HTML all write in another form; its two ends look the same in all of them."""
SECRET = PLAIN.replace("z", "\u00e9")


def _needles() -> dict[str, bytes]:
    """What to look for, by the form: the ends as text of several encodings, and as base64 at any offset."""
    found: dict[str, bytes] = {}
    for end in (HEAD, TAIL):
        found[f"{end} as text"] = end.encode()
        found[f"{end} as UTF-16"] = end.encode("utf-16-le")
        found[f"{end} in hexadecimal"] = end.encode().hex().encode()
        for offset in range(3):
            whole = base64.b64encode(b"\0" * offset + end.encode())
            # the characters at the edges depend on what stands beside
            found[f"{end} in base64 at {offset}"] = whole[(offset * 8 + 5) // 6 : len(whole.rstrip(b"=")) - 1]
    return found


_NEEDLES = _needles()


def leaks(shown: bytes | str) -> list[str]:
    """Where the password stands in this, with what stands around it; looks into what is compressed as a whole too."""
    data = shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else shown
    layers = [data]
    for unpack in (gzip.decompress, zlib.decompress):
        with suppress(OSError, EOFError, zlib.error):
            layers.append(unpack(data))
    found = []
    for layer in layers:
        lowered = layer.lower()
        for form, needle in _NEEDLES.items():
            at = (lowered if "text" in form or "hexa" in form else layer).find(
                needle.lower() if "text" in form or "hexa" in form else needle
            )
            if at >= 0:
                found.append(f"{form}: ...{layer[max(at - 120, 0) : at + 80]!r}...")
    return found


def leaks_of(shown: Mapping[str, bytes | str]) -> list[str]:
    """The leaks in several things, each with the name of the thing."""
    return [f"{name}: {leak}" for name, text in shown.items() for leak in leaks(text)]


def leaks_in(folders: Iterable[Path], *, known: Iterable[Path] = ()) -> list[str]:
    """The leaks in all files below the folders, byte by byte; `known` are those in which the user wrote the password."""
    written = set(known)
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file() and path not in written]
    names = [f"{path}: the name: {leak}" for path in files for leak in leaks(str(path))]
    return names + leaks_of({str(path): path.read_bytes() for path in files})
