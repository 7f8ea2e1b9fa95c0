"""What a sensor asks for: nothing twice without need, nothing never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.sensing import DUE, FILES, Decision, Found, Marks, Memory, Waiting, decide
from dataflow_assets.execution.touching import AHEAD, touched_windows
from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.windows import Cadence, Window

NOW = datetime(2024, 3, 10, tzinfo=UTC)
UNITS = ["2024-03-01", "2024-03-02", "2024-03-09"]


class Ledger:
    """Generations by unit; a publish adds one to each of two endpoints."""

    def __init__(self) -> None:
        self.marks: dict[str, list[int]] = {}

    def of(self, unit: str) -> Marks:
        return tuple(self.marks.get(unit, (0, 0)))

    def publish(self, unit: str, *, endpoints: int = 2) -> None:
        now = self.marks.setdefault(unit, [0, 0])
        for number in range(endpoints):
            now[number] += 1


def asked(
    memory: Memory, ledger: Ledger, *, units: dict[str, str] | None = None, now: datetime = NOW, due: tuple[str, ...] = ()
) -> Decision:
    """One decision; the newest unit is not complete on the first day."""
    found = Found({}, "looked", units or {})
    complete = lambda unit: unit != UNITS[2] or now > NOW  # noqa: E731
    return decide(memory, found, now=now, is_complete=complete, marks=ledger.of, due=lambda: due)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(UNITS), st.sampled_from("abc"), max_size=2),
            st.sampled_from(["success", "failure", "half"]),
            st.integers(0, 90),
        ),
        max_size=12,
    )
)
def test_whatever_runs_do_each_thing_found_is_published_after_it_was_found(ticks: list[tuple[dict[str, str], str, int]]) -> None:
    memory, ledger, now, keys = Memory(), Ledger(), NOW, list[str]()
    wanted: set[str] = set()
    for units, outcome, minutes in [*ticks, *[({}, "success", 24 * 60)] * 3]:
        decision = asked(memory, ledger, units=units, now=now)
        again = asked(memory, ledger, units=units, now=now)
        assert (decision.asked, decision.run_key) == (again.asked, again.run_key), "a tick evaluated twice is one run"
        assert decision.run_key not in keys, "no later tick has the run key of an earlier one"
        keys += [decision.run_key] if decision.asked else []
        wanted |= set(units)
        for unit in decision.asked:
            ledger.publish(unit, endpoints={"success": 2, "half": 1, "failure": 0}[outcome])
        wanted -= set(decision.asked) if outcome == "success" else set()
        memory = Memory.read(decision.memory.text(), sensor="s")
        assert wanted <= set(memory.waiting) | set(decision.asked)
        now += timedelta(minutes=minutes)
    assert not wanted
    assert not asked(memory, ledger, now=now).asked


def test_a_failed_run_is_asked_for_again_after_growing_waits() -> None:
    memory, ledger, times = Memory(), Ledger(), []
    now = NOW
    for minute in range(240):
        now = NOW + timedelta(minutes=minute)
        decision = asked(memory, ledger, units={UNITS[0]: "a"} if minute == 0 else None, now=now)
        memory = decision.memory
        times += [minute] if decision.asked else []
    assert times == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    ledger.publish(UNITS[0])
    assert asked(memory, ledger, now=now + timedelta(hours=2)).reason == "looked"


def test_a_unit_waits_on_when_the_pipeline_gets_another_endpoint() -> None:
    ledger = Ledger()
    ledger.publish(UNITS[0])
    memory = Memory({}, {UNITS[0]: Waiting("file", 1, NOW, (0,))})
    assert asked(memory, ledger, now=NOW + timedelta(minutes=2)).asked == (UNITS[0],)


def test_what_is_due_is_resolved_when_there_is_something_due() -> None:
    ledger = Ledger()
    waits = asked(Memory(), ledger, units={DUE: "file"})
    assert (waits.asked, set(waits.memory.waiting)) == ((), {DUE})
    decision = asked(waits.memory, ledger, due=(UNITS[0], UNITS[1]))
    assert decision.asked == (UNITS[0], UNITS[1])
    assert DUE not in decision.memory.waiting


def test_what_is_not_to_be_asked_for_is_left_and_what_is_too_much_comes_next() -> None:
    found = Found({}, "looked", dict.fromkeys(["a", "b", "c", "d"], "file"))

    def next_decision(memory: Memory, found: Found) -> Decision:
        return decide(
            memory,
            found,
            now=NOW,
            is_complete=lambda unit: True,
            marks=Ledger().of,
            due=lambda: (),
            why_not=lambda unit: "out of reach" if unit == "a" else "",
            at_once=lambda units: units[:2],
        )

    first = next_decision(Memory(), found)
    assert (first.asked, first.reason) == (("b", "c"), "looked; left alone: a (out of reach); 1 more come with the next ticks")
    second = next_decision(first.memory, Found({}, "looked"))
    assert (second.asked, second.reason) == (("d",), "looked; 2 wait to be asked for again")


def test_a_cursor_of_thousands_of_windows_stays_small_and_rubbish_is_refused() -> None:
    waiting = {f"window {number}": Waiting("file", 1, NOW, (number, 1)) for number in range(3000)}
    memory = Memory({"upto": 5}, waiting, away_since=NOW)
    assert len(memory.text()) < 30_000
    assert Memory.read(memory.text(), sensor="s") == memory
    assert Memory.read("", sensor="s") == Memory()
    for rubbish in ("{", "~x", "[]", '{"v":2}', '{"v":1,"position":{},"waiting":{"a":[1]}}'):
        with pytest.raises(DataflowError, match="reset the cursor"):
            Memory.read(rubbish, sensor="s")


@given(st.lists(st.datetimes(datetime(2023, 12, 1), datetime(2024, 4, 1)), max_size=30), st.sampled_from(["ns", "us", "s"]))
def test_windows_are_those_that_hold_a_time(times: list[datetime], unit: str) -> None:
    plan = WindowPlan(Cadence("day", "Europe/Berlin"), datetime(2023, 12, 31, 23, tzinfo=UTC), None, 0, 0.0)
    times = [moment.replace(microsecond=0) for moment in times]
    column = pa.array(times, pa.timestamp(unit))
    expected = {
        window
        for moment in times
        for window in plan.cadence.between(moment.replace(tzinfo=UTC), moment.replace(tzinfo=UTC) + timedelta(microseconds=1))
        if plan.begin <= window.start <= NOW + AHEAD
    }
    assert touched_windows(plan, [column], now=NOW) == expected


def test_dates_nulls_and_times_beyond_reason() -> None:
    plan = WindowPlan(Cadence("day", "America/New_York"), datetime(2024, 3, 1, 5, tzinfo=UTC), None, 0, 0.0)
    days = pa.array([datetime(2024, 3, 2).date(), None, datetime.min.date(), datetime.max.date()], pa.date32())
    day = Window(datetime(2024, 3, 2, 5, tzinfo=UTC), datetime(2024, 3, 3, 5, tzinfo=UTC))
    assert touched_windows(plan, [days, pa.nulls(3, pa.timestamp("us"))], now=NOW) == {day}
    several = [pa.array([datetime(2024, 3, number).date()], pa.date32()) for number in (5, 2, 4, 9)]
    assert [window.start.day for window in sorted(touched_windows(plan, several, now=NOW))] == [2, 4, 5, 9], "column after column"
    aware = pa.array([-(2**62), int(day.start.timestamp()) * 10**6, 2**62], pa.int64()).cast(pa.timestamp("us", "UTC"))
    assert touched_windows(plan, [aware], now=NOW) == {day}


def _in_order(memory: Memory, ledger: Ledger, units: dict[str, str], *, minutes: int) -> Decision:
    found = Found({}, "looked", units)
    now = NOW + timedelta(minutes=minutes)
    return decide(memory, found, now=now, is_complete=lambda _: True, marks=ledger.of, due=tuple, in_order=True)


def test_rows_that_may_replace_others_wait_for_older_ones_that_failed() -> None:
    ledger, (one, two, three) = Ledger(), UNITS
    first = _in_order(Memory(), ledger, {two: "a"}, minutes=0)
    assert first.asked == (two,)
    second = _in_order(first.memory, ledger, {one: "a", three: "a"}, minutes=0)
    assert second.asked == (one,), "what is older may go"
    assert f"1 newer wait until what is older is published ({two}; if its run failed: dataflow retry)" in second.reason
    ledger.publish(one)
    third = _in_order(second.memory, ledger, {}, minutes=2)
    assert third.asked == (two, three), "a run of the later one follows that of the earlier one"
    ledger.publish(two)
    fourth = _in_order(third.memory, ledger, {}, minutes=10)
    assert fourth.asked == (three,)
    ledger.publish(three)
    assert _in_order(fourth.memory, ledger, {}, minutes=20).asked == ()


def test_the_hour_that_comes_twice_in_autumn_goes_in_the_order_of_time() -> None:
    older, newer = "2026-10-25T02:00+0200", "2026-10-25T02:00+0100"
    hours = Cadence("hour", "Europe/Berlin")

    def tick(memory: Memory, units: dict[str, str], minutes: int) -> Decision:
        return decide(
            memory,
            Found({}, "looked", units),
            now=NOW + timedelta(minutes=minutes),
            is_complete=lambda _: True,
            marks=Ledger().of,
            due=tuple,
            in_order=True,
            began=lambda unit: hours.window(unit).start.isoformat(),
        )

    assert tick(Memory(), {newer: "a", older: "a"}, 0).asked == (older, newer)
    first = tick(Memory(), {older: "a"}, 0)
    second = tick(first.memory, {newer: "a"}, 0)
    assert (first.asked, second.asked) == ((older,), ()), "the older hour has failed and waits"
    assert older in second.reason


def test_sets_of_files_go_one_at_a_time_in_the_order_in_which_they_were_found() -> None:
    ledger, (older, newer, newest) = Ledger(), (f"{FILES}{name}" for name in ("z", "y", "x"))
    first = _in_order(Memory(), ledger, {older: "2024-03-10T00:00 files"}, minutes=0)
    second = _in_order(first.memory, ledger, {newer: "2024-03-10T00:00:30 files"}, minutes=0)
    third = _in_order(second.memory, ledger, {newest: "2024-03-10T00:05 files"}, minutes=5)
    assert (first.asked, second.asked, third.asked) == ((older,), (), (older,))
    ledger.publish(older)
    fourth = _in_order(third.memory, ledger, {}, minutes=6)
    assert fourth.asked == (newer,)
    ledger.publish(newer)
    assert _in_order(fourth.memory, ledger, {}, minutes=7).asked == (newest,)
