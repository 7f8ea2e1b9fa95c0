"""On which scale numbers are compared, and how small a spread can be believed.

Here: log1p for counts and sums, logit for shares, both ways, and the smallest standard deviation on each. Not here: how the spread is
estimated (`anomalies.fit`).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

SMALLEST_SPREAD = 0.03
"""No spread below 3 % of the level is believed."""
TYPICAL_ROWS = 1000
"""How many rows a share is thought to be of where nobody knows."""
_LARGEST_LOG = 700.0


class Transform(enum.StrEnum):
    """How a number is turned before it is compared."""

    NONE = "none"
    LOG1P = "log1p"
    LOGIT = "logit"


@dataclass(frozen=True)
class Scale:
    """A transform and, for shares, how many rows a typical share was worked out from."""

    transform: Transform
    rows: float = TYPICAL_ROWS

    def forward(self, values: Any) -> Numbers:
        """Onto the scale. `log1p` keeps the sign; `logit` is the empirical one, log((x + 1/2) / (n - x + 1/2)) (Haldane 1956, Anscombe
        1956), so that 0 and 1 have a place."""
        numbers = np.asarray(values, dtype=np.float64)
        if self.transform is Transform.LOG1P:
            return np.copysign(np.log1p(np.abs(numbers)), numbers)
        if self.transform is Transform.LOGIT:
            hits = np.clip(numbers, 0.0, 1.0) * self.rows
            return np.log((hits + 0.5) / (self.rows - hits + 0.5))
        return numbers

    def back(self, value: float) -> float:
        """From the scale, in the metric's own unit; a share stays between 0 and 1."""
        if self.transform is Transform.LOG1P:
            return math.copysign(math.expm1(min(abs(value), _LARGEST_LOG)), value)
        if self.transform is Transform.LOGIT:
            odds = math.exp(min(max(value, -_LARGEST_LOG), _LARGEST_LOG))
            return min(max((odds / (1 + odds) * (self.rows + 1) - 0.5) / self.rows, 0.0), 1.0)
        return value

    def floor(self, center: float, *, rows: int | None) -> float:
        """The smallest standard deviation around `center`, both on the scale: 3 %, or what chance alone makes.

        That is 1/sqrt(level) for a count (a Poisson count's logarithm, by the delta method), and sqrt(1/(x + 1/2) + 1/(n - x + 1/2)) for
        a share of `rows` rows, x of them hits (Gart and Zweifel 1967). On the plain scale it is 3 % of the level.
        """
        if self.transform is Transform.LOG1P:
            return max(SMALLEST_SPREAD, 1 / math.sqrt(max(abs(self.back(center)), 1.0)))
        if self.transform is Transform.LOGIT:
            of = float(rows) if rows else self.rows
            hits = self.back(center) * of
            return max(SMALLEST_SPREAD, math.sqrt(1 / (hits + 0.5) + 1 / (of - hits + 0.5)))
        return SMALLEST_SPREAD * abs(center)
