"""Emulators of object stores as processes: `python -m dataflow_assets_tests.services.store_servers s3|gcs PORT`.

Here: moto and gcp-storage-emulator with the conditions of writes that they do not hold by themselves, each write on its own, as
the real stores do. Not here: who starts them (`object_stores`).
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from http.server import HTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "lake"
_REFUSED = b"<Error><Code>PreconditionFailed</Code><Message>the condition does not hold</Message></Error>"


def serve_s3(port: int) -> None:
    """S3 on the loopback, with a bucket."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    app, writing = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            return app(environ, start)
        with writing:
            wanted = environ.get("HTTP_IF_MATCH")
            if wanted and "uploadId=" in environ["QUERY_STRING"]:
                _, bucket, key = environ["PATH_INFO"].encode("latin-1").decode().split("/", 2)
                found = backend.get_object(bucket, key)
                if found is None or found.etag.strip('"') != wanted.strip('"'):
                    start("412 Precondition Failed", [("Content-Type", "application/xml"), ("Content-Length", str(len(_REFUSED)))])
                    return [_REFUSED]
            return list(app(environ, start))

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    make_server("127.0.0.1", port, guarded, threaded=True).serve_forever()


class _Refused(Exception):
    """The generation is another one."""


def serve_gcs(port: int) -> None:
    """Google Cloud Storage on the loopback, with a bucket; one request at a time."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import buckets
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    class Conditional(Storage):
        expected: str | None = None

        def check(self, bucket: str, name: str) -> None:
            try:
                found = str(self.get_file_obj(bucket, name)["generation"])
            except NotFound:
                found = "0"
            if self.expected is not None and found != self.expected:
                raise _Refused

        def create_file(self, bucket_name: str, file_name: str, *args: Any, **kwargs: Any) -> Any:
            self.check(bucket_name, file_name)
            return super().create_file(bucket_name, file_name, *args, **kwargs)

    class Handler(RequestHandler):
        def _asked(self, answer: Callable[[], None]) -> None:
            parts = urlsplit(self.path)
            self.storage.expected = parse_qs(parts.query).get("ifGenerationMatch", [None])[0]
            try:
                if self.command == "GET" and "/o/" in parts.path:
                    bucket, _, name = parts.path.partition("/b/")[2].partition("/o/")
                    self.storage.check(bucket, unquote(name))
                answer()
            except _Refused:
                body = json.dumps({"error": {"code": 412, "message": "conditionNotMet", "errors": []}}).encode()
                self.send_response(412)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
            self._asked(super().do_GET)

        def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
            self._asked(super().do_POST)

        def do_PUT(self) -> None:  # noqa: N802 - the name that http.server looks for
            self._asked(super().do_PUT)

        def log_message(self, *_: Any) -> None:
            return None

    logging.disable()
    storage = Conditional(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    HTTPServer(("127.0.0.1", port), partial(Handler, storage)).serve_forever()


if __name__ == "__main__":
    {"s3": serve_s3, "gcs": serve_gcs}[sys.argv[1]](int(sys.argv[2]))
