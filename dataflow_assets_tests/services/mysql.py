"""A real MySQL or MariaDB for tests: one server for the session, one fresh database for each test that asks.

Here: the ladder TEST_MYSQL_DSN, the system's MariaDB binaries. Not here: what is tested with it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from dataflow_assets_tests.services.ladder import absent, free_port, note_rung

# Speed over safety: the data does not outlive the session.
_SMALL = ("--innodb-log-file-size=8M", "--innodb-flush-method=nosync", "--skip-innodb-doublewrite")
_SETTINGS = (
    *("--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin", "--local-infile=1", "--innodb-flush-log-at-trx-commit=0"),
    # without these, --no-defaults means latin1
    *("--character-set-server=utf8mb4", "--collation-server=utf8mb4_unicode_ci", "--innodb-buffer-pool-size=64M"),
)
SECRET = "correct horse battery"
"""The password of the user that tests publish with."""
RIGHTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, CREATE TEMPORARY TABLES, LOCK TABLES"
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


@dataclass
class MySQLServer:
    """A running server: `dsn` names a database where others can be created; `process` is None for one that somebody else runs."""

    dsn: str
    rung: str
    command: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """What the driver takes."""
        return parts_of(self.dsn)

    def start(self, log: Path) -> None:
        """Start the server and wait until it answers."""
        with log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=subprocess.STDOUT, cwd="/", start_new_session=True)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB did not start:\n{log.read_text()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        import pymysql

        try:
            connect(self.dsn).close()
        except pymysql.MySQLError:
            return False
        return True

    def kill(self) -> None:
        """End it without a word."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Stop the server, by force when it does not hear."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def parts_of(dsn: str) -> dict[str, Any]:
    """Host, port, user, password and database of a DSN, as the driver takes them."""
    url = urlsplit(dsn)
    login = {"user": unquote(url.username or "root"), "password": unquote(url.password or "")}
    return {"host": url.hostname or "127.0.0.1", "port": url.port or 3306, **login, "database": url.path.strip("/") or None}


def connect(dsn: str, **options: Any) -> Any:
    """An autocommitting connection with the driver itself, for what tests do behind the connector's back."""
    import pymysql

    return pymysql.connect(**parts_of(dsn), autocommit=True, charset="utf8mb4", **options)


def ask(dsn: str, *statements: str) -> tuple[tuple[Any, ...], ...]:
    """Run statements; the rows of the last one."""
    with connect(dsn) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        found: tuple[tuple[Any, ...], ...] = cursor.fetchall()
        return found


@contextmanager
def running(*settings: str) -> Iterator[MySQLServer]:
    """A server of our own on a free port of the loopback, with more settings. Raises FileNotFoundError without the binaries."""
    programs = [shutil.which(name, path=_PATH) for name in ("mariadbd", "mariadb-install-db")]
    if None in programs:
        raise FileNotFoundError("mariadbd")
    server, installer = [str(program) for program in programs]
    scratch = Path(tempfile.mkdtemp(prefix="dataflow-mysql-"))
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    place = ["--no-defaults", *as_root, f"--datadir={scratch / 'data'}"]
    try:
        first = [installer, *place, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", *_SMALL]
        subprocess.run(first, check=True, capture_output=True, cwd="/")
        port = free_port()
        files = [f"--socket={scratch / 'socket'}", f"--pid-file={scratch / 'pid'}", f"--port={port}"]
        made = MySQLServer(f"mysql://root@127.0.0.1:{port}/", "system binaries", [server, *place, *files, *_SETTINGS, *_SMALL, *settings])
        try:
            made.start(scratch / "log")
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="session")
def mysql_server(pytestconfig: pytest.Config) -> Iterator[MySQLServer]:
    """The server of this session; a test that needs a database asks for `mysql_dsn`."""
    if find_spec("pymysql") is None:
        absent(pytestconfig, "mysql", "the driver is not installed")
    if dsn := os.environ.get("TEST_MYSQL_DSN"):
        note_rung(pytestconfig, "mysql", "TEST_MYSQL_DSN")
        yield MySQLServer(dsn, "TEST_MYSQL_DSN")
        return
    try:
        with running() as server:
            note_rung(pytestconfig, "mysql", f"{server.rung} (MariaDB)")
            yield server
    except FileNotFoundError:
        absent(pytestconfig, "mysql", "set TEST_MYSQL_DSN, or install mariadb-server-core and mariadb-client-core")


_numbers = itertools.count(1)


@contextmanager
def fresh_mysql_database(server: MySQLServer) -> Iterator[str]:
    """The DSN of a database made now and dropped after use."""
    name = f"dataflow_test_{os.getpid()}_{next(_numbers)}"
    ask(server.dsn, f"CREATE DATABASE `{name}`")
    try:
        yield dsn_of(server.dsn, database=name)
    finally:
        ask(server.dsn, f"DROP DATABASE IF EXISTS `{name}`")


def dsn_of(dsn: str, **changes: Any) -> str:
    """The DSN with another database, port, user or password."""
    parts = {**parts_of(dsn), **changes}
    login = quote(parts["user"], safe="") + (f":{quote(parts['password'], safe='')}" if parts["password"] else "")
    return f"mysql://{login}@{parts['host']}:{parts['port']}/{parts['database'] or ''}"


@pytest.fixture
def mysql_dsn(mysql_server: MySQLServer) -> Iterator[str]:
    """The DSN of a database for this test alone."""
    with fresh_mysql_database(mysql_server) as dsn:
        yield dsn


@pytest.fixture
def mysql_user_dsn(mysql_server: MySQLServer, mysql_dsn: str) -> str:
    """The same database, for a user with a password and with the rights that the docs name."""
    database = parts_of(mysql_dsn)["database"]
    ask(
        mysql_server.dsn,
        f"CREATE USER IF NOT EXISTS loader@'%' IDENTIFIED BY '{SECRET}'",
        f"GRANT {RIGHTS} ON `{database}`.* TO loader@'%'",
    )
    return dsn_of(mysql_dsn, user="loader", password=SECRET)
