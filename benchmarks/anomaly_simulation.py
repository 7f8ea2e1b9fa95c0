"""How often metric checks cry wolf, and how often they see one: `python -m benchmarks.anomaly_simulation`.

Here: made-up histories of several patterns and lengths, three detectors, a table. Not here: the recipe (`dataflow_assets.anomalies`),
real data (`docs/anomalies.md` has the flights of 2013).

Every trial is a history, the next ordinary value (flagged: a false alarm) and the same value spoilt (flagged: detected). All values
come from a seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from dataflow_assets.anomalies.history import Measured, Standing
from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.settings import Settings
from dataflow_assets.anomalies.verdict import judge

LENGTHS = (7, 14, 28, 56, 120)
_ROWS = 800
_WEEK = np.array([1.0, 1.2, 0.9, 1.1, 1.5, 0.5, 0.3])

Random = np.random.Generator
Days = Sequence[datetime]
Detector = Callable[[Sequence[Measured], Measured, "Pattern"], bool]


@dataclass(frozen=True)
class Pattern:
    """How values come about, what spoils one, and what kind of number it is."""

    name: str
    make: Callable[[Random, Days], Any]
    spoilt: str
    spoil: Callable[[float], float]
    transform: Transform = Transform.LOG1P
    shift: bool = False


def _noise(random: Random, days: Days, size: float = 0.08) -> Any:
    return np.exp(random.normal(0, size, len(days)))


def _weekend(random: Random, days: Days) -> Any:
    return 10_000 * np.array([0.35 if day.weekday() >= 5 else 1.0 for day in days]) * _noise(random, days)


def _by_day(random: Random, days: Days) -> Any:
    return 10_000 * _WEEK[[day.weekday() for day in days]] * _noise(random, days)


def _shifted(random: Random, days: Days) -> Any:
    """Twice as much since ten windows (half the history, if that is less)."""
    recent = min(10, (len(days) - 1) // 2)
    return 10_000 * np.where(np.arange(len(days)) >= len(days) - 1 - recent, 2.0, 1.0) * _noise(random, days)


def _half(value: float) -> float:
    return value / 2


PATTERNS = (
    Pattern("flat", lambda random, days: 10_000 * _noise(random, days), "halved", _half),
    Pattern("trend, 1 % a day", lambda random, days: 10_000 * 1.01 ** np.arange(len(days)) * _noise(random, days), "halved", _half),
    Pattern("working days and weekends", _weekend, "halved", _half),
    Pattern("every day of the week its own", _by_day, "halved", _half),
    Pattern("level shift, acknowledged", _shifted, "halved", _half, shift=True),
    Pattern("heavy tails (t, 3 degrees)", lambda random, days: 10_000 * np.exp(0.1 * random.standard_t(3, len(days))), "halved", _half),
    Pattern(
        "small counts (Poisson, 4)", lambda random, days: random.poisson(4, len(days)).astype(float), "30 more", lambda value: value + 30
    ),
    Pattern(
        "share of 2 % of 800 rows",
        lambda random, days: random.binomial(_ROWS, 0.02, len(days)) / _ROWS,
        "10 points more",
        lambda value: value + 0.1,
        Transform.LOGIT,
    ),
)


def recipe(history: Sequence[Measured], tested: Measured, pattern: Pattern) -> bool:
    """This project's check with its defaults."""
    return judge(tested, history, Settings(transform=pattern.transform)).flagged


def plain_mad(history: Sequence[Measured], tested: Measured, pattern: Pattern) -> bool:
    """Further than 3 times 1.4826 MAD from the median of the whole history."""
    values = np.array([item.value for item in history])
    middle = float(np.median(values))
    return bool(abs(tested.value - middle) > 3 * 1.4826 * float(np.median(np.abs(values - middle))))


def like_elementary(history: Sequence[Measured], tested: Measured, pattern: Pattern) -> bool:
    """What Elementary's volume test does with its defaults: further than 3 standard deviations from the mean of 14 days; it judges from
    the seventh day on. Its options for seasons and training are left out."""
    values = np.array([item.value for item in history[-14:]])
    return bool(abs(tested.value - float(values.mean())) > 3 * float(values.std(ddof=1)))


DETECTORS: dict[str, Detector] = {"this recipe": recipe, "plain MAD": plain_mad, "mean of 14 days": like_elementary}


@dataclass(frozen=True)
class Rates:
    """Shares of the trials: false alarms, and spoilt values found."""

    false: float
    found: float

    def __str__(self) -> str:
        return f"{self.false * 100:.1f} / {self.found * 100:.0f}"


def simulate(pattern: Pattern, length: int, *, trials: int, seed: int) -> dict[str, Rates]:
    """The rates of every detector over the same trials; each history begins on another day."""
    random = np.random.default_rng([seed, length])
    counts = {name: [0, 0] for name in DETECTORS}
    for _ in range(trials):
        first = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=int(random.integers(366)))
        days = [first + timedelta(days=number) for number in range(length + 1)]
        values = [float(value) for value in pattern.make(random, days)]
        *history, tested = (Measured(day.isoformat(), day, value, _ROWS) for day, value in zip(days, values, strict=True))
        if pattern.shift:
            turn = len(history) - min(10, length // 2)
            history[turn] = replace(history[turn], standing=Standing.LEVEL_SHIFT)
        for name, detect in DETECTORS.items():
            counts[name][0] += detect(history, tested, pattern)
            counts[name][1] += detect(history, replace(tested, value=pattern.spoil(tested.value)), pattern)
    return {name: Rates(false / trials, found / trials) for name, (false, found) in counts.items()}


def table(patterns: Sequence[Pattern], *, trials: int, seed: int) -> str:
    """The whole simulation as a Markdown table: false alarms / detections in per cent, by length of the history."""
    header = ("pattern (spoilt)", "detector", *(f"{length} windows" for length in LENGTHS))
    lines = [header, ("---",) * len(header)]
    for pattern in patterns:
        rates = [simulate(pattern, length, trials=trials, seed=seed) for length in LENGTHS]
        for number, name in enumerate(DETECTORS):
            first = f"{pattern.name} ({pattern.spoilt})" if not number else ""
            lines.append((first, name, *(str(found[name]) for found in rates)))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anomaly_simulation", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="histories for each cell (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print(table(PATTERNS, trials=chosen.trials, seed=chosen.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
