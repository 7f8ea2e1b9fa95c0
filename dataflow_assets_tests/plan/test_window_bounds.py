"""`windows:` of a pipeline, resolved: bounds on edges, what is in reach, and every refusal."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets_tests.plan.conftest import Workbench

STEPS = (
    "event_time_column: at\npipeline_name: p\nsteps:\n  - {id: read, type: source, connection: raw, config: {table: t}}\n"
    "  - {id: write, type: endpoint, connection: mart, depends_on: [read], config: {table: t}}\n"
)


def _plan(bench: Workbench, text: str) -> WindowPlan:
    found = bench.plan(p=text + STEPS).by_name["p"].windows
    assert found is not None
    return found


def test_acceptable_bounds_lie_on_edges_inside(bench: Workbench) -> None:
    plan = _plan(
        bench, "windows: {granularity: 1h, acceptable_start: 2026-01-01T00:30, acceptable_end: 2026-01-01T06:30, x_days_back: 2d}\n"
    )
    assert plan.begin == plan.reach_start == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert plan.reach_seconds == 2 * 86400
    windows = expected_windows(plan, datetime(2026, 2, 1, tzinfo=UTC))
    assert (windows[0].start.hour, windows[-1].end.hour) == (1, 6)


def test_the_earlier_of_two_ends_counts(bench: Workbench) -> None:
    plan = _plan(bench, "windows: {every: day, begin: 2026-01-01, end: 2026-01-05, acceptable_end: 2026-01-10}\n")
    assert plan.end == datetime(2026, 1, 5, tzinfo=UTC)
    assert plan.reach_start is None


def test_the_schedule_says_whether_windows_are_caught_up(bench: Workbench) -> None:
    plan = _plan(bench, "windows: {every: day, begin: 2026-01-01}\nschedule: {windows: true, catch_up: latest, order: newest}\n")
    assert (plan.latest_only, plan.newest_first) == (True, True)


@pytest.mark.parametrize(
    ("windows", "said"),
    [
        ("{every: day, x_days_back: 7d}", "p.yml:1 the windows of 'p' have no begin: x_days_back moves with the clock -> add begin:"),
        ("{every: day, begin: 2026-01-01, x_days_back: 12h}", "p.yml:1 x_days_back (12h) is shorter than a window: no complete window"),
        ("{every: day, begin: 2026-01-01, x_days_back: 25h, lag: 2h}", "x_days_back (25h) is shorter than a window and its lag"),
        ("{every: day, begin: 2026-01-05, acceptable_end: 2026-01-02}", "windows of 'p' end (2026-01-02) before they begin (2026-01-05)"),
    ],
)
def test_what_is_refused(bench: Workbench, windows: str, said: str) -> None:
    (problem,) = bench.problems(p=f"windows: {windows}\n{STEPS}")
    start, _, hint = said.partition(" -> ")
    assert start in problem
    assert hint in problem
