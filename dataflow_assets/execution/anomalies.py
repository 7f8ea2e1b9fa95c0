"""The metrics that a pipeline watches, with their whole histories, and what was flagged in them.

Here: from plans, ledgers, dead attempts and acknowledgements to histories and open anomalies. Not here: the recipe and its replay
(`anomalies`), one window's history while it runs (`execution.history`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from dataflow_assets.anomalies.history import Measured, Standing, is_mark
from dataflow_assets.anomalies.settings import Settings
from dataflow_assets.anomalies.verdict import Verdict, judge
from dataflow_assets.checks._anomaly import AnomalyOptions
from dataflow_assets.checks.metric_anomaly import MetricOptions
from dataflow_assets.execution.attempts import unfinished
from dataflow_assets.execution.history import Said, acknowledged_at, entries_in_order, measured
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.spec.acknowledgements import Acknowledgement
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry

State = Literal["open", "blocked", "expected", "level_shift"]


@dataclass(frozen=True)
class Watched:
    """One metric of a step: its options, its history in the ledger, and those of the values of its dimension."""

    pipeline: PipelinePlan
    step: str
    options: AnomalyOptions
    timezone: str
    history: Sequence[Measured] = ()
    parts: Mapping[str, Sequence[Measured]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`pipeline.step metric`."""
        return f"{self.pipeline.name}.{self.step} {self.options.metric_name}"

    @property
    def settings(self) -> Settings:
        """The settings of the recipe as they would be for the newest window."""
        return self.options.settings((item.value for item in self.history), timezone=self.timezone, length=self._length)

    @property
    def judged_parts(self) -> Mapping[str, Sequence[Measured]]:
        """The values that are judged; none where the dimension only explains."""
        return self.parts if self.options.by else {}

    @property
    def _length(self) -> timedelta | None:
        if self.pipeline.windows is None:
            return None
        window = next(self.pipeline.windows.cadence.between(self.pipeline.windows.begin, self.pipeline.windows.begin + timedelta(days=1)))
        return window.end - window.start


@dataclass(frozen=True)
class Anomaly:
    """A window of a metric that was flagged, or acknowledged. `verdict` is what today's settings say of it, None without a number;
    `parts` are the values of the dimension that were flagged; `text` is what a blocked window was refused with."""

    watched: Watched
    window: str
    state: State
    verdict: Verdict | None = None
    parts: tuple[str, ...] = ()
    said: Acknowledgement | None = None
    text: str = ""


def watched_metrics(project: Project, pipeline: PipelinePlan, *, now: datetime) -> list[Watched]:
    """The metrics that a pipeline watches, without their histories; asks no system."""
    session = Session(RunRequest(project, pipeline, (), attempt="anomalies", now=now))
    timezone = pipeline.windows.cadence.timezone if pipeline.windows else project.model.timezone
    try:
        return [Watched(pipeline, step.id, options, timezone) for step in pipeline.steps for options in _options(session, step)]
    finally:
        session.close()


def watched_histories(project: Project, pipeline: PipelinePlan, *, now: datetime) -> list[Watched]:
    """The same with their histories. Raises ConnectionFailed when a target cannot be reached."""
    metrics = watched_metrics(project, pipeline, now=now)
    ledgers = list(ledger_entries(project, pipeline, now=now).values()) if metrics else []
    return [_with_history(item, project, [entries_in_order(entries) for entries in ledgers]) for item in metrics]


def _options(session: Session, step: StepPlan) -> Iterator[AnomalyOptions]:
    for check in step.checks:
        written = [{"anomaly": check.options["anomaly"]}] if check.options.get("anomaly") else []
        rules = check.options.get("checks")
        items: list[Any] = [*written, *(rule for rule in (rules if isinstance(rules, list) else []) if "anomaly" in rule)]
        if items:
            yield from session.render(step, MetricOptions, session.context(None), config={"checks": items}).options.metrics()


def _with_history(item: Watched, project: Project, ledgers: Sequence[Sequence[LedgerEntry]]) -> Watched:
    said = acknowledged_at(item.pipeline, project.acknowledged, item.step)
    name, full = item.options.metric_name, f"{item.step}.{item.options.metric_name}"
    for entries in ledgers:
        keys = {key for entry in entries for key in entry.metrics if key.startswith(f"{full}[") and not is_mark(key)}
        names = {key.removeprefix(f"{full}[")[:-1] for key in keys}
        history = measured(item.pipeline, item.step, name, entries, said)
        if history:
            parts = {value: measured(item.pipeline, item.step, f"{name}[{value}]", entries, said) for value in sorted(names)}
            return Watched(item.pipeline, item.step, item.options, item.timezone, history, parts)
    return item


def anomalies(project: Project, pipeline: PipelinePlan, *, now: datetime) -> list[Anomaly]:
    """The anomalies of a pipeline, by metric and window: those published, those that block their window, those acknowledged."""
    blocked = {key: record.error for key, record in unfinished(project.stages_dir, pipeline.name).items() if record.status == "refused"}
    found: list[Anomaly] = []
    for item in watched_histories(project, pipeline, now=now):
        said = acknowledged_at(pipeline, project.acknowledged, item.step)
        found += _published(item, said)
        found += [_blocked(item, key, error, said) for key, error in sorted(blocked.items()) if f"{item.options.metric_name} is " in error]
        known = {anomaly.window for anomaly in found if anomaly.watched is item}
        found += [
            Anomaly(item, key, one.verdict, said=one)
            for (metric, key), one in sorted(said.items())
            if metric == item.options.metric_name and key not in known
        ]
    return found


def _published(item: Watched, said: Said) -> Iterator[Anomaly]:
    inside: dict[str, list[str]] = {}
    for value, history in item.parts.items():
        for part in history:
            if part.standing is Standing.FLAGGED:
                inside.setdefault(part.key, []).append(value)
    for tested in item.history:
        if tested.standing is not Standing.USUAL or tested.key in inside:
            state: State = "open" if tested.standing in {Standing.USUAL, Standing.FLAGGED} else tested.standing.value  # type: ignore[assignment]
            one = said.get((item.options.metric_name, tested.key))
            verdict = judge(tested, item.history, item.settings)
            yield Anomaly(item, tested.key, state, verdict, tuple(inside.get(tested.key, ())), one)


def _blocked(item: Watched, key: str, error: str, said: Said) -> Anomaly:
    one = said.get((item.options.metric_name, key))
    return Anomaly(item, key, one.verdict if one else "blocked", said=one, text=error.split("\n  -> ")[0])


def unknown_acknowledgements(project: Project, watched: Sequence[Watched], pipelines: Sequence[str]) -> list[Acknowledgement]:
    """What was said of a metric that none of these pipelines has; of pipelines beside them nothing is known."""
    known = {(item.pipeline.name, item.step, item.options.metric_name) for item in watched}
    return [one for one in project.acknowledged if one.pipeline in pipelines and (one.pipeline, one.step, one.metric) not in known]
