"""Which piece begins when, with runners that only pretend: order, pools, failures, and nothing lost whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.operations.backfills.driving import Driving, Totals
from dataflow_assets.operations.backfills.pieces import Done, Outcome
from dataflow_assets.plan.backfills import Piece, pieces
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.tables import WriteMode
from dataflow_assets.windows import Window
from dataflow_assets_tests.plan.test_backfills import days, pipeline


@dataclass
class Pretender:
    """Runs nothing. `bad`: windows that fail, and stop their run there; those in `checks` fail and do not."""

    slots: int = 1
    bad: frozenset[tuple[str, Window | None]] = frozenset()
    stops: bool = True
    started: list[Piece] = field(default_factory=list)
    running: list[Piece] = field(default_factory=list)
    published: list[tuple[str, Window | None]] = field(default_factory=list)
    at_once: int = 0

    def start(self, piece: Piece) -> None:
        self.started.append(piece)
        self.running.append(piece)
        self.at_once = max(self.at_once, len(self.running))

    def wait(self, seconds: float) -> list[Outcome]:
        if seconds == 0 and len(self.running) < self.slots:
            return []
        return [self._end(self.running.pop(0))] if self.running else []

    def _end(self, piece: Piece) -> Outcome:
        outcome = Outcome(piece)
        for window in piece.windows:
            if (piece.pipeline, window) in self.bad:
                outcome.failed[window] = "bad"
                outcome.status = "failed"
                if self.stops:
                    break
            else:
                outcome.done.add(window)
                self.published.append((piece.pipeline, window))
        return outcome

    def stop(self) -> list[Outcome]:
        ended = [Outcome(piece, "interrupted") for piece in self.running]
        self.running.clear()
        return ended


@dataclass
class Listening:
    """Remembers what it was told."""

    told: list[str] = field(default_factory=list)

    def begun(self, piece: Piece) -> None:
        self.told.append(f"begun {piece.pipeline}")

    def done(self, event: Done) -> None:
        raise AssertionError(event)

    def ended(self, outcome: Outcome) -> None:
        self.told.append(f"ended {outcome.piece.pipeline} {outcome.status}")

    def blocked(self, piece: Piece, why: str) -> None:
        self.told.append(f"blocked {piece.pipeline} {len(piece.windows)}: {why}")

    def waiting(self, why: str) -> None:
        self.told.append(why)


def drive(
    chosen: Sequence[tuple[PipelinePlan, Sequence[Window | None]]], runner: Pretender, *, chunk: int = 3, **more: Any
) -> tuple[Totals, Listening]:
    listener = Listening()
    cut = pieces(chosen, chunk=chunk)
    never: Callable[[float], None] = lambda _: None  # noqa: E731 - a pause that is none
    return Driving([item for item, _ in chosen], cut, runner, listener, pause=never, **more).go(), listener


def test_a_failed_window_stops_neither_its_neighbours_nor_others() -> None:
    a, b = pipeline("a"), pipeline("b")
    runner = Pretender(bad=frozenset({("a", days(1)[0])}))
    totals, _ = drive([(a, days(6)), (b, days(6))], runner)
    assert totals.done == {"a": 5, "b": 6}
    assert list(totals.failed["a"]) == days(1)
    assert not totals.ok


def test_only_the_windows_over_a_failed_one_are_left_out_downstream() -> None:
    up, down = pipeline("up"), pipeline("down", upstream=("up",))
    totals, listener = drive([(up, days(6)), (down, days(6))], Pretender(bad=frozenset({("up", days(2)[1])})))
    assert totals.done == {"up": 5, "down": 5}
    assert totals.blocked == {"down": 1}
    assert "blocked down 1: an upstream window is not published" in listener.told


def test_ordered_windows_do_not_overtake_a_failed_one() -> None:
    a = pipeline("a", mode=WriteMode.UPSERT)
    runner = Pretender(slots=4, bad=frozenset({("a", days(5)[4])}))
    totals, _ = drive([(a, days(9))], runner)
    assert totals.done == {"a": 4}
    assert totals.blocked == {"a": 4}
    assert runner.at_once == 1


def test_a_pipeline_that_gets_nowhere_is_left_after_three_runs() -> None:
    a = pipeline("a")
    runner = Pretender(bad=frozenset(("a", window) for window in days(30)))
    totals, _ = drive([(a, days(30))], runner, chunk=10)
    assert len(runner.started) == 3
    assert len(totals.failed["a"]) + totals.blocked["a"] == 30


def test_fail_fast_begins_nothing_more() -> None:
    a, b = pipeline("a"), pipeline("b")
    totals, _ = drive([(a, days(6)), (b, days(6))], Pretender(bad=frozenset({("a", days(1)[0])})), fail_fast=True)
    assert totals.done.total() == 0
    assert totals.blocked.total() == 11


def test_an_interrupt_ends_what_runs_and_is_told() -> None:
    looks = iter(range(100))

    def look() -> None:
        if next(looks) == 3:
            raise KeyboardInterrupt

    totals, listener = drive([(pipeline("a"), days(20))], Pretender(slots=2), look=look)
    assert totals.interrupted
    assert listener.told[-1] == "ended a interrupted"


class _Pool:
    """A pool with room for two."""

    def __init__(self, runner: Pretender) -> None:
        self.runner = runner

    def limit(self, pool: str | None) -> int | None:
        return 2

    def holders(self, pool: str | None) -> list[Any]:
        return list(self.runner.running)


def test_no_more_run_at_once_than_the_pool_has_room_for() -> None:
    runner = Pretender(slots=8)
    totals, _ = drive([(pipeline("a"), days(20))], runner, chunk=1, pools=_Pool(runner))
    assert totals.done.total() == 20
    assert runner.at_once == 2


class _NoRoom(_Pool):
    def limit(self, pool: str | None) -> int | None:
        return 0


def test_a_pool_without_room_is_told_of() -> None:
    """It would wait without a word otherwise."""
    runner, looks = Pretender(), iter(range(100))

    def look() -> None:
        if next(looks) == 3:
            raise KeyboardInterrupt

    _, listener = drive([(pipeline("a"), days(2))], runner, pools=_NoRoom(runner), look=look)
    assert "has room for 0: give it more: dagster instance concurrency set" in listener.told[0]


@settings(max_examples=60)
@given(st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 11)), max_size=8), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_every_window_is_published_once_failed_or_left_out(bad: set[tuple[str, int]], chunk: int, slots: int, stops: bool) -> None:
    a, b, c = pipeline("a"), pipeline("b", upstream=("a",)), pipeline("c", mode=WriteMode.APPEND)
    windows = days(12)
    runner = Pretender(slots=slots, bad=frozenset((name, windows[at]) for name, at in bad), stops=stops)
    totals, _ = drive([(a, windows), (b, windows), (c, windows)], runner, chunk=chunk)
    assert len(set(runner.published)) == len(runner.published) == totals.done.total()
    counted = totals.done.total() + sum(map(len, totals.failed.values())) + totals.blocked.total()
    assert counted == 36
    for position, (name, window) in enumerate(runner.published):
        if name == "b":
            assert ("a", window) in runner.published[:position]
    appended = [window for name, window in runner.published if name == "c" and window]
    assert appended == sorted(appended)
