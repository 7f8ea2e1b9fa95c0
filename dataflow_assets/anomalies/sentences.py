"""Verdicts in words.

Here: numbers and ranges as people read them, and the sentence of a verdict. Not here: how a verdict comes about.
"""

from __future__ import annotations

import math

from dataflow_assets.anomalies.fit import Expected, Fit
from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.seasons import Season
from dataflow_assets.anomalies.settings import Settings
from dataflow_assets.anomalies.verdict import Verdict


def shown(value: float, transform: Transform = Transform.NONE) -> str:
    """A number for people: shares in per cent, whole numbers with thousands apart, others to four figures."""
    if transform is Transform.LOGIT:
        return f"{value * 100:.3g} %"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def expected_range(expected: Expected, transform: Transform, *, value: float = math.nan) -> str:
    """The range in words; limits of a count are whole numbers, as `value` is."""
    low, high = expected.low, expected.high
    if transform is Transform.LOG1P and (math.isnan(value) or value == round(value)) and abs(expected.center) >= 10:
        low, high = (None if low is None else math.ceil(low), None if high is None else math.floor(high))
    if low is None:
        return f"at most {shown(high or 0.0, transform)}"
    return f"{shown(low, transform)} to {shown(high, transform)}" if high is not None else f"at least {shown(low, transform)}"


def sentence(name: str, verdict: Verdict, settings: Settings) -> str:
    """What is said of a number."""
    value, transform = shown(verdict.value, settings.transform), settings.transform
    if verdict.expected is None or verdict.fit is None:
        return f"{name} is {value}: {_learning(verdict, settings)}"
    expected = verdict.expected
    wanted = expected_range(expected, transform, value=verdict.value)
    usually = f"usually {_rounded(expected.center, verdict, settings)}"
    learned = _learned(verdict, verdict.fit)
    if not verdict.flagged:
        return f"{name} is {value}, as expected ({wanted}, {usually}; {learned})"
    side = "above" if verdict.value > expected.center else "below"
    score = f"score {verdict.score:.1f}, limit {settings.sensitivity:g}"
    return f"{name} is {value}, unusually far {side} the expected {wanted} ({usually}; {score}; {learned})"


def _rounded(center: float, verdict: Verdict, settings: Settings) -> str:
    whole = settings.transform is Transform.LOG1P and verdict.value == round(verdict.value) and abs(center) >= 10
    return shown(float(round(center)) if whole else center, settings.transform)


def _learning(verdict: Verdict, settings: Settings) -> str:
    if verdict.fit is None:
        return f"learning ({verdict.trained}/{max(settings.min_samples, 2)})"
    alike = settings.clock.describe(verdict.start, verdict.fit.season)
    return f"learning, too few earlier {alike} to compare with"


def _learned(verdict: Verdict, fit: Fit) -> str:
    """From how many windows of which season, and with which trend."""
    alike = verdict.expected.alike if verdict.expected else 0
    group = fit.settings.clock.describe(verdict.start, fit.season)
    words = "" if fit.season is Season.NONE else f", {fit.season.words}"
    among = f"{verdict.trained} windows" if alike == verdict.trained else f"{alike} {group} among {verdict.trained} windows"
    return f"learned from {among}{words}{_trend(fit)}"


def _trend(fit: Fit) -> str:
    slope = fit.layer.slope
    if not slope:
        return ""
    if fit.settings.transform is Transform.LOG1P:
        return f", trend {math.expm1(slope) * 100:+.2g} % a day"
    return f", trend {slope:+.3g} a day" if fit.settings.transform is Transform.NONE else f", trend {slope:+.2g} a day in log-odds"
