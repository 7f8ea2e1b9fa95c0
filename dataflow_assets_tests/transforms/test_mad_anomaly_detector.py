"""The detector as a step: its columns, groups and metadata."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from dataflow_assets.errors import TransformFailed
from dataflow_assets.mad import Detector, Settings
from dataflow_assets.protocols import StepContext
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.transforms import _groups, mad_anomaly_detector
from dataflow_assets.transforms.mad_anomaly_detector import DetectorOptions, Transform
from dataflow_assets_tests.staged import context_in, staged

ADDED = ["group", "mean", "std", "is_anomaly", "anomaly_score", "anomaly_direction"]
ADDED += ["percent_deviation", "lower_bound", "upper_bound", "p_value", "ci_length"]


def apply(rows: pa.Table, folder: Path, context: StepContext | None = None, **options: Any) -> pa.Table:
    stage = staged(rows, folder)
    with Transform(DetectorOptions(**options)).apply({"rows": stage}, context or context_in(folder)) as reader:
        return reader.read_all()


def series(count: int, *, groups: list[Any] | None = None) -> pa.Table:
    generator = np.random.default_rng(5)
    values = generator.normal(100, 5, count)
    values[count // 2] = 900.0
    columns = {"timestamp": np.arange(count), "value": values}
    return pa.table({**columns, "group": groups} if groups is not None else columns)


def test_one_series_without_a_group_column(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    found = apply(series(200), tmp_path, context)
    assert found.column_names == ["timestamp", "value", *ADDED]
    assert set(found["group"].to_pylist()) == {"default"}
    row = found.slice(100, 1).to_pylist()[0]
    assert (row["is_anomaly"], row["anomaly_direction"]) == (True, "up")
    assert row["percent_deviation"] == pytest.approx((900 - row["mean"]) / row["mean"])
    assert row["ci_length"] == pytest.approx(6 * row["std"])
    assert (
        found.slice(0, 10).select(ADDED[1:]).to_pylist()
        == [{name: ("" if name == "anomaly_direction" else False if name == "is_anomaly" else 0.0) for name in ADDED[1:]}] * 10
    )
    anomalies = sum(found["is_anomaly"].to_pylist())
    config = {"window_size": 1440, "n_sigma": 3.0, "use_weighted": True, "use_combined_seasonality": False}
    assert context.metadata == {"detector_config": config, "total_anomalies": anomalies, "anomaly_rate": anomalies / 200}
    assert json.loads(found.schema.metadata[b"detector_config"]) == config


def test_a_drop_points_down(tmp_path: Path) -> None:
    values = [float(100 + number % 3) for number in range(30)] + [1.0]
    found = apply(pa.table({"timestamp": range(31), "value": values}), tmp_path)
    assert found["anomaly_direction"].to_pylist()[-1] == "down"


@pytest.mark.parametrize("limit", [1_000_000, 60, 1], ids=["memory", "files of several groups", "a file per group"])
def test_groups_are_series_of_their_own_in_sorted_order(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_groups.by_group, "__kwdefaults__", {"in_memory_rows": limit})
    names = ["b", "a", None, "c"]
    rows = series(240, groups=[names[number % 4] for number in range(240)])
    context = context_in(tmp_path)
    found = apply(rows, tmp_path, context, min_window_size=5)
    assert found["group"].to_pylist() == ["a"] * 60 + ["b"] * 60 + ["c"] * 60 + ["null"] * 60
    for place, name in enumerate(["a", "b", "c", None]):
        mine = [row for row in rows.to_pylist() if row["group"] == name]
        part = found.slice(60 * place, 60)
        assert part["timestamp"].to_pylist() == [row["timestamp"] for row in mine]
        expected = Detector(Settings(min_window_size=5)).feed(np.array([row["value"] for row in mine]))
        assert part["anomaly_score"].to_numpy() == pytest.approx(expected.score)
    assert not list(context.scratch.iterdir())


def test_groups_of_numbers_sort_as_numbers_and_the_column_stays(tmp_path: Path) -> None:
    rows = pa.table({"timestamp": range(4), "value": [1, 2, 3, 4], "shop": [10, 9, 10, 9]})
    found = apply(rows, tmp_path, group_column="shop")
    assert found["shop"].to_pylist() == [9, 9, 10, 10]
    assert found["group"].to_pylist() == ["9", "9", "10", "10"]


def test_verified_anomalies_are_left_out_of_later_windows(tmp_path: Path) -> None:
    values = [10.0, 11.0, 12.0, 11.0, 10.0, *[500.0] * 6, 11.0]
    rows = pa.table({"timestamp": range(12), "value": values, "is_anomaly_verified": [value > 100 for value in values]})
    masked = apply(rows, tmp_path, min_window_size=5, use_weighted=False)["mean"].to_pylist()[-1]
    seen = apply(rows.drop_columns(["is_anomaly_verified"]), tmp_path, min_window_size=5, use_weighted=False)["mean"].to_pylist()[-1]
    assert (masked, seen) == (11.0, 500.0)
    assert apply(rows, tmp_path, min_window_size=6)["std"].to_pylist()[-1] == 0.0, "fewer than min_window_size remain"


def test_numbers_of_any_kind_and_missing_ones(tmp_path: Path) -> None:
    for kind in (pa.int16(), pa.decimal128(10, 2)):
        values = pa.array([Decimal(number) for number in (1, 2, 3, 4)], pa.decimal128(10, 2)).cast(kind)
        found = apply(pa.table({"timestamp": range(4), "value": values}), tmp_path, min_window_size=2)
        assert found["value"].type == kind
        assert found["mean"].to_pylist() == [0.0, 0.0, 2.0, 2.0]
    missing = apply(pa.table({"timestamp": range(4), "value": [1.0, None, float("nan"), 4.0]}), tmp_path, min_window_size=1)
    assert missing["mean"].to_pylist() == [0.0, 0.0, 0.0, 1.0]


def test_columns_of_the_same_name_are_replaced(tmp_path: Path) -> None:
    found = apply(pa.table({"mean": ["x"], "timestamp": [1], "value": [1.0]}), tmp_path)
    assert found.column_names == ["timestamp", "value", *ADDED]


def test_no_rows(tmp_path: Path) -> None:
    for rows in (series(4), series(4, groups=["a"] * 4)):
        context = context_in(tmp_path)
        found = apply(rows.slice(0, 0), tmp_path, context)
        assert (found.num_rows, found.column_names[-11:]) == (0, ADDED)
        assert (context.metadata["total_anomalies"], context.metadata["anomaly_rate"]) == (0, 0.0)


def test_a_missing_or_textual_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=r"value_column 'value' is not in the data\n  -> set value_column to one of timestamp, v"):
        apply(pa.table({"timestamp": [1], "v": [1.0]}), tmp_path)
    with pytest.raises(TransformFailed, match="timestamp_column 'timestamp' is not in the data"):
        apply(pa.table({"value": [1.0]}), tmp_path)
    with pytest.raises(TransformFailed, match="holds string, not numbers"):
        apply(pa.table({"timestamp": [1], "value": ["x"]}), tmp_path)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError, match="nothing would be judged"):
        DetectorOptions(window_size=5)
    with pytest.raises(ValidationError, match="'exponential' or 'linear'"):
        DetectorOptions.model_validate({"weights_type": "quadratic"})


def test_the_example_is_valid() -> None:
    pipeline = PipelineModel.model_validate(yaml.safe_load(Transform.example))
    step = next(step for step in pipeline.steps if step.kind == mad_anomaly_detector.Transform.kind)
    assert DetectorOptions.model_validate(step.config).window_size == 168
