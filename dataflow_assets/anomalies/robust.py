"""Medians, spreads and slopes that a few wild values cannot move.

Here: leave-one-out residuals by group, the spread of residuals, the Theil-Sen slope within groups. Not here: what they are used for
(`anomalies.fit`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from dataflow_assets.anomalies.scales import Numbers
from dataflow_assets.anomalies.seasons import Groups

NORMAL_MAD = 1.4826
"""1 / Phi^-1(3/4): the standard deviation of a normal distribution over its MAD (Hampel 1974)."""
NORMAL_MEAN = math.sqrt(math.pi / 2)
"""The standard deviation of a normal distribution over its mean absolute deviation."""
_ALL_PAIRS = 150
_SLOPE_LOSS = math.sqrt(math.pi / 3)


def group_medians(values: Numbers, groups: Groups) -> dict[int, tuple[float, int]]:
    """Group -> (median, size)."""
    found: dict[int, tuple[float, int]] = {}
    for group in np.unique(groups):
        members = values[groups == group]
        found[int(group)] = float(np.median(members)), len(members)
    return found


def left_out(values: Numbers, groups: Groups) -> Numbers:
    """Each value minus the median of the others of its group; NaN where there are no others."""
    order = np.lexsort((values, groups))
    ranked, owner = values[order], groups[order]
    _, first, counts = np.unique(owner, return_index=True, return_counts=True)
    start, others = np.repeat(first, counts), np.repeat(counts, counts) - 1
    rank = np.arange(len(values)) - start
    # of the sorted group without the value of this rank, the two in the middle
    lower, upper = np.maximum(others - 1, 0) // 2, others // 2
    lower, upper = lower + (lower >= rank), upper + (upper >= rank)
    last = start + others
    middle = (ranked[np.minimum(start + lower, last)] + ranked[np.minimum(start + upper, last)]) / 2
    residuals = np.empty_like(values)
    residuals[order] = np.where(others > 0, ranked - middle, np.nan)
    return residuals


def spread(residuals: Numbers) -> float:
    """The standard deviation behind residuals: 1.4826 times the median of their sizes, or their mean where that is 0; 0 for none."""
    sizes = np.abs(residuals)
    if not len(sizes):
        return 0.0
    middle = float(np.median(sizes))
    return NORMAL_MAD * middle if middle > 0 else NORMAL_MEAN * float(np.mean(sizes))


def slope_within(values: Numbers, times: Numbers, groups: Groups) -> tuple[float, float]:
    """The Theil-Sen slope (Theil 1950, Sen 1968) over pairs of one group, and its standard error; zeros when there is no pair.

    The error is that of least squares, over the efficiency 3/pi that the estimator has on normal values (Sen 1968). Of more than 150
    values the pairs are those of Theil's incomplete method: each with the one half a group later.
    """
    early, late = _pairs(times, groups)
    apart = times[late] - times[early]
    keep = apart > 0
    if not keep.any():
        return 0.0, 0.0
    slope = float(np.median((values[late] - values[early])[keep] / apart[keep]))
    residuals = left_out(values - slope * times, groups)
    _, owner, counts = np.unique(groups, return_inverse=True, return_counts=True)
    centered = times - (np.bincount(owner, weights=times) / counts)[owner]
    return slope, _SLOPE_LOSS * spread(residuals[np.isfinite(residuals)]) / math.sqrt(float(np.sum(centered**2)))


def _pairs(times: Numbers, groups: Groups) -> tuple[Any, Any]:
    if len(times) <= _ALL_PAIRS:
        early, late = _triangle(len(times))
        alike = groups[early] == groups[late]
        return early[alike], late[alike]
    order = np.lexsort((times, groups))
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    half = np.repeat((counts + 1) // 2, counts)
    there = np.arange(len(times)) - np.repeat(first, counts) + half < np.repeat(counts, counts)
    early = np.flatnonzero(there)
    return order[early], order[early + half[early]]


@lru_cache(maxsize=_ALL_PAIRS)
def _triangle(count: int) -> tuple[Any, Any]:
    return np.triu_indices(count, 1)
