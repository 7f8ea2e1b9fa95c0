"""What stands in a target, read with its own driver or its own format's library, never through the connector.

Here: a target of each kind: its connection's keys, and how to look at it. Not here: who writes it (`arena`).
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Rows = Counter[tuple[int, str]]
ASK = "SELECT id, note FROM events"


@dataclass(frozen=True)
class Target:
    """The keys of its connection beside `type`, and a look at its rows: (id, note), none while there is no table."""

    keys: dict[str, Any]
    look: Callable[[], Rows]


def rows_of(table: pa.Table) -> Rows:
    """A table as a multiset of (id, note)."""
    return _counted(zip(table["id"].to_pylist(), table["note"].to_pylist(), strict=True))


def _counted(rows: Iterable[Any]) -> Rows:
    return Counter((int(row[0]), str(row[1])) for row in rows)


def target_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> Target:
    """A fresh target of this kind; files lie in the project's folder."""
    return _TARGETS[kind](folder, request)


def _postgres(_: Path, request: pytest.FixtureRequest) -> Target:
    import psycopg

    dsn: str = request.getfixturevalue("postgres_dsn")

    def look() -> Rows:
        with psycopg.connect(dsn) as connection:
            if connection.execute("SELECT to_regclass('events')").fetchone() == (None,):
                return Counter()
            return _counted(connection.execute(ASK))

    return Target({"dsn": dsn}, look)


def _mysql(_: Path, request: pytest.FixtureRequest) -> Target:
    import pymysql

    from dataflow_assets_tests.services.mysql import ask

    dsn: str = request.getfixturevalue("mysql_dsn")

    def look() -> Rows:
        try:
            return _counted(ask(dsn, ASK))
        except pymysql.err.ProgrammingError:
            return Counter()

    return Target({"dsn": dsn}, look)


def _clickhouse(_: Path, request: pytest.FixtureRequest) -> Target:
    server = request.getfixturevalue("clickhouse")
    keys = {"host": server.host, "port": server.port, "user": server.user, "password": server.password, "database": server.database}

    def look() -> Rows:
        with closing(server.client()) as client:
            there = client.query("EXISTS TABLE events").result_rows == [(1,)]
            return _counted(client.query(ASK).result_rows) if there else Counter()

    return Target({**keys, "secure": server.secure}, look)


def _snowflake(_: Path, request: pytest.FixtureRequest) -> Target:
    import snowflake.connector

    from dataflow_assets_tests.services.snowflake import run

    keys: dict[str, Any] = request.getfixturevalue("snowflake_keys")

    def look() -> Rows:
        try:
            return _counted(run(keys, 'SELECT "id", "note" FROM "events"'))
        except snowflake.connector.ProgrammingError:
            return Counter()

    return Target(keys, look)


def _bigquery(_: Path, request: pytest.FixtureRequest) -> Target:
    from google.api_core.exceptions import NotFound

    from dataflow_assets_tests.services.bigquery import run

    keys: dict[str, Any] = request.getfixturevalue("bigquery_keys")

    def look() -> Rows:
        try:
            return _counted(run(keys, "SELECT id, note FROM {d}.`events`"))
        except NotFound:
            return Counter()

    return Target(keys, look)


def _duckdb(folder: Path, _: pytest.FixtureRequest) -> Target:
    import duckdb

    def look() -> Rows:
        if not (folder / "target.duckdb").exists():
            return Counter()
        with duckdb.connect(str(folder / "target.duckdb")) as connection:
            try:
                return _counted(connection.execute(ASK).fetchall())
            except duckdb.CatalogException:
                return Counter()

    return Target({"database": "target.duckdb"}, look)


def _sqlite(folder: Path, _: pytest.FixtureRequest) -> Target:
    import sqlite3

    def look() -> Rows:
        if not (folder / "target.sqlite").exists():
            return Counter()
        with closing(sqlite3.connect(folder / "target.sqlite")) as connection:
            there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchall()
            return _counted(connection.execute(ASK)) if there else Counter()

    return Target({"database": "target.sqlite"}, look)


def _csv(folder: Path, _: pytest.FixtureRequest) -> Target:
    def look() -> Rows:
        path = folder / "out" / "events.csv"
        if not path.exists():
            return Counter()
        with path.open(newline="") as file:
            return _counted((row["id"], row["note"] or "None") for row in csv.DictReader(file))

    return Target({}, look)


def _json(folder: Path, _: pytest.FixtureRequest) -> Target:
    def look() -> Rows:
        path = folder / "out" / "events.ndjson"
        lines = path.read_text().splitlines() if path.exists() else []
        return _counted((row["id"], row["note"]) for row in map(json.loads, lines))

    return Target({}, look)


def _parquet(folder: Path, _: pytest.FixtureRequest) -> Target:
    def look() -> Rows:
        found: Rows = Counter()
        for path in (folder / "out" / "events").glob("*.parquet"):
            found += rows_of(pq.read_table(path, columns=["id", "note"]))
        return found

    return Target({}, look)


_TARGETS: dict[str, Callable[[Path, pytest.FixtureRequest], Target]] = {
    "postgres": _postgres,
    "mysql": _mysql,
    "clickhouse": _clickhouse,
    "snowflake": _snowflake,
    "bigquery": _bigquery,
    "duckdb": _duckdb,
    "sqlite": _sqlite,
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
}
