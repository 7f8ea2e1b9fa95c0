"""How far a value lies from the values before it: weighted median and median absolute deviation over a sliding window.

Here: the formulas and their vectorised form, on numpy arrays. Not here: tables (`transforms.mad_anomaly_detector`), histories of
a metric (`checks.metric_anomaly`).

For the value v with the window x of up to `window_size` earlier values and weights w that sum to 1:

    mean  = the first x, in sorted order, at which the cumulated weight reaches 0.5 (a weighted median)
    std   = 1.4826 * the weighted median of |x - mean|
    score = |v - mean| / std        anomaly: score > n_sigma; never when std is 0 (then score 0, p 1)
    p     = exp(-score), the two-sided tail of a Laplace distribution with mean 0 and scale 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
CONSISTENCY = 1.4826
_CELLS = 1 << 19
_TAILS = (1e-3, 1e-6)
_MARGIN = 1e-9


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

    def part(self, start: int, stop: int) -> Scores:
        """The entries from `start` up to `stop`."""
        return Scores(*(getattr(self, item.name)[start:stop] for item in fields(self)))


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


class Detector:
    """Scores of one series that arrives in pieces; holds the last `window_size` values."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._values: Floats = np.empty(0)
        self._usable: Mask = np.empty(0, dtype=np.bool_)

    def feed(self, values: Floats, excluded: Mask | None = None) -> Scores:
        """Scores of the next values. `excluded` ones, NaN and infinity are judged (if finite) but left out of later windows."""
        finite = np.isfinite(values)
        usable = finite if excluded is None else finite & ~excluded
        held = len(self._values)
        series = np.concatenate((self._values, np.where(finite, values, 0.0)))
        good = np.concatenate((self._usable, usable))
        mean, std, ready = np.zeros(len(values)), np.zeros(len(values)), np.zeros(len(values), dtype=np.bool_)
        size = self._settings.window_size
        rows = max(_CELLS // max(min(size, len(series)), 1), 1)
        for start in range(held, len(series), rows):
            stop = min(start + rows, len(series))
            base = max(start - size, 0)
            part = slice(start - held, stop - held)
            mean[part], std[part], ready[part] = self._centers(series[base:stop], good[base:stop], first=start - base)
        self._values, self._usable = series[-size:].copy(), good[-size:].copy()
        return judge(values, mean, std, ready & finite, n_sigma=self._settings.n_sigma)

    def _centers(self, series: Floats, good: Mask, *, first: int) -> tuple[Floats, Floats, Mask]:
        """mean, std, ready of the values from `first` on, each from the values before it."""
        settings, count = self._settings, len(series) - first
        ends = np.arange(first, len(series))
        before = np.minimum(ends, settings.window_size)
        total = np.concatenate(([0], np.cumsum(good)))
        known = total[ends] - total[ends - before]
        ready = (before >= settings.min_window_size) & (known >= settings.min_window_size)
        mean, std = np.zeros(count), np.zeros(count)
        open_ = np.flatnonzero(ready)
        for width, tail in self._widths(len(series)):
            if not len(open_):
                break
            windows, fine = _tail_windows(series, good, ends=first + open_, width=width)
            raw = self._raw(width, first + open_)
            mean[open_], std[open_], sure = _centers_of(windows, fine, raw, tail=tail, weighted=settings.use_weighted)
            open_ = open_[~sure]
        for row in open_:
            window = slice(first + row - before[row], first + row)
            mean[row], std[row] = center(series[window], weights(int(before[row]), settings), good[window])
        return mean, std, ready

    def _widths(self, longest: int) -> list[tuple[int, float]]:
        """How many of the newest values to look at, and the most raw weight that older ones can have.

        Few values first where the weight of old ones is small, then more for the rows that this leaves in doubt.
        """
        settings, widest = self._settings, min(self._settings.window_size, longest)
        decay = settings.exp_decay_factor
        if not settings.use_weighted or settings.weights_type != "exponential" or decay <= 0:
            return [(widest, 0.0)]
        short = (math.ceil(-math.log(tail) / decay) for tail in _TAILS)
        cut = [(width, math.exp(-decay * width) / -math.expm1(-decay)) for width in short if width < widest // 2]
        return cut or [(widest, 0.0)]

    def _raw(self, width: int, lengths: NDArray[np.intp]) -> Floats:
        """Weights per column, or per row and column where they depend on the window's length."""
        settings = self._settings
        if not settings.use_weighted or settings.weights_type == "exponential":
            return weights(width, settings)
        lengths = np.minimum(lengths, settings.window_size)
        age = np.arange(width - 1, -1, -1)
        place = lengths[:, None] - 1 - age[None, :]
        step = 0.9 / np.maximum(lengths - 1, 1)
        return np.where(place >= 0, 0.1 + step[:, None] * place, 0.0)


def _tail_windows(series: Floats, good: Mask, *, ends: NDArray[np.intp], width: int) -> tuple[Floats, Mask]:
    """The `width` values before each of `ends` as a matrix, newest last, and which of them are there and usable."""
    padded = np.concatenate((np.zeros(width), series))
    fine = np.concatenate((np.zeros(width, dtype=np.bool_), good))
    view = np.lib.stride_tricks.sliding_window_view
    return view(padded, width)[ends], view(fine, width)[ends]


def _centers_of(windows: Floats, fine: Mask, raw: Floats, *, tail: float, weighted: bool) -> tuple[Floats, Floats, Mask]:
    """mean, std of each row, and where both are beyond doubt: the rest is worked out one by one, in the order of the definition."""
    if not weighted:
        places = _equal_places(fine.sum(axis=1))
        mean = _pick(windows, fine, places)
        return mean, CONSISTENCY * _pick(np.abs(windows - mean[:, None]), fine, places), np.ones(len(windows), dtype=np.bool_)
    share = raw if raw.ndim == 1 and fine.all() else np.where(fine, raw, 0.0)
    mean, sure = _likely_median(windows, share, tail=tail)
    spread, spread_sure = _likely_median(np.abs(windows - mean[:, None]), share, tail=tail)
    return mean, CONSISTENCY * spread, sure & spread_sure


def _equal_places(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Place of the median among `counts` equally weighted values, with the rounding of a cumulated sum."""
    sizes, which = np.unique(counts, return_inverse=True)
    places: NDArray[np.intp] = np.array([np.argmax(np.cumsum(np.full(size, 1.0 / size)) >= 0.5) for size in sizes], dtype=np.intp)
    return places[which]


def _pick(windows: Floats, fine: Mask, places: NDArray[np.intp]) -> Floats:
    ordered = np.sort(np.where(fine, windows, np.inf), axis=1)
    picked: Floats = ordered[np.arange(len(ordered)), places]
    return picked


def _likely_median(windows: Floats, share: Floats, *, tail: float) -> tuple[Floats, Mask]:
    """The weighted median of each row when at most `tail` of weight is unseen, and whether nothing unseen could move it.

    `share` has one weight per column, or one per cell.
    """
    rows = np.arange(len(windows))
    order = np.argsort(windows, axis=1)
    running = np.cumsum(share[order] if share.ndim == 1 else share[rows[:, None], order], axis=1)
    total = running[:, -1]
    place = np.argmax(running >= (0.5 * total)[:, None], axis=1)
    middle: Floats = windows[rows, order[rows, place]]
    below, upto = _weight(windows < middle[:, None], share), _weight(windows <= middle[:, None], share)
    margin = _MARGIN * total
    return middle, (upto >= 0.5 * (total + tail) + margin) & (below + tail < 0.5 * total - margin)


def _weight(cells: Mask, share: Floats) -> Floats:
    total: Floats = cells.astype(np.float64) @ share if share.ndim == 1 else np.einsum("ij,ij->i", cells.astype(np.float64), share)
    return total
