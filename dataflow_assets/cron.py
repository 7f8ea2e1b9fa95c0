"""Cron expressions on a wall clock: the instants at which they tick, clock changes included.

Here: fields, and the ticks of one local day. Not here: windows between ticks (`windows`), schedules (`operations`).

The instants agree with Dagster's partitions. An expression for every hour ticks in both hours when the clock goes back, and not
in the hour that is skipped when it goes forward. Any other ticks once: in the later of two equal hours, and after the gap where
its hour is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_ONE_DAY = timedelta(days=1)
_SHIFTED_HOURS = range(1, 4)


@dataclass(frozen=True)
class Cron:
    """The five fields; None stands for `*`. `weekdays` count from Sunday = 0. `unusual` is text that only croniter can judge."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...] | None = None
    days: frozenset[int] | None = None
    months: frozenset[int] | None = None
    weekdays: frozenset[int] | None = None
    unusual: str = ""

    def on(self, day: date) -> bool:
        """Whether it ticks on `day`; where both days and weekdays are limited either may match."""
        if self.unusual:
            return _matches(self.unusual, day)
        if self.months is not None and day.month not in self.months:
            return False
        in_week = self.weekdays is not None and day.isoweekday() % 7 in self.weekdays
        in_month = self.days is not None and day.day in self.days
        return in_week or in_month or (self.days is None and self.weekdays is None)

    @property
    def once(self) -> bool:
        """Whether it is daily, weekly or monthly at one time of day."""
        simple_day = self.days is None or (len(self.days) == 1 and max(self.days) <= 28 and self.weekdays is None)
        return (
            len(self.minutes) == 1
            and self.hours is not None
            and len(self.hours) == 1
            and self.months is None
            and simple_day
            and not self.unusual
        )


def parse_cron(text: str) -> Cron:
    """Read five fields. Raises ValueError when they are no cron expression, or one that never ticks."""
    from croniter import croniter

    if len(text.split()) != 5 or not croniter.is_valid(text):
        raise ValueError(f"{text!r} is not a five-field cron expression")
    fields, nth_weekday = croniter.expand(text)[:2]
    minutes, hours, days, months, weekdays = (None if "*" in field else field for field in fields)
    plain = not nth_weekday and all(isinstance(item, int) for field in (days, months, weekdays) for item in field or ())
    cron = Cron(
        tuple(sorted(minutes if minutes is not None else range(60))),
        None if hours is None else tuple(sorted(hours)),
        _set(days) if plain else None,
        _set(months) if plain else None,
        _set(weekdays) if plain else None,
        "" if plain else "0 0 " + " ".join(text.split()[2:]),
    )
    if not any(cron.on(date(2000, 1, 1) + timedelta(days=number)) for number in range(9 * 366)):
        raise ValueError(f"{text!r} never comes")
    return cron


def _set(items: Iterable[int] | None) -> frozenset[int] | None:
    return None if items is None else frozenset(items)


@lru_cache(maxsize=4096)
def _matches(text: str, day: date) -> bool:
    from croniter import croniter

    return bool(croniter.match(text, datetime(day.year, day.month, day.day)))


@lru_cache(maxsize=64)
def ticks(cron: Cron, zone: ZoneInfo, day: date) -> tuple[datetime, ...]:
    """The instants of the local day `day` at which `cron` ticks, in UTC, ascending."""
    if not cron.on(day):
        return ()
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    if _is_steady(midnight):
        start = midnight.astimezone(UTC)
        return tuple(start + timedelta(minutes=60 * hour + minute) for hour in _hours(cron) for minute in cron.minutes)
    walls = (midnight.replace(hour=hour, minute=minute) for hour in _hours(cron) for minute in cron.minutes)
    return tuple(sorted({instant for wall in walls for instant in _instants(cron, wall)}))


def _hours(cron: Cron) -> Iterable[int]:
    return range(24) if cron.hours is None else cron.hours


def _is_steady(midnight: datetime) -> bool:
    """Whether the clock is not changed from this midnight to the next."""
    following = midnight + _ONE_DAY
    return len({moment.replace(fold=fold).utcoffset() for moment in (midnight, following) for fold in (0, 1)}) == 1


def _instants(cron: Cron, wall: datetime) -> list[datetime]:
    """The instants meant by a time on the wall clock: two or none, where the clock is changed, for an expression for every hour."""
    early, late = wall.replace(fold=0), wall.replace(fold=1)
    before, after = early.utcoffset(), late.utcoffset()
    if before is None or after is None or before == after:
        return [early.astimezone(UTC)]
    repeated = before > after
    if cron.hours is None:
        return [early.astimezone(UTC), late.astimezone(UTC)] if repeated else []
    if repeated:
        return [(early if cron.once and wall.hour not in _SHIFTED_HOURS else late).astimezone(UTC)]
    return [(early.replace(minute=0) if wall.hour in _SHIFTED_HOURS else early).astimezone(UTC)]


def wall_of_skipped(cron: Cron, zone: ZoneInfo, instant: datetime) -> datetime | None:
    """The skipped time that a tick at `instant` stands for, with the offset before the gap; None where nothing was skipped.

    Only for gaps at midnight: there Dagster writes the time that was skipped, elsewhere the one after the gap.
    """
    local = instant.astimezone(zone)
    if cron.hours is None or (local.hour in cron.hours and local.minute in cron.minutes):
        return None
    for earlier in (timedelta(seconds=1), timedelta(hours=1)):
        offset = (instant - earlier).astimezone(zone).utcoffset() or timedelta()
        skipped = instant.astimezone(UTC).replace(tzinfo=None) + offset
        if skipped.hour in cron.hours and skipped.minute in cron.minutes and skipped.hour not in _SHIFTED_HOURS:
            return skipped.replace(tzinfo=zone)
    return None
