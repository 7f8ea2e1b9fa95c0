"""Sensors of type freshness: a dataset that has grown too old, and has something due, is asked for.

Here: how old it is, by its own ledger. Not here: the policy by which Dagster shows an asset as stale (`assets.pipelines`).
"""

from __future__ import annotations

from datetime import timedelta

from dataflow_assets.execution.sensing import Found, Memory
from dataflow_assets.operations.sensors.tick import Evaluation
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.windows import parse_duration


def look(evaluation: Evaluation, memory: Memory) -> Found:
    """Compare the age of the endpoint that published longest ago with what is allowed."""
    name, limit = evaluation.pipeline.name, _limit(evaluation)
    newest = [max((entry.published_at for entry in entries), default=None) for entries in evaluation.ledgers.values()]
    published = [moment for moment in newest if moment is not None]
    if len(published) == len(newest) and published:
        age = evaluation.now - min(published)
        if age <= limit:
            return Found({}, f"{name} is {in_words(age)} old, and may be {in_words(limit)} old")
        said = f"{name} is {in_words(age)} old, older than {in_words(limit)}"
    else:
        said = f"{name} has published nothing yet"
    what = f"older than {min(published).isoformat()}" if published else "never published"
    if evaluation.pipeline.windows is None:
        return Found({}, said, _unless_waiting({WHOLE: what}, memory))
    due = evaluation.due()
    if not due:
        return Found({}, f"{said}, but no window is due")
    return Found({}, said, _unless_waiting(dict.fromkeys(due, what), memory))


def _unless_waiting(units: dict[str, str], memory: Memory) -> dict[str, str]:
    """Those that earlier ticks have not asked for yet: a failed run is asked for again in its own time, not at each tick."""
    return {key: what for key, what in units.items() if key not in memory.waiting}


def _limit(evaluation: Evaluation) -> timedelta:
    options, freshness = evaluation.sensor.options, evaluation.pipeline.freshness
    text = options.max_age or (freshness.fail_after if freshness else "")
    return parse_duration(text)


def in_words(length: timedelta) -> str:
    """`40 s`, `45 min`, `1.5 h`, `3 d`."""
    seconds = round(length.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds} s"
