"""A history once more, as if each window had just come: how often the recipe would have spoken up, and with which settings less often.

Here: the replay, its alerts per year, the search for settings that keep to a budget. Not here: reading histories
(`execution.anomalies`), how a backtest is shown (`cli.anomalies`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from dataflow_assets.anomalies.history import Measured, Standing
from dataflow_assets.anomalies.settings import Settings, stricter_for
from dataflow_assets.anomalies.verdict import Fits, Verdict, judge

_YEAR = timedelta(days=365.25)
_SENSITIVITIES = (3.5, 4.0, 5.0, 6.0, 7.0, 8.0)
_KEPT = 1000
"""Of longer histories no fits are kept: they would take hundreds of MB."""
_IGNORED = (0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Alert:
    """A window that would have alerted: its verdict, and the values of a dimension that would have too."""

    key: str
    verdict: Verdict | None
    parts: tuple[tuple[str, Verdict], ...] = ()


@dataclass(frozen=True)
class Backtest:
    """What a replay came to. `judged` windows were judged, over `years`; `settings` are those it was played with."""

    settings: Settings
    alerts: tuple[Alert, ...]
    judged: int
    years: float
    last: Verdict | None

    @property
    def per_year(self) -> float:
        """Alerts a year, at this rate."""
        return len(self.alerts) / self.years if self.years else 0.0


def replay(history: Sequence[Measured], settings: Settings, *, fits: Fits | None = None) -> list[tuple[Measured, Verdict]]:
    """Every window with its verdict, oldest first. What people acknowledged holds; what else was flagged is found anew, and leaves the
    training of later windows."""
    seen: list[Measured] = []
    played: list[tuple[Measured, Verdict]] = []
    for item in sorted(history, key=lambda one: one.start):
        fresh = replace(item, standing=Standing.USUAL) if item.standing is Standing.FLAGGED else item
        verdict = judge(fresh, seen, settings, fits=fits)
        accepted = fresh.standing is not Standing.USUAL
        played.append((fresh, replace(verdict, flagged=False) if accepted else verdict))
        seen.append(replace(fresh, standing=Standing.FLAGGED) if verdict.flagged and not accepted else fresh)
    return played


def backtest(
    history: Sequence[Measured],
    settings: Settings,
    *,
    parts: Mapping[str, Sequence[Measured]] | None = None,
    fits: dict[str, Fits] | None = None,
) -> Backtest:
    """Replay a metric, and the values of its dimension, each with the limit that so many of them ask for.

    `fits` keeps what can be used again under other limits; the metric's own stand under the empty name.
    """
    kept = {} if fits is None else fits
    whole = replay(history, settings, fits=kept.setdefault("", {}) if fits is not None else None)
    narrow = stricter_for(settings, len(parts or {}))
    inside: dict[str, list[tuple[str, Verdict]]] = {}
    for name, found in (parts or {}).items():
        for item, verdict in replay(found, narrow, fits=kept.setdefault(name, {}) if fits is not None else None):
            if verdict.flagged:
                inside.setdefault(item.key, []).append((name, verdict))
    judged = [item for item, verdict in whole if not verdict.learning]
    alerts = tuple(
        Alert(item.key, verdict if verdict.flagged else None, tuple(inside.get(item.key, ())))
        for item, verdict in whole
        if verdict.flagged or item.key in inside
    )
    span = judged[-1].start - judged[0].start + (settings.length or timedelta(days=1)) if judged else timedelta(0)
    return Backtest(settings, alerts, len(judged), span / _YEAR, whole[-1][1] if whole else None)


def within_budget(
    history: Sequence[Measured], settings: Settings, *, budget: float, parts: Mapping[str, Sequence[Measured]] | None = None
) -> Backtest | None:
    """The replay with the mildest change of `sensitivity` and `ignore_small_changes` that alerts at most `budget` times a year: first
    the sensitivity alone, then with larger changes ignored; None when nothing tried keeps to it."""
    fits: dict[str, Fits] | None = {} if len(history) <= _KEPT else None
    for ignored in (settings.ignore_small_changes, *(share for share in _IGNORED if share > settings.ignore_small_changes)):
        for sensitivity in (settings.sensitivity, *(step for step in _SENSITIVITIES if step > settings.sensitivity)):
            tried = backtest(history, replace(settings, sensitivity=sensitivity, ignore_small_changes=ignored), parts=parts, fits=fits)
            if tried.per_year <= budget:
                return tried
    return None
