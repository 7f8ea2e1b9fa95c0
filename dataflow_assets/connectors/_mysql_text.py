"""Rows as the text that MySQL reads: lines for LOAD DATA, or the VALUES of an INSERT, joined by Arrow and not row by row.

Here: how a fitted column is spelled, and where the server must turn a spelling back. Not here: which type a column travels in
(`_mysql_types`), sending it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._mysql_session import MYSQL
from dataflow_assets.connectors._mysql_types import MySQLRoute
from dataflow_assets.storage.casts import is_bytes, is_text
from dataflow_assets.tables import TableName

_LINES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\0", "\\0"))
_LITERALS = (("\\", "\\\\"), ("'", "\\'"), ("\0", "\\0"))
_HEX = np.frombuffer("".join(f"{byte:02X}" for byte in range(256)).encode(), dtype=np.uint16)
_TURNED = {"hex": "UNHEX({0})", "bits": "CAST({0} AS UNSIGNED)"}


@dataclass(frozen=True)
class Spelling:
    """The statements for a table's columns, and the text of their rows."""

    table: TableName
    routes: Mapping[str, MySQLRoute]
    replaces: bool = False
    """Whether a row takes the place of an earlier one with the same key."""

    def load_statement(self) -> str:
        """LOAD DATA LOCAL: the name of the file is for the log alone."""
        places, sets = [], []
        for number, (name, way) in enumerate(self.routes.items()):
            places.append(f"@v{number}" if way.form else MYSQL.quote(name))
            if way.form:
                sets.append(f"{MYSQL.quote(name)} = {_TURNED[way.form].format(f'@v{number}')}")
        into = f"{'REPLACE ' if self.replaces else ''}INTO TABLE {MYSQL.table(self.table)}"
        text = f"LOAD DATA LOCAL INFILE 'dataflow' {into} CHARACTER SET utf8mb4"
        text += r" FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'"
        return f"{text} ({', '.join(places)})" + (f" SET {', '.join(sets)}" if sets else "")

    def lines(self, batch: pa.RecordBatch) -> memoryview:
        """A line for each row of a fitted batch."""
        columns = [_spelled(column, escapes=_LINES) for column in batch.columns]
        columns[-1] = pc.binary_join_element_wise(columns[-1], "\n", "", null_handling="replace", null_replacement="\\N")
        return _data(pc.binary_join_element_wise(*columns, "\t", null_handling="replace", null_replacement="\\N"))[0]

    def inserts(self, batch: pa.RecordBatch, *, bytes_: int) -> Iterator[bytes]:
        """INSERTs of many rows, each of about `bytes_` bytes or of one row."""
        into = f"{MYSQL.table(self.table)} ({MYSQL.names(list(self.routes))})"
        head = f"{'REPLACE' if self.replaces else 'INSERT'} INTO {into} VALUES ".encode()
        columns = [_literal(column, way) for column, way in zip(batch.columns, self.routes.values(), strict=True)]
        rows = pc.binary_join_element_wise(*columns, ",", null_handling="replace", null_replacement="NULL")
        data, offsets = _data(pc.binary_join_element_wise("(", rows, "),", ""))
        start = 0
        while start < len(rows):
            stop = max(int(np.searchsorted(offsets, offsets[start] + bytes_, side="right")) - 1, start + 1)
            yield head + bytes(data[offsets[start] : offsets[stop] - 1])
            start = stop


def _data(joined: pa.Array) -> tuple[memoryview, np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """The bytes of all values in a row, and where each begins."""
    offsets = np.frombuffer(joined.buffers()[1], dtype=np.int32)[: len(joined) + 1]
    return memoryview(joined.buffers()[2] or b"")[: offsets[-1]], offsets


def _spelled(column: pa.Array, *, escapes: tuple[tuple[str, str], ...]) -> pa.Array:
    if is_text(column.type):
        for plain, escaped in escapes:
            # most text has nothing to escape, and looking is five times as fast as replacing
            if pc.any(pc.match_substring(column, plain), min_count=0).as_py():
                column = pc.replace_substring(column, plain, escaped)
        return column
    if is_bytes(column.type):
        return _hexadecimal(column)
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int8()).cast(pa.string())
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pa.timestamp("us"))
    return column.cast(pa.string())


def _literal(column: pa.Array, way: MySQLRoute) -> pa.Array:
    text = _spelled(column, escapes=_LITERALS)
    quoted = is_text(column.type) or is_bytes(column.type) or pa.types.is_temporal(column.type)
    return pc.binary_join_element_wise("X'" if way.form == "hex" else "'", text, "'", "") if quoted else text


def _hexadecimal(column: pa.Array) -> pa.Array:
    """Two digits for each byte; Arrow has no function for it."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    buffers = [None, pa.py_buffer(((offsets - offsets[0]) * 2).astype(np.int32)), pa.py_buffer(_HEX[data])]
    digits = pa.Array.from_buffers(pa.string(), len(column), buffers)
    return pc.if_else(column.is_valid(), digits, None) if column.null_count else digits
