"""The HTTP service: `/livez`, `/readyz`, `/metrics`.

Here: a thread that keeps the verdict and the figures up to date, and a server that only reads them, so that a database that hangs delays no
answer. Not here: what is asked (`questions`, `figures`), the verb (`cli.health`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from dataflow_assets.operations.health.figures import Counting
from dataflow_assets.operations.health.metrics import Metrics
from dataflow_assets.operations.health.questions import Answer
from dataflow_assets.operations.health.verdict import Verdict, examine, reached
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now


@dataclass(frozen=True)
class Rhythm:
    """How often things are asked, in seconds. None: never."""

    refresh: float = 15.0
    ledgers: float | None = 300.0
    connections: float | None = None

    @property
    def too_old(self) -> timedelta:
        """A verdict of that age is none: whoever makes it hangs."""
        return timedelta(seconds=max(4 * self.refresh, 60.0))


class Watch:
    """Keeps a verdict and the figures. `refresh` asks what is due; `start` does so again and again until `stop`."""

    def __init__(self, project: Project, instance: dg.DagsterInstance, *, rhythm: Rhythm, require_daemon: bool, now: datetime) -> None:
        self._project, self._instance, self._rhythm, self._require_daemon = project, instance, rhythm, require_daemon
        self.verdict: Verdict | None = None
        self.counting = Counting(now=now)
        self._connections: tuple[Answer, ...] = ()
        self._asked: dict[str, datetime] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def refresh(self, *, now: datetime) -> Verdict:
        """A new verdict, and the figures that cost little."""
        verdict = examine(self._project, self._instance, now=now, require_daemon=self._require_daemon, connections=self._connections)
        self.verdict = verdict
        plan, project = verdict.plan, verdict.project
        if plan is not None and project is not None:
            self._read("runs", lambda: self.counting.read_runs(plan, self._instance))
            self._read("drive", lambda: self.counting.read_drive(project, now=now))
            self._read("alerts", lambda: self.counting.read_alerts(plan, project, self._instance))
            self._read("disk", lambda: self.counting.read_disk(project))
        self._read("daemons", lambda: self.counting.read_daemons(self._instance))
        return verdict

    def refresh_slow(self, *, now: datetime) -> None:
        """What reaches other systems: connections and ledgers, where it is due and wanted."""
        verdict = self.verdict
        if verdict is None or verdict.plan is None or verdict.project is None:
            return
        if self._is_due("connections", self._rhythm.connections, now=now):
            self._connections = reached(verdict)
        if self._is_due("ledgers", self._rhythm.ledgers, now=now):
            for pipeline in verdict.plan.pipelines:
                if self._stop.is_set():
                    return
                self._read_ledger(verdict.project, pipeline, now=now)
            self.counting.forget_others(verdict.plan)
            self.counting.figures.sources["ledgers"] = not self.counting.figures.unreachable

    def _read_ledger(self, project: Project, pipeline: PipelinePlan, *, now: datetime) -> None:
        with suppress(Exception):
            self.counting.read_ledger(project, pipeline, now=now)

    def _is_due(self, name: str, every: float | None, *, now: datetime) -> bool:
        if every is None or (name in self._asked and now - self._asked[name] < timedelta(seconds=every)):
            return False
        self._asked[name] = now
        return True

    def _read(self, source: str, read: Callable[[], None]) -> None:
        try:
            read()
        except Exception:  # noqa: BLE001 - shown as dataflow_source_up 0
            self.counting.figures.sources[source] = False
        else:
            self.counting.figures.sources[source] = True

    def start(self) -> None:
        """Refresh in threads of their own: what is near, and what may hang."""
        for work in (self.refresh, self.refresh_slow):
            thread = threading.Thread(target=self._repeat, args=(work,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _repeat(self, work: Callable[..., Any]) -> None:
        while not self._stop.is_set():
            with suppress(Exception):
                work(now=utc_now())
            self._stop.wait(self._rhythm.refresh if self.verdict else 0.1)

    def stop(self, *, patience: float = 5.0) -> None:
        """Stop refreshing; a system that hangs is not waited for longer than that."""
        self._stop.set()
        for thread in self._threads:
            thread.join(patience)

    def current(self, *, now: datetime) -> tuple[bool, dict[str, Any]]:
        """Whether it is ready, and the verdict as data; not ready while there is none, or when it is too old."""
        verdict = self.verdict
        if verdict is None:
            return False, {"ready": False, "checks": {}, "reason": "the first look is under way"}
        if now - verdict.at > self._rhythm.too_old:
            reason = f"the last look was at {verdict.at.isoformat()}: something that is asked does not answer"
            return False, {**verdict.data(), "ready": False, "reason": reason}
        return verdict.ready, verdict.data()


class HealthServer(ThreadingHTTPServer):
    """Listens at once; `serve_forever` answers. Raises OSError where the port is taken."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], watch: Watch) -> None:
        self.watch = watch
        self.registry = Metrics(watch.counting.figures, lambda: watch.verdict).registry()
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.server_address[:2]
        shown = host.decode() if isinstance(host, bytes) else host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dataflow", ""
    timeout = 30

    def log_message(self, *_: Any) -> None:
        """Nothing: a probe every few seconds would fill a log."""

    def do_GET(self) -> None:
        """Answer; anything unknown is 404."""
        path = urlsplit(self.path).path.rstrip("/") or "/"
        if path == "/livez":
            self._answer(200, "text/plain; charset=utf-8", b"ok\n")
        elif path == "/readyz":
            ready, document = self.server.watch.current(now=utc_now())
            self._answer(200 if ready else 503, "application/json", json.dumps(document).encode() + b"\n")
        elif path == "/metrics":
            self._metrics()
        else:
            self._answer(404, "text/plain; charset=utf-8", b"there are /livez, /readyz and /metrics\n")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def _metrics(self) -> None:
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._answer(200, content_type, encode(self.server.registry))

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        headers = {"Content-Type": content_type, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
