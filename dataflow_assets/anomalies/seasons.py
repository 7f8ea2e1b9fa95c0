"""Which windows are alike: the same kind of day, weekday, hour, day of the month, or the same day of a calendar.

Here: the seasons, which of them a cadence can have, and to which group of a season an instant belongs, on the clock of a timezone.
Not here: which season a history really has (`anomalies.fit`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Groups = NDArray[np.int64]

_DAY = timedelta(days=1)
_WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


class Season(enum.StrEnum):
    """A way to sort windows into groups that are alike."""

    NONE = "none"
    WEEKDAY = "weekday"
    DAY_OF_WEEK = "day_of_week"
    HOUR_OF_DAY = "hour_of_day"
    HOUR_OF_WEEK = "hour_of_week"
    DAY_OF_MONTH = "day_of_month"

    @property
    def words(self) -> str:
        """The season in a sentence."""
        return {
            Season.NONE: "all windows alike",
            Season.WEEKDAY: "working days and weekends apart",
            Season.DAY_OF_WEEK: "by day of the week",
            Season.HOUR_OF_DAY: "by hour of the day",
            Season.HOUR_OF_WEEK: "by hour of the week",
            Season.DAY_OF_MONTH: "by day of the month",
        }[self]


def candidates(length: timedelta | None) -> tuple[Season, ...]:
    """The seasons that windows of this length can have, coarse ones first; None for batches, which have no length."""
    if length is not None and length < timedelta(hours=22):
        return (Season.WEEKDAY, Season.HOUR_OF_DAY, Season.DAY_OF_WEEK, Season.HOUR_OF_WEEK, Season.DAY_OF_MONTH)
    if length is None or length < timedelta(hours=26):  # a day of a clock change has 23 or 25 hours
        return (Season.WEEKDAY, Season.DAY_OF_WEEK, Season.DAY_OF_MONTH)
    return ()


def weekly(length: timedelta | None) -> Season | None:
    """The finest season within a week that windows of this length can have."""
    possible = candidates(length)
    return next((season for season in (Season.HOUR_OF_WEEK, Season.DAY_OF_WEEK) if season in possible), None)


@dataclass(frozen=True)
class Calendar:
    """Days unlike others, each with the name of its kind: single dates, and days (month, day) of every year."""

    dates: Mapping[date, str] = field(default_factory=dict)
    yearly: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def kind(self, day: date) -> str:
        """The kind of a day; empty for an ordinary one."""
        return self.dates.get(day) or self.yearly.get((day.month, day.day), "")

    @property
    def kinds(self) -> list[str]:
        """Every kind, by name."""
        return sorted({*self.dates.values(), *self.yearly.values()})


@dataclass(frozen=True)
class Clock:
    """Whose wall clock seasons follow, and the user's calendar."""

    timezone: str = "UTC"
    calendar: Calendar = field(default_factory=Calendar)

    def special(self, moment: datetime) -> str:
        """The kind of calendar day that a moment falls on; empty on an ordinary day."""
        return self.calendar.kind(_local(moment, self.timezone).date())

    def days(self, moments: Sequence[datetime]) -> Groups:
        """What `groups` needs of each moment, a row each: weekday, minute of the day, day of the month, number of its calendar kind."""
        numbers = {name: -number for number, name in enumerate(self.calendar.kinds, 1)}
        rows = [(*_clock(moment, self.timezone), numbers.get(self.special(moment), 0) if numbers else 0) for moment in moments]
        return np.array(rows, np.int64).reshape(-1, 4)

    def describe(self, moment: datetime, season: Season) -> str:
        """The windows alike to this one, in the plural: `Saturdays`, `working days`, `windows at 14:00`."""
        if special := self.special(moment):
            return f"days of {special!r}"
        local = _local(moment, self.timezone)
        day = _WEEKDAYS[local.weekday()]
        return {
            Season.NONE: "windows",
            Season.WEEKDAY: "weekend days" if local.weekday() >= 5 else "working days",
            Season.DAY_OF_WEEK: day,
            Season.HOUR_OF_DAY: f"windows at {local:%H:%M}",
            Season.HOUR_OF_WEEK: f"{day} at {local:%H:%M}",
            Season.DAY_OF_MONTH: f"{_ordinal(local.day)}s of the month",
        }[season]


@lru_cache(maxsize=65_536)
def _local(moment: datetime, timezone: str) -> datetime:
    return moment.astimezone(ZoneInfo(timezone))


@lru_cache(maxsize=65_536)
def _clock(moment: datetime, timezone: str) -> tuple[int, int, int]:
    local = _local(moment, timezone)
    return local.weekday(), local.hour * 60 + local.minute, local.day


def groups(days: Groups, season: Season) -> Groups:
    """The group of each row of `Clock.days`: equal numbers are alike. Days of the calendar have groups of their own in every season."""
    weekday, minute, day, special = days.T
    ordinary = {
        Season.NONE: np.zeros_like(weekday),
        Season.WEEKDAY: (weekday >= 5).astype(np.int64),
        Season.DAY_OF_WEEK: weekday,
        Season.HOUR_OF_DAY: minute,
        Season.HOUR_OF_WEEK: weekday * 1440 + minute,
        Season.DAY_OF_MONTH: day,
    }[season]
    found: Groups = np.where(special < 0, special, ordinary)
    return found


def _ordinal(number: int) -> str:
    ending = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
