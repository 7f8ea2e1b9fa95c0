"""The verdict on one number: usual, unusual, or too early to say.

Here: the recipe from end to end. Its points: the tested number is never in training, flagged ones are not until acknowledged; numbers
are compared on a scale that suits them; a trend counts beyond 3 standard errors, a season when it takes a quarter off the spread;
while no season is proven, a level seen before is not flagged; few windows widen the range, and fewer than `min_samples` only teach.
Not here: the statistics (`anomalies.fit`, `anomalies.robust`), the words (`anomalies.sentences`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dataflow_assets.anomalies.fit import Expected, Fit
from dataflow_assets.anomalies.history import Measured, learnable
from dataflow_assets.anomalies.settings import Settings


@dataclass(frozen=True)
class Verdict:
    """What is said of a number. `expected` and `fit` are None while too little is known; `score` is in standard deviations, signed."""

    value: float
    start: datetime
    trained: int
    flagged: bool = False
    score: float = 0.0
    expected: Expected | None = None
    fit: Fit | None = None

    @property
    def learning(self) -> bool:
        """Whether too little is known to say anything."""
        return self.expected is None


Fits = dict[tuple[datetime, tuple[datetime, ...]], Fit]
"""Fits by the tested instant and those of the training, for whoever judges one history under several limits."""


def judge(tested: Measured, history: Sequence[Measured], settings: Settings, *, fits: Fits | None = None) -> Verdict:
    """The verdict on `tested` beside the windows of `history` that came before it and may be learned from.

    `fits` may hold those of the same numbers under settings that differ in their limits alone.
    """
    training = learnable(history, before=tested.start, newest=settings.newest)
    if len(training) < max(settings.min_samples, 2):
        return Verdict(tested.value, tested.start, len(training))
    fit = _fit(training, tested, settings, fits)
    expected = fit.expect(tested.start, rows=tested.rows)
    if expected.alike < 2:
        return Verdict(tested.value, tested.start, len(training), fit=fit)
    distance = float(fit.scale.forward(tested.value)) - expected.level
    outside = (expected.low is not None and tested.value < expected.low) or (expected.high is not None and tested.value > expected.high)
    score = distance / expected.width if expected.width else 0.0
    return Verdict(tested.value, tested.start, len(training), bool(outside), score, expected, fit)


def _fit(training: Sequence[Measured], tested: Measured, settings: Settings, fits: Fits | None) -> Fit:
    if fits is None:
        return Fit(training, settings, at=tested.start, rows=tested.rows)
    name = tested.start, tuple(item.start for item in training)
    if name not in fits:
        fits[name] = Fit(training, settings, at=tested.start, rows=tested.rows)
    return fits[name].limited(settings)
