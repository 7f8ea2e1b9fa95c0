"""Rules about one number of a dataset: exact sums, limits and their ends, freshness, conditions on aggregates."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.protocols import CheckResult
from dataflow_assets.windows import Window
from dataflow_assets_tests.staged import context_in, staged, verdicts

NOW = datetime(2024, 3, 10, 12, tzinfo=UTC)


def one(rule: dict[str, Any], values: list[Any], kind: pa.DataType, folder: Path, **context: Any) -> CheckResult:
    table = pa.table({"a": pa.array(values, kind), "g": pa.array([number % 2 for number in range(len(values))])})
    (result,) = verdicts(
        {"checks": [rule]},
        staged(table, folder),
        replace(context_in(folder), **context),
        batches=table.to_batches(max_chunksize=2),
    ).values()
    json.dumps(result.metadata, allow_nan=False)
    return result


BIG = 2**62


@pytest.mark.parametrize(
    ("check", "limits", "values", "kind", "passed", "shown"),
    [
        ("sum", {"min_value": 4 * BIG, "max_value": 4 * BIG}, [BIG] * 4, pa.int64(), True, 4 * BIG),
        ("sum", {"above": 4 * BIG}, [BIG] * 4, pa.int64(), False, 4 * BIG),
        ("sum", {"max_value": 2**66}, [2**64 - 1] * 3, pa.uint64(), True, 3 * (2**64 - 1)),
        ("sum", {"min_value": 0.3, "max_value": 0.3}, [Decimal("0.1"), Decimal("0.2"), None], pa.decimal128(20, 1), True, "0.3"),
        ("sum", {"min_value": 1}, [0.5, None, 0.5], pa.float64(), True, 1.0),
        ("sum", {"min_value": 1}, [float("nan"), 5.0], pa.float64(), False, "nan"),
        ("mean", {"min_value": 2, "max_value": 2}, [1, None, 3], pa.int8(), True, 2),
        ("mean", {"below": 2}, [1, None, 3], pa.int8(), False, 2),
        ("mean", {"above": 1.5}, [1.5, 1.5], pa.float32(), False, 1.5),
        ("min", {"min_value": 2}, [5, 3, None, 2], pa.int16(), True, 2),
        ("min", {"above": 2}, [5, 3, None, 2], pa.int16(), False, 2),
        ("max", {"below": "2024-01-03"}, [date(2024, 1, 1), date(2024, 1, 2)], pa.date32(), True, "2024-01-02"),
        ("max", {"max_value": "b"}, ["a", "c"], pa.string(), False, "c"),
        ("max", {"max_value": 5}, [1.0, float("nan")], pa.float64(), False, "nan"),
        ("distinct_count", {"min_value": 2, "max_value": 2}, ["x", "y", "x", None, "y"], pa.string(), True, 2),
        ("distinct_count", {"above": 2}, [0.0, -0.0, 1.0], pa.float64(), False, 2),
        ("mean", {"min_value": 5}, [None, None], pa.int64(), True, None),
        ("sum", {"min_value": 5}, [], pa.int64(), True, None),
    ],
)
def test_aggregates_are_exact(check: str, limits: Any, values: Any, kind: pa.DataType, passed: bool, shown: Any, tmp_path: Path) -> None:
    result = one({"check": check, "column": "a", **limits}, values, kind, tmp_path)
    assert (result.passed, result.metadata["value"]) == (passed, shown), result.description


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9), max_size=20))
def test_sums_and_distinct_values_agree_with_python(values: list[int | None], tmp_path: Path) -> None:
    there = [value for value in values if value is not None]
    total = one({"check": "sum", "column": "a", "max_value": sum(there)}, values, pa.int64(), tmp_path)
    distinct = one({"check": "distinct_count", "column": "a", "below": len(set(there))}, values, pa.int64(), tmp_path)
    assert (total.passed, total.metadata["value"]) == (True, sum(there) if there else None)
    assert (distinct.passed, distinct.metadata["value"]) == (False, len(set(there)))


def test_where_limits_what_is_measured(tmp_path: Path) -> None:
    limited = {"where": "g = 1"}
    assert one({"check": "sum", "column": "a", "max_value": 6, **limited}, [1, 2, 3, 4], pa.int64(), tmp_path).passed
    assert one({"check": "row_count", "max_rows": 2, **limited}, [1, 2, 3, 4], pa.int64(), tmp_path).passed
    assert not one({"sql": "sum(a) > 6", **limited}, [1, 2, 3, 4], pa.int64(), tmp_path).passed


@pytest.mark.parametrize(
    ("rule", "values", "kind", "reason"),
    [
        ({"check": "sum", "column": "a", "min_value": 0}, ["x"], pa.string(), "values of type string have no sum"),
        ({"check": "min", "column": "a", "min_value": 0}, [True], pa.bool_(), "values of type bool have no order"),
        ({"check": "mean", "column": "a", "min_value": "much"}, [1], pa.int64(), "the limit 'much' is not a number"),
        ({"check": "max", "column": "a", "max_value": 3}, [date(2024, 1, 1)], pa.date32(), "write a date or timestamp"),
        ({"column": "a", "max_age": "1h"}, [1], pa.int64(), "values of type int64 have no age"),
        ({"sql": "sum(b) > 0"}, [1], pa.int64(), "column 'b' is not in the data"),
        ({"sql": "sum(a)"}, [1], pa.int64(), "not true or false"),
        ({"sql": "sum(a || 'x') > 1"}, [1], pa.int64(), "sum(a || 'x') > 1: No function matches"),
    ],
)
def test_a_number_that_cannot_be_had_fails_with_the_reason(
    rule: dict[str, Any], values: Any, kind: Any, reason: str, tmp_path: Path
) -> None:
    result = one(rule, values, kind, tmp_path)
    assert not result.passed
    assert reason in result.description


WINDOW = Window(datetime(2024, 3, 9, tzinfo=UTC), datetime(2024, 3, 10, tzinfo=UTC))
OPEN = Window(datetime(2024, 3, 10, tzinfo=UTC), datetime(2024, 3, 11, tzinfo=UTC))
EVENING = datetime(2024, 3, 9, 23, 30)


@pytest.mark.parametrize(
    ("rule", "newest", "kind", "context", "passed", "said"),
    [
        ({"max_age": "13h"}, EVENING, pa.timestamp("ms"), {}, True, "12:30:00 ago"),
        ({"max_age": "12h"}, EVENING, pa.timestamp("ns", "UTC"), {}, False, "12:30:00 ago, more than 12h"),
        ({"max_age": "30min"}, EVENING, pa.timestamp("us"), {"window": WINDOW}, True, "0:30:00 before the end of the window"),
        ({"max_age": "30min", "relative_to": "now"}, EVENING, pa.timestamp("us"), {"window": WINDOW}, False, "12:30:00 ago"),
        ({"max_age": "13h"}, EVENING, pa.timestamp("us"), {"window": OPEN}, True, "12:30:00 ago"),
        ({"max_age": "13h", "relative_to": "window_end"}, EVENING, pa.timestamp("us"), {"window": OPEN}, False, "before the end"),
        ({"max_age": "1d"}, date(2024, 3, 9), pa.date32(), {}, False, "1 day, 12:00:00 ago"),
        ({"max_age": "1d"}, date(2024, 3, 11), pa.date64(), {}, True, "-12:00:00 ago"),
        ({"max_age": "1d"}, None, pa.date32(), {}, False, "nothing is fresh, there is no value in 2 rows"),
    ],
)
def test_freshness(rule: Any, newest: Any, kind: pa.DataType, context: Any, passed: bool, said: str, tmp_path: Path) -> None:
    values = [newest, datetime(2024, 1, 1) if newest is not None else None]
    if pa.types.is_date(kind) and newest is not None:
        values[1] = date(2024, 1, 1)
    result = one({"column": "a", **rule}, values, kind, tmp_path, now=NOW, **context)
    assert (result.passed, result.name) == (passed, "a_freshness")
    assert said in result.description


def test_conditions_on_aggregates_tell_each_value(tmp_path: Path) -> None:
    rule = {"sql": "sum(a) = 2 * count(*) and median(a) < max(a)", "name": "balanced"}
    result = one(rule, [1, 3, 5], pa.int64(), tmp_path)
    assert (result.name, result.passed) == ("balanced", False)
    assert result.metadata["values"] == {"sum(a)": "9", "count(*)": 3, "median(a)": 3.0, "max(a)": 5}
    assert result.description.endswith("does not hold: sum(a) is 9, count(*) is 3, median(a) is 3.0, max(a) is 5")
    assert one({"sql": "sum(a) > 0"}, [], pa.int64(), tmp_path).passed, "null is no failure"
    filtered = one({"sql": "sum(a) filter (where g = 1) = 3 and entropy(a) > 0"}, [1, 3, 5], pa.int64(), tmp_path)
    assert (filtered.passed, list(filtered.metadata["values"].values())) == (True, ["3"])
