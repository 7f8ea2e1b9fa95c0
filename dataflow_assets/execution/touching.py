"""Which windows some rows lie in.

Here: a column of times to windows, batch by batch. Not here: where the rows come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.windows import EPOCH, Window, as_utc

_MICROSECOND = timedelta(microseconds=1)
_FIRST_DAY, _LAST_DAY = date(2, 1, 1), date(9998, 1, 1)
AHEAD = timedelta(days=31)
"""So far ahead of the clock rows may lie and still tell their window: it is asked for when it is over."""


def touched_windows(plan: WindowPlan, columns: Iterable[pa.Array], *, now: datetime) -> set[Window]:
    """The windows that hold at least one of these times; those before `begin`, from `end` on, or more than `AHEAD` of `now` are left out.

    Aware timestamps count by their instant, naive ones are read as UTC, dates as midnight of the windows' timezone; nulls lie nowhere.
    """
    found: set[Window] = set()
    edges = Edges(plan, now)
    for column in columns:
        found |= edges.windows_of(column)
    return found


class Edges:
    """The windows in question, cut when the first time in them is met."""

    def __init__(self, plan: WindowPlan, now: datetime) -> None:
        self._plan = plan
        last = plan.cadence.next(plan.cadence.floor(now + AHEAD))
        self._first, self._last = plan.begin, min(plan.end, last) if plan.end is not None else last
        self._windows: list[Window] = []
        self._starts: Any = None

    def windows_of(self, column: pa.Array) -> set[Window]:
        """Those that hold at least one of these times."""
        import numpy as np

        moments = self._microseconds(column)
        if not len(moments):
            return set()
        start, end = max(_moment(moments[0]), self._first), min(_moment(moments[-1]) + _MICROSECOND, self._last)
        if start >= end:
            return set()
        self._cut(start, end)
        inside = moments[(moments >= self._starts[0]) & (moments < _since_epoch(self._windows[-1].end))]
        return {self._windows[number] for number in np.unique(np.searchsorted(self._starts, inside, side="right") - 1)}

    def _cut(self, start: datetime, end: datetime) -> None:
        """Cut this time into windows too, where that of earlier columns does not hold it."""
        import numpy as np

        between, known = self._plan.cadence.between, self._windows
        if not known:
            self._windows, self._starts = (windows := list(between(start, end))), _starts(windows)
            return
        before = list(between(start, known[0].start)) if start < known[0].start else []
        after = list(between(known[-1].end, end)) if end > known[-1].end else []
        if before or after:
            self._windows = [*before, *known, *after]
            self._starts = np.concatenate([_starts(before), self._starts, _starts(after)])

    def _microseconds(self, column: pa.Array) -> Any:
        """The distinct times since the epoch, ascending."""
        import numpy as np

        distinct = pc.unique(column.drop_null())
        if pa.types.is_date(column.type):
            zone = self._plan.cadence.timezone
            days = (min(max(day, _FIRST_DAY), _LAST_DAY) for day in distinct.to_pylist())
            moments = [_since_epoch(as_utc(day, zone)) for day in days]
            return np.array(sorted(moments), dtype=np.int64)
        # a cast of nanoseconds would refuse what microseconds cannot say; windows begin on whole ones, so the rest may go
        exact = distinct.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        return np.sort(exact.to_numpy(zero_copy_only=False))


def _starts(windows: Sequence[Window]) -> Any:
    import numpy as np

    return np.array([_since_epoch(window.start) for window in windows], dtype=np.int64)


def _since_epoch(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def _moment(microseconds: Any) -> datetime:
    """A moment that Python can say, the nearest one for others."""
    low, high = _since_epoch(as_utc(_FIRST_DAY)), _since_epoch(as_utc(_LAST_DAY))
    return EPOCH + timedelta(microseconds=min(max(int(microseconds), low), high))
