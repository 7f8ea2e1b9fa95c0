"""`on_failure: quarantine`: for rules about rows, and each picks exactly the rows that it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataflow_assets.checks import _unique
from dataflow_assets.checks.validator import Check, ValidatorOptions
from dataflow_assets.protocols import PicksRows, Scope, Severity
from dataflow_assets_tests.staged import context_in, staged

RULES = [
    {"column": "n", "not_null": True, "min_value": 3, "max_value": 9, "unique": True},
    {"column": "t", "regex": "^a", "min_length": 2, "allowed_values": ["ab", "b", "aa", None]},
    {"check": "unique", "columns": ["n", "t"]},
    {"columns": ["n", "t"], "any_not_null": True},
    {"column": "t", "rejected_values": ["ca"], "not_regex": "b$"},
    {"column": "n", "below": 7, "where": "t = 'b'", "name": "small"},
    {"column": "n", "unique": True, "where": "t = 'b'", "name": "one_b"},
    {"expression": "n + 1 > 3", "name": "sum"},
    {"column": "n", "monotonic": "increasing", "name": "rising"},
]


def _breaks(rows: list[tuple[Any, Any]]) -> dict[str, list[bool]]:
    """What each rule says of each row, in plain Python."""
    seen: dict[str, set[Any]] = {"n": set(), "both": set()}

    def again(name: str, key: Any) -> bool:
        missing = key is None or (isinstance(key, tuple) and None in key)
        known = not missing and key in seen[name]
        seen[name] |= set() if missing else {key}
        return known

    rising, newest = [], None
    for n, _ in rows:
        rising.append(n is not None and newest is not None and n < newest)
        newest = newest if n is None else n
    b_seen: set[Any] = set()
    one_b = []
    for n, t in rows:
        one_b.append(t == "b" and n is not None and n in b_seen)
        b_seen |= {n} if t == "b" else set()
    return {
        "n_t_any_not_null": [n is None and t is None for n, t in rows],
        "t_rejected_values": [t == "ca" for _, t in rows],
        "t_not_regex": [t is not None and t.endswith("b") for _, t in rows],
        "small": [t == "b" and n is not None and n >= 7 for n, t in rows],
        "one_b": one_b,
        "sum": [n is not None and not n + 1 > 3 for n, _ in rows],
        "rising": rising,
        "n_not_null": [n is None for n, _ in rows],
        "n_unique": [again("n", n) for n, _ in rows],
        "n_range": [n is not None and not 3 <= n <= 9 for n, _ in rows],
        "t_accepted_values": [t is not None and t not in ("ab", "b", "aa") for _, t in rows],
        "t_regex": [t is not None and not t.startswith("a") for _, t in rows],
        "t_length": [t is not None and len(t) < 2 for _, t in rows],
        "n_t_unique": [again("both", pair) for pair in rows],
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.none() | st.integers(0, 12), st.none() | st.sampled_from(["ab", "b", "aa", "", "ca"])), min_size=1, max_size=40
    ),
    cut=st.integers(1, 9),
)
def test_each_rule_picks_the_rows_that_it_counts(rows: list[tuple[Any, Any]], cut: int, tmp_path: Path) -> None:
    table = pa.table({"n": pa.array([row[0] for row in rows], pa.int64()), "t": pa.array([row[1] for row in rows], pa.string())})
    check = Check(ValidatorOptions.model_validate({"checks": [{**rule, "on_failure": "quarantine"} for rule in RULES]}))
    stage = staged(table, tmp_path)
    run = check.begin(table.schema, context_in(tmp_path))
    batches = table.to_batches(max_chunksize=cut)
    for batch in batches:
        run.update(batch)
    results = {result.name: result for result in run.finish(stage)}
    assert isinstance(run, PicksRows)
    picked: dict[str, list[bool]] = {name: [] for name in results}
    for batch in batches:
        found = {one.rule: one.rows.to_pylist() for one in run.pick(batch)}
        for name in results:
            picked[name] += found.get(name, [False] * batch.num_rows)
    assert picked == _breaks(rows)
    for name, result in results.items():
        assert (result.failed, result.passed) == (sum(picked[name]), not any(picked[name]))
        assert (result.quarantine, result.blocking, result.severity) == (True, False, Severity.WARN)


def test_other_rules_pick_nothing_and_promise_so(tmp_path: Path) -> None:
    check = Check(
        ValidatorOptions.model_validate(
            {"checks": [{"column": "n", "max_value": 1}, {"column": "n", "max_value": 2, "on_failure": "quarantine", "name": "q"}]}
        )
    )
    assert [(promise.name, promise.quarantine, promise.scope) for promise in check.promises] == [
        ("n_range", False, Scope.ROW),
        ("q", True, Scope.ROW),
    ]
    table = pa.table({"n": [1, 2, 3]})
    run = check.begin(table.schema, context_in(tmp_path))
    (batch,) = table.to_batches()
    run.update(batch)
    run.finish(staged(table, tmp_path))
    assert [(one.rule, one.column, one.rows.to_pylist()) for one in run.pick(batch)] == [("q", "n", [False, False, True])]


def test_a_column_that_is_missing_blocks_and_sets_nothing_aside(tmp_path: Path) -> None:
    check = Check(ValidatorOptions.model_validate({"checks": [{"column": "m", "not_null": True, "on_failure": "quarantine"}]}))
    table = pa.table({"n": [1]})
    run = check.begin(table.schema, context_in(tmp_path))
    run.update(table.to_batches()[0])
    (result,) = run.finish(staged(table, tmp_path))
    assert (result.passed, result.quarantine, result.blocking, result.severity) == (False, False, True, Severity.ERROR)


def test_more_copies_than_are_kept_in_mind_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unique, "_KEPT", 3)
    check = Check(ValidatorOptions.model_validate({"checks": [{"column": "n", "unique": True, "on_failure": "quarantine"}]}))
    table = pa.table({"n": [*range(9), *range(9)]})
    run = check.begin(table.schema, context_in(tmp_path))
    run.update(table.to_batches()[0])
    (result,) = run.finish(staged(table, tmp_path))
    assert (result.failed, result.quarantine, result.blocking) == (9, False, True)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"check": "row_count", "min_rows": 1}, "is for rules about rows .*; row_count judges the dataset, not a row"),
        ({"check": "required_columns", "columns": ["a"]}, "required_columns judges the dataset"),
        ({"column": "a", "not_null": True, "severity": "warn"}, "`severity: warn` publishes the rows that break a rule"),
        ({"column": "a", "not_null": True, "blocking": False}, "`blocking: false` publishes the rows"),
        ({"column": "a", "not_null": True, "max_failed": 3}, "`max_failed` and `warn_above` let rows through"),
        ({"function": "rules.py:good", "whole": True}, "function judges the dataset"),
        ({"anomaly": {"metric": "row_count"}}, "`anomaly` stands alone"),
    ],
)
def test_what_makes_no_sense_is_refused(item: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ValidatorOptions.model_validate({"checks": [{**item, "on_failure": "quarantine"}]})
