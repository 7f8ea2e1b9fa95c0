"""The ClickHouse connector against the engine itself: the contract, and what only ClickHouse does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_assets.connectors.clickhouse import ClickHouseConnection, ClickHouseEndpoint, ClickHouseSource, Connector
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.arrow_types import NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_schema import SchemaKillPromises, SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.connectors.restarts import Crashing, RestartPromises
from dataflow_assets_tests.services.clickhouse import ClickHouseServer, engine_process

SECRET = "correct horse battery"


@dataclass
class ClickHouseHarness(Harness):
    """Names may be as long as they like."""

    place: str = ""
    secret: str | None = SECRET
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.place)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = ClickHouseEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> ClickHouseSource:
        return ClickHouseSource(table=name)


def connect(place: str, **options: Any) -> Connector:
    """A connector for a server's URL, with a password that the engine does not ask for."""
    server = ClickHouseServer.of(place)
    known = {"host": server.host, "port": server.port, "user": server.user, "database": server.database, "secure": server.secure}
    return Connector(ClickHouseConnection(**known, password=server.password or SECRET, **options), ConnectionContext("warehouse", Path()))


@pytest.fixture
def harness(clickhouse: ClickHouseServer, tmp_path: Path) -> Any:
    made = ClickHouseHarness(tmp_path, place=clickhouse.url)
    yield made
    made.connector.close()


_BYTES = "ClickHouse has no bytes of any length but String, which is read as text"
_RANGE = "ClickHouse keeps the years 1900 to 2299"
_BEYOND = ["date", "date64", *(f"{kind}_{unit}" for kind in ("timestamp", "instant", "instant_new_york") for unit in ("s", "ms", "us"))]


class TestClickHouse(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        **dict.fromkeys(_BEYOND, Lossy(_RANGE)),
        **dict.fromkeys(("binary", "large_binary", "binary_view"), Lossy(_BYTES)),
        **dict.fromkeys(NESTED, Lossy("ClickHouse's arrays, tuples and maps cannot be null")),
        "list_view": Lossy("ClickHouse takes lists of other layouts"),
        "duration_us": Lossy("ClickHouse's intervals cannot be kept in a table"),
    }

    @pytest.fixture
    def harness(self, harness: ClickHouseHarness) -> ClickHouseHarness:
        return harness


class TestClickHouseSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, harness: ClickHouseHarness) -> ClickHouseHarness:
        return harness


class TestClickHouseDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, ClickHouseHarness)
        client = ClickHouseServer.of(harness.place).client()
        client.command(f"DROP TABLE {table}")
        client.close()


class TestClickHouseKilled(KillPromises, SchemaKillPromises):
    """Processes."""

    kind = "clickhouse"

    @pytest.fixture
    def place(self, clickhouse: ClickHouseServer) -> str:
        return clickhouse.url


class TestClickHouseRestarts(RestartPromises):
    """Parts that were not attached are gone, and the turn that was open is ended."""

    @pytest.fixture
    def crashing(self, clickhouse_server: ClickHouseServer, tmp_path: Path) -> Iterator[Crashing]:
        if find_spec("chdb") is None:
            pytest.skip("the server is not ours to restart")
        with engine_process() as engine:
            harness = ClickHouseHarness(tmp_path, place=engine.server.url)
            yield Crashing(harness, engine.kill, engine.start)
            harness.connector.close()
