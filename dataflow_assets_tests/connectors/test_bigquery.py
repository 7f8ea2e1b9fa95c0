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
from dataflow_assets_tests.connectors.arrow_types import LISTS
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.contract_schema import SchemaKillPromises, SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, assert_same_rows, day, events, hour
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.services.bigquery import BigQuery, run


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


EMULATED = dict.fromkeys(("decimal_38_0", "decimal_38_38"), Lossy("the emulator takes BIGNUMERIC for NUMERIC"))


class TestBigQuery(ConnectorContract):
    """The contract."""

    over = "emulator"
    lossy: ClassVar[dict[str, Lossy]] = {
        **dict.fromkeys(("struct", "list_of_structs", "map", "duration_us"), Lossy("refused: nested values travel as JSON text")),
        **dict.fromkeys((*LISTS, "list_of_lists"), Lossy("an ARRAY holds no null and is itself never null, and none holds another")),
        "decimal_76_10": Lossy("BIGNUMERIC keeps 38 digits before the point"),
        **dict.fromkeys(("time_ns_fine", "timestamp_ns_fine", "instant_ns_fine"), Lossy("BigQuery's times end at microseconds")),
    }

    @pytest.fixture
    def harness(self, harness: BigQueryHarness, bigquery_project: BigQuery, monkeypatch: pytest.MonkeyPatch) -> BigQueryHarness:
        if bigquery_project.emulated:
            monkeypatch.setattr(type(self), "lossy", {**self.lossy, **EMULATED})
            harness.hostile_tables = [name for name in harness.hostile_tables if name.isascii() and " " not in name]
        else:
            monkeypatch.setattr(type(self), "over", None)
        return harness

    def test_hostile_key_and_window_columns(self, harness: BigQueryHarness) -> None:
        """Of the names that BigQuery takes."""
        table = events(day(0)).rename_columns(["i'd = <1>", "a't %s", "note"])
        upsert = harness.make_target("keyed", WriteMode.UPSERT, keys=("i'd = <1>",))
        windowed = harness.make_target("windowed", WriteMode.REPLACE_WINDOW, window_column="a't %s")
        for target in (upsert, windowed):
            for attempt in ("first", "second"):
                harness.publish(table, target, day(0), attempt)
            assert_same_rows(table, harness.rows(target))
        assert harness.read("windowed", window=where(hour(3), "a't %s")).num_rows == 1


class TestBigQuerySchemas(SchemaPromises):
    """Columns that change. An integer column has 64 bits from the first."""

    widens: ClassVar[bool] = False

    @pytest.fixture
    def harness(self, harness: BigQueryHarness) -> BigQueryHarness:
        return harness


class TestBigQueryDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, BigQueryHarness)
        run(harness.keys, f"DROP TABLE {{d}}.`{table}`")


class TestBigQueryKilled(KillPromises, SchemaKillPromises):
    """Processes. What is deleted and written is one job, which ends by itself: before it, places differ in what was staged only."""

    kind = "bigquery"
    failpoints: ClassVar[dict[WriteMode, Sequence[str]]] = {
        WriteMode.APPEND: ("mid_copy", "before_commit", "after_commit"),
        WriteMode.REPLACE_WINDOW: ("begin", "before_commit", "after_commit"),
        WriteMode.REPLACE: ("before_commit",),
        WriteMode.UPSERT: ("before_commit",),
    }
    kills: ClassVar[Sequence[str]] = ("after_alter",)

    @pytest.fixture
    def place(self, harness: BigQueryHarness) -> str:
        return json.dumps(harness.keys)
