"""Windows: half-open, timezone-aware intervals, and the cadence that cuts time into them.

Here: pure arithmetic on instants; a window is stored in UTC, its edges follow the wall clock of the cadence's timezone, so a
day of a clock change has 23 or 25 hours. Not here: which windows are missing or to run (`plan`), Dagster's partitions (`assets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from dataflow_assets.cron import Cron, parse_cron, ticks, wall_of_skipped

_MINUTES = re.compile(r"^(?P<n>[1-9]\d*)\s*min(ute)?s?$")
_DURATION = re.compile(r"^\s*(?P<n>\d+(\.\d+)?)\s*(?P<unit>ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)\s*$")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CALENDAR = {"hour": "0 * * * *", "day": "0 0 * * *", "week": "0 0 * * 1", "month": "0 0 1 * *", "year": "0 0 1 1 *"}
_FIELDS = {
    "hour": Cron((0,)),
    "day": Cron((0,), (0,)),
    "week": Cron((0,), (0,), weekdays=frozenset({1})),
    "month": Cron((0,), (0,), days=frozenset({1})),
    "year": Cron((0,), (0,), days=frozenset({1}), months=frozenset({1})),
}
_ALIASES = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "1h": "hour", "1d": "day"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY, _LAST_DAY = date(2, 1, 1), date(9998, 12, 31)


def parse_duration(text: str) -> timedelta:
    """Read `90s`, `15 min`, `2h`, `1.5d`, `1 week`. Raises ValueError for anything else."""
    match = _DURATION.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration: write a number and one of ms, s, min, h, d, w, as in '15 min' or '2h'")
    unit = match["unit"]
    try:
        return timedelta(seconds=float(match["n"]) * _SECONDS["ms" if unit == "ms" else unit[0]])
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration can be") from None


def as_utc(moment: datetime | date | str, timezone: str = "UTC") -> datetime:
    """Return the instant in UTC; a naive datetime, a date or ISO text without offset is read on the wall clock of `timezone`."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    return moment.astimezone(UTC)


@dataclass(frozen=True, order=True)
class Window:
    """The half-open interval [start, end), both aware and in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a window needs timezone-aware bounds")
        # in UTC first: two moments of one zone compare by wall clock, which runs backwards in the autumn hour
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))
        if self.start >= self.end:
            raise ValueError(f"window {self.start.isoformat()} .. {self.end.isoformat()} is empty")

    def __str__(self) -> str:
        return f"[{self.start.isoformat()}, {self.end.isoformat()})"

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def overlaps(self, other: Window) -> bool:
        """Whether the two share at least one instant."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Cadence:
    """How time is cut: `10min` (any divisor of 60), `hour`, `day`, `week` (Monday), `month`, `year`, or a cron expression.

    Edges lie on the wall clock of `timezone`. Raises ValueError for an unknown cadence or timezone.
    """

    every: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", _ALIASES.get(self.every.strip(), self.every.strip()))
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{self.timezone!r} is not a timezone name such as 'Europe/Berlin'") from error
        _ = self.cron

    @cached_property
    def cron(self) -> str:
        """The cron expression whose ticks are the window edges."""
        if self.every in _CALENDAR:
            return _CALENDAR[self.every]
        if match := _MINUTES.match(self.every):
            minutes = int(match["n"])
            if minutes == 60:
                return _CALENDAR["hour"]
            if minutes < 60 and 60 % minutes == 0:
                return f"*/{minutes} * * * *"
            raise ValueError(f"{self.every!r}: minutes must divide 60 (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)")
        try:
            parse_cron(self.every)
        except ValueError as error:
            never = "; it never comes" if "never" in str(error) else ""
            raise ValueError(
                f"{self.every!r} is not a cadence: use 10min, hour, day, week, month, year or a five-field cron expression{never}"
            ) from error
        return self.every

    @cached_property
    def _fields(self) -> Cron:
        """The cron expression, read."""
        if self.every in _FIELDS:
            return _FIELDS[self.every]
        if match := _MINUTES.match(self.every):
            return Cron(tuple(range(0, 60, int(match["n"]))))
        return parse_cron(self.every)

    @cached_property
    def zone(self) -> ZoneInfo:
        """The timezone as a tzinfo."""
        return ZoneInfo(self.timezone)

    @property
    def key_format(self) -> str:
        """The strftime format of a window's key, in local time; with the offset unless windows begin at midnight."""
        return "%Y-%m-%d" if self.cron in list(_CALENDAR.values())[1:] else "%Y-%m-%dT%H:%M%z"

    def key(self, window: Window) -> str:
        """The window's key, which is also its Dagster partition key."""
        local = window.start.astimezone(self.zone)
        if "%z" in self.key_format and (skipped := wall_of_skipped(self._fields, self.zone, window.start)):
            local = skipped
        return local.strftime(self.key_format)

    def window(self, key: str) -> Window:
        """The window of a key. Raises ValueError when no window of this cadence has it."""
        moment = datetime.strptime(key, self.key_format)
        start = as_utc(moment, self.timezone)
        window = next(self.between(start, start + timedelta(microseconds=1)), None)
        if window is None or window.start != start:
            raise ValueError(f"no {self.every} window starts at {key} in {self.timezone}")
        return window

    def floor(self, moment: datetime) -> datetime:
        """The latest edge at or before `moment`, in UTC."""
        moment = moment.astimezone(UTC)
        day = moment.astimezone(self.zone).date()
        while day >= _FIRST_DAY:
            for edge in reversed(ticks(self._fields, self.zone, day)):
                if edge <= moment:
                    return edge
            day -= timedelta(days=1)
        raise ValueError(f"no {self.every} window holds {moment.isoformat()}")

    def next(self, edge: datetime) -> datetime:
        """The edge that follows the moment `edge`, in UTC."""
        for following in self._edges(edge):
            return following
        raise ValueError(f"no {self.every} window ends after {edge.isoformat()}")

    def between(self, start: datetime, end: datetime) -> Iterator[Window]:
        """The aligned windows that overlap [start, end), oldest first."""
        edge = self.floor(start)
        for following in self._edges(edge):
            if edge >= end:
                return
            yield Window(edge, following)
            edge = following

    def _edges(self, after: datetime) -> Iterator[datetime]:
        """The edges after the moment `after`, ascending."""
        last = after.astimezone(UTC)
        day = last.astimezone(self.zone).date()
        while day <= _LAST_DAY:
            for edge in ticks(self._fields, self.zone, day):
                if edge > last:
                    yield edge
                    last = edge
            day += timedelta(days=1)


def merge_adjacent(windows: list[Window]) -> list[Window]:
    """Join windows that touch or overlap into as few as possible, oldest first."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.start <= merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return merged
