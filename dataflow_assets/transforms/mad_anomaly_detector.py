"""The transform `mad_anomaly_detector`: marks each value that lies far from the median of the values before it, per group.

Here: the options, the columns that are added, and the streaming over groups. Not here: the formulas (`mad`), the grouping
(`transforms._groups`), seasons (`transforms._seasons`), the same idea as a check on a metric's history (`checks.metric_anomaly`).

Rows are judged in the order in which they arrive, not by time; a detected anomaly stays in the windows of later rows, a row whose
boolean column `is_anomaly_verified` is true does not. Missing and infinite values are neither judged nor used. Memory is bounded
by the window, for each season of one group, and one batch; with groups by 200,000 rows or the 200th part of them.
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
from dataflow_assets.spec.base import Model, Names

if TYPE_CHECKING:
    from dataflow_assets.mad import Scores
    from dataflow_assets.mad.formulas import Floats, Mask
    from dataflow_assets.transforms._groups import Grouped

VERIFIED = "is_anomaly_verified"
SEASON = "seasonality"
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
    feature_columns: Names = Field(
        default_factory=list, description="columns such as an hour or a weekday: a row is compared with rows of the same value only"
    )
    use_combined_seasonality: bool = Field(False, description="compare rows that are alike in all feature_columns, not in each on its own")

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
        added = [*_ADDED, (SEASON, pa.string())] if self._options.feature_columns else _ADDED
        kept = [item for item in stage.schema if item.name not in dict(added)]
        config = self._options.model_dump(include={"window_size", "n_sigma", "use_weighted", "use_combined_seasonality"})
        schema = pa.schema([*kept, *(pa.field(name, kind) for name, kind in added)], metadata={"detector_config": json.dumps(config)})
        context.metadata.update(detector_config=config, total_anomalies=0, anomaly_rate=0.0)
        with closing(self._judged(stage, schema, context)) as batches:
            yield pa.RecordBatchReader.from_batches(schema, batches)

    def _refuse_missing(self, stage: StagedInput, context: StepContext) -> None:
        options = self._options
        wanted = [("value_column", options.value_column), ("timestamp_column", options.timestamp_column)]
        for key, name in (*wanted, *(("feature_columns", name) for name in options.feature_columns)):
            if name not in stage.schema.names:
                raise TransformFailed(
                    f"step {context.step}: {key} {name!r} is not in the data",
                    hint=f"set {key} to one of {', '.join(stage.schema.names)}",
                )
        for name in options.feature_columns:
            if pa.types.is_nested(kind := stage.schema.field(name).type) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                raise TransformFailed(f"step {context.step}: feature column {name!r} holds {kind}, which is no season")
        kind = stage.schema.field(options.value_column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise TransformFailed(
                f"step {context.step}: value_column {options.value_column!r} holds {kind}, not numbers", hint="cast it in the query"
            )

    def _judged(self, stage: StagedInput, schema: pa.Schema, context: StepContext) -> Generator[pa.RecordBatch, None, None]:
        judge = _Judge(self._options, rows=stage.rows, step=context.step)
        rows = anomalies = 0
        for grouped in self._grouped(stage, context):
            judged = judge.verdict(grouped, schema)
            rows += judged.num_rows
            anomalies += judged.column("is_anomaly").true_count
            context.metadata.update(total_anomalies=anomalies, anomaly_rate=anomalies / max(rows, 1))
            yield judged

    def _grouped(self, stage: StagedInput, context: StepContext) -> Iterator[Grouped]:
        import numpy as np

        from dataflow_assets.transforms._groups import Grouped, by_group

        if self._options.group_column in stage.schema.names:
            yield from by_group(stage, self._options.group_column, context.scratch)
        else:
            with stage.open_reader() as reader:
                for rows in reader:
                    yield Grouped(rows, np.zeros(rows.num_rows, dtype=np.int64), pa.array(["default"]))


class _Judge:
    """The verdict on each row of rows that come group by group."""

    def __init__(self, options: DetectorOptions, *, rows: int, step: str) -> None:
        from dataflow_assets.mad import Detector, Settings
        from dataflow_assets.transforms._seasons import Seasons

        self._options = options
        settings = Settings(**options.model_dump(include=set(Settings.__dataclass_fields__)))
        columns = options.feature_columns
        together = [columns] if options.use_combined_seasonality and columns else [[name] for name in columns]
        self._seasons = [(Seasons(names, step), Detector(settings, rows=rows)) for names in together]
        self._detector = Detector(settings, rows=rows)

    def verdict(self, grouped: Grouped, schema: pa.Schema) -> pa.RecordBatch:
        """The rows with the columns of `schema`."""
        import pyarrow.compute as pc

        rows = grouped.rows
        values = pc.fill_null(rows.column(self._options.value_column).cast(pa.float64(), safe=False), float("nan"))
        values = values.to_numpy(zero_copy_only=False)
        verified = None
        if VERIFIED in rows.schema.names and pa.types.is_boolean(rows.schema.field(VERIFIED).type):
            verified = pc.fill_null(rows.column(VERIFIED), False).to_numpy(zero_copy_only=False)
        scores, seasons = self._scores(grouped, values, verified)
        added = {"group": grouped.group_names(), **_columns(values, scores)}
        if seasons is not None:
            added[SEASON] = seasons
        return pa.RecordBatch.from_arrays(
            [added[item.name] if item.name in added else rows.column(item.name) for item in schema], schema=schema
        )

    def _scores(self, grouped: Grouped, values: Floats, verified: Mask | None) -> tuple[Scores, pa.Array | None]:
        from dataflow_assets.transforms._seasons import MOST_SEASONS, least_unusual

        if not self._seasons:
            scores = self._detector.feed(values, verified, grouped.groups)
            self._detector.forget(before=int(grouped.groups[-1]) if len(values) else 0)
            return scores, None
        found, names = [], []
        for seasons, detector in self._seasons:
            number, name = seasons.number(grouped.rows)
            found.append(detector.feed(values, verified, grouped.groups * MOST_SEASONS + number))
            names.append(name)
            detector.forget(before=int(grouped.groups[-1]) * MOST_SEASONS if len(values) else 0)
        return least_unusual(found, names, values)


def _columns(values: Floats, scores: Scores) -> dict[str, pa.Array]:
    import pyarrow.compute as pc

    anomaly = pa.array(scores.is_anomaly)
    return {
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
