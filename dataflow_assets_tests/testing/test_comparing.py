"""Comparing rows: what is the same, and that a difference is complete whatever differs."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.testing.comparing import compare

cells = st.one_of(st.none(), st.integers(-3, 3))
rows = st.lists(st.fixed_dictionaries({"a": cells, "b": cells, "c": st.one_of(st.none(), st.sampled_from("xyz"))}), max_size=8)
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("c", pa.string())])


def _table(found: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(found, schema=SCHEMA)


@settings(deadline=None, max_examples=60)
@given(rows, st.randoms(use_true_random=False))
def test_rows_are_the_same_in_any_order_and_only_in_their_own_when_it_counts(found: list[dict[str, Any]], chance: random.Random) -> None:
    other = list(found)
    chance.shuffle(other)
    assert compare(_table(found), other).same
    assert compare(_table(found), found, ordered=True).same
    assert compare(_table(found), other, ordered=True).same == (found == other)


@settings(deadline=None, max_examples=60)
@given(rows, rows, st.sampled_from([(), ("a",), ("a", "b")]))
def test_a_difference_accounts_for_every_row(expected: list[dict[str, Any]], found: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    difference = compare(_table(found), expected, keys=keys)
    key = lambda row: tuple((row[name] is None, str(row[name])) for name in "abc")  # noqa: E731
    assert difference.same == (sorted(map(key, expected)) == sorted(map(key, found)))
    matched = len(found) - len(difference.unexpected) - len(difference.changed)
    assert len(expected) - len(difference.missing) - len(difference.changed) == matched
    assert bool(difference.lines()) != difference.same


@pytest.mark.parametrize(
    ("kind", "found", "expected", "same"),
    [
        (pa.int64(), 1, 1, True),
        (pa.int64(), 1, "1", False),
        (pa.int64(), 1, 1.0, False),
        (pa.int64(), 1, True, False),
        (pa.bool_(), True, 1, False),
        (pa.float64(), 1.0, 1, True),
        (pa.float64(), float("nan"), float("nan"), True),
        (pa.float64(), None, float("nan"), False),
        (pa.string(), "1", 1, False),
        (pa.decimal128(10, 2), Decimal("4.50"), "4.5", True),
        (pa.decimal128(10, 2), Decimal("4.50"), 4.5, True),
        (pa.decimal128(10, 2), Decimal("4.50"), "4.505", False),
        (pa.list_(pa.int64()), [1, None], [1, None], True),
    ],
)
def test_values_are_compared_by_kind(kind: pa.DataType, found: Any, expected: Any, same: bool) -> None:
    assert compare(pa.table({"v": pa.array([found], kind)}), [{"v": expected}]).same is same


def test_numbers_may_be_a_little_apart_when_that_is_said() -> None:
    found = pa.table({"k": ["a", "b"], "v": [0.1 + 0.2, 5.0]})
    expected = [{"k": "a", "v": 0.3}, {"k": "b", "v": 5}]
    assert not compare(found, expected, keys=["k"]).same
    assert compare(found, expected, keys=["k"], approx=1e-9).same
    assert compare(found, expected, approx=1e-9).same


def test_rows_without_keys_are_matched_by_what_they_share() -> None:
    found = pa.table({"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    difference = compare(found, [{"a": 1, "b": 1, "c": 9}, {"a": 7, "b": 8, "c": 9}])
    assert [changed.cells for changed in difference.changed] == [{"c": (9, 1)}]
    assert len(difference.missing) == len(difference.unexpected) == 1
