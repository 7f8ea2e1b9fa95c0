"""Python values as Arrow arrays: kept exactly, or the first that does not fit is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

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
