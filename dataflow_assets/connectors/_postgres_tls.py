"""Whether a Postgres server speaks TLS, asked when a connection was refused.

libpq gives no code for "TLS was asked for and there is none", only a sentence; the first bytes of the protocol tell it. Here: that
question, and what it means for an `sslmode`. Not here: connections (`_postgres_session`).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_SECONDS = 5
_WANTING = frozenset({"require", "verify-ca", "verify-full"})


@dataclass(frozen=True)
class Verdict:
    """What the answer means for the connection: what to do, and whether trying again may help."""

    hint: str
    transient: bool


def verdict(given: Mapping[str, Any]) -> Verdict | None:
    """What TLS has to do with a refused connection of these parameters; None for nothing, or nothing that can be told."""
    mode = str(given.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer")
    speaks = speaks_tls(str(given.get("hostaddr") or given.get("host") or "localhost"), str(given.get("port") or 5432))
    if speaks is False and mode in _WANTING:
        advice = f"the server does not speak TLS, and sslmode {mode} insists on it: turn ssl on there; sslmode: prefer does without"
        return Verdict(advice, transient=False)
    if speaks and mode in {"disable", "allow"}:
        return Verdict(f"the server speaks TLS and may insist on it: say sslmode: require in place of {mode}", transient=True)
    if speaks and mode in _WANTING - {"require"}:
        trusted = given.get("sslrootcert") or "~/.postgresql/root.crt"
        return Verdict(
            f"sslmode {mode} asks for a certificate that {trusted} vouches for: see sslrootcert; check user and password too",
            transient=True,
        )
    return None


def speaks_tls(host: str, port: str) -> bool | None:
    """Whether the server answers a request for TLS with yes; None when it does not answer, or is no single TCP server."""
    if host.startswith(("/", "@")) or "," in host or not port.isdigit():
        return None
    try:
        with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
            connection.sendall(_SSL_REQUEST)
            return {b"S": True, b"N": False}.get(connection.recv(1))
    except OSError:
        return None
