"""Relationships against Python's own sets: counts, rows, values, on both sides spilled or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.checks import _lookup
from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._lookup import RelationRun
from dataflow_assets.checks._rules import Rule, RuleKind
from dataflow_assets.errors import DataflowError
from dataflow_assets.protocols import CheckResult, StepContext
from dataflow_assets.tables import DatasetRef
from dataflow_assets_tests.staged import context_in, staged, verdicts


def beside(folder: Path, other: pa.Table) -> StepContext:
    """A context in which every reference leads to `other`."""

    @contextmanager
    def open_dataset(dataset: DatasetRef) -> Iterator[pa.RecordBatchReader]:
        yield other.to_reader(3)

    return replace(context_in(folder), open_dataset=open_dataset)


def started(table: pa.Table, other: pa.Table, *columns: str, folder: Path, run_hashes: int = 1 << 20, cut: int = 50) -> RelationRun:
    rule = Rule(RuleKind.RELATIONSHIPS, "r", columns, to=DatasetRef(tuple(other.column_names), step="other"))
    run = RelationRun(rule, table.schema, beside(folder, other), run_hashes=run_hashes)
    for batch in table.to_batches(max_chunksize=cut):
        run.update(Facts(batch))
    return run


def related(table: pa.Table, other: pa.Table, *columns: str, folder: Path, **more: Any) -> CheckResult:
    return started(table, other, *columns, folder=folder, **more).finish(staged(table, folder))


KEYS = st.tuples(st.none() | st.integers(0, 9), st.none() | st.sampled_from("abc"))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(KEYS, max_size=50), others=st.lists(KEYS, max_size=20), run_hashes=st.integers(1, 9), cut=st.integers(1, 9))
def test_it_finds_what_python_finds(rows: list[Any], others: list[Any], run_hashes: int, cut: int, tmp_path: Path) -> None:
    table = pa.table({"n": pa.array([row[0] for row in rows], pa.int64()), "t": pa.array([row[1] for row in rows], pa.string())})
    other = pa.table({"x": pa.array([row[0] for row in others], pa.int16()), "y": pa.array([row[1] for row in others], pa.large_string())})
    run = started(table, other, "n", "t", folder=tmp_path, run_hashes=run_hashes, cut=cut)
    result = run.finish(staged(table, tmp_path))
    lost = [row if None not in row and row not in others else None for row in rows]
    missing = Counter(row for row in lost if row)
    assert (result.checked, result.failed, result.metadata["missing_values"]) == (len(rows), sum(missing.values()), len(missing))
    assert [tuple(sample.values()) for sample in result.samples] == [row for row in lost if row][:5]
    shown = [(tuple(item["value"].values()), item["rows"]) for item in result.metadata.get("frequent_values", [])]
    assert [number for _, number in shown] == sorted(missing.values(), reverse=True)[:5]
    assert all(missing[value] == number for value, number in shown)
    picked = [run.pick(Facts(batch)) for batch in table.to_batches(max_chunksize=cut)]
    assert sum(mask.true_count for mask in picked if mask is not None) == result.failed


@pytest.mark.parametrize(
    ("own", "other", "failed"),
    [
        (pa.array([1, 2, None], pa.uint8()), pa.array([1, 3], pa.decimal128(38, 0)), 1),
        (pa.array([Decimal("1.50"), Decimal("2")], pa.decimal128(9, 2)), pa.array([Decimal("1.5000")], pa.decimal128(9, 4)), 1),
        (pa.array(["a", "b"]).dictionary_encode(), pa.array(["b"], pa.string_view()), 1),
        (pa.array([datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")), pa.array([datetime(2024, 1, 1)], pa.timestamp("s")), 0),
        (pa.array([], pa.int64()), pa.array(["nothing is compared"]), 0),
    ],
)
def test_values_meet_whatever_their_width(own: pa.Array, other: pa.Array, failed: int, tmp_path: Path) -> None:
    assert related(pa.table({"a": own}), pa.table({"id": other}), "a", folder=tmp_path).failed == failed


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    numbers = pa.table({"a": [1, 2]})
    result = related(numbers, pa.table({"id": ["1"]}), "a", folder=tmp_path)
    assert (result.passed, result.description) == (
        False,
        "a is int64, but id of other is string: cast one of them so that they can be compared",
    )
    rule = {"column": "a", "to": {"step": "other", "column": "idd"}}
    (missing,) = verdicts({"checks": [rule]}, staged(numbers, tmp_path), beside(tmp_path, pa.table({"id": [1]}))).values()
    assert (missing.passed, missing.description) == (False, "other: column 'idd' is not in the data (did you mean 'id'?)")


def test_where_limits_the_rows_that_need_a_partner(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3, 3], "kind": ["x", "x", "y", "x"]})
    rule = {"column": "a", "to": {"step": "other", "column": "id"}, "where": "kind = 'x'"}
    stage, context = staged(table, tmp_path), beside(tmp_path, pa.table({"id": [1, 2]}))
    (result,) = verdicts({"checks": [rule]}, stage, context).values()
    assert (result.checked, result.failed, [sample["kind"] for sample in result.samples]) == (3, 1, ["x"])


def test_more_missing_values_than_are_kept_are_counted_but_cannot_be_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lookup, "_KEPT", 10)
    table = pa.table({"a": [*range(200), *range(200)]})
    run = started(table, pa.table({"id": [5]}), "a", folder=tmp_path, run_hashes=64)
    result = run.finish(staged(table, tmp_path))
    assert (result.failed, result.metadata["missing_values"], len(result.samples)) == (398, 199, 5)
    with pytest.raises(DataflowError, match="too many to set their rows aside"):
        run.pick(Facts(table.to_batches()[0]))


def test_a_dataset_without_values_asks_for_no_other(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([None, None], pa.int64())})
    rule = {"column": "a", "to": {"connection": "x", "table": "y"}}
    (result,) = verdicts({"checks": [rule]}, staged(table, tmp_path), context_in(tmp_path)).values()
    assert result.passed
    with pytest.raises(DataflowError, match="no other dataset can be opened"):
        verdicts({"checks": [rule]}, staged(pa.table({"a": [1]}), tmp_path), context_in(tmp_path))
