"""A Postgres server for the benchmark alone, the same for every contender, and psql to talk to it.

Here: its settings, start and end. Not here: the rows (`events`). The settings are those of a small server that is used in earnest:
durable (fsync, full_page_writes and synchronous_commit as Postgres ships them), with memory and WAL sized so that no checkpoint
falls into a measured run; a checkpoint is forced before each.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "1GB",
    "max_wal_size": "32GB",
    "checkpoint_timeout": "60min",
    "autovacuum": "off",
    "jit": "off",
}
START_SECONDS = 30


class NoServer(Exception):
    """There is no server to measure, and why."""


@dataclass(frozen=True)
class Server:
    """A running server. `dsn` is a URL without a password."""

    dsn: str
    version: str
    settings: str

    def sql(self, text: str) -> str:
        """Run statements with psql and return what the last one printed, without decoration."""
        argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn, "-c", text]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def checkpoint(self) -> None:
        """Write out what earlier runs left, so that the next one does not pay for it."""
        self.sql("CHECKPOINT")


@contextmanager
def running_server() -> Iterator[Server]:
    """The server named by BENCH_POSTGRES_DSN, else one of our own in a temporary folder."""
    if dsn := os.environ.get("BENCH_POSTGRES_DSN"):
        yield _described(dsn, "as BENCH_POSTGRES_DSN has them")
        return
    binaries = _binaries()
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    as_user: dict[str, Any] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="dataflow-bench-postgres-"))
    try:
        folder.chmod(0o711)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user is not None:
            os.chown(data, user.pw_uid, user.pw_gid)
        with _serving(binaries, data, folder / "log", as_user) as dsn:
            yield _described(dsn, ", ".join(f"{name}={value}" for name, value in SETTINGS.items()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _serving(binaries: Path, data: Path, log: Path, as_user: dict[str, Any]) -> Iterator[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C.UTF-8"}
    make: list[str | Path] = [
        binaries / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]
    subprocess.run(make, check=True, capture_output=True, cwd="/", env=env, **as_user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [item for name, value in SETTINGS.items() for item in ("-c", f"{name}={value}")]
    with log.open("wb") as output:
        argv: list[str | Path] = [binaries / "postgres", "-D", data, "-p", str(port), *options]
        child: subprocess.Popen[bytes] = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.STDOUT, cwd="/", env=env, start_new_session=True, **as_user
        )
    try:
        dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        _await(dsn, child, log)
        yield dsn
    finally:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(60)


def _await(dsn: str, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(["psql", "-X", "-d", dsn, "-c", "SELECT 1"], capture_output=True, check=False).returncode != 0:
        if child.poll() is not None or time.monotonic() > deadline:
            raise NoServer(f"Postgres did not start:\n{log.read_text()}")
        time.sleep(0.1)


def _binaries() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    on_path = shutil.which("postgres")
    found = [*versions, *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in found:
        if (folder / "initdb").exists() and shutil.which("psql"):
            return folder
    raise NoServer("the benchmark needs initdb, postgres and psql: install postgresql, or set BENCH_POSTGRES_DSN to an empty database")


def _described(dsn: str, settings: str) -> Server:
    server = Server(dsn, "", settings)
    return Server(dsn, server.sql("SHOW server_version"), settings)
