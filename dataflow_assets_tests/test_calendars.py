"""Calendars: which moments lie in them, on a wall clock that is changed twice a year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.calendars import Calendar, Hours, covering, read_hours, read_span, read_weekday

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = Calendar("nights", BERLIN, hours=(read_hours("22:00-06:00"),))
HOLIDAYS = Calendar("holidays", BERLIN, spans=(read_span("2026-12-24..2027-01-02"), read_span("2026-05-01")))
WEEKEND_NIGHTS = Calendar("weekend nights", BERLIN, weekdays=frozenset({5, 6}), hours=(read_hours("22:00-06:00"),))


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("calendar", "inside", "outside"),
    [
        (NIGHTS, ["2026-03-10T22:00", "2026-03-10T23:59", "2026-03-11T05:59"], ["2026-03-10T21:59", "2026-03-11T06:00"]),
        (HOLIDAYS, ["2026-12-24T00:00", "2027-01-02T23:59", "2026-05-01T12:00"], ["2026-12-23T23:59", "2027-01-03T00:00"]),
        # a night belongs to the day on which it began: Sunday's goes on into Monday, Friday's is none of the weekend's
        (WEEKEND_NIGHTS, ["2026-03-14T22:00", "2026-03-15T03:00", "2026-03-16T03:00"], ["2026-03-14T03:00", "2026-03-16T22:00"]),
    ],
)
def test_what_lies_in_a_calendar(calendar: Calendar, inside: list[str], outside: list[str]) -> None:
    assert all(_at(text) in calendar for text in inside)
    assert not any(_at(text) in calendar for text in outside)
    assert _at(inside[0]).astimezone(UTC) in calendar


def test_where_it_ends() -> None:
    assert NIGHTS.end(_at("2026-03-10T23:00")) == _at("2026-03-11T06:00")
    assert HOLIDAYS.end(_at("2026-12-25T08:00")) == _at("2027-01-03T00:00")
    assert WEEKEND_NIGHTS.end(_at("2026-03-15T23:00")) == _at("2026-03-16T06:00")
    assert Calendar("always", BERLIN, weekdays=frozenset(range(7))).end(_at("2026-03-10T23:00")) is None
    assert covering([HOLIDAYS, NIGHTS], _at("2026-03-10T23:00")) is NIGHTS
    assert covering([HOLIDAYS, NIGHTS], _at("2026-03-10T12:00")) is None


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)), st.sampled_from([NIGHTS, HOLIDAYS, WEEKEND_NIGHTS]))
def test_the_end_lies_outside_and_all_before_it_inside(wall: datetime, calendar: Calendar) -> None:
    moment = wall.replace(second=0, microsecond=0, tzinfo=UTC)
    if moment in calendar:
        end = calendar.end(moment)
        assert end is not None
        assert end not in calendar
        steps = int((end - moment) / timedelta(minutes=30))
        assert all(moment + number * timedelta(minutes=30) in calendar for number in range(steps))


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (read_span, "2026-12-24..", "never ends; write the last day too, as in 2026-12-24..2027-12-24"),
        (read_span, "2027-01-02..2026-12-24", "did you mean 2026-12-24..2027-01-02?"),
        (read_span, "christmas", "no day and no range"),
        (read_span, "2026-02-30", "no day and no range"),
        (read_hours, "22-6", "no hours of the day"),
        (read_hours, "25:00-06:00", "no hours of the day"),
        (read_hours, "06:00-06:00", "begins where it ends"),
        (read_weekday, "saturnday", "did you mean 'saturday'?"),
        (read_weekday, "s", "is not a weekday"),
    ],
)
def test_what_is_refused(read: object, text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(text)  # type: ignore[operator]
    assert said in str(caught.value)


def test_what_is_read() -> None:
    assert read_span(" 2026-12-25 ") == (date(2026, 12, 25), date(2026, 12, 25))
    assert read_hours("8:00-24:00") == Hours(480, 1440)
    assert [read_weekday(text) for text in ("mon", "Sunday", "th")] == [0, 6, 3]
