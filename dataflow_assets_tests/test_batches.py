"""Batches: the checksum is free of order and of physical width and sensitive to everything else; resizing keeps rows."""

import math
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.batches import Checksum, hash_column, hash_rows, open_parquet, resize
from dataflow_assets.errors import StageCorrupt

STAMPS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "bool": (pa.bool_(), st.booleans()),
    "double": (pa.float64(), st.floats(allow_nan=True).filter(lambda value: not (value == 0 and math.copysign(1, value) < 0))),
    "text": (pa.string(), st.text(max_size=40)),
    "bytes": (pa.binary(), st.binary(max_size=40)),
    "fixed": (pa.binary(5), st.binary(min_size=5, max_size=5)),
    "decimal": (pa.decimal128(18, 4), st.decimals(-(10**13), 10**13, places=4)),
    "wide_decimal": (pa.decimal128(38, 6), st.decimals(-(10**30), 10**30, places=6)),
    "stamp": (pa.timestamp("us"), STAMPS),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "duration": (pa.duration("us"), st.timedeltas(timedelta(-9999), timedelta(9999))),
    "list": (pa.list_(pa.int32()), st.lists(st.integers(-99, 99), max_size=4)),
    "struct": (
        pa.struct([("a", pa.int32()), ("b", pa.string())]),
        st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.text(max_size=3)}),
    ),
}


def checksum(*batches: pa.RecordBatch) -> Checksum:
    total = Checksum()
    for batch in batches:
        total = total.add(batch)
    return total


def one(column: pa.Array, name: str = "c") -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([column], names=[name])


def same(value: Any, other: Any) -> bool:
    return value == other or (isinstance(value, float) and isinstance(other, float) and math.isnan(value) and math.isnan(other))


@pytest.mark.parametrize("name", VALUES)
def test_order_slices_and_chunks_do_not_matter(name: str) -> None:
    kind, strategy = VALUES[name]

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.none() | strategy, min_size=1, max_size=20), st.data())
    def check(values: list[Any], data: st.DataObject) -> None:
        whole = checksum(one(pa.array(values, kind)))
        shuffled = data.draw(st.permutations(values))
        cut = data.draw(st.integers(0, len(values)))
        column = pa.array(shuffled, kind)
        assert checksum(one(column)) == whole
        assert checksum(one(column.slice(cut)), one(column.slice(0, cut))) == whole
        padded = pa.concat_arrays([pa.array(values[:1], kind), column, pa.array(values[:2], kind)])
        assert checksum(one(padded.slice(1, len(values)))) == whole

    check()


@pytest.mark.parametrize("name", VALUES)
def test_any_single_change_is_seen(name: str) -> None:
    kind, strategy = VALUES[name]

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.none() | strategy, min_size=1, max_size=8), st.none() | strategy, st.data())
    def check(values: list[Any], other: Any, data: st.DataObject) -> None:
        where = data.draw(st.integers(0, len(values) - 1))
        before = checksum(one(pa.array(values, kind)))
        changed = [*values[:where], other, *values[where + 1 :]]
        assert (checksum(one(pa.array(changed, kind))) == before) == same(values[where], other)
        assert checksum(one(pa.array([*values, other], kind))) != before
        assert checksum(one(pa.array(values[:where] + values[where + 1 :], kind))) != before

    check()


NUMBERS = [None, 0, 1, -1, 100, -128, 127]
WORDS = [None, "", "a", "é" * 7, "eight by", "longer than eight bytes", "\0"]
MOMENTS = [None, datetime(1969, 12, 31, 23, 59, 59), datetime(2024, 2, 29, 1, 2, 3)]
DECIMALS = [None, Decimal("0"), Decimal("1.5"), Decimal("-20"), Decimal("100.25")]
EQUAL: dict[str, list[pa.Array]] = {
    "integers": [pa.array(NUMBERS, kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())],
    "unsigned": [pa.array([None, 0, 255], kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.int64())],
    "whole decimals": [pa.array(NUMBERS, pa.int64()), pa.array(NUMBERS, pa.decimal128(10, 2)), pa.array(NUMBERS, pa.decimal128(38, 0))],
    "floats": [pa.array([None, 1.5, -0.25, float("nan"), float("inf")], kind) for kind in (pa.float32(), pa.float64())],
    "halves": [pa.array([np.float16(1.5), None], pa.float16()), pa.array([1.5, None], pa.float64())],
    "zeros": [pa.array([0.0]), pa.array([-0.0])],
    "timestamps": [pa.array(MOMENTS, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")],
    "zones": [
        pa.array([None, *(moment.replace(tzinfo=UTC) for moment in MOMENTS[1:])], pa.timestamp("us", zone))  # type: ignore[union-attr]
        for zone in ("UTC", "America/New_York", "+05:30")
    ],
    "dates": [pa.array([None, date(1969, 1, 1), date(2024, 2, 29)], kind) for kind in (pa.date32(), pa.date64())],
    "times": [pa.array([None, time(1, 2, 3)], kind) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))],
    "durations": [pa.array([None, timedelta(seconds=-5)], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")],
    "decimals": [
        pa.array(DECIMALS, kind)
        for kind in (
            pa.decimal128(5, 2),
            pa.decimal128(18, 6),
            pa.decimal128(38, 10),
            pa.decimal256(70, 20),
            pa.decimal32(9, 3),
            pa.decimal64(18, 5),
        )
    ],
    "texts": [
        pa.array(WORDS, pa.string()),
        pa.array(WORDS, pa.large_string()),
        pa.array(WORDS, pa.string_view()),
        pa.array(WORDS, pa.string()).dictionary_encode(),
        pa.array([None if word is None else word.encode() for word in WORDS], pa.binary()),
        pa.array([None if word is None else word.encode() for word in WORDS], pa.binary_view()),
    ],
    "dictionaries with a null inside": [
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None])),
        pa.array(["a", None, None]),
    ],
    "fixed size": [pa.array([b"abc", None], pa.binary(3)), pa.array([b"abc", None], pa.large_binary())],
    "uuids": [
        pa.array([uuid.UUID(int=7).bytes, None], pa.uuid()),
        pa.array([uuid.UUID(int=7).bytes, None], pa.binary(16)),
    ],
    "nothing but null": [
        pa.nulls(3),
        pa.nulls(3, pa.int32()),
        pa.nulls(3, pa.string()),
        pa.nulls(3, pa.decimal128(5, 2)),
        pa.nulls(3, pa.date32()),
    ],
    "lists": [pa.array([[1, None], None, []], pa.list_(kind)) for kind in (pa.int8(), pa.int64())],
}


@pytest.mark.parametrize("name", EQUAL)
def test_physical_width_does_not_matter(name: str) -> None:
    sums = {str(checksum(one(column))): str(column.type) for column in EQUAL[name]}
    assert len(sums) == 1, sums
    for column in EQUAL[name]:
        doubled = pa.concat_arrays([column, column])
        assert checksum(one(doubled.slice(len(column)))) == checksum(one(column)), column.type


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8))
def test_a_bigint_kept_as_numeric_is_equal(values: list[int | None]) -> None:
    assert checksum(one(pa.array(values, pa.int64()))) == checksum(one(pa.array(values, pa.decimal128(38, 9))))


def test_what_lies_under_a_null_does_not_matter() -> None:
    values = pa.array([7, 8, 9], pa.int64())
    masked = pa.Array.from_buffers(pa.int64(), 3, [pa.array([1, None, 3]).buffers()[0], values.buffers()[1]])
    assert masked.to_pylist() == [7, None, 9]
    assert checksum(one(masked)) == checksum(one(pa.array([7, None, 9])))


def test_names_matter_and_their_order_does_not() -> None:
    ab = pa.RecordBatch.from_pydict({"a": [1, 2], "b": [3, 4]})
    assert checksum(ab) == checksum(ab.select(["b", "a"]))
    assert checksum(ab) != checksum(ab.rename_columns(["b", "a"]))
    assert checksum(ab) != checksum(pa.RecordBatch.from_pydict({"a": [1, 2], "b": [4, 3]}))
    assert checksum(one(pa.array([1]), "x")) != checksum(one(pa.array([1]), "y"))


def test_equal_pairs_do_not_cancel() -> None:
    assert checksum(one(pa.array([5, 5]))).value != checksum(one(pa.array([6, 6]))).value
    assert checksum(one(pa.array([5, 5, 7]))).value != checksum(one(pa.array([6, 6, 7]))).value


def test_null_differs_from_every_like_of_it() -> None:
    likes = [
        pa.array([None, value], kind) for value, kind in ((0, pa.int64()), ("", pa.string()), (0.0, pa.float64()), (False, pa.bool_()))
    ]
    likes.append(pa.array([None, float("nan")], pa.float64()))
    for column in likes:
        first, second = hash_column(column)
        assert first != second, column.type


def test_values_of_one_kind_spread_over_all_bits() -> None:
    hashes = hash_rows(one(pa.array(range(4096), pa.int64())))
    assert len(set(hashes.tolist())) == 4096
    ones = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert (abs(ones - 0.5) < 0.05).all()


LASTING: dict[str, tuple[int, pa.Array]] = {
    "integers": (0x6DD15C187B18F7DA, pa.array([0, -1, 2**40, None], pa.int64())),
    "unsigned": (0xE1E68A4B423474F0, pa.array([0, 2**64 - 1, None], pa.uint64())),
    "booleans": (0xBC06B130B75010D5, pa.array([True, False, None])),
    "floats": (0x6CD386720BD63FF6, pa.array([0.1, -0.0, float("nan"), float("-inf"), None])),
    "texts": (0x6EBFA2D5D96030AD, pa.array(["", "view", "https://shop.example/1", "x" * 300, None])),
    "codes": (0x1CC7E44EDE8F703A, pa.array(["DE", "FR", "IT"])),
    "uuids": (0xFDE41BFF63194707, pa.array(["0e5cda01-93e5-4bd5-a5b5-1e1bb3a0a1f0", "1e5cda01-93e5-4bd5-a5b5-1e1bb3a0a1f0"])),
    "decimals": (0x3AE22AB094591C0A, pa.array([Decimal("12.30"), Decimal("-5.00"), Decimal("0.01"), None], pa.decimal128(12, 2))),
    "wide decimals": (0x65DF18889AE93EC3, pa.array([Decimal("12.3"), Decimal(10**25), None], pa.decimal128(38, 6))),
    "hundreds": (0x373BBC051E1D81C3, pa.array([Decimal(300), Decimal(-1200)], pa.decimal128(5, -2))),
    "moments": (0xDAE9A18D2C04D9CC, pa.array([datetime(2024, 1, 1, 0, 0, 0, 500), None], pa.timestamp("us", "UTC"))),
    "days": (0x1CDC4F4A18248E50, pa.array([date(2024, 1, 1), date(1969, 1, 1), None])),
    "times": (0x9350D9263C7C3497, pa.array([time(1, 2, 3), None], pa.time64("us"))),
    "durations": (0x29159E5C98D77F30, pa.array([timedelta(seconds=-5), None], pa.duration("ms"))),
    "lists": (0x085D3E0BFF81B71D, pa.array([[1, None], None], pa.list_(pa.int8()))),
}


@pytest.mark.parametrize("name", LASTING)
def test_a_checksum_in_a_receipt_stays_true(name: str) -> None:
    value, column = LASTING[name]
    assert checksum(one(column)) == Checksum(len(column), value)


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(-(10**20), 10**20) | st.integers(-(10**6), 10**6), min_size=1, max_size=8), st.integers(0, 18))
def test_wide_decimals_hash_the_same_one_by_one(values: list[int | None], scale: int) -> None:
    decimals = [None if value is None else Decimal(value).scaleb(-scale) for value in values]
    narrow, wide = pa.array(decimals, pa.decimal128(38, scale)), pa.array(decimals, pa.decimal256(38, scale))
    assert hash_column(narrow).tolist() == hash_column(wide).tolist()


@settings(deadline=None)
@given(st.lists(st.none() | st.sampled_from(WORDS), min_size=1, max_size=20))
def test_a_dictionary_hashes_like_its_values(words: list[str | None]) -> None:
    column = pa.array(words, pa.string())
    encoded = column.dictionary_encode()
    for taken in (encoded, encoded.slice(len(words) // 2), pa.concat_arrays([encoded, encoded]).slice(1)):
        assert hash_column(taken).tolist() == hash_column(taken.dictionary_decode()).tolist()


def test_a_signalling_nan_is_a_nan() -> None:
    signalling = pa.Array.from_buffers(pa.float64(), 1, [None, pa.py_buffer((0x7FF0000000000001).to_bytes(8, "little"))])
    assert hash_column(signalling).tolist() == hash_column(pa.array([float("nan")])).tolist()


def test_an_empty_batch_adds_nothing() -> None:
    for kind, _ in VALUES.values():
        assert checksum(one(pa.array([], kind))) == Checksum()
    assert str(Checksum(3, 255)) == "3:00000000000000ff"


def test_other_types_hash_by_their_text() -> None:
    intervals = pa.array([(1, 2, 3), None, (1, 2, 4)], pa.month_day_nano_interval())
    assert len(set(hash_column(intervals).tolist())) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 40), st.integers(8, 400))
def test_resize_keeps_rows_in_order_and_within_bounds(lengths: list[int], rows: int, bytes_: int) -> None:
    numbers = iter(range(10_000))
    batches = [one(pa.array([next(numbers) for _ in range(length)], pa.int64())) for length in lengths]
    made = list(resize(batches, rows=rows, bytes_=bytes_))
    assert [value for batch in made for value in batch.column(0).to_pylist()] == list(range(sum(lengths)))
    assert all(0 < batch.num_rows <= rows for batch in made)
    assert all(batch.nbytes <= bytes_ + 16 for batch in made)


def test_resize_joins_small_batches() -> None:
    made = list(resize((one(pa.array([number])) for number in range(100)), rows=50))
    assert len(made) == 4
    assert [batch.num_rows for batch in made] == [25] * 4


class TestParquet:
    def written(self, folder: Path) -> str:
        path = folder / "rows.parquet"
        pq.write_table(pa.table({"a": list(range(1000)), "b": ["x"] * 1000}), path, row_group_size=300, write_page_checksum=True)
        return str(path)

    def test_it_streams_the_wanted_columns(self, tmp_path: Path) -> None:
        path = self.written(tmp_path)
        schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
        assert open_parquet([path, path], schema).read_all().num_rows == 2000
        assert open_parquet([path], schema, columns=["b"]).schema.names == ["b"]
        assert open_parquet([], schema).read_all().schema == schema

    def test_a_damaged_file_is_a_corrupt_stage(self, tmp_path: Path) -> None:
        path = Path(self.written(tmp_path))
        content = bytearray(path.read_bytes())
        content[60] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(StageCorrupt, match=r"rows\.parquet cannot be read"):
            open_parquet([str(path)], pa.schema([("a", pa.int64()), ("b", pa.string())])).read_all()

    def test_a_cut_file_is_a_corrupt_stage(self, tmp_path: Path) -> None:
        path = Path(self.written(tmp_path))
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(StageCorrupt):
            open_parquet([str(path)], pa.schema([("a", pa.int64())])).read_all()
