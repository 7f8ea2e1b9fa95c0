"""`every 10 min`: a period as cron expressions, exactly where these can say it, else by ticks that count.

Here: pure arithmetic on minutes. Not here: which windows a tick asks for (`operations.schedules`), cadences of windows (`windows`).

A period that divides the day is said by cron, one expression for each minute of the hour that it needs. One that does not (7 min, 5
hours, 3 days) ticks at the largest step that divides both it and the day, and counts slots from 2001-01-01, a Monday: the first
tick in a slot acts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from math import gcd
from zoneinfo import ZoneInfo

_PERIOD = re.compile(r"^\s*(?P<n>\d+(\.\d+)?)?\s*(?P<unit>[a-z]+)\s*\Z")
_DAY = 24 * 60
_MINUTES = {"s": 1 / 60, "min": 1, "h": 60, "d": _DAY, "w": 7 * _DAY}
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
    **dict.fromkeys(("month", "months"), "month"),
    **dict.fromkeys(("y", "year", "years"), "year"),
}
_EPOCH = datetime(2001, 1, 1)
_LONGEST = 366 * _DAY


@dataclass(frozen=True)
class Period:
    """The ticks of a period. `slot_minutes` is 0 where cron says it exactly."""

    crons: tuple[str, ...]
    slot_minutes: int = 0

    def slot(self, moment: datetime, zone: ZoneInfo) -> int:
        """The number of the slot that holds `moment`: on the wall clock for whole days or more, in true minutes below."""
        if self.slot_minutes >= _DAY:
            passed = moment.astimezone(zone).replace(tzinfo=None) - _EPOCH
        else:
            passed = moment.astimezone(UTC) - _EPOCH.replace(tzinfo=zone).astimezone(UTC)
        return int(passed.total_seconds() // (60 * self.slot_minutes))


def read_period(text: str) -> Period:
    """Read `10 min`, `2 hours`, `1.5h`, `day`, `2 weeks`, `month`. Raises ValueError with what could be written instead."""
    match = _PERIOD.match(text.lower())
    unit = _UNITS.get(match["unit"]) if match else None
    if match is None or unit is None:
        raise ValueError(f"'every {text}' is no period; write 10 min, 2 hours, day, 2 weeks or month")
    number = float(match["n"] or 1)
    if unit in {"month", "year"}:
        return _of_months(text, number * (12 if unit == "year" else 1))
    minutes = number * _MINUTES[unit]
    if minutes < 1 or abs(minutes - round(minutes)) > 1e-9:
        raise ValueError(f"'every {text}': a schedule ticks on whole minutes; did you mean 'every {max(1, round(minutes))} min'?")
    if minutes > _LONGEST:
        raise ValueError(f"'every {text}' is longer than a year; write a cron expression with a month in it")
    return _of_minutes(round(minutes))


def _of_months(text: str, months: float) -> Period:
    if months != int(months) or not months or 12 % int(months):
        fitting = [item for item in (1, 2, 3, 4, 6, 12) if item <= months] or [1]
        raise ValueError(f"'every {text}': months must divide a year; did you mean 'every {fitting[-1]} months'?")
    month = {1: "*", 12: "1"}.get(int(months), f"*/{int(months)}")
    return Period((f"0 0 1 {month} *",))


def _of_minutes(minutes: int) -> Period:
    if minutes == 7 * _DAY:
        return Period(("0 0 * * 1",))
    if _DAY % minutes == 0:
        return Period(tuple(_crons(minutes)))
    return Period(tuple(_crons(gcd(minutes, _DAY))), minutes)


def _crons(minutes: int) -> list[str]:
    """The expressions of a period that divides the day."""
    if 60 % minutes == 0:
        return ["0 * * * *" if minutes == 60 else "* * * * *" if minutes == 1 else f"*/{minutes} * * * *"]
    hours: dict[int, list[int]] = {}
    for tick in range(0, _DAY, minutes):
        hours.setdefault(tick % 60, []).append(tick // 60)
    return [f"{minute} {_hours(found)} * * *" for minute, found in sorted(hours.items())]


def _hours(found: list[int]) -> str:
    step = found[1] - found[0] if len(found) > 1 else 0
    if step and found == list(range(found[0], 24, step)):
        return f"*/{step}" if not found[0] else f"{found[0]}-23/{step}"
    return ",".join(map(str, found))
