"""Once for one cause: whatever happens in whatever order, nobody is told the same thing twice in a short time, and nothing is kept back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.operations.alerts import deciding
from dataflow_assets.operations.alerts.incidents import Incident
from dataflow_assets.operations.alerts.memory import PipelineMemory
from dataflow_assets.plan.model import AlertPlan
from dataflow_assets.spec.alerts import EVENTS

PLAN = AlertPlan(channels=("ops",), events=frozenset(EVENTS), repeat_after=3600.0)
START = datetime(2024, 3, 1, tzinfo=UTC)

happenings = st.one_of(
    st.tuples(st.just("incident"), st.sampled_from(["failure", "anomaly", "gap"]), st.sampled_from(["a", "b"]), st.sampled_from("123")),
    st.tuples(st.just("published"), st.sampled_from([("1",), ("2", "3"), ("1", "2", "3")])),
    st.tuples(st.just("over"), st.sampled_from(["failure", "gap"])),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 59, 60, 300])),
    st.tuples(st.just("mute"), st.booleans()),
)


@given(st.lists(happenings, max_size=30))
def test_nobody_is_told_twice_and_nobody_is_left_without_a_word(course):
    memory, now, muted = PipelineMemory(), START, False
    told: dict[str, list[tuple[str, str, datetime]]] = {}
    ids = set()
    for kind, *rest in course:
        tellings = []
        if kind == "incident":
            event, change, window = rest
            incident = Incident(event, "p", "it broke", cause="run", change=change, windows=(window,))
            tellings = deciding.note(memory, [incident], PLAN, now=now, muted=muted)
        elif kind == "published":
            tellings = deciding.published(memory, rest[0], PLAN, now=now, muted=muted, run_id="r")
        elif kind == "over":
            tellings = deciding.note(memory, [Incident(rest[0], "p", "over", cause="run", over=True)], PLAN, now=now, muted=muted)
        elif kind == "wait":
            now += timedelta(minutes=rest[0])
        else:
            (muted,) = rest
        tellings += deciding.remind(memory, PLAN, now=now, muted=muted)
        assert not (muted and tellings)
        for telling in tellings:
            name = (telling.known.identity, telling.known.number, telling.known.told + (telling.kind == "over"))
            assert name not in ids
            ids.add(name)
            before = told.setdefault(telling.known.identity, [])
            if before and telling.kind == "over":
                assert before[-1][0] != "over"
            elif before and before[-1][0] != "over" and before[-1][1] == telling.known.change and telling.kind != "new":
                assert now - before[-1][2] >= timedelta(hours=1)
            before.append((telling.kind, telling.known.change, now))
        if not muted:
            assert all(known.told_at is not None and known.change == known.told_change for known in memory.known.values())
    now += timedelta(hours=2)
    deciding.remind(memory, PLAN, now=now, muted=False)
    deciding.published(memory, ("1", "2", "3"), PLAN, now=now, muted=False, run_id="r")
    assert {known.event for known in deciding.remind(memory, PLAN, now=now, muted=False)} == set()
    assert memory.known.keys() <= {"anomaly/run"}


def test_windows_of_one_cause_are_one_and_a_gap_of_events_that_nobody_wants_is_silent():
    found = [
        Incident("failure", "p", "first", cause="run", windows=("1",), since=START),
        Incident("failure", "p", "last", cause="run", windows=("2", "1")),
    ]
    (one,) = deciding.joined(found)
    assert (one.summary, one.windows, one.since) == ("last", ("1", "2"), START)
    quiet = AlertPlan(channels=("ops",), events=frozenset({"gap"}))
    memory = PipelineMemory()
    assert deciding.note(memory, found, quiet, now=START) == []
    assert memory.known == {}
    (telling,) = deciding.note(memory, [Incident("gap", "p", "gap")], quiet, now=START)
    assert telling.kind == "new"
    assert deciding.published(memory, ("1",), quiet, now=START, muted=False, run_id="r") == []
    assert memory.known.keys() == {"gap/"}
    assert deciding.note(memory, [Incident("gap", "p", "there", over=True)], quiet, now=START) == []
    assert memory.known == {}
