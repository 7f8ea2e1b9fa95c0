"""A MariaDB server for the benchmark alone, and the client that talks to it.

Here: its settings, the events table in it, LOAD DATA as people write it for such a CSV. Not here: starting it, which the tests'
fixture does. The settings are durable ones (redo log flushed at each commit, doublewrite on), as Debian ships them but for
memory and redo log, sized so that tables stay in memory and no checkpoint falls into a measured run. No binary log, as shipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from benchmarks.server import NoServer

SETTINGS = {
    "innodb-flush-log-at-trx-commit": "1",
    "innodb-doublewrite": "1",
    "innodb-flush-method": "O_DIRECT",
    "innodb-buffer-pool-size": "4G",
    "innodb-log-file-size": "8G",
    "innodb-io-capacity": "2000",
}
COLUMNS = """id BIGINT, ts TIMESTAMP(6) NULL, user_id INTEGER, session TEXT, kind TEXT, url TEXT,
amount DECIMAL(12, 2), ratio DOUBLE, flag BOOLEAN, day DATE"""
SETTLE_SECONDS = 300


@dataclass(frozen=True)
class MySQL:
    """A running server. `dsn` is a URL that names a database of ours."""

    dsn: str
    version: str
    settings: str

    def client(self, *options: str) -> tuple[str, ...]:
        """The command of the client, connected to the database."""
        url = urlsplit(self.dsn)
        login = (f"--user={url.username}", f"--password={url.password or ''}", f"--host={url.hostname}", f"--port={url.port or 3306}")
        utf8 = "--default-character-set=utf8mb4"
        return (_client(), "--no-defaults", "--protocol=tcp", *login, utf8, *options, url.path.strip("/"))

    def sqlalchemy_url(self, database: str = "") -> str:
        """The address for peers, of this database or of our own."""
        url = urlsplit(self.dsn)._replace(scheme="mysql+pymysql")
        return urlunsplit(url._replace(path=f"/{database}") if database else url)

    def sql(self, text: str) -> str:
        """Run statements and return what they printed, without decoration."""
        argv = self.client("--local-infile=1", "--batch", "--skip-column-names", f"--execute={text}")
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def make_events(self, csv: Path) -> None:
        """The table in the server's own database, from the CSV file."""
        self.sql(f"DROP TABLE IF EXISTS events; CREATE TABLE events ({COLUMNS}); {load_data(csv, 'events')}; ANALYZE TABLE events")

    def clear(self, database: str) -> None:
        """Empty the database, ledger and all, and write out what is left."""
        self.sql(f"DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}")
        self.settle()

    def count(self, database: str) -> int:
        """Rows of the events table in this database."""
        return int(self.sql(f"SELECT count(*) FROM {database}.events"))

    def settle(self) -> None:
        """Write out changed pages; there is no statement that waits for it."""
        self.sql("SET GLOBAL innodb_max_dirty_pages_pct = 0")
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.sql("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'").split()[-1] != "0" and time.monotonic() < deadline:
            time.sleep(0.1)
        self.sql("SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT")


def load_data(csv: Path, table: str) -> str:
    """The statement that reads the CSV file: empty fields are no nulls to it, and neither `+00` nor `true` is what it takes."""
    nullable = ("user_id", "url", "amount", "ratio")
    nulls = ", ".join(f"{name} = NULLIF(@{name}, '')" for name in nullable)
    return (
        f"SET time_zone = '+00:00'; LOAD DATA LOCAL INFILE '{csv}' INTO TABLE {table} CHARACTER SET utf8mb4 "
        """FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '"' ESCAPED BY '' LINES TERMINATED BY '\\n' IGNORE 1 LINES """
        "(id, @ts, @user_id, session, kind, @url, @amount, @ratio, @flag, day) "
        f"SET ts = TRIM(TRAILING '+00' FROM @ts), {nulls}, flag = NULLIF(@flag, '') = 'true'"
    )


@contextmanager
def running_mysql() -> Iterator[MySQL]:
    """The server named by BENCH_MYSQL_DSN, else one of our own in a temporary folder."""
    if dsn := os.environ.get("BENCH_MYSQL_DSN"):
        yield _described(MySQL(dsn, "", "as BENCH_MYSQL_DSN has them"))
        return
    _client()
    from dataflow_assets_tests.services.mysql import running

    try:
        with running(*(f"--{name}={value}" for name, value in SETTINGS.items())) as started:
            text = ", ".join(f"{name}={value}" for name, value in SETTINGS.items())
            admin = MySQL(f"{started.dsn.replace('root@', 'root:@')}mysql", "", text)
            # with a password: one of the peers insists on it
            admin.sql("CREATE DATABASE bench; CREATE USER bench IDENTIFIED BY 'bench'; GRANT ALL ON *.* TO bench")
            address = urlsplit(started.dsn)
            yield _described(replace(admin, dsn=f"mysql://bench:bench@{address.hostname}:{address.port}/bench"))
    except FileNotFoundError:
        raise NoServer("set BENCH_MYSQL_DSN, or install mariadb-server-core and mariadb-client-core") from None


def _described(server: MySQL) -> MySQL:
    return replace(server, version=server.sql("SELECT version()"))


def _client() -> str:
    found = shutil.which("mariadb") or shutil.which("mysql")
    if found is None:
        raise NoServer("the client of MariaDB or MySQL is wanted: install mariadb-client-core")
    return found
