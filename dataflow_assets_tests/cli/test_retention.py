"""`dataflow retention` as a person uses it, and the job that does it in production."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from dataflow_assets.assets.instance import open_instance
from dataflow_assets.assets.pruning import OldRun
from dataflow_assets.execution.session import Session
from dataflow_assets.operations.load import load_project
from dataflow_assets.operations.retention import remove_old
from dataflow_assets.operations.retention_job import JOB
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, windowed

Call = Callable[..., Answer]
KEEP = "retention: {target: 1d, quarantine: 1d, stages: 1d, archive: old}"


def _rows(project: ProjectFolder, table: str = "facts") -> list[int]:
    with duckdb.connect(str(project.root / "shop.duckdb"), read_only=True) as connection:
        return [row[0] for row in connection.execute(f'select * from "{table}" order by 1').fetchall()]


@pytest.fixture
def loaded(project: ProjectFolder, call: Call, monkeypatch: pytest.MonkeyPatch) -> ProjectFolder:
    """`first` has loaded three days of 2024, one row set aside, and left the stage of a failed window; then it gets a retention."""
    rule = "min_value: 0, on_failure: quarantine}"
    text = windowed("first", table="facts").replace("min_value: 0}", rule)
    budget = "    processor_type: validator\n    quarantine: {max_share: 1}\n"
    project.pipeline("first", text.replace("    processor_type: validator\n", budget))
    path = project.root / "pipelines/first.yml"
    project.rows("5,2024-01-02T12:00:00Z,-1")
    assert call("run", "-s", "first", "--project", project.root).code == 0
    stage = project.root / ".dataflow/stages/first/2024-01-09/dead"
    stage.mkdir(parents=True)
    (stage / "attempt.json").write_text(json.dumps({"attempt": "dead", "batch": "dead", "key": "2024-01-09"}))
    (stage / "lock").touch()
    os.utime(stage / "attempt.json", (time.time() - 1e6,) * 2)
    path.write_text(path.read_text() + KEEP + "\n")
    monkeypatch.setattr("dataflow_assets.cli.retention.utc_now", lambda: datetime(2099, 1, 1, tzinfo=UTC))
    return project


def test_preview_removal_archive_and_the_way_back(loaded: ProjectFolder, call: Call) -> None:
    seen = call("retention", "first", "--json", "--project", loaded.root)
    assert (seen.code, seen.json["removed"], seen.json["windows"], seen.json["rows"]) == (0, False, 3, 5)
    assert {item["what"] for item in seen.json["items"]} == {"target", "quarantine", "stages"}
    assert len(_rows(loaded)) == 4
    shown = call("retention", "first", "--project", loaded.root)
    assert "3 windows of the targets (4 rows)" in shown.out, shown.out + shown.err
    assert shown.out.splitlines()[-1] == "Next: dataflow retention --yes"
    done = call("retention", "first", "--yes", "--json", "--project", loaded.root)
    assert (done.code, done.json["removed"]) == (0, True), done.out + done.err
    assert {item["archive"] for item in done.json["items"]} == {"old/first/publish", "old/first/publish.quarantine", None}
    assert _rows(loaded) == []
    assert _rows(loaded, "facts__quarantine") == []
    assert not (loaded.root / ".dataflow/stages/first/2024-01-09/dead").exists()
    files = sorted((loaded.root / "old/first/publish").glob("*.parquet"))
    assert [pq.read_table(file).num_rows for file in files] == [2, 1, 1]
    plan = call("plan", "-s", "first", "--json", "--project", loaded.root).json["pipelines"][0]
    assert (plan["to_run"], plan["counts"]) == (0, {"retired": 3})
    status = call("status", "-s", "first", "--project", loaded.root)
    assert status.code == 0
    assert "0 windows missing or failed" in status.out
    assert "3 windows not kept any longer" in status.out
    assert "not published" not in status.out
    with open_instance(load(loaded.root)) as instance:
        found = instance.get_materialized_partitions(dg.AssetKey(["first", "publish"]))
        latest = instance.fetch_observations(dg.AssetKey(["first", "publish"]), limit=10).records
    assert found == {"2024-01-01", "2024-01-02", "2024-01-03"}
    assert sorted(str(record.partition_key) for record in latest) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert latest[0].asset_observation is not None
    assert latest[0].asset_observation.metadata["archive"].value == "old/first/publish"
    listed = call("retention", "list", "first", "--json", "--project", loaded.root).json["windows"]
    assert [(item["key"], item["rows"]) for item in listed] == [("2024-01-01", 2), ("2024-01-02", 1), ("2024-01-03", 1)]
    path = loaded.root / "pipelines/first.yml"
    path.write_text(path.read_text().replace("retention: {", "retention: {ledger: 2d, "))
    forgotten = call("retention", "first", "--yes", "--json", "--project", loaded.root).json["items"]
    assert [(item["what"], item["rows"]) for item in forgotten] == [("ledger", 3)]
    assert call("plan", "-s", "first", "--json", "--project", loaded.root).json["pipelines"][0]["counts"] == {"retired": 3}
    back = call("retention", "restore", "first", "--window", "2024-01-01", "--json", "--project", loaded.root)
    assert (back.code, back.json["windows"][0]["rows"]) == (0, 2), back.out + back.err
    assert _rows(loaded) == [1, 2]
    assert call("retention", "first", "--dry-run", "--project", loaded.root).out.startswith("Nothing is older")
    wrong = call("retention", "restore", "first", "--window", "2024-01-09", "--project", loaded.root)
    assert (wrong.code, "holds no window" in wrong.out) == (1, True), wrong.out
    file = files[1]
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    torn = call("retention", "restore", "first", "--window", "2024-01-02", "--project", loaded.root)
    assert torn.code == 1, "an archive that somebody has changed is not brought back"
    assert _rows(loaded) == [1, 2]


def test_what_the_archive_cannot_hold_stays(loaded: ProjectFolder, call: Call) -> None:
    old = loaded.root / "old"
    old.write_text("a file where the archive's folder should be")
    done = call("retention", "first", "--yes", "--json", "--project", loaded.root)
    assert done.code == 1
    assert all(item["error"] for item in done.json["items"] if item["what"] != "stages")
    assert len(_rows(loaded)) == 4
    old.unlink()
    path = loaded.root / "pipelines/first.yml"
    path.write_text(path.read_text().replace(KEEP, "retention: {target: 1d, archive: false}"))
    again = call("retention", "first", "--yes", "--project", loaded.root)
    assert (again.code, "not archived" in again.out, _rows(loaded)) == (0, True, [])
    assert not old.exists()
    none = call("retention", "list", "first", "--project", loaded.root)
    assert "archive: false" in none.err


def test_the_job_does_it_every_day(loaded: ProjectFolder) -> None:
    path, own = loaded.root / "dataflow_project.yml", loaded.root / "pipelines/first.yml"
    table = 'archive: {connection: db, table: "{pipeline}_{step}_old"}'
    path.write_text(path.read_text() + f'retention: {{schedule: "@daily", status: running, {table}}}\n')
    own.write_text(own.read_text().replace(KEEP, "retention: {target: 1d}"))
    definitions = load_project(loaded.root)
    schedule = definitions.resolve_schedule_def(f"{JOB}_schedule")
    assert (schedule.cron_schedule, schedule.default_status) == ("0 0 * * *", dg.DefaultScheduleStatus.RUNNING)
    with open_instance(load(loaded.root)) as instance:
        result = definitions.resolve_job_def(JOB).execute_in_process(instance=instance)
        assert result.success
    assert _rows(loaded) == []
    assert len(_rows(loaded, "first_publish_old")) == 4


def test_without_a_section_there_is_no_job(project: ProjectFolder) -> None:
    assert JOB not in {job.name for job in load_project(project.root).resolve_all_job_defs()}


def test_history_goes_with_it_but_for_what_the_ui_shows(loaded: ProjectFolder, call: Call) -> None:
    path = loaded.root / "pipelines/first.yml"
    path.write_text(path.read_text().replace(KEEP, "retention: {history: 400d}"))
    assert call("run", "-s", "first", "--full-refresh", "--project", loaded.root).code == 0
    seen = call("retention", "first", "--json", "--project", loaded.root)
    (item,) = [item for item in seen.json["items"] if item["what"] == "history"]
    assert (item["rows"], item["note"]) == (6, "1 runs"), "the second run made what the UI shows"
    assert call("retention", "first", "--yes", "--project", loaded.root).code == 0
    with open_instance(load(loaded.root)) as instance:
        assert instance.get_runs_count() == 1
        assert len(instance.get_materialized_partitions(dg.AssetKey(["first", "publish"]))) == 3
    assert len(_rows(loaded)) == 4


def test_what_breaks_of_one_pipeline_is_told_and_the_others_go_on(
    loaded: ProjectFolder, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = load(loaded.root)
    (first,) = [item for item in build_plan(project).pipelines if item.name == "first"]
    second, looks = (
        replace(first, name="second", retention=replace(first.retention, target=None, quarantine=None, history=1.0)),
        list[list[str]](),
    )
    third = replace(second, name="third")

    def broken(session: Session) -> None:
        raise OSError(f"the disk of {session.pipeline.name} is away")

    def seen(_: dg.DagsterInstance, pipelines: Mapping[str, PipelinePlan], *, before: datetime) -> list[OldRun]:
        looks.append(list(pipelines))
        return []

    monkeypatch.setattr("dataflow_assets.operations.retention.sweep_killed", broken)
    monkeypatch.setattr("dataflow_assets.operations.retention.old_runs", seen)
    with open_instance(project) as instance:
        done = remove_old(project, [first, second, third], now=datetime(2099, 1, 1, tzinfo=UTC), instance=instance)
    assert [str(old.error) for old in done if old.error] == ["the disk of first is away"]
    assert looks == [["second", "third"]], "runs are looked for once"
    assert len(_rows(loaded)) == 4


@pytest.mark.parametrize("broken", ["pipeline_name: second\nsteps: [", "facts"])
def test_windows_stay_while_nobody_can_tell_who_else_writes_their_table(loaded: ProjectFolder, call: Call, broken: str) -> None:
    second = loaded.root / "pipelines/second.yml"
    second.write_text(windowed("second", table="facts").replace("table: facts", "tabel: facts") if broken == "facts" else broken)
    done = call("retention", "first", "--yes", "--json", "--project", loaded.root)
    assert done.code == 1
    (stays,) = [item for item in done.json["items"] if item["what"] == "target"]
    assert "second" in stays["error"]["message"], stays
    assert len(_rows(loaded)) == 4
    assert call("plan", "-s", "first", "--json", "--project", loaded.root).json["pipelines"][0]["to_run"] == 0, "nor are they loaded anew"
    definitions = load_project(loaded.root)
    with open_instance(load(loaded.root)) as instance:
        assert not definitions.resolve_job_def(JOB).execute_in_process(instance=instance, raise_on_error=False).success
    assert len(_rows(loaded)) == 4
    second.unlink()
    assert call("retention", "first", "--yes", "--project", loaded.root).code == 0
    assert _rows(loaded) == []


MADE = """
pipeline_name: second
event_time_column: at
windows: {every: day, begin: 2024-01-01, end: 2024-01-04}
steps:
  - {id: read, type: source, source_type: duckdb, connection: db, config: {table: facts}}
  - {id: publish, type: endpoint, endpoint_type: duckdb, connection: db, depends_on: [read], config: {table: made}}
"""


@pytest.mark.parametrize("again", [("backfill", "--only", "all", "--yes"), ("run", "--full-refresh"), ("run", "--start", "2024-01-01")])
def test_what_was_made_of_rows_that_have_left_is_not_emptied_unasked(loaded: ProjectFolder, call: Call, again: tuple[str, ...]) -> None:
    where = ("--select", "second", "--project", loaded.root)
    loaded.pipeline("second", MADE)
    assert call("run", *where).code == 0
    assert call("retention", "first", "--yes", "--project", loaded.root).code == 0
    assert (_rows(loaded), len(_rows(loaded, "made"))) == ([], 4)
    refused = call(*again, *where)
    assert refused.code == 1, refused.out + refused.err
    assert "3 published windows (2024-01-01 to 2024-01-03) were made of rows of first" in refused.out
    assert "--even-if-retired" in refused.out
    assert len(_rows(loaded, "made")) == 4
    verb = again if again[0] == "run" else (again[0], "--dry-run", *again[1:])
    assert call(*(("plan", *verb[1:]) if verb[0] == "run" else verb), *where).code == 1
    assert call("run", *where).code == 0
    assert len(_rows(loaded, "made")) == 4, "nothing is due"
    forced = call(*again, "--even-if-retired", *where)
    assert forced.code == 0, forced.out + forced.err
    assert _rows(loaded, "made") == []


def test_what_is_typed_next_is_not_refused_for_what_has_left(loaded: ProjectFolder, call: Call) -> None:
    where = ("--select", "second", "--project", loaded.root)
    loaded.pipeline("second", MADE)
    assert call("run", *where).code == 0
    assert call("retention", "first", "--yes", "--project", loaded.root).code == 0
    paused = call("pause", "second", "--reason", "later", "--project", loaded.root)
    assert paused.code == 0, paused.out + paused.err
    assert call("run", "--full-refresh", *where).code == 0, "nothing of it runs, so nothing is refused"
    assert call("unpause", "second", "--project", loaded.root).code == 0
    first = call("run", "--full-refresh", "--even-if-retired", "--max-windows", "1", "--json", *where).json
    assert "--full-refresh --even-if-retired" in first["next"]
    assert call("run", "--start", "2024-01-01", "--max-windows", "1", *where).code == 0, "the first window holds nothing any longer"


def test_windows_that_are_named_run_again_whatever_has_left(loaded: ProjectFolder, call: Call) -> None:
    where = ("--select", "second", "--project", loaded.root)
    loaded.pipeline("second", MADE)
    assert call("run", *where).code == 0
    assert call("retention", "first", "--yes", "--project", loaded.root).code == 0
    assert call("run", "--window", "2024-01-01", *where).code == 0
    assert call("backfill", "--windows", "2024-01-02", "--only", "all", "--yes", *where).code == 0
    assert _rows(loaded, "made") == [4]
