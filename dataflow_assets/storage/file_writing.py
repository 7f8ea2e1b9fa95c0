"""Writing one file of a target: what stays of the old one, then the staged rows.

Here: what a file format offers, and the order in which rows go into the new file. Not here: when that file becomes visible
(`files`), which rows stay (`file_rows`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from dataflow_assets.errors import ValueRefused
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import file_rows
from dataflow_assets.storage.file_ledger import FileRecord
from dataflow_assets.tables import LedgerEntry, PublishRequest, WindowFilter, WriteMode

_COPY_BYTES = 1024 * 1024


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

    def schema(self, path: Path, likely: pa.Schema) -> pa.Schema:
        """The columns of a file, in order; types that the file does not tell are those of `likely`."""
        ...

    def rows(self, path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a file as `schema`, streaming. Raises ReadFailed or ValueRefused."""
        ...

    def create(self, file: BinaryIO, schema: pa.Schema, entries: Sequence[LedgerEntry]) -> Writer:
        """Begin a file."""
        ...

    def extend(self, file: BinaryIO, schema: pa.Schema) -> Writer:
        """Continue a copy of a file at its end; called only when `extends`."""
        ...

    def recover(self, path: Path) -> FileRecord | None:
        """What a file that the journal does not know says of itself; None when nothing."""
        ...


Mark = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """The file that a unit's rows go to, with what is there now; `merges` when rows that are there may stay."""

    path: Path
    record: FileRecord | None
    mark: Mark | None
    exists: bool
    merges: bool
    columns: pa.Schema | None = None
    """The columns that the target has so far, from all of its files."""


def mark_of(path: Path) -> Mark | None:
    """What changes whenever somebody changes the file; None while there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


@dataclass
class Counts:
    """Rows that were kept, left out, read from the stage, and written of them. `copied`: the old rows were not looked at."""

    kept: int = 0
    deleted: int = 0
    staged: int = 0
    written: int = 0
    copied: bool = False


def schema_for(request: PublishRequest, format: Format, place: Place, *, declared: pa.Schema | None) -> pa.Schema:
    """The columns of the new file. Raises ValueRefused when data, declaration and old file do not have the same ones."""
    wanted = new = file_rows.plain_schema(request.schema)
    if declared is not None:
        file_rows.meet(declared, new, where=f"{place.path}, whose columns are declared")
        wanted = declared
    if request.target.mode is WriteMode.REPLACE:
        return wanted
    columns = place.columns
    if place.exists and (place.record is None or place.record.edited):
        columns = format.schema(place.path, columns or wanted)
    return wanted if columns is None else file_rows.meet(columns, wanted, where=str(place.path))


def write_file(
    file: BinaryIO, request: PublishRequest, format: Format, place: Place, schema: pa.Schema, entries: Sequence[LedgerEntry]
) -> Counts:
    """Write the whole new file. Raises ValueRefused for rows that may not come in."""
    counts, window = Counts(), window_of(request, schema)
    with ExitStack() as stack:
        keys = None
        if request.target.mode is WriteMode.UPSERT:
            keys = stack.enter_context(file_rows.keys_of(_staged(request, schema), request.target.keys))
        counts.copied = place.merges and request.target.mode is WriteMode.APPEND and format.extends
        if counts.copied:
            _copy(place.path, file)
        writer = format.extend(file, schema) if counts.copied else format.create(file, schema, entries)
        stack.callback(writer.abandon)
        if not counts.copied:
            _keep(writer, _kept(format, place, schema, window, keys), counts)
        _add(writer, _staged(request, schema), counts, window=window, keys=keys)
        writer.close()
    return counts


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


def _copy(path: Path, file: BinaryIO) -> None:
    with path.open("rb") as old:
        shutil.copyfileobj(old, file, _COPY_BYTES)


def _staged(request: PublishRequest, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with request.open_reader() as reader:
        for batch in reader:
            if batch.num_rows:
                yield file_rows.conform(batch, schema)


_Old = Iterator[tuple[pa.RecordBatch, int]]


def _kept(format: Format, place: Place, schema: pa.Schema, window: WindowFilter | None, keys: file_rows.Keys | None) -> _Old:
    """The old rows that stay, with the number of those that do not."""
    if not place.merges:
        return
    gone = keys.known_rows(format.rows(place.path, schema, keys.names)) if keys is not None else None
    start = 0
    for batch in format.rows(place.path, schema):
        kept = batch
        if window is not None:
            kept = file_rows.outside(batch, window)
        elif gone is not None:
            kept = batch.filter(pa.array(~gone[start : start + batch.num_rows]))
        start += batch.num_rows
        yield kept, batch.num_rows - kept.num_rows


def _keep(writer: Writer, old: _Old, counts: Counts) -> None:
    for batch, deleted in old:
        counts.kept += batch.num_rows
        counts.deleted += deleted
        if batch.num_rows:
            writer.write(batch)


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
