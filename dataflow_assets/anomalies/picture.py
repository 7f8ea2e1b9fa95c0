"""A number and its history as a picture: the band that is expected, the values, and those that were flagged.

Here: a small SVG, a few kB, without any library. Not here: where it is shown (`assets.metadata`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

from dataflow_assets.anomalies.fit import Fit
from dataflow_assets.anomalies.history import Measured, Standing
from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.sentences import shown
from dataflow_assets.anomalies.verdict import Verdict

WIDTH, HEIGHT = 640, 220
MOST_POINTS = 60
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 30, 26
_BAND, _LINE, _FLAG, _INK, _FAINT = "#cfe0fc", "#3b6fd4", "#d3302f", "#333", "#999"
_LEGEND = (
    f'<g font-size="11" fill="{_FAINT}"><rect x="{WIDTH - 150}" y="9" width="16" height="10" fill="{_BAND}"/>'
    f'<text x="{WIDTH - 130}" y="18">expected</text><circle cx="{WIDTH - 66}" cy="14" r="3.5" fill="{_FLAG}"/>'
    f'<text x="{WIDTH - 58}" y="18">unusual</text></g>'
)


@dataclass(frozen=True)
class _Frame:
    """From instants and values to points of the picture."""

    first: float
    last: float
    low: float
    high: float
    step: float

    def x(self, moment: datetime) -> float:
        span = (self.last - self.first) or 1.0
        return round(_LEFT + (moment.timestamp() - self.first) / span * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(HEIGHT - _BOTTOM - (inside - self.low) / (self.high - self.low) * (HEIGHT - _TOP - _BOTTOM), 1)


def band_plot(title: str, tested: Measured, history: Sequence[Measured], verdict: Verdict) -> str:
    """SVG of the newest windows of `history` and of the tested one, over the band that the verdict's fit expects at each."""
    fit = verdict.fit
    if fit is None:
        raise ValueError("there is no picture while too little is known")
    earlier = sorted((item for item in history if item.start < tested.start), key=lambda item: item.start)[-MOST_POINTS + 1 :]
    points = [*earlier, tested]
    bands = [(item.start, *_band(fit, item)) for item in points]
    known = [(moment, low, high) for moment, low, high in bands if low is not None and high is not None]
    frame = _frame(points, [limit for _, low, high in known for limit in (low, high)])
    parts = [*_axes(frame, fit, points), *_drawn_band(frame, known), *_values(frame, points, verdict)]
    heading = f'<text x="{_LEFT}" y="18" font-size="13" font-weight="600" fill="{_INK}">{escape(title)}</text>{_LEGEND}'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif"><rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff"/>{heading}{"".join(parts)}</svg>'
    )


def _band(fit: Fit, item: Measured) -> tuple[float | None, float | None]:
    """The whole band, also on a side that is not watched, so that it looks like one."""
    expected = fit.expect(item.start, rows=item.rows)
    if expected.alike < 2:
        return None, None
    reach = fit.settings.sensitivity * expected.width
    low = fit.scale.back(expected.level - reach) if expected.low is None else expected.low
    high = fit.scale.back(expected.level + reach) if expected.high is None else expected.high
    return low, high


def _frame(points: Sequence[Measured], limits: Sequence[float]) -> _Frame:
    numbers = [*(item.value for item in points), *limits]
    low, high = min(numbers), max(numbers)
    if 0 <= low < high * 0.35:
        low = 0.0
    step = _step((high - low) or abs(high) or 1.0)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    return _Frame(points[0].start.timestamp(), points[-1].start.timestamp(), bottom, top if top > bottom else bottom + step, step)


def _step(span: float) -> float:
    """A round distance between lines: 1, 2 or 5 of some power of ten, three to six of them in the span."""
    power = 10.0 ** math.floor(math.log10(span / 3))
    return next((factor * power for factor in (5, 2) if span / (factor * power) >= 3), power)


def _axes(frame: _Frame, fit: Fit, points: Sequence[Measured]) -> Iterator[str]:
    for number in range(round((frame.high - frame.low) / frame.step) + 1):
        value = frame.low + number * frame.step
        y = frame.y(value)
        yield f'<path d="M{_LEFT} {y}H{WIDTH - _RIGHT}" stroke="#eee"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" font-size="11" text-anchor="end" fill="{_FAINT}">{_tick(value, fit)}</text>'
    zone = ZoneInfo(fit.settings.clock.timezone)
    hours = points[-1].start - points[0].start
    pattern = "%Y-%m-%d" if hours.days > 3 else "%Y-%m-%d %H:%M"
    middle = points[len(points) // 2]
    for item, anchor in ((points[0], "start"), (middle, "middle"), (points[-1], "end")):
        label = item.start.astimezone(zone).strftime(pattern)
        yield f'<text x="{frame.x(item.start)}" y="{HEIGHT - 8}" font-size="11" text-anchor="{anchor}" fill="{_FAINT}">{label}</text>'


def _tick(value: float, fit: Fit) -> str:
    return shown(value, Transform.LOGIT) if fit.settings.transform is Transform.LOGIT else f"{value:,.6g}"


def _drawn_band(frame: _Frame, bands: Sequence[tuple[datetime, float, float]]) -> Iterator[str]:
    if bands:
        upper = [f"{frame.x(moment)} {frame.y(high)}" for moment, _, high in bands]
        lower = [f"{frame.x(moment)} {frame.y(low)}" for moment, low, _ in reversed(bands)]
        yield f'<path d="M{"L".join([*upper, *lower])}Z" fill="{_BAND}"/>'


def _values(frame: _Frame, points: Sequence[Measured], verdict: Verdict) -> Iterator[str]:
    line = "L".join(f"{frame.x(item.start)} {frame.y(item.value)}" for item in points)
    yield f'<path d="M{line}" fill="none" stroke="{_LINE}" stroke-width="1.5"/>'
    for item in points[:-1]:
        if item.standing is not Standing.USUAL:
            filled = _FLAG if item.standing is Standing.FLAGGED else "#fff"
            yield f'<circle cx="{frame.x(item.start)}" cy="{frame.y(item.value)}" r="3" fill="{filled}" stroke="{_FLAG}"/>'
    last, colour = points[-1], _FLAG if verdict.flagged else _LINE
    yield f'<circle cx="{frame.x(last.start)}" cy="{frame.y(last.value)}" r="5" fill="{colour}" stroke="#fff" stroke-width="1.5"/>'
