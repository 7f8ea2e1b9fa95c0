"""Writing JSON text, and reading back what was written.

Here: Arrow batches to lines of JSON with Arrow's own string functions, nothing per row in Python. Not here: where the text goes
(`storage.files`), other people's JSON (`_json_reading`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._csv_format import as_text, is_unwritable
from dataflow_assets.connectors._files import snapshot
from dataflow_assets.connectors._json_reading import Layout, Plan, read_rows
from dataflow_assets.errors import ValueRefused
from dataflow_assets.storage.file_ledger import FileRecord
from dataflow_assets.storage.file_writing import Entries
from dataflow_assets.storage.places import FilePath

_CONTROL = "[\\x00-\\x1f]"


@dataclass(frozen=True)
class JsonFormat:
    """One object per line, or all of them in an array, also a line each."""

    lines: bool

    @property
    def suffix(self) -> str:
        return ".ndjson" if self.lines else ".json"

    @property
    def extends(self) -> bool:
        return self.lines

    @property
    def _layout(self) -> Layout:
        return Layout(self.lines)

    def schema(self, path: FilePath, likely: pa.Schema) -> pa.Schema:
        with snapshot([path]) as files:
            found = Plan.of(files, self._layout, {}).schema
        types = {item.name: item.type for item in likely}
        return pa.schema([(item.name, types.get(item.name, item.type)) for item in found])

    def rows(self, path: FilePath, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        plan = Plan(self._layout, schema, frozenset(schema.names), frozenset(schema.names))
        with snapshot([path]) as files:
            yield from read_rows(files[0], plan if columns is None else plan.only(columns))

    def create(self, file: BinaryIO, schema: pa.Schema, entries: Entries) -> JsonWriter:
        _refuse(schema)
        return JsonWriter(file, lines=self.lines)

    def extend(self, file: BinaryIO, schema: pa.Schema) -> JsonWriter:
        _refuse(schema)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            ended = file.read(1) == b"\n"
            file.seek(0, os.SEEK_END)
            if not ended:
                file.write(b"\n")
        return JsonWriter(file, lines=True)

    def recover(self, path: FilePath) -> FileRecord | None:
        return None


def _refuse(schema: pa.Schema) -> None:
    for item in schema:
        if is_unwritable(item.type):
            raise ValueRefused(f"column {item.name!r} of type {item.type} has no form in JSON", hint="turn it into text in the query")


class JsonWriter:
    """Appends rows to an open file."""

    def __init__(self, file: BinaryIO, *, lines: bool) -> None:
        self._file, self._lines, self._empty = file, lines, True

    def write(self, batch: pa.RecordBatch) -> None:
        parts: list[object] = []
        for number, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
            key = json.dumps(name, ensure_ascii=False)
            parts += [f"{',' if number else '{'}{key}:", json_text(column, name=name)]
        ending = "}\n" if self._lines else "}"
        rows = pc.binary_join_element_wise(*parts, ending, "")
        if not self._lines:
            rows = pc.binary_join_element_wise(",\n", rows, "")
        text = _bytes_of(rows)
        if not self._lines and self._empty:
            self._file.write(b"[\n")
            text = text[2:]
        self._file.write(text)
        self._empty = False

    def close(self) -> None:
        if not self._lines:
            self._file.write(b"[]\n" if self._empty else b"\n]\n")

    def abandon(self) -> None:
        return None


def _bytes_of(rows: pa.Array) -> memoryview:
    """All strings of the array, one after the other, as they lie in memory."""
    rows = rows.cast(pa.large_string())
    offsets = memoryview(rows.buffers()[1]).cast("q")
    return memoryview(rows.buffers()[2])[offsets[rows.offset] : offsets[rows.offset + len(rows)]]


def json_text(column: pa.Array, *, name: str) -> pa.Array:
    """The JSON text of each value. Raises ValueRefused for NaN and infinities, which JSON has not."""
    kind = column.type
    if pa.types.is_null(kind):
        return pa.array(["null"] * len(column), type=pa.string())
    if pa.types.is_floating(kind):
        if not pc.all(pc.is_finite(column), min_count=0).as_py():
            raise ValueRefused(f"column {name!r} holds NaN or an infinity, which JSON has not", hint="make them null or text in the query")
        shown = column.cast(pa.string())
        shown = pc.if_else(pc.match_substring_regex(shown, "^-?[0-9]+$"), pc.binary_join_element_wise(shown, ".0", ""), shown)
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        shown = column.cast(pa.string())
    else:
        shown = pc.binary_join_element_wise('"', _escaped(as_text(column, name=name).cast(pa.string())), '"', "")
    return pc.fill_null(shown, "null")


def _escaped(column: pa.Array) -> pa.Array:
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"')):
        column = pc.replace_substring(column, plain, escaped)
    if pc.any(pc.match_substring_regex(column, _CONTROL), min_count=0).as_py():
        for code in range(32):
            column = pc.replace_substring(column, chr(code), json.dumps(chr(code))[1:-1])
    return column
