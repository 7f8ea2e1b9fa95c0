"""The canonical form: which types meet in which family, and canonical text as values again."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.canonical import NAN_BITS, Family, agree, family_of, value_of
from dataflow_assets_tests.connectors.arrow_types import COLUMNS

INSTANT = pa.timestamp("us", "UTC")


def test_every_type_that_can_be_staged_has_a_family_but_durations():
    assert {name for name, column in COLUMNS.items() if family_of(column.type) is None} == {"duration_us"}


PAIRS: list[tuple[pa.DataType, pa.DataType, Family | None]] = [
    (pa.int8(), pa.uint64(), Family.INTEGER),
    (pa.bool_(), pa.int8(), Family.DECIMAL),
    (pa.int64(), pa.decimal128(5, 2), Family.DECIMAL),
    (pa.float32(), pa.float64(), Family.FLOAT),
    (pa.decimal128(5, 2), pa.float64(), Family.FLOAT),
    (pa.timestamp("ms"), INSTANT, Family.INSTANT),
    (pa.date32(), INSTANT, Family.INSTANT),
    (pa.string(), INSTANT, Family.INSTANT),
    (pa.decimal128(9, 2), pa.string(), Family.DECIMAL),
    (pa.binary(4), pa.large_binary(), Family.BYTES),
    (pa.string(), pa.binary(), Family.BYTES),
    (pa.null(), pa.date32(), Family.DATE),
    (pa.null(), pa.string(), Family.TEXT),
    (pa.list_(pa.int8()), pa.list_(pa.int64()), Family.NESTED),
    (pa.list_(pa.int8()), pa.string(), None),
    (pa.time64("us"), pa.int64(), None),
    (pa.duration("us"), pa.duration("us"), None),
]


@pytest.mark.parametrize(("left", "right", "family"), PAIRS)
def test_two_types_are_compared_in_the_same_family_whichever_side_they_are_on(left: pa.DataType, right: pa.DataType, family: Family | None):
    for one, two in ((left, right), (right, left)):
        found = agree(pa.schema([("a", one)]), pa.schema([("a", two)]), names=("source", "target"))
        assert [column.family for column in found.columns] == ([family] if family else [])
        assert found.left_out == (() if family else (f"a: {one} in source and {two} in target have no common form",))


def test_columns_of_one_side_are_said_and_our_own_are_not():
    left = pa.schema([("id", pa.int64()), ("old", pa.int64()), ("secret", pa.string())])
    right = pa.schema([("id", pa.int64()), ("new", pa.int64()), ("secret", pa.string()), ("_dataflow_load", pa.string())])
    found = agree(left, right, names=("source", "target"), ignore=["secret"])
    assert found.left_out == ("old: only in source", "new: only in target", "secret: ignored")
    assert found.named(["id"]) == (0,)


@pytest.mark.parametrize(
    ("family", "text", "value"),
    [
        (Family.INTEGER, "-7", -7),
        (Family.DECIMAL, "1.5", Decimal("1.5")),
        (Family.BOOLEAN, "1", True),
        (Family.FLOAT, "4609434218613702656", 1.5),
        (Family.INSTANT, "-1", datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        (Family.DATE, "-1", date(1969, 12, 31)),
        (Family.TIME, "3600000001", time(1, 0, 0, 1)),
        (Family.TEXT, "?a", "?a"),
        (Family.DATE, "?soon", "?soon"),
        (Family.INSTANT, "99999999999999999999", "99999999999999999999"),
        (Family.DATE, None, None),
    ],
)
def test_canonical_text_is_shown_as_a_value(family: Family, text: str | None, value: Any):
    assert value_of(family, text) == value


def test_there_is_one_nan():
    assert math.isnan(value_of(Family.FLOAT, str(NAN_BITS)))
