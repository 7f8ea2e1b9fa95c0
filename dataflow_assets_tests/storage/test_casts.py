"""Exact casts: a value comes out equal, or the column is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.casts import cast_exactly

NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(lambda value: pa.array([value, None], type=pa.int64())),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: pa.array([value, None], type=pa.float64())),
    st.decimals(-(10**15), 10**15, places=6).map(lambda value: pa.array([value, None], type=pa.decimal128(24, 6))),
    st.integers(-(10**60), 10**60).map(lambda value: pa.array([Decimal(value), None], type=pa.decimal256(61, 0))),
)
DECIMALS = (pa.decimal128(5, 2), pa.decimal128(38, 9), pa.decimal128(10, 0), pa.decimal128(38, 30), pa.decimal256(60, 20))
KINDS = st.sampled_from([*map(pa.type_for_alias, ("int8", "int32", "int64", "uint8", "uint64", "float32", "float64")), *DECIMALS])


@given(NUMBERS, KINDS)
def test_a_number_keeps_its_value_or_is_refused(column: pa.Array, kind: pa.DataType) -> None:
    try:
        cast = cast_exactly(column, kind, name="amount")
    except ValueRefused:
        return
    assert cast.type == kind
    before, after = column.to_pylist(), cast.to_pylist()
    assert after[1] is None
    if isinstance(before[0], float) and isinstance(after[0], Decimal):
        assert float(after[0]) == before[0]
    else:
        assert after[0] == before[0]


@given(st.from_regex(r"-?[0-9]{1,80}(\.[0-9]{1,12})?(e[+-]?[0-9]{1,2})?", fullmatch=True), KINDS.filter(pa.types.is_decimal))
def test_a_number_in_text_keeps_its_value_or_is_refused(text: str, kind: pa.DataType) -> None:
    try:
        cast = cast_exactly(pa.array([text, None]), kind, name="amount")
    except ValueRefused:
        return
    assert cast.to_pylist() == [Decimal(text), None]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([datetime(2024, 1, 1)]), pa.timestamp("us", "UTC")),
        (pa.array([datetime(2024, 1, 1, tzinfo=UTC)]), pa.timestamp("us")),
        (pa.array([datetime(2024, 1, 1, 12)]), pa.date32()),
        (pa.array([1], type=pa.timestamp("ns")), pa.timestamp("us")),
        (pa.array(["2024-01-01T00:00:00"]), pa.timestamp("us", "UTC")),
        (pa.array(["2024-01-01T00:00:00Z"]), pa.timestamp("us")),
        (pa.array(["1.005"]), pa.decimal128(10, 2)),
        (pa.array(["1943427119323836"]), pa.decimal128(38, 30)),
        (pa.array([1943427119323836]), pa.decimal128(38, 30)),
        (pa.array(["nan"]), pa.decimal128(38, 30)),
        (pa.array([Decimal("1.5")]), pa.float64()),
        (pa.array([True]), pa.int64()),
        (pa.array([b"x"]), pa.string()),
        (pa.array(["x"]), pa.binary()),
        (pa.array([{"a": 1}]), pa.string()),
        (pa.array([[2**40]]), pa.list_(pa.int32())),
    ],
    ids=str,
)
def test_a_change_of_meaning_is_refused(values: pa.Array, kind: pa.DataType) -> None:
    with pytest.raises(ValueRefused):
        cast_exactly(values, kind, name="v")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pa.nulls(2), pa.int32(), [None, None]),
        (pa.array(["a", None]).dictionary_encode(), pa.string(), ["a", None]),
        (pa.array([[1, None], None, []]).slice(1), pa.list_(pa.int16()), [None, []]),
        (pa.array([0.1, 1e22]), pa.decimal128(38, 2), [Decimal("0.10"), Decimal(10**22)]),
        (pa.array([float("nan"), 1.5]), pa.float32(), ["nan", 1.5]),
        (pa.array([datetime(2024, 1, 1)]), pa.date32(), [datetime(2024, 1, 1).date()]),
    ],
    ids=str,
)
def test_what_fits_is_kept(values: pa.Array, kind: pa.DataType, expected: list[Any]) -> None:
    found = cast_exactly(values, kind, name="v").to_pylist()
    assert [str(value) if value != value else value for value in found] == expected


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_half_floats_become_wider_ones(kind: pa.DataType) -> None:
    values = [1.5, None, 65504.0, 2.0**-24, float("inf")]
    assert cast_exactly(pa.array(values, type=pa.float16()), kind, name="v") == pa.array(values, type=kind)
