"""Which windows a backfill is about, how they are cut, and what waits for what; what earlier windows say of later ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import Place
from dataflow_assets.plan.backfills import Piece, ancestors, pieces, spans_of, waits_for, wanted, windows_in
from dataflow_assets.plan.estimates import Estimate, duration, spread
from dataflow_assets.plan.model import PipelinePlan, StepPlan, WindowPlan, WindowTodo
from dataflow_assets.tables import WriteMode
from dataflow_assets.windows import Cadence, Window

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def pipeline(
    name: str, *, every: str | None = "day", upstream: tuple[str, ...] = (), mode: WriteMode = WriteMode.REPLACE_WINDOW
) -> PipelinePlan:
    windows = WindowPlan(Cadence(every), BEGIN, None, 0, 0.0) if every else None
    step = StepPlan("write", "endpoint", "memory", (), {}, (name, "write"), Place("x.yml"), mode=mode)
    return PipelinePlan(name, (step,), Place("x.yml"), windows=windows, upstream=upstream)


def days(count: int, *, first: int = 0) -> list[Window]:
    return [Window(BEGIN + timedelta(days=first + day), BEGIN + timedelta(days=first + day + 1)) for day in range(count)]


def todos(*states: str) -> list[WindowTodo]:
    return [WindowTodo(window, f"{window.start:%Y-%m-%d}", state, False) for window, state in zip(days(len(states)), states, strict=True)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("only", "last", "expected"),
    [
        (("missing",), None, [0]),
        (("missing", "failed"), None, [0, 1]),
        (("stale",), None, [2]),
        (("all",), None, [0, 1, 2, 3, 4]),
        (("all",), 2, [4]),
        (("missing",), 3, []),
    ],
)
def test_states_and_the_newest(only: tuple[str, ...], last: int | None, expected: list[int]) -> None:
    given_ = todos("missing", "failed", "stale", "published", "reopened", "retired")
    assert [given_.index(todo) for todo in wanted(pipeline("a"), given_, only=only, last=last)] == expected  # type: ignore[arg-type]


def test_what_only_appends_is_never_loaded_again() -> None:
    found = wanted(pipeline("a", mode=WriteMode.APPEND), todos("missing", "published", "stale", "failed"), only=("all",))
    assert [todo.state for todo in found] == ["missing", "failed"]


def test_downstream_pieces_wait_for_the_windows_that_they_need() -> None:
    up, down = pipeline("up"), pipeline("down", upstream=("up",))
    cut = pieces([(up, days(6)), (down, days(6))], chunk=3)
    assert [(piece.pipeline, len(piece.windows)) for piece in cut] == [("up", 3), ("down", 3), ("up", 3), ("down", 3)]
    above = ancestors([up, down])
    assert waits_for(cut[1], cut, above) == [cut[0]]
    assert waits_for(cut[3], cut, above) == [cut[2]]
    assert not waits_for(cut[0], cut, above)
    month = Piece("down", (Window(BEGIN, BEGIN + timedelta(days=31)),))
    assert waits_for(month, cut, above) == [cut[0], cut[2]]
    assert waits_for(Piece("down", (None,)), cut, above) == [cut[0], cut[2]]


def test_the_newest_come_first_and_in_a_run_the_oldest() -> None:
    cut = pieces([(pipeline("a"), days(5))], chunk=2, order="newest")
    assert [[window.start.day for window in piece.windows if window] for piece in cut] == [[4, 5], [2, 3], [1]]


def test_a_chain_through_another_pipeline_counts() -> None:
    a, b, c = pipeline("a"), pipeline("b", upstream=("a",)), pipeline("c", upstream=("b",))
    assert ancestors([a, b, c])["c"] == {"a", "b"}


@settings(max_examples=60)
@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 9), st.sampled_from(["oldest", "newest"]))
def test_pieces_and_spans_lose_and_double_nothing(chosen: set[int], chunk: int, order: str) -> None:
    a = pipeline("a")
    windows = [days(1, first=day)[0] for day in sorted(chosen)]
    cut = pieces([(a, windows)], chunk=chunk, order=order)  # type: ignore[arg-type]
    assert sorted(window for piece in cut for window in piece.windows if window) == windows
    assert all(len(piece.windows) <= chunk for piece in cut)
    assert windows_in(a, spans_of(a, windows)) == windows
    for number, piece in enumerate(cut):
        assert piece.within(windows) == piece.windows
        assert all(not piece.overlaps(other) for other in cut[:number])
        assert piece.within([]) == ()


def test_spans_of_a_year_are_short() -> None:
    assert len(spans_of(pipeline("a"), days(365))) == 1


def test_an_estimate_says_how_sure_it_is() -> None:
    assert Estimate(10).text() == "no history"
    known = Estimate(10, spread([100.0] * 20), spread([1.0, 2.0, 2.0, 3.0, 2.0, 2.0]))
    assert known.total_rows == 1000
    assert known.total_seconds == 20
    assert known.text() == "about 1,000 rows (100 each), about 20s (2s, 1.2s to 2.8s each), by 20 earlier windows"
    few = spread([1.0, 5.0])
    assert few is not None
    assert (few.count, few.low, few.median, few.high) == (2, 1.0, 3.0, 5.0)
    assert spread([]) is None
    assert [duration(seconds) for seconds in (0.25, 42, 200, 7500, 100_000)] == ["0.25s", "42s", "3min 20s", "2h 05min", "1d 3h"]
