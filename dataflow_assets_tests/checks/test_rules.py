"""The language of rules: every documented form, the names it makes, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from dataflow_assets import discovery
from dataflow_assets.checks.validator import Check, ValidatorOptions
from dataflow_assets.protocols import Severity
from dataflow_assets.spec.models import PipelineModel


def names(*items: dict[str, Any], **options: Any) -> list[str]:
    return [promise.name for promise in Check(ValidatorOptions.model_validate({"checks": list(items), **options})).promises]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"column": "flight", "not_null": True}, ["flight_not_null"]),
        ({"column": "flight", "unique": True}, ["flight_unique"]),
        ({"column": "dep_delay", "min_value": 0}, ["dep_delay_range"]),
        ({"column": "dep_delay", "max_value": 0}, ["dep_delay_range"]),
        ({"column": "origin", "allowed_values": ["EWR"]}, ["origin_accepted_values"]),
        ({"column": "origin", "accepted_values": ["EWR"]}, ["origin_accepted_values"]),
        ({"column": "tail", "regex": "^N"}, ["tail_regex"]),
        ({"column": "tail", "pattern": "^N"}, ["tail_regex"]),
        ({"column": "tail", "min_length": 0}, ["tail_length"]),
        ({"column": "Größe cm", "not_null": True}, ["groe_cm_not_null"]),
        ({"column": "a", "min_value": 1, "not_null": True, "unique": True}, ["a_not_null", "a_unique", "a_range"]),
        ({"check": "row_count", "min_rows": 1}, ["row_count"]),
        ({"min_rows": 1}, ["row_count"]),
        ({"check": "required_columns", "columns": ["a", "b"]}, ["required_columns"]),
        ({"check": "unique", "columns": ["a", "b"]}, ["a_b_unique"]),
        ({"check": "unique", "column": "a"}, ["a_unique"]),
        ({"check": "not_null", "columns": ["a", "b"]}, ["a_not_null", "b_not_null"]),
        ({"check": "range", "column": "a", "max_value": 3}, ["a_range"]),
        ({"check": "accepted_values", "columns": ["a", "b"], "values": [1]}, ["a_accepted_values", "b_accepted_values"]),
        ({"column": "a", "not_null": True, "name": "has_a"}, ["has_a"]),
        ({"column": "a", "not_null": True, "unique": True, "name": "key"}, ["key_a_not_null", "key_a_unique"]),
        ({"anomaly": {"metric": "row_count"}}, ["row_count_anomaly"]),
        ({"column": "a", "above": 0}, ["a_range"]),
        ({"column": "a", "rejected_values": [1], "not_regex": "x"}, ["a_rejected_values", "a_not_regex"]),
        ({"column": "a", "not_pattern": "x"}, ["a_not_regex"]),
        ({"columns": ["a", "b"], "any_not_null": True}, ["a_b_any_not_null"]),
        ({"columns": ["a", "b"], "type": "int64"}, ["a_type", "b_type"]),
        ({"column": "a", "monotonic": "increasing"}, ["a_monotonic"]),
        ({"column": "a", "to": {"step": "b"}}, ["a_relationships"]),
        ({"columns": ["a", "b"], "to": {"pipeline": "p", "columns": ["x", "y"]}}, ["a_b_relationships"]),
        ({"column": "a", "max_age": "2h", "not_null": True}, ["a_not_null", "a_freshness"]),
        ({"expression": "price >= cost"}, ["price_cost_expression"]),
        ({"check": "sql", "sql": "sum(paid) = sum(due)"}, ["sum_paid_sum_due_sql"]),
        ({"function": "checks/prices.py:fair"}, ["fair_function"]),
        ({"check": "mean", "column": "a", "min_value": 1}, ["a_mean"]),
        ({"check": "distinct_count", "columns": ["a", "b"], "below": 9}, ["a_distinct_count", "b_distinct_count"]),
    ],
)
def test_each_form_makes_readable_names(item: dict[str, Any], expected: list[str]) -> None:
    assert names(item) == expected


def test_the_options_beside_checks_are_rules_too() -> None:
    assert names(required_columns=["a"], row_count_min=1, schema_check=True) == ["required_columns", "row_count", "schema_check"]
    assert names() == []


def test_names_are_unique_and_a_chosen_name_is_kept() -> None:
    twice = {"column": "a", "not_null": True}
    assert names(twice, twice, {"column": "b", "unique": True, "name": "a_not_null"}) == ["a_not_null_2", "a_not_null_3", "a_not_null"]


def test_severity_and_blocking_reach_the_rules() -> None:
    options = ValidatorOptions.model_validate(
        {"checks": [{"column": "a", "not_null": True, "severity": "warn"}, {"min_rows": 1, "blocking": False}]}
    )
    assert [(rule.severity, rule.blocking) for rule in options.rules()] == [(Severity.WARN, True), (Severity.ERROR, False)]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"column": "a"}, "checks nothing: add one of"),
        ({"column": "a", "not_null": False}, "checks nothing"),
        ({"not_null": True}, "not_null needs a `column`"),
        ({"column": "a", "columns": ["b"], "not_null": True}, "`column` or `columns`, not both"),
        ({"columns": ["a", "a"], "unique": True}, "named twice"),
        ({"column": "a", "min_value": 2, "max_value": 1}, "min_value 2 is above max_value 1"),
        ({"column": "a", "min_value": 2, "max_value": "x"}, "write both as the same type"),
        ({"column": "a", "min_value": [1]}, "is not a limit"),
        ({"column": "a", "min_value": True}, "is not a limit"),
        ({"column": "a", "max_value": float("inf")}, "leave the key out"),
        ({"column": "a", "min_length": 3, "max_length": 2}, "min_length 3 is above max_length 2"),
        ({"column": "a", "min_length": -1}, "greater than or equal to 0"),
        ({"check": "row_count", "min_rows": 3, "max_rows": 2}, "min_rows 3 is above max_rows 2"),
        ({"check": "row_count"}, "needs min_rows or max_rows"),
        ({"check": "row_count", "column": "a", "min_rows": 1}, "whole dataset"),
        ({"check": "range", "column": "a"}, "needs min_value or max_value"),
        ({"check": "range", "column": "a", "min_value": 1, "not_null": True}, "does not take not_null"),
        ({"check": "rowcount", "min_rows": 1}, "Input should be"),
        ({"check": "schema_check", "columns": ["a"]}, "option of the validator"),
        ({"column": "a", "allowed_values": []}, "the list is empty"),
        ({"column": "a", "allowed_values": [[1]]}, "cannot be an allowed value"),
        ({"column": "a", "allowed_values": [float("nan")]}, "cannot be an allowed value"),
        ({"column": "a", "regex": "(?=x)"}, "no look-around"),
        ({"column": "a", "regex": "("}, "not a regular expression"),
        ({"column": "a", "min_val": 1}, "Extra inputs are not permitted"),
        ({"column": "a", "not_null": True, "severity": "fatal"}, "'warn' or 'error'"),
        ({"column": "a", "not_null": True, "name": "no spaces"}, "not a check name"),
        ({"anomaly": {"metric": "row_count"}, "severity": "warn"}, "stands alone"),
        ({"check": "anomaly"}, "without `check`"),
        ({"column": "a", "min_value": 1, "above": 0}, "write `min_value` or `above`, not both"),
        ({"column": "a", "above": 1, "max_value": 1}, "above 1 is not below max_value 1: no value could pass"),
        ({"column": "a", "below": True}, "is not a limit"),
        ({"column": "a", "rejected_values": []}, "the list is empty"),
        ({"column": "a", "not_regex": "("}, "not a regular expression"),
        ({"column": "a", "any_not_null": True}, "any_not_null needs several `columns`"),
        ({"column": "a", "type": "intger"}, "'intger' is not a type: did you mean integer?"),
        ({"column": "a", "type": "money"}, "write one of integer, float"),
        ({"column": "a", "monotonic": "up"}, "'increasing'"),
        ({"column": "a", "not_null": True, "group_by": "b"}, "`group_by` belongs to monotonic"),
        ({"column": "a", "not_null": True, "kwargs": {}}, "`kwargs` belongs to function"),
        ({"column": "a", "not_null": True, "relative_to": "now"}, "`relative_to` belongs to freshness"),
        ({"column": "a", "max_age": "soon"}, "'soon' is not a duration"),
        ({"check": "freshness", "column": "a"}, "`check: freshness` needs max_age"),
        ({"check": "mean", "column": "a"}, "needs min_value or max_value or above or below"),
        ({"check": "mean", "min_value": 1}, "mean needs a `column`"),
        ({"check": "sum", "column": "a", "min_value": 1, "not_null": True}, "does not take not_null"),
        ({"to": {"step": "b"}}, "relationships needs a `column`"),
        ({"column": "a", "to": {}}, "name a dataset: `step: customers`"),
        ({"column": "a", "to": {"connection": "w"}}, "a table needs both"),
        ({"column": "a", "to": {"connection": "w", "table": "t", "step": "s"}}, "a step, or a table"),
        ({"columns": ["a", "b"], "to": {"step": "s", "column": "x"}}, "2 of `columns` cannot be found in 1 of `to`"),
        ({"expression": "price >= "}, "'price >= ' is not a condition in SQL: line 1, column 8"),
        ({"expression": "price >= cost) or (1 = 1"}, "is not a condition in SQL"),
        ({"expression": ""}, "the condition is empty"),
        ({"expression": "SELECT 1"}, "is not one condition"),
        ({"expression": "a > 1; DROP TABLE x"}, "is not one condition"),
        ({"expression": "a IN (SELECT b FROM c)"}, "is not one condition"),
        ({"expression": "a > lag(a) OVER ()"}, "looks at other rows"),
        ({"expression": "sum(a) > 1"}, "write `sql:` for a condition on aggregates"),
        ({"expression": "a > $limit"}, "leaves a value open"),
        ({"column": "a", "expression": "a > 1"}, "expression is about the whole row: leave `column` out"),
        ({"sql": "a > 1"}, "has no aggregate such as sum(paid): write `expression:`"),
        ({"sql": "sum(a) > b"}, "b stands outside of an aggregate"),
        ({"column": "a", "not_null": True, "where": "count(*) > 1"}, "looks at many rows"),
        ({"min_rows": 1, "max_failed": 3}, "`max_failed` does not go with row_count, which counts no failed rows"),
        ({"check": "sum", "column": "a", "min_value": 1, "warn_above": 3}, "`warn_above` does not go with sum"),
        ({"column": "a", "type": "int64", "where": "b > 1"}, "`where` does not go with type"),
        ({"column": "a", "not_null": True, "max_failed": 0.5}, "0.5 is not a tolerance: write a number of rows such as 10, or a share"),
        ({"column": "a", "not_null": True, "max_failed": "101%"}, "is not a tolerance"),
        ({"column": "a", "not_null": True, "max_failed": -1}, "is not a tolerance"),
        ({"column": "a", "not_null": True, "warn_above": 1, "severity": "warn"}, "write max_failed"),
        ({"function": "prices"}, "names no function: write module:function, or file.py:function"),
        ({"function": "a b.py:"}, "names no function"),
        ({"function": "m:f", "whole": True, "where": "a > 1"}, "the function sees every row"),
    ],
)
def test_rules_that_make_no_sense_are_refused(item: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        names(item)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError, match="row_count_min 5 is above row_count_max 2"):
        names(row_count_min=5, row_count_max=2)
    with pytest.raises(ValidationError, match="two rules are named 'x'"):
        names({"column": "a", "not_null": True, "name": "x"}, {"column": "b", "not_null": True, "name": "x"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        names(row_count_mn=5)


@pytest.mark.parametrize("kind", ["validator", "metric_anomaly"])
def test_the_example_is_valid(kind: str) -> None:
    implementation = discovery.find("checks", kind)
    pipeline = PipelineModel.model_validate(yaml.safe_load(implementation.example))
    step = next(step for step in pipeline.steps if step.kind == kind)
    assert implementation.kind == kind
    assert implementation(implementation.Options.model_validate(step.config)).promises


def test_promises_tell_what_a_check_is_about_and_whether_it_blocks() -> None:
    options = ValidatorOptions.model_validate(
        {
            "row_count_min": 1,
            "checks": [
                {"column": "a", "min_value": 1, "severity": "warn"},
                {"column": "b", "accepted_values": ["x", "y"]},
                {"anomaly": {"metric": "avg(a)", "name": "mean"}},
            ],
        }
    )
    found = {promise.name: (promise.description, promise.blocking) for promise in Check(options).promises}
    assert found == {
        "row_count": ("rows: row count at least 1", True),
        "a_range": ("a: range at least 1", False),
        "b_accepted_values": ("b: accepted values x, y", True),
        "mean_anomaly": ("avg(a) of this window, compared with earlier windows", False),
    }


def test_a_rule_knows_every_column_that_it_uses() -> None:
    items = [
        {"column": "a", "not_null": True, "where": "lower(input.b) = 'x' and c.field.deep > 1"},
        {"expression": "price >= list_sum(list_transform(xs, x -> x + cost))"},
        {"sql": "sum(paid) = sum(due) FILTER (WHERE kind = 1)", "where": "shop = 1"},
        {"column": "at", "monotonic": "increasing", "group_by": ["shop", "till"]},
    ]
    options = ValidatorOptions.model_validate({"checks": items})
    assert [set(rule.uses) for rule in options.rules()] == [
        {"a", "b", "c"},
        {"price", "xs", "cost"},
        {"paid", "due", "kind", "shop"},
        {"at", "shop", "till"},
    ]


def test_a_promise_tells_the_condition() -> None:
    options = ValidatorOptions.model_validate({"checks": [{"column": "a", "above": 1, "below": 5, "where": "b = 2"}]})
    assert Check(options).promises[0].description == "a: range above 1 and below 5, where b = 2"


@pytest.mark.parametrize(
    ("more", "blocking"),
    [
        ({}, True),
        ({"max_failed": 1}, True),
        ({"warn_above": 1}, False),
        ({"warn_above": 1, "max_failed": "1%"}, True),
        ({"blocking": False}, False),
    ],
)
def test_a_rule_that_can_only_warn_does_not_block(more: dict[str, Any], blocking: bool) -> None:
    options = ValidatorOptions.model_validate({"checks": [{"column": "a", "not_null": True, **more}]})
    assert Check(options).promises[0].blocking is blocking
