"""The example on its real data: the year as one ranged run and as separate windows, and what the checks say of 2013."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dataflow_assets.execution.events import CheckEvaluated, Event, WindowFailed
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project
from dataflow_assets.testing import run_tests

EXAMPLE = Path(__file__).parents[2] / "examples" / "nyc_flights"
NOW = datetime(2014, 6, 1, tzinfo=UTC)
CLOCK_CHANGES = ("2013-03-10", "2013-11-03")
"""Days of 23 and of 25 hours."""


def copy_of_the_example(folder: Path) -> Path:
    """The example with its landing files, in a folder of its own."""
    ignored = shutil.ignore_patterns(".dataflow", "warehouse", "reports", "landing")
    shutil.copytree(EXAMPLE, folder, ignore=ignored)
    spec = importlib.util.spec_from_file_location("prepare_nyc_flights", EXAMPLE / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    assert prepare.prepare(folder / "landing") == 336_776
    return folder


def run_windows(
    project: Project,
    plan: PipelinePlan,
    *,
    attempt: str,
    chunk: int | None = None,
    limit: int | None = None,
    only: Callable[[str], bool] = lambda _: True,
) -> Iterator[Event]:
    """Run what is due, of `only` these keys: in one request, or in requests of `chunk` windows."""
    windows = [todo.window for todo in window_status(project, plan, now=NOW) if todo.run and only(todo.key)][:limit]
    step = chunk or max(len(windows), 1)
    for start in range(0, len(windows), step):
        yield from run(RunRequest(project, plan, tuple(windows[start : start + step]), f"{attempt}-{start}", NOW))


@pytest.mark.parametrize("active", [False, True])
def test_what_the_demo_says_to_type_can_be_typed(*, active: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the environment on the PATH it names the program by its place."""
    monkeypatch.syspath_prepend(EXAMPLE)
    place = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(place) if active else "/nowhere")
    demo = importlib.import_module("demo")
    for name in ("demo", "prepare"):
        sys.modules.pop(name)  # names that a project may have too
    program = demo._program()
    assert (program == "dataflow") is active
    for typed in demo.LOOK:
        if "{dataflow}" in typed:
            words = typed.format(dataflow=program, here=EXAMPLE).split()
            told = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True, env={**os.environ, "PATH": str(place)})
            assert "Usage" in told.stdout


def test_its_unit_tests_pass_without_the_data() -> None:
    outcomes = run_tests(EXAMPLE, seed=1)
    assert [outcome.text for outcome in outcomes if not outcome.ok] == []
    assert len(outcomes) == 12


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Event]]]:
    """The whole example, each pipeline as one ranged run; of the metrics, whose query knows one day, three days of each month."""
    folder = copy_of_the_example(tmp_path_factory.mktemp("year") / "nyc")
    project = load(folder)
    events = {}
    for pipeline in build_plan(project).pipelines:
        if pipeline.name == "archive":
            continue
        only = is_measured if pipeline.name == "daily_metrics" else lambda _: True
        events[pipeline.name] = list(run_windows(project, pipeline, attempt="year", only=only))
    return folder, events


def is_measured(key: str) -> bool:
    """Whether the metrics of this day are made."""
    return key.endswith(("-01", "-02", "-03")) or key in CLOCK_CHANGES


def table(folder: Path, query: str) -> list[tuple[object, ...]]:
    """Rows of the example's warehouse."""
    import duckdb

    with duckdb.connect(str(folder / "warehouse" / "nyc.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.timeout(600)
def test_the_whole_year_loads(year: tuple[Path, dict[str, list[Event]]]) -> None:
    folder, events = year
    assert [event for found in events.values() for event in found if isinstance(event, WindowFailed)] == []
    assert table(folder, "select count(*) from flights") == [(336_776,)]
    assert table(folder, "select count(*) from weather") == [(26_115,)]
    measured = f"day <= 3 or make_date(year, month, day) in {CLOCK_CHANGES}"
    assert table(folder, "select sum(flights), count(distinct flight_date) from daily_metrics") == table(
        folder, f"select count(*), count(distinct (month, day)) from flights where {measured}"
    )
    assert table(folder, "select count(distinct flight_date) from daily_metrics") == [(37,)]
    hours = "select count(*) from (select time_hour::date, count(*) from weather group by 1)"
    assert table(folder, hours)[0][0] > 360
    assert (folder / "reports" / "punctuality.csv").read_text().count("\n") > 150
    assert (folder / "reports" / "punctuality.parquet").exists()


def test_the_days_of_the_clock_changes_have_all_their_flights(year: tuple[Path, dict[str, list[Event]]]) -> None:
    folder, _ = year
    query = "select sum(flights) from daily_metrics where flight_date = '{}'"
    counted = "select count(*) from flights where year = 2013 and month = {} and day = {}"
    for day in CLOCK_CHANGES:
        assert table(folder, query.format(day)) == table(folder, counted.format(*map(int, day.split("-")[1:])))


def flagged(events: list[Event], check: str) -> list[str]:
    """The windows that a check did not pass, as month-day."""
    found = [event for event in events if isinstance(event, CheckEvaluated) and event.result.name == check and not event.result.passed]
    return [event.key.removeprefix("2013-") for event in found]


def test_the_blizzard_stands_out_and_ordinary_weekends_do_not(year: tuple[Path, dict[str, list[Event]]]) -> None:
    _, events = year
    assert flagged(events["flights"], "cancelled_share_anomaly") == ["02-08", "02-09", "12-05", "12-10", "12-14"]


def test_the_holidays_and_the_autumn_timetable_are_what_the_numbers_of_flights_show(year: tuple[Path, dict[str, list[Event]]]) -> None:
    _, events = year
    found = flagged(events["flights"], "flights_anomaly")
    holidays = {"05-26", "07-04", "07-05", "08-31", "09-01", "11-28", "11-29", "11-30", "12-24", "12-25", "12-31"}
    assert holidays <= set(found)
    others = [datetime.fromisoformat(f"2013-{day}") for day in found if day not in holidays]
    assert all(day.weekday() == 5 and day.month in {9, 10, 11} for day in others), "Saturdays of the new timetable, not acknowledged"
    assert len(others) <= 12


@pytest.mark.timeout(600)
def test_separate_windows_give_the_same_rows_as_the_ranged_run(year: tuple[Path, dict[str, list[Event]]], tmp_path: Path) -> None:
    folder, _ = year
    other = copy_of_the_example(tmp_path / "nyc")
    project = load(other)
    plan = build_plan(project).by_name["flights"]
    events = list(run_windows(project, plan, attempt="single", chunk=1, limit=40))
    assert not any(isinstance(event, WindowFailed) for event in events)
    query = "select * from flights where (time_hour at time zone 'America/New_York')::date < '2013-02-10'"
    assert Counter(table(folder, query)) == Counter(table(other, query))
