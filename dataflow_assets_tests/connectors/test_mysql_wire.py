"""Rows out of the packets of a MySQL result, whatever stands in them and wherever the network cuts them."""

from __future__ import annotations

import socket
import struct
import threading
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow_assets.connectors import _mysql_wire as wire

Row = tuple[bytes | None, ...]
END = b"\xfe\x00\x00\x02\x00"

# Zeros look like the third byte of a header, and so do lengths that are multiples of 256.
_TEXTS = st.one_of(
    st.none(),
    st.binary(max_size=12),
    st.sampled_from([0, 1, 7, 8, 9, 244, 245, 250, 251, 252, 256, 508, 512, 65_530, 65_536]).map(lambda size: b"\0" * size),
    st.sampled_from([b"\xff\xff", b"\xfe", b"\xfb", b"\x05\0\0\x01\xfe\0\0\x02\0", b"\x02\0\0\0ab" * 40]),
)


def _value(value: bytes | None) -> bytes:
    if value is None:
        return b"\xfb"
    size = len(value)
    if size < 251:
        return bytes([size]) + value
    if size < 1 << 16:
        return b"\xfc" + struct.pack("<H", size) + value
    return (b"\xfd" + struct.pack("<I", size)[:3] if size < 1 << 24 else b"\xfe" + struct.pack("<Q", size)) + value


def packets(contents: list[bytes], *, number: int = 0) -> bytes:
    """The contents with their headers; one of 16 MB and more goes on in the next packet."""
    pieces = []
    for content in contents:
        parts = [content[start : start + 0xFFFFFF] for start in range(0, len(content) + 1, 0xFFFFFF)]
        for part in parts:
            pieces.append(struct.pack("<I", len(part) | number % 256 << 24) + part)
            number += 1
    return b"".join(pieces)


def content(row: Row) -> bytes:
    return b"".join(map(_value, row))


def read(sent: bytes, columns: int, *, cuts: tuple[int, ...] = ()) -> list[Row]:
    """What comes out of the reader when `sent` arrives in pieces."""
    ours, theirs = socket.socketpair()
    bounds = [0, *sorted(cut % len(sent) for cut in cuts), len(sent)]

    def send() -> None:
        with theirs:
            for start, end in pairwise(bounds):
                theirs.sendall(sent[start:end])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with ours, ours.makefile("rb") as file:
            connection: Any = SimpleNamespace(_sock=ours, _rfile=file)
            file.peek(1)  # as PyMySQL does, whose reader then holds the first rows
            blocks = wire._Rows(connection, columns).blocks()
            return [row for block in blocks for row in zip(*(column.to_pylist() for column in block), strict=True)]
    finally:
        sender.join()


@given(
    rows=st.integers(1, 3).flatmap(lambda columns: st.lists(st.tuples(*[_TEXTS] * columns), min_size=1, max_size=30)),
    times=st.sampled_from([1, 40, 3_000]),
    number=st.integers(0, 255),
    cuts=st.lists(st.integers(0), max_size=5),
)
@example(rows=[(b"a" * 255,), (None,)], times=9_000, number=250, cuts=[4, 5])
@settings(max_examples=60, deadline=None)
def test_rows_come_as_they_were_sent(rows: list[Row], times: int, number: int, cuts: list[int]) -> None:
    rows = rows * min(times, max(1, 2_000_000 // sum(len(content(row)) + 4 for row in rows)))
    rows = [row for row in rows if content(row)[:1] != b"\xfe" or len(content(row)) >= 9]
    sent = packets([content(row) for row in rows], number=number) + packets([END])
    assert read(sent, len(rows[0]) if rows else 1, cuts=tuple(cuts)) == rows


@given(
    rows=st.lists(st.tuples(_TEXTS, _TEXTS), max_size=200),
    number=st.integers(0, 255),
    missing=st.integers(0, 40),
    before=st.sampled_from([0, 3, 700]),
)
@settings(max_examples=200, deadline=None)
def test_packets_are_found_at_once_as_one_by_one(rows: list[Row], number: int, missing: int, before: int) -> None:
    """The scan may stop early, never elsewhere than a row begins; what it leaves, the loop finds."""
    sent = packets([content(row) for row in rows], number=number) + packets([END])
    nowhere: Any = SimpleNamespace()
    reader = wire._Rows(nowhere, 2)
    reader._buffer[:] = b"\x01" * before + sent
    reader._filled = max(before + len(sent) - missing, before + 4)
    expected, end, is_more = reader._step(before)
    found, size = wire._scan(reader._buffer, before, reader._filled)
    rest, found_end, found_more = reader._step(size)
    assert [*found.tolist(), *rest] == expected
    assert (found_end, found_more) == (end, is_more)


def test_plain_rows_are_all_found_at_once() -> None:
    rows: list[Row] = [(str(number).encode(), b"text", None) for number in range(5_000)]
    sent = bytearray(packets([content(row) for row in rows]) + packets([END]))
    starts, end = wire._scan(sent, 0, len(sent))
    assert len(starts) == 5_000
    assert end == len(sent) - len(END) - 4


def test_a_row_of_many_packets() -> None:
    long = b"x" * (0xFFFFFF + 5)
    rows: list[Row] = [(b"1",), (long,), (b"2",)]
    assert read(packets([content(row) for row in rows]) + packets([END]), 1) == rows


def test_a_result_that_breaks_off_is_an_error() -> None:
    sent = packets([content((b"1",))])
    with pytest.raises(pymysql.OperationalError, match="lost in the middle"):
        read(sent, 1)
    error = b"\xff" + struct.pack("<H", 1317) + b"#70100Query execution was interrupted"
    with pytest.raises(pymysql.OperationalError, match="interrupted"):
        read(sent + packets([error]), 1)
