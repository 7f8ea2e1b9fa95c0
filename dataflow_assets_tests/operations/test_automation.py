"""`automation:` on a real instance: which windows are asked for when inputs are new, and by which runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets.pauses import Pause, keep_pause
from dataflow_assets.operations.load import load_project
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS
from dataflow_assets_tests.plan.conftest import Workbench

NOW = datetime(2024, 3, 6, 12, tzinfo=UTC)
TOTALS = """\
pipeline_name: totals
depends_on: [orders]
automation: on_new_inputs
event_time_column: ordered_at
windows: {every: day, begin: 2024-03-01, end: 2024-03-06}
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: orders.parquet}}
  - {id: other, type: source, source_type: parquet, config: {file_path: orders.parquet}}
  - {id: sum, type: transform, kind: sql, depends_on: [read, other], config: {query: "select id, ordered_at, amount from read"}}
  - {id: publish, type: endpoint, endpoint_type: parquet, depends_on: [sum], config: {file_path: lake/totals}}
"""
STEPS = ["read", "other", "sum", "publish"]


class Ticks:
    """The ticks of the sensor of one pipeline, one after the other, a minute apart."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.definitions, self.instance, self.now = load_project(folder), instance, NOW
        self.cursor: dg.AutomationConditionEvaluationCursor | None = None  # type: ignore[name-defined]

    def __call__(self, pipeline: str = "totals") -> list[str]:
        """The windows that all steps are asked for; `-` stands for a pipeline without windows."""
        self.now += timedelta(minutes=1)
        found = dg.evaluate_automation_conditions(
            self.definitions,
            self.instance,
            asset_selection=dg.AssetSelection.groups(pipeline),
            cursor=self.cursor,
            evaluation_time=self.now,
        )
        self.cursor = found.cursor
        graph = self.definitions.resolve_asset_graph()
        keys = [key for key in graph.materializable_asset_keys if key.path[0] == pipeline]
        asked = [sorted(str(key or "-") for key in found.get_requested_partitions(key)) for key in keys]
        assert all(item == asked[0] for item in asked), "all steps of a pipeline are asked for together"
        return asked[0]


def _load(folder: Path, instance: dg.DagsterInstance, *days: str) -> None:
    for day in days:
        assert shop.run(folder, instance, tags={"dagster/partition": day}).success


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    report = shop.REPORT.replace(
        "depends_on: [orders]\n", "depends_on: [orders]\nautomation: {when: [on_new_inputs], status: running}\n", 1
    )
    return shop.write_shop(tmp_path / "shop", totals=TOTALS, report=report)


def test_new_inputs_ask_for_their_windows_once_old_ones_too(folder: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(folder, instance)
    assert tick() == []
    _load(folder, instance, DAYS[4], DAYS[0])
    assert tick() == [DAYS[0], DAYS[4]]
    assert tick() == []  # asked for, though no run has made them
    for day in (DAYS[0], DAYS[4]):
        assert shop.run(folder, instance, pipeline="totals", tags={"dagster/partition": day}).success
    assert tick() == []
    _load(folder, instance, DAYS[0])  # an old window, updated upstream
    assert tick() == [DAYS[0]]


def test_a_pause_holds_it_back_and_nothing_is_forgotten(folder: Path, instance: dg.DagsterInstance) -> None:
    tick = Ticks(folder, instance)
    tick()
    keep_pause(instance, "shop", "totals", Pause(NOW + timedelta(minutes=5)))
    _load(folder, instance, DAYS[1])
    assert [tick() for _ in range(3)] == [[], [], []]
    _load(folder, instance, DAYS[2])
    assert [tick() for _ in range(2)] == [[DAYS[1], DAYS[2]], []]


@pytest.mark.filterwarnings("ignore:Function `AssetSelection.keys`:DeprecationWarning")  # Dagster's own, where it makes a backfill
def test_the_sensor_asks_for_runs_of_its_own_pipeline(folder: Path, instance: dg.DagsterInstance) -> None:
    definitions = load_project(folder)
    sensors = {sensor.name: sensor for sensor in definitions.sensors or [] if sensor.name.endswith("_automation")}
    assert set(sensors) == {"totals_automation", "report_automation"}
    assert sensors["totals_automation"].default_status is dg.DefaultSensorStatus.STOPPED
    assert sensors["report_automation"].default_status is dg.DefaultSensorStatus.RUNNING
    repository = definitions.get_repository_def()
    cursors: dict[str, str | None] = dict.fromkeys(sensors)

    def evaluate(name: str) -> list[dg.RunRequest]:
        with dg.build_sensor_context(instance, cursor=cursors[name], repository_def=repository) as context:
            found = sensors[name].evaluate_tick(context)
        cursors[name] = found.cursor
        return list(found.run_requests or [])

    assert [evaluate(name) for name in sensors] == [[], []]
    _load(folder, instance, DAYS[3])
    (totals,), (report,) = evaluate("totals_automation"), evaluate("report_automation")
    assert totals.tags["dataflow/pipeline"] == "totals"
    assert totals.partition_key == DAYS[3]
    assert sorted(key.path[-1] for key in totals.asset_selection or []) == sorted(STEPS)
    assert (report.tags["dataflow/pipeline"], report.partition_key) == ("report", None)
    # several windows are one backfill, whose runs take whole ranges
    assert shop.run(folder, instance, tags={**shop.RANGE}).success
    (several,) = evaluate("totals_automation")
    assert several.requires_backfill_daemon()


def test_missing_windows_are_asked_for_when_their_inputs_are_there(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    text = TOTALS.replace("automation: on_new_inputs", "automation: [on_missing, on_new_inputs]")
    folder = shop.write_shop(tmp_path / "shop", totals=text)
    _load(folder, instance, DAYS[0], DAYS[1])
    assert shop.run(folder, instance, pipeline="totals", tags={"dagster/partition": DAYS[0]}).success
    tick = Ticks(folder, instance)
    assert tick() == [DAYS[1]]
    _load(folder, instance, DAYS[2])
    assert tick() == [DAYS[2]]
    assert tick() == []


def test_an_input_without_windows_asks_for_the_newest_window_only(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    prices = shop.REPORT.replace("depends_on: [orders]\n", "", 1).replace("pipeline_name: report", "pipeline_name: prices")
    text = TOTALS.replace("depends_on: [orders]", "depends_on: [orders, prices]", 1)
    folder = shop.write_shop(tmp_path / "shop", totals=text, prices=prices.replace("lake/report", "lake/prices"))
    _load(folder, instance, *DAYS)
    tick = Ticks(folder, instance)
    tick()
    assert shop.run(folder, instance, pipeline="prices").success
    assert tick() == [DAYS[4]]
    _load(folder, instance, DAYS[0])
    assert tick() == [DAYS[0]]


def test_what_is_out_of_reach_is_not_asked_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    text = TOTALS.replace("end: 2024-03-06}", "end: 2024-03-06, x_days_back: 2}")
    folder = shop.write_shop(tmp_path / "shop", totals=text)
    tick = Ticks(folder, instance)
    tick()
    _load(folder, instance, DAYS[0], DAYS[4])
    assert tick() == [DAYS[4]]


@pytest.mark.parametrize(
    ("automation", "said"),
    [
        (
            "on_new_inputs",
            "p.yml:1 automation: on_new_inputs: 'p' reads nothing that another pipeline publishes -> use a schedule or a sensor",
        ),
        ("{when: on_missing, check_every: soon}", "p.yml:1 automation.check_every: 'soon' is not a duration"),
    ],
)
def test_what_is_refused(tmp_path: Path, automation: str, said: str) -> None:
    steps = "steps:\n  - {id: read, type: source, source_type: parquet, config: {file_path: x.parquet}}\n"
    steps += "  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: y.parquet, mode: replace}}\n"
    (problem,) = Workbench(tmp_path / "bench").problems(p=f"automation: {automation}\npipeline_name: p\n{steps}")
    assert said in problem
