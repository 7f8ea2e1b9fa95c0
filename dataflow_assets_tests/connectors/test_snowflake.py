"""The Snowflake connector: the contract, and what only Snowflake does. Against the emulator, or a real account where one is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_assets.connectors._snowflake_login import SnowflakeConnection
from dataflow_assets.connectors.snowflake import Connector, SnowflakeEndpoint, SnowflakeSource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.arrow_types import NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_schema import SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.services.snowflake import Snowflake, run


@dataclass
class SnowflakeHarness(Harness):
    """An empty place in an account."""

    keys: dict[str, Any] = field(default_factory=dict, repr=False)
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.keys, self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = SnowflakeEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> SnowflakeSource:
        return SnowflakeSource(table=name)


def connect(keys: dict[str, Any], folder: Path, **options: Any) -> Connector:
    """A connector with these keys."""
    return Connector(SnowflakeConnection.model_validate({**keys, **options}), ConnectionContext("warehouse", folder))


@pytest.fixture
def harness(snowflake_keys: dict[str, Any], tmp_path: Path) -> Iterator[SnowflakeHarness]:
    made = SnowflakeHarness(tmp_path, keys=snowflake_keys, secret=snowflake_keys.get("password"), longest_name=255)
    yield made
    made.connector.close()


MICROSECONDS = Lossy("the emulator's times end at microseconds")
FINE = dict.fromkeys(("time_ns_fine", "timestamp_ns_fine", "instant_ns_fine"), MICROSECONDS)


class TestSnowflake(ConnectorContract):
    """The contract."""

    over = "emulator"
    lossy: ClassVar[dict[str, Lossy]] = {
        **dict.fromkeys(NESTED, Lossy("nested values travel as JSON text, into a VARIANT column")),
        "duration_us": Lossy("Snowflake has no durations"),
        "decimal_38_38": Lossy("Snowflake's scale ends at 37"),
        "decimal_76_10": Lossy("Snowflake's decimals end at 38 digits"),
    }

    @pytest.fixture
    def harness(self, harness: SnowflakeHarness, snowflake_account: Snowflake, monkeypatch: pytest.MonkeyPatch) -> SnowflakeHarness:
        if snowflake_account.emulated:
            monkeypatch.setattr(type(self), "lossy", {**self.lossy, **FINE})
        else:
            monkeypatch.setattr(type(self), "over", None)
        return harness


class TestSnowflakeSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, harness: SnowflakeHarness) -> SnowflakeHarness:
        return harness


class TestSnowflakeDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, SnowflakeHarness)
        run(harness.keys, f'DROP TABLE "{table}"')


class TestSnowflakeKilled(KillPromises):
    """Processes."""

    kind = "snowflake"

    @pytest.fixture
    def place(self, harness: SnowflakeHarness) -> str:
        return json.dumps(harness.keys)
