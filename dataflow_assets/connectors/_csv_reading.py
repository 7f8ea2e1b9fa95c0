"""Reading CSV text: one plan of columns and types for all files, then typed batches that keep every value or say where they cannot.

Here: Arrow's streaming reader over text columns, typed by `_text_types`. Not here: the options (`csv`), writing (`_csv_format`).
"""

from __future__ import annotations

import codecs
import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from dataflow_assets.batches import resize
from dataflow_assets.connectors._files import OpenFile
from dataflow_assets.connectors._text_types import Unfit, infer, parse
from dataflow_assets.error_kinds import kind_of
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage.places import FilePath, Mark

_BLOCK = 512 * 1024
"""Arrow reads 32 of them ahead; a few are joined before they get their types, which costs by the batch (measured: a fifth)."""
_LARGEST_BLOCK = 256 * 1024 * 1024
_SAMPLE_BYTES = 8 * 1024 * 1024
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


@dataclass(frozen=True)
class Dialect:
    """How the text of a file is laid out."""

    delimiter: str = ","
    encoding: str = "utf-8"
    has_header: bool = True
    skip_rows: int = 0
    quote_char: str = '"'
    escape_char: str = ""
    null_values: tuple[str, ...] = ("",)
    compression: str = "infer"
    blank_rows: bool = False
    """An empty line is a row: so it is with a single column, where it holds null."""

    def for_columns(self, names: Sequence[str]) -> Dialect:
        """The dialect of a file with these columns."""
        return replace(self, blank_rows=len(names) == 1)

    def codec(self, path: FilePath) -> str | None:
        """Arrow's name of the compression, None for none."""
        return codec_of(path, self.compression)


def codec_of(path: FilePath, compression: str) -> str | None:
    """Arrow's name of the compression, by the ending when it is to be inferred; None for none."""
    name = _CODECS.get(path.suffix.lower()) if compression == "infer" else compression
    return None if name == "none" else name


@dataclass(frozen=True)
class Plan:
    """The columns of all files of a source; `declared` are those whose type the user gave."""

    dialect: Dialect
    schema: pa.Schema
    declared: frozenset[str]

    def only(self, names: Sequence[str]) -> Plan:
        """The plan for some of the columns."""
        return replace(self, schema=pa.schema([self.schema.field(name) for name in names]))

    @classmethod
    def of(cls, files: Sequence[OpenFile], dialect: Dialect, declared: Mapping[str, pa.DataType]) -> Plan:
        """Find the columns from the headers and the other types from the first 8 MB of the files.

        A file that did not change since its types were found is not looked at again: every window sees the same types.
        Raises ReadFailed for files with differing columns, and for a declared column that is not there.
        """
        key = (tuple((file.path, file.mark) for file in files), dialect, tuple(sorted(declared.items(), key=str)))
        if (known := _plans.get(key)) is None:
            names = _names(files, dialect)
            if missing := sorted(set(declared) - set(names)):
                raise ReadFailed(
                    f"{files[0].path} has no column {', '.join(map(repr, missing))} of column_types",
                    hint=f"its columns: {', '.join(names)}",
                )
            dialect = dialect.for_columns(names)
            unknown = [name for name in names if name not in declared]
            found = {**declared, **_infer(files, dialect, unknown)}
            known = _plans[key] = cls(dialect, pa.schema([(name, found[name]) for name in names]), frozenset(declared))
            while len(_plans) > 64:
                _plans.popitem(last=False)
        return known


_plans: OrderedDict[tuple[tuple[tuple[FilePath, Mark | None], ...], Dialect, Any], Plan] = OrderedDict()


def _names(files: Sequence[OpenFile], dialect: Dialect) -> list[str]:
    first: list[str] = []
    for file in files:
        names = header(file, dialect)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ReadFailed(f"{file.path} has two columns named {', '.join(map(repr, twice))}", hint="correct its header")
        first = first or names
        if sorted(names) != sorted(first):
            differing = ", ".join(map(repr, sorted({*names} ^ {*first})))
            raise ReadFailed(
                f"{file.path} and {files[0].path} do not have the same columns: {differing} only in one of them",
                hint="read them in two steps, or correct the glob",
            )
    return first


def header(file: OpenFile, dialect: Dialect) -> list[str]:
    """The names of a file's columns. Raises ReadFailed for an empty file."""
    block = _BLOCK
    while True:
        try:
            with _opened(file, dialect, None, block) as reader:
                return list(reader.schema.names)
        except _RowTooLong:
            block *= 16


def _infer(files: Sequence[OpenFile], dialect: Dialect, names: Sequence[str]) -> dict[str, pa.DataType]:
    if not names:
        return {}
    budget = max(_SAMPLE_BYTES // len(files), _BLOCK)
    sample: list[pa.RecordBatch] = []
    for file in files:
        size = 0
        for batch in text_rows(file, dialect, names):
            sample.append(batch)
            size += batch.nbytes
            if size >= budget:
                break
    if not sample:
        return dict.fromkeys(names, pa.null())
    table = pa.Table.from_batches(sample)
    return {name: infer(table[name].combine_chunks()) for name in names}


def read_rows(file: OpenFile, plan: Plan) -> Iterator[pa.RecordBatch]:
    """The rows of one file, typed. Raises ReadFailed for text that is no CSV, ValueRefused for a value that does not fit its type."""
    row = 0
    for batch in resize(text_rows(file, plan.dialect, plan.schema.names)):
        columns = []
        for item, column in zip(plan.schema, batch.columns, strict=True):
            try:
                columns.append(column if pa.types.is_string(item.type) else parse(column, item.type, strict=item.name not in plan.declared))
            except Unfit as error:
                raise _refusal(file, plan, item, row + error.index, error.text) from None
        row += batch.num_rows
        yield pa.RecordBatch.from_arrays(columns, schema=plan.schema)


def _refusal(file: OpenFile, plan: Plan, item: pa.Field, row: int, text: str) -> ValueRefused:
    place = f"{file.path}:{line_of(file, plan.dialect, row)}"
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    if item.name in plan.declared:
        return ValueRefused(
            f"{place}: column {item.name!r}: {shown!r} is not {item.type}, as column_types says",
            hint=f"correct the file, or write column_types: {{{item.name}: string}}; a text for null belongs in null_values",
        )
    return ValueRefused(
        f"{place}: column {item.name!r}: {shown!r} cannot be kept as {item.type}, the type found in the first {_SAMPLE_BYTES >> 20} MB",
        hint=f"add to the source  column_types: {{{item.name}: string}}  or its type; a text for null belongs in null_values",
    )


def line_of(file: OpenFile, dialect: Dialect, row: int) -> int:
    """The line on which a row ends, counted as editors do; rows count from 0."""
    import csv

    with _stream(file, dialect) as stream:
        text = io.TextIOWrapper(stream, encoding=dialect.encoding, newline="", errors="replace")
        for _ in range(dialect.skip_rows):
            text.readline()
        lines = csv.reader(
            text,
            delimiter=dialect.delimiter,
            quotechar=dialect.quote_char or None,
            quoting=csv.QUOTE_MINIMAL if dialect.quote_char else csv.QUOTE_NONE,
            escapechar=dialect.escape_char or None,
            doublequote=not dialect.escape_char,
        )
        wanted = row + (2 if dialect.has_header else 1)
        csv.field_size_limit(_LARGEST_BLOCK)
        seen = 0
        for record in lines:
            seen += bool(record)
            if seen == wanted:
                break
        return lines.line_num + dialect.skip_rows


def text_rows(file: OpenFile, dialect: Dialect, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The named columns of one file as text, streaming. Raises ReadFailed for text that is no CSV."""
    block, done = _BLOCK, 0
    while True:
        skip = done
        try:
            with _opened(file, dialect, names, block) as reader:
                for batch in reader:
                    fresh = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - fresh.num_rows
                    done += fresh.num_rows
                    yield fresh
            break
        except _RowTooLong:
            block *= 16
    _refuse_cut_off(file, dialect)


class _RowTooLong(Exception):
    """A row is longer than Arrow's block."""


@contextmanager
def _opened(file: OpenFile, dialect: Dialect, names: Sequence[str] | None, block: int = _BLOCK) -> Iterator[Any]:
    """Arrow's reader. Raises _RowTooLong when a larger block would help, ReadFailed for text that is no CSV."""
    import pyarrow.csv as pacsv

    try:
        with _stream(file, dialect) as stream:
            yield pacsv.open_csv(stream, *_arrow_options(dialect, names, block))
    except (pa.ArrowException, UnicodeError, LookupError, OSError) as error:
        if "straddl" in str(error) and block < _LARGEST_BLOCK:
            raise _RowTooLong from error
        raise ReadFailed(f"{file.path} cannot be read as CSV: {error}", hint=_hint(str(error), dialect), kind=kind_of(error)) from error


def _hint(message: str, dialect: Dialect) -> str:
    if "UTF8" in message or "codec" in message:
        return f"it is not in {dialect.encoding}; say which encoding, e.g. encoding: cp1252"
    if "Empty CSV" in message:
        return "the file has no header; has_header: false does not help either while there are no lines"
    return "see delimiter, quote_char, escape_char and skip_rows"


@contextmanager
def _stream(file: OpenFile, dialect: Dialect) -> Iterator[Any]:
    stream = file.open()
    codec = dialect.codec(file.path)
    yield pa.CompressedInputStream(stream, codec) if codec else stream


def _arrow_options(dialect: Dialect, names: Sequence[str] | None, block: int) -> tuple[Any, Any, Any]:
    import pyarrow.csv as pacsv

    read = pacsv.ReadOptions(
        block_size=block,
        use_threads=False,  # measured on two cores: threads made it no faster
        encoding=_encoding(dialect),
        skip_rows=dialect.skip_rows,
        autogenerate_column_names=not dialect.has_header,
    )
    layout = pacsv.ParseOptions(
        delimiter=dialect.delimiter,
        quote_char=dialect.quote_char or False,
        escape_char=dialect.escape_char or False,
        double_quote=bool(dialect.quote_char) and not dialect.escape_char,
        newlines_in_values=bool(dialect.quote_char),
        ignore_empty_lines=not dialect.blank_rows,
    )
    convert = pacsv.ConvertOptions(
        column_types={name: pa.string() for name in names or ()},
        include_columns=list(names or ()),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=list(dialect.null_values),
    )
    return read, layout, convert


def _encoding(dialect: Dialect) -> str:
    """Arrow strips a byte order mark by itself."""
    name = codecs.lookup(dialect.encoding).name
    return "utf8" if name in {"utf-8", "utf-8-sig"} else dialect.encoding


def _refuse_cut_off(file: OpenFile, dialect: Dialect) -> None:
    """A file that breaks off inside quotes has an odd number of them and no last line end; Arrow would take the rest as a value."""
    quote = dialect.quote_char
    if not quote or dialect.escape_char or _ends_a_line(file, dialect):
        return
    decoder, odd, last = codecs.getincrementaldecoder(dialect.encoding)("replace"), 0, ""
    with _stream(file, dialect) as stream:
        while block := stream.read(_BLOCK):
            text = decoder.decode(block)
            odd ^= text.count(quote) & 1
            last = text[-1:] or last
    if odd and last not in {"\r", "\n"}:
        raise ReadFailed(f"{file.path} breaks off inside a quoted field", hint="it was not written or copied to its end; fetch it again")


def _ends_a_line(file: OpenFile, dialect: Dialect) -> bool:
    """Whether the last character is a line end, where that can be told without reading what comes before."""
    tail = None if dialect.codec(file.path) else file.tail(4)
    return tail is not None and tail.endswith(_line_ends(dialect.encoding))


def _line_ends(encoding: str) -> tuple[bytes, ...]:
    """The bytes of a line end; where a mark at the file's start tells the order of bytes, in either order."""
    name = codecs.lookup(encoding).name
    orders = (f"{name}-le", f"{name}-be") if name in {"utf-16", "utf-32"} else (name.removesuffix("-sig"),)
    return tuple(end.encode(order) for end in "\r\n" for order in orders)
