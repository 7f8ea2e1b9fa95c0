"""Running from a terminal: one Dagster run for each pipeline, in order, visible afterwards, quiet and quick."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets.execute import LOCATION, PipelineResult, execute
from dataflow_assets.assets.instance import FOLDER, HOME, dagster_home, open_instance, provision_pools
from dataflow_assets.errors import CheckFailed
from dataflow_assets.execution.events import StepFinished, WindowFinished
from dataflow_assets.plan.model import PoolPlan
from dataflow_assets.windows import Window
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS


def _go(
    folder: Path, instance: dg.DagsterInstance, days: Sequence[str] = DAYS, *, report: bool = True, **more: object
) -> dict[str, PipelineResult]:
    plan, project = shop.planned(folder)
    windows: dict[str, list[Window | None]] = {"orders": list(_windows(folder, days))}
    if report:
        windows["report"] = [None]
    return {result.name: result for result in execute(plan, project, windows=windows, instance=instance, **more)}  # type: ignore[arg-type]


def _windows(folder: Path, days: Sequence[str]) -> list[Window]:
    plan, _ = shop.planned(folder)
    orders = plan.by_name["orders"].windows
    assert orders is not None
    return [orders.cadence.window(day) for day in days]


def test_pipelines_run_in_order_each_as_one_run(project: Path, instance: dg.DagsterInstance) -> None:
    heard: list[tuple[str, object]] = []
    results = _go(project, instance, on_event=lambda name, event: heard.append((name, event)))
    assert [(result.name, result.status) for result in results.values()] == [("orders", "ok"), ("report", "ok")]
    assert instance.get_runs_count() == 2
    assert shop.recorded(instance, "orders", "publish") == DAYS
    assert shop.published(project) == dict.fromkeys(DAYS, 2)
    assert [event.key for name, event in heard if name == "orders" and isinstance(event, WindowFinished)] == DAYS
    assert sum(isinstance(event, StepFinished) for _, event in heard) == 5 * 3 + 2


def test_a_run_can_be_found_and_repeated_in_the_ui(project: Path, instance: dg.DagsterInstance) -> None:
    result = _go(project, instance, DAYS[:2], report=False)["orders"]
    run = instance.get_run_by_id(str(result.run_id))
    assert run is not None
    assert run.job_name == "orders"
    assert run.tags["dagster/asset_partition_range_end"] == DAYS[1]
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == LOCATION
    assert run.remote_job_origin.repository_origin.repository_name == "__repository__"
    assert run.status is dg.DagsterRunStatus.SUCCESS


def test_the_ui_lists_the_run_with_its_events(project: Path, instance: dg.DagsterInstance) -> None:
    _go(project, instance, DAYS[:2], report=False)
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster_graphql.schema import create_schema

    query = (
        "{runsOrError{... on Runs{results{status pipelineName assetMaterializations{partition} repositoryOrigin{repositoryLocationName}}}}}"
    )
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as process:
        answer = create_schema().execute(query, context_value=process.create_request_context())
    assert not answer.errors
    (run,) = answer.data["runsOrError"]["results"]  # type: ignore[index]
    assert run["status"] == "SUCCESS"
    assert run["repositoryOrigin"]["repositoryLocationName"] == LOCATION
    assert sorted(item["partition"] for item in run["assetMaterializations"]) == sorted(DAYS[:2] * 3)


def test_windows_with_gaps_are_one_run_a_piece_and_no_check_shows_as_skipped(project: Path, instance: dg.DagsterInstance) -> None:
    chosen = [DAYS[0], DAYS[1], DAYS[3]]
    result = _go(project, instance, chosen, report=False)["orders"]
    assert (result.status, len(result.run_ids)) == ("ok", 2)
    assert shop.recorded(instance, "orders", "publish") == chosen
    assert instance.get_runs_count() == 2
    assert sorted(shop.evaluations(instance, "id_not_null", "orders", "clean")) == [(day, "SUCCEEDED") for day in chosen]


def test_after_a_failed_check_the_later_pieces_run_and_after_any_other_error_they_do_not(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    shop.write_shop(tmp_path, bad_days=[DAYS[0]])
    result = _go(tmp_path, instance, [DAYS[0], DAYS[2]], report=False)["orders"]
    assert (result.status, [event.key for event in result.failed], len(result.run_ids)) == ("failed", [DAYS[0]], 2)
    assert result.run_id == result.run_ids[0]
    assert shop.recorded(instance, "orders", "publish") == [DAYS[2]]
    (tmp_path / "orders.parquet").unlink()
    broken = _go(tmp_path, instance, [DAYS[1], DAYS[3]], report=False)["orders"]
    assert (broken.status, len(broken.run_ids)) == ("failed", 1)


def test_what_depends_on_a_failed_pipeline_is_skipped_and_the_rest_goes_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    alone = shop.REPORT.replace("pipeline_name: report", "pipeline_name: alone").replace("depends_on: [orders]\n", "", 1)
    alone = alone.replace("report.parquet", "alone.parquet")
    folder = shop.write_shop(tmp_path / "shop", bad_days=[DAYS[1]], alone=alone)
    plan, project = shop.planned(folder)
    windows: dict[str, list[Window | None]] = {"orders": list(_windows(folder, DAYS)), "report": [None], "alone": [None]}
    results = {result.name: result for result in execute(plan, project, windows=windows, instance=instance)}
    assert {name: result.status for name, result in results.items()} == {"orders": "failed", "report": "skipped", "alone": "ok"}
    assert results["report"].reason == "upstream orders failed"
    assert [failure.key for failure in results["orders"].failed] == [DAYS[1]]
    assert isinstance(results["orders"].error, CheckFailed)
    assert shop.recorded(instance, "orders", "publish") == [day for day in DAYS if day != DAYS[1]]


def test_some_steps_of_a_pipeline(project: Path, instance: dg.DagsterInstance) -> None:
    assert _go(project, instance, DAYS[:1], report=False, steps={"orders": frozenset({"read"})})["orders"].status == "ok"
    assert shop.recorded(instance, "orders", "read") == DAYS[:1]
    assert shop.recorded(instance, "orders", "publish") == []


def test_nothing_to_do_makes_no_run(project: Path, instance: dg.DagsterInstance) -> None:
    assert _go(project, instance, [], report=False)["orders"].reason == "nothing to do"
    assert instance.get_runs_count() == 0


def test_an_interrupt_ends_the_run_and_keeps_what_is_published(project: Path, instance: dg.DagsterInstance) -> None:
    def interrupt(name: str, event: object) -> None:
        if isinstance(event, WindowFinished) and event.key == DAYS[1]:
            raise KeyboardInterrupt

    results = _go(project, instance, on_event=interrupt)
    assert {name: result.status for name, result in results.items()} == {"orders": "interrupted", "report": "skipped"}
    assert list(shop.published(project)) == DAYS[:2]
    assert shop.recorded(instance, "orders", "publish") == DAYS[:2]
    run = instance.get_run_by_id(str(results["orders"].run_id))
    assert run is not None
    assert run.is_finished


def test_the_terminal_hears_nothing_of_dagster(project: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]) -> None:
    _go(project, instance, DAYS[:1])
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


# -- the instance


def test_the_instance_lies_in_the_project_with_settings_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME, raising=False)
    _, loaded = shop.planned(project)
    home = dagster_home(loaded)
    assert home == (project / FOLDER).resolve()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n# mine\n")
    assert "# mine" in (dagster_home(loaded) / "dagster.yaml").read_text()


def test_processes_that_open_a_new_instance_at_once_can_all_use_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    _, loaded = shop.planned(project)
    gate, open_gate = os.pipe()
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            os.read(gate, 1)
            code = 1
            with contextlib.suppress(BaseException), open_instance(loaded) as opened:
                code = 0 if opened.get_runs_count() == 0 else 2
            os._exit(code)
        children.append(child)
    os.write(open_gate, b"x" * len(children))
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0, 0]
    os.close(gate)
    os.close(open_gate)
    with open_instance(loaded) as opened:
        assert opened.get_runs_count() == 0


def test_dagster_home_wins(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(tmp_path / "elsewhere"))
    _, loaded = shop.planned(project)
    assert dagster_home(loaded) == tmp_path / "elsewhere"
    assert not (tmp_path / "elsewhere" / "dagster.yaml").exists()


def test_pools_get_a_limit_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME, raising=False)
    instance = open_instance(shop.planned(project)[1])
    assert provision_pools(instance, [PoolPlan("connection/b"), PoolPlan("connection/a")]) == ["connection/a", "connection/b"]
    instance.event_log_storage.set_concurrency_slots("connection/a", 7)
    assert provision_pools(instance, [PoolPlan("connection/a"), PoolPlan("connection/c")]) == ["connection/c"]
    limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
    assert limits == {"connection/a": 7, "connection/b": 1, "connection/c": 1}
    instance.dispose()


def test_no_pool_is_made_where_a_killed_process_would_hold_it(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "dagster.yaml").write_text("concurrency: {pools: {granularity: op}}\n")
    monkeypatch.setenv(HOME, str(tmp_path / "elsewhere"))
    instance = open_instance(shop.planned(project)[1])
    assert provision_pools(instance, [PoolPlan("connection/a")]) == []
    instance.dispose()


def test_variables_of_the_command_line_are_kept_for_a_re_execution(project: Path, instance: dg.DagsterInstance) -> None:
    plan, loaded = shop.planned(project)
    given = replace(loaded, overrides={"smallest": 3, "db_password": "hunter2hunter2"})
    (result,) = execute(plan, given, windows={"report": [None]}, instance=instance)
    run = instance.get_run_by_id(str(result.run_id))
    assert run is not None
    assert run.tags["dataflow/vars"] == '{"smallest": 3}'


SMALL = """
import sys, time
from pathlib import Path
from dataflow_assets.assets.execute import execute
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
project = load(Path(sys.argv[1]))
plan = build_plan(project)
(result,) = execute(plan, project, windows={"report": [None]})
assert result.status == "ok", result
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_small_run_from_a_cold_start_loads_what_it_needs(project: Path) -> None:
    """What a start costs is measured by the benchmark; here it is held to what it may load: no server, no driver of another system."""
    environment = {name: value for name, value in os.environ.items() if name != HOME}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SMALL, str(project)], env=environment, check=True, capture_output=True, text=True
    )
    assert sorted({"polars", "duckdb", "dagster_webserver", "psycopg", "clickhouse_connect", "pymysql"} & set(done.stdout.split())) == []
    reopened = open_instance(shop.planned(project)[1])
    try:
        assert reopened.get_runs_count() == 1
    finally:
        reopened.dispose()
