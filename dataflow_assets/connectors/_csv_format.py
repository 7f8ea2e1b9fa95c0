"""Writing CSV text, and reading back what was written.

Here: Arrow batches to RFC 4180 text by way of polars, nothing per row in Python. Not here: where the text goes
(`storage.files`), reading of other people's text (`_csv_reading`).
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._csv_reading import Dialect, Plan, header, read_rows
from dataflow_assets.connectors._files import snapshot
from dataflow_assets.connectors._iso_text import moments_as_text
from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.file_ledger import FileRecord
from dataflow_assets.storage.file_writing import Entries
from dataflow_assets.storage.places import FilePath

_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800
_ROWS_AT_ONCE, _ROWS_OF_A_TASK = 8_192, 4_096  # measured: polars' own 1,024 rows cost a tenth more
_THREADS, _AHEAD = 2, 2
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class CsvFormat:
    """How an endpoint's options lay out its file."""

    delimiter: str = ","
    encoding: str = "utf-8"
    codec: str | None = None
    suffix: str = ".csv"

    @property
    def extends(self) -> bool:
        return self.encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"} and self.codec is None

    @property
    def _dialect(self) -> Dialect:
        return Dialect(delimiter=self.delimiter, encoding=self.encoding, compression=self.codec or "none")

    def schema(self, path: FilePath, likely: pa.Schema) -> pa.Schema:
        with snapshot([path]) as files:
            if not likely.names:
                return Plan.of(files, self._dialect, {}).schema
            types = {item.name: item.type for item in likely}
            return pa.schema([(name, types.get(name, pa.string())) for name in header(files[0], self._dialect)])

    def rows(self, path: FilePath, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        plan = Plan(self._dialect.for_columns(schema.names), schema, frozenset(schema.names))
        with snapshot([path]) as files:
            yield from read_rows(files[0], plan if columns is None else plan.only(columns))

    def create(self, file: BinaryIO, schema: pa.Schema, entries: Entries) -> CsvWriter:
        writer = self._writer(file, schema)
        writer.write_header(schema.names)
        return writer

    def extend(self, file: BinaryIO, schema: pa.Schema) -> CsvWriter:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            ended = file.read(1) in b"\r\n"
            file.seek(0, os.SEEK_END)
            if not ended:
                file.write(b"\n")
        return self._writer(file, schema)

    def recover(self, path: FilePath) -> FileRecord | None:
        return None

    def _writer(self, file: BinaryIO, schema: pa.Schema) -> CsvWriter:
        for item in schema:
            if is_unwritable(item.type):
                raise ValueRefused(f"column {item.name!r} of type {item.type} has no form in CSV", hint="turn it into text in the query")
        if self.codec not in {None, "gzip", "zstd"}:
            raise ValueRefused(f"a CSV cannot be written with {self.codec}", hint="use .gz or .zst, or compression: none")
        return CsvWriter(file, self.delimiter, self.encoding, self.codec)


def is_unwritable(kind: pa.DataType) -> bool:
    """Whether values of this type have no agreed form as text."""
    return pa.types.is_nested(kind) or "binary" in str(kind) or pa.types.is_duration(kind) or pa.types.is_interval(kind)


class CsvWriter:
    """Appends rows to an open file; pieces become text in threads of their own, and are written in their order."""

    def __init__(self, file: BinaryIO, delimiter: str, encoding: str, codec: str | None) -> None:
        self._file, self._delimiter, self._codec = file, delimiter, codec
        self._encoding = None if encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"} else encoding
        self._mark = b"\xef\xbb\xbf" if encoding.lower().endswith("sig") else b""
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="csv")
        self._waiting: deque[Future[bytes | memoryview]] = deque()

    def write_header(self, names: Sequence[str]) -> None:
        special = {self._delimiter, '"', "\n", "\r"}
        shown = [f'"{name.replace(chr(34), chr(34) * 2)}"' if special & set(name) or not name else name for name in names]
        self._file.write(self._encoded((self._delimiter.join(shown) + "\n").encode(), mark=self._mark))

    def write(self, batch: pa.RecordBatch) -> None:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            self._waiting.append(self._pool.submit(self._text, batch.slice(start, _ROWS_AT_ONCE)))
            self._drain(leave=_AHEAD)

    def _drain(self, *, leave: int) -> None:
        while len(self._waiting) > leave:
            self._file.write(self._waiting.popleft().result())

    def _text(self, batch: pa.RecordBatch) -> bytes | memoryview:
        import polars as pl

        columns = {name: as_text(column, name=name) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
        frame: Any = pl.from_arrow(pa.table(columns))
        text = io.BytesIO()
        layout = {"separator": self._delimiter, "quote_style": "necessary", "null_value": "", "batch_size": _ROWS_OF_A_TASK}
        frame.write_csv(text, include_header=False, **layout)
        return self._encoded(text.getbuffer())

    def _encoded(self, text: bytes | memoryview, *, mark: bytes = b"") -> bytes | memoryview:
        if self._encoding is not None:
            try:
                text = bytes(text).decode().encode(self._encoding)
            except UnicodeEncodeError as error:
                raise ValueRefused(f"the text has characters that {self._encoding} has not: {error}", hint="use encoding: utf-8") from error
        if self._codec is not None:
            compressed: bytes = pa.compress(mark + bytes(text), codec=self._codec, asbytes=True)  # frames of one file may follow each other
            return compressed
        return mark + text if mark else text

    def close(self) -> None:
        self._drain(leave=0)
        self._pool.shutdown()

    def abandon(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def as_text(column: pa.Array, *, name: str) -> pa.Array:
    """Times as ISO 8601 text and wide decimals as text, other columns as they are. Raises ValueRefused for years that ISO text has not."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        _refuse_far_years(column.cast(pa.timestamp(kind.unit)).cast(pa.int64()), _PER_SECOND[kind.unit], name)
        return moments_as_text(column)
    if pa.types.is_date(kind):
        days = column.cast(pa.date32())
        _refuse_far_years(pc.multiply(days.cast(pa.int32()).cast(pa.int64()), 86_400), 1, name)
        return days.cast(pa.string())
    return column.cast(pa.string()) if pa.types.is_time(kind) or pa.types.is_decimal256(kind) else column


def _refuse_far_years(seconds: pa.Array, per_second: int, name: str) -> None:
    bounds = pc.min_max(seconds).as_py()
    if bounds["min"] is not None and not (_YEAR_1 * per_second <= bounds["min"] and bounds["max"] < _YEAR_10000 * per_second):
        raise ValueRefused(
            f"column {name!r} has a time outside the years 1 to 9999", hint="leave such rows out in the query, or make it text"
        )
