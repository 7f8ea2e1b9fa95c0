"""Dagster's history in a real Postgres: every door of it, several processes, a restarted server, the move from SQLite."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dataflow_assets.assets.carrying import Carried, carry
from dataflow_assets.assets.execute import execute
from dataflow_assets.assets.instance import HOME, open_instance, provision_pools, settle
from dataflow_assets.assets.instance_settings import URL, launcher_of, storage_of, switch, with_block, written
from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets.plan.model import PoolPlan
from dataflow_assets.spec.models import ProjectModel
from dataflow_assets.spec.project import Places, Project
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS
from dataflow_assets_tests.services.postgres import process_of, system_binaries, wheel_binaries

pytest.importorskip("dagster_postgres")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgres://u:p@h:5432/d", "postgresql+psycopg2://u:p@h:5432/d"),
        ("postgresql://u:p@h/d?sslmode=require", "postgresql+psycopg2://u:p@h/d?sslmode=require"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("  POSTGRESQL://u@h/d\n", "postgresql+psycopg2://u@h/d"),
        ("pgsql://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("host=h port=5433 user=u password='p @/' dbname=d sslmode=require", "postgresql+psycopg2://u:p%20%40%2F@h:5433/d?sslmode=require"),
        ("host=/run/pg dbname=d", "postgresql+psycopg2:///d?host=%2Frun%2Fpg"),
    ],
)
def test_any_spelling_of_the_address(text: str, url: str) -> None:
    from dataflow_assets.assets.postgres_storage import postgres_url

    assert postgres_url(text) == url


@pytest.mark.parametrize("text", ["", "mysql://u:hidden@h/d", "hidden", "postgresql://u:hidden@h:port/d"])
def test_what_is_no_address_is_refused_unseen(text: str) -> None:
    from dataflow_assets.assets.postgres_storage import postgres_url

    with pytest.raises(DataflowError, match="cannot be read") as refused:
        postgres_url(text)
    assert "hidden" not in str(refused.value)


def test_one_switch_changes_one_block_and_leaves_the_rest(tmp_path: Path) -> None:
    settle(tmp_path)
    file = tmp_path / "dagster.yaml"
    before = file.read_text()
    assert (storage_of(tmp_path), launcher_of(tmp_path)) == ("sqlite", "local")
    assert switch(tmp_path, "postgres")
    assert not switch(tmp_path, "postgres")
    assert (storage_of(tmp_path), URL in file.read_text()) == ("postgres", True)
    assert switch(tmp_path, "celery")
    assert launcher_of(tmp_path) == "celery"
    assert written(tmp_path)["run_monitoring"] == {"enabled": True, "free_slots_after_run_end_seconds": 60, "start_timeout_seconds": 3600}
    assert switch(tmp_path, "local")
    assert switch(tmp_path, "sqlite")
    assert file.read_text() == before.replace("_seconds: 60}", "_seconds: 60, start_timeout_seconds: 3600}")
    file.write_text("# mine\nstorage:\n  postgres:\n    # his\n    postgres_url: {env: X}\ntelemetry: {enabled: false}\n")
    with pytest.raises(DataflowError, match="in its own words"):
        switch(tmp_path, "postgres")
    assert "# his" in file.read_text()
    assert with_block("a: 1\nb:\n\n  c: 2\n# of d\nd: 3\n", "b", "b: 9\n") == "a: 1\nb: 9\n# of d\nd: 3\n"
    assert with_block("a: 1", "b", "b: 9\n") == "a: 1\nb: 9\n"


def _opened(home: Path) -> dg.DagsterInstance:
    return open_instance(Project(home, ProjectModel(), Places("home")))


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance switched to Postgres."""
    monkeypatch.setenv(HOME, str(tmp_path / "pg"))
    monkeypatch.setenv(URL, postgres_dsn.replace("postgresql://", "postgres://"))
    (tmp_path / "pg").mkdir()
    settle(tmp_path / "pg")
    switch(tmp_path / "pg", "postgres")
    with _opened(tmp_path) as instance:
        yield instance


def test_runs_of_several_processes_a_tick_a_cursor_and_graphql(on_postgres: dg.DagsterInstance, project: Path) -> None:
    """One instance through all its doors, since making it costs more than asking it."""
    words = [str(Path(sys.executable).with_name("dataflow")), "--project", str(project), "run", "--select", "orders", "--window"]
    runs = [subprocess.Popen([*words, day], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for day in DAYS[:3]]
    for run in runs:
        output = run.communicate(timeout=120)[0]
        assert run.returncode == 0, output.decode()
    assert shop.published(project) == dict.fromkeys(DAYS[:3], 2)
    assert shop.recorded(on_postgres, "orders", "publish") == DAYS[:3]
    assert [run.status for run in on_postgres.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 3

    @dg.sensor(job_name="orders")
    def counting(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        context.update_cursor(str(int(context.cursor or 0) + 1))
        return dg.SkipReason("counted")

    first = counting.evaluate_tick(dg.build_sensor_context(on_postgres))
    second = counting.evaluate_tick(dg.build_sensor_context(on_postgres, cursor=first.cursor))
    assert second.cursor == "2"
    on_postgres.run_storage.set_cursor_values({"dataflow/test": "kept"})
    assert on_postgres.run_storage.get_cursor_values({"dataflow/test"}) == {"dataflow/test": "kept"}
    assert provision_pools(on_postgres, [PoolPlan("connection/a", 4)]) == ["connection/a"]
    assert provision_pools(on_postgres, [PoolPlan("connection/a")]) == []
    assert _graphql(on_postgres, project, "{ runsOrError { ... on Runs { results { status jobName } } } }") == {
        "runsOrError": {"results": [{"status": "SUCCESS", "jobName": "orders"}] * 3}
    }
    answers: list[str] = []
    on_postgres.upgrade(print_fn=lambda text: answers.append(str(text)))
    assert answers
    migrated = subprocess.run([sys.executable, "-m", "dagster", "instance", "migrate"], capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stderr
    assert on_postgres.get_runs_count() == 3


def _graphql(instance: dg.DagsterInstance, project: Path, query: str) -> Any:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster_graphql.schema import create_schema

    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as process:
        answer = create_schema().execute(query, context_value=process.create_request_context())
    assert answer.errors is None
    return answer.data


def test_a_server_that_restarts_is_no_matter(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = system_binaries() or wheel_binaries()
    if binaries is None:
        pytest.skip("no Postgres server that can be stopped")
    plan, loaded = shop.planned(project)
    orders = plan.by_name["orders"].windows
    assert orders is not None
    windows = [orders.cadence.window(day) for day in DAYS]
    restarted: list[str] = []
    with process_of(binaries) as server:
        monkeypatch.setenv(HOME, str(tmp_path / "pg"))
        monkeypatch.setenv(URL, server.dsn)
        (tmp_path / "pg").mkdir()
        settle(tmp_path / "pg")
        switch(tmp_path / "pg", "postgres")

        def restart(_name: str, event: object) -> None:
            if type(event).__name__ == "WindowFinished" and not restarted:
                restarted.append("once")
                server.stop()
                server.start()

        with _opened(tmp_path) as instance:
            (result,) = execute(plan, loaded, windows={"orders": windows}, instance=instance, on_event=restart)
            assert (result.status, restarted) == ("ok", ["once"])
            assert shop.recorded(instance, "orders", "publish") == DAYS
        server.stop()
        with pytest.raises(ConnectionFailed, match="cannot be used") as refused:
            _opened(tmp_path)
        assert refused.value.transient
    monkeypatch.delenv(URL)
    with pytest.raises(DataflowError, match=URL):
        _opened(tmp_path)


def test_the_move_from_sqlite_carries_state_and_if_asked_history(
    instance: dg.DagsterInstance, project: Path, on_postgres: dg.DagsterInstance
) -> None:
    shop.run(project, instance, tags={"dagster/partition": DAYS[0]})
    shop.run(project, instance, tags=shop.RANGE)
    instance.run_storage.set_cursor_values({"dataflow/pause": "until"})
    instance.event_log_storage.set_concurrency_slots("connection/a", 3)
    _start_a_schedule(instance)
    assert carry(instance, on_postgres, history=False) == Carried(automations=1, values=1, pools=1, runs=0)
    assert carry(instance, on_postgres, history=True) == Carried(automations=0, values=0, pools=0, runs=2)
    assert carry(instance, on_postgres, history=True) == Carried()
    assert [run.run_id for run in on_postgres.get_runs()] == [run.run_id for run in instance.get_runs()]
    for asset in ("read", "clean", "publish"):
        assert shop.recorded(on_postgres, "orders", asset) == shop.recorded(instance, "orders", asset) != []
    found, kept = (one.get_run_records(ascending=True) for one in (on_postgres, instance))
    assert [(item.start_time, item.end_time) for item in found] == [(item.start_time, item.end_time) for item in kept]
    name = next(iter(shop.planned(project)[0].by_name["orders"].by_id["clean"].checks[0].names))
    assert shop.evaluations(on_postgres, name, "orders", "clean") == shop.evaluations(instance, name, "orders", "clean") != []
    assert on_postgres.all_instigator_state()[0].status is instance.all_instigator_state()[0].status
    assert len(on_postgres.all_logs(found[0].dagster_run.run_id)) == len(instance.all_logs(found[0].dagster_run.run_id))


def _start_a_schedule(instance: dg.DagsterInstance) -> None:
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
    from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="dataflow_assets.definitions"), location_name="here")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "orders_schedule")
    data = ScheduleInstigatorData("0 0 * * *", start_timestamp=1_700_000_000.0)
    instance.add_instigator_state(InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, data))
