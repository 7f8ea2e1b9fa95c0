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
from dataflow_assets.assets.recording import retry_delay
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


def _tries(result: dg.ExecuteInProcessResult) -> int:
    return 1 + sum(event.event_type is dg.DagsterEventType.STEP_RESTARTED for event in result.all_events)


def test_a_permanent_failure_is_not_tried_again(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    sql = 'config: {query: "select id, ordered_at, amount from read"}'
    assert sql in shop.ORDERS
    text = shop.ORDERS.replace("kind: sql", "kind: python").replace(sql, "config: {file: clean.py, function: clean}")
    project = shop.write_shop(tmp_path / "shop", orders=text)
    (project / "clean.py").write_text(PERMANENT)
    result = shop.run(project, instance, tags={"dagster/partition": DAYS[2]})
    assert not result.success
    assert _tries(result) == 1
    assert shop.recorded(instance, "orders", "read") == [DAYS[2]]


def test_a_transient_failure_is_tried_again_with_the_missing_windows_only(
    project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataflow_assets.assets import recording
    from dataflow_assets.errors import ConnectionFailed
    from dataflow_assets.execution.events import WindowFailed

    real, calls = recording.run, []

    def unreliable(request):  # the third window of the first try loses its connection
        calls.append([request.pipeline.windows.cadence.key(window) for window in request.windows])
        for event in real(request):
            if len(calls) == 1 and event.key == DAYS[2]:
                yield WindowFailed(event.key, event.window, "read", ConnectionFailed("the line is busy"))
                return
            yield event

    monkeypatch.setattr(recording, "run", unreliable)
    result = shop.run(project, instance, tags=RANGE)
    assert result.success
    assert _tries(result) == 2
    assert calls == [DAYS, DAYS[2:]]
    assert shop.recorded(instance, "orders", "publish") == DAYS
    assert shop.published(project) == dict.fromkeys(DAYS, 2)


def test_a_transient_failure_ends_after_the_last_try(project: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataflow_assets.assets import recording
    from dataflow_assets.errors import ConnectionFailed
    from dataflow_assets.execution.events import WindowFailed

    def dead(request):
        yield WindowFailed(DAYS[0], request.windows[0], "read", ConnectionFailed("nobody answers"))

    monkeypatch.setattr(recording, "run", dead)
    result = shop.run(project, instance, tags={"dagster/partition": DAYS[0]})
    assert _tries(result) == 3
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert failure.step_failure_data.user_failure_data.description == "nobody answers"  # type: ignore[union-attr]


def test_delays_double_up_to_the_longest_and_are_spread() -> None:
    for tries, longest in [(0, 5.0), (1, 10.0), (3, 40.0), (20, 300.0)]:
        delays = [retry_delay(tries, delay="5s", longest="5min") for _ in range(200)]
        assert max(delays) <= longest
        assert min(delays) >= longest / 2
        assert len(set(delays)) > 100


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
