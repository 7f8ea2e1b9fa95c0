"""`every ...`: exactly the ticks that are meant, whatever cron can say."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.cron import parse_cron, ticks
from dataflow_assets.plan.periods import Period, read_period

BERLIN = ZoneInfo("Europe/Berlin")


def _ticks(period: Period, zone: ZoneInfo, first: date, days: int) -> list[datetime]:
    """The ticks that act: the first in each slot."""
    crons = [parse_cron(text) for text in period.crons]
    found = sorted({tick for number in range(days) for cron in crons for tick in ticks(cron, zone, first + timedelta(days=number))})
    if not period.slot_minutes:
        return found
    slots: dict[int, datetime] = {}
    for tick in found:
        slots.setdefault(period.slot(tick, zone), tick)
    return list(slots.values())[1:]  # the first slot has begun before the first day


@pytest.mark.parametrize(
    ("text", "crons", "slot"),
    [
        ("10 min", ("*/10 * * * *",), 0),
        ("1 minute", ("* * * * *",), 0),
        ("hour", ("0 * * * *",), 0),
        ("2 hours", ("0 */2 * * *",), 0),
        ("90 min", ("0 */3 * * *", "30 1-23/3 * * *"), 0),
        ("1.5 h", ("0 */3 * * *", "30 1-23/3 * * *"), 0),
        ("12h", ("0 */12 * * *",), 0),
        ("day", ("0 0 * * *",), 0),
        ("week", ("0 0 * * 1",), 0),
        ("month", ("0 0 1 * *",), 0),
        ("3 months", ("0 0 1 */3 *",), 0),
        ("year", ("0 0 1 1 *",), 0),
        ("7 min", ("* * * * *",), 7),
        ("50 min", ("*/10 * * * *",), 50),
        ("5 hours", ("0 * * * *",), 300),
        ("3 days", ("0 0 * * *",), 3 * 1440),
        ("2 weeks", ("0 0 * * *",), 14 * 1440),
    ],
)
def test_what_a_period_becomes(text: str, crons: tuple[str, ...], slot: int) -> None:
    assert read_period(text) == Period(crons, slot)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quarter", "'every quarter' is no period; write 10 min"),
        ("30 s", "whole minutes; did you mean 'every 1 min'?"),
        ("1.25 min", "did you mean 'every 1 min'?"),
        ("0 min", "whole minutes"),
        ("5 months", "must divide a year; did you mean 'every 4 months'?"),
        ("3 years", "must divide a year; did you mean 'every 12 months'?"),
        ("400 days", "longer than a year"),
        ("", "is no period"),
    ],
)
def test_what_is_no_period(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_period(text)
    assert said in str(caught.value)


@settings(max_examples=40)
@given(st.integers(1, 3000), st.sampled_from(["UTC", "Asia/Kolkata"]))
def test_on_a_steady_clock_the_ticks_are_exactly_that_far_apart(minutes: int, zone: str) -> None:
    period = read_period(f"{minutes} min")
    days = 2 + minutes * 4 // 1440
    apart = {later - earlier for earlier, later in pairwise(_ticks(period, ZoneInfo(zone), date(2026, 6, 1), days))}
    assert apart == {timedelta(minutes=minutes)}


@pytest.mark.parametrize("first", [date(2026, 3, 27), date(2026, 10, 23)])
def test_true_minutes_pass_over_a_clock_change_and_days_stay_at_midnight(first: date) -> None:
    seven = _ticks(read_period("7 min"), BERLIN, first, 5)
    assert {later - earlier for earlier, later in pairwise(seven)} == {timedelta(minutes=7)}
    three = _ticks(read_period("3 days"), BERLIN, first, 13)
    assert len(three) == 4
    assert {tick.astimezone(BERLIN).hour for tick in three} == {0}


def test_two_weeks_begin_on_a_monday() -> None:
    (tick, *_) = _ticks(read_period("2 weeks"), BERLIN, date(2026, 1, 1), 40)
    assert tick.astimezone(BERLIN).weekday() == 0
    assert tick.tzinfo is UTC
