"""Scores of series that arrive in pieces.

Here: what is remembered of each series, and which windows its rows have. Not here: mean and std of a window (`mad.formulas`, `mad._arrays`,
`mad._loops`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dataflow_assets.mad import _arrays, _loops
from dataflow_assets.mad.formulas import Centers, Floats, Mask, Places, Scores, Settings, Windows, judge


@dataclass(frozen=True)
class _Past:
    """The usable values that a later window may hold, where they stood, and how many rows there were."""

    values: Floats
    places: Places
    rows: int

    def then(self, values: Floats, usable: Mask) -> _Past:
        """With the rows that follow."""
        fresh = np.flatnonzero(usable)
        return _Past(
            np.concatenate((self.values, values[fresh])), np.concatenate((self.places, fresh + self.rows)), self.rows + len(values)
        )

    def newest(self, size: int) -> _Past:
        """What the window of the next row can hold."""
        kept = int(np.searchsorted(self.places, self.rows - size))
        return _Past(self.values[kept:].copy(), self.places[kept:].copy(), self.rows)


_NOTHING = _Past(np.empty(0), np.empty(0, dtype=np.int64), 0)


class Detector:
    """Scores of any number of series; holds the last `window_size` values of each.

    `rows` is how many will come, as far as known: with many the compiled loops are worth their start, where they can be had.
    `centers` chooses the way by hand.
    """

    def __init__(self, settings: Settings, *, rows: int = 0, centers: Callable[[Windows, Settings], Centers] | None = None) -> None:
        self._settings = settings
        self._past: dict[int, _Past] = {}
        self._centers = centers or (_loops.centers if _loops.worth_it(settings, rows) else _arrays.centers)

    def feed(self, values: Floats, excluded: Mask | None = None, series: Places | None = None) -> Scores:
        """Scores of the next values. `excluded` ones, NaN and infinity are judged (if finite) but left out of later windows.

        `series` says to which series each value belongs; without it all are one.
        """
        finite = np.isfinite(values)
        usable = finite if excluded is None else finite & ~excluded
        series = np.zeros(len(values), dtype=np.int64) if series is None else series
        if len(values) == 0 or (series[1:] >= series[:-1]).all():
            return self._scored(values, usable, finite, series)
        order = np.argsort(series, kind="stable")
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return self._scored(values[order], usable[order], finite[order], series[order]).take(back)

    def forget(self, *, before: int) -> None:
        """The series with smaller numbers are at their end."""
        self._past = {name: past for name, past in self._past.items() if name >= before}

    def _scored(self, values: Floats, usable: Mask, finite: Mask, series: Places) -> Scores:
        starts = np.flatnonzero(np.concatenate(([True], series[1:] != series[:-1])))[: len(series)]
        windows = self._windows(values, usable, np.append(starts, len(values)), series[starts])
        ready = (windows.high - windows.low >= self._settings.min_window_size) & finite
        mean, std = np.zeros(len(values)), np.zeros(len(values))
        rows = np.flatnonzero(ready)
        with np.errstate(over="ignore", invalid="ignore"):
            if len(rows):
                mean[rows], std[rows] = self._settled(windows.part(rows))
            return judge(values, mean, std, ready, n_sigma=self._settings.n_sigma)

    def _settled(self, windows: Windows) -> tuple[Floats, Floats]:
        mean, std, sure = self._centers(windows, self._settings)
        open_ = np.flatnonzero(~sure)
        if len(open_) and self._centers is not _arrays.centers:
            mean[open_], std[open_], sure[open_] = _arrays.centers(windows.part(open_), self._settings)
        for row in np.flatnonzero(~sure):
            mean[row], std[row] = windows.center(int(row), self._settings)
        return mean, std

    def _windows(self, values: Floats, usable: Mask, edges: Places, names: Places) -> Windows:
        """The window of each value, after the past of its series has been put before it; remembers what comes next needs."""
        size = self._settings.window_size
        held: list[tuple[Floats, Places]] = [(_NOTHING.values, _NOTHING.places)]
        offset, old_rows, old_values, begin = (np.zeros(len(names), dtype=np.int64) for _ in range(4))
        next_place = next_value = 0
        for number, (name, start, stop) in enumerate(zip(names.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            past = self._past.get(name, _NOTHING)
            new = past.then(values[start:stop], usable[start:stop])
            first = int(new.places[0]) if len(new.places) else new.rows
            offset[number], old_rows[number], old_values[number] = next_place - first, past.rows, len(past.values)
            begin[number] = next_value
            next_place, next_value = next_place + new.rows - first, next_value + len(new.values)
            held.append((new.values, new.places + offset[number]))
            self._past[name] = new.newest(size)
        counts = np.diff(edges)
        row = np.arange(len(values)) - np.repeat(edges[:-1] - old_rows, counts)
        at = row + np.repeat(offset, counts)
        places = np.concatenate([places for _, places in held])
        high = np.cumsum(usable) - usable + np.repeat(np.cumsum(old_values), counts)
        everything = np.concatenate([values for values, _ in held])
        low = np.maximum(np.searchsorted(places, at - size), np.repeat(begin, counts))
        return Windows(everything, places, low, high, at, np.minimum(row, size))
