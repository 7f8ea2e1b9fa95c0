"""A ClickHouse engine for tests: one server for the session, one fresh database for each test that asks.

Here: the ladder TEST_CLICKHOUSE_URL, the wheel `chdb` behind `clickhouse_engine`. Not here: what is tested with it. The wheel is
the engine itself in one process: it shows neither replication nor users.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import pytest

from dataflow_assets_tests.services.ladder import absent, free_port, note_rung


@dataclass(frozen=True)
class ClickHouseServer:
    """Where a server listens, and a database of it."""

    host: str
    port: int
    user: str = "default"
    password: str = ""
    secure: bool = False
    database: str = "default"

    @classmethod
    def of(cls, url: str) -> ClickHouseServer:
        """From `http://user:password@host:port/database`."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        user, password = unquote(parts.username or "default"), unquote(parts.password or "")
        port = parts.port or (8443 if secure else 8123)
        return cls(parts.hostname or "127.0.0.1", port, user, password, secure, parts.path.strip("/") or "default")

    @property
    def url(self) -> str:
        """The same as text, for a child process."""
        login = f"{self.user}:{self.password}@" if self.password else f"{self.user}@"
        return f"{'https' if self.secure else 'http'}://{login}{self.host}:{self.port}/{self.database}"

    def client(self) -> Any:
        """The driver's own client, for what a test does by hand."""
        import clickhouse_connect

        options = {"username": self.user, "password": self.password, "secure": self.secure, "database": self.database}
        return clickhouse_connect.get_client(host=self.host, port=self.port, autogenerate_session_id=False, **options)


class EngineProcess:
    """The engine in a process of its own, on a free port of the loopback; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self.server = ClickHouseServer("127.0.0.1", self._port)

    def start(self) -> None:
        """Start, and wait until it answers."""
        module = "dataflow_assets_tests.services.clickhouse_engine"
        command = [sys.executable, "-m", module, "--port", str(self._port), "--path", str(self._folder)]
        with (self._folder / "log").open("wb") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        _await(self._port, self._server, self._folder / "log")

    def kill(self) -> None:
        """End it without a word."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def stop(self) -> None:
        """End it in order."""
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._server = None


@contextmanager
def engine_process() -> Iterator[EngineProcess]:
    """An engine for as long as the context."""
    folder = Path(tempfile.mkdtemp(prefix="dataflow-clickhouse-"))
    try:
        process = EngineProcess(folder)
        try:
            process.start()
            yield process
        finally:
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_engine() -> Iterator[ClickHouseServer]:
    """The address of such an engine."""
    with engine_process() as process:
        yield process.server


def _await(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                return
        except (URLError, OSError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the engine did not start:\n{log.read_text()}") from None
            time.sleep(0.1)


@pytest.fixture(scope="session")
def clickhouse_server(pytestconfig: pytest.Config) -> Iterator[ClickHouseServer]:
    """The server of this session; a test that needs a database asks for `clickhouse`."""
    if find_spec("clickhouse_connect") is None:
        absent(pytestconfig, "clickhouse", "the driver clickhouse-connect is not installed")
    if url := os.environ.get("TEST_CLICKHOUSE_URL"):
        note_rung(pytestconfig, "clickhouse", "TEST_CLICKHOUSE_URL")
        yield ClickHouseServer.of(url)
        return
    if find_spec("chdb") is None:
        absent(pytestconfig, "clickhouse", "set TEST_CLICKHOUSE_URL, or pip install chdb")
    note_rung(pytestconfig, "clickhouse", "ClickHouse engine (chDB)")
    with running_engine() as server:
        yield server


_numbers = itertools.count(1)


@contextmanager
def fresh_database(server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """A database made now and dropped after use."""
    name = f"dataflow_test_{os.getpid()}_{next(_numbers)}"
    admin = server.client()
    admin.command(f"CREATE DATABASE `{name}` ENGINE = Atomic")
    try:
        yield replace(server, database=name)
    finally:
        admin.command(f"DROP DATABASE IF EXISTS `{name}`")
        admin.close()


@pytest.fixture
def clickhouse(clickhouse_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """A database for this test alone."""
    with fresh_database(clickhouse_server) as server:
        yield server
