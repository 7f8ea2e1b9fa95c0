"""Reading JSON rows exactly: numbers stay text until their type is known.

Here: streaming objects out of documents and lines, finding columns and types, typed batches. Memory holds one batch and, of a
document, the largest row; each value passes through Python once. Not here: the options (`json`), writing (`_json_format`),
rows that come over HTTP (`_http_rows`, which types them here).
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors._files import OpenFile
from dataflow_assets.connectors._text_types import INSTANT, Unfit, fits, infer, parse
from dataflow_assets.error_kinds import kind_of
from dataflow_assets.errors import ReadFailed, ValueRefused

_FIRST_ROWS = 256
_BATCH_ROWS = 8192
_BATCH_BYTES = 8 * 1024 * 1024
_SAMPLE_ROWS = 50_000
_CHUNK = 1024 * 1024
_LARGEST_ROW = 256 * 1024 * 1024
_TIMES = (pa.date32(), pa.timestamp("us"), pa.timestamp("ns"), INSTANT, pa.timestamp("ns", "UTC"))
_SPACE = " \t\r\n"
Row = dict[str, Any]


class Number(str):
    """A number as it was written."""


_decoder = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)


def parse_json(text: str) -> Any:
    """A JSON document whose numbers stay as they were written. Raises json.JSONDecodeError or RecursionError."""
    return _decoder.decode(text)


@dataclass(frozen=True)
class Layout:
    """Where the rows of a file are: one per line, or in the array at the end of `path` in a document."""

    lines: bool
    path: tuple[str, ...] = ()
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Plan:
    """The columns of all files of a source; `known` are all the keys that a row may have."""

    layout: Layout
    schema: pa.Schema
    declared: frozenset[str] = field(default_factory=frozenset)
    known: frozenset[str] = field(default_factory=frozenset)
    sampled: int = _SAMPLE_ROWS

    def only(self, names: Sequence[str]) -> Plan:
        """The plan for some of the columns."""
        return replace(self, schema=pa.schema([self.schema.field(name) for name in names]))

    @classmethod
    def of(cls, files: Sequence[OpenFile], layout: Layout, declared: Mapping[str, pa.DataType]) -> Plan:
        """Find columns and types from the first 50,000 rows; a declared column need not be among them."""
        share = max(_SAMPLE_ROWS // len(files), 1000)
        sample = [row for file in files for row in islice(rows_of(file, layout), share)]
        return cls.of_rows(sample, declared, layout=layout)

    @classmethod
    def of_rows(cls, sample: Sequence[Row], declared: Mapping[str, pa.DataType], *, layout: Layout | None = None, size: int = 0) -> Plan:
        """Find columns and types from some rows, the first `size` ones; a declared column need not be among them."""
        names = list(dict.fromkeys(name for row in sample for name in row)) or list(declared)
        names += [name for name in declared if name not in names]
        types = {name: declared[name] if name in declared else _type_of(name, [row.get(name) for row in sample]) for name in names}
        return cls(layout or Layout(True), pa.schema(list(types.items())), frozenset(declared), frozenset(names), size or _SAMPLE_ROWS)


def _type_of(name: str, values: list[Any]) -> pa.DataType:
    kinds = {_kind(value) for value in values if value is not None}
    if not kinds:
        return pa.null()
    if kinds == {"number"}:
        return infer(pa.array(values, type=pa.string()))
    if kinds == {"text"}:
        texts = pa.array(values, type=pa.string())
        return next((kind for kind in _TIMES if fits(texts, kind)), pa.string())
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"nested"}:
        return pa.string()
    raise ValueRefused(
        f"column {name!r} mixes {' and '.join(sorted(kinds))}",
        hint=f"add to the source  column_types: {{{name}: string}}  to have them all as text",
    )


def _kind(value: Any) -> str:
    if isinstance(value, Number):
        return "number"
    return {str: "text", bool: "bool"}.get(type(value), "nested")


def read_rows(file: OpenFile, plan: Plan) -> Iterator[pa.RecordBatch]:
    """The rows of one file, typed. Raises ReadFailed for text that is no JSON, ValueRefused for a value or key that has no place."""
    yield from typed(rows_of(file, plan.layout), plan, where=str(file.path))


def typed(rows: Iterator[Row], plan: Plan, *, where: str) -> Iterator[pa.RecordBatch]:
    """Rows as batches of the plan's columns. Raises ValueRefused for a value or key that has no place."""
    first, size = 0, _FIRST_ROWS
    while batch := list(islice(rows, size)):
        for number, row in enumerate(batch):
            if not row.keys() <= plan.known:
                new = sorted(row.keys() - plan.known)
                raise ValueRefused(
                    f"{where} row {first + number + 1}: key {new[0]!r} was in none of the first {plan.sampled} rows",
                    hint=f"add to the source  column_types: {{{new[0]}: string}}  or the type it has",
                )
        columns = [_column(where, plan, item, [row.get(item.name) for row in batch], first) for item in plan.schema]
        made = pa.RecordBatch.from_arrays(columns, schema=plan.schema)
        yield made
        first += len(batch)
        size = max(min(_BATCH_ROWS, _BATCH_BYTES * len(batch) // max(made.nbytes, 1)), 1)


def _column(where: str, plan: Plan, item: pa.Field, values: list[Any], first: int) -> pa.Array:
    """The values as `item.type`; text is parsed, so that no digit is lost on the way."""
    strict = item.name not in plan.declared
    if strict and (wrong := _wrong(item.type, values)) is not None:
        raise _refusal(where, plan, item, first + wrong, values[wrong], strict=strict)
    if pa.types.is_boolean(item.type) and all(type(value) in (bool, type(None)) for value in values):
        return pa.array(values, type=item.type)
    texts = pa.array([value if value is None or isinstance(value, str) else as_json(value) for value in values], type=pa.string())
    try:
        return texts if pa.types.is_string(item.type) else parse(texts, item.type, strict=strict)
    except Unfit as error:
        raise _refusal(where, plan, item, first + error.index, error.text, strict=strict) from None


def _wrong(kind: pa.DataType, values: list[Any]) -> int | None:
    """The first value of another kind than those the type was found from."""
    if pa.types.is_boolean(kind):
        allowed: set[type] = {bool}
    elif pa.types.is_temporal(kind):
        allowed = {str}
    elif pa.types.is_string(kind):
        present = {type(value) for value in values} - {type(None)}
        allowed = {str} if str in present else {dict, list} if present <= {dict, list} else {Number}
    else:
        allowed = {Number}
    allowed.add(type(None))
    return next((number for number, value in enumerate(values) if type(value) not in allowed), None)


def _refusal(where: str, plan: Plan, item: pa.Field, row: int, value: Any, *, strict: bool) -> ValueRefused:
    text = as_json(value) if not isinstance(value, str) else value
    shown = repr(text if len(text) <= 60 else f"{text[:60]}...")
    why = f"the type found in the first {plan.sampled} rows" if strict else "as column_types says"
    return ValueRefused(
        f"{where} row {row + 1}: column {item.name!r}: {shown} cannot be kept as {item.type}, {why}",
        hint=f"add to the source  column_types: {{{item.name}: string}}  or the type it has",
    )


def as_json(value: Any) -> str:
    """JSON text of a parsed value, with numbers as they were written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{as_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def rows_of(file: OpenFile, layout: Layout) -> Iterator[Row]:
    """The objects of one file. Raises ReadFailed for text that is no JSON or has no such rows."""
    scanner = _Scanner(file, layout.encoding)
    try:
        yield from scanner.lines() if layout.lines else scanner.document(layout.path)
    except (json.JSONDecodeError, UnicodeError, RecursionError, OSError, pa.ArrowException) as error:
        hint = "see format (document or ndjson), encoding, and that the file is whole"
        raise ReadFailed(f"{file.path} cannot be read as JSON: {error}", hint=hint, kind=kind_of(error)) from error


class _Scanner:
    """A window that moves over the text of one file."""

    def __init__(self, file: OpenFile, encoding: str) -> None:
        stream = file.open()
        self._path = file.path
        self._stream = pa.CompressedInputStream(stream, "gzip") if file.path.suffix == ".gz" else stream
        self._decode = codecs.getincrementaldecoder("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)()
        self._text, self._at, self._ended = "", 0, False

    def _more(self, size: int = _CHUNK) -> bool:
        """Read on; False at the end."""
        if self._ended:
            return False
        block = self._stream.read(size)
        self._ended = not block
        self._text = self._text[self._at :] + self._decode.decode(block, final=self._ended)
        self._at = 0
        return True

    def lines(self) -> Iterator[Row]:
        number, rest = 0, ""
        while self._more():
            self._at = len(self._text)
            *whole, rest = (rest + self._text).split("\n")
            for line in [*whole, *([rest] if self._ended else [])]:
                number += 1
                if line.strip(_SPACE):
                    yield self._row(self._line(line, number), f"line {number}")
            if len(rest) > _LARGEST_ROW:
                raise ReadFailed(f"{self._path} line {number + 1} is longer than {_LARGEST_ROW >> 20} MB", hint="is it a document?")

    def _line(self, line: str, number: int) -> Any:
        try:
            return _decoder.decode(line)
        except json.JSONDecodeError as error:
            raise ReadFailed(
                f"{self._path}:{number}:{error.colno}: not a JSON object: {error.msg}", hint="for one array of rows write format: document"
            ) from error

    def _row(self, value: Any, where: str) -> Row:
        if not isinstance(value, dict):
            raise ReadFailed(f"{self._path} {where}: a row must be an object", hint="see records_path")
        return value

    def document(self, path: Sequence[str]) -> Iterator[Row]:
        yield from self._rows(path)
        if self._peek():
            raise ReadFailed(f"{self._path} goes on after its document ended", hint="for one object per line write format: ndjson")

    def _rows(self, path: Sequence[str]) -> Iterator[Row]:
        if path:
            yield from self._member(path)
            return
        if self._peek() != "[":
            raise ReadFailed(
                f"{self._path}: the rows are no array", hint="say where the array is, e.g. records_path: data.items; or format: ndjson"
            )
        for number, _ in enumerate(self._items("[", "]"), 1):
            yield self._row(self._value(), f"row {number}")

    def _member(self, path: Sequence[str]) -> Iterator[Row]:
        seen: list[str] = []
        if self._peek() == "{":
            for _ in self._items("{", "}"):
                key = self._value()
                self._take(":")
                if key == path[0] and key not in seen:
                    yield from self._rows(path[1:])
                else:
                    self._value()
                seen.append(str(key))
        if path[0] not in seen:
            found = f"; there are {', '.join(map(repr, seen[:10]))}" if seen else ""
            raise ReadFailed(f"{self._path} has no key {path[0]!r} of records_path{found}", hint="correct records_path")

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self._peek() == closing:
            self._at += 1
            return
        while True:
            yield
            if self._peek() == closing:
                self._at += 1
                return
            self._take(",")

    def _peek(self) -> str:
        """The next character that is no space, empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise json.JSONDecodeError(f"Expecting {character!r}", self._text, self._at)
        self._at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if len(self._text) - self._at > _LARGEST_ROW or not self._more(max(_CHUNK, len(self._text) - self._at)):
                    raise
                continue
            if end < len(self._text) or not self._more():
                self._at = end
                return value
