"""The detector as a step: its columns, groups and metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from pydantic import ValidationError

from dataflow_assets.errors import TransformFailed
from dataflow_assets.mad import Detector, Settings
from dataflow_assets.protocols import StepContext
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.transforms import _groups, _seasons, mad_anomaly_detector
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


def hourly(days: int, *, spike: int | None = None) -> pa.Table:
    """Quiet nights, busy days; the spike is a night as busy as a day."""
    generator = np.random.default_rng(11)
    hour = np.arange(24 * days) % 24
    value = np.where(hour < 8, 10.0, 100.0) + generator.normal(0, 2, len(hour))
    if spike is not None:
        value[spike] = 100.0
    weekday = np.arange(24 * days) // 24 % 7
    return pa.table({"timestamp": np.arange(len(hour)), "value": value, "hour": hour, "weekday": weekday})


def test_a_season_finds_what_the_whole_hides(tmp_path: Path) -> None:
    rows, night = hourly(40, spike=24 * 39 + 3), 24 * 39 + 3
    options = {"use_weighted": False, "n_sigma": 6}
    assert apply(rows, tmp_path, **options)["is_anomaly"][night].as_py() is False
    found = apply(rows, tmp_path, feature_columns=["hour"], **options)
    assert found.column_names == [*rows.column_names, *ADDED, "seasonality"]
    row = found.slice(night, 1).to_pylist()[0]
    assert (row["is_anomaly"], row["anomaly_direction"], row["seasonality"]) == (True, "up", "hour=3")
    same_hour = [value for value, hour in zip(rows["value"].to_pylist(), rows["hour"].to_pylist(), strict=True) if hour == 3]
    expected = Detector(Settings(use_weighted=False, n_sigma=6)).feed(np.array(same_hour))
    mine = found.filter(pc.equal(found["hour"], 3))
    assert mine["anomaly_score"].to_numpy() == pytest.approx(expected.score), "the window is taken among rows of the season"


def test_features_each_on_their_own_or_combined(tmp_path: Path) -> None:
    """A loud Sunday is explained by the weekday alone, a loud night by the hour alone, together each has its own history."""
    rows = hourly(70)
    value = rows["value"].to_numpy().copy()
    sunday = rows["weekday"].to_numpy() == 6
    value[sunday] = 300.0 + np.random.default_rng(1).normal(0, 2, int(sunday.sum()))
    rows = rows.set_column(1, "value", pa.array(value))
    options = {"use_weighted": False, "n_sigma": 8, "feature_columns": ["hour", "weekday"], "min_window_size": 5}
    own = apply(rows, tmp_path, **options).slice(24 * 60)
    explained = {row["seasonality"].split("=")[0] for row in own.to_pylist() if row["weekday"] == 6}
    assert explained == {"weekday"}
    assert {row["seasonality"].split("=")[0] for row in own.to_pylist() if row["weekday"] != 6 and row["hour"] < 8} == {"hour"}
    assert not any(own["is_anomaly"].to_pylist())
    both = apply(rows, tmp_path, use_combined_seasonality=True, **options)
    assert set(both["seasonality"].to_pylist()) == {f"hour={hour}, weekday={day}" for hour in range(24) for day in range(7)}
    assert both["std"].to_pylist()[:120] == [0.0] * 120, "a combined season of an hour a week is slow to learn"
    assert both["std"].to_pylist()[-1] > 0
    single = apply(rows, tmp_path, **options | {"feature_columns": "hour"})
    assert (
        single["mean"].to_pylist()
        == apply(rows, tmp_path, use_combined_seasonality=True, **options | {"feature_columns": "hour"})["mean"].to_pylist()
    )


def test_seasons_within_groups_over_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_groups.by_group, "__kwdefaults__", {"in_memory_rows": 90})
    monkeypatch.setattr(_groups, "BATCH_ROWS", 17)
    count = 400
    generator = np.random.default_rng(2)
    group, season = generator.integers(0, 6, count), generator.integers(0, 3, count)
    group[:150] = 4
    kinds = pa.array(season).cast(pa.string()).dictionary_encode()
    rows = pa.table({"timestamp": np.arange(count), "value": generator.normal(size=count), "group": group, "season": kinds})
    found = apply(rows, tmp_path, group_column="group", feature_columns=["season"], min_window_size=3).sort_by("timestamp")
    assert found.num_rows == count
    scores = found["anomaly_score"].to_numpy()
    for one in range(6):
        for other in range(3):
            mine = (group == one) & (season == other)
            expected = Detector(Settings(min_window_size=3)).feed(rows["value"].to_numpy()[mine])
            assert scores[mine] == pytest.approx(expected.score)


def test_a_season_without_spread_does_not_hide_an_anomaly(tmp_path: Path) -> None:
    """Of a season of constant values nothing can be said of another value: the other season speaks. The same value again is explained."""
    constant = [5.0] * 12
    noisy = [float(100 + number % 5) for number in range(12)]
    columns = {"timestamp": range(25), "a": ["c"] * 12 + ["n"] * 12 + ["c"], "b": ["x"] * 12 + ["y"] * 13}
    options = {"feature_columns": ["a", "b"], "use_weighted": False}
    other = apply(pa.table({**columns, "value": [*constant, *noisy, 900.0]}), tmp_path, **options).to_pylist()[-1]
    assert (other["is_anomaly"], other["seasonality"]) == (True, "b=y")
    same = apply(pa.table({**columns, "value": [*constant, *noisy, 5.0]}), tmp_path, **options).to_pylist()[-1]
    assert (same["is_anomaly"], same["seasonality"]) == (False, "a=c")


def test_nothing_is_judged_before_every_season_knows_enough(tmp_path: Path) -> None:
    """An ordinary night is unusual for its weekday, which has a day's rows after a week; its hour knows seven."""
    rows = hourly(14)
    options = {"use_weighted": False, "n_sigma": 8, "feature_columns": ["hour", "weekday"]}
    assert any(apply(rows, tmp_path, **options | {"feature_columns": ["weekday"]})["is_anomaly"].to_pylist())
    found = apply(rows, tmp_path, **options)
    assert not any(found["is_anomaly"].to_pylist())
    early = found.slice(24 * 8, 24)
    assert set(early["mean"].to_pylist()) == {0.0}
    assert {name.split("=")[0] for name in early["seasonality"].to_pylist()} == {"hour"}
    assert min(found.slice(24 * 12)["mean"].to_pylist()) > 0


def test_feature_columns_that_are_no_season_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransformFailed, match="feature_columns 'hour' is not in the data"):
        apply(series(4), tmp_path, feature_columns=["hour"])
    nested = pa.table({"timestamp": [1], "value": [1.0], "parts": [[1]]})
    with pytest.raises(TransformFailed, match=r"'parts' holds list<.*>, which is no season"):
        apply(nested, tmp_path, feature_columns=["parts"])
    monkeypatch.setattr(_seasons, "MOST_SEASONS", 3)
    with pytest.raises(TransformFailed, match="timestamp have more than 3 different values\n  -> a season must come back"):
        apply(series(4), tmp_path, feature_columns=["timestamp"])


def test_a_column_that_is_called_seasonality_stays_without_features(tmp_path: Path) -> None:
    found = apply(pa.table({"seasonality": ["x"], "timestamp": [1], "value": [1.0]}), tmp_path)
    assert found["seasonality"].to_pylist() == ["x"]


BEYOND = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from dataflow_assets.protocols import StagedInput
from dataflow_assets.transforms.mad_anomaly_detector import DetectorOptions, Transform
from dataflow_assets_tests.staged import context_in

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

folder, batches = Path(sys.argv[1]), int(sys.argv[2])
schema = pa.schema([("timestamp", pa.int64()), ("value", pa.float64()), ("group", pa.int32()), ("hour", pa.int8())])
generator = np.random.default_rng(1)
with pq.ParquetWriter(folder / "rows.parquet", schema) as writer:
    for number in range(batches):
        at = np.arange(number * 8192, number * 8192 + 8192)
        columns = [at, generator.normal(size=8192), generator.integers(0, 300, 8192).astype("int32"), (at % 24).astype("int8")]
        writer.write_batch(pa.record_batch(columns, schema=schema))
stage = StagedInput("rows", schema, batches * 8192, (str(folder / "rows.parquet"),))
options = DetectorOptions(feature_columns=["hour"], window_size=60)
rows = 0
with Transform(options).apply({"rows": stage}, context_in(folder)) as reader:
    for batch in reader:
        rows += batch.num_rows
assert rows == batches * 8192, rows
print(peak())
"""


def test_memory_is_bounded_at_fifty_times_the_batch(tmp_path: Path) -> None:
    """With groups in files and seasons within them."""

    def peak(batches: int) -> int:
        argv = [sys.executable, "-c", BEYOND, str(tmp_path), str(batches)]
        return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    one, many = peak(1), peak(50)
    assert many - one < 200, f"{one} MB, then {many} MB for fifty times the rows"


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
