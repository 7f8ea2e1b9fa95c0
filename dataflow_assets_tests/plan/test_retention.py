"""What `retention:` means, what is refused of it and where, and that windows that are not kept are not loaded again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dataflow_assets.errors import PlanError, SpecError
from dataflow_assets.plan.build import build_plan, build_plan_tolerant
from dataflow_assets.plan.model import ArchivePlan, PipelinePlan, RetentionPlan, WindowPlan
from dataflow_assets.plan.retention import horizon, stage_ages
from dataflow_assets.plan.windows import windows_to_run
from dataflow_assets.spec.builders import endpoint, pipeline, project, source
from dataflow_assets.spec.load import load
from dataflow_assets.spec.retention import ArchiveOptions, RetentionOptions
from dataflow_assets.tables import RETIRED, LedgerEntry, Unit, WriteMode
from dataflow_assets.windows import Cadence

DAY = 86400.0
NOW = datetime(2024, 1, 11, tzinfo=UTC)
PIPELINE = """\
pipeline_name: orders
{windows}
event_time_column: at
{retention}
steps:
  - {{id: read, type: source, source_type: csv, config: {{file_path: rows.csv}}}}
  - {{id: write, type: endpoint, depends_on: [read], {endpoint}}}
"""
WINDOWS = "windows: {every: day, begin: 2024-01-01}"
DUCKDB = "connection: db, config: {table: orders}"


def planned(
    folder: Path, retention: str, *, of_project: str = "", windows: str = WINDOWS, to: str = DUCKDB
) -> tuple[PipelinePlan, tuple[float, Mapping[str, float]]]:
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    (folder / "dataflow_project.yml").write_text(
        f"project_name: shop\nconnections:\n  {{db: {{type: duckdb, path: a.duckdb}}, lake: {{type: parquet, root: lake}}}}\n{of_project}\n"
    )
    (folder / "pipelines/orders.yml").write_text(PIPELINE.format(windows=windows, retention=retention, endpoint=to))
    loaded = load(folder)
    return build_plan(loaded).pipelines[0], stage_ages(loaded)


def test_an_age_alone_is_about_what_nobody_misses(tmp_path: Path) -> None:
    plan, ages = planned(tmp_path, "retention: 400d")
    assert (plan.retention.stages, plan.retention.quarantine) == (400 * DAY, 400 * DAY)
    assert (plan.retention.target, plan.retention.history) == (None, None)
    assert plan.retention.archive == ArchivePlan(to=".dataflow/archive")
    assert ages == (7 * DAY, {"orders": 400 * DAY})


def test_the_pipelines_keys_win_over_the_projects(tmp_path: Path) -> None:
    of_project = "retention: {stages: 3d, target: 400d, archive: s3://old/shop, status: running}"
    plan, ages = planned(tmp_path, "retention: {target: 30d, quarantine: 90d}", of_project=of_project)
    found = plan.retention
    assert (found.stages, found.target, found.quarantine, found.archive) == (3 * DAY, 30 * DAY, 90 * DAY, ArchivePlan(to="s3://old/shop"))
    assert ages == (3 * DAY, {})
    assert horizon(found, now=NOW) == NOW - timedelta(days=30)


def test_nothing_said_keeps_everything(tmp_path: Path) -> None:
    plan, _ = planned(tmp_path, "")
    assert plan.retention == RetentionPlan(archive=ArchivePlan(to=".dataflow/archive"))
    assert horizon(plan.retention, now=NOW) is None


def test_the_words_of_drive() -> None:
    words = {"archive_before_delete": True, "archive_location": "s3://old/", "delete_after_days": 7}
    assert RetentionOptions.model_validate(words) == RetentionOptions(stages="7d", archive=ArchiveOptions(to="s3://old/"))
    assert RetentionOptions.model_validate({"archive_before_delete": False, "delete_after_days": 1}).archive is False


def test_in_python_as_in_yaml(tmp_path: Path) -> None:
    steps = [source("read", "csv", file_path="a.csv"), endpoint("write", "parquet", depends_on="read", file_path="out/")]
    orders = pipeline(
        "orders", windows={"every": "day", "begin": "2024-01-01"}, event_time_column="at", retention={"target": "9d"}, steps=steps
    )
    (plan,) = build_plan(project("shop", pipelines=[orders], root=tmp_path, retention="5d")).pipelines
    assert (plan.retention.target, plan.retention.stages) == (9 * DAY, 5 * DAY)


@pytest.mark.parametrize(
    ("retention", "more", "where", "message"),
    [
        ("retention: {target: 5}", {}, "orders.yml:4:21", "target"),
        ("retention: {target: soon}", {}, "orders.yml:4:21", "'soon' is not a duration"),
        ("retention: {targets: 5d}", {}, "orders.yml:4:13", "targets"),
        ("retention: {archive: {}}", {}, "orders.yml:4:22", "either `to`"),
        ("retention: {archive: {table: old}}", {}, "orders.yml:4:22", "needs `connection`"),
        ("retention: {ledger: 5d}", {}, "orders.yml:4:21", "none leaves"),
        ("retention: {target: 9d, ledger: 5d}", {}, "orders.yml:4:33", "shorter than target"),
        (
            "retention: {target: 1d, ledger: 5d}",
            {"to": "endpoint_type: parquet, config: {file_path: out/}"},
            "orders.yml:4:33",
            "cannot take single rows",
        ),
        ("retention: {target: 5d}", {"windows": ""}, "orders.yml:4:21", "has no windows"),
        ("retention: {target: 5d}", {"to": "connection: db, config: {table: orders, mode: replace}"}, "orders.yml:4:21", "whole target"),
        ("retention: {archive: {connection: bd, table: old}}", {}, "orders.yml:4:35", "no connection 'bd'"),
        ("retention: {archive: {connection: db, to: old}}", {}, "orders.yml:4:35", "type parquet"),
        ("", {"of_project": 'retention: {schedule: "61 * * * *"}'}, "dataflow_project.yml:4", "five cron fields"),
        ("", {"of_project": "retention: {archive: {connection: db, table: old}}"}, "dataflow_project.yml:4", "would share one"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_its_place(
    tmp_path: Path, retention: str, more: dict[str, str], where: str, message: str
) -> None:
    with pytest.raises((PlanError, SpecError)) as caught:
        planned(tmp_path, retention, **more)
    assert where in str(caught.value), str(caught.value)
    assert message in str(caught.value), str(caught.value)


def test_the_projects_section_leaves_alone_what_cannot_let_go(tmp_path: Path) -> None:
    plan, _ = planned(tmp_path, "", of_project="retention: {target: 5d}", windows="")
    assert "has no windows" in plan.retention.kept["write"]
    assert horizon(plan.retention, now=NOW) is None


OTHER = """\
pipeline_name: returns
windows: {every: day, begin: 2024-01-01}
event_time_column: at
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: other.csv}}
  - {id: write, type: endpoint, depends_on: [read], connection: db, config: {table: orders, mode: append}}
"""
APPENDS = "connection: db, config: {table: orders, mode: append}"


def _beside(folder: Path, text: str = OTHER) -> None:
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    (folder / "pipelines/returns.yml").write_text(text)


def test_windows_stay_where_another_pipeline_has_rows_in_them(tmp_path: Path) -> None:
    """They would be taken out by their time, whoever wrote them, and the other's ledger would still count them."""
    _beside(tmp_path / "a")
    with pytest.raises(PlanError, match="orders together with returns") as caught:
        planned(tmp_path / "a", "retention: {target: 5d}", to=APPENDS)
    assert "orders.yml:4:21" in str(caught.value)
    _beside(tmp_path / "b")
    plan, _ = planned(tmp_path / "b", "", of_project="retention: {target: 5d}", to=APPENDS)
    assert "whose rows would go as well" in plan.retention.kept["write"]
    assert horizon(plan.retention, now=NOW) is None
    _beside(tmp_path / "d", f"{OTHER}enabled: false\n")
    plan, _ = planned(tmp_path / "d", "", of_project="retention: {target: 5d}", to=APPENDS)
    assert plan.retention.kept, "what rests has its rows there all the same"
    _beside(tmp_path / "c", OTHER.replace("table: orders", "table: returned"))
    assert planned(tmp_path / "c", "retention: {target: 5d}", to=APPENDS)[0].retention.kept == {}


TWICE = "connection: db, config: {table: orders}}\n  - {id: also, type: endpoint, depends_on: [read], connection: db, config: {table: b}"


@pytest.mark.parametrize(
    ("archive", "to", "message"),
    [
        ("{connection: db, table: old}", TWICE, "the archive of orders.also is db.main.old, which is also the archive of orders.write"),
        ("{connection: db, table: Orders}", DUCKDB, "which is also what orders.write writes"),
        ("{to: lake}", "endpoint_type: parquet, config: {file_path: lake/orders/write/}", "which is also what orders.write writes"),
        ("{to: old, connection: lake}", "endpoint_type: parquet, config: {file_path: lake/old/orders/write/}", "what orders.write writes"),
    ],
)
def test_an_archive_that_would_lose_what_another_keeps_is_refused(tmp_path: Path, archive: str, to: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        planned(tmp_path, f"retention: {{target: 5d, archive: {archive}}}", to=to)
    assert message in str(caught.value), str(caught.value)
    assert "orders.yml:4:34" in str(caught.value)


def test_archives_of_one_system_lie_apart(tmp_path: Path) -> None:
    archive = '{connection: db, table: "{pipeline}_{step}_old"}'
    plan, _ = planned(tmp_path, f"retention: {{target: 5d, quarantine: 5d, archive: {archive}}}", to=TWICE)
    kept = plan.retention.archive
    assert kept is not None
    assert str(kept.table_of("shop.orders", "write.quarantine")) == "shop_orders_write__quarantine_old"
    assert str(ArchivePlan(connection="db", table="{pipeline}.{step}").table_of("orders", "write.quarantine")) == "orders.write__quarantine"


def _entry(day: int, **state: str) -> LedgerEntry:
    cadence = Cadence("day")
    window = cadence.window(f"2024-01-{day:02d}")
    unit = Unit("orders", "write", cadence.key(window), window)
    return LedgerEntry("orders", unit, WriteMode.REPLACE_WINDOW, 1, "a", 5, "5:1", "x", NOW, state=state)


def test_what_is_not_kept_is_retired_and_not_missing() -> None:
    plan = WindowPlan(Cadence("day"), datetime(2024, 1, 1, tzinfo=UTC), None, 1, 0.0)
    ledger = [[_entry(1, **{RETIRED: "{}"}), _entry(3), _entry(8)]]
    edge = datetime(2024, 1, 6, tzinfo=UTC)
    todos = windows_to_run(plan, ledger=ledger, failed={"2024-01-04"}, now=NOW, horizon=edge)
    states = ["retired", "retired", "published", "retired", "retired", "missing", "missing", "reopened", "missing", "missing"]
    assert [todo.state for todo in todos] == states
    assert [todo.window.start.day for todo in todos if todo.run and todo.window] == [6, 7, 8, 9, 10]
    refreshed = windows_to_run(plan, ledger=ledger, now=NOW, horizon=edge, full_refresh=True)
    assert "2024-01-01" not in {todo.key for todo in refreshed if todo.run}
    named = windows_to_run(plan, ledger=ledger, now=NOW, horizon=edge, keys=["2024-01-01"])
    assert [(todo.state, todo.run) for todo in named] == [("retired", True)]


@pytest.mark.parametrize("name", ["{{ window.start.year }}", "ord{{ window.start.year }}", "{% if window.start %}a{% endif %}_b"])
def test_windows_stay_where_a_template_may_name_their_table(tmp_path: Path, name: str) -> None:
    hidden = OTHER.replace("table: orders", f"table: '{name}'")
    to = hidden.splitlines()[-1].partition("[read], ")[2].removesuffix("}")
    _beside(tmp_path / "a", hidden)
    plan, _ = planned(tmp_path / "a", "retention: {target: 5d}", to=APPENDS.replace("orders", "orders2024"))
    assert "orders2024, and so may returns.write" in plan.retention.kept["write"], "another's template refuses nobody"
    assert horizon(plan.retention, now=NOW) is None
    _beside(tmp_path / "b", f"{hidden}enabled: false\n")
    plan, _ = planned(tmp_path / "b", "", of_project="retention: {target: 5d}", to=APPENDS.replace("orders", "orders2024"))
    assert "a template" in plan.retention.kept["write"]
    own = planned(tmp_path / "c", "", of_project="retention: {target: 5d}", to=to)[0]
    assert own.retention.kept == {}, "nobody else writes anything"
    _beside(tmp_path / "c", OTHER.replace("table: orders", "table: orders2023"))
    own = planned(tmp_path / "c", "", of_project="retention: {target: 5d}", to=to)[0]
    assert "and so may returns.write" in own.retention.kept["write"]


@pytest.mark.parametrize(
    "name",
    [
        "'items_{{ window.start.year }}'",
        "'{{ window.start.year }}_items'",
        "items",
        "'orders_{{ window.start.year }}'",
        "'ord{{ window.start.year }}ders'",
    ],
)
def test_a_template_that_cannot_name_the_table_holds_nothing_back(tmp_path: Path, name: str) -> None:
    _beside(tmp_path, OTHER.replace("table: orders", f"table: {name}"))
    plan, _ = planned(tmp_path, "retention: {target: 5d}", to=APPENDS)
    assert (plan.retention.kept, plan.retention.doubts) == ({}, ())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("pipeline_name: returns\nsteps: [", "returns.yml"),
        (OTHER.replace("mode: append", "mode: apend"), "returns.write"),
        (OTHER.replace("connection: db", "connection: bd"), "returns.write"),
        (OTHER.replace("mode: append", "mode: '{{ var(\"how\") }}'"), "returns.write"),
    ],
)
def test_nobody_can_tell_what_a_broken_pipeline_writes(tmp_path: Path, broken: str, said: str) -> None:
    """Its rows are there; once it is mended the windows leave, and are not loaded anew meanwhile."""
    _beside(tmp_path, broken)
    with pytest.raises(PlanError):
        planned(tmp_path, "retention: {target: 5d}", to=APPENDS)
    plan = build_plan_tolerant(load(tmp_path))[0].by_name["orders"]
    assert said in "".join(plan.retention.doubts)
    assert plan.retention.kept == {}
    assert horizon(plan.retention, now=NOW) == NOW - timedelta(days=5)


def test_a_doubt_about_a_pipeline_that_rests_says_so(tmp_path: Path) -> None:
    """`dataflow validate` answers that all is sound, for it does not look at it."""
    _beside(tmp_path, f"{OTHER.replace('connection: db', 'connection: bd')}enabled: false\n")
    plan, _ = planned(tmp_path, "retention: {target: 5d}", to=APPENDS)
    (doubt,) = plan.retention.doubts
    assert doubt.startswith("returns.write (")
    assert doubt.endswith("returns.yml:6:5, not enabled)")


def test_a_broken_source_or_contract_casts_no_doubt(tmp_path: Path) -> None:
    _beside(tmp_path, OTHER.replace("{file_path: other.csv}", "{fiel_path: other.csv}").replace("table: orders", "table: returned"))
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts/orders.yml").write_text("contract: [")
    with pytest.raises(PlanError):
        planned(tmp_path, "retention: {target: 5d}")
    plan = build_plan_tolerant(load(tmp_path))[0].by_name["orders"]
    assert plan.retention.doubts == ()
