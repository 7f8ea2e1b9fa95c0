"""Writing one file of a target: what stays of the old one, then the staged rows.

Here: what a file format offers, and the order in which rows go into the new file. Not here: when that file becomes visible
(`files`), which rows stay (`file_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import pyarrow as pa

from dataflow_assets.errors import ValueRefused
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import file_rows
from dataflow_assets.storage.agreement import Agreement
from dataflow_assets.storage.file_ledger import Cut, FileRecord, Key, key_of
from dataflow_assets.storage.file_schemas import agreed_schema
from dataflow_assets.storage.places import FilePath, Mark
from dataflow_assets.tables import LedgerEntry, PublishRequest, WindowFilter, WriteMode

_COPY_BYTES = 1024 * 1024
Entries = Callable[[], Sequence[LedgerEntry]]


class Writer(Protocol):
    """Rows on their way into one file."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Write the next rows."""
        ...

    def close(self) -> None:
        """Write what ends the file; the file itself stays open."""
        ...

    def abandon(self) -> None:
        """Let go of everything, also after `close`; when not closed, the file is thrown away."""
        ...


class Format(Protocol):
    """How one kind of file is read and written."""

    @property
    def suffix(self) -> str:
        """The ending of files in a folder."""
        ...

    @property
    def extends(self) -> bool:
        """Whether rows can be added at the end of a file's bytes."""
        ...

    def schema(self, path: FilePath, likely: pa.Schema) -> pa.Schema:
        """The columns of a file, in order; types that the file does not tell are those of `likely`."""
        ...

    def rows(self, path: FilePath, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a file as `schema`, streaming. Raises ReadFailed or ValueRefused."""
        ...

    def create(self, file: BinaryIO, schema: pa.Schema, entries: Entries) -> Writer:
        """Begin a file; `entries` are known when its rows are."""
        ...

    def extend(self, file: BinaryIO, schema: pa.Schema) -> Writer:
        """Continue a copy of a file at its end; called only when `extends`."""
        ...

    def recover(self, path: FilePath) -> FileRecord | None:
        """What a file that the journal does not know says of itself; None when nothing."""
        ...


@dataclass(frozen=True)
class Slot:
    """The file that a unit's rows go to, with what is there now; `merges` when rows that are there may stay."""

    path: FilePath
    record: FileRecord | None
    mark: Mark | None
    exists: bool
    merges: bool
    columns: pa.Schema | None = None
    """The columns that the target has so far, from all of its files."""


@dataclass
class Counts:
    """Rows that were kept, left out, read from the stage, and written of them. `copied`: the old rows were not looked at."""

    kept: int = 0
    deleted: int = 0
    staged: int = 0
    written: int = 0
    copied: bool = False
    cut: Cut | None = None


def schema_for(request: PublishRequest, format: Format, slot: Slot, *, declared: pa.Schema | None) -> tuple[pa.Schema, Agreement]:
    """The columns of the new file. Raises WriteFailed when the schema policy refuses to let data, declaration and old file differ."""
    new = file_rows.plain_schema(request.schema)
    columns = slot.columns
    if slot.exists and (slot.record is None or slot.record.edited) and request.target.mode is not WriteMode.REPLACE:
        columns = format.schema(slot.path, columns or (declared if declared is not None else new))
    whole = request.target.mode is WriteMode.REPLACE
    return agreed_schema(request.with_schema(new), columns, declared=declared, whole=whole)


def write_file(file: BinaryIO, request: PublishRequest, format: Format, slot: Slot, schema: pa.Schema, entries: Entries) -> Counts:
    """Write the whole new file. Raises ValueRefused for rows that may not come in."""
    counts, window = Counts(), window_of(request, schema)
    old = _old_schema(format, slot, schema)
    ranges = _ranges(request, format, slot) if old.names == schema.names else None
    counts.copied = ranges is not None
    with ExitStack() as stack:
        keys = None
        if request.target.mode is WriteMode.UPSERT:
            keys = stack.enter_context(file_rows.keys_of(_staged(request, schema), request.target.keys))
        if ranges is not None:
            _copy(slot.path, file, ranges, request)
        writer = format.create(file, schema, entries) if ranges is None else format.extend(file, schema)
        stack.callback(writer.abandon)
        if ranges is None:
            _keep(writer, _kept(format, slot, old, window, keys), schema, counts, request)
        start = file.tell()
        _add(writer, _staged(request, schema), counts, window=window, keys=keys)
        writer.close()
    if window is not None and format.extends and not counts.kept:
        length = file.tell() - start
        counts.cut = Cut(
            _cut_by(request), (*_pieces_left(request, slot.record if counts.copied else None), (key_of(request.claim.unit), length))
        )
    return counts


def _cut_by(request: PublishRequest) -> str:
    return f"{request.target.window_column} in {request.target.timezone}"


def _ranges(request: PublishRequest, format: Format, slot: Slot) -> list[tuple[int, int]] | None:
    """The byte ranges of the old file that stay, where that can be told without looking at its rows; None where it cannot."""
    if not slot.merges or not format.extends:
        return None
    if request.target.mode is WriteMode.APPEND:
        return [(0, slot.mark[0] if slot.mark else 0)]
    record, window = slot.record, request.claim.unit.window
    if request.target.mode is not WriteMode.REPLACE_WINDOW or window is None or record is None or record.edited or record.cut is None:
        return None
    units = {key_of(entry.unit): entry.unit for entry in record.entries}
    for key, _ in record.cut.pieces:
        piece = units[key].window if key in units else None
        if piece is None or (piece.overlaps(window) and not (window.start <= piece.start and piece.end <= window.end)):
            return None
    return _pieces_as_ranges(request, record) if record.cut.by == _cut_by(request) else None


def _pieces_left(request: PublishRequest, record: FileRecord | None) -> list[tuple[Key, int]]:
    """The pieces whose windows lie beside the new one."""
    if record is None or record.cut is None or request.claim.unit.window is None:
        return []
    windows = {key_of(entry.unit): entry.unit.window for entry in record.entries}
    return [
        (key, length) for key, length in record.cut.pieces if (window := windows[key]) and not window.overlaps(request.claim.unit.window)
    ]


def _pieces_as_ranges(request: PublishRequest, record: FileRecord) -> list[tuple[int, int]]:
    left = {key for key, _ in _pieces_left(request, record)}
    pieces = record.cut.pieces if record.cut else ()
    start = record.identity.size - sum(length for _, length in pieces)
    ranges = [(0, start)]
    for key, length in pieces:
        if key in left:
            ranges.append((start, length))
        start += length
    return ranges


def window_of(request: PublishRequest, schema: pa.Schema) -> WindowFilter | None:
    """The filter of the window that a request replaces, None in the other modes."""
    target, unit = request.target, request.claim.unit
    if target.mode is not WriteMode.REPLACE_WINDOW:
        return None
    if unit.window is None or target.window_column is None or target.window_column not in schema.names:
        raise ValueRefused(
            f"{target.table}: a window cannot be replaced without a window and its column {target.window_column!r} in the data",
            hint="name a column of the data as event_time_column, in a pipeline with windows",
        )
    return WindowFilter(target.window_column, unit.window, target.timezone)


def _copy(path: FilePath, file: BinaryIO, ranges: Sequence[tuple[int, int]], request: PublishRequest) -> None:
    with path.open("rb") as old:
        for start, length in ranges:
            old.seek(start)
            request.require_wanted()
            while length > 0 and (block := old.read(min(length, _COPY_BYTES))):
                file.write(block)
                length -= len(block)


def _staged(request: PublishRequest, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with request.open_reader() as reader:
        for batch in reader:
            if batch.num_rows:
                yield file_rows.conform(batch, schema)


_Old = Iterator[tuple[pa.RecordBatch, int]]


def _old_schema(format: Format, slot: Slot, schema: pa.Schema) -> pa.Schema:
    """The columns that the old file has by itself, in the types that they are to have."""
    if not slot.merges:
        return schema
    own = slot.record.schema if slot.record and not slot.record.edited else format.schema(slot.path, schema)
    return pa.schema([schema.field(name) for name in own.names if name in schema.names])


def _kept(format: Format, slot: Slot, schema: pa.Schema, window: WindowFilter | None, keys: file_rows.Keys | None) -> _Old:
    """The old rows that stay, with the number of those that do not."""
    if not slot.merges:
        return
    gone = keys.known_rows(format.rows(slot.path, schema, keys.names)) if keys is not None else None
    start = 0
    for batch in format.rows(slot.path, schema):
        kept = batch
        if window is not None:
            kept = file_rows.outside(batch, window)
        elif gone is not None:
            kept = batch.filter(pa.array(~gone[start : start + batch.num_rows]))
        start += batch.num_rows
        yield kept, batch.num_rows - kept.num_rows


def _keep(writer: Writer, old: _Old, schema: pa.Schema, counts: Counts, request: PublishRequest) -> None:
    for batch, deleted in old:
        request.require_wanted()
        counts.kept += batch.num_rows
        counts.deleted += deleted
        if batch.num_rows:
            writer.write(batch if batch.schema.equals(schema) else file_rows.conform(batch, schema))


def _add(
    writer: Writer, staged: Iterator[pa.RecordBatch], counts: Counts, *, window: WindowFilter | None, keys: file_rows.Keys | None
) -> None:
    last = keys.last_rows() if keys is not None else None
    for batch in staged:
        if window is not None:
            file_rows.refuse_outside(batch, window)
        kept = batch if last is None else batch.filter(pa.array(last[counts.staged : counts.staged + batch.num_rows]))
        counts.staged += batch.num_rows
        counts.written += kept.num_rows
        if kept.num_rows:
            writer.write(kept)
        failpoint("publish.mid_copy")
