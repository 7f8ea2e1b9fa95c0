"""The formulas of the detector, in the order of their definition.

Here: one window at a time, and the verdicts from many means and stds. Not here: many windows fast (`mad._arrays`, `mad._loops`).

For the value v with the window x of up to `window_size` earlier values and weights w that sum to 1:

    mean  = the first x, in sorted order, at which the cumulated weight reaches 0.5 (a weighted median)
    std   = 1.4826 * the weighted median of |x - mean|
    score = |v - mean| / std        anomaly: score > n_sigma; never when std is 0 (then score 0, p 1)
    p     = exp(-score), the two-sided tail of a Laplace distribution with mean 0 and scale 1
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]
CONSISTENCY = 1.4826


@dataclass(frozen=True)
class Settings:
    """How values are compared with those before them."""

    window_size: int = 1440
    n_sigma: float = 3.0
    min_window_size: int = 10
    use_weighted: bool = True
    weights_type: Literal["exponential", "linear"] = "exponential"
    exp_decay_factor: float = 0.1


@dataclass(frozen=True)
class Scores:
    """One entry per value; rows that had too few values before them are 0, False and "" throughout."""

    mean: Floats
    std: Floats
    is_anomaly: Mask
    score: Floats
    percent_deviation: Floats
    lower_bound: Floats
    upper_bound: Floats
    p_value: Floats
    ready: Mask

    def take(self, places: Places | slice) -> Scores:
        """The entries at these places."""
        return Scores(*(getattr(self, item.name)[places] for item in fields(self)))


def weights(size: int, settings: Settings) -> Floats:
    """Raw weights of a window of `size` values, oldest first, not yet normalised."""
    if not settings.use_weighted:
        return np.ones(size)
    if settings.weights_type == "linear":
        return np.linspace(0.1, 1.0, size)
    return np.exp(-settings.exp_decay_factor * np.arange(size - 1, -1, -1, dtype=np.float64))


def center(window: Floats, raw_weights: Floats, usable: Mask) -> tuple[float, float]:
    """mean and std of one window; `usable` must hold for at least one value."""
    values, share = window[usable], np.where(usable, raw_weights, 0.0)
    total = share.sum()
    if not total:  # every usable weight is too small for a float: the newest value outweighs the rest
        return float(values[-1]), 0.0
    share = (share / total)[usable]
    middle = _weighted_median(values, share)
    return middle, CONSISTENCY * _weighted_median(np.abs(values - middle), share)


def _weighted_median(values: Floats, share: Floats) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(share[order]) >= 0.5
    place = int(np.argmax(reached)) if reached.any() else len(order) - 1
    return float(values[order[place]])


@dataclass(frozen=True)
class Windows:
    """The windows of many rows: `values[low:high]` of each, oldest first, without the rows that were left out.

    `places` says where each value stood among all rows of its series. `at` is the place of the row that is judged, `before` how
    many rows its window spans. Series may follow each other in one array, their places numbered on.
    """

    values: Floats
    places: Places
    low: Places
    high: Places
    at: Places
    before: Places

    def part(self, rows: Places | slice | Mask) -> Windows:
        """The windows of these rows alone."""
        return Windows(self.values, self.places, self.low[rows], self.high[rows], self.at[rows], self.before[rows])

    def center(self, row: int, settings: Settings) -> tuple[float, float]:
        """mean and std of one row's window by the definition."""
        kept, size = slice(int(self.low[row]), int(self.high[row])), int(self.before[row])
        window, usable = np.zeros(size), np.zeros(size, dtype=np.bool_)
        inside = self.places[kept] - (self.at[row] - size)
        window[inside], usable[inside] = self.values[kept], True
        return center(window, weights(size, settings), usable)


Centers = tuple[Floats, Floats, Mask]
"""mean and std of each row, and whether both are beyond doubt."""


def judge(values: Floats, mean: Floats, std: Floats, ready: Mask, *, n_sigma: float) -> Scores:
    """Scores of values whose windows have these means and stds, where `ready`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(ready & (std > 0), np.abs(values - mean) / std, 0.0)
        percent = np.where(ready & (mean != 0), (values - mean) / np.abs(mean), 0.0)
    mean, std = np.where(ready, mean, 0.0), np.where(ready, std, 0.0)
    return Scores(
        mean=mean,
        std=std,
        is_anomaly=score > n_sigma,
        score=score,
        percent_deviation=percent,
        lower_bound=mean - n_sigma * std,
        upper_bound=mean + n_sigma * std,
        p_value=np.where(ready, np.exp(-score), 0.0),
        ready=ready,
    )
