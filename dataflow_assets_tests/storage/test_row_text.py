"""Rows as text and back: the very same Arrow values, whatever their types."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.row_text import rows_as_text, rows_from_text, schema_as_text, schema_from_text, values_as_text

INTEGERS = {kind: (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())}
UNSIGNED = {kind: (0, 2**kind.bit_width - 1) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())}
COUNTED = [
    *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "America/New_York")),
    *(pa.duration(unit) for unit in ("s", "us")),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
]
_LIMITS = {pa.time32("s"): 86_400, pa.time32("ms"): 86_400_000, pa.time64("us"): 86_400 * 10**6, pa.time64("ns"): 86_400 * 10**9}


def _counts(kind: pa.DataType) -> st.SearchStrategy[pa.Array]:
    """Any count that the type can hold: the year 300000 too."""
    bits, limit = kind.bit_width, _LIMITS.get(kind)
    low, high = (0, limit - 1) if limit else (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
    values = st.integers(low, high) | st.integers(max(low, -(2**31)), min(high, 2**31 - 1))
    if pa.types.is_date64(kind):
        values = st.integers(-(10**9), 10**9).map(lambda day: day * 86_400_000)
    storage = pa.int32() if bits == 32 else pa.int64()
    return _column(storage, values).map(lambda column: column.view(kind))


def _column(kind: pa.DataType, values: st.SearchStrategy[Any]) -> st.SearchStrategy[pa.Array]:
    return st.lists(st.none() | values, min_size=ROWS, max_size=ROWS).map(lambda found: pa.array(found, kind))


def _halves() -> st.SearchStrategy[pa.Array]:
    return _column(pa.float16(), st.floats(width=16, allow_nan=False).map(np.float16))


ROWS = 4
TEXT = st.text(max_size=12)
PLAIN: list[Callable[[], st.SearchStrategy[pa.Array]]] = [
    *(lambda kind=kind, ends=ends: _column(kind, st.integers(*ends)) for kind, ends in (INTEGERS | UNSIGNED).items()),
    lambda: _column(pa.bool_(), st.booleans()),
    lambda: _column(pa.float64(), st.floats(allow_nan=False)),
    lambda: _column(pa.float32(), st.floats(width=32, allow_nan=False)),
    _halves,
    *(lambda kind=kind: _column(kind, TEXT) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *(lambda kind=kind: _column(kind, st.binary(max_size=9)) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    lambda: _column(pa.binary(3), st.binary(min_size=3, max_size=3)),
    lambda: _column(pa.decimal128(38, 9), st.decimals(-(10**29) + 1, 10**29 - 1, places=9)),
    lambda: _column(pa.decimal128(5, -2), st.integers(-99999, 99999).map(lambda number: Decimal(number) * 100)),
    lambda: _column(pa.decimal256(70, 20), st.decimals(-(10**40), 10**40, places=20)),
    *(lambda kind=kind: _counts(kind) for kind in COUNTED),
    lambda: _column(pa.string(), TEXT).map(lambda column: column.dictionary_encode()),
    lambda: st.just(pa.nulls(ROWS)),
]
NESTED: list[Callable[[], st.SearchStrategy[pa.Array]]] = [
    lambda: _column(pa.list_(pa.int32()), st.lists(st.none() | st.integers(-9, 9), max_size=3)),
    lambda: _column(pa.large_list(pa.string()), st.lists(st.none() | TEXT, max_size=3)),
    lambda: _column(pa.list_(pa.float64(), 2), st.lists(st.floats(allow_nan=False), min_size=2, max_size=2)),
    lambda: _column(pa.map_(pa.string(), pa.date32()), st.lists(st.tuples(TEXT, st.none() | st.dates()), max_size=3)),
    lambda: _column(
        pa.struct([("a", pa.int64()), ('q"', pa.list_(pa.struct([("b", pa.binary())])))]),
        st.fixed_dictionaries(
            {
                "a": st.none() | st.integers(0, 9),
                'q"': st.none() | st.lists(st.none() | st.fixed_dictionaries({"b": st.binary(max_size=3)})),
            }
        ),
    ),
]


def same(column: pa.Array, other: pa.Array) -> bool:
    """Equal in type and in every value, null or not; dictionaries may be numbered anew."""
    if isinstance(column.type, pa.DictionaryType):
        return column.type == other.type and column.dictionary_decode().equals(other.dictionary_decode())
    return bool(column.equals(other))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back_exactly(data: st.DataObject) -> None:
    makers = data.draw(st.lists(st.sampled_from(PLAIN + NESTED), min_size=1, max_size=8))
    columns = [data.draw(make()) for make in makers]
    names = data.draw(st.lists(TEXT, min_size=len(columns), max_size=len(columns), unique=True))
    rows = pa.RecordBatch.from_arrays(columns, names=names).slice(data.draw(st.integers(0, 2)))
    schema = schema_from_text(schema_as_text(rows.schema))
    assert schema.equals(rows.schema, check_metadata=True)
    texts = rows_as_text(rows)
    back = rows_from_text(texts, schema)
    back.validate(full=True)
    for name, column, found in zip(names, rows.columns, back.columns, strict=True):
        assert same(found, column), name
    assert all(list(json.loads(text)) == names for text in texts.to_pylist())


@pytest.mark.parametrize("number", range(len(PLAIN + NESTED)))
def test_each_type_on_its_own(number: int) -> None:
    @settings(max_examples=6, deadline=None, database=None)
    @given((PLAIN + NESTED)[number]())
    def survives(column: pa.Array) -> None:
        rows = pa.record_batch({"x": column})
        assert same(rows_from_text(rows_as_text(rows), rows.schema).column(0), column)

    survives()


def test_numbers_that_are_none() -> None:
    rows = pa.record_batch({"x": pa.array([float("nan"), float("-inf"), -0.0])})
    found = rows_from_text(rows_as_text(rows), rows.schema).column(0).to_pylist()
    assert str(found) == "[nan, -inf, -0.0]"


def test_the_text_says_what_a_person_expects() -> None:
    rows = pa.record_batch(
        {
            "id": pa.array([7]),
            "paid": pa.array([True]),
            "price": pa.array([Decimal("1.50")], pa.decimal128(9, 2)),
            "share": pa.array([0.1]),
            "at": pa.array([datetime(2024, 1, 31, 6, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin")),
            "day": pa.array([date(2024, 1, 31)]),
            "clock": pa.array([time(6, 30)], pa.time64("us")),
            "raw": pa.array([b"\x00\xff"]),
            "note": pa.array(['say "é"\n']),
            "none": pa.nulls(1),
            "far": pa.array([10**7], pa.int32()).view(pa.date32()),
            "tags": pa.array([["a", None]]),
        }
    )
    assert json.loads(rows_as_text(rows)[0].as_py()) == {
        "id": 7,
        "paid": True,
        "price": "1.50",
        "share": "0.1",
        "at": "2024-01-31 06:00:00.000000Z",
        "day": "2024-01-31",
        "clock": "06:30:00.000000",
        "raw": "00ff",
        "note": 'say "é"\n',
        "none": None,
        "far": "#10000000",
        "tags": ["a", None],
    }
    shown = {name: values_as_text(column)[0].as_py() for name, column in zip(rows.schema.names, rows.columns, strict=True)}
    assert (shown["price"], shown["note"], shown["none"], shown["raw"]) == ("1.50", 'say "é"\n', None, "00ff")


def test_a_type_that_no_stage_holds_is_refused() -> None:
    rows = pa.record_batch({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(ValueRefused, match="cannot be kept as text"):
        rows_as_text(rows)


def test_no_rows_and_no_columns() -> None:
    rows = pa.record_batch({"x": pa.array([], pa.int64())})
    assert rows_from_text(rows_as_text(rows), rows.schema).equals(rows)
