"""Hashes of text and bytes: the same as a few lines of plain Python find, whichever way the lengths of the values take."""

from __future__ import annotations

from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets import byte_hashes
from dataflow_assets.byte_hashes import hash_bytes

BITS = 2**64 - 1
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15)
KINDS = [pa.binary(), pa.large_binary()]


def mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * FACTORS[0] & BITS
    value = (value ^ (value >> 27)) * FACTORS[1] & BITS
    return value ^ (value >> 31)


def plain_hash(value: bytes) -> int:
    """The hash as it is defined, one value at a time."""
    found = mixed((len(value) + FACTORS[2]) & BITS)
    for start in range(0, len(value), 8):
        found = (found ^ int.from_bytes(value[start : start + 8], "little")) * FACTORS[0] & BITS
        found ^= found >> 29
    return mixed(found)


def require_plain(column: pa.Array) -> None:
    nulls = np.array([not value.is_valid for value in column], dtype=np.bool_)
    found = hash_bytes(column, nulls if column.null_count else None).tolist()
    pairs = [(number, plain_hash(value)) for number, value in enumerate(column.to_pylist()) if value is not None]
    assert [(number, found[number]) for number, _ in pairs] == pairs


@pytest.mark.parametrize("few", [0, 32])
@pytest.mark.parametrize("longest", [0, 3, 8, 40, 256, 257, 700])
def test_any_lengths(longest: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_hashes, "_FEW", few)

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.none() | st.integers(0, longest), min_size=1, max_size=12), st.randoms(), st.sampled_from(KINDS))
    def check(lengths: list[int | None], random: Random, kind: pa.DataType) -> None:
        values = [None if length is None else random.randbytes(length) for length in (*lengths, longest)]
        column = pa.array(values, kind)
        require_plain(column)
        require_plain(column.slice(len(values) // 2))

    check()


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 15, 16, 36, 300])
def test_values_of_one_length(length: int) -> None:
    values = np.random.default_rng(length).bytes(length * 20)
    column = pa.array([values[start : start + length] for start in range(0, len(values), length)])
    for kind in KINDS:
        require_plain(column.cast(kind))
        require_plain(column.cast(kind).slice(3, 9))


@pytest.mark.parametrize("shift", [0, 1, 8])
def test_a_buffer_that_begins_and_ends_anywhere(shift: int) -> None:
    lengths = [300, 0, 5, 260, 11, 8]
    content = np.random.default_rng(shift).bytes(shift + sum(lengths))
    offsets = pa.py_buffer(np.cumsum([0, *lengths], dtype=np.int32))
    for end in (0, 8):
        data = pa.py_buffer(content + bytes(end)).slice(shift)
        require_plain(pa.Array.from_buffers(pa.binary(), len(lengths), [None, offsets, data]))


def test_what_lies_under_a_null_may_have_any_length() -> None:
    values = [b"longer than a word", b"short", b"as long as a word of 300" * 13, b"", b"end"]
    data = pa.array(values)
    for length in range(1, len(values) + 1):
        for hidden in range(length):
            valid = pa.array([number != hidden for number in range(length)]).buffers()[1]
            require_plain(pa.Array.from_buffers(pa.binary(), length, [valid, *data.buffers()[1:]]))


def test_bytes_that_are_no_text_in_a_column_of_text() -> None:
    data = pa.array([b"\xff\xfe", b"", b"caf\xe9" * 4])
    column = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    assert hash_bytes(column).tolist() == [plain_hash(value) for value in (b"\xff\xfe", b"", b"caf\xe9" * 4)]


def test_nothing_has_no_hashes() -> None:
    assert hash_bytes(pa.array([], pa.string())).tolist() == []
