"""Uniqueness: exact against Python's own counting, spilled or not, in bounded memory, and not fooled by equal hashes."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.checks import _unique
from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._hash_runs import HashRuns
from dataflow_assets.checks._rules import Rule, RuleKind
from dataflow_assets.checks._unique import UniqueRun
from dataflow_assets.protocols import CheckResult, StagedInput
from dataflow_assets_tests.staged import context_in, staged


def check_unique(table: pa.Table, *columns: str, folder: Path, run_hashes: int = 1 << 20, cut: int = 65_536) -> CheckResult:
    run = UniqueRun(Rule(RuleKind.UNIQUE, "u", columns), context_in(folder).scratch, run_hashes=run_hashes)
    for batch in table.to_batches(max_chunksize=cut):
        run.update(Facts(batch))
    return run.finish(staged(table, folder))


def surplus(rows: list[tuple[Any, ...]]) -> int:
    return sum(count - 1 for row, count in Counter(row for row in rows if None not in row).items())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.none() | st.integers(0, 12) | st.integers(-(2**63), 2**63 - 1), st.none() | st.sampled_from("abc")), max_size=60
    ),
    run_hashes=st.integers(1, 20),
    cut=st.integers(1, 9),
)
def test_it_counts_as_python_does(rows: list[tuple[Any, ...]], run_hashes: int, cut: int, tmp_path: Path) -> None:
    table = pa.table({"n": pa.array([row[0] for row in rows], pa.int64()), "t": pa.array([row[1] for row in rows], pa.string())})
    single = check_unique(table, "n", folder=tmp_path, run_hashes=run_hashes, cut=cut)
    both = check_unique(table, "n", "t", folder=tmp_path, run_hashes=run_hashes, cut=cut)
    assert single.failed == surplus([row[:1] for row in rows])
    assert both.failed == surplus(rows)
    for result, width in ((single, 1), (both, 2)):
        assert result.passed == (result.failed == 0)
        assert bool(result.samples) == (result.failed > 0)
        shown = Counter(tuple(sample.values())[:width] for sample in result.samples)
        assert all(count > 1 for count in shown.values()) or len(result.samples) == 5


@pytest.mark.parametrize(
    ("values", "kind", "failed"),
    [
        ([Decimal("1.10"), Decimal("1.10"), Decimal("1.11")], pa.decimal128(20, 2), 1),
        ([Decimal("9" * 45), Decimal("9" * 45), None, None], pa.decimal256(50, 0), 1),
        ([date(2013, 1, 1), date(2013, 1, 1)], pa.date32(), 1),
        ([0.0, -0.0, float("nan"), float("nan"), 1.5], pa.float64(), 2),
        ([True, False, True], pa.bool_(), 1),
        ([b"x", b"x", b"y"], pa.binary(), 1),
        ([[1], [1], [2]], pa.list_(pa.int64()), 1),
        (["a", "a", None], pa.dictionary(pa.int8(), pa.string()), 1),
        ([None, None], pa.null(), 0),
    ],
)
def test_every_kind_of_column(values: list[Any], kind: pa.DataType, failed: int, tmp_path: Path) -> None:
    result = check_unique(pa.table({"a": pa.array(values, kind)}), "a", folder=tmp_path)
    assert (result.failed, len(result.samples) >= 2 * failed > 0) == (failed, failed > 0)


def test_the_report_names_the_rows_and_the_values(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 2, 3, 1, None, None], "b": list("vwxyzpq")})
    result = check_unique(table, "a", folder=tmp_path)
    assert result.description == "a: 2 of 7 rows (28.6 %) repeat the value of another row"
    assert [sample["b"] for sample in result.samples] == ["v", "w", "x", "z"]
    assert result.metadata["repeated_values"] == 2
    assert result.metadata["rows_with_null"] == 2


def test_equal_hashes_of_different_values_are_not_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hash collides here: only the second pass, over the values, can tell."""
    monkeypatch.setattr(_unique, "hash_column", lambda column: np.full(len(column), 7, dtype=np.uint64))
    apart = check_unique(pa.table({"a": list(range(1000))}), "a", folder=tmp_path)
    assert (apart.passed, apart.failed, apart.samples) == (True, 0, ())
    twice = check_unique(pa.table({"a": [*range(1000), 5]}), "a", folder=tmp_path)
    assert (twice.passed, twice.failed, [sample["a"] for sample in twice.samples]) == (False, 1, [5, 5])


def test_more_repeated_values_than_are_kept_are_counted_by_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unique, "_KEPT", 10)
    result = check_unique(pa.table({"a": [*range(500), *range(500)]}), "a", folder=tmp_path, run_hashes=64, cut=50)
    assert (result.failed, len(result.samples)) == (500, 5)
    assert "by 64-bit hash" in result.metadata["counted"]


@pytest.mark.parametrize("rows", [3_000_000])
@pytest.mark.parametrize("distinct", [True, False], ids=["all distinct", "all equal"])
def test_memory_is_bounded_and_scratch_is_used(rows: int, distinct: bool, tmp_path: Path) -> None:
    """24 MB would not hold the hashes of all rows at this limit; the same figure holds for any number of rows."""
    runs = HashRuns(tmp_path, run_hashes=1 << 17)
    step = 1 << 16
    tracemalloc.start()
    for start in range(0, rows, step):
        values = np.arange(start, start + step, dtype=np.uint64) if distinct else np.zeros(step, dtype=np.uint64)
        runs.add(values * np.uint64(0x9E3779B97F4A7C15))
    found = runs.counted()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    total = -(-rows // step) * step
    assert found == (total if distinct else 1, total)
    assert peak < 6_000_000 < 8 * rows
    assert not list(tmp_path.iterdir())


def test_a_stage_without_rows_is_unique(tmp_path: Path) -> None:
    stage = StagedInput("rows", pa.schema([("a", pa.int64())]), 0, ())
    assert UniqueRun(Rule(RuleKind.UNIQUE, "u", ("a",)), tmp_path).finish(stage).passed
