"""Calendars: times in which nothing is to run, on a wall clock.

Here: days and hours as data, whether a moment lies in them, reading how users write them. Not here: the project's section
(`spec.schedules`), what a tick does about it (`operations.schedules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_HOURS = re.compile(r"^\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*\Z")
_DAY = timedelta(days=1)
_FULL_DAY = 24 * 60


@dataclass(frozen=True)
class Hours:
    """Minutes of the day [start, end); where `end` is not after `start`, they go on past midnight."""

    start: int
    end: int

    def __contains__(self, minute: int) -> bool:
        return self.start <= minute < self.last

    @property
    def last(self) -> int:
        """The minute after the last one, counted from the midnight of the day they begin on."""
        return self.end if self.end > self.start else self.end + _FULL_DAY


@dataclass(frozen=True)
class Calendar:
    """Days and hours: on `spans` (first and last day) or `weekdays` (Monday = 0), every day where neither is said; in `hours`."""

    name: str
    zone: ZoneInfo
    spans: tuple[tuple[date, date], ...] = ()
    weekdays: frozenset[int] = frozenset()
    hours: tuple[Hours, ...] = ()

    def __contains__(self, moment: datetime) -> bool:
        local = moment.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        if not self.hours:
            return self._has(local.date())
        today, before = self._has(local.date()), self._has(local.date() - _DAY)
        return any((today and minute in hours) or (before and minute + _FULL_DAY in hours) for hours in self.hours)

    def _has(self, day: date) -> bool:
        if not self.spans and not self.weekdays:
            return True
        return day.weekday() in self.weekdays or any(first <= day <= last for first, last in self.spans)

    @property
    def returns(self) -> bool:
        """Whether it comes back for ever: what is limited to dates ends with the last of them."""
        return bool(self.weekdays) or not self.spans

    def end(self, moment: datetime) -> datetime | None:
        """The first minute after `moment` that lies outside; None when there is none within two years."""
        local = moment.astimezone(self.zone).replace(second=0, microsecond=0, tzinfo=None)
        edges = sorted({0, *(hours.start for hours in self.hours), *(hours.last % _FULL_DAY for hours in self.hours)})
        day = local.date()
        while day < local.date() + timedelta(days=750):
            for edge in edges:
                at = datetime.combine(day, time(edge // 60, edge % 60))
                if at > local and (instant := at.replace(tzinfo=self.zone)) not in self:
                    return instant
            day = min((last for first, last in self.spans if first <= day < last), default=day) + _DAY
        return None


def read_span(text: str) -> tuple[date, date]:
    """`2026-12-25` or `2026-12-24..2027-01-02`, both days included. Raises ValueError for anything else."""
    first, found, last = (part.strip() for part in text.partition(".."))
    if found and not last:
        raise ValueError(f"{text!r} never ends; write the last day too, as in {first}..{_next_year(first)}")
    try:
        span = date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError:
        raise ValueError(f"{text!r} is no day and no range of days; write 2026-12-25 or 2026-12-24..2027-01-02") from None
    if span[1] < span[0]:
        raise ValueError(f"{text!r} ends before it begins; did you mean {last}..{first}?")
    return span


def _next_year(text: str) -> str:
    return f"{int(text[:4]) + 1}{text[4:]}" if text[:4].isdigit() else "2027-01-02"


def read_hours(text: str) -> Hours:
    """`22:00-06:00`. Raises ValueError for anything else, and for hours that are the whole day or none of it."""
    match = _HOURS.match(text)
    numbers = [int(item) for item in match.groups()] if match else []
    if not numbers or numbers[0] > 23 or numbers[2] > 24 or max(numbers[1], numbers[3]) > 59 or (numbers[2] == 24 and numbers[3]):
        raise ValueError(f'{text!r} are no hours of the day; write "22:00-06:00"')
    start, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
    if start == end:
        raise ValueError(f"{text!r} begins where it ends; leave `daily` out for whole days")
    return Hours(start, end)


def read_weekday(text: str) -> int:
    """`saturday` or `sat`; Monday is 0. Raises ValueError for anything else."""
    word = text.strip().lower()
    found = [number for number, name in enumerate(WEEKDAYS) if len(word) >= 2 and name.startswith(word)]
    if len(found) != 1:
        import difflib

        near = difflib.get_close_matches(word, WEEKDAYS, n=1)
        raise ValueError(f"{text!r} is not a weekday; " + (f"did you mean {near[0]!r}?" if near else "write monday, or mon"))
    return found[0]


def covering(calendars: Iterable[Calendar], moment: datetime) -> Calendar | None:
    """The first calendar that `moment` lies in."""
    return next((calendar for calendar in calendars if moment in calendar), None)
