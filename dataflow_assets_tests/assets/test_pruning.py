"""Old runs of a pipeline: which may go, and that the UI loses no window; on SQLite and on Postgres."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets.names import PIPELINE_TAG
from dataflow_assets.assets.pruning import delete_runs, old_runs
from dataflow_assets.tables import utc_now
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS, RANGE


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request, tmp_path):
    if request.param == "sqlite":
        yield request.getfixturevalue("instance")
        return
    pytest.importorskip("dagster_postgres")
    url = request.getfixturevalue("postgres_dsn").replace("postgresql://", "postgresql+psycopg2://")
    home = tmp_path / "pg_home"
    home.mkdir()
    (home / "dagster.yaml").write_text(json.dumps({"storage": {"postgres": {"postgres_url": url}}, "telemetry": {"enabled": False}}))
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


def test_a_run_stays_while_the_ui_needs_it(stored, project):
    plan, _ = shop.planned(project)
    pipelines = {**plan.by_name, "gone": None}
    tags = {PIPELINE_TAG: "orders"}
    first = shop.run(project, stored, tags={**RANGE, **tags}).run_id
    second = shop.run(project, stored, tags={"dagster/partition": DAYS[0], **tags}).run_id
    third = shop.run(project, stored, tags={"dagster/partition": DAYS[0], **tags}).run_id
    whole = [shop.run(project, stored, pipeline="report", tags={PIPELINE_TAG: "report"}).run_id for _ in range(2)]
    other = dg.materialize([stranger], instance=stored, tags={PIPELINE_TAG: "strange"}).run_id
    soon = utc_now() + timedelta(minutes=1)

    found = {run.run_id: run for run in old_runs(stored, pipelines, before=soon)}
    assert set(found) == {first, second, third, *whole}
    assert {run_id for run_id, run in found.items() if run.needed} == {first, third, whole[1]}
    assert {partition for _, partition in found[first].needed} == set(DAYS[1:])
    assert {partition for _, partition in found[third].needed} == {DAYS[0]}
    assert [run.run_id for run in old_runs(stored, {"report": plan.by_name["report"]}, before=soon)] == whole[::-1]
    assert old_runs(stored, pipelines, before=utc_now() - timedelta(days=1)) == []

    delete_runs(stored, [found[second], found[whole[0]]])
    assert {run.run_id for run in stored.get_runs()} == {first, third, whole[1], other}
    for step in ("read", "clean", "publish"):
        assert stored.get_materialized_partitions(dg.AssetKey(["orders", step])) == set(DAYS)
    assert stored.get_latest_materialization_event(dg.AssetKey(["report", "write"])).run_id == whole[1]
    assert not list(Path(stored.root_directory).rglob(f"{second}*"))
    if hasattr(stored.event_log_storage, "path_for_shard"):  # its files were closed
        assert shop.run(project, stored, tags={"dagster/partition": DAYS[1], **tags}).success


def test_runs_of_the_ui_are_known_by_their_assets(instance, project):
    plan, _ = shop.planned(project)
    job = shop.definitions(project).resolve_job_def("orders")
    keys = frozenset(dg.AssetKey(step.asset_key) for step in plan.by_name["orders"].steps)
    run = instance.create_run_for_job(job, asset_selection=keys)
    found = old_runs(instance, dict(plan.by_name), before=utc_now() + timedelta(minutes=1))
    assert [(old.run_id, old.pipeline, old.status) for old in found] == [(run.run_id, "orders", "NOT_STARTED")]
    instance.report_run_canceling(instance.get_run_by_id(run.run_id))
    assert old_runs(instance, dict(plan.by_name), before=utc_now() + timedelta(minutes=1)) == []  # it is under way


@dg.asset
def stranger():
    """An asset of another project in the same instance."""
