"""How one metric is judged.

Here: the settings of the recipe with their defaults, and the direction. Not here: how a user writes them (`checks._anomaly`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from datetime import timedelta
from statistics import NormalDist

from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.seasons import Clock, Season

_SMALLEST_TAIL = 1e-300


class Direction(enum.StrEnum):
    """Which side is watched."""

    BOTH = "both"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class Settings:
    """`length` is that of the windows, None for batches. `season` None: the history chooses it.

    `training` None: the newest 120 windows, of windows shorter than a day those of six weeks, at most 2,000.
    """

    transform: Transform = Transform.NONE
    season: Season | None = None
    direction: Direction = Direction.BOTH
    sensitivity: float = 3.5
    ignore_small_changes: float = 0.05
    min_change: float = 0.0
    min_samples: int = 7
    training: int | None = None
    length: timedelta | None = timedelta(days=1)
    clock: Clock = field(default_factory=Clock)

    @property
    def newest(self) -> int:
        """How many windows are learned from."""
        if self.training is not None:
            return self.training
        if self.length is None or self.length >= timedelta(hours=22):
            return 120
        return min(int(timedelta(weeks=6) / self.length), 2000)


def stricter_for(settings: Settings, count: int) -> Settings:
    """The settings for each of `count` values that are judged side by side, so that together they do not raise the alarm more often than
    one: the limit whose tail under a normal distribution is that of `sensitivity` divided by their number (Bonferroni)."""
    tail = NormalDist().cdf(-settings.sensitivity) / max(count, 1)
    return replace(settings, sensitivity=-NormalDist().inv_cdf(tail)) if tail > _SMALLEST_TAIL else settings
