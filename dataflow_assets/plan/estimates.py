"""How many rows and how much time windows may take, from what earlier ones took.

Here: medians and their spread, as data and in words. Not here: where the numbers come from (`operations.backfills.history`).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_FEW = 5


@dataclass(frozen=True)
class Spread:
    """Earlier values: how many, the middle one, and between what nine of ten lie (of fewer than five, all)."""

    count: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """What `windows` windows may take. None where there is no history."""

    windows: int
    rows: Spread | None = None
    seconds: Spread | None = None

    @property
    def total_rows(self) -> float | None:
        """Rows, if every window is a usual one."""
        return self.rows.median * self.windows if self.rows else None

    @property
    def total_seconds(self) -> float | None:
        """Seconds one after the other, if every window is a usual one."""
        return self.seconds.median * self.windows if self.seconds else None

    def text(self) -> str:
        """`about 1,200 rows (100 each, 80 to 130 in 9 of 10) in 40s (...), from 120 windows`; `no history`."""
        if self.rows is None and self.seconds is None:
            return "no history"
        rows = f"about {round(self.rows.median * self.windows):,} rows ({_around(self.rows, _number)} each)" if self.rows else ""
        known = self.seconds
        time = f"about {duration(known.median * self.windows)} ({_around(known, duration)} each)" if known else "no history of times"
        return f"{rows + ', ' if rows else ''}{time}, by {max(item.count for item in (self.rows, known) if item):,} earlier windows"


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of earlier values; None without any."""
    if not values:
        return None
    ordered = sorted(values)
    if len(ordered) < _FEW:
        return Spread(len(ordered), ordered[0], statistics.median(ordered), ordered[-1])
    cuts = statistics.quantiles(ordered, n=20, method="inclusive")
    return Spread(len(ordered), cuts[0], statistics.median(ordered), cuts[-1])


def duration(seconds: float) -> str:
    """`0.25s`, `42s`, `3min 20s`, `2h 05min`, `1d 4h`."""
    if seconds < 10:
        return f"{seconds:.2g}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}min {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}min"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def _around(known: Spread, shown: object) -> str:
    say = shown if callable(shown) else str
    if known.low == known.high:
        return str(say(known.median))
    return f"{say(known.median)}, {say(known.low)} to {say(known.high)}"


def _number(value: float) -> str:
    return f"{round(value):,}"
