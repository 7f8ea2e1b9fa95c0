"""Parquet: one file, a folder of files with one file per window, or a glob.

Here: reading with columns and windows pushed down to the row groups, and files that carry their ledger in the footer.
Not here: the publish protocol (`storage.files`), paths (`_files`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
from pydantic import Field

from dataflow_assets.connectors._files import FileConnection, FileConnector, OpenFile, reader_of, require, snapshot
from dataflow_assets.error_kinds import kind_of
from dataflow_assets.errors import ReadFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.models import EndpointOptions, SourceOptions
from dataflow_assets.storage.file_ledger import FileRecord, entry_from, entry_to
from dataflow_assets.storage.file_rows import combined, conform, meet, plain_schema
from dataflow_assets.storage.file_writing import Entries, Writer
from dataflow_assets.storage.places import FilePath, Identity, Mark
from dataflow_assets.tables import ReadRequest, WindowFilter, WriteMode

_FOOTER = b"dataflow"
_ROW_GROUP_ROWS = 1_048_576
_FOOTERS = 1000
"""How many footers are kept for the windows of a run."""
_READ_BUFFER = 1024 * 1024


class ParquetSource(SourceOptions):
    """A file, a folder (its `.parquet` files) or a glob."""

    file_path: str = Field(min_length=1, description="a file, a folder or a glob such as data/*.parquet, relative to the project")


class ParquetEndpoint(EndpointOptions):
    """A file; or a folder, when the path ends with `/` or has no extension, which gets one file per window."""

    file_path: str = Field(min_length=1, description="a .parquet file, or a folder for one file per window")


class Connector(FileConnector):
    """Parquet files."""

    kind: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), single_file=True, publishes_early=True)
    Source: ClassVar[type[ParquetSource]] = ParquetSource
    Endpoint: ClassVar[type[ParquetEndpoint]] = ParquetEndpoint
    example: ClassVar[str] = """
pipeline_name: events_by_day
event_time_column: at
windows: {every: day, begin: 2024-01-01}
steps:
  - id: landed
    type: source
    source_type: parquet
    config: {file_path: landing/*.parquet, columns: [id, at, kind]}
  - id: by_day
    type: endpoint
    endpoint_type: parquet
    depends_on: [landed]
    config: {file_path: output/events/}
"""

    def is_folder(self, options: Any) -> bool:
        return str(options.file_path).endswith("/") or not PurePosixPath(options.file_path).suffix

    def __init__(self, connection: FileConnection, context: ConnectionContext) -> None:
        super().__init__(connection, context)
        self._footers: dict[Mark, Any] = {}

    def format(self, options: Any) -> ParquetFormat:
        return ParquetFormat()

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        with snapshot(self.wanted(request)) as files:
            footers = [self._footer(file) for file in files]
            schema = _schema_of(files, footers)
            columns = request.columns or request.options.columns or schema.names
            window = request.window
            require(schema, [*columns, *([window.column] if window else [])])
            needed = pa.schema([item for item in schema if item.name in columns or (window and item.name == window.column)])
            found = zip(files, footers, strict=True)
            batches = (batch for file, footer in found for batch in _rows(file, footer, needed, window=window, rows=request.batch_rows))
            yield reader_of(needed, batches, window=window, columns=columns, rows=request.batch_rows)

    def close(self) -> None:
        self._footers.clear()

    def _footer(self, file: OpenFile) -> Any:
        """The file's metadata and row-group statistics, read once for as long as the file does not change."""
        footer = self._footers.get(file.mark) if file.mark else None
        if footer is None:
            footer = _footer_of(file)
            if file.mark is not None and len(self._footers) < _FOOTERS:
                self._footers[file.mark] = footer
        return footer


def _footer_of(file: OpenFile) -> Any:
    import pyarrow.dataset as ds

    with _reading(file):
        footer = ds.ParquetFileFormat().make_fragment(file.open())
        footer.ensure_complete_metadata()
    return footer


def _schema_of(files: Sequence[OpenFile], footers: Sequence[Any]) -> pa.Schema:
    """The columns of all files. Raises ReadFailed for a file whose columns are others than the first one's.

    Files that were published here may have columns that older ones have not: their schema policy has let them in.
    """
    schemas = []
    published = all(_FOOTER in (footer.metadata.metadata or {}) for footer in footers)
    for file, footer in zip(files, footers, strict=True):
        schemas.append(plain_schema(footer.metadata.schema.to_arrow_schema()))
        if not published and sorted(schemas[-1].names) != sorted(schemas[0].names):
            differing = sorted({*schemas[-1].names} ^ {*schemas[0].names})
            raise ReadFailed(
                f"{file.path} and {files[0].path} do not have the same columns: {', '.join(map(repr, differing))} only in one of them",
                hint="read them in two steps, or correct the glob",
            )
    schema = combined(schemas)
    return schema if schema is not None else pa.schema([])


@contextmanager
def _reading(file: OpenFile) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ReadFailed(
            f"{file.path} cannot be read as Parquet: {error}", hint="see that the file is whole", kind=kind_of(error)
        ) from error


def _rows(file: OpenFile, footer: Any, schema: pa.Schema, *, window: WindowFilter | None, rows: int) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    groups = _row_groups(footer, window)
    if not groups:
        return
    with _reading(file):
        opened = pq.ParquetFile(file.open(), metadata=footer.metadata, buffer_size=_READ_BUFFER, pre_buffer=False)
        there = [name for name in schema.names if name in opened.schema_arrow.names]
        for batch in opened.iter_batches(batch_size=rows, row_groups=groups, columns=there):
            yield conform(batch, schema)


def _row_groups(footer: Any, window: WindowFilter | None) -> list[int]:
    """The row groups that may hold rows of the window, or rows without a time, by their statistics."""
    if window is None:
        return list(range(footer.metadata.num_row_groups))
    import pyarrow.dataset as ds

    column, schema = ds.field(window.column), footer.physical_schema
    start, end = window.bounds(schema.field(window.column).type)
    subset = footer.subset(((column >= start) & (column < end)) | column.is_null(), schema=schema)
    return [group.id for group in subset.row_groups]


class ParquetFormat:
    """Parquet with zstd; the footer holds the ledger entries of the file."""

    suffix = ".parquet"
    extends = False

    def schema(self, path: FilePath, likely: pa.Schema) -> pa.Schema:
        with snapshot([path]) as files:
            return _schema_of(files, [_footer_of(files[0])])

    def rows(self, path: FilePath, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        with snapshot([path]) as files:
            footer = _footer_of(files[0])
            meet(_schema_of(files, [footer]), schema, where=str(path))
            yield from _rows(files[0], footer, wanted, window=None, rows=65_536)

    def create(self, file: BinaryIO, schema: pa.Schema, entries: Entries) -> ParquetWriter:
        return ParquetWriter(file, schema, entries)

    def extend(self, file: BinaryIO, schema: pa.Schema) -> Writer:
        raise TypeError("a Parquet file ends with its footer")

    def recover(self, path: FilePath) -> FileRecord | None:
        import pyarrow.parquet as pq

        with snapshot([path]) as files, _reading(files[0]):
            opened = pq.ParquetFile(files[0].open(), buffer_size=_READ_BUFFER, pre_buffer=False)
            footer = (opened.schema_arrow.metadata or {}).get(_FOOTER) or (opened.metadata.metadata or {}).get(_FOOTER)
            if footer is None:
                return None
            entries = tuple(entry_from(item) for item in json.loads(footer))
            return FileRecord(Identity.of(path), plain_schema(opened.schema_arrow), entries)


class ParquetWriter:
    """Writes row groups of at most a million rows."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, entries: Entries) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._held: list[pa.RecordBatch] = []
        self._entries = entries

    def write(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        if sum(item.nbytes for item in self._held) > 32 * _READ_BUFFER or sum(item.num_rows for item in self._held) >= _ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held), row_group_size=_ROW_GROUP_ROWS)
            self._held = []

    def close(self) -> None:
        self._flush()
        self._writer.add_key_value_metadata({_FOOTER.decode(): json.dumps([entry_to(entry) for entry in self._entries()])})
        self._writer.close()

    def abandon(self) -> None:
        if self._writer.is_open:
            with suppress(pa.ArrowException, OSError):
                self._writer.close()
