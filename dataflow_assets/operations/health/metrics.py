"""The figures in the text format of Prometheus, by prometheus_client.

Here: names, labels and help texts; durations in seconds, sizes in bytes, counters end in `_total`. Not here: where figures come from
(`figures`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflow_assets.operations.health.figures import BUCKETS, STATES, Figures
from dataflow_assets.operations.health.verdict import Verdict
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.tables import utc_now

PREFIX = "dataflow_"


class Metrics(Collector):
    """What Prometheus collects: the figures and the verdict of the moment. Reads nothing that could make it wait."""

    def __init__(self, figures: Figures, verdict: Callable[[], Verdict | None], *, now: Callable[[], datetime] = utc_now) -> None:
        self._figures, self._verdict, self._now = figures, verdict, now

    def registry(self) -> CollectorRegistry:
        """A registry of these metrics alone."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Every metric with its samples."""
        with self._figures.lock:
            found = [*self._health(), *self._attempts(), *self._runs(), *self._windows()]
        yield _gauge("build_info", "The versions at work; always 1.", ("version", "dagster", "python"), {_build(): 1.0})
        yield from found

    def _health(self) -> Iterator[Metric]:
        verdict = self._verdict()
        answers = {(answer.question,): float(answer.state != "failed") for answer in verdict.answers} if verdict else {}
        yield _gauge("ready", "Whether /readyz answers 200.", (), {(): float(bool(verdict and verdict.ready))})
        yield _gauge("health_check", "Whether each check of readiness passes.", ("check",), answers)
        sources = {(name,): float(works) for name, works in self._figures.sources.items()}
        yield _gauge("source_up", "Whether what the figures come from answered last time.", ("source",), sources)
        ages = {(name,): self._age(at) for name, at in self._figures.daemons.items()}
        yield _gauge("daemon_heartbeat_age_seconds", "How long ago each of Dagster's daemons was heard of.", ("daemon",), ages)
        if self._figures.stage_disk is not None:
            free, size = self._figures.stage_disk
            yield _gauge("stage_disk_free_bytes", "Free bytes of the disk of the stages.", (), {(): float(free)})
            yield _gauge("stage_disk_size_bytes", "Bytes of the disk of the stages.", (), {(): float(size)})

    def _attempts(self) -> Iterator[Metric]:
        figures = self._figures
        one = ("pipeline",)
        yield _counter("attempts", "Attempts at windows that have ended, by outcome.", ("pipeline", "status"), figures.attempts)
        yield _counter("rows_published", "Rows that attempts have published.", one, _by_name(figures.rows))
        yield _counter("bytes_staged", "Bytes that attempts have staged.", one, _by_name(figures.bytes))
        yield _counter("retries", "Attempts at windows at which an earlier attempt had failed.", one, _by_name(figures.retries))
        histogram = HistogramMetricFamily(f"{PREFIX}attempt_duration_seconds", "How long attempts took.", labels=one)
        for name, durations in figures.durations.items():
            bounds = [*map(str, BUCKETS), "+Inf"]
            histogram.add_metric((name,), list(zip(bounds, accumulate(durations.counts), strict=True)), durations.total)
        yield histogram
        yield _gauge("attempts_running", "Attempts at work.", one, _by_name(figures.running))
        ages = {(name,): self._age(at) for name, at in figures.heartbeats.items()}
        yield _gauge("heartbeat_age_seconds", "How long ago the quietest worker of a pipeline was heard of.", one, ages)

    def _runs(self) -> Iterator[Metric]:
        figures = self._figures
        yield _counter("runs", "Dagster runs that have ended, by status.", ("pipeline", "status"), figures.runs)
        yield _gauge("runs_under_way", "Dagster runs that have not ended, by status.", ("status",), _by_name(figures.under_way))
        yield _gauge("alerts_open", "Incidents that are not over.", ("pipeline", "event"), figures.open_alerts)
        yield _gauge("alerts_waiting", "Messages that a channel has not taken.", ("channel",), _by_name(figures.waiting_alerts))
        labels = ("pipeline", "check", "kind")
        yield _counter("check_failures", "Checks that did not pass: check_failure, check_warning or anomaly.", labels, figures.checks)

    def _windows(self) -> Iterator[Metric]:
        figures, verdict = self._figures, self._verdict()
        datasets = _datasets(verdict.plan if verdict else None)
        lag = {
            (name, dataset): self._age(found.newest.end)
            for name, found in figures.datasets.items()
            if found.newest is not None
            for dataset in datasets.get(name, ("",))
        }
        yield _gauge("window_lag_seconds", "Now less the end of the newest published window.", ("pipeline", "dataset"), lag)
        states = {(name, state): float(found.states.get(state, 0)) for name, found in figures.datasets.items() for state in STATES}
        yield _gauge("windows", "Windows that are expected by now, by state, as the ledgers say.", ("pipeline", "state"), states)
        ages = {(name,): self._age(found.at) for name, found in figures.datasets.items()}
        yield _gauge("ledger_age_seconds", "How old what is said of a pipeline's windows is.", ("pipeline",), ages)

    def _age(self, moment: datetime) -> float:
        return max((self._now() - moment).total_seconds(), 0.0)


def _build() -> tuple[str, ...]:
    return version("dataflow-assets"), version("dagster"), platform.python_version()


def _datasets(plan: ProjectPlan | None) -> dict[str, tuple[str, ...]]:
    """Pipeline -> what its endpoints write, by table or, where the name depends on the window, by step."""
    pipelines = plan.pipelines if plan else ()
    return {pipeline.name: tuple(step.table or step.id for step in pipeline.endpoints) for pipeline in pipelines}


def _by_name(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(name,): float(value) for name, value in values.items()}


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
