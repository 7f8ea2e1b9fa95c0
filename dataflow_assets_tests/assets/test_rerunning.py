"""Runs after a failure: what depends on a failed pipeline is left, and a re-execution begins at the failed step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from dataflow_assets.assets.instance import open_instance
from dataflow_assets.assets.names import job_name
from dataflow_assets.connectors import parquet
from dataflow_assets.failpoints import VARIABLE
from dataflow_assets.operations.schedules import asked_for
from dataflow_assets.plan.model import SchedulePlan
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS, RANGE

WHOLE = """\
pipeline_name: {name}
depends_on: [{upstream}]
retries: false
steps:
  - {{id: read, type: source, source_type: parquet, config: {{file_path: {file}}}}}
  - {{id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {{file_path: lake/{name}.parquet, mode: replace}}}}
"""


def test_in_one_run_over_several_pipelines_dependents_are_skipped_and_the_others_go_on(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """As the UI launches a selection of assets."""
    project = shop.write_shop(
        tmp_path / "shop",
        first=WHOLE.format(name="first", upstream="", file="none.parquet"),
        second=WHOLE.format(name="second", upstream="first", file="orders.parquet"),
        third=WHOLE.format(name="third", upstream="second", file="orders.parquet"),
        alone=WHOLE.format(name="alone", upstream="", file="orders.parquet"),
    )
    chosen = [dg.AssetKey([name, step]) for name in ("first", "second", "third", "alone") for step in ("read", "write")]
    job = shop.definitions(project).resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(chosen))
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    events = {event.step_key: event.event_type_value for event in result.all_events if event.is_step_failure or event.is_step_success}
    skipped = {event.step_key for event in result.all_events if event.is_step_skipped}
    failed_upstream = {event.step_key for event in result.all_events if event.event_type_value == "STEP_SKIPPED"} | skipped
    assert {step: kind for step, kind in events.items() if step and kind == "STEP_SUCCESS"} == {"alone__steps": "STEP_SUCCESS"}
    assert events["first__steps"] == "STEP_FAILURE"
    assert not {"second__steps", "third__steps"} & events.keys()
    assert failed_upstream <= {"second__steps", "third__steps"}
    assert [path.name for path in sorted((project / "lake").iterdir()) if path.suffix == ".parquet"] == ["alone.parquet"]
    assert shop.recorded(instance, "alone", "write") == ["-"]
    assert shop.recorded(instance, "second", "read") == []
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data.user_failure_data
    assert failure.metadata["error_kind"].value == "configuration"  # type: ignore[union-attr]


class Source:
    """Counts the windows that are read from the source, and may let the publish of one day fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.broken = ""
        real_read, real_publish = parquet.Connector.read, parquet.Connector.publish

        def read(connector: Any, request: Any) -> Any:
            self.read.append(f"{request.window.window.start:%Y-%m-%d}" if request.window else "all")
            return real_read(connector, request)

        def publish(connector: Any, request: Any) -> Any:
            if request.claim.unit.key == self.broken:
                raise RuntimeError("the target is broken")
            return real_publish(connector, request)

        monkeypatch.setattr(parquet.Connector, "read", read)
        monkeypatch.setattr(parquet.Connector, "publish", publish)


def re_execute(project: Path, instance: dg.DagsterInstance, first: str, tags: dict[str, str], *, from_failure: bool, pipeline: str) -> str:
    """What the UI does: a run with the parent's tags; from failure, with the mark of a resume."""
    job = shop.definitions(project).resolve_job_def(job_name(pipeline))
    mark = {"dagster/is_resume_retry": "true"} if from_failure else {}
    run = instance.create_run_for_job(job, tags={**tags, **mark}, parent_run_id=first, root_run_id=first)
    list(execute_run_iterator(InMemoryJob(job), run, instance))
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]
    return run.run_id


@pytest.mark.parametrize(("from_failure", "read"), [(True, DAYS[3:]), (False, [*DAYS[:2], *DAYS[3:]])], ids=["from failure", "all steps"])
def test_a_re_execution_does_not_read_what_the_failed_window_has_staged(
    project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, from_failure: bool, read: list[str]
) -> None:
    source = Source(monkeypatch)
    source.broken = DAYS[2]
    first = shop.run(project, instance, tags=RANGE)
    assert source.read == DAYS[:3]
    source.read, source.broken = [], ""
    run_id = re_execute(project, instance, first.run_id, RANGE, from_failure=from_failure, pipeline="orders")
    assert source.read == read
    assert shop.published(project) == dict.fromkeys(DAYS, 2)
    logs = [record.user_message for record in instance.all_logs(run_id)]
    for step in ("read", "clean"):
        assert f"{DAYS[2]}: stage of step {step} used: 2 rows, verified" in logs
    record = next(
        item.asset_materialization
        for item in instance.fetch_materializations(dg.AssetKey(["orders", "publish"]), limit=9).records
        if item.partition_key == DAYS[2]
    )
    assert record is not None
    assert record.metadata["resumed"].value is True


@pytest.mark.parametrize("from_failure", [True, False], ids=["from failure", "all steps"])
def test_a_pipeline_without_windows_is_resumed_too(
    project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, from_failure: bool
) -> None:
    source = Source(monkeypatch)
    source.broken = "all"
    first = shop.run(project, instance, pipeline="report")
    source.broken = ""
    re_execute(project, instance, first.run_id, {}, from_failure=from_failure, pipeline="report")
    assert source.read == ["all"]


def test_a_changed_query_is_told_in_the_log_and_beside_the_asset(
    project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(monkeypatch)
    source.broken = DAYS[0]
    one = {"dagster/partition": DAYS[0]}
    shop.run(project, instance, tags=one)
    source.broken = ""
    (project / "pipelines" / "orders.yml").write_text(shop.ORDERS.replace("select id, ordered_at", "select id + 0 as id, ordered_at"))
    result = shop.run(project, instance, tags=one)
    assert result.success
    assert f"{DAYS[0]}: stage of step clean not used: the query changed" in [
        record.user_message for record in instance.all_logs(result.run_id)
    ]
    for step, told in (("read", None), ("clean", "the query changed"), ("publish", "the query changed")):
        metadata = instance.fetch_materializations(dg.AssetKey(["orders", step]), limit=1).records[0].asset_materialization.metadata  # type: ignore[union-attr]
        assert (metadata["stage_not_used"].value if "stage_not_used" in metadata else None) == told
    assert source.read == [DAYS[0]]


def test_the_next_tick_of_the_schedule_begins_at_the_failed_step(
    project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(monkeypatch)
    source.broken = DAYS[3]
    assert not shop.run(project, instance, tags=RANGE).success
    source.read, source.broken = [], ""
    plan, loaded = shop.planned(project)
    schedule = SchedulePlan("windows", ("0 0 * * *",), after_windows=True)
    found = asked_for(plan.by_name["orders"], schedule, loaded, now=datetime(2024, 3, 6, tzinfo=UTC))
    assert isinstance(found, list)
    for request in found:
        assert shop.run(project, instance, tags=dict(request.tags)).success
    assert source.read == [DAYS[4]]
    assert shop.published(project) == dict.fromkeys(DAYS, 2)


CANCELLED = """
import sys
from pathlib import Path
from dataflow_assets.assets.instance import open_instance
from dataflow_assets_tests.assets import shop
project = Path(sys.argv[1])
_, loaded = shop.planned(project)
with open_instance(loaded) as instance:
    shop.run(project, instance, tags={"dagster/partition": shop.DAYS[0]})
"""


def test_a_run_that_is_cancelled_leaves_what_a_resume_needs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster ends a run by interrupting its process."""
    environment = {**os.environ, VARIABLE: "publish.ready=sleep:60", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("DAGSTER_HOME", None)
    command = [sys.executable, "-W", "ignore", "-c", CANCELLED, str(project)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stages = project / ".dataflow" / "stages" / "orders" / DAYS[0]
    deadline = time.monotonic() + 60
    while not list(stages.glob("*/clean/receipt.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) is not None
    (record,) = stages.glob("*/attempt.json")
    # "running" where the interrupt met Dagster's own code, which never comes back to ours
    assert json.loads(record.read_text())["status"] in {"failed", "running"}
    source = Source(monkeypatch)
    _, loaded = shop.planned(project)
    with open_instance(loaded) as instance:
        assert shop.run(project, instance, tags={"dagster/partition": DAYS[0]}).success
    assert source.read == []
    assert shop.published(project) == {DAYS[0]: 2}
