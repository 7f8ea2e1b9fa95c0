"""Many windows at once with numpy: matrices of a row per window, sorted by keys that carry the column along.

Here: the way without a compiler. Not here: the compiled one (`mad._loops`), the definition (`mad.formulas`).

Exponential weights make old values irrelevant. With decay k the values older than the newest `width` weigh together at most

    tail = exp(-k * width) / (1 - exp(-k))        in units of the newest one's weight

whatever they are and however many rows were left out between them. A weighted median of the newest `width` values with weight
`total` is that of the whole window when, with all unseen weight on either side, the cumulated weight still crosses one half at
the same value: below + tail < total / 2 and upto >= (total + tail) / 2. The same holds for the deviations. Rows for which it
does not hold are looked at again in a wider matrix, at last by the definition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow_assets.mad.formulas import CONSISTENCY, Centers, Floats, Mask, Places, Settings, Windows, weights

TAILS = (8e-4, 3e-6, 1e-10)
CELLS = 1 << 15
MARGIN = 1e-9
_KEY_BITS = 31


def centers(windows: Windows, settings: Settings) -> Centers:
    """mean, std and whether they are beyond doubt, for rows in the order of their windows; every window holds a value."""
    count = len(windows.at)
    mean, std, sure = np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.bool_)
    ranks = _ranks(windows.values) if settings.use_weighted else np.zeros(0, dtype=np.int64)
    for width, tail in _widths(settings):
        left = np.flatnonzero(~sure)
        if len(left):
            level = _Level(windows.part(left), ranks, settings, width=width, tail=tail)
            for rows in level.pieces():
                place = left[rows]
                mean[place], std[place], sure[place] = level.centers(rows)
    return mean, std, sure


def _widths(settings: Settings) -> list[tuple[int, float]]:
    """How many of the newest values to look at, and the most weight that older ones can have; few first."""
    size, decay = settings.window_size, settings.exp_decay_factor
    if not settings.use_weighted or settings.weights_type != "exponential" or decay <= 0:
        return [(size, 0.0)]
    short = [width for width in (math.ceil(-math.log(tail) / decay) for tail in TAILS) if width < size // 2]
    whole = [] if len(short) == len(TAILS) else [(size, 0.0)]
    return [(width, tail_weight(width, decay)) for width in short] + whole


def tail_weight(width: int, decay: float) -> float:
    """The most that values older than the newest `width` can weigh together, in units of the newest one's weight."""
    return math.exp(-decay * width) / -math.expm1(-decay)


def _ranks(values: Floats) -> Places:
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks


class _Level:
    """The newest `width` values before each row as a matrix, newest last; cells older than the window hold anything.

    The large arrays are made once: fresh memory for each piece costs more than the work that is done in it.
    """

    def __init__(self, windows: Windows, ranks: Places, settings: Settings, *, width: int, tail: float) -> None:
        counts = windows.high - windows.low
        self._windows, self._settings, self._counts = windows, settings, counts
        self._width = width = int(min(width, counts.max()))
        self._tail = np.where(counts > width, tail, 0.0)
        self._padded = np.concatenate((np.zeros(width), windows.values))
        self._values = np.lib.stride_tricks.sliding_window_view(self._padded, width)
        self._rows = max(CELLS // width, 1)
        self._distance = np.empty((self._rows, width))
        self._jumps = np.concatenate(([0], np.cumsum(np.diff(windows.high) != 1)))
        if settings.use_weighted:
            self._prepare(ranks)

    def _prepare(self, ranks: Places) -> None:
        """Keys of the rank and, in the low bits, room for the column; narrow ones sort fastest."""
        width, shape = self._width, self._distance.shape
        self._mask = (1 << max((width - 1).bit_length(), 1)) - 1
        small = (len(ranks) * (self._mask + 1)).bit_length() <= _KEY_BITS
        keys = np.concatenate((np.zeros(width, dtype=np.int64), ranks * (self._mask + 1))).astype(np.int32 if small else np.int64)
        self._keys = np.lib.stride_tricks.sliding_window_view(keys, width)
        self._columns = np.arange(width, dtype=keys.dtype)
        self._sorted = np.empty(shape, dtype=keys.dtype)
        self._order, self._weight = np.empty(shape, dtype=np.int64), np.empty(shape)
        self._plain_share = weights(width, self._settings)
        self._plain = self._unbroken()

    def _unbroken(self) -> Mask:
        """Rows whose weights go by column: all cells are in the window, with no row left out between them."""
        windows, first = self._windows, np.maximum(self._windows.high - self._width, 0)
        unbroken: Mask = windows.places[windows.high - 1] - windows.places[first] == self._width - 1
        unbroken &= self._counts >= self._width
        return unbroken & (windows.before == self._width) if self._settings.weights_type == "linear" else unbroken

    def pieces(self) -> Iterator[Places]:
        """The rows in pieces that fit into the matrix and are all of one sort."""
        sort = self._plain if self._settings.use_weighted else self._counts == self._width
        for rows in (np.flatnonzero(sort), np.flatnonzero(~sort)):
            for start in range(0, len(rows), self._rows):
                yield rows[start : start + self._rows]

    def centers(self, rows: Places) -> Centers:
        """mean, std and whether they are beyond doubt for one of the pieces."""
        first, last = int(rows[0]), int(rows[-1])
        high = self._windows.high[rows]
        dense = last - first == len(rows) - 1 and self._jumps[first] == self._jumps[last]
        cells = slice(int(high[0]), int(high[-1]) + 1) if dense else high
        if not self._settings.use_weighted:
            return self._equal(rows, cells)
        share = self._plain_share if self._plain[first] else self._shares(self._windows.part(rows))
        keys = np.bitwise_or(self._keys[cells], self._columns, out=self._sorted[: len(rows)])
        keys.sort(axis=1)
        column, sure = self._crossing(keys, share, self._tail[rows])
        mean = self._padded[high + column]
        keys = self._distances(cells, mean).view(np.int64)  # floats that are not negative sort as their bits do
        keys &= ~self._mask
        keys |= self._columns
        keys.sort(axis=1)
        column, spread_sure = self._crossing(keys, share, self._tail[rows])
        return mean, CONSISTENCY * np.abs(self._padded[high + column] - mean), sure & spread_sure

    def _distances(self, cells: slice | Places, mean: Floats) -> Floats:
        distance = np.subtract(self._values[cells], mean[:, None], out=self._distance[: len(mean)])
        return np.abs(distance, out=distance)

    def _shares(self, windows: Windows) -> Floats:
        """The raw weight of each cell, 0 for cells older than the window."""
        cell = windows.high[:, None] - self._width + np.arange(self._width)
        place = windows.places[np.maximum(cell, 0)]
        if self._settings.weights_type == "exponential":
            age = windows.places[windows.high - 1][:, None] - place
            raw = np.exp(-self._settings.exp_decay_factor * np.maximum(age, 0))
        else:
            step = 0.9 / np.maximum(windows.before - 1, 1)
            raw = 0.1 + step[:, None] * (place - (windows.at - windows.before)[:, None])
        return np.where(cell >= windows.low[:, None], raw, 0.0)

    def _crossing(self, keys: NDArray[Any], share: Floats, tail: Floats) -> tuple[Places, Mask]:
        """The column at which the weight cumulated in the order of the keys reaches one half, and whether that is beyond doubt."""
        row = np.arange(len(keys))
        columns = np.bitwise_and(keys, self._mask, out=self._order[: len(keys)])
        if share.ndim == 2:  # cells are numbered throughout: `take` is many times faster than any way to index by row
            columns += (row * self._width)[:, None]
        running = share.take(columns, out=self._weight[: len(keys)], mode="clip")
        np.cumsum(running, axis=1, out=running)
        total = running[:, -1]
        place = np.argmax(running >= (0.5 * total)[:, None], axis=1)
        below, upto = running[row, place - 1] * (place > 0), running[row, place]
        margin = MARGIN * total
        sure = (upto >= 0.5 * (total + tail) + margin) & (below + tail < 0.5 * total - margin)
        return np.bitwise_and(keys[row, place], self._mask).astype(np.int64), sure

    def _equal(self, rows: Places, cells: slice | Places) -> Centers:
        """Without weights the median's place depends on the number of values alone."""
        sizes, which = np.unique(self._counts[rows], return_inverse=True)
        places = np.array([equal_place(int(size)) for size in sizes], dtype=np.int64)[which]
        full = int(sizes[0]) == self._width
        old = None if full else np.arange(self._width) < (self._width - self._counts[rows])[:, None]
        mean = _pick(self._values[cells], old, places)
        return mean, CONSISTENCY * _pick(self._distances(cells, mean), old, places), np.ones(len(rows), dtype=np.bool_)


def _pick(cells: Floats, old: Mask | None, places: Places) -> Floats:
    if old is None:
        picked: Floats = np.partition(cells, places[0], axis=1)[:, places[0]]
    else:
        picked = np.sort(np.where(old, np.inf, cells), axis=1)[np.arange(len(places)), places]
    return picked


@lru_cache(maxsize=1 << 14)
def equal_place(size: int) -> int:
    """Place of the median among `size` equally weighted values, with the rounding of a cumulated sum."""
    return int(np.argmax(np.cumsum(np.full(size, 1.0 / size)) >= 0.5))
