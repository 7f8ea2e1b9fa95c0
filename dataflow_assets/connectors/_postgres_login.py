"""Why a Postgres server refused a login, as SQLSTATE.

libpq keeps the server's code of a failed login to itself, and so do psycopg and ADBC: they hand on its sentence, in the language of the
server. But libpq can be told to write the code in place of the sentence. Here: one more login with that setting. Not here: connections
(`_postgres_session`), what a code means there.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

WELCOME = "00000"
_CODES_ONLY = 3  # PQERRORS_SQLSTATE, since libpq 12
_SECONDS = 10.0
_CODE_AT_THE_END = re.compile(r":\s+(?=[A-Z]*\d)([0-9A-Z]{5})\s*\Z")
_MAPPED = Path("/proc/self/maps")


def login_state(conninfo: str, *, seconds: float = _SECONDS) -> str:
    """The SQLSTATE of the refusal, `WELCOME` when the server lets in now; empty when it gives none or cannot be asked."""
    from psycopg import pq

    library = _libpq()
    if library is None:
        return ""
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        library.PQsetErrorVerbosity(getattr(connection, "pgconn_ptr", None), _CODES_ONLY)  # a null pointer does nothing
        if _logged_in(connection, time.monotonic() + seconds):
            return WELCOME
        found = _CODE_AT_THE_END.search(connection.error_message.decode(errors="replace"))
        return found[1] if found else ""
    finally:
        connection.finish()


def _logged_in(connection: PGconn, deadline: float) -> bool:
    """Drive the login to its end."""
    from psycopg import pq

    while (status := connection.connect_poll()) in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
        sockets = [connection.socket]
        reading = sockets if status == pq.PollingStatus.READING else []
        ready = select.select(reading, [] if reading else sockets, [], max(deadline - time.monotonic(), 0))
        if not any(ready):
            return False
    return bool(status == pq.PollingStatus.OK)


@cache
def _libpq() -> ctypes.CDLL | None:
    """The libpq that psycopg has loaded; None where that cannot be found."""
    with suppress(OSError, AttributeError):
        paths = {line.split()[-1] for line in _MAPPED.read_text(encoding="utf-8", errors="replace").splitlines() if "/libpq" in line}
        for path in sorted(paths, key=lambda path: "psycopg_binary" not in path):
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
            library.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
            return library
    return None
