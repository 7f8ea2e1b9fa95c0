"""Windows as ranges: joined without loss, read on the pipeline's clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.ranges import bounds, collapse, interval, window_of
from dataflow_assets.errors import Place
from dataflow_assets.plan.model import PipelinePlan, WindowPlan, WindowTodo
from dataflow_assets.windows import Cadence, Window, as_utc

NEW_YORK = Cadence("day", "America/New_York")
PLAN = WindowPlan(NEW_YORK, as_utc("2024-03-01", "America/New_York"), None, 0, 0)
PIPELINE = PipelinePlan("p", (), Place("p.yml"), windows=PLAN)
NOW = datetime(2024, 4, 1, 12, tzinfo=UTC)


def _todos(states: list[str], *, skip: frozenset[int] = frozenset()) -> list[WindowTodo]:
    windows = list(NEW_YORK.between(PLAN.begin, PLAN.begin + timedelta(days=len(states) - 0.5)))
    pairs = zip(windows, states, strict=False)
    return [
        WindowTodo(window, NEW_YORK.key(window), state, state != "published") for i, (window, state) in enumerate(pairs) if i not in skip
    ]  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["missing", "failed", "published"]), min_size=1, max_size=40), st.frozensets(st.integers(0, 40)))
def test_ranges_hold_every_window_once_and_in_order(states: list[str], skip: frozenset[int]) -> None:
    todos = _todos(states, skip=skip)
    ranges = collapse(todos)
    assert [todo for item in ranges for todo in item.todos] == todos
    for item in ranges:
        assert len({(todo.state, todo.run, todo.reason) for todo in item.todos}) == 1
        for before, after in pairwise(item.todos):
            assert before.window is not None
            assert after.window is not None
            assert before.window.end == after.window.start
    for before_range, after_range in pairwise(ranges):
        last, first = before_range.todos[-1], after_range.first
        assert last.state != first.state or (last.window and first.window and last.window.end < first.window.start)


def test_a_range_is_printed_with_its_exclusive_end() -> None:
    assert collapse(_todos(["missing"] * 10))[0].text(NEW_YORK) == "[2024-03-01, 2024-03-11)"


def test_a_pipeline_without_windows_shows_its_key() -> None:
    assert collapse([WindowTodo(None, "all", "missing", True)])[0].text(None) == "all"


def test_hours_carry_their_offset_over_the_clock_change() -> None:
    hours = Cadence("hour", "America/New_York")
    window = Window(as_utc("2024-11-03T05:00+00:00"), as_utc("2024-11-03T07:00+00:00"))
    assert interval(window, hours) == "[2024-11-03T01:00-0400, 2024-11-03T02:00-0500)"


def test_bounds_are_read_on_the_pipelines_clock() -> None:
    start, end = bounds(PIPELINE, start="2024-03-10", end="2024-03-11T00:00:00Z")
    assert start == datetime(2024, 3, 10, 5, tzinfo=UTC)
    assert end == datetime(2024, 3, 11, tzinfo=UTC)


@pytest.mark.parametrize(("start", "end"), [("2024-03-10", "2024-03-10"), ("2024-03-11", "2024-03-10")])
def test_an_empty_range_is_refused(start: str, end: str) -> None:
    with pytest.raises(UsageFailed, match="exclusive"):
        bounds(PIPELINE, start=start, end=end)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("2024-03-10", True),
        ("2024-03-10T00:00", True),
        ("2024-03-10T05:00:00Z", True),
        ("2024-03-10T01:00", False),
        ("2024-02-28", False),
        ("2024-04-01", False),
        ("9999-12-31", False),
        ("0001-01-01", False),
        ("tomorrow", False),
        ("", False),
    ],
)
def test_a_key_names_a_complete_window_or_none(key: str, found: bool) -> None:
    assert (window_of(PIPELINE, key, now=NOW) is not None) == found


def test_no_key_fits_a_pipeline_without_windows() -> None:
    assert window_of(replace(PIPELINE, windows=None), "2024-03-10", now=NOW) is None
