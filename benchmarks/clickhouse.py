"""The ClickHouse engine for the benchmark alone, and curl that talks to it.

Here: the events table in it, what curl sends and fetches. Not here: starting it, which the tests' fixture does: chDB behind HTTP, with the
settings that ClickHouse ships. That face keeps the whole body of an INSERT in a file before the engine reads it, where a server reads
along; this holds up every contender alike, and BENCH_CLICKHOUSE_URL names a server that does not.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from benchmarks.server import NoServer

COLUMNS = """id Nullable(Int64), ts Nullable(DateTime64(6, 'UTC')), user_id Nullable(Int32), session Nullable(String),
kind Nullable(String), url Nullable(String), amount Nullable(Decimal(12, 2)), ratio Nullable(Float64), flag Nullable(Bool),
day Nullable(Date32)"""
CREATE = f"CREATE TABLE {{table}} ({COLUMNS}) ENGINE = MergeTree ORDER BY tuple()"
# The file has a line of names, and `+00` behind its moments.
READ_CSV = {"input_format_csv_skip_first_lines": "1", "date_time_input_format": "best_effort"}


@dataclass(frozen=True)
class ClickHouse:
    """A running engine. `url` names a database that is there."""

    url: str
    version: str
    settings: str

    def address(self, query: str, **settings: str) -> str:
        """The URL that asks for this query."""
        parts = urlsplit(self.url)
        login = {"user": parts.username or "default", **({"password": parts.password} if parts.password else {})}
        arguments = urlencode({"database": parts.path.strip("/") or "default", **login, **settings, "query": query}, quote_via=quote)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 8123}/?{arguments}"

    def sqlalchemy_url(self, database: str = "") -> str:
        """The address for peers, of this database or of our own."""
        url = urlsplit(self.url)._replace(scheme="clickhousedb")
        return urlunsplit(url._replace(path=f"/{database}") if database else url)

    def sql(self, text: str) -> str:
        """Run one statement and return what it printed."""
        argv = ("curl", "-sS", "--fail-with-body", "-X", "POST", "-H", "Content-Length: 0", self.address(text))
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def insert_csv(self, csv: Path, table: str) -> tuple[str, ...]:
        """The command that posts the file. curl would hold all of it in memory for `--data-binary`, and wait a second to be let in."""
        address = self.address(f"INSERT INTO {table} FORMAT CSV", **READ_CSV)
        post = f"curl -sS --fail-with-body -X POST -H Expect: -T - {shlex.quote(address)} < {shlex.quote(str(csv))}"
        return ("bash", "-c", post)

    def select_csv(self, table: str, target: Path) -> tuple[str, ...]:
        """The command that fetches the table into a file, without a line of names."""
        return ("curl", "-sS", "--fail-with-body", "-o", str(target), self.address(f"SELECT * FROM {table} FORMAT CSV"))

    def make_events(self, csv: Path) -> None:
        """The table in the database, from the CSV file, its parts merged."""
        self.sql("DROP TABLE IF EXISTS events SYNC")
        self.sql(CREATE.format(table="events"))
        subprocess.run(self.insert_csv(csv, "events"), check=True)
        self.sql("OPTIMIZE TABLE events FINAL")

    def clear(self, database: str) -> None:
        """Empty the database, ledger and all."""
        self.sql(f"DROP DATABASE IF EXISTS {database} SYNC")
        self.sql(f"CREATE DATABASE {database}")

    def count(self, database: str) -> int:
        """Rows of the events table in this database."""
        return int(self.sql(f"SELECT count() FROM {database}.events"))


@contextmanager
def running_clickhouse() -> Iterator[ClickHouse]:
    """The server named by BENCH_CLICKHOUSE_URL, else the engine in a process of its own."""
    if shutil.which("curl") is None:
        raise NoServer("curl is wanted")
    if url := os.environ.get("BENCH_CLICKHOUSE_URL"):
        yield _described(ClickHouse(url, "", "a server, as BENCH_CLICKHOUSE_URL has it"))
        return
    if find_spec("chdb") is None:
        raise NoServer("set BENCH_CLICKHOUSE_URL, or pip install chdb")
    from dataflow_assets_tests.services.clickhouse import running_engine

    with running_engine() as engine:
        yield _described(ClickHouse(engine.url, "", "the engine (chDB) behind HTTP, settings as shipped"))


def _described(server: ClickHouse) -> ClickHouse:
    return replace(server, version=server.sql("SELECT version()"))
