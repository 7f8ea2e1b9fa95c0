"""A real HTTP server for tests, on a free port of the loopback, that answers as it is told and fails when it is told.

Here: routes, answers with their faults, the log of requests. Not here: any API (the tests write their own), nor the stub of
Elasticsearch (`services.elasticsearch`), which is served by this.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def one(self, name: str, default: str = "") -> str:
        """A parameter of the query."""
        return self.query.get(name, [default])[0]


@dataclass(frozen=True)
class Answer:
    """One reply. `cut` bytes of the body are sent, then the connection is reset; `pause` seconds lie between its bytes."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause: float = 0.0
    delay: float = 0.0
    drop: bool = False
    """Reset the connection without an answer."""

    @property
    def content(self) -> bytes:
        """The bytes; what is neither bytes nor text goes out as JSON."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass
class Server:
    """Answers with `route`, unless a fault stands first in the queue."""

    route: Callable[[Asked], Answer]
    url: str = ""
    faults: list[Answer] = field(default_factory=list)
    log: list[Asked] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def answer(self, asked: Asked) -> Answer:
        """Log the request and answer it."""
        with self.lock:
            self.log.append(asked)
            return self.faults.pop(0) if self.faults else self.route(asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    told: Server

    def log_message(self, *_: Any) -> None:
        return None

    def _any(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        query = parse_qs(parts.query, keep_blank_values=True)
        answer = self.told.answer(Asked(self.command, parts.path, query, headers, body, time.monotonic()))
        with suppress(OSError):
            self._send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any  # noqa: N815 - the names that http.server looks for

    def _send(self, answer: Answer) -> None:
        time.sleep(answer.delay)
        if answer.drop:
            self._reset()
            return
        content = answer.content
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if answer.pause:
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(answer.pause)
            return
        self.wfile.write(content if answer.cut is None else content[: answer.cut])
        self.wfile.flush()
        if answer.cut is not None:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@contextmanager
def served(route: Callable[[Asked], Answer], *, certificate: Path | None = None) -> Iterator[Server]:
    """A running server; over TLS with a file that holds its key and certificate."""
    told = Server(route)
    handler = type("Handler", (_Handler,), {"told": told})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    told.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
