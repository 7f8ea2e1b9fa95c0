"""The values of a dimension: which are told apart, how each compares with its own history, which explains a difference most.

Here: judging the parts of a metric. Not here: working them out (`checks._measuring`), the verdict itself (`anomalies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dataflow_assets.anomalies.history import Measured
from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.sentences import expected_range, shown
from dataflow_assets.anomalies.settings import Settings, stricter_for
from dataflow_assets.anomalies.verdict import Verdict, judge
from dataflow_assets.checks._anomaly import AnomalyOptions
from dataflow_assets.checks._measuring import OTHERS, Part, is_additive
from dataflow_assets.protocols import StepContext

_RECENT = 30
_EXPLAINS = 0.25


def part_name(metric: str, value: str) -> str:
    """Under which name the number of one value is kept."""
    return f"{metric}[{value}]"


def known_values(options: AnomalyOptions, context: StepContext) -> tuple[str, ...]:
    """The values told apart in one of the newest windows, the most frequent first: they keep their place. Those gone leave a 0."""
    seen: dict[str, int] = {}
    additive = is_additive(options.metric)
    recent = {item.start for item in context.history.get(options.metric_name, ())[-_RECENT:]}
    for value, history in _histories(options, context):
        if count := sum(item.start in recent and (not additive or item.value != 0) for item in history):
            seen[value] = count
    return tuple(sorted((value for value in seen if value != OTHERS), key=lambda value: (-seen[value], value))[: options.top])


def _histories(options: AnomalyOptions, context: StepContext) -> Iterator[tuple[str, Sequence[Measured]]]:
    start = f"{options.metric_name}["
    for name in context.history:
        if name.startswith(start) and name.endswith("]"):
            yield name[len(start) : -1], context.history[name]


@dataclass(frozen=True)
class JudgedPart:
    """One value of the dimension; `contribution` is its part of the difference from the expected, in the metric's own unit."""

    name: str
    verdict: Verdict
    rows: int
    contribution: float


@dataclass(frozen=True)
class Dimension:
    """The parts of one window's metric, judged. `appeared` and `vanished` are values without and with a history."""

    column: str
    parts: tuple[JudgedPart, ...]
    appeared: tuple[str, ...]
    vanished: tuple[str, ...]
    settings: Settings

    @property
    def flagged(self) -> tuple[JudgedPart, ...]:
        """The values that are unusual, the most so first."""
        return tuple(sorted((part for part in self.parts if part.verdict.flagged), key=lambda part: -abs(part.verdict.score)))

    def explains(self, *, above: bool) -> str:
        """Which value accounts for most of a difference; empty when none stands out."""
        same = [part for part in self.parts if (part.contribution > 0) is above and part.contribution]
        if not same:
            return ""
        most, total = max(same, key=lambda part: abs(part.contribution)), sum(abs(part.contribution) for part in same)
        share = abs(most.contribution) / total
        if share < _EXPLAINS or most.verdict.expected is None:
            return ""
        value, usual = (self._shown(number, most.verdict) for number in (most.verdict.value, most.verdict.expected.center))
        part = "most" if share > 0.5 else "the largest part"
        return f"{self.column} {most.name} explains {part} of it ({share * 100:.0f} %: {value}, usually {usual})"

    def words(self) -> list[str]:
        """What is to be said of single values."""
        said = [f"{self.column} {part.name} is {self._range(part)}" for part in self.flagged[:3]]
        said += [f"{len(self.flagged) - 3} more are unusual"] if len(self.flagged) > 3 else []
        said += [f"new: {', '.join(self.appeared)}"] if self.appeared else []
        return [*said, f"vanished: {', '.join(self.vanished)}"] if self.vanished else said

    def table(self) -> list[dict[str, Any]]:
        """The values as rows, the most unusual first."""
        ordered = sorted(self.parts, key=lambda part: -abs(part.verdict.score))
        return [self._row(part) for part in ordered]

    def _row(self, part: JudgedPart) -> dict[str, Any]:
        expected = part.verdict.expected
        return {
            self.column: part.name,
            "value": self._shown(part.verdict.value, part.verdict),
            "expected": expected_range(expected, self.settings.transform, value=part.verdict.value) if expected else "learning",
            "score": round(part.verdict.score, 1),
            "unusual": part.verdict.flagged,
            "rows": part.rows,
        }

    def _range(self, part: JudgedPart) -> str:
        wanted = expected_range(part.verdict.expected, self.settings.transform) if part.verdict.expected else ""
        return f"{self._shown(part.verdict.value, part.verdict)} (expected {wanted})"

    def _shown(self, number: float, verdict: Verdict) -> str:
        whole = self.settings.transform is Transform.LOG1P and verdict.value == round(verdict.value)
        return shown(float(round(number)) if whole else number, self.settings.transform)


def judge_parts(
    parts: Mapping[str, Part],
    options: AnomalyOptions,
    context: StepContext,
    *,
    known: Sequence[str],
    settings: Settings,
    start: datetime,
    rows: int,
) -> Dimension:
    """Every value beside its own history; `known` are those of earlier windows. A value of a count that is not there any more is a 0."""
    histories = dict(_histories(options, context))
    additive = is_additive(options.metric)
    current = {value: part for value, part in parts.items() if part.value is not None}
    vanished = sorted(set(known) - set(current))
    if additive:
        current |= {value: Part(0.0, 0) for value in vanished}
    stricter = stricter_for(settings, len(current))
    judged = []
    for value, part in current.items():
        tested = Measured(context.window_key, start, part.value or 0.0, part.rows or None)
        verdict = judge(tested, histories.get(value, ()), stricter)
        judged.append(JudgedPart(value, verdict, part.rows, _contribution(verdict, part, additive=additive, rows=rows)))
    seasoned = len(context.history.get(options.metric_name, ())) >= options.min_samples
    appeared = sorted(value for value in current if value not in histories and value != OTHERS) if seasoned else []
    return Dimension(options.dimension, tuple(judged), tuple(appeared), tuple(vanished), stricter)


def _contribution(verdict: Verdict, part: Part, *, additive: bool, rows: int) -> float:
    """What a value adds to the difference of the whole: of a sum its own difference, of a mean or share that by its share of the rows."""
    if verdict.expected is None:
        return 0.0
    difference = verdict.value - verdict.expected.center
    return difference if additive or not rows else difference * part.rows / rows
