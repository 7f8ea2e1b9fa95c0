"""One pipeline as a Dagster run: per-window truth in the event log, whatever happens in the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from dataflow_assets.assets.names import job_name
from dataflow_assets.failpoints import VARIABLE
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS, RANGE


def test_one_partition_is_published_and_recorded(project: Path, instance: dg.DagsterInstance) -> None:
    result = shop.run(project, instance, tags={"dagster/partition": DAYS[1]})
    assert result.success
    assert shop.published(project) == {DAYS[1]: 2}
    for step in ("read", "clean", "publish"):
        assert shop.recorded(instance, "orders", step) == [DAYS[1]]
    assert shop.evaluations(instance, "amount_range", "orders", "clean") == [(DAYS[1], "SUCCEEDED")]


def test_a_materialization_carries_its_receipt(project: Path, instance: dg.DagsterInstance) -> None:
    shop.run(project, instance, tags={"dagster/partition": DAYS[0]})
    record = instance.fetch_materializations(dg.AssetKey(["orders", "publish"]), limit=1).records[0]
    metadata = record.asset_materialization.metadata  # type: ignore[union-attr]
    assert metadata["dagster/row_count"].value == 2
    assert metadata["receipt"].value["rows"] == 2  # type: ignore[index,call-overload]
    assert metadata["receipt"].value["checksum"].startswith("2:")  # type: ignore[index,call-overload,union-attr]
    assert metadata["generation"].value == 1
    assert metadata["window"].value == f"[{DAYS[0]}T00:00:00+00:00, {DAYS[1]}T00:00:00+00:00)"
    assert "| id | ordered_at | amount |" in str(metadata["preview"].value)
    assert [column.name for column in metadata["dagster/column_schema"].value.columns] == ["id", "ordered_at", "amount"]  # type: ignore[union-attr]
    assert metadata["resumed"].value is False


def test_a_column_that_came_is_shown_with_the_window_it_came_in(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    evolving = shop.ORDERS.replace("event_time_column", "schema_policy: evolve\nevent_time_column", 1)
    root = shop.write_shop(tmp_path / "shop", orders=evolving)
    shop.run(root, instance, tags={"dagster/partition": DAYS[0]})
    shop.write_shop(root, orders=evolving.replace("select id,", "select id, 'EUR' as currency,"))
    assert shop.run(root, instance, tags={"dagster/partition": DAYS[1]}).success
    record = instance.fetch_materializations(dg.AssetKey(["orders", "publish"]), limit=1).records[0]
    metadata = record.asset_materialization.metadata  # type: ignore[union-attr]
    assert "column 'currency' (string) was added to lake/orders (evolve)" in str(metadata["schema_changes"].value)


def test_a_range_in_one_run_records_each_window_once(project: Path, instance: dg.DagsterInstance) -> None:
    result = shop.run(project, instance, tags=RANGE)
    assert result.success
    assert shop.published(project) == dict.fromkeys(DAYS, 2)
    assert shop.recorded(instance, "orders", "publish") == DAYS
    assert sorted(shop.evaluations(instance, "amount_range", "orders", "clean")) == [(day, "SUCCEEDED") for day in DAYS]


def test_a_bad_window_in_a_range_fails_alone(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = shop.write_shop(tmp_path / "shop", bad_days=[DAYS[2]])
    result = shop.run(project, instance, tags=RANGE)
    assert not result.success
    good = [day for day in DAYS if day != DAYS[2]]
    assert shop.published(project) == dict.fromkeys(good, 2)
    assert shop.recorded(instance, "orders", "publish") == good
    assert dict(shop.evaluations(instance, "amount_range", "orders", "clean"))[DAYS[2]] == "FAILED"
    assert {status for day, status in shop.evaluations(instance, "amount_range", "orders", "clean") if day != DAYS[2]} == {"SUCCEEDED"}
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "amount" in str(failure.step_failure_data.error)
    assert failure.step_failure_data.user_failure_data.metadata["failed_windows"].value == DAYS[2]  # type: ignore[union-attr]


def test_after_mending_only_the_missing_window_is_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = shop.write_shop(tmp_path / "shop", bad_days=[DAYS[2]])
    shop.run(project, instance, tags=RANGE)
    shop.write_orders(project)
    assert shop.run(project, instance, tags={"dagster/partition": DAYS[2]}).success
    assert shop.published(project) == dict.fromkeys(DAYS, 2)
    assert shop.recorded(instance, "orders", "publish") == DAYS


@pytest.mark.parametrize("strategy", ["FROM_FAILURE", "FROM_ASSET_FAILURE"])
def test_a_re_execution_from_failure_runs_the_failed_window_whole_and_no_other(
    strategy: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """By assets, Dagster would leave out those of which the first run made any window."""
    project = shop.write_shop(tmp_path / "shop", bad_days=[DAYS[2]])
    first = shop.run(project, instance, tags=RANGE)
    shop.write_orders(project)
    job = shop.definitions(project).resolve_job_def(job_name("orders"))
    tag = "dagster/is_asset_resume_retry" if strategy == "FROM_ASSET_FAILURE" else "dagster/is_resume_retry"
    chosen = [dg.AssetKey(["orders", "clean"])] if strategy == "FROM_ASSET_FAILURE" else None
    run = instance.create_run_for_job(
        job,
        tags={**RANGE, tag: "true"},
        parent_run_id=first.run_id,
        root_run_id=first.run_id,
        asset_selection=set(chosen) if chosen else None,
    )
    list(execute_run_iterator(InMemoryJob(job.get_subset(asset_selection=set(chosen)) if chosen else job), run, instance))
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]
    assert shop.published(project) == dict.fromkeys(DAYS, 2)
    for step in ("clean", "publish"):
        assert shop.recorded(instance, "orders", step) == DAYS


def test_windows_with_a_gap_run_without_what_lies_between(project: Path, instance: dg.DagsterInstance) -> None:
    chosen = [DAYS[0], DAYS[3]]
    tags = {
        "dagster/asset_partition_range_start": DAYS[0],
        "dagster/asset_partition_range_end": DAYS[3],
        "dataflow/windows": '["2024-03-01", "2024-03-04"]',
    }
    assert shop.run(project, instance, tags=tags).success
    assert shop.recorded(instance, "orders", "publish") == chosen
    assert list(shop.published(project)) == chosen


def test_a_failed_blocking_check_leaves_the_target_as_it_was(project: Path, instance: dg.DagsterInstance) -> None:
    shop.run(project, instance, tags={"dagster/partition": DAYS[0]})
    before = shop.published(project)
    shop.write_orders(project, bad_days=[DAYS[0]])
    result = shop.run(project, instance, tags={"dagster/partition": DAYS[0]})
    assert not result.success
    assert shop.published(project) == before
    assert shop.recorded(instance, "orders", "publish") == [DAYS[0]]  # the first run's
    status = shop.evaluations(instance, "amount_range", "orders", "clean")
    assert status == [(DAYS[0], "FAILED"), (DAYS[0], "SUCCEEDED")]


def test_a_failed_check_shows_counts_and_offending_rows(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = shop.write_shop(tmp_path / "shop", bad_days=[DAYS[0]])
    result = shop.run(project, instance, tags={"dagster/partition": DAYS[0]})
    found = next(item for item in result.get_asset_check_evaluations() if item.check_name == "amount_range")
    assert found.blocking
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert found.metadata["checked"].value == 2
    assert found.metadata["failed"].value == 1
    rows = found.metadata["offending_rows"].value
    assert "-1" in str(rows)


def test_some_steps_alone(project: Path, instance: dg.DagsterInstance) -> None:
    assert shop.run(project, instance, tags={"dagster/partition": DAYS[0]}, assets=["read", "clean"]).success
    assert shop.published(project) == {}
    assert shop.recorded(instance, "orders", "clean") == [DAYS[0]]
    assert shop.recorded(instance, "orders", "publish") == []


def test_a_pipeline_without_windows(project: Path, instance: dg.DagsterInstance) -> None:
    assert shop.run(project, instance, pipeline="report").success
    assert shop.recorded(instance, "report", "write") == ["-"]
    assert (project / "lake" / "report.parquet").exists()


def test_a_windowed_pipeline_without_a_partition_says_what_to_do(project: Path, instance: dg.DagsterInstance) -> None:
    result = shop.run(project, instance)
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "choose a partition" in failure.step_failure_data.user_failure_data.description  # type: ignore[union-attr,operator]


# -- checks alone


def _run_checks(project: Path, instance: dg.DagsterInstance, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
    key = dg.AssetKey(["orders", "clean"])
    definitions = dg.Definitions.merge(
        shop.definitions(project),
        dg.Definitions(
            jobs=[dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*(dg.AssetCheckKey(key, n) for n in CHECKS)))]
        ),
    )
    return definitions.resolve_job_def("checks").execute_in_process(instance=instance, tags=tags, raise_on_error=False)


CHECKS = ("amount_range", "id_not_null")


def test_checks_alone_run_on_the_last_published_window(project: Path, instance: dg.DagsterInstance) -> None:
    shop.run(project, instance, tags={**RANGE, "dagster/asset_partition_range_end": DAYS[3]})
    result = _run_checks(project, instance)
    assert result.success
    assert {(item.check_name, item.partition) for item in result.get_asset_check_evaluations()} == {
        (name, partition) for name in CHECKS for partition in (DAYS[3], None)
    }
    assert shop.recorded(instance, "orders", "publish") == DAYS[:4]
    assert ("PLANNED") not in {status for _, status in shop.evaluations(instance, "amount_range", "orders", "clean")}


def test_checks_alone_run_on_the_partition_asked_for(project: Path, instance: dg.DagsterInstance) -> None:
    shop.run(project, instance, tags=RANGE)
    before = shop.published(project)
    shop.write_orders(project, bad_days=[DAYS[1]])
    result = _run_checks(project, instance, {"dagster/partition": DAYS[1]})
    assert not result.success
    assert [(item.partition, item.passed) for item in result.get_asset_check_evaluations() if item.check_name == "amount_range"] == [
        (DAYS[1], False)
    ]
    assert shop.published(project) == before
    assert shop.recorded(instance, "orders", "publish") == DAYS


def test_checks_alone_before_anything_is_published(project: Path, instance: dg.DagsterInstance) -> None:
    result = _run_checks(project, instance)
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "published no window yet" in str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]


# -- retries


PERMANENT = """\
import pyarrow as pa

from dataflow_assets.errors import TransformFailed


def clean(read: pa.Table) -> pa.Table:
    raise TransformFailed("the column is not what it was")
"""


def _failure(result: dg.ExecuteInProcessResult):
    return next(event for event in result.all_events if event.is_step_failure).step_failure_data.user_failure_data


def test_a_permanent_failure_is_not_tried_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    sql = 'config: {query: "select id, ordered_at, amount from read"}'
    assert sql in shop.ORDERS
    text = shop.ORDERS.replace("kind: sql", "kind: python").replace(sql, "config: {file: clean.py, function: clean}")
    project = shop.write_shop(tmp_path / "shop", orders=text)
    (project / "clean.py").write_text(PERMANENT)
    result = shop.run(project, instance, tags={"dagster/partition": DAYS[2]})
    assert not result.success
    shown = _failure(result).metadata
    assert (shown["error_kind"].value, shown["error_type"].value, shown["tries"].value) == ("permanent", "TransformFailed", 1)
    assert shown["not_tried_again"].value == "permanent: another try would not help"
    assert shop.recorded(instance, "orders", "read") == [DAYS[2]]


class Line:
    """A connection that breaks before a window's endpoint publishes, so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, day: str, times: int) -> None:
        from dataflow_assets.execution import window as module

        self.day, self.left, self.seen, self._real = day, times, [], module.publish
        monkeypatch.setattr(module, "publish", self)

    def __call__(self, work, step, *, started):
        from dataflow_assets.errors import ConnectionFailed

        self.seen.append(work.key)
        if work.key == self.day and self.left:
            self.left -= 1
            raise ConnectionFailed("the line is busy")
        yield from self._real(work, step, started=started)


@pytest.mark.parametrize("tags", [RANGE, {"dagster/partition": DAYS[2]}], ids=["range", "one"])
def test_a_transient_failure_is_tried_again_within_the_run_and_no_other_window_is(
    project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]
) -> None:
    line = Line(monkeypatch, day=DAYS[2], times=2)
    result = shop.run(project, instance, tags=tags)
    assert result.success
    days = DAYS if tags is RANGE else [DAYS[2]]
    again = days.index(DAYS[2])
    assert line.seen == [*days[:again], *[DAYS[2]] * 3, *days[again + 1 :]]
    assert shop.recorded(instance, "orders", "publish") == days
    assert shop.published(project) == dict.fromkeys(days, 2)
    # the steps before the failed one are resumed from their stages; a range records each try
    assert sorted(set(shop.recorded(instance, "orders", "read"))) == days
    records = instance.fetch_materializations(dg.AssetKey(["orders", "publish"]), limit=5).records
    resumed = {record.partition_key: record.asset_materialization.metadata["resumed"].value for record in records}  # type: ignore[union-attr]
    assert resumed == {day: day == DAYS[2] for day in days}
    warned = [record.user_message for record in instance.all_logs(result.run_id) if "the line is busy" in record.user_message]
    assert len(warned) == 2
    assert "transient error: the line is busy" in warned[0]
    assert "retry 1 in 0.0s (2 are left; " in warned[0]
    assert "retry 2 in 0.0s (it is the last; " in warned[1]


def test_a_transient_failure_ends_after_the_last_try(project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, day=DAYS[0], times=9)
    result = shop.run(project, instance, tags=RANGE)
    assert line.seen == [DAYS[0]] * 3
    failure = _failure(result)
    assert failure.description == "the line is busy"
    assert (failure.metadata["error_kind"].value, failure.metadata["tries"].value) == ("transient", 3)
    assert failure.metadata["not_tried_again"].value == "tried 3 times, max_retries is 2"
    assert failure.metadata["failed_windows"].value == DAYS[0]


def test_retries_of_dagster_and_of_the_pipeline_do_not_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where run retries are on, they are left to runs whose process died."""
    project = shop.write_shop(tmp_path / "shop")
    with dg.DagsterInstance.ephemeral(settings={"run_retries": {"enabled": True, "max_retries": 3}}) as instance:
        line = Line(monkeypatch, day=DAYS[0], times=9)
        result = shop.run(project, instance, tags={"dagster/partition": DAYS[0]})
        assert line.seen == [DAYS[0]] * 3
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.tags["dagster/will_retry"] == "false"
        asked = {"dagster/partition": DAYS[0], "dagster/retry_on_asset_or_op_failure": "true"}
        insisted = instance.get_run_by_id(shop.run(project, instance, tags=asked).run_id)
        assert insisted is not None
        assert insisted.tags["dagster/will_retry"] == "true"


# -- killed


KILLED = """
import sys
from pathlib import Path
import dagster as dg
from dataflow_assets.assets.instance import open_instance
from dataflow_assets_tests.assets import shop
project = Path(sys.argv[1])
_, loaded = shop.planned(project)
shop.run(project, open_instance(loaded), tags=shop.RANGE)
"""


def test_a_killed_range_run_keeps_what_it_published(project: Path) -> None:
    """Each window is in the event log when it is published, not when the run ends."""
    environment = {**os.environ, VARIABLE: "publish.ready=kill@3", "PYTHONPATH": str(Path.cwd())}
    environment.pop("DAGSTER_HOME", None)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, str(project)], env=environment, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    _, loaded = shop.planned(project)
    from dataflow_assets.assets.instance import open_instance

    reopened = open_instance(loaded)
    try:
        assert shop.recorded(reopened, "orders", "publish") == DAYS[:2]
        assert list(shop.published(project)) == DAYS[:2]
    finally:
        reopened.dispose()


def test_a_listener_hears_every_event_in_order(project: Path, instance: dg.DagsterInstance) -> None:
    from dataflow_assets.assets.build import build_definitions
    from dataflow_assets.execution.events import StepFinished, WindowFinished

    heard: list[object] = []
    plan, loaded = shop.planned(project)
    definitions = build_definitions(plan, loaded, listen=lambda name, event: heard.append((name, event)))
    definitions.resolve_job_def(job_name("orders")).execute_in_process(instance=instance, tags=RANGE)
    assert [event.key for _, event in heard if isinstance(event, WindowFinished)] == DAYS  # type: ignore[misc]
    assert [event.step for _, event in heard if isinstance(event, StepFinished)] == ["read", "clean", "publish"] * 5  # type: ignore[misc]
