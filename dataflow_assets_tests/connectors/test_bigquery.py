"""The BigQuery connector: the contract, and what only BigQuery does. Against the emulator, or a real project where one is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dataflow_assets.connectors._bigquery_login import BigQueryConnection
from dataflow_assets.connectors.bigquery import BigQueryEndpoint, BigQuerySource, Connector
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy
from dataflow_assets_tests.connectors.kills import ALL, KillPromises
from dataflow_assets_tests.services.bigquery import run


@dataclass
class BigQueryHarness(Harness):
    """An empty dataset."""

    keys: dict[str, Any] = field(default_factory=dict, repr=False)
    hostile_columns: Sequence[str] = ("select", "Order", "MixedCase", "with space", "single'quote", "1leading", "per%cent", "co:lon", "é")
    hostile_tables: Sequence[str] = ("select", "MixedCase", "with space", "1leading", "dash-ed", "é")
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.keys, self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = BigQueryEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> BigQuerySource:
        return BigQuerySource(table=name)


def connect(keys: dict[str, Any], folder: Path, **options: Any) -> Connector:
    """A connector with these keys."""
    return Connector(BigQueryConnection.model_validate({**keys, **options}), ConnectionContext("warehouse", folder))


@pytest.fixture
def harness(bigquery_keys: dict[str, Any], tmp_path: Path) -> Iterator[BigQueryHarness]:
    made = BigQueryHarness(tmp_path, keys=bigquery_keys, longest_name=300)
    yield made
    made.connector.close()


class TestBigQuery(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "decimal_76_10": Lossy("BIGNUMERIC keeps 38 digits before the point"),
    }

    @pytest.fixture
    def harness(self, harness: BigQueryHarness) -> BigQueryHarness:
        return harness


class TestBigQueryDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, BigQueryHarness)
        run(harness.keys, f"DROP TABLE {{d}}.`{table}`")


class TestBigQueryKilled(KillPromises):
    """Processes. What is deleted and written is one job, which goes on without the process: there is no place in between to kill it."""

    kind = "bigquery"
    failpoints: ClassVar[dict[WriteMode, Sequence[str]]] = {
        mode: [name for name in ALL if name != "after_delete"] for mode in WriteMode
    }

    @pytest.fixture
    def place(self, harness: BigQueryHarness) -> str:
        return json.dumps(harness.keys)
