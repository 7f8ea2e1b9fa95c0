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
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dataflow_assets.mad.formulas import CONSISTENCY, Centers, Floats, Mask, Places, Settings, Windows

TAILS = (2e-3, 3e-6, 1e-10)
CELLS = 1 << 15
MARGIN = 1e-9
_KEY_BITS = 31
Cell = TypeVar("Cell", bound=np.generic)


def centers(windows: Windows, settings: Settings) -> Centers:
    """mean, std and whether they are beyond doubt, for rows in the order of their windows; every window holds a value."""
    rows = len(windows.at)
    ranks = _ranks(windows.values) if settings.use_weighted else np.empty(0, dtype=np.int64)
    mean, std, sure = np.zeros(rows), np.zeros(rows), np.zeros(rows, dtype=np.bool_)
    for width, tail in _widths(settings):
        left = np.flatnonzero(~sure)
        start = 0
        while start < len(left):
            wide = int(min(width, settings.window_size, len(windows.values)))
            part = left[start : start + max(CELLS // wide, 1)]
            mean[part], std[part], sure[part] = _matrix(windows.part(part), ranks, settings, width=wide, tail=tail)
            start += len(part)
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


def _matrix(windows: Windows, ranks: Places, settings: Settings, *, width: int, tail: float) -> Centers:
    counts = windows.high - windows.low
    width = int(min(width, counts.max()))
    cells = _Cells(windows, ranks, width)
    if not settings.use_weighted:
        return cells.equal(counts)
    tails = np.where(counts > width, tail, 0.0)
    if settings.weights_type != "exponential":
        return cells.weighted(cells.shares(settings), tail=tails)
    plain = cells.unbroken()
    if plain.all():
        return cells.weighted(np.exp(-settings.exp_decay_factor * np.arange(width - 1, -1, -1.0)), tail=tails)
    if not plain.any():
        return cells.weighted(cells.shares(settings), tail=tails)
    mean, std, sure = np.zeros(len(plain)), np.zeros(len(plain)), np.zeros(len(plain), dtype=np.bool_)
    mean[plain], std[plain], sure[plain] = _matrix(windows.part(plain), ranks, settings, width=width, tail=tail)
    rest = _Cells(windows.part(~plain), ranks, width)
    mean[~plain], std[~plain], sure[~plain] = rest.weighted(rest.shares(settings), tail=tails[~plain])
    return mean, std, sure


def _ranks(values: Floats) -> Places:
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks


class _Cells:
    """The newest `width` values before each row as a matrix, newest last; cells older than the window hold anything."""

    def __init__(self, windows: Windows, ranks: Places, width: int) -> None:
        self._windows, self._width = windows, width
        first, last = int(windows.high[0]), int(windows.high[-1])
        lead = np.zeros(max(width - first, 0))
        span = slice(max(first - width, 0), last)
        self._padded = np.concatenate((lead, windows.values[span]))
        self._ranks = np.concatenate((lead.astype(ranks.dtype), ranks[span]))
        self._ends = windows.high - first
        self._rows = np.arange(len(self._ends))
        self._bits = max((width - 1).bit_length(), 1)
        self._columns = np.arange(width, dtype=np.int64)

    def _spread(self, padded: NDArray[Cell]) -> NDArray[Cell]:
        view = np.lib.stride_tricks.sliding_window_view(padded, self._width)
        first, last = int(self._ends[0]), int(self._ends[-1])
        dense = last - first == len(self._ends) - 1 and (len(self._ends) < 2 or int(np.diff(self._ends).min()) == 1)
        return view[first : last + 1] if dense else view[self._ends]

    def unbroken(self) -> Mask:
        """Rows whose cells are all in the window, with no row left out between them."""
        windows, first = self._windows, np.maximum(self._windows.high - self._width, 0)
        full: Mask = windows.high - windows.low >= self._width
        unbroken: Mask = windows.places[windows.high - 1] - windows.places[first] == self._width - 1
        return full & unbroken

    def shares(self, settings: Settings) -> Floats:
        """The raw weight of each cell, 0 for cells older than the window."""
        windows = self._windows
        cell = windows.high[:, None] - self._width + self._columns
        place = windows.places[np.maximum(cell, 0)]
        if settings.weights_type == "exponential":
            age = windows.places[windows.high - 1][:, None] - place
            raw = np.exp(-settings.exp_decay_factor * np.maximum(age, 0))
        else:
            step = 0.9 / np.maximum(windows.before - 1, 1)
            raw = 0.1 + step[:, None] * (place - (windows.at - windows.before)[:, None])
        return np.where(cell >= windows.low[:, None], raw, 0.0)

    def weighted(self, share: Floats, *, tail: float | Floats) -> Centers:
        """`share` has a weight per column, or one per cell."""
        small = int(self._ranks.max()).bit_length() + self._bits <= _KEY_BITS  # narrow keys sort fastest
        ranks: NDArray[Any] = np.left_shift(self._ranks, self._bits).astype(np.int32 if small else np.int64)
        keys = self._spread(ranks) | self._columns.astype(ranks.dtype)
        keys.sort(axis=1)
        column, sure = self._crossing(keys, share, tail=tail)
        mean = self._padded[self._ends + column]
        distance = self._spread(self._padded) - mean[:, None]
        keys = np.abs(distance, out=distance).view(np.int64)  # those of floats that are not negative sort as the floats do
        keys &= ~((1 << self._bits) - 1)
        keys |= self._columns
        keys.sort(axis=1)
        column, spread_sure = self._crossing(keys, share, tail=tail)
        return mean, CONSISTENCY * np.abs(self._padded[self._ends + column] - mean), sure & spread_sure

    def _crossing(self, keys: NDArray[Any], share: Floats, *, tail: float | Floats) -> tuple[Places, Mask]:
        """The column at which the weight cumulated in the order of the keys reaches one half, and whether that is beyond doubt."""
        columns = (keys & keys.dtype.type((1 << self._bits) - 1)).astype(np.int64, copy=False)
        if share.ndim == 2:  # cells are numbered throughout: `take` is many times faster than any way to index by row
            running = share.take(columns + (self._rows * self._width)[:, None], mode="clip")
        else:
            running = share.take(columns, mode="clip")
        np.cumsum(running, axis=1, out=running)
        total = running[:, -1]
        place = np.argmax(running >= (0.5 * total)[:, None], axis=1)
        upto = running[self._rows, place]
        below = running[self._rows, place - 1] * (place > 0)
        margin = MARGIN * total
        return columns[self._rows, place], (upto >= 0.5 * (total + tail) + margin) & (below + tail < 0.5 * total - margin)

    def equal(self, counts: Places) -> Centers:
        """Without weights the median's place depends on the number of values alone."""
        sizes, which = np.unique(counts, return_inverse=True)
        places = np.array([equal_place(int(size)) for size in sizes], dtype=np.int64)[which]
        old = None if len(sizes) == 1 else self._columns < (self._width - counts)[:, None]
        mean = self._pick(self._spread(self._padded), old, places)
        spread = self._pick(np.abs(self._spread(self._padded) - mean[:, None]), old, places)
        return mean, CONSISTENCY * spread, np.ones(len(counts), dtype=np.bool_)

    def _pick(self, cells: Floats, old: Mask | None, places: Places) -> Floats:
        if old is None:
            picked: Floats = np.partition(cells, places[0], axis=1)[:, places[0]]
        else:
            picked = np.sort(np.where(old, np.inf, cells), axis=1)[self._rows, places]
        return picked


@lru_cache(maxsize=1 << 14)
def equal_place(size: int) -> int:
    """Place of the median among `size` equally weighted values, with the rounding of a cumulated sum."""
    return int(np.argmax(np.cumsum(np.full(size, 1.0 / size)) >= 0.5))
