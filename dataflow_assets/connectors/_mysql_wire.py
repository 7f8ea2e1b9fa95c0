"""Rows over a MySQL connection in blocks, both ways: results split into columns, and LOAD DATA fed from memory.

Here: the bytes between PyMySQL's login and Arrow. PyMySQL makes a Python object of every value, 0.14 million rows/s (measured,
seven columns); the same packets split with numpy, one column of a block at a time, come ten times as fast. Not here: SQL and types.

PyMySQL has no public way to its packets: this module, and no other, touches `_rfile`, `_sock`, `_read_packet`, `_write_bytes`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pymysql

_BLOCK_BYTES = 512 * 1024
_SCAN_BYTES = 32 * 1024
"""From here on numpy finds the packets faster than a loop."""
_PIECE_BYTES = 64 * 1024  # the server drops a connection that sends more than its max_allowed_packet at once
_FULL = 0xFFFFFF
"""A packet of this length goes on in the next one."""
_NULL, _EOF, _ERROR = 0xFB, 0xFE, 0xFF
_SHORT = 9
"""A packet of fewer bytes that begins like EOF is no row."""
_LENGTH_BYTES = {0xFC: 2, 0xFD: 3, 0xFE: 8}
_HEADER = struct.Struct("<I")
_IDLE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Field:
    """A column of a result as the server describes it; `length` is in bytes, charset 63 means binary."""

    name: str
    code: int
    flags: int
    charset: int
    length: int
    scale: int


@dataclass(frozen=True)
class Outcome:
    """What a statement did: rows touched, and how many warnings it left."""

    rows: int
    warnings: int


def keep_alive(connection: pymysql.Connection[Any]) -> None:
    """Notice within two minutes that the other machine is gone, where the system can."""
    for name, value in _IDLE.items():
        if hasattr(socket, name):
            with suppress(OSError):  # a Unix socket has no such thing
                connection._sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def break_off(connection: pymysql.Connection[Any]) -> None:
    """End whatever waits on the connection, also from another thread; it is of no use afterwards."""
    with suppress(OSError, AttributeError):
        connection._sock.shutdown(socket.SHUT_RDWR)


def execute(connection: pymysql.Connection[Any], text: str | bytes) -> Outcome:
    """Run a statement that returns no rows."""
    rows = connection.query(text)
    return Outcome(rows, connection._result.warning_count)


def query(connection: pymysql.Connection[Any], text: str) -> tuple[list[Field], Iterator[list[pa.Array]]]:
    """Run a SELECT: its fields, and blocks of rows as one array of text or bytes per column.

    The connection is busy until the blocks have ended. Raises pymysql.MySQLError, also from the blocks.
    """
    from pymysql.connections import MySQLResult
    from pymysql.constants import COMMAND

    connection._execute_command(COMMAND.COM_QUERY, text)
    result = MySQLResult(connection)
    result.init_unbuffered_query()
    result.unbuffered_active = False  # or its destructor would read the packets that are meant for us
    fields = [Field(item.name, item.type_code, item.flags, item.charsetnr, item.length, item.scale) for item in result.fields or ()]
    return fields, _Rows(connection, len(fields)).blocks() if fields else iter(())


class _Rows:
    """The rows of one result, and the bytes that came with them."""

    def __init__(self, connection: pymysql.Connection[Any], columns: int) -> None:
        self._connection, self._columns = connection, columns
        self._buffer, self._filled = bytearray(2 * _BLOCK_BYTES), 0
        self._read_before = False

    def blocks(self) -> Iterator[list[pa.Array]]:
        """Blocks of about 512 kB until the end of the result."""
        while True:
            starts, size, is_more = self._gather()
            if len(starts):
                yield split(self._buffer, starts, self._columns)
                self._drop(size)
            if is_more:
                continue
            content, is_row = self._odd_packet()
            if not is_row:
                return _raise_error(content)
            yield split(content, np.zeros(1, dtype=np.int64), self._columns)

    def _gather(self) -> tuple[Positions, int, bool]:
        """Where each row begins at the front of the buffer, their bytes, and False when another kind of packet follows."""
        found: list[Positions] = []
        size = 0
        while True:
            if self._filled - size >= _SCAN_BYTES:
                starts, size = _scan(self._buffer, size, self._filled)
                found.append(starts)
            listed, size, is_more = self._step(size)
            found.append(np.array(listed, dtype=np.int64))
            if not is_more or size >= _BLOCK_BYTES:
                return np.concatenate(found), size, is_more
            self._receive()

    def _step(self, size: int) -> tuple[list[int], int, bool]:
        """The same for the rows that begin at `size`, one after the other."""
        starts: list[int] = []
        buffer, last, header = self._buffer, self._filled - 4, _HEADER.unpack_from
        while size <= last:
            length = header(buffer, size)[0] & _FULL
            after = size + 4 + length
            if length == _FULL:
                return starts, size, False
            if after > self._filled:
                break
            first = buffer[size + 4]
            if first >= _EOF and (first == _ERROR or length < _SHORT):
                return starts, size, False
            starts.append(size + 4)
            size = after
        return starts, size, True

    def _odd_packet(self) -> tuple[bytes, bool]:
        """The packet in front that ends the result or holds 16 MB and more: its content, and whether it is a row."""
        pieces = []
        while True:
            self._require(4)
            length = _HEADER.unpack_from(self._buffer)[0] & _FULL
            self._require(4 + length)
            with memoryview(self._buffer) as view:
                pieces.append(bytes(view[4 : 4 + length]))
            self._drop(4 + length)
            if length < _FULL:
                return b"".join(pieces), len(pieces) > 1

    def _require(self, size: int) -> None:
        while self._filled < size:
            self._receive()

    def _receive(self) -> None:
        """More bytes into the buffer, which grows where one packet fills it."""
        if self._filled == len(self._buffer):
            self._buffer.extend(bytes(len(self._buffer)))
        try:
            with memoryview(self._buffer) as view:
                read = self._read_into(view[self._filled : self._filled + _BLOCK_BYTES])
        except (OSError, ValueError, AttributeError) as error:  # the last two: closed by another thread
            raise _lost(self._connection) from error
        if not read:
            raise _lost(self._connection)
        self._filled += read

    def _read_into(self, room: memoryview) -> int:
        """First what PyMySQL's reader holds already, of which nothing is left then; the rest comes without a copy from the socket."""
        if self._read_before:
            return int(self._connection._sock.recv_into(room))
        self._read_before = True
        chunk = self._connection._rfile.read1(len(room))
        room[: len(chunk)] = chunk
        return len(chunk)

    def _drop(self, size: int) -> None:
        """Cut `size` bytes off the front; what a long row needed beyond the usual is given back."""
        with memoryview(self._buffer) as view:
            rest = bytes(view[size : self._filled])
        self._filled = len(rest)
        if len(self._buffer) > 2 * _BLOCK_BYTES:
            self._buffer = bytearray(max(2 * _BLOCK_BYTES, len(rest)))
        self._buffer[: len(rest)] = rest


def _scan(buffer: bytearray, size: int, filled: int) -> tuple[Positions, int]:
    """Where rows begin from `size` on, and the end of the last; perhaps not of all, so that `_step` looks for the others.

    The third byte of a packet below 64 kB is zero. Other zeros only look like one, but what is reached from the first packet without
    a gap is true.
    """
    raw = np.frombuffer(buffer, dtype=np.uint8, count=filled - size, offset=size)
    heads = np.flatnonzero(raw[2:-1] == 0)
    ends = heads + 4 + raw[heads] + (raw[heads + 1].astype(np.int64) << 8)
    met = np.zeros(len(raw) + 0x10004, dtype=np.bool_)
    met[0] = True
    met[ends] = True
    likely = met[heads] & (ends > heads + 4) & (ends <= len(raw))
    heads, ends = heads[likely], ends[likely]
    first = raw[heads + 4]
    chained = _chained(heads, ends, rows=~((first >= _EOF) & ((first == _ERROR) | (ends - heads < 4 + _SHORT))))
    return heads[chained] + (size + 4), size + int(ends[chained[-1]]) if len(chained) else size


def _chained(heads: Positions, ends: Positions, *, rows: NDArray[np.bool_]) -> Positions:
    """Which packets follow each other from position 0 on, up to the first that is no row."""
    if not len(heads) or heads[0]:
        return np.zeros(0, dtype=np.int64)
    breaks = np.flatnonzero(np.append(heads[1:] != ends[:-1], True) | ~rows)
    pieces, start = [], 0
    for last in breaks if len(breaks) < len(heads) // 8 else breaks[:1]:
        if last < start:
            continue
        pieces.append(np.arange(start, last + bool(rows[last])))
        start = int(np.searchsorted(heads, ends[last]))
        if not rows[last] or start == len(heads) or heads[start] != ends[last]:
            break
    return np.concatenate(pieces)


def _lost(connection: pymysql.Connection[Any]) -> Exception:
    import pymysql
    from pymysql.constants import CR

    break_off(connection)
    error: Exception = pymysql.OperationalError(CR.CR_SERVER_LOST, "the connection was lost in the middle of the result")
    return error


def _raise_error(content: bytes) -> None:
    if content[0] == _ERROR:
        from pymysql.err import raise_mysql_exception

        raise_mysql_exception(content)


def split(data: bytes | bytearray, rows: Positions, columns: int) -> list[pa.Array]:
    """The values of row packets, whose contents begin at `rows`, as one binary array per column, copied out of `data`.

    A value stands behind its length: one byte below 0xFB, or a marker and 2, 3 or 8 bytes; 0xFB alone is null.
    """
    raw, buffer, count = np.frombuffer(data, dtype=np.uint8), pa.py_buffer(data), len(rows)
    every_second = pa.py_buffer(np.arange(0, 2 * count, 2, dtype=np.int32))
    arrays, position = [], rows
    for _ in range(columns):
        starts, ends, nulls = _values_at(raw, position)
        # One array of values and the gaps between them costs no copy; Arrow then takes every second piece.
        offsets = np.empty(2 * count + 1, dtype=np.int32)
        offsets[0:-1:2], offsets[1:-1:2], offsets[-1] = starts, ends, ends[-1]
        pieces = pa.Array.from_buffers(pa.binary(), 2 * count, [None, pa.py_buffer(offsets), buffer])
        valid = None if nulls is None else pa.py_buffer(np.packbits(~nulls, bitorder="little"))
        arrays.append(pieces.take(pa.Array.from_buffers(pa.int32(), count, [valid, every_second])))
        position = ends
    return arrays


def _values_at(raw: NDArray[np.uint8], position: Positions) -> tuple[Positions, Positions, NDArray[np.bool_] | None]:
    """Start and end of the value at each position, and which are null, None when none is."""
    marks = raw[position]
    starts = position + 1
    if marks.max() < _NULL:
        return starts, starts + marks, None
    nulls = marks == _NULL
    lengths = marks.astype(np.int64)
    lengths[nulls] = 0
    for mark, width in _LENGTH_BYTES.items():
        if (long := marks == mark).any():
            places = starts[long]
            lengths[long] = sum(raw[places + byte].astype(np.int64) << (8 * byte) for byte in range(width))
            starts[long] += width
    return starts, starts + lengths, nulls


def load(connection: pymysql.Connection[Any], text: str, chunks: Iterable[memoryview]) -> Outcome:
    """Run LOAD DATA LOCAL, and send `chunks` whatever file the server asks for: no file is ever opened.

    An error of `chunks` ends the statement first, so that the connection can still roll back.
    """
    import pymysql
    from pymysql.constants import COMMAND

    connection._execute_command(COMMAND.COM_QUERY, text)
    if not connection._read_packet().is_load_local_packet():
        raise pymysql.InternalError("the server did not ask for the rows of LOAD DATA LOCAL")
    try:
        for chunk in chunks:
            _send(connection, chunk)
    except Exception:
        if connection.open:
            with suppress(pymysql.MySQLError):
                _finish(connection)
        raise
    except BaseException:  # perhaps in the middle of a packet: nothing sensible can follow
        break_off(connection)
        raise
    return _finish(connection)


def _send(connection: pymysql.Connection[Any], chunk: memoryview) -> None:
    for start in range(0, len(chunk), _PIECE_BYTES):
        piece = chunk[start : start + _PIECE_BYTES]
        connection._write_bytes(_HEADER.pack(len(piece) | connection._next_seq_id << 24) + piece)
        connection._next_seq_id = (connection._next_seq_id + 1) % 256


def _finish(connection: pymysql.Connection[Any]) -> Outcome:
    from pymysql.protocol import OKPacketWrapper

    connection.write_packet(b"")
    done = OKPacketWrapper(connection._read_packet())
    connection.server_status = done.server_status
    return Outcome(done.affected_rows, done.warning_count)
