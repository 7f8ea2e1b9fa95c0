"""What a history says of the next window: its trend, its season, its level there and how far values stray.

Here: fitting a history once, and the range that it expects at an instant. Not here: the verdict on a number (`anomalies.verdict`), the
statistics (`anomalies.robust`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from dataflow_assets.anomalies.history import Measured
from dataflow_assets.anomalies.robust import group_medians, left_out, slope_within, spread
from dataflow_assets.anomalies.scales import TYPICAL_ROWS, Numbers, Scale, Transform
from dataflow_assets.anomalies.seasons import Groups, Season, candidates, groups, weekly
from dataflow_assets.anomalies.settings import Direction, Settings

SEASON_GAIN = 0.75
"""A finer season must bring the spread of the leave-one-out residuals down to this share."""
TREND_ERRORS = 3.0
BAND = (0.04, 0.96)
_ALIKE = 2
_COVERED = 0.9
_ENOUGH_ALIKE = 6
_TREND_SAMPLES = 21
_SECONDS = 86_400.0


@dataclass(frozen=True)
class Layer:
    """A history sorted by one season: the groups, the slope per day that was kept (else 0), and the leave-one-out residuals."""

    season: Season
    groups: Groups
    slope: float
    residuals: Numbers


@dataclass(frozen=True)
class Expected:
    """What is expected at an instant, in the metric's own unit; a side that is not watched has no limit.

    `alike` counts the windows of the same season; below 2 there is no expectation. `width` is one standard deviation of the prediction
    and `level` the center, both on the scale.
    """

    center: float
    low: float | None
    high: float | None
    level: float
    width: float
    alike: int


class Fit:
    """A history of at least two windows, fitted for a window that starts `at` an instant and has `rows`; raises ValueError for fewer."""

    def __init__(self, training: Sequence[Measured], settings: Settings, *, at: datetime, rows: int | None = None) -> None:
        if len(training) < _ALIKE:
            raise ValueError("a history needs at least two windows")
        self.training, self.settings = training, settings
        known = [item.rows for item in training if item.rows] or [rows or TYPICAL_ROWS]
        self.scale = Scale(settings.transform, float(np.median(known)))
        self._origin = training[-1].start
        self._values = self.scale.forward([item.value for item in training])
        self._times = np.array([self._days(item.start) for item in training])
        self._days_of = settings.clock.days([item.start for item in training])
        self.layer, self.unproven = self._choose(at)
        self._medians = group_medians(self._values - self.layer.slope * self._times, self.layer.groups)
        self.spread = spread(_finite(self.layer.residuals))
        steady = self._values - self.layer.slope * self._times
        self._band = float(np.quantile(steady, BAND[0], method="lower")), float(np.quantile(steady, BAND[1], method="higher"))

    def limited(self, settings: Settings) -> Fit:
        """The same fit under settings with other limits: sensitivity, small changes, direction."""
        other = copy(self)
        other.settings = settings
        return other

    @property
    def season(self) -> Season:
        """The season that was chosen."""
        return self.layer.season

    def expect(self, start: datetime, *, rows: int | None = None) -> Expected:
        """The range for a window that starts at an instant; `rows` are its rows, which say how much a share strays by chance."""
        group = int(groups(self.settings.clock.days([start]), self.season)[0])
        median, alike = self._medians.get(group, (math.nan, 0))
        if alike < _ALIKE:
            return Expected(math.nan, None, None, math.nan, math.nan, alike)
        level = median + self.layer.slope * self._days(start)
        width = max(self.spread, self.scale.floor(level, rows=rows)) * self._widening(alike)
        moved = self.layer.slope * self._days(start)
        return self._limits(level, width, alike, seen=(self._band[0] + moved, self._band[1] + moved))

    def alike(self, history: Sequence[Measured], moment: datetime) -> list[Measured]:
        """Those of a history that are of the same season as the window at `moment`, flagged ones included."""
        found = groups(self.settings.clock.days([item.start for item in history]), self.season)
        own = groups(self.settings.clock.days([moment]), self.season)[0]
        return [item for item, group in zip(history, found, strict=True) if group == own]

    def _widening(self, alike: int) -> float:
        """For what is not known of the center, sqrt(1 + pi/2k), pi/2k being the variance of a median of k normal values over theirs
        (Laplace), and of the spread of n values, 1 + 3/n."""
        return math.sqrt(1 + math.pi / (2 * alike)) * (1 + 3 / len(self._values))

    def _limits(self, level: float, width: float, alike: int, *, seen: tuple[float, float]) -> Expected:
        """The range; `seen` are the lowest and highest level of the past, carried along by the trend."""
        settings, back = self.settings, self.scale.back
        center, reach = back(level), settings.sensitivity * width
        ignored = max(settings.ignore_small_changes * abs(center), settings.min_change)
        low, high = min(back(level - reach), center - ignored), max(back(level + reach), center + ignored)
        if self.unproven:
            lowest, highest = back(seen[0]), back(seen[1])
            low = min(low, lowest - max(settings.ignore_small_changes * abs(lowest), settings.min_change))
            high = max(high, highest + max(settings.ignore_small_changes * abs(highest), settings.min_change))
        if settings.transform is Transform.LOGIT:
            low, high = max(low, 0.0), min(high, 1.0)
        return Expected(
            center,
            None if settings.direction is Direction.UP else low,
            None if settings.direction is Direction.DOWN else high,
            level,
            width,
            alike,
        )

    def _choose(self, at: datetime) -> tuple[Layer, bool]:
        """The season, and whether it is unproven: nothing is known yet that would set levels apart, or the week is not yet seen twice."""
        settings = self.settings
        if settings.season is not None:
            return self._layer(settings.season), False
        best, week = self._layer(Season.NONE), weekly(settings.length)
        untried, tested = False, settings.clock.days([at])
        for season in candidates(settings.length):
            layer = self._layer(season)
            both = np.isfinite(layer.residuals) & np.isfinite(best.residuals)
            alike = both & (best.groups == groups(tested, best.season)[0])
            if both.mean() < _COVERED or np.count_nonzero(layer.groups == groups(tested, season)[0]) < _ALIKE:
                untried |= season is week
            elif _gains(layer, best, both) or (alike.sum() >= _ENOUGH_ALIKE and _gains(layer, best, alike)):
                best = layer
        return best, best.season is Season.NONE or untried

    def _layer(self, season: Season) -> Layer:
        alike = groups(self._days_of, season)
        slope = 0.0
        if len(self._values) >= _TREND_SAMPLES:
            found, error = slope_within(self._values, self._times, alike)
            slope = found if abs(found) > TREND_ERRORS * error * (1 + 3 / len(self._values)) else 0.0
        return Layer(season, alike, slope, left_out(self._values - slope * self._times, alike))

    def _days(self, moment: datetime) -> float:
        return (moment - self._origin).total_seconds() / _SECONDS


def _gains(finer: Layer, coarse: Layer, where: Any) -> bool:
    """Whether a season takes a quarter off the spread that another one leaves: of all windows, or of those alike to the tested one, so
    that two weekend days which differ are told apart although most windows are working days."""
    left = spread(coarse.residuals[where])
    return left > 0 and spread(finer.residuals[where]) <= SEASON_GAIN * left


def _finite(residuals: Numbers) -> Numbers:
    return residuals[np.isfinite(residuals)]
