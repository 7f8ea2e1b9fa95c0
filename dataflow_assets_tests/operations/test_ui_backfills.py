"""A backfill from Dagster's UI: launched by its GraphQL, cut into runs by its daemon, window by window the truth that the ledgers hold.

Here: a real instance with a queue, the daemon's own iteration over backfills, our code location. The queue is emptied by this test, in
this process: starting a run is all that is not Dagster's.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.events import DagsterEventType
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_graphql.schema import create_schema

from dataflow_assets.assets.execute import LOCATION
from dataflow_assets.assets.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from dataflow_assets.operations.load import load_project
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.conftest import empty_home, instance  # noqa: F401 - fixtures
from dataflow_assets_tests.assets.shop import DAYS

DOWN = """\
pipeline_name: down
depends_on: [orders]
event_time_column: ordered_at
windows: {every: day, begin: 2024-03-01, end: 2024-03-06}
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: lake/orders/}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/down/}}
"""
_LAUNCH = """mutation($given: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $given) { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } }
}"""
_STATS = """query($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionStats { numMaterialized numFailed numPartitions } } }
}"""
# Dagster's own code for a backfill calls what Dagster has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources`:DeprecationWarning")
ORDERS = [("orders", step) for step in ("read", "clean", "publish")]
ALL = [*ORDERS, ("down", "read"), ("down", "write")]


@dataclass
class UI:
    """What a person at the UI can do, and the daemon behind it."""

    folder: Path
    instance: dg.DagsterInstance
    process: WorkspaceProcessContext

    def ask(self, query: str, **variables: Any) -> Any:
        answer = asyncio.run(
            create_schema().execute_async(query, variable_values=variables, context_value=self.process.create_request_context())
        )
        assert not answer.errors, answer.errors
        return answer.data

    def materialize(self, assets: Sequence[tuple[str, str]], partitions: Sequence[str]) -> list[dg.DagsterRun]:
        """Materialize, until Dagster calls the backfill completed; its runs, oldest first."""
        given = {"assetSelection": [{"path": list(asset)} for asset in assets], "partitionNames": list(partitions)}
        launched = self.ask(_LAUNCH, given=given)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        backfill = launched["backfillId"]
        for _ in range(20):
            assert not [error for error in execute_backfill_iteration(self.process, logging.getLogger("daemon")) if error]
            self._empty_the_queue()
            known = self.instance.get_backfill(backfill)
            assert known is not None
            if known.status.value != "REQUESTED":
                return list(reversed(self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))))
        raise AssertionError("the backfill does not end")

    def _empty_the_queue(self) -> None:
        definitions = load_project(self.folder)
        for run in reversed(self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))):
            whole = run.job_name.startswith("__")
            job = definitions.resolve_implicit_global_asset_job_def() if whole else definitions.resolve_job_def(run.job_name)
            subset = job.get_subset(asset_selection=set(run.asset_selection)) if run.asset_selection else job
            event = dg.DagsterEvent(event_type_value=DagsterEventType.RUN_STARTING.value, job_name=run.job_name)
            self.instance.report_dagster_event(event, run_id=run.run_id)
            started = self.instance.get_run_by_id(run.run_id)
            assert started is not None
            execute_run(InMemoryJob(subset), started, self.instance)

    def stats(self, asset: tuple[str, str]) -> tuple[int, int]:
        """How many partitions the UI shows as materialized, and as failed."""
        found = self.ask(_STATS, key={"path": list(asset)})["assetNodeOrError"]["partitionStats"]
        return found["numMaterialized"], found["numFailed"]

    def missing_or_failed(self, assets: Sequence[tuple[str, str]]) -> list[str]:
        """What the box "Missing and failed only" leaves."""
        there = [self.instance.get_materialized_partitions(dg.AssetKey(asset)) for asset in assets]
        return [day for day in DAYS if not all(day in found for found in there)]


@pytest.fixture
def ui(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[UI]:  # noqa: F811 - the fixture
    """The shop with a pipeline downstream; a day is bad."""
    folder = shop.write_shop(tmp_path / "shop", bad_days=DAYS[2:3], down=DOWN)
    monkeypatch.setenv("DATAFLOW_PROJECT", str(folder))
    monkeypatch.delitem(sys.modules, "dataflow_assets.definitions", raising=False)
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(executable_path=sys.executable, module_name=LOCATION), location_name=LOCATION)
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as process:
        yield UI(folder, instance, process)


def tags_of(run: dg.DagsterRun) -> tuple[str, str]:
    """The first and the last partition of a run."""
    alone = run.tags.get(PARTITION_TAG, "")
    return run.tags.get(RANGE_START_TAG, alone), run.tags.get(RANGE_END_TAG, alone)


def test_each_window_is_recorded_and_what_failed_is_all_that_is_left(ui: UI) -> None:
    (run,) = ui.materialize(ORDERS, DAYS)
    assert (run.status, tags_of(run)) == (dg.DagsterRunStatus.FAILURE, (DAYS[0], DAYS[4]))
    assert shop.published(ui.folder) == dict.fromkeys([*DAYS[:2], *DAYS[3:]], 2)
    assert ui.stats(("orders", "publish")) == (4, 1)
    assert ui.missing_or_failed(ORDERS) == [DAYS[2]]
    shop.write_shop(ui.folder, down=DOWN)
    (run,) = ui.materialize(ORDERS, ui.missing_or_failed(ORDERS))
    assert (run.status, tags_of(run)) == (dg.DagsterRunStatus.SUCCESS, (DAYS[2], DAYS[2]))
    assert shop.published(ui.folder) == dict.fromkeys(DAYS, 2)
    assert [ui.stats(asset) for asset in ORDERS] == [(5, 0)] * 3


def test_holes_are_runs_of_their_own_and_downstream_comes_after(ui: UI) -> None:
    shop.write_shop(ui.folder, down=DOWN)
    runs = ui.materialize(ALL, [DAYS[0], DAYS[1], DAYS[3]])
    assert sorted(map(tags_of, runs)) == [(DAYS[0], DAYS[1]), (DAYS[3], DAYS[3])]
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert ui.missing_or_failed(ALL) == [DAYS[2], DAYS[4]]
    assert shop.published(ui.folder) == dict.fromkeys([DAYS[0], DAYS[1], DAYS[3]], 2)
    runs = ui.materialize(ALL, ui.missing_or_failed(ALL))
    assert sorted(map(tags_of, runs)) == [(DAYS[2], DAYS[2]), (DAYS[4], DAYS[4])]
    assert [ui.stats(asset) for asset in ALL] == [(5, 0)] * 5
