"""The state that endpoints share is that of the newest batch which all of them have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dataflow_assets.execution.shared_state import BATCH, REPLAY_OF, Shared, batch_of, shared
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.tables import LedgerEntry, Unit, WriteMode

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def entry(key: str, day: int, *, reached: str = "", **state: str) -> LedgerEntry:
    state = {"last_processed_date": reached or f"2024-01-{day:02d}", **state}
    return LedgerEntry("t", Unit("p", "s", key), WriteMode.APPEND, 1, "a", 5, "5:1", "x", NOW + timedelta(days=day), state=state)


def found(**ledgers: list[LedgerEntry]) -> tuple[str | None, dict[str, list[str]]]:
    answer = shared(ledgers)
    return answer.state.get("last_processed_date"), {step: [batch_of(item) for item in items] for step, items in answer.ahead.items()}


def test_nothing_is_known_before_the_first_batch_and_without_endpoints() -> None:
    assert shared({}) == Shared()
    assert found(a=[], b=[]) == (None, {})
    assert found(a=[entry("1", 1)], b=[]) == (None, {"a": ["1"]})


def test_one_that_is_ahead_does_not_move_the_state() -> None:
    assert found(a=[entry("1", 1), entry("2", 2)], b=[entry("1", 1)]) == ("2024-01-01", {"a": ["2"]})
    assert found(a=[entry("1", 1), entry("2", 2)], b=[entry("1", 1), entry("2", 2)]) == ("2024-01-02", {})


def test_the_one_that_got_a_batch_later_says_how_far_it_goes() -> None:
    assert found(a=[entry("1", 1)], b=[entry("1", 3)]) == ("2024-01-03", {})


def test_those_that_were_run_alone_go_on_together_where_they_came_equally_far() -> None:
    first = [entry("1", 1)]
    assert found(a=[*first, entry("2", 2, reached="x")], b=[*first, entry("3", 3, reached="x")]) == ("x", {})
    assert found(a=[*first, entry("2", 2)], b=[*first, entry("3", 3)]) == ("2024-01-01", {"a": ["2"], "b": ["3"]})
    assert found(a=[*first, entry("2", 2, reached="2024-01-01")], b=first) == ("2024-01-01", {"a": ["2"]}), (
        "equal, and yet a batch is lacking"
    )


def test_a_replay_is_no_batch() -> None:
    replay = entry("1.replay-x", 3, **{REPLAY_OF: "1"})
    assert found(a=[entry("1", 1), replay], b=[entry("1", 1)]) == ("2024-01-01", {})


def test_one_that_replaces_its_target_has_the_batch_that_it_was_made_of() -> None:
    batches = [entry("1", 1), entry("2", 2)]
    assert found(a=batches, whole=[entry(WHOLE, 1, **{BATCH: "1"})]) == ("2024-01-01", {"a": ["2"]})
    assert found(a=batches, whole=[entry(WHOLE, 2, **{BATCH: "2"})]) == ("2024-01-02", {})
    assert found(a=batches, whole=[entry(WHOLE, 1)]) == ("2024-01-02", {}), "an older version does not tell"
    assert found(a=[entry(WHOLE, 2)], b=[entry(WHOLE, 2)]) == ("2024-01-02", {})
