"""The Postgres connector against a real server: the contract, and what only Postgres does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_assets.connectors.postgres import Connector, PostgresConnection, PostgresEndpoint, PostgresSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises

SECRET = "correct horse battery"


@dataclass
class PostgresHarness(Harness):
    """Postgres keeps 63 bytes of a name."""

    dsn: str = ""
    secret: str | None = SECRET
    longest_name: int | None = 63
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.dsn)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = PostgresEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> PostgresSource:
        return PostgresSource(table=name)


def connect(dsn: str, **options: Any) -> Connector:
    """A connector for a DSN, with a password that the server does not ask for."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(dsn)
    known = {"host": parts["host"], "port": str(parts["port"]), "database": parts["dbname"], "user": parts["user"]}
    return Connector(PostgresConnection(**known, password=parts.get("password", SECRET), **options), ConnectionContext("warehouse", Path()))


@pytest.fixture
def harness(postgres_dsn: str, tmp_path: Path) -> Any:
    made = PostgresHarness(tmp_path, dsn=postgres_dsn)
    yield made
    made.connector.close()


class TestPostgres(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "string_nul": Lossy("Postgres has no text with a zero byte"),
        "time_ns_fine": Lossy("Postgres keeps microseconds"),
        "timestamp_ns_fine": Lossy("Postgres keeps microseconds"),
        "instant_ns_fine": Lossy("Postgres keeps microseconds"),
    }

    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresKilled(KillPromises):
    """Processes."""

    kind = "postgres"

    @pytest.fixture
    def place(self, postgres_dsn: str) -> str:
        return postgres_dsn
