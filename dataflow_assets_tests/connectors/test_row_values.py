"""Python values as Arrow arrays: kept exactly, or the first that does not fit is told."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.connectors._row_values import Misfit, array_of, kind_of

INSTANT, NAIVE = pa.timestamp("us", "UTC"), pa.timestamp("us")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None], pa.int64(), [1, None]),
        ([0, 1, None], pa.bool_(), [False, True, None]),
        ([1, 1.5], pa.float64(), [1.0, 1.5]),
        ([0.1], pa.float32(), [pa.scalar(0.1, pa.float32()).as_py()]),
        ([UUID(int=1), None], pa.string(), ["00000000-0000-0000-0000-000000000001", None]),
        ([bytearray(b"a"), memoryview(b"b"), b"c"], pa.binary(), [b"a", b"b", b"c"]),
        ([Decimal("1.5"), 2], pa.decimal128(5, 2), [Decimal("1.50"), Decimal("2.00")]),
        ([1.1, 2, "3"], pa.decimal128(5, 2), [Decimal("1.10"), Decimal("2.00"), Decimal("3.00")]),
        ([datetime(2024, 1, 1, tzinfo=UTC)], INSTANT, [datetime(2024, 1, 1, tzinfo=UTC)]),
        (["2024-01-01T00:00:00+02:00"], INSTANT, [datetime(2023, 12, 31, 22, tzinfo=UTC)]),
        ([timedelta(hours=1), None], pa.time64("us"), [time(1), None]),
        ([None, None], INSTANT, [None, None]),
    ],
)
def test_values_are_kept(values: list[Any], kind: pa.DataType, expected: list[Any]) -> None:
    found = array_of(values, kind)
    assert found.type == kind
    assert found.to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "kind", "culprit"),
    [
        ([1, "2"], pa.int64(), "2"),
        ([1, True], pa.int64(), True),
        ([1, 2**63], pa.int64(), 2**63),
        ([1, 2**53 + 1], pa.float64(), 2**53 + 1),
        ([1.5, 1e39], pa.float32(), 1e39),
        ([1, 2], pa.bool_(), 2),
        (["a", b"b"], pa.string(), b"b"),
        ([b"a", "b"], pa.binary(), "b"),
        ([Decimal("1.5"), Decimal("1.555")], pa.decimal128(5, 2), Decimal("1.555")),
        ([Decimal(1), Decimal("NaN")], pa.decimal128(5, 2), Decimal("NaN")),
        ([1.5, 1.555], pa.decimal128(5, 2), 1.555),
        ([datetime(2024, 1, 1, tzinfo=UTC)], NAIVE, datetime(2024, 1, 1, tzinfo=UTC)),
        ([datetime(2024, 1, 1)], INSTANT, datetime(2024, 1, 1)),
        (["2024-01-01", "2024-13-01"], pa.date32(), "2024-13-01"),
        ([date(2024, 1, 1), datetime(2024, 1, 1)], pa.date32(), datetime(2024, 1, 1)),
        ([timedelta(hours=1), timedelta(days=2)], pa.time64("us"), timedelta(days=2)),
        ([time(1, tzinfo=UTC)], pa.time64("us"), time(1, tzinfo=UTC)),
        ([[1]], pa.list_(pa.int64()), [1]),
    ],
)
def test_the_first_misfit_is_told(values: list[Any], kind: pa.DataType, culprit: Any) -> None:
    with pytest.raises(Misfit) as caught:
        array_of(values, kind)
    assert repr(caught.value.value) == repr(culprit)


_KINDS = (pa.decimal128(15, 2), pa.decimal128(12, 0), pa.decimal128(15, 15), pa.decimal128(6, 6), pa.decimal128(16, 2))
_SHORT = st.tuples(st.integers(-(10**15), 10**15), st.integers(0, 15)).map(lambda pair: pair[0] / 10 ** pair[1])
_NEAR = st.tuples(_SHORT, st.sampled_from([math.inf, -math.inf])).map(lambda pair: math.nextafter(*pair))


@given(
    st.lists(st.one_of(st.none(), _SHORT, _NEAR, st.floats(), st.integers(-(2**60), 2**60)), min_size=1, max_size=4),
    st.sampled_from(_KINDS),
)
@settings(max_examples=400)
def test_a_float_is_the_decimal_of_its_shortest_text(values: list[Any], kind: pa.DataType) -> None:
    def by_text(value: Any) -> Decimal | None:
        found = None if value is None else Decimal(str(value))
        if found is not None and not (found.is_finite() and abs(found) < 10 ** (kind.precision - kind.scale)):
            raise ValueError
        if found is not None and found != found.quantize(Decimal(1).scaleb(-kind.scale), context=Context(prec=400)):
            raise ValueError
        return found

    try:
        expected = [by_text(value) for value in values]
    except ValueError:
        with pytest.raises(Misfit):
            array_of(values, kind)
    else:
        found = array_of(values, kind)
        found.validate(full=True)
        assert found.to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None], None),
        ([1, None], pa.int64()),
        ([1, 1.5], pa.float64()),
        ([True], pa.bool_()),
        (["a"], pa.string()),
        ([b"a"], pa.binary()),
        ([Decimal(1)], pa.decimal128(38, 9)),
        ([date(2024, 1, 1)], pa.date32()),
        ([datetime(2024, 1, 1)], NAIVE),
        ([datetime(2024, 1, 1, tzinfo=UTC), None], INSTANT),
    ],
)
def test_values_show_their_type(values: list[Any], kind: pa.DataType | None) -> None:
    assert kind_of(values) == kind


@pytest.mark.parametrize("values", [[1, "a"], [{"a": 1}], [[1]], [timedelta(1)], [True, 1]], ids=str)
def test_values_without_a_single_type_are_told(values: list[Any]) -> None:
    with pytest.raises(Misfit):
        kind_of(values)
