"""Metrics and their history: what is measured, when the check learns, when it speaks up, what it keeps for the next window."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.anomalies.history import Measured, Standing
from dataflow_assets.checks._anomaly import AnomalyOptions
from dataflow_assets.checks._measuring import Measuring, Wanted, is_additive, measure
from dataflow_assets.checks.metric_anomaly import MetricOptions
from dataflow_assets.plan.options import check_options
from dataflow_assets.protocols import CheckResult, Picture, Severity, StagedInput
from dataflow_assets.windows import Window
from dataflow_assets_tests.staged import context_in, staged, verdicts

START = datetime(2013, 3, 1, tzinfo=UTC)
HISTORY = [900.0 + 10 * (number % 5) for number in range(21)]


def measured(values: list[float]) -> list[Measured]:
    """The values as those of the days before."""
    first = START - timedelta(days=len(values))
    moments = [first + timedelta(days=number) for number in range(len(values))]
    return [Measured(str(moment.date()), moment, value) for moment, value in zip(moments, values, strict=True)]


def one(
    options: dict[str, Any], stage: StagedInput, folder: Path, history: dict[str, list[Measured]] | list[float], **context: Any
) -> CheckResult:
    """The result of one metric, of the window of 1 March 2013."""
    name = AnomalyOptions.model_validate(options).metric_name
    known = history if isinstance(history, dict) else {name: measured(history)}
    window = Window(START, START + timedelta(days=1))
    given = context_in(folder, history=known, window=window, window_key="2013-03-01", **context)
    (result,) = verdicts({"anomaly": options}, stage, given, kind="metric_anomaly").values()
    return result


def rows(count: int) -> StagedInput:
    """A stage of so many rows, without any file."""
    return StagedInput("rows", pa.schema([("a", pa.int64())]), count, ())


def test_it_learns_first_and_keeps_the_value_for_the_ledger(tmp_path: Path) -> None:
    result = one({}, rows(1200), tmp_path, [10.0] * 5)
    assert (result.passed, result.description) == (True, "row_count is 1,200: learning (5/7)")
    assert result.metrics == {"row_count": 1200.0}
    assert "picture" not in result.metadata


def test_it_speaks_up_in_a_sentence(tmp_path: Path) -> None:
    # 920 * exp(-+3.5 w), w = 1/sqrt(920) * sqrt(1 + pi/(2 * 21)) * (1 + 3/21)
    usual = one({}, rows(915), tmp_path, HISTORY)
    assert (usual.passed, usual.blocking, usual.severity) == (True, False, Severity.ERROR)
    assert usual.description == "row_count is 915, as expected (803 to 1,054, usually 920; learned from 21 windows)"
    assert usual.metrics == {"row_count": 915.0}
    far = one({"severity": "warn", "blocking": True, "description": "arrivals"}, rows(12), tmp_path, HISTORY)
    assert (far.passed, far.blocking, far.severity) == (False, True, Severity.WARN)
    assert re.fullmatch(
        r"arrivals: row_count is 12, unusually far below the expected 803 to 1,054 \(usually 920; score -1\d\d\.\d, limit 3\.5; "
        r"learned from 21 windows\)",
        far.description,
    )
    assert far.metrics == {"row_count": 12.0, "row_count!flagged": 1.0}
    assert far.metadata["season"] == "none (found; all windows alike)"


def test_the_picture_is_small_and_shows_what_was_flagged(tmp_path: Path) -> None:
    history = measured(HISTORY)
    history[3] = Measured(history[3].key, history[3].start, 3000.0, None, Standing.FLAGGED)
    picture = one({"name": "a_b"}, rows(12), tmp_path, {"a_b": history}).metadata["picture"]
    assert isinstance(picture, Picture)
    assert len(picture.svg) < 5000
    assert picture.svg.startswith("<svg ")
    assert "a_b" in picture.svg
    assert picture.svg.count('fill="#d3302f"') == 3  # one of the past, the tested one, and the legend


@pytest.mark.parametrize(
    ("direction", "passed"),
    [("both", (False, False)), ("up", (True, False)), ("spike", (True, False)), ("down", (False, True)), ("drop", (False, True))],
)
def test_the_direction_matters(direction: str, passed: tuple[bool, bool], tmp_path: Path) -> None:
    results = [one({"direction": direction}, rows(count), tmp_path, HISTORY) for count in (10, 4000)]
    assert tuple(result.passed for result in results) == passed
    if direction == "up":
        assert "expected at most 1,054" in results[1].description
        assert (results[1].metadata["expected_min"], results[1].metadata["expected_max"] > 1000) == (None, True)


@pytest.mark.parametrize(
    ("history", "count", "options", "passed"),
    [
        ([10_000.0] * 20, 10_500, {}, True),  # 5 % are small
        ([10_000.0] * 20, 10_501, {"sensitivity": 0.1}, False),
        ([10_000.0] * 20, 10_501, {"sensitivity": 0.1, "ignore_small_changes": "6 %"}, True),
        ([10_000.0] * 20, 11_000, {"min_change": 999, "sensitivity": 0.1}, False),
        ([10_000.0] * 20, 11_000, {"min_change": 1000, "sensitivity": 0.1}, True),
        ([10_000.0] * 20, 11_500, {}, False),  # 3 % is the smallest spread
        ([0.0] * 20, 5, {}, True),  # what chance alone makes of a count near 0
        ([0.0] * 20, 500, {}, False),
        ([1.0, 100.0] * 10, 30, {}, True),  # a level between those seen, while no season is proven
    ],
)
def test_trifles_do_not_alarm(history: list[float], count: int, options: dict[str, Any], passed: bool, tmp_path: Path) -> None:
    assert one(options, rows(count), tmp_path, history).passed is passed


def test_zero_rows_are_a_rule_of_their_own(tmp_path: Path) -> None:
    empty = staged(pa.table({"a": pa.array([], pa.float64())}), tmp_path)
    some = {"row_count": measured([900.0] * 3)}
    result = one({}, empty, tmp_path, some)
    assert (result.passed, result.metrics) == (False, {"row_count": 0.0, "row_count!flagged": 1.0})
    assert result.description == "there are no rows in this window, and the 3 windows before it all had some"
    share = one({"metric": "avg(a)", "name": "m"}, empty, tmp_path, {"m": measured([0.5] * 3)})
    assert (share.passed, share.metrics) == (False, {"m!flagged": 1.0})
    assert one({}, empty, tmp_path, {"row_count": measured([900.0] * 2)}).passed
    assert one({}, empty, tmp_path, {"row_count": [*measured([900.0] * 3), *measured([0.0])]}).passed
    assert one({"zero_rows": "pass"}, empty, tmp_path, some).passed
    assert not one({"zero_rows": "fail"}, empty, tmp_path, []).passed
    assert one({}, empty, tmp_path, some, acknowledged={"row_count": "expected"}).passed


def test_what_was_acknowledged_passes_and_is_learned_from(tmp_path: Path) -> None:
    result = one({"blocking": True}, rows(12), tmp_path, HISTORY, acknowledged={"row_count": "expected"})
    assert (result.passed, result.metrics) == (True, {"row_count": 12.0})
    assert result.description.endswith("; acknowledged as expected")
    assert not one({}, rows(12), tmp_path, HISTORY, acknowledged={"other": "expected"}).passed


def test_a_new_level_is_said_to_look_like_one(tmp_path: Path) -> None:
    history = measured(HISTORY)
    history[-3:] = [Measured(item.key, item.start, 400.0, None, Standing.FLAGGED) for item in history[-3:]]
    said = one({}, rows(410), tmp_path, {"row_count": history}).description
    assert said.endswith("; so were the 3 windows before: if this is the new level, acknowledge it as a level shift")
    history[-3] = Measured(history[-3].key, history[-3].start, 400.0, None, Standing.LEVEL_SHIFT)
    assert one({}, rows(410), tmp_path, {"row_count": history}).description == "row_count is 410: learning (1/7)"


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("row_count", 3.0),
        ("sum(a)", 6.0),
        ("count(*) filter (where a > 1) -- only some", 2.0),
        ("avg(a)", 2.0),
        ("max(a) / nullif(min(b), 0)", None),
        ("max('nan'::double)", None),
        ("sum(a::decimal(10,2))", 6.0),
        ("bool_and(a > 0)", 1.0),
        ("null_share(n)", 2 / 3),
        ('distinct_count("b")', 1.0),
        ("freshness(at)", 6.0),
        ("freshness(day)", 24.0),
    ],
)
def test_the_metric_is_a_name_or_sql_over_the_stage(metric: str, value: float | None, tmp_path: Path) -> None:
    columns = {"a": [1, 2, 3], "b": [0, 0, 0], "n": [1, None, None]}
    times = {"at": [START + timedelta(hours=hour) for hour in (0, 18, 2)], "day": [START.date()] * 3}
    stage = staged(pa.table({**columns, **times}), tmp_path)
    result = one({"metric": metric, "name": "m"}, stage, tmp_path, [])
    assert result.passed
    assert {name: number for name, number in result.metrics.items() if name != "m!rows"} == (
        {} if value is None else {"m": pytest.approx(value)}
    )
    if value is None:
        assert result.description == "m has no value for these rows"


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("avg(nope)", "nope"),
        ("null_share(nope)", "nope"),
        ("a", "must appear in the GROUP BY"),
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


def test_all_metrics_of_a_step_are_one_query_and_a_broken_one_hurts_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataflow_assets.storage import sandbox

    asked: list[str] = []
    select = sandbox.Sandbox.select
    monkeypatch.setattr(sandbox.Sandbox, "select", lambda self, query, **more: asked.append(str(query)) or select(self, query, **more))
    stage = staged(pa.table({"a": [1, 2, 3], "t": ["x", "y", "z"]}), tmp_path)
    items = [{"anomaly": {"metric": metric, "name": f"m{number}"}} for number, metric in enumerate(("max(a)", "row_count", "sum(a)"))]
    results = verdicts({"checks": items}, stage, context_in(tmp_path), kind="metric_anomaly")
    assert {name: value for result in results.values() for name, value in result.metrics.items()} == {"m0": 3, "m1": 3, "m2": 6}
    assert len(asked) == 1
    results = verdicts({"checks": [*items, {"anomaly": {"metric": "avg(t)", "name": "bad"}}]}, stage, context_in(tmp_path))
    assert [name for name, result in results.items() if not result.passed] == ["bad_anomaly"]
    assert results["m0_anomaly"].metrics == {"m0": 3.0}


def test_the_values_of_a_dimension_are_counted_and_the_rest_together(tmp_path: Path) -> None:
    stage = staged(pa.table({"o'r": ["x"] * 5 + ["y"] * 3 + ["z'"] * 2 + [None] * 4 + ["w"], "a": list(range(15))}), tmp_path)
    by = Wanted("row_count", "o'r", 2, ("z'",))
    with_others = measure([by, Wanted("max(a)", "o'r", 2, ("z'",)), Wanted("sum(a)")], stage, context_in(tmp_path))
    assert {name: (part.value, part.rows) for name, part in with_others[by].parts.items()} == {
        "z'": (2, 2),
        "x": (5, 5),
        "(others)": (8, 8),
    }
    assert [found.value for found in with_others.values()] == [15, 14, 105]
    every = measure([Wanted("row_count", "o'r", 10)], stage, context_in(tmp_path))
    assert {name for found in every.values() for name in found.parts} == {"x", "y", "z'", "w", "(null)"}
    long = staged(pa.table({"d": ["x" * 150 + "1", "x" * 150 + "2"]}), tmp_path, "long")
    (told,) = measure([Wanted("row_count", "d")], long, context_in(tmp_path)).values()
    assert {name: part.rows for name, part in told.parts.items()} == {"x" * 100: 2}, "the ledger keeps no long text"
    missing = Measuring(context_in(tmp_path))
    assert "nope" in missing.of(missing.add(Wanted("row_count", "nope")), stage).error


def by_origin(**counts: list[float]) -> dict[str, list[Measured]]:
    """Histories of flights by origin, and of all together."""
    total = [sum(numbers) for numbers in zip(*counts.values(), strict=True)]
    return {"flights": measured(total), **{f"flights[{name}]": measured(values) for name, values in counts.items()}}


def test_a_value_of_the_dimension_is_judged_by_its_own_history(tmp_path: Path) -> None:
    steady = [100.0 + number % 3 for number in range(21)]
    history = by_origin(EWR=[1000.0 + number % 9 for number in range(21)], JFK=steady, LGA=steady)
    stage = staged(pa.table({"origin": ["EWR"] * 1090 + ["JFK"] * 10 + ["BOS"] * 7}), tmp_path)
    result = one({"name": "flights", "by": "origin"}, stage, tmp_path, history)
    assert not result.passed
    assert result.description.startswith("flights is 1,107, as expected (")
    assert "; origin LGA is 0 (expected " in result.description
    assert "; origin JFK is 10 (expected " in result.description
    assert result.description.endswith("; new: BOS; vanished: LGA")
    assert result.metrics == {
        "flights": 1107.0,
        "flights[EWR]": 1090.0,
        "flights[JFK]": 10.0,
        "flights[BOS]": 7.0,
        "flights[LGA]": 0.0,
        "flights[JFK]!flagged": 1.0,
        "flights[LGA]!flagged": 1.0,
    }
    assert [row["origin"] for row in result.metadata["by_origin"]] == ["LGA", "JFK", "EWR", "BOS"]
    explained = one({"name": "flights", "explain_by": "origin"}, stage, tmp_path, history)
    assert explained.passed, "a column that only explains is not judged"


def test_the_value_that_explains_most_is_named(tmp_path: Path) -> None:
    steady = [0.02 + 0.001 * (number % 3) for number in range(21)]
    history = {"share": measured(steady), "share[JFK]": measured(steady), "share[EWR]": measured(steady)}
    stage = staged(pa.table({"origin": ["JFK"] * 500 + ["EWR"] * 500, "at": [1] * 250 + [None] * 250 + [1] * 490 + [None] * 10}), tmp_path)
    result = one({"metric": "null_share(at)", "name": "share", "explain_by": "origin"}, stage, tmp_path, history)
    assert not result.passed
    assert result.description.startswith("share is 26 %, unusually far above the expected ")
    assert "; origin JFK explains most of it (100 %: 50 %, usually 2.1 %)" in result.description
    assert result.metrics == {
        "share": 0.26,
        "share!rows": 1000.0,
        "share!flagged": 1.0,
        "share[JFK]": 0.5,
        "share[JFK]!rows": 500.0,
        "share[JFK]!flagged": 1.0,
        "share[EWR]": 0.02,
        "share[EWR]!rows": 500.0,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to measure"),
        ({"anomaly": {"metric": "select 1"}}, "without SELECT"),
        ({"anomaly": {"metric": " "}}, "not a metric"),
        ({"anomaly": {"min_samples": 100, "training": 50}}, "learn for ever"),
        ({"anomaly": {"name": "a b"}}, "not a metric name"),
        ({"anomaly": {"season": "moon"}}, "'weekday', 'day_of_week'"),
        ({"anomaly": {"direction": "sideways"}}, "'up' or 'down'"),
        ({"anomaly": {"training": "long"}}, "not a duration"),
        ({"anomaly": {"ignore_small_changes": "lots"}}, "'lots' is not a share: write 0.05 or 5%"),
        ({"anomaly": {"calendar": ["12-40"]}}, "month|day"),
        ({"anomaly": {"calendar": {"feast": ["soon"]}}}, "'soon' is not a day"),
        ({"anomaly": {"by": "a", "explain_by": "b"}}, "not both"),
        ({"anomaly": {"use_weighted": True}}, "no longer an option: leave it out: `training`"),
        ({"checks": [{"anomaly": {}}, {"anomaly": {}}]}, "two metrics are named 'row_count'"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MetricOptions.model_validate(options)


def test_a_mistyped_option_has_a_suggestion() -> None:
    (mistake,) = check_options(MetricOptions, {"anomaly": {"sensitivty": 3}}).mistakes
    assert (mistake.path, mistake.hint) == (("anomaly", "sensitivty"), "did you mean 'sensitivity'?")


def test_the_names_of_the_row_wise_detector_are_understood() -> None:
    options = AnomalyOptions.model_validate({"n_sigma": 4, "window_size": 50, "min_window_size": 9})
    assert (options.sensitivity, options.training, options.min_samples) == (4, 50, 9)
    assert AnomalyOptions(training="4w").settings([], timezone="UTC", length=timedelta(hours=1)).newest == 672
    assert AnomalyOptions.model_validate({"ignore_small_changes": "2.5 %"}).ignore_small_changes == 0.025


def test_names_come_from_the_metric() -> None:
    assert AnomalyOptions(metric="avg(price)").check_name == "avg_price_anomaly"
    assert AnomalyOptions(metric="avg(price)", name="Price").metric_name == "Price"


@pytest.mark.parametrize(
    ("metric", "values", "transform"),
    [
        ("row_count", [5, 6], "log1p"),
        ("distinct_count(a)", [5, 6], "log1p"),
        ("null_share(a)", [0, 1], "logit"),
        ("sum(amount)", [5.5, 6], "log1p"),
        ("sum(amount)", [-5.5, 6], "none"),
        ("avg(a)", [0.1, 0.9], "logit"),
        ("avg(a)", [0.1, 1.9], "none"),
        ("max(a)", [3, 19], "log1p"),
    ],
)
def test_the_scale_suits_the_metric(metric: str, values: list[float], transform: str) -> None:
    assert AnomalyOptions(metric=metric).settings(values, timezone="UTC", length=None).transform == transform
    assert AnomalyOptions(metric=metric, transform="none").settings(values, timezone="UTC", length=None).transform == "none"


def test_the_parts_of_sums_add_up_and_those_of_other_metrics_do_not() -> None:
    assert all(map(is_additive, ("row_count", "count(*)", "sum(a)", "count(a) filter (where b)")))
    assert not any(map(is_additive, ("avg(a)", "count(distinct a)", "sum(a) / count(*)", "distinct_count(a)", "null_share(a)")))


def test_the_days_of_a_calendar_are_compared_with_each_other() -> None:
    calendar = {"holidays": [date(2013, 5, 27), "2013-07-04"], "christmas": ["12-25"]}
    clock = AnomalyOptions(calendar=calendar).settings([], timezone="America/New_York", length=None).clock
    days = [datetime(2013, 5, 28, 3, tzinfo=UTC), datetime(2013, 7, 5, 3, tzinfo=UTC), datetime(2020, 12, 25, 12, tzinfo=UTC), START]
    assert [clock.special(day) for day in days] == ["holidays", "holidays", "christmas", ""]
    assert AnomalyOptions.model_validate({"calendar": [date(2013, 5, 27)]}).calendar == {"calendar": [date(2013, 5, 27)]}


def test_it_stands_among_the_rules_of_a_validator(tmp_path: Path) -> None:
    stage = staged(pa.table({"a": [1, 2, 3]}), tmp_path)
    results = verdicts(
        {"checks": [{"column": "a", "min_value": 0}, {"anomaly": {"metric": "max(a)", "name": "top"}}]}, stage, context_in(tmp_path)
    )
    assert results["top_anomaly"].metrics == {"top": 3.0}
