"""The SQLAlchemy connector against SQLite and a real Postgres: the contract on both, and what only this connector does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.connectors import _sqlalchemy_session
from dataflow_assets.connectors._sqlalchemy_session import for_driver
from dataflow_assets.connectors.sqlalchemy import Connector, SQLAlchemyConnection, SQLAlchemyEndpoint, SQLAlchemySource
from dataflow_assets.errors import ConnectionFailed, MissingDriver, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Bind, Query, ReadRequest, Target, WindowFilter, WriteMode
from dataflow_assets_tests.connectors.arrow_types import FLOATS, NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.contract_schema import SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.kills import KillPromises

SECRET = "correct horse battery"


@dataclass
class SQLAlchemyHarness(Harness):
    """A database behind a URL."""

    url: str = ""
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.url, self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = SQLAlchemyEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> SQLAlchemySource:
        return SQLAlchemySource(table=name)


def connect(url: str, folder: Path, **options: Any) -> Connector:
    """A connector for a URL; relative files start in `folder`."""
    return Connector(SQLAlchemyConnection(url=url, **options), ConnectionContext("somewhere", folder))


def harness_of(place: str, scratch: Path) -> SQLAlchemyHarness:
    """The harness of a URL, or of the folder with a SQLite file in write-ahead mode."""
    if "://" in place:
        return SQLAlchemyHarness(scratch, url=place, secret=SECRET, longest_name=63)
    path = Path(place) / "test.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = wal")
    connection.close()
    return SQLAlchemyHarness(Path(place), url=f"sqlite:///{path}")


def with_secret(dsn: str) -> str:
    """The DSN for psycopg through SQLAlchemy, with a password that the server does not ask for."""
    return dsn.replace("postgresql://postgres@", f"postgresql+psycopg://postgres:{SECRET.replace(' ', '%20')}@")


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[SQLAlchemyHarness]:
    made = harness_of(str(tmp_path), tmp_path)
    yield made
    made.connector.close()


@pytest.fixture
def on_postgres(postgres_dsn: str, tmp_path: Path) -> Iterator[SQLAlchemyHarness]:
    made = harness_of(with_secret(postgres_dsn), tmp_path)
    yield made
    made.connector.close()


def wall_clock(column: pa.Array) -> pa.Array:
    """Instants as their wall-clock times in UTC."""
    return column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))


MICROSECONDS = Lossy("the databases keep microseconds")
FINE = dict.fromkeys(("time_ns_fine", "timestamp_ns_fine", "instant_ns_fine"), MICROSECONDS)
NO_NESTED = dict.fromkeys((*NESTED, "duration_us"), Lossy("SQLAlchemy has no type for them that every database knows"))
LONG_DECIMALS = ("decimal64_18_6", "decimal_38_0", "decimal_38_38", "decimal_76_10")
INSTANTS = [f"instant{zone}_{unit}" for zone in ("", "_new_york") for unit in ("s", "ms", "us", "ns")]


class TestSQLAlchemyOnSQLite(ConnectorContract):
    """The contract, with a database that has neither decimals nor instants."""

    over = "SQLite"

    lossy: ClassVar[dict[str, Lossy]] = {
        **FINE,
        **NO_NESTED,
        **dict.fromkeys(FLOATS, Lossy("SQLite makes a null of NaN")),
        **dict.fromkeys(LONG_DECIMALS, Lossy("SQLAlchemy keeps decimals as floats in SQLite")),
        "uint64": Lossy("SQLite's integers have a sign"),
        **dict.fromkeys(INSTANTS, Lossy("SQLite has no type for instants: they are kept in UTC", wall_clock)),
    }

    @pytest.fixture
    def harness(self, on_sqlite: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_sqlite


class TestSQLAlchemyOnPostgres(ConnectorContract):
    """The contract, with a real server."""

    over = "Postgres"

    lossy: ClassVar[dict[str, Lossy]] = {**FINE, **NO_NESTED, "string_nul": Lossy("Postgres has no text with a zero byte")}

    @pytest.fixture
    def harness(self, on_postgres: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_postgres


class TestSQLAlchemyOnSQLiteSchemas(SchemaPromises):
    """Columns that change."""

    widens = False

    @pytest.fixture
    def harness(self, on_sqlite: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_sqlite


class TestSQLAlchemyOnPostgresSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, on_postgres: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_postgres


class TestSQLAlchemyOnSQLiteDropped(DroppedPromises):
    """A table dropped by hand."""

    @pytest.fixture
    def harness(self, on_sqlite: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_sqlite

    def drop(self, harness: Harness, table: str) -> None:
        connection = sqlite3.connect(harness.scratch / "test.sqlite")
        connection.execute(f"drop table {table}")
        connection.close()


class TestSQLAlchemyOnPostgresDropped(DroppedPromises):
    """A table dropped by hand."""

    @pytest.fixture
    def harness(self, on_postgres: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_postgres

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, SQLAlchemyHarness)
        with psycopg.connect(harness.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"drop table {table}")


class TestSQLAlchemyOnSQLiteKilled(KillPromises):
    """Processes."""

    kind = "sqlalchemy"

    @pytest.fixture
    def harness(self, on_sqlite: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_sqlite

    @pytest.fixture
    def place(self, on_sqlite: SQLAlchemyHarness) -> str:
        return str(on_sqlite.scratch)


class TestSQLAlchemyOnPostgresKilled(KillPromises):
    """Processes."""

    kind = "sqlalchemy"

    @pytest.fixture
    def harness(self, on_postgres: SQLAlchemyHarness) -> SQLAlchemyHarness:
        return on_postgres

    @pytest.fixture
    def place(self, on_postgres: SQLAlchemyHarness) -> str:
        return on_postgres.url


def read(connector: Connector, *parts: str | Bind, window: WindowFilter | None = None, **types: str) -> pa.Table:
    options = SQLAlchemySource(query="rendered", column_types=types)
    with connector.read(ReadRequest(options, query=Query(parts), window=window)) as reader:
        return reader.read_all()


def admin(harness: SQLAlchemyHarness) -> psycopg.Connection[Any]:
    return psycopg.connect(harness.url.replace("+psycopg", ""), autocommit=True)


# -- the URL


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("mysql+mysqldb://u:hidden@h/d", "mysqlclient"),
        ("mssql+pymssql://u:hidden@h/d", "pymssql"),
        ("trino://u:hidden@h/d", "trino[sqlalchemy]"),
        ("nonsense://u:hidden@h/d", "nonsense"),
    ],
)
def test_a_missing_driver_names_its_package(url: str, package: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDriver) as caught:
        connect(url, tmp_path).probe()
    assert package in caught.value.hint
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "shop.db", "/shop.db", "://h"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        SQLAlchemyConnection(url=url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="name a file"):
        connect(url, tmp_path).probe()


def test_a_relative_file_starts_at_the_project(tmp_path: Path) -> None:
    connector = connect("sqlite:///shop.sqlite", tmp_path)
    assert connector.probe().startswith("sqlite 3.")
    assert (tmp_path / "shop.sqlite").exists()
    connector.close()


@pytest.mark.parametrize("changes", [(r"@127.0.0.1:\d+/", "@127.0.0.1:1/"), (r"/[^/]+$", "/nowhere")])
def test_an_unreachable_server(on_postgres: SQLAlchemyHarness, changes: tuple[str, str]) -> None:
    import re

    with pytest.raises(ConnectionFailed, match="somewhere") as caught:
        connect(re.sub(*changes, on_postgres.url), on_postgres.scratch).probe()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("style", "text", "values"),
    [
        ("qmark", "a % b = ? AND c = ?", ("x", "x")),
        ("format", "a %% b = %s AND c = %s", ("x", "x")),
        ("pyformat", "a %% b = %s AND c = %s", ("x", "x")),
        ("named", "a % b = :v1 AND c = :v1", {"v1": "x"}),
        ("numeric", "a % b = :1 AND c = :1", ("x",)),
        ("numeric_dollar", "a % b = $1 AND c = $1", ("x",)),
    ],
)
def test_placeholders_of_every_driver(style: str, text: str, values: Any) -> None:
    assert for_driver(Statement("a % b = \0001\000 AND c = \0001\000", ("x",)), style) == (text, values)


# -- dialects without upsert


def test_a_dialect_without_upsert(on_sqlite: SQLAlchemyHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_sqlalchemy_session._CONFLICTS, "sqlite", _sqlalchemy_session.no_upsert)
    upsert = on_sqlite.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    with pytest.raises(WriteFailed, match="dialect sqlite") as caught:
        on_sqlite.connector.claim(upsert, unit(), attempt="first")
    assert "replace_window" in caught.value.hint
    target = on_sqlite.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    with ThreadPoolExecutor(6) as pool:
        claims = list(pool.map(lambda number: on_sqlite.connector.claim(target, day(0), attempt=f"a{number}"), range(12)))
    assert {claim.generation for claim in claims} == set(range(1, 13))
    for number in range(3):
        on_sqlite.publish(events(day(0)), target, day(0), str(number))
    assert_same_rows(events(day(0)), on_sqlite.rows(target))


def test_claims_without_upsert_beside_each_other(on_postgres: SQLAlchemyHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_sqlalchemy_session._CONFLICTS, "postgresql", _sqlalchemy_session.no_upsert)
    target = on_postgres.make_target("things", WriteMode.APPEND)
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda number: on_postgres.connector.claim(target, day(0), attempt=f"a{number}"), range(12)))
    assert {claim.generation for claim in claims} == set(range(1, 13))


def test_a_dialect_without_inserts_of_many_rows(on_sqlite: SQLAlchemyHarness, on_postgres: SQLAlchemyHarness) -> None:
    for harness in (on_sqlite, on_postgres):
        harness.connector._sessions.engine.dialect.supports_multivalues_insert = False
        target = harness.make_target("things", WriteMode.REPLACE)
        harness.publish(events(day(0), rows=1_000), target, unit())
        assert_same_rows(events(day(0), rows=1_000), harness.rows(target))


def test_upsert_without_a_unique_index_says_what_to_type(on_postgres: SQLAlchemyHarness) -> None:
    on_postgres.publish(pairs((1, "a")), on_postgres.make_target("pairs", WriteMode.APPEND), unit("one"))
    with admin(on_postgres) as other:
        other.execute("CREATE UNIQUE INDEX ON pairs (key) WHERE value = 'a'; CREATE UNIQUE INDEX ON pairs ((key + 1))")
    upsert = on_postgres.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    with pytest.raises(WriteFailed, match="unique index") as caught:
        on_postgres.publish(pairs((1, "b")), upsert, unit("two"))
    with admin(on_postgres) as other:
        other.execute(caught.value.hint.encode())
    on_postgres.publish(pairs((1, "b"), (2, "c"), (1, "d")), upsert, unit("two"))
    assert_same_rows(pairs((1, "d"), (2, "c")), on_postgres.rows(upsert))
