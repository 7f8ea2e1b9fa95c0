"""Ends and lengths are those that Arrow finds."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.checks._bounds import bounds_of, lengths_of

FLOATS = st.floats(width=32)
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float": (pa.float32(), FLOATS),
    "double": (pa.float64(), FLOATS),
    "decimal": (pa.decimal128(12, 2), st.decimals(-(10**9), 10**9, places=2)),
    "whole": (pa.decimal128(18, 0), st.decimals(-(10**17), 10**17, places=0)),
    "wide": (pa.decimal128(38, 2), st.decimals(-(10**30), 10**30, places=2)),
    "hundreds": (pa.decimal128(5, -2), st.integers(-999, 999).map(lambda value: Decimal(value * 100))),
    "text": (pa.string(), st.text(max_size=3)),
}


@pytest.mark.parametrize("name", VALUES)
def test_the_ends_are_those_of_arrow(name: str) -> None:
    kind, strategy = VALUES[name]

    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.none() | strategy, max_size=12), st.data())
    def check(values: list[Any], data: st.DataObject) -> None:
        column = pa.array(values, kind).slice(data.draw(st.integers(0, len(values))))
        low, high, nan = bounds_of(column)
        there = [value for value in column.to_pylist() if value is not None]
        assert nan == any(isinstance(value, float) and math.isnan(value) for value in there)
        ends = pc.min_max(column).as_py()
        if ends["min"] is None or ends["min"] != ends["min"]:
            assert (low, high) == (None, None)
        else:
            assert (low, high) == (ends["min"], ends["max"])
            assert (type(low), type(high)) == (type(ends["min"]), type(ends["max"]))
            if isinstance(low, Decimal):
                assert (str(low), str(high)) == (str(ends["min"]), str(ends["max"]))

    check()


def test_what_lies_under_a_null_is_no_end() -> None:
    values = pa.array([5, 99, -99, 7], pa.int32())
    valid = pa.array([1, None, None, 1], pa.int8()).buffers()[0]
    assert bounds_of(pa.Array.from_buffers(pa.int32(), 4, [valid, values.buffers()[1]])) == (5, 7, False)


def test_a_signalling_nan_is_a_nan() -> None:
    bits = np.array([0x7FF0000000000001, 0x3FF0000000000000], dtype=np.uint64)
    assert bounds_of(pa.Array.from_buffers(pa.float64(), 2, [None, pa.py_buffer(bits)])) == (1.0, 1.0, True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.text(alphabet="abé\U0001f600", max_size=5), max_size=8), st.data())
def test_lengths_are_counted_in_characters(texts: list[str | None], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(texts)))
    for kind in (pa.string(), pa.large_string()):
        column = pa.array(texts, kind).slice(cut)
        assert lengths_of(column).equals(pc.utf8_length(column))
        inner = column.slice(0, max(len(column) - 1, 0))
        assert lengths_of(inner).equals(pc.utf8_length(inner))


def test_lengths_of_bytes() -> None:
    for kind in (pa.binary(), pa.large_binary()):
        assert lengths_of(pa.array([b"\xff\xfe", None, b""], kind)).to_pylist() == [2, None, 0]
    assert lengths_of(pa.array([b"abc", None], pa.binary(3))).to_pylist() == [3, None]
