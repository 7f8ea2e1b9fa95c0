"""The check `metric_anomaly`: numbers of a dataset, each compared with its own history.

Here: the options and the run over several metrics. Not here: one metric (`checks._metric`), the same `anomaly:` among the rules of
a validator (`checks.validator`), marking single rows (`transforms.mad_anomaly_detector`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import pyarrow as pa
from pydantic import Field, model_validator

from dataflow_assets.checks._anomaly import AnomalyOptions
from dataflow_assets.checks._metric import MetricRun
from dataflow_assets.protocols import CheckPromise, CheckResult, StagedInput, StepContext
from dataflow_assets.spec.base import Model


class AnomalyItem(Model):
    """One item of `checks:`."""

    anomaly: AnomalyOptions = Field(description="one metric")


class MetricOptions(Model):
    """One metric as `anomaly`, or several under `checks`."""

    anomaly: AnomalyOptions | None = Field(None, description="one metric")
    checks: list[AnomalyItem] = Field(default_factory=list, description="several metrics: a list of anomaly items")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        names = [metric.metric_name for metric in self.metrics()]
        if not names:
            raise ValueError("nothing to measure: add `anomaly: {metric: row_count}`")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two metrics are named {repeated[0]!r}: give one another `name`")
        return self

    def metrics(self) -> list[AnomalyOptions]:
        """Every metric, in the order written."""
        return [*([self.anomaly] if self.anomaly else []), *(item.anomaly for item in self.checks)]


class MetricsRun:
    """Several metrics over one stream; see `protocols.CheckRun`."""

    def __init__(self, runs: list[MetricRun]) -> None:
        self._runs = runs

    def update(self, batch: pa.RecordBatch) -> None:
        """See the next batch."""

    def finish(self, stage: StagedInput) -> list[CheckResult]:
        """One result per metric."""
        return [run.finish(stage) for run in self._runs]


class Check:
    """See `protocols.Check`."""

    kind: ClassVar[str] = "metric_anomaly"
    Options: ClassVar[type[MetricOptions]] = MetricOptions
    example: ClassVar[str] = """\
pipeline_name: watched_flights
windows: {every: day, begin: 2013-01-01, timezone: America/New_York}
event_time_column: time_hour
steps:
  - id: flights
    type: source
    source_type: csv
    config:
      file_path: data/flights.csv
  - id: usual
    type: check
    kind: metric_anomaly
    depends_on: [flights]
    config:
      anomaly:
        metric: avg(case when dep_time is null then 1.0 else 0.0 end)
        name: cancelled_share
        direction: up
        min_change: 0.05
        explain_by: origin
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [usual]
    config: {file_path: output/watched_flights.parquet}
"""

    def __init__(self, options: MetricOptions) -> None:
        self._metrics = options.metrics()

    @property
    def promises(self) -> Sequence[CheckPromise]:
        """The asset checks it makes, such as `row_count_anomaly`."""
        return [metric.promise for metric in self._metrics]

    def begin(self, schema: pa.Schema, context: StepContext) -> MetricsRun:
        """Start over one stream of this schema."""
        return MetricsRun([MetricRun(metric, context) for metric in self._metrics])
