"""Rules about rows beside the simple ones: open ends, lists and patterns turned round, conditions in SQL, `where`, tolerances, the rows
that a second pass points at. Against plain Python where there is something to count."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.checks.validator import Check, PointsAtRows, ValidatorOptions
from dataflow_assets.protocols import CheckResult, Severity
from dataflow_assets.storage import sandbox
from dataflow_assets_tests.calls import calls
from dataflow_assets_tests.staged import context_in, staged, verdicts

SALES = pa.table(
    {
        "shop": ["a", "a", "b", "b", "b", None],
        "price": pa.array([1, 5, None, 8, 9, 2], pa.int32()),
        "cost": pa.array([2, 4, 4, 8, 10, None], pa.int64()),
        "note": ["x", None, None, "y1", "z", None],
        "mail": [None, "m", None, None, "m", "m"],
        "extra": pa.array([timedelta(seconds=1)] * 6),
    }
)


def one(rule: dict[str, Any], folder: Path, table: pa.Table = SALES) -> CheckResult:
    (result,) = verdicts({"checks": [rule]}, staged(table, folder), context_in(folder)).values()
    json.dumps([*result.samples, result.metadata], allow_nan=False)
    return result


@pytest.mark.parametrize(
    ("rule", "checked", "failed"),
    [
        ({"column": "price", "above": 5}, 6, 3),
        ({"column": "price", "below": 5}, 6, 3),
        ({"column": "price", "above": 4.5, "below": 8.5}, 6, 3),
        ({"column": "price", "above": 0, "max_value": 9}, 6, 0),
        ({"column": "price", "above": -(2**40)}, 6, 0),
        ({"column": "shop", "above": "a"}, 6, 2),
        ({"column": "shop", "rejected_values": ["b", "c"]}, 6, 3),
        ({"column": "price", "forbidden_values": [5, 8.5, None]}, 6, 1),
        ({"column": "note", "not_regex": r"\d"}, 6, 1),
        ({"columns": ["note", "mail"], "any_not_null": True}, 6, 1),
        ({"expression": "price >= cost"}, 6, 2),
        ({"expression": 'PRICE >= input."cost" or shop is null'}, 6, 2),
        ({"expression": "price >= cost", "where": "shop = 'b'"}, 3, 1),
        ({"column": "price", "min_value": 6, "where": "shop = 'b' -- only these"}, 3, 0),
        ({"column": "price", "min_value": 6, "where": "shop <> 'b'"}, 2, 2),
        ({"column": "price", "not_null": True, "where": "cost > 100"}, 0, 0),
        ({"column": "shop", "unique": True, "where": "price > 4"}, 3, 1),
        ({"column": "price", "monotonic": "increasing"}, 6, 1),
        ({"column": "price", "monotonic": "strictly_increasing", "group_by": "shop"}, 6, 0),
        ({"column": "price", "monotonic": "decreasing", "where": "shop = 'a'"}, 2, 1),
        ({"expression": "CAST(note AS INTEGER) > 0", "where": "regexp_matches(note, '^[0-9]+$')"}, 0, 0),
    ],
)
def test_each_rule_counts_the_rows_that_break_it(rule: dict[str, Any], checked: int, failed: int, tmp_path: Path) -> None:
    result = one(rule, tmp_path)
    assert (result.checked, result.failed, result.passed) == (checked, failed, not failed), result.description
    assert bool(result.samples) == bool(failed)
    assert all(set(sample) == set(SALES.column_names) for sample in result.samples)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"expression": "pric >= cost"}, "column 'pric' is not in the data (did you mean 'price'?)"),
        ({"expression": "price + cost"}, "it gives values of type int64, not true or false"),
        ({"expression": "note > DATE '2024-01-01' + shop"}, "No function matches"),
        ({"expression": "extra > INTERVAL 1 second"}, "has type duration[us], which DuckDB would change"),
        ({"column": "price", "min_value": 0, "where": "shops = 'a'"}, "column 'shops' is not in the data (did you mean 'shop'?)"),
        ({"expression": "entropy(price) > 0"}, "it looks at many rows"),
        ({"expression": "CAST(note AS INTEGER) > 0"}, "Could not convert string 'x' to INT32"),
        ({"column": "price", "monotonic": "increasing", "group_by": "shopp"}, "column 'shopp' is not in the data (did you mean 'shop'?)"),
        ({"column": "extra", "monotonic": "increasing"}, ""),
    ],
)
def test_a_condition_that_does_not_fit_fails_with_the_reason(rule: dict[str, Any], reason: str, tmp_path: Path) -> None:
    result = one(rule, tmp_path)
    assert result.passed == (not reason)
    assert reason in result.description
    assert (result.failed, result.samples) == (0, ())


def test_one_broken_condition_does_not_spoil_the_others_and_sql_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = sandbox.open_sandbox
    monkeypatch.setattr(sandbox, "open_sandbox", lambda *given, **more: (opened.append("once"), real(*given, **more))[1])
    rules = [{"expression": "CAST(note AS INTEGER) > 0"}, {"expression": "price >= cost"}, {"sql": "sum(price) = 25", "where": "cost > 0"}]
    rules += [{"sql": "max(cost) < 5"}, {"column": "price", "not_null": True, "where": "shop = 'b'"}]
    table = pa.concat_tables([SALES] * 3)
    results = list(
        verdicts({"checks": rules}, staged(table, tmp_path), context_in(tmp_path), batches=table.to_batches(max_chunksize=2)).values()
    )
    assert [(result.passed, result.failed) for result in results] == [(False, 0), (False, 6), (False, 0), (False, 0), (False, 3)]
    assert results[2].metadata["values"] == {"sum(price)": "69"}
    assert len(opened) == 1
    verdicts({"checks": [{"column": "price", "min_value": 0}]}, staged(SALES, tmp_path), context_in(tmp_path))
    assert len(opened) == 1, "a rule without SQL opens none"
    assert not list(context_in(tmp_path).scratch.iterdir())


@pytest.mark.parametrize(
    ("tolerance", "outcome"),
    [
        ({}, (False, Severity.ERROR)),
        ({"max_failed": 2}, (False, Severity.ERROR)),
        ({"max_failed": 3}, (True, Severity.ERROR)),
        ({"max_failed": "49.9%"}, (False, Severity.ERROR)),
        ({"max_failed": "50 %"}, (True, Severity.ERROR)),
        ({"max_failed": "10%", "severity": "warn"}, (False, Severity.WARN)),
        ({"warn_above": 0}, (False, Severity.WARN)),
        ({"warn_above": 3}, (True, Severity.ERROR)),
        ({"warn_above": "10%", "max_failed": "60%"}, (False, Severity.WARN)),
        ({"warn_above": "10%", "max_failed": "20%"}, (False, Severity.ERROR)),
    ],
)
def test_tolerances_in_rows_and_shares(tolerance: dict[str, Any], outcome: tuple[bool, Severity], tmp_path: Path) -> None:
    result = one({"column": "price", "above": 5, **tolerance}, tmp_path)
    assert (result.passed, result.severity) == outcome
    assert (result.failed, len(result.samples)) == (3, 3), "what is tolerated is shown all the same"


def test_a_tolerated_share_is_of_the_rows_that_the_rule_looks_at(tmp_path: Path) -> None:
    rule = {"column": "price", "above": 8, "where": "shop = 'b'", "max_failed": "33%"}
    assert one(rule, tmp_path).description == "price: 1 of 3 rows (33.3 %) are not above 8 (observed 8 to 9), 33 % allowed"


def test_the_values_seen_most_often_are_told(tmp_path: Path) -> None:
    table = pa.table({"a": ["x"] * 5 + ["y"] * 9 + [f"v{number}" for number in range(50)], "b": [1] * 64, "c": [0.25, 0.5] * 32})
    stage, context = staged(table, tmp_path), context_in(tmp_path)
    rules = [{"column": "a", "allowed_values": ["good"]}, {"expression": "b + c < 1"}, {"columns": ["a", "b"], "unique": True}]
    listed, expression, unique = verdicts({"checks": rules}, stage, context, batches=table.to_batches(max_chunksize=7)).values()
    assert listed.metadata["frequent_values"][:3] == [{"value": "y", "rows": 9}, {"value": "x", "rows": 5}, {"value": "v0", "rows": 1}]
    assert len(listed.metadata["frequent_values"]) == 5
    assert expression.metadata["frequent_values"] == [
        {"value": {"b": 1, "c": 0.25}, "rows": 32},
        {"value": {"b": 1, "c": 0.5}, "rows": 32},
    ]
    assert unique.metadata["frequent_values"] == [{"value": {"a": "y", "b": 1}, "rows": 9}, {"value": {"a": "x", "b": 1}, "rows": 5}]


def test_offending_values_are_counted_in_bounded_memory_and_exactly_where_few(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([number // 2 if number % 3 else 7 for number in range(60_000)])})
    result = one({"column": "a", "max_value": -1}, tmp_path, table)
    first = result.metadata["frequent_values"][0]
    assert (result.failed, first) == (60_000, {"value": 7, "rows": 20_001})


VALUES = st.lists(st.tuples(st.none() | st.integers(-3, 6), st.sampled_from("abc")), max_size=40)
RULES: list[tuple[dict[str, Any], Any]] = [
    ({"column": "n", "above": 0, "below": 5}, lambda n, _: n is not None and not 0 < n < 5),
    ({"column": "n", "not_null": True}, lambda n, _: n is None),
    ({"column": "n", "rejected_values": [1, 2]}, lambda n, _: n in {1, 2}),
    ({"expression": "n * 2 <> 4"}, lambda n, _: n == 2),
]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=VALUES, cut=st.integers(1, 9))
def test_the_second_pass_points_at_the_rows_that_were_counted(rows: list[Any], cut: int, tmp_path: Path) -> None:
    table = pa.table({"n": pa.array([row[0] for row in rows], pa.int16()), "g": pa.array([row[1] for row in rows], pa.string())})
    stage, batches = staged(table, tmp_path), table.to_batches(max_chunksize=cut)
    items = [{**rule, **limit} for rule, _ in RULES for limit in ({}, {"where": "g = 'a'"})]
    order = [{"column": "n", "monotonic": "strictly_increasing", "group_by": "g"}, {"column": "n", "monotonic": "decreasing"}]
    unique = [{"columns": ["n", "g"], "unique": True}, {"column": "n", "unique": True, "where": "g <> 'b'"}]
    check = Check(ValidatorOptions.model_validate({"checks": [*items, *order, *unique]}))
    run = check.begin(table.schema, context_in(tmp_path))
    for batch in batches:
        run.update(batch)
    results = run.finish(stage)
    found: list[list[bool]] = [[] for _ in results]
    for batch in batches:
        facts = run.facts(batch)
        for number, part in enumerate(run.runs):
            assert isinstance(part, PointsAtRows)
            mask = part.pick(facts)
            assert mask is None or mask.null_count == 0
            found[number] += [False] * batch.num_rows if mask is None else mask.to_pylist()
    assert [sum(mask) for mask in found] == [result.failed for result in results]
    expected = [[test(*row) and (not limited or row[1] == "a") for row in rows] for _, test in RULES for limited in (False, True)]
    assert found[: len(expected)] == expected
    assert found[-2] == [None not in row and row in rows[:number] for number, row in enumerate(rows)]
    assert found[len(expected)] == _out_of_order(rows)


def _out_of_order(rows: list[Any]) -> list[bool]:
    last: dict[str, int] = {}
    wrong = []
    for value, group in rows:
        wrong.append(value is not None and group in last and value <= last[group])
        if value is not None:
            last[group] = value
    return wrong


def test_order_is_of_any_comparable_type_and_across_batches(tmp_path: Path) -> None:
    kinds: list[tuple[list[Any], pa.DataType]] = [
        ([Decimal("1.10"), None, Decimal("1.20"), Decimal("1.15")], pa.decimal128(38, 2)),
        ([datetime(2024, 1, 1), None, datetime(2024, 1, 3), datetime(2024, 1, 2)], pa.timestamp("us", "Europe/Berlin")),
        (["a", None, "c", "b"], pa.string()),
        ([1.5, None, 2.5, 2.0], pa.float32()),
        (["a", None, "c", "b"], pa.dictionary(pa.int8(), pa.string())),
    ]
    for values, kind in kinds:
        table = pa.table({"v": pa.array(values, kind), "g": ["x", "y", "x", "x"]})
        for extra in ({}, {"group_by": "g"}):
            rules = {"checks": [{"column": "v", "monotonic": "increasing", **extra}]}
            batches = table.to_batches(max_chunksize=1)
            (result,) = verdicts(rules, staged(table, tmp_path), context_in(tmp_path), batches=batches).values()
            assert (result.failed, [sample["g"] for sample in result.samples]) == (1, ["x"]), kind


def test_rules_on_the_types_of_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1], pa.int32()),
            "d": pa.array([Decimal("1.5")], pa.decimal128(12, 2)),
            "t": pa.array(["a"]).dictionary_encode(),
            "at": pa.array([datetime(2024, 1, 1)], pa.timestamp("us", "UTC")),
        }
    )
    fits = {
        "n": ["integer", "number", "int32", ["text", "int"]],
        "d": ["decimal", "number", "numeric(12, 2)"],
        "t": ["text", "varchar(20)"],
    }
    fits["at"] = ["timestamp", "timestamptz", "timestamp[us, tz=UTC]", "temporal"]
    for column, types in fits.items():
        for name in types:
            assert one({"column": column, "type": name}, tmp_path, table).passed, (column, name)
    result = one({"columns": ["n"], "type": ["bigint", "text"]}, tmp_path, table)
    assert (result.passed, result.description) == (False, "n is int32, but should be bigint or text")
    assert not one({"column": "at", "type": "timestamp[us]"}, tmp_path, table).passed


def test_nothing_is_done_row_by_row(tmp_path: Path) -> None:
    """Thirty times the rows cost hardly more calls, of rules that all fail on every row."""
    rules = [
        {"column": "a", "above": 1e9, "where": "b >= 0"},
        {"column": "t", "regex": "^z", "max_length": 0, "rejected_values": ["x1"], "allowed_values": ["none"]},
        {"column": "b", "monotonic": "strictly_decreasing", "group_by": "t"},
        {"columns": ["a", "b"], "any_not_null": True},
        {"expression": "a < b"},
        {"check": "sum", "column": "b", "max_value": 0},
        {"columns": ["a", "t"], "unique": True},
    ]
    check = Check(ValidatorOptions.model_validate({"checks": rules}))

    def cost(rows: int) -> int:
        text = [f"x{number % 50}" for number in range(rows)]
        batch = pa.record_batch({"a": [1.25] * rows, "b": pa.array(range(rows)), "t": text})
        run = check.begin(batch.schema, context_in(tmp_path))
        run.update(batch)
        return calls(lambda: run.update(batch))

    assert cost(30_000) < 1.5 * cost(1_000) < 4_500
