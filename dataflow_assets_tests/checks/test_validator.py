"""The validator against real stages: verdicts, counts, samples, exact comparisons, and rules that do not fit the data."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.protocols import CheckResult, Severity
from dataflow_assets_tests.staged import context_in, staged, verdicts

FLIGHTS = pa.table(
    {
        "origin": ["EWR", "JFK", None, "LAX"],
        "delay": pa.array([5, None, -3, 900], pa.int32()),
        "price": pa.array([Decimal("1.10"), Decimal("2.00"), None, Decimal("-0.01")], pa.decimal128(10, 2)),
        "day": pa.array([date(2013, 2, 8), date(2013, 2, 9), None, date(2014, 1, 1)]),
    }
)


def one(rule: dict[str, Any], table: pa.Table, folder: Path) -> CheckResult:
    (result,) = verdicts({"checks": [rule]}, staged(table, folder), context_in(folder)).values()
    return result


def column(values: list[Any], kind: pa.DataType) -> pa.Table:
    return pa.table({"a": pa.array(values, kind)})


def test_all_rules_see_one_pass_and_report_counts_and_rows(tmp_path: Path) -> None:
    results = verdicts(
        {
            "required_columns": ["origin", "delay"],
            "row_count_min": 1,
            "row_count_max": 3,
            "schema_check": True,
            "checks": [
                {"column": "origin", "allowed_values": ["EWR", "JFK", "LGA"], "description": "only New York"},
                {"column": "delay", "min_value": -10, "max_value": 600, "not_null": True, "severity": "warn"},
                {"column": "price", "min_value": 0, "blocking": False},
            ],
        },
        staged(FLIGHTS, tmp_path),
        context_in(tmp_path),
    )
    assert {name: (result.passed, result.checked, result.failed) for name, result in results.items()} == {
        "required_columns": (True, 2, 0),
        "row_count": (False, 4, 0),
        "schema_check": (False, 4, 2),
        "origin_accepted_values": (False, 4, 1),
        "delay_not_null": (False, 4, 1),
        "delay_range": (False, 4, 1),
        "price_range": (False, 4, 1),
    }
    assert results["origin_accepted_values"].samples == ({"origin": "LAX", "delay": 900, "price": "-0.01", "day": "2014-01-01"},)
    assert results["origin_accepted_values"].description == "only New York: origin: 1 of 4 rows (25 %) are not one of EWR, JFK, LGA"
    assert results["row_count"].description == "4 rows, more than the 3 expected at most"
    assert results["schema_check"].description == "nulls in required columns: origin (1), delay (1)"
    assert results["delay_range"].description == "delay: 1 of 4 rows (25 %) are not between -10 and 600 (observed -3 to 900)"
    assert results["delay_range"].severity is Severity.WARN
    assert not results["price_range"].blocking
    assert results["price_range"].metadata == {
        "rule": "range",
        "column": "price",
        "nulls": 1,
        "min": "-0.01",
        "max": "2.00",
        "frequent_values": [{"value": "-0.01", "rows": 1}],
        "failed_share": 0.25,
    }


def test_an_empty_stage_passes_all_but_the_row_count(tmp_path: Path) -> None:
    checks = [{"column": "delay", "min_value": 0, "unique": True, "not_null": True}, {"column": "origin", "regex": "x", "max_length": 1}]
    stage = staged(FLIGHTS.slice(0, 0), tmp_path)
    results = verdicts({"row_count_min": 1, "required_columns": ["origin"], "checks": checks}, stage, context_in(tmp_path))
    assert [name for name, result in results.items() if not result.passed] == ["row_count"]
    assert results["row_count"].description == "0 rows, fewer than the 1 expected at least"


def test_a_missing_column_fails_with_near_names(tmp_path: Path) -> None:
    stage, context = staged(FLIGHTS, tmp_path), context_in(tmp_path)
    checks = [{"column": "Dely", "min_value": 0}, {"check": "unique", "columns": ["origin", "zzz"]}]
    results = verdicts({"required_columns": ["orign", "day"], "checks": checks}, stage, context)
    assert [result.passed for result in results.values()] == [False, False, False]
    assert results["required_columns"].description == "column 'orign' is not in the data (did you mean 'origin'?)"
    assert results["dely_range"].description == "column 'Dely' is not in the data (did you mean 'delay'?)"
    assert "'zzz' is not in the data (it has origin, delay, price, day)" in results["origin_zzz_unique"].description


@pytest.mark.parametrize(
    ("kind", "rule", "reason"),
    [
        (pa.string(), {"min_value": 0}, "holds text, but 0 is a number: put it in quotes"),
        (pa.string(), {"allowed_values": ["DE", False]}, "holds text, but False is a boolean: put it in quotes"),
        (pa.int64(), {"min_value": "x"}, "holds numbers (int64), but 'x' is text"),
        (pa.int64(), {"regex": "x"}, "a pattern needs text"),
        (pa.int64(), {"max_length": 3}, "have no length"),
        (pa.bool_(), {"min_value": 0}, "have no order"),
        (pa.list_(pa.int64()), {"min_value": 0}, "have no order"),
        (pa.timestamp("us"), {"min_value": "soon"}, "is not a date or timestamp"),
        (pa.date32(), {"min_value": 5}, "write a date or timestamp"),
        (pa.time64("us"), {"min_value": "noon"}, "is not a time such as"),
    ],
)
def test_a_rule_that_does_not_suit_the_type_fails_with_the_reason(
    kind: pa.DataType, rule: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    result = one({"column": "a", **rule}, column([], kind), tmp_path)
    assert not result.passed
    assert reason in result.description


BIG = 2**53 + 1
NEW_YORK = pa.timestamp("ms", "America/New_York")


@pytest.mark.parametrize(
    ("values", "kind", "rule", "failed"),
    [
        ([1, 2, 3], pa.int64(), {"min_value": 1.5, "max_value": 2.5}, 2),
        ([BIG, BIG - 1], pa.int64(), {"max_value": BIG - 1}, 1),
        ([1, 2], pa.int8(), {"max_value": 10**30}, 0),
        ([1, 2], pa.int8(), {"min_value": 10**30}, 2),
        ([1, None], pa.uint64(), {"min_value": -1}, 0),
        ([1, None], pa.uint64(), {"max_value": -1}, 1),
        ([0.1, 0.2], pa.float64(), {"min_value": 0.1, "max_value": 0.2}, 0),
        ([0.1], pa.float32(), {"max_value": 0.1}, 0),
        ([1.0, float("nan"), None], pa.float64(), {"min_value": 0}, 1),
        ([float("nan")], pa.float64(), {"max_value": 0}, 1),
        ([float("nan"), 1.0], pa.float64(), {"allowed_values": [1]}, 1),
        ([float("inf")], pa.float64(), {"max_value": 1e308}, 1),
        ([Decimal("0.10"), Decimal("0.11")], pa.decimal128(5, 2), {"max_value": 0.1}, 1),
        ([Decimal("0.10"), Decimal("0.11")], pa.decimal128(5, 2), {"max_value": 0.105}, 1),
        ([Decimal("0.10")], pa.decimal128(5, 2), {"max_value": "0.1"}, 0),
        ([Decimal("9.99")], pa.decimal128(3, 2), {"max_value": 1e20}, 0),
        ([Decimal("9" * 50)], pa.decimal256(60, 0), {"max_value": int("9" * 50) - 1}, 1),
        (["b", "a"], pa.string(), {"min_value": "b"}, 1),
        (["é", "ab"], pa.string(), {"min_length": 2}, 1),
        ([b"\xff\xff", b"a"], pa.binary(), {"min_length": 2}, 1),
        ([date(2013, 2, 8), date(2013, 2, 9)], pa.date32(), {"max_value": "2013-02-08"}, 1),
        ([date(2013, 2, 8), date(2013, 2, 9)], pa.date32(), {"max_value": date(2013, 2, 8)}, 1),
        ([date(2013, 2, 8), date(2013, 2, 9)], pa.date64(), {"min_value": datetime(2013, 2, 8, 1)}, 1),
        ([datetime(2013, 2, 8), datetime(2013, 2, 8, 1)], pa.timestamp("s"), {"max_value": "2013-02-08T00:00:00+00:00"}, 1),
        (
            [datetime(2013, 2, 8, 4, tzinfo=UTC), datetime(2013, 2, 8, 5, tzinfo=UTC)],
            NEW_YORK,
            {"min_value": "2013-02-08T00:00:00-05:00"},
            1,
        ),
        ([datetime(2013, 2, 8, 4, tzinfo=UTC), datetime(2013, 2, 8, 5, tzinfo=UTC)], NEW_YORK, {"min_value": "2013-02-08 05:00"}, 1),
        ([datetime(2013, 2, 8, 4, tzinfo=UTC)], NEW_YORK, {"allowed_values": ["2013-02-07T23:00:00-05:00"]}, 0),
        ([time(12, 30), time(12, 31)], pa.time32("s"), {"max_value": 45000}, 1),
        ([time(12, 30), time(12, 31)], pa.time64("ns"), {"max_value": "12:30"}, 1),
        ([timedelta(minutes=5), timedelta(minutes=6)], pa.duration("ms"), {"max_value": "5 min"}, 1),
        ([timedelta(minutes=5), timedelta(minutes=6)], pa.duration("ms"), {"max_value": 300}, 1),
        ([1, 2, None], pa.int64(), {"allowed_values": [1, 1.5, None]}, 1),
        ([True, False], pa.bool_(), {"allowed_values": [True]}, 1),
        ([Decimal("1.00"), Decimal("2.50")], pa.decimal128(5, 2), {"allowed_values": [1, 2.5]}, 0),
        (["x1", "y", None], pa.large_string(), {"regex": r"\d"}, 1),
        (["ax", "xa"], pa.string_view(), {"regex": "^x"}, 1),
        (["a", "b", None], pa.dictionary(pa.int8(), pa.string()), {"allowed_values": ["a"], "name": "d"}, 1),
    ],
)
def test_comparisons_are_exact(values: list[Any], kind: pa.DataType, rule: dict[str, Any], failed: int, tmp_path: Path) -> None:
    table = column(values, kind)
    stage, context = staged(column([], pa.int8()), tmp_path), context_in(tmp_path)
    stage = type(stage)("rows", table.schema, len(values), ())
    (result,) = verdicts({"checks": [{"column": "a", **rule}]}, stage, context, batches=table.to_batches()).values()
    assert (result.failed, result.passed) == (failed, failed == 0), result.description
    assert len(result.samples) == failed
    json.dumps([*result.samples, result.metadata], allow_nan=False)


def test_samples_are_the_first_five_and_json_holds_them(tmp_path: Path) -> None:
    rows = 100
    table = pa.table(
        {
            "a": pa.array(range(rows)),
            "text": ["x" * 1000] * rows,
            "nan": [float("nan")] * rows,
            "bytes": [b"\xff"] * rows,
            "at": pa.array([datetime(2013, 2, 8, tzinfo=UTC)] * rows, pa.timestamp("ns", "America/New_York")),
            "nested": [{"x": Decimal("1.5"), "y": [date(2013, 2, 8)]}] * rows,
            "map": pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
        }
    )
    result = one({"column": "a", "max_value": 2}, table, tmp_path)
    assert [sample["a"] for sample in result.samples] == [3, 4, 5, 6, 7]
    sample = result.samples[0]
    assert sample["text"] == "x" * 200 + "…"
    assert (sample["nan"], sample["bytes"], sample["nested"]) == ("nan", "base64:/w==", {"x": "1.5", "y": ["2013-02-08"]})
    assert (sample["at"], sample["map"]) == ("2013-02-08 00:00:00.000000000Z", {"k": 1})
    json.dumps(result.samples, allow_nan=False)


def test_limits_are_found_in_every_batch(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(1000))})
    stage = staged(table, tmp_path)
    (result,) = verdicts(
        {"checks": [{"column": "a", "min_value": 10, "max_value": 989}]},
        stage,
        context_in(tmp_path),
        batches=table.to_batches(max_chunksize=7),
    ).values()
    assert (result.failed, result.checked, result.metadata["min"], result.metadata["max"]) == (20, 1000, 0, 999)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5), max_size=30),
    low=st.none() | st.integers(-6, 6) | st.integers(-(2**70), 2**70),
    high=st.none() | st.floats(-6, 6, width=16),
    cut=st.integers(1, 7),
)
def test_a_range_agrees_with_python(values: list[int | None], low: int | None, high: float | None, cut: int, tmp_path: Path) -> None:
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        return
    table = column(values, pa.int64())
    rule = {"column": "a", **({} if low is None else {"min_value": low}), **({} if high is None else {"max_value": high})}
    stage = staged(table, tmp_path)
    (result,) = verdicts({"checks": [rule]}, stage, context_in(tmp_path), batches=table.to_batches(max_chunksize=cut)).values()
    expected = sum(
        1 for value in values if value is not None and ((low is not None and value < low) or (high is not None and value > high))
    )
    assert result.failed == expected
