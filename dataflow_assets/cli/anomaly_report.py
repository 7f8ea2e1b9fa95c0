"""Anomalies and backtests as text and as data.

Here: the lines and the JSON of `dataflow anomalies`. Not here: its verbs (`cli.anomalies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.terminal import Session, plural, table

if TYPE_CHECKING:
    from dataflow_assets.anomalies.replay import Alert, Backtest
    from dataflow_assets.anomalies.settings import Settings
    from dataflow_assets.anomalies.verdict import Verdict
    from dataflow_assets.execution.anomalies import Anomaly, Watched

_HEADER = ("METRIC", "WINDOW", "STATE", "VALUE", "EXPECTED", "SCORE", "")
_SHOWN = 20


def print_list(session: Session, found: Sequence[Anomaly], unknown: Sequence[dict[str, Any]], errors: Sequence[dict[str, Any]]) -> None:
    for line in table([_row(item) for item in found], header=_HEADER) if found else []:
        session.say(line)
    for one in unknown:
        session.say(
            click.style(f"acknowledged, but no such metric: {one['pipeline']}.{one['step']} {one['metric']} {one['window']}", fg="yellow")
        )
    for failed in errors:
        session.say(click.style(f"\n{failed['pipeline']}: cannot tell: ", fg="red") + failed["error"]["text"])
    waiting = [item for item in found if item.state in {"open", "blocked"}]
    session.say(f"\n{plural(len(waiting), 'open anomaly').replace('anomalys', 'anomalies')}, {len(found) - len(waiting)} acknowledged.")
    if waiting:
        first = waiting[-1]
        session.say(f"Next: dataflow anomalies ack {first.watched.name} --window {first.window} --expected --note ...")


def _row(item: Anomaly) -> tuple[str, ...]:
    settings, verdict = item.watched.settings, item.verdict
    value, expected, score = _cells(verdict, settings) if verdict else ("-", "-", "-")
    said = " ".join(filter(None, [item.said.by and f"{item.said.by}:", item.said.note])) if item.said else ""
    column = item.watched.options.dimension
    inside = f"{column} {', '.join(item.parts)}" if item.parts else ""
    return (
        item.watched.name,
        item.window,
        item.state.replace("_", " "),
        value,
        expected,
        score,
        "; ".join(filter(None, [inside, said, item.text])),
    )


def _cells(verdict: Verdict, settings: Settings) -> tuple[str, str, str]:
    from dataflow_assets.anomalies.sentences import expected_range, shown

    value = shown(verdict.value, settings.transform)
    if verdict.expected is None:
        return value, "-", "-"
    return value, expected_range(verdict.expected, settings.transform, value=verdict.value), f"{verdict.score:.1f}"


def anomaly_data(item: Anomaly) -> dict[str, Any]:
    return {
        "pipeline": item.watched.pipeline.name,
        "step": item.watched.step,
        "metric": item.watched.options.metric_name,
        "window": item.window,
        "state": item.state,
        "verdict": _verdict_data(item.verdict) if item.verdict else None,
        "parts": list(item.parts),
        "acknowledged": item.said.model_dump(mode="json") if item.said else None,
        "text": item.text,
    }


def _verdict_data(verdict: Verdict) -> dict[str, Any]:
    expected = verdict.expected
    return {
        "value": verdict.value,
        "expected": expected.center if expected else None,
        "low": expected.low if expected else None,
        "high": expected.high if expected else None,
        "score": verdict.score,
        "trained_on": verdict.trained,
    }


def backtest_data(item: Watched, result: Backtest, better: Backtest | None) -> dict[str, Any]:
    found = {
        "pipeline": item.pipeline.name,
        "step": item.step,
        "metric": item.options.metric_name,
        "windows": len(item.history),
        "judged": result.judged,
        **_summary(result),
        "season": str(result.last.fit.season) if result.last and result.last.fit else None,
        "alerts": [_alert_data(alert) for alert in result.alerts],
    }
    return found | ({"within_budget": _summary(better)} if better else {})


def _summary(result: Backtest) -> dict[str, Any]:
    return {
        "sensitivity": result.settings.sensitivity,
        "ignore_small_changes": result.settings.ignore_small_changes,
        "alerted": len(result.alerts),
        "alerts_a_year": round(result.per_year, 2),
    }


def _alert_data(alert: Alert) -> dict[str, Any]:
    verdict = _verdict_data(alert.verdict) if alert.verdict else None
    return {"window": alert.key, "verdict": verdict, "parts": {name: _verdict_data(part) for name, part in alert.parts}}


def backtest_lines(item: Watched, result: Backtest, better: Backtest | None, *, budget: float | None) -> Iterator[str]:
    head = click.style(item.name, bold=True)
    if not result.judged:
        yield f"{head}: {plural(len(item.history), 'window')} in the ledger, too few to judge any"
        return
    season = f", {result.last.fit.season.words}" if result.last and result.last.fit else ""
    yield (
        f"{head}: {result.judged:,} of {plural(len(item.history), 'window')} judged{season}; "
        f"{len(result.alerts)} would have alerted, {result.per_year:.1f} a year"
    )
    rows = [row for alert in result.alerts[-_SHOWN:] for row in _alert_rows(item, alert)]
    yield from (f"  {line}" for line in table(rows, header=("WINDOW", "OF", "VALUE", "EXPECTED", "SCORE")) if rows)
    if len(result.alerts) > _SHOWN:
        yield f"  and {len(result.alerts) - _SHOWN} before; --json lists all"
    if budget is not None:
        yield f"  {_advice(result, better, budget)}"


def _alert_rows(item: Watched, alert: Alert) -> Iterator[tuple[str, ...]]:
    if alert.verdict:
        yield (alert.key, item.options.metric_name, *_cells(alert.verdict, item.settings))
    for name, verdict in alert.parts:
        yield (alert.key, f"{item.options.by} {name}", *_cells(verdict, item.settings))


def _advice(result: Backtest, better: Backtest | None, budget: float) -> str:
    if better is None:
        return f"no settings that were tried keep to {budget:g} a year: watch one direction, set min_change, or acknowledge level shifts"
    if better.settings == result.settings:
        return f"within {budget:g} a year as it is"
    chosen = better.settings
    written = f"sensitivity: {chosen.sensitivity:g}, ignore_small_changes: {chosen.ignore_small_changes * 100:g}%"
    return f"for {budget:g} a year: {written}  ({len(better.alerts)} alerts, {better.per_year:.1f} a year)"
