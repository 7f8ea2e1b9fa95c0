"""The windows one after the other, each made from the one before: loops in plain Python that numba compiles.

Here: a sorted window that values enter and leave, and the two medians found in it. Not here: the way without a compiler
(`mad._arrays`, where the cut of old values is proved), the definition (`mad.formulas`). The loops keep to what numba compiles,
and run without it in tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from dataflow_assets.mad._arrays import MARGIN, equal_place, tail_weight
from dataflow_assets.mad.formulas import CONSISTENCY, Centers, Floats, Mask, Places, Settings, Windows

_TAIL = 1e-4
# Rows from which the loops are done before numpy is, numba's import and the loading of cached code (0.3 s) included.
_WORTH = {"exponential": 250_000, "linear": 10_000, "none": 40_000}


def worth_it(settings: Settings, rows: int) -> bool:
    """Whether numba is installed, and so many rows are done sooner with it."""
    return rows >= _WORTH[settings.weights_type if settings.use_weighted else "none"] and bool(_compiled())


def centers(windows: Windows, settings: Settings) -> Centers:
    """mean, std and whether they are beyond doubt, for rows in the order of their windows; every window holds a value."""
    return centers_by(_compiled() or _LOOPS, windows, settings)


def centers_by(loops: tuple[Callable[..., None], ...], windows: Windows, settings: Settings) -> Centers:
    """As `centers`, by these loops: compiled or not."""
    rows = len(windows.at)
    mean, std, sure = np.zeros(rows), np.zeros(rows), np.ones(rows, dtype=np.bool_)
    equal, exponential, linear = loops
    if not settings.use_weighted:
        sizes = np.unique(windows.high - windows.low)
        table = np.zeros(int(sizes[-1]) + 1, dtype=np.int64)
        table[sizes] = [equal_place(int(size)) for size in sizes]
        equal(windows.values, windows.low, windows.high, table, mean, std)
    elif settings.weights_type == "exponential":
        width, tail = _cut(settings)
        table = np.exp(-settings.exp_decay_factor * np.arange(settings.window_size + 1.0))
        low = np.maximum(windows.low, windows.high - width)
        exponential(windows.values, windows.places, low, windows.high, np.where(low > windows.low, tail, 0.0), table, mean, std, sure)
    else:
        start = windows.at - windows.before
        step = 0.9 / np.maximum(windows.before - 1, 1)
        linear(windows.values, windows.places, windows.low, windows.high, start, step, mean, std, sure)
    return mean, CONSISTENCY * std, sure


def _cut(settings: Settings) -> tuple[int, float]:
    decay = settings.exp_decay_factor
    if decay <= 0 or (width := math.ceil(-math.log(_TAIL) / decay)) >= settings.window_size:
        return settings.window_size, 0.0
    return width, tail_weight(width, decay)


def _first_at_least(ordered: Floats, size: int, value: float) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def _first_above(ordered: Floats, size: int, value: float) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if ordered[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


def _take_out(ordered: Floats, where: Places, size: int, value: float) -> int:
    """Remove the oldest entry, whose value this is: equal ones lie in the order of their age."""
    place = _first_at_least(ordered, size, value)
    for number in range(place, size - 1):
        ordered[number] = ordered[number + 1]
        where[number] = where[number + 1]
    return place


def _put_in(ordered: Floats, where: Places, size: int, value: float, number: int) -> int:
    place = _first_above(ordered, size, value)
    for other in range(size, place, -1):
        ordered[other] = ordered[other - 1]
        where[other] = where[other - 1]
    ordered[place] = value
    where[place] = number
    return place


def _equal(values: Floats, low: Places, high: Places, table: Places, mean: Floats, std: Floats) -> None:
    """Without weights: the median's place is known, the deviations are two sorted rows that begin at it."""
    widest = int((high - low).max()) + 1
    ordered, where = np.empty(widest), np.empty(widest, dtype=np.int64)
    first = last = int(low[0])
    for row in range(len(low)):
        if low[row] >= last:
            first = last = low[row]
        while first < low[row]:
            _take_out(ordered, where, last - first, values[first])
            first += 1
        while last < high[row]:
            _put_in(ordered, where, last - first, values[last], last)
            last += 1
        size = last - first
        place = table[size]
        middle = ordered[place]
        wanted, left, right = place + 1, place + 1, size - place - 1
        least, most = max(0, wanted - right), min(wanted, left)
        while least < most:  # how many of the wanted smallest deviations lie at or left of the median
            taken = (least + most) >> 1
            if middle - ordered[place - taken] < ordered[place + wanted - taken] - middle:
                least = taken + 1
            else:
                most = taken
        furthest = 0.0
        if least > 0:
            furthest = middle - ordered[place - least + 1]
        if wanted > least:
            furthest = max(furthest, ordered[place + wanted - least] - middle)
        mean[row], std[row] = middle, furthest


def _exponential(
    values: Floats, places: Places, low: Places, high: Places, tail: Floats, table: Floats, mean: Floats, std: Floats, sure: Mask
) -> None:
    """The window is short: both medians are found by adding up from its start, and from the median outwards."""
    widest = int((high - low).max()) + 1
    ordered, where = np.empty(widest), np.empty(widest, dtype=np.int64)
    first = last = int(low[0])
    for row in range(len(low)):
        if low[row] >= last:
            first = last = low[row]
        while first < low[row]:
            _take_out(ordered, where, last - first, values[first])
            first += 1
        while last < high[row]:
            _put_in(ordered, where, last - first, values[last], places[last])
            last += 1
        size, newest = last - first, places[last - 1]
        total = 0.0
        for number in range(first, last):
            total += table[newest - places[number]]
        margin = MARGIN * total
        reach, below = 0.5 * (total + tail[row]) + margin, 0.5 * total - margin - tail[row]
        half, upto, weight, place = 0.5 * total, 0.0, 0.0, -1
        while upto < half and place < size - 1:
            place += 1
            weight = table[newest - where[place]]
            upto += weight
        certain = upto >= reach and upto - weight < below
        middle = ordered[place]
        left, right, upto, furthest = place, place + 1, 0.0, 0.0
        while upto < half and (left >= 0 or right < size):
            if right >= size or (left >= 0 and middle - ordered[left] <= ordered[right] - middle):
                furthest, weight, left = middle - ordered[left], table[newest - where[left]], left - 1
            else:
                furthest, weight, right = ordered[right] - middle, table[newest - where[right]], right + 1
            upto += weight
        mean[row], std[row] = middle, furthest
        sure[row] = certain and upto >= reach and upto - weight < below


def _linear(
    values: Floats, places: Places, low: Places, high: Places, start: Places, step: Floats, mean: Floats, std: Floats, sure: Mask
) -> None:
    """Weight is 0.1 + step * (place - start): that of a set follows from its size and the sum of its places, kept as whole numbers.

    `under` entries lie below the median; `left` to `right` are those nearest to it that weigh one half. All move a little from row to row.
    """
    widest = int((high - low).max()) + 1
    ordered, where = np.empty(widest), np.empty(widest, dtype=np.int64)
    first = last = int(low[0])
    middle = under_sum = left = right = inner_sum = whole_sum = 0
    for row in range(len(low)):
        if low[row] >= last:
            first = last = low[row]
            middle = under_sum = left = right = inner_sum = whole_sum = 0
        while first < low[row]:
            place = _take_out(ordered, where, last - first, values[first])
            whole_sum -= places[first]
            if place < middle:
                middle -= 1
                under_sum -= places[first]
            if place < left:
                left -= 1
                right -= 1
            elif place < right:
                right -= 1
                inner_sum -= places[first]
            first += 1
        while last < high[row]:
            place = _put_in(ordered, where, last - first, values[last], places[last])
            whole_sum += places[last]
            if place < middle:
                middle += 1
                under_sum += places[last]
            if place <= left:
                left += 1
                right += 1
            elif place < right:
                right += 1
                inner_sum += places[last]
            last += 1
        size, origin, slope = last - first, start[row], step[row]
        total = 0.1 * size + slope * (whole_sum - origin * size)
        half, margin = 0.5 * total, MARGIN * total
        middle, under_sum = _median_near(where, size, min(middle, size), under_sum, origin, slope, half)
        below = 0.1 * middle + slope * (under_sum - origin * middle)
        upto = below + 0.1 + slope * (where[middle] - origin)
        certain = upto >= half + margin and below <= half - margin
        if not left <= middle < right:
            left, right, inner_sum = middle, middle + 1, where[middle]
        left, right, inner_sum = _nearest(ordered, where, size, ordered[middle], left, right, inner_sum)
        left, right, inner_sum = _grown(ordered, where, size, ordered[middle], left, right, inner_sum, origin, slope, half)
        left, right, inner_sum = _shrunk(ordered, where, ordered[middle], left, right, inner_sum, origin, slope, half)
        outer = left if ordered[middle] - ordered[left] >= ordered[right - 1] - ordered[middle] else right - 1
        upto = 0.1 * (right - left) + slope * (inner_sum - origin * (right - left))
        below = upto - 0.1 - slope * (where[outer] - origin)
        mean[row], std[row] = ordered[middle], abs(ordered[outer] - ordered[middle])
        sure[row] = certain and upto >= half + margin and below <= half - margin


def _median_near(where: Places, size: int, middle: int, under_sum: int, origin: int, slope: float, half: float) -> tuple[int, int]:
    """The entry at which the weight reaches one half, sought from `middle` on; `under_sum` adds up the places of those before it."""
    while middle > 0 and 0.1 * middle + slope * (under_sum - origin * middle) >= half:
        middle -= 1
        under_sum -= where[middle]
    while middle < size - 1 and 0.1 * (middle + 1) + slope * (under_sum + where[middle] - origin * (middle + 1)) < half:
        under_sum += where[middle]
        middle += 1
    return middle, under_sum


def _nearest(ordered: Floats, where: Places, size: int, center: float, left: int, right: int, inner_sum: int) -> tuple[int, int, int]:
    """As many entries as there are from `left` to `right`, those nearest to the center."""
    while right < size and center - ordered[left] > ordered[right] - center:
        inner_sum += where[right] - where[left]
        left += 1
        right += 1
    while left > 0 and ordered[right - 1] - center > center - ordered[left - 1]:
        inner_sum += where[left - 1] - where[right - 1]
        left -= 1
        right -= 1
    return left, right, inner_sum


def _grown(
    ordered: Floats, where: Places, size: int, center: float, left: int, right: int, inner_sum: int, origin: int, slope: float, half: float
) -> tuple[int, int, int]:
    """With the next nearest entries until they weigh one half."""
    while 0.1 * (right - left) + slope * (inner_sum - origin * (right - left)) < half and right - left < size:
        if right >= size or (left > 0 and center - ordered[left - 1] <= ordered[right] - center):
            left -= 1
            inner_sum += where[left]
        else:
            inner_sum += where[right]
            right += 1
    return left, right, inner_sum


def _shrunk(
    ordered: Floats, where: Places, center: float, left: int, right: int, inner_sum: int, origin: int, slope: float, half: float
) -> tuple[int, int, int]:
    """Without the furthest entries that are not needed to weigh one half."""
    while right - left > 1:
        outer = left if center - ordered[left] >= ordered[right - 1] - center else right - 1
        less = inner_sum - where[outer]
        if 0.1 * (right - left - 1) + slope * (less - origin * (right - left - 1)) < half:
            break
        inner_sum = less
        if outer == left:
            left += 1
        else:
            right -= 1
    return left, right, inner_sum


_LOOPS: tuple[Callable[..., None], ...] = (_equal, _exponential, _linear)
_PARTS: tuple[Callable[..., Any], ...] = (
    *(_first_at_least, _first_above, _take_out, _put_in),
    *(_median_near, _nearest, _grown, _shrunk),
)


@cache
def _compiled() -> tuple[Callable[..., None], ...]:
    """The loops compiled, with the code kept for the next process; empty without numba."""
    try:
        from numba import njit
        from numba.extending import register_jitable
    except ImportError:
        return ()
    for part in _PARTS:
        register_jitable(part)
    try:
        return tuple(njit(cache=True)(loop) for loop in _LOOPS)
    except RuntimeError:  # no folder that can be written, neither beside the module nor the user's
        return tuple(njit(loop) for loop in _LOOPS)
