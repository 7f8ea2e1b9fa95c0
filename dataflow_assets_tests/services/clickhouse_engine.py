"""The ClickHouse engine (chDB) behind HTTP: `python -m dataflow_assets_tests.services.clickhouse_engine --port N --path FOLDER`.

Here: as much of ClickHouse's HTTP protocol as its Python driver speaks: queries and INSERTs with settings and parameters, streamed
results, compressed bodies, error codes. Not here: the native protocol, sessions, users (any password is right), replication.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

import chdb
import pyarrow as pa

_TRANSPORT = {
    *("query", "database", "user", "password", "query_id", "quota_key", "compress", "decompress", "wait_end_of_query", "buffer_size"),
    *("default_format", "client_protocol_version", "role", "send_progress_in_http_headers", "http_headers_progress_interval_ms"),
    *("enable_http_compression", "session_id", "session_timeout", "session_check"),
}
_INSERT = re.compile(rb"^\s*insert\s", re.IGNORECASE)
_DATA_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)[ \t]*;?[ \t]*(?:\r?\n|$)", re.IGNORECASE)
_RESULT_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_STREAMED = re.compile(rb"^[\s(]*(?:select|with)\b", re.IGNORECASE)
_GIVES_ROWS = re.compile(rb"^[\s(]*(?:select|with|show|desc|describe|exists|explain)\b", re.IGNORECASE)
_STATUS = {60: 404, 81: 404, 47: 404, 62: 400, 36: 400, 516: 403, 497: 403}
_BUFFER = 1 << 20
# The server's own defaults: the wheel's pools hold two, and a DELETE in 24 partitions then waits seconds for its turns.
_POOLS = {"background_pool_size": 16, "background_schedule_pool_size": 16, "background_common_pool_size": 8}


class _Cut(Exception):
    """The client hung up before its body was complete: like the server, do not act on a part."""


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: Engine
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """Answer a query, an INSERT or a ping."""
        with tempfile.TemporaryFile(prefix="body-", dir=self.server.scratch) as body, suppress(_Cut, BrokenPipeError, ConnectionError):
            self._receive(body)
            url = urlsplit(self.path)
            if url.path in {"/ping", "/replicas_status"}:
                self._reply(200, b"Ok.\n")
                return
            try:
                self._answer(dict(parse_qsl(url.query, keep_blank_values=True)), body)
            except (chdb.ChdbError, RuntimeError, ValueError) as error:
                self._fail(str(error))

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def _receive(self, body: IO[bytes]) -> None:
        """The whole body, whatever its size, decompressed, on disk."""
        encoding = (self.headers.get("Content-Encoding") or "").lower()
        inflate = {"gzip": zlib.decompressobj(31), "deflate": zlib.decompressobj()}.get(encoding)
        pieces = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self._sized()
        if encoding in {"lz4", "zstd"}:
            body.write(_inflated(encoding, b"".join(pieces)))
        else:
            for piece in pieces:
                body.write(inflate.decompress(piece) if inflate else piece)
        body.seek(0)

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self.rfile.readline()
            if not line.strip():
                self.close_connection = True
                raise _Cut
            size = int(line.split(b";")[0], 16)
            yield from self._exactly(size)
            self.rfile.readline()
            if size == 0:
                return

    def _sized(self) -> Iterator[bytes]:
        return self._exactly(int(self.headers.get("Content-Length") or 0))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, _BUFFER))
            if not piece:
                self.close_connection = True
                raise _Cut
            size -= len(piece)
            yield piece

    def _answer(self, arguments: dict[str, str], body: IO[bytes]) -> None:
        query = arguments.get("query", "").encode()
        if not query or not _INSERT.match(query):
            query = (query + b"\n" + body.read()).strip() if query else body.read().strip()
        connection = chdb.connect(self.server.path)  # a handle on the one engine of this process: settings are its own
        try:
            database = arguments.get("database") or self.headers.get("X-ClickHouse-Database")
            if database:
                connection.query("USE `{}`".format(database.replace("\\", "\\\\").replace("`", "\\`")), "Null")
            settings = {name: value for name, value in arguments.items() if name not in _TRANSPORT and not name.startswith("param_")}
            if settings:
                connection.query("SET " + ", ".join(f"{name} = {_literal(value)}" for name, value in settings.items()), "Null")
            values = {name.removeprefix("param_"): value for name, value in arguments.items() if name.startswith("param_")}
            if _INSERT.match(query) and (written := _DATA_FORMAT.search(query)):
                self._insert(connection, query, written, body)
            else:
                self._select(connection, query, values, arguments)
        finally:
            connection.close()

    def _insert(self, connection: Any, query: bytes, written: re.Match[bytes], body: IO[bytes]) -> None:
        with tempfile.NamedTemporaryFile(prefix="insert-", dir=self.server.scratch) as file:
            file.write(query[written.end() :])
            while piece := body.read(_BUFFER):
                file.write(piece)
            file.flush()
            source = f"FROM INFILE {_literal(file.name)} COMPRESSION 'none' FORMAT {written[1].decode()}"
            result = connection.query(f"{query[: written.start()].decode()} {source}", "Null")
        self._reply(200, b"", {"X-ClickHouse-Summary": json.dumps({"written_rows": str(result.rows_read() or 0)})})

    def _select(self, connection: Any, query: bytes, values: dict[str, str], arguments: dict[str, str]) -> None:
        named = _RESULT_FORMAT.search(query)
        form = named[1].decode() if named else arguments.get("default_format") or "TabSeparated"
        rows = _GIVES_ROWS.match(query)
        if not rows or not _STREAMED.match(query) or arguments.get("wait_end_of_query") == "1":
            result = connection.query(query.decode(), form if rows else "Null", params=values)
            named_format = {"X-ClickHouse-Format": form} if rows else {}
            summary = json.dumps({"written_rows": str(result.rows_read() or 0)})
            self._reply(200, result.bytes() or b"" if rows else b"", {**named_format, "X-ClickHouse-Summary": summary})
            return
        stream = connection.send_query(query.decode(), form, params=values)
        try:
            pieces = (chunk.bytes() or b"" for chunk in stream)
            pieces = _joined(pieces) if form == "ArrowStream" else pieces
            first = next(pieces, b"")
            if first:
                self._stream(first, pieces, form)
        finally:
            stream.close()
        if not first:  # without rows chDB streams nothing, and a server the schema
            self._stream(connection.query(query.decode(), form, params=values).bytes() or b"", iter(()), form)

    def _stream(self, first: bytes, pieces: Iterator[bytes], form: str) -> None:
        """The first piece decides between an answer and an error; an error after it cuts the line, as the server does."""
        self._head(200, {"X-ClickHouse-Format": form, "Transfer-Encoding": "chunked"})
        piece: bytes | None = first
        while piece is not None:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            try:
                piece = next(pieces, None)
            except (chdb.ChdbError, RuntimeError):
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def _fail(self, text: str) -> None:
        found = re.search(r"Code: (\d+)\.(?:.|\n)*", text)
        code = int(found[1]) if found else 1001
        message = found[0] if found else f"Code: 1001. DB::Exception: {text} (STD_EXCEPTION)"
        self._reply(_STATUS.get(code, 500), message.strip().encode() + b"\n", {"X-ClickHouse-Exception-Code": str(code)})

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        shared = {"Content-Type": "text/plain; charset=UTF-8", "X-ClickHouse-Server-Display-Name": "chdb", "X-ClickHouse-Timezone": "UTC"}
        for name, value in {**shared, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _joined(streams: Iterator[bytes]) -> Iterator[bytes]:
    """chDB ends an Arrow stream with each piece and begins anew; a server sends one."""
    sink, writer = io.BytesIO(), None
    for stream in filter(None, streams):
        with pa.ipc.open_stream(stream) as reader:
            writer = writer or pa.ipc.new_stream(sink, reader.schema)
            for batch in reader:
                writer.write_batch(batch)
                yield _taken(sink)
    if writer is not None:
        writer.close()
        yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written


def _inflated(encoding: str, data: bytes) -> bytes:
    if encoding == "lz4":
        import lz4.frame

        return bytes(lz4.frame.decompress(data))
    if encoding == "zstd":
        from backports import zstd

        return bytes(zstd.decompress(data))
    return gzip.decompress(data)


class Engine(ThreadingHTTPServer):
    """The server; one process has one engine, on one folder."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, path: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        pools = "".join(f"<{name}>{size}</{name}>" for name, size in _POOLS.items())
        config = path / "config.xml"
        config.write_text(f"<clickhouse>{pools}</clickhouse>")
        self.path = f"{path / 'data'}?config-file={config}"
        scratch = path / "scratch"
        scratch.mkdir(exist_ok=True)
        self.scratch = str(scratch)
        self.keep = chdb.connect(self.path)


def _end_with_parent(engine: Engine, parent: int) -> None:
    """Whoever started this may be killed before it can end it."""
    while os.getppid() == parent:
        time.sleep(1)
    engine.shutdown()


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", type=Path, required=True)
    given = parser.parse_args()
    engine = Engine(given.port, given.path)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=engine.shutdown).start())
    threading.Thread(target=_end_with_parent, args=(engine, os.getppid()), daemon=True).start()
    sys.stdout.write(f"listening on {engine.server_port}\n")
    sys.stdout.flush()
    engine.serve_forever()
    engine.keep.close()


if __name__ == "__main__":
    main()
