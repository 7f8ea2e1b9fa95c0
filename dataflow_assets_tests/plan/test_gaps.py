"""Windows out of reach, skipped ones, holes; and a backlog that drains without leaving anything out or asking twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.operations.schedules import first_of
from dataflow_assets.plan.gaps import gaps_of
from dataflow_assets.plan.model import SchedulePlan, WindowPlan, WindowTodo
from dataflow_assets.plan.periods import read_period
from dataflow_assets.plan.schedules import tick_times
from dataflow_assets.plan.windows import expected_windows, windows_to_run
from dataflow_assets.windows import Cadence, Window
from dataflow_assets_tests.plan.test_windows_to_run import BEGIN, NOW, day_plan, entry, published

REACH = replace(day_plan(), reach_seconds=4 * 86400.0)


def _states(todos: list[WindowTodo]) -> str:
    """One letter a window: p, m, f, r, g(ap), - (skipped); upper case where it runs."""
    letters = {"skipped": "-"}
    return "".join(letters.get(todo.state, todo.state[0]).upper() if todo.run else letters.get(todo.state, todo.state[0]) for todo in todos)


@pytest.mark.parametrize(
    ("plan", "days", "failed", "expected"),
    [
        # 11 January 2024, ten days expected, four in reach (and the one that holds the edge)
        (REACH, (), (), "------MMMM"),
        (REACH, (1, 2), (), "ppggggMMMM"),
        (REACH, (1, 2, 3, 4, 5, 6, 7, 9, 10), (), "pppppppMpp"),
        (REACH, (4,), ("2024-01-02",), "-ggpggMMMM"),
        (replace(REACH, lookback=6), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10), (), "ppppppRRRR"),
        (replace(day_plan(), reach_start=BEGIN + timedelta(days=5)), (1,), (), "pggggMMMMM"),
        (replace(REACH, reach_start=BEGIN + timedelta(days=8)), (1,), (), "pgggggggMM"),
        (replace(day_plan(), latest_only=True), (1, 2), ("2024-01-04",), "pp-f-----M"),
        (replace(day_plan(), latest_only=True), (1, 10), (), "p--------p"),
        (replace(REACH, latest_only=True), (1,), (), "pggggg---M"),
    ],
)
def test_what_is_out_of_reach_skipped_or_due(plan: WindowPlan, days: tuple[int, ...], failed: tuple[str, ...], expected: str) -> None:
    assert _states(windows_to_run(plan, ledger=[published(plan, *days)], failed=failed, now=NOW)) == expected


def test_a_hole_is_due_and_says_so_and_is_no_hole_where_the_newest_go_first() -> None:
    todos = windows_to_run(day_plan(), ledger=[published(day_plan(), 1, 2, 4, 6)], failed={"2024-01-05"}, now=NOW)
    assert [(todo.key, todo.run, todo.reason) for todo in gaps_of(todos)] == [
        ("2024-01-03", True, "a hole: windows before and after it are published")
    ]
    newest = replace(day_plan(), newest_first=True)
    assert gaps_of(windows_to_run(newest, ledger=[published(newest, 1, 2, 4, 6)], now=NOW)) == []


def test_what_is_out_of_reach_is_loaded_when_it_is_named_and_left_alone_by_a_full_refresh() -> None:
    ledger = [published(REACH, 1, 2)]
    named = windows_to_run(REACH, ledger=ledger, now=NOW, keys=["2024-01-03"])
    assert [(todo.state, todo.run) for todo in named] == [("gap", True)]
    ranged = windows_to_run(REACH, ledger=ledger, now=NOW, start=BEGIN, end=BEGIN + timedelta(days=3))
    assert all(todo.run for todo in ranged)
    assert _states(windows_to_run(REACH, ledger=ledger, now=NOW, full_refresh=True)) == "ppggggMMMM"


def test_what_is_not_yet_in_reach_becomes_a_gap_when_time_goes_on() -> None:
    ledger = [published(REACH, 1, 2)]
    counts = [len(gaps_of(windows_to_run(REACH, ledger=ledger, now=NOW + timedelta(days=days)))) for days in range(-5, 3)]
    assert counts == [0, 0, 1, 2, 3, 4, 5, 6]


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
SCHEDULES = st.builds(
    lambda period, order, most, zone: SchedulePlan(
        f"every {period}", read_period(period).crons, zone, read_period(period).slot_minutes, max_windows=most, order=order
    ),
    st.sampled_from(["hour", "90 min", "5 hours", "day", "3 days"]),
    st.sampled_from(["oldest", "newest"]),
    st.one_of(st.none(), st.integers(4, 20)),
    ZONES,
)


@settings(max_examples=40, deadline=None)
@given(
    schedule=SCHEDULES,
    every=st.sampled_from(["hour", "day", "0 */6 * * *"]),
    zone=ZONES,
    began=st.sampled_from([datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)]),
    lag=st.sampled_from([0.0, 900.0, 7800.0]),
    random=st.randoms(use_true_random=False),
)
def test_the_ticks_together_ask_for_every_expected_window_once(
    schedule: SchedulePlan, every: str, zone: str, began: datetime, lag: float, random: Random
) -> None:
    """Whatever was loaded before, whichever ticks the daemon slept through, over both clock changes, from either end of the backlog."""
    cadence = Cadence(every, zone)
    plan = WindowPlan(cadence, cadence.floor(began), None, 0, lag, newest_first=schedule.order == "newest")
    start = began + timedelta(days=1, hours=12)
    before = {window for window in expected_windows(plan, start) if random.random() < 0.3}
    ledger = {window: entry(plan, window) for window in before}
    asked: list[Window] = []

    def tick(now: datetime) -> list[Window]:
        todos = windows_to_run(plan, ledger=[list(ledger.values())], now=now)
        due = [todo.window for todo in todos if todo.run and todo.window]
        chosen = first_of(due, schedule)
        assert not chosen or chosen[0] == due[0] or schedule.order == "newest"
        asked.extend(chosen)
        ledger.update({window: entry(plan, window) for window in chosen})
        return chosen

    times = [moment for moment in islice(tick_times(schedule, start, days=20), 8) if random.random() < 0.6]
    for moment in times:
        tick(moment)
    last = times[-1] if times else start
    while tick(last):
        pass
    assert len(asked) == len(set(asked))
    assert not set(asked) & before
    assert set(asked) | before == set(expected_windows(plan, last)) | before
