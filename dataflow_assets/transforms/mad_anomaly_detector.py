"""The transform `mad_anomaly_detector`: marks each value that lies far from the median of the values before it, per group.

Here: the options, the columns that are added, and the streaming over groups. Not here: the formulas (`mad`), the grouping
(`transforms._groups`), the same idea as a check on a metric's history (`checks.metric_anomaly`).

Rows are judged in the order in which they arrive, not by time; a detected anomaly stays in the windows of later rows, a row whose
boolean column `is_anomaly_verified` is true does not. Missing and infinite values are neither judged nor used. Memory is bounded
by the window and one batch, with groups by 200,000 rows or the 200th part of them.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from dataflow_assets.errors import TransformFailed
from dataflow_assets.protocols import StagedInput, StepContext
from dataflow_assets.spec.models import Model, Names

if TYPE_CHECKING:
    from dataflow_assets.mad import Detector

VERIFIED = "is_anomaly_verified"
_ADDED = (
    ("group", pa.string()),
    ("mean", pa.float64()),
    ("std", pa.float64()),
    ("is_anomaly", pa.bool_()),
    ("anomaly_score", pa.float64()),
    ("anomaly_direction", pa.string()),
    ("percent_deviation", pa.float64()),
    ("lower_bound", pa.float64()),
    ("upper_bound", pa.float64()),
    ("p_value", pa.float64()),
    ("ci_length", pa.float64()),
)


class DetectorOptions(Model):
    """How values are compared with those before them."""

    value_column: str = Field("value", description="the number that is judged")
    timestamp_column: str = Field("timestamp", description="must be there; the order of the rows is the order of time")
    group_column: str = Field("group", description="each value of it is a series of its own; without such a column there is one series")
    window_size: int = Field(1440, ge=1, description="how many earlier values are looked at")
    min_window_size: int = Field(10, ge=1, description="values before which nothing is judged")
    n_sigma: float = Field(3.0, gt=0, description="how many deviations from the median are unusual")
    use_weighted: bool = Field(True, description="newer values count for more")
    weights_type: Literal["exponential", "linear"] = Field("exponential", description="how the weight falls with age")
    exp_decay_factor: float = Field(0.1, ge=0, description="how fast, for exponential weights")
    use_combined_seasonality: bool = Field(False, description="accepted, without effect")
    feature_columns: Names = Field(default_factory=list, description="accepted, without effect")

    @model_validator(mode="after")
    def _window_can_fill(self) -> Self:
        if self.min_window_size > self.window_size:
            raise ValueError(f"min_window_size {self.min_window_size} is above window_size {self.window_size}: nothing would be judged")
        return self


class Transform:
    """See `protocols.Transform`."""

    kind: ClassVar[str] = "mad_anomaly_detector"
    Options: ClassVar[type[DetectorOptions]] = DetectorOptions
    example: ClassVar[str] = """\
pipeline_name: unusual_delays
steps:
  - id: delays
    type: source
    source_type: csv
    config:
      file_path: data/delays.csv
  - id: marked
    type: processor
    processor_type: mad_anomaly_detector
    depends_on: [delays]
    config:
      value_column: mean_delay
      timestamp_column: hour
      group_column: origin
      window_size: 168
      n_sigma: 4
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [marked]
    config: {file_path: output/unusual_delays.parquet}
"""

    def __init__(self, options: DetectorOptions) -> None:
        self._options = options

    @contextmanager
    def apply(self, inputs: Mapping[str, StagedInput], context: StepContext) -> Iterator[pa.RecordBatchReader]:
        """Stream the rows of the first input with the verdict on each; totals go to `context.metadata`."""
        stage = next(iter(inputs.values()))
        self._refuse_missing(stage, context)
        kept = [item for item in stage.schema if item.name not in dict(_ADDED)]
        config = self._options.model_dump(include={"window_size", "n_sigma", "use_weighted", "use_combined_seasonality"})
        schema = pa.schema([*kept, *(pa.field(name, kind) for name, kind in _ADDED)], metadata={"detector_config": json.dumps(config)})
        context.metadata.update(detector_config=config, total_anomalies=0, anomaly_rate=0.0)
        with closing(self._judged(stage, schema, context)) as batches:
            yield pa.RecordBatchReader.from_batches(schema, batches)

    def _refuse_missing(self, stage: StagedInput, context: StepContext) -> None:
        options = self._options
        for key, name in (("value_column", options.value_column), ("timestamp_column", options.timestamp_column)):
            if name not in stage.schema.names:
                raise TransformFailed(
                    f"step {context.step}: {key} {name!r} is not in the data",
                    hint=f"set {key} to one of {', '.join(stage.schema.names)}",
                )
        kind = stage.schema.field(options.value_column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise TransformFailed(
                f"step {context.step}: value_column {options.value_column!r} holds {kind}, not numbers", hint="cast it in the query"
            )

    def _judged(self, stage: StagedInput, schema: pa.Schema, context: StepContext) -> Generator[pa.RecordBatch, None, None]:
        from dataflow_assets.mad import Detector, Settings

        options = self._options
        settings = Settings(**options.model_dump(include=set(Settings.__dataclass_fields__)))
        rows = anomalies = 0
        for name, batches in self._series(stage, context):
            detector = Detector(settings)
            for batch in batches:
                judged = _with_verdict(batch, name, detector, value_column=options.value_column, schema=schema)
                rows += judged.num_rows
                anomalies += judged.column("is_anomaly").true_count
                context.metadata.update(total_anomalies=anomalies, anomaly_rate=anomalies / max(rows, 1))
                yield judged

    def _series(self, stage: StagedInput, context: StepContext) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
        from dataflow_assets.transforms._groups import by_group

        if self._options.group_column in stage.schema.names:
            for group in by_group(stage, self._options.group_column, context.scratch):
                yield group.name, group.batches
        else:
            with stage.open_reader() as reader:
                yield "default", iter(reader)


def _with_verdict(batch: pa.RecordBatch, group: str, detector: Detector, *, value_column: str, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow.compute as pc

    values = pc.fill_null(batch.column(value_column).cast(pa.float64(), safe=False), float("nan")).to_numpy(zero_copy_only=False)
    verified = None
    if VERIFIED in batch.schema.names and pa.types.is_boolean(batch.schema.field(VERIFIED).type):
        verified = pc.fill_null(batch.column(VERIFIED), False).to_numpy(zero_copy_only=False)
    scores = detector.feed(values, verified)
    anomaly = pa.array(scores.is_anomaly)
    added = {
        "group": pa.repeat(group, batch.num_rows),
        "mean": pa.array(scores.mean),
        "std": pa.array(scores.std),
        "is_anomaly": anomaly,
        "anomaly_score": pa.array(scores.score),
        "anomaly_direction": pc.if_else(anomaly, pc.if_else(pa.array(values > scores.mean), "up", "down"), ""),
        "percent_deviation": pa.array(scores.percent_deviation),
        "lower_bound": pa.array(scores.lower_bound),
        "upper_bound": pa.array(scores.upper_bound),
        "p_value": pa.array(scores.p_value),
        "ci_length": pa.array(scores.upper_bound - scores.lower_bound),
    }
    columns = [added[item.name] if item.name in added else batch.column(item.name) for item in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
