"""Which windows are to run: the states, lookback, what is asked for, and the properties that hold for every cadence."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import SelectionError
from dataflow_assets.plan.model import WindowPlan, WindowTodo
from dataflow_assets.plan.windows import FINGERPRINT, expected_windows, windows_to_run
from dataflow_assets.tables import LedgerEntry, Unit, WriteMode
from dataflow_assets.windows import Cadence, Window

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 1, 11, tzinfo=UTC)


def day_plan(*, lookback: int = 0, lag: float = 0, end: datetime | None = None, every: str = "day", zone: str = "UTC") -> WindowPlan:
    cadence = Cadence(every, zone)
    return WindowPlan(cadence, cadence.floor(BEGIN), end, lookback, lag)


def entry(plan: WindowPlan, window: Window, *, step: str = "write", fingerprint: str = "") -> LedgerEntry:
    unit = Unit("p", step, plan.cadence.key(window), window)
    state = {FINGERPRINT: fingerprint} if fingerprint else {}
    return LedgerEntry("t", unit, WriteMode.REPLACE_WINDOW, 1, "a", 1, "1:0", "", NOW, {}, state)


def published(plan: WindowPlan, *days: int, step: str = "write", fingerprint: str = "") -> list[LedgerEntry]:
    windows = expected_windows(plan, NOW)
    return [entry(plan, windows[day - 1], step=step, fingerprint=fingerprint) for day in days]


def summary(todos: Sequence[WindowTodo]) -> dict[int, str]:
    return {int(todo.key[-2:]): todo.state + ("*" if todo.run else "") for todo in todos}


def test_now_may_be_on_a_wall_clock_whose_hour_comes_twice() -> None:
    plan = WindowPlan(Cadence("hour", "Europe/Berlin"), datetime(2024, 10, 26, 22, tzinfo=UTC), None, 0, 0)
    second_two = datetime(2024, 10, 27, 2, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert expected_windows(plan, second_two) == expected_windows(plan, second_two.astimezone(UTC))
    lagging = replace(plan, lag_seconds=3600)
    assert expected_windows(lagging, second_two) == expected_windows(lagging, second_two.astimezone(UTC))


def test_a_missing_window_runs_and_a_published_one_does_not() -> None:
    plan = day_plan()
    todos = windows_to_run(plan, ledger=[published(plan, 1, 2, 3, 4, 5, 6, 7, 9)], now=NOW)
    assert summary(todos) == {**dict.fromkeys([1, 2, 3, 4, 5, 6, 7, 9], "published"), 8: "missing*", 10: "missing*"}


def test_all_endpoints_must_have_it() -> None:
    plan = day_plan()
    everything = published(plan, *range(1, 11))
    todos = windows_to_run(plan, ledger=[everything, published(plan, *range(1, 10), step="other")], now=NOW)
    assert [todo.key for todo in todos if todo.run] == ["2024-01-10"]
    assert todos[-1].reason == "published by 1 of 2 endpoints"


def test_a_window_is_complete_when_the_lag_has_passed() -> None:
    assert len(expected_windows(day_plan(lag=3600), NOW)) == 9
    assert len(expected_windows(day_plan(lag=3600), NOW + timedelta(hours=1))) == 10


def test_no_window_starts_at_or_after_the_end() -> None:
    assert len(expected_windows(day_plan(end=BEGIN + timedelta(days=3)), NOW)) == 3


def test_a_failed_window_runs_even_when_the_ledger_has_it() -> None:
    plan = day_plan()
    todos = windows_to_run(plan, ledger=[published(plan, *range(1, 11))], failed={"2024-01-05"}, now=NOW)
    assert [(todo.key, todo.state) for todo in todos if todo.run] == [("2024-01-05", "failed")]


def test_lookback_opens_the_newest_published_windows_again() -> None:
    plan = day_plan(lookback=2)
    found = summary(windows_to_run(plan, ledger=[published(plan, *range(1, 9))], now=NOW))
    assert {day for day, state in found.items() if state == "reopened*"} == {7, 8}
    assert {day for day, state in found.items() if state == "missing*"} == {9, 10}
    whole = summary(windows_to_run(plan, ledger=[published(plan, *range(1, 11))], now=NOW))
    assert {day for day, state in whole.items() if state == "reopened*"} == {9, 10}


def test_an_old_failure_does_not_keep_recent_windows_from_opening_again() -> None:
    plan = day_plan(lookback=1)
    todos = windows_to_run(plan, ledger=[published(plan, 1, 2, *range(4, 11))], failed={"2024-01-03"}, now=NOW)
    assert [todo.key for todo in todos if todo.run] == ["2024-01-03", "2024-01-10"]


def test_lookback_longer_than_what_is_published() -> None:
    plan = day_plan(lookback=99)
    assert all(todo.run for todo in windows_to_run(plan, ledger=[published(plan, 1, 2)], now=NOW))


def test_a_stale_window_waits_until_it_is_asked_for() -> None:
    plan = day_plan()
    ledger = [published(plan, 1, 2, fingerprint="old") + published(plan, *range(3, 11), fingerprint="new")]
    todos = windows_to_run(plan, ledger=ledger, now=NOW, fingerprints={"write": "new"})
    assert summary(todos) == {1: "stale", 2: "stale", **dict.fromkeys(range(3, 11), "published")}
    assert "--full-refresh" in todos[0].reason
    asked = windows_to_run(plan, ledger=ledger, now=NOW, fingerprints={"write": "new"}, full_refresh=True)
    assert [todo.state for todo in asked][:3] == ["stale", "stale", "published"]
    assert all(todo.run for todo in asked)


def test_start_and_end_restrict_and_run_published_windows_again() -> None:
    plan = day_plan(lookback=1)
    ledger = [published(plan, *range(1, 11))]
    todos = windows_to_run(plan, ledger=ledger, now=NOW, start=BEGIN + timedelta(days=2, hours=5), end=BEGIN + timedelta(days=4))
    assert [(todo.key, todo.state, todo.run, todo.reason) for todo in todos] == [
        ("2024-01-03", "published", True, "asked for"),
        ("2024-01-04", "published", True, "asked for"),
    ]
    assert windows_to_run(plan, ledger=ledger, now=NOW, start=NOW) == []


def test_keys_choose_windows_and_unknown_ones_are_refused() -> None:
    plan = day_plan()
    todos = windows_to_run(plan, ledger=[[]], now=NOW, keys=["2024-01-02"])
    assert [todo.key for todo in todos] == ["2024-01-02"]
    with pytest.raises(SelectionError, match="no complete window has the key 2024-01-32; windows go from 2024-01-01 to 2024-01-10"):
        windows_to_run(plan, ledger=[[]], now=NOW, keys=["2024-01-32"])


def test_a_key_published_for_other_bounds_is_missing() -> None:
    plan = day_plan(zone="Asia/Tokyo")
    other = day_plan()
    todos = windows_to_run(plan, ledger=[published(other, 2)], now=NOW)
    (todo,) = [todo for todo in todos if todo.key == "2024-01-02"]
    assert (todo.state, todo.run) == ("missing", True)
    assert "published before as [2024-01-02T00:00:00+00:00" in todo.reason


def test_without_windows_there_is_one_unit_that_always_runs() -> None:
    whole = LedgerEntry("t", Unit("p", "write", "all"), WriteMode.REPLACE, 1, "a", 1, "", "", NOW)
    for ledger, failed, state in (([[]], set(), "missing"), ([[whole]], set(), "published"), ([[whole]], {"all"}, "failed")):
        (todo,) = windows_to_run(None, ledger=ledger, failed=failed, now=NOW)
        assert (todo.window, todo.key, todo.state, todo.run) == (None, "all", state, True)


CADENCES = st.sampled_from(["10min", "30min", "hour", "day", "week", "month", "0 6 * * *", "0 */6 * * *", "0 9,17 * * 1-5"])
ZONES = st.sampled_from(["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/Santiago"])
CLOCK_CHANGES = [datetime(2013, 3, 10, 7, tzinfo=UTC), datetime(2013, 11, 3, 6, tzinfo=UTC), datetime(2024, 10, 27, 1, tzinfo=UTC)]
MOMENTS = st.builds(lambda base, minutes: base + timedelta(minutes=minutes), st.sampled_from(CLOCK_CHANGES), st.integers(-5000, 5000))


@settings(max_examples=80, deadline=None)
@given(every=CADENCES, zone=ZONES, begin=MOMENTS, minutes=st.integers(0, 6000), lag=st.sampled_from([0, 600, 7200]))
def test_expected_windows_cover_exactly_from_begin_to_now_less_the_lag(
    every: str, zone: str, begin: datetime, minutes: int, lag: int
) -> None:
    cadence = Cadence(every, zone)
    plan = WindowPlan(cadence, cadence.floor(begin), None, 0, lag)
    now = begin + timedelta(minutes=minutes)
    windows = expected_windows(plan, now)
    horizon = now - timedelta(seconds=lag)
    edges = [plan.begin, *(window.end for window in windows)]
    assert [window.start for window in windows] == edges[:-1]
    assert edges[-1] <= horizon or not windows
    assert cadence.next(edges[-1]) > horizon
    assert len({cadence.key(window) for window in windows}) == len(windows)


@settings(max_examples=60, deadline=None)
@given(every=CADENCES, zone=ZONES, begin=MOMENTS, lookback=st.integers(0, 5), data=st.data())
def test_publishing_what_is_due_leaves_nothing_missing(every: str, zone: str, begin: datetime, lookback: int, data: st.DataObject) -> None:
    cadence = Cadence(every, zone)
    plan = WindowPlan(cadence, cadence.floor(begin), None, lookback, 0)
    now = begin + timedelta(days=3)
    windows = expected_windows(plan, now)
    some = [window for window in windows if data.draw(st.booleans())] if len(windows) < 80 else windows[::3]
    ledger = {cadence.key(window): entry(plan, window) for window in some}
    failed = set(data.draw(st.lists(st.sampled_from([cadence.key(window) for window in windows]), max_size=3))) if windows else set()
    todos = windows_to_run(plan, ledger=[list(ledger.values())], failed=failed, now=now)
    for todo in todos:
        if todo.run and todo.window is not None:
            ledger[todo.key] = entry(plan, todo.window)
    after = windows_to_run(plan, ledger=[list(ledger.values())], now=now)
    assert {todo.state for todo in after} <= {"published", "reopened"}
    assert sum(todo.run for todo in after) == min(lookback, len(windows))
    assert [todo.window for todo in after] == windows


@pytest.mark.parametrize("every", ["hour", "0 */6 * * *"])
def test_a_hundred_thousand_windows(every: str) -> None:
    plan = day_plan(every=every, zone="America/New_York", lookback=3)
    hours = 1 if every == "hour" else 6
    now = plan.begin + timedelta(hours=100_000 * hours)
    ledger = [[entry(plan, window) for window in expected_windows(plan, now)[:-10]]]
    todos = windows_to_run(plan, ledger=ledger, now=now)
    assert len(todos) in range(99_990, 100_002)
    assert sum(todo.run for todo in todos) == 13
