"""What the connectors of files share: paths, claims, publishing, reading a target back.

Here: from `file_path` to the files it names, local ones or objects, and the part of the connector protocol that is the same for
every format. Not here: the formats (`csv`, `json`, `parquet`), the publish protocol (`storage.files`), object stores
(`_object_stores`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from dataflow_assets.batches import cut
from dataflow_assets.connectors import _file_states
from dataflow_assets.connectors._object_stores import StorageOptions, is_url, key_of, object_path
from dataflow_assets.connectors._object_stores import sources as object_sources
from dataflow_assets.error_kinds import OS_CODES, Codes, kind_of
from dataflow_assets.errors import ConnectionFailed, ReadFailed, ValueRefused
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.spec.base import Model
from dataflow_assets.storage import file_rows, files
from dataflow_assets.storage.file_ledger import Site
from dataflow_assets.storage.file_writing import Format
from dataflow_assets.storage.ledger import ordered
from dataflow_assets.storage.objects import ObjectPath, RangeFile
from dataflow_assets.storage.places import FilePath, Mark, mark_of
from dataflow_assets.storage.type_names import column_types
from dataflow_assets.tables import (
    Claim,
    LedgerEntry,
    Published,
    PublishRequest,
    ReadRequest,
    SchemaVersion,
    SourceFile,
    TableName,
    Target,
    Unit,
    WindowFilter,
)

_OPEN_AT_ONCE = 64
_DESCRIPTORS = Path("/proc/self/fd")


class FileConnection(Model):
    """A folder, or the address of an object store, that paths are relative to. Local files need no connection."""

    root: str | None = Field(
        None,
        description="what file_path is relative to: a folder, itself relative to the project; or s3://bucket/prefix, gs://..., az://...",
    )
    storage_options: StorageOptions | None = Field(None, description="how the object store is reached; default: as its vendor's tools do")


class FileConnector:
    """The connector protocol for files; a format gives `reader` and `writer`."""

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """The names of data files inside a folder end with one of these."""
    Connection: ClassVar[type[FileConnection]] = FileConnection
    error_codes: ClassVar[Codes] = OS_CODES

    def __init__(self, connection: FileConnection, context: ConnectionContext) -> None:
        self._options, self._project = _anchored(connection.storage_options, context.project_dir), context.project_dir
        self._stores: dict[str, ObjectPath] = {}
        self._folder: FilePath = (
            object_path(connection.root, self._options)
            if connection.root and is_url(connection.root)
            else context.project_dir / (connection.root or "")
        )

    def __repr__(self) -> str:
        return f"{self.kind} files in {self._folder}"

    def format(self, options: Any) -> Format:
        """How files of an endpoint with these options are read and written."""
        raise TypeError(f"{type(self).__name__} reads and writes no format")

    def is_folder(self, options: Any) -> bool:
        """Whether an endpoint with these options writes a folder of files."""
        return False

    def probe(self) -> str:
        if isinstance(self._folder, ObjectPath):
            return f"{self.kind} files in {self._folder.store.probe()}"
        if not self._folder.is_dir():
            raise ConnectionFailed(
                f"there is no folder {self._folder}", hint="create it, or correct root: of the connection", transient=False
            )
        return f"{self.kind} files in {self._folder}"

    def close(self) -> None:
        for path in [self._folder, *self._stores.values()]:
            if isinstance(path, ObjectPath):
                path.store.close()

    def source_table(self, options: Any) -> TableName | None:
        return TableName(self._name(options.file_path))

    def target_table(self, options: Any) -> TableName:
        return TableName(self._name(options.file_path))

    def path(self, file_path: str) -> FilePath:
        """The path that `file_path` means."""
        if is_url(file_path):
            return self._addressed(file_path)
        if isinstance(self._folder, ObjectPath):
            return replace(self._folder, key=key_of(f"{self._folder.key}/{file_path}"))
        return Path(os.path.normpath(self._folder / file_path))

    def _addressed(self, url: str) -> ObjectPath:
        """The path of an address; of one bucket there is one client."""
        path = object_path(url, self._options)
        return replace(self._stores.setdefault(path.store.url, path), key=path.key)

    def _name(self, file_path: str) -> str:
        """The path as lineage knows it: relative to the project where it lies inside, a glob as the folder it looks into."""
        path = self.path(file_path)
        if isinstance(path, ObjectPath):
            return str(path.parent if glob.has_magic(path.name) else path)
        if glob.has_magic(path.name) and not path.exists():
            path = path.parent
        return path.relative_to(self._project).as_posix() if path.is_relative_to(self._project) else path.as_posix()

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        return files.claim(self._site(target), unit, attempt=attempt, format=self.format(target.options))

    def publish(self, request: PublishRequest) -> Published:
        options = request.target.options
        return files.publish(self._site(request.target), request, self.format(options), declared=_declared(options.columns))

    def retire(self, request: PublishRequest, *, rows: int) -> Published:
        """Take a window out of a target, in the one step that puts a file into place."""
        return self.publish(replace(request, replaces=rows))

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        entries = files.known(self._site(target), self.format(target.options)).entries
        return ordered(entry for entry in entries if (entry.unit.pipeline, entry.unit.step) == (pipeline, step))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        return list(files.known(self._site(target), self.format(target.options)).schemas)

    @contextmanager
    def read_target(self, target: Target, window: WindowFilter | None) -> Iterator[pa.RecordBatchReader]:
        site, format = self._site(target), self.format(target.options)
        journal = files.known(site, format)
        paths = [site.place.path(site.name)] if site.name else files.data_files(site, format.suffix)
        present = [path for path in paths if mark_of(path)]
        if not present:
            raise ReadFailed(f"{site} does not exist", hint="run the pipeline that writes it")
        likely = files.columns_of(journal)
        schema = likely if likely is not None else format.schema(present[0], pa.schema([]))
        batches = (batch for path in present for batch in files.rows_of(format, path, journal, schema))
        yield reader_of(schema, batches, window=window)

    def _site(self, target: Target) -> Site:
        return Site.of(self.path(target.options.file_path), is_folder=self.is_folder(target.options))

    def source_version(self, options: Any) -> str:
        """Name, size, time and inode of every file that the source reads."""
        return repr([(str(path), mark_of(path)) for path in self.sources(options.file_path)])

    def sources(self, file_path: str) -> Sequence[FilePath]:
        """The files that a source reads: the file itself, the data files of a folder, or what a glob matches, by name.

        Raises ReadFailed when there is none.
        """
        path = self.path(file_path)
        if isinstance(path, ObjectPath):
            return object_sources(path, self.suffixes)
        if path.is_file():
            return [path]
        pattern = str(path / "*" if path.is_dir() else path)
        if not glob.has_magic(pattern):
            hint = f"file_path is relative to {self._folder}; look for a typing error"
            raise ReadFailed(f"{path} does not exist", hint=hint, kind="configuration")
        found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - an absolute pattern
        found = [item for item in found if item.is_file() and item.name[0] not in "._"]
        if path.is_dir():
            found = [item for item in found if item.name.endswith(self.suffixes)]
        if not found:
            hint = f"file_path is relative to {self._folder}; see what lies there"
            raise ReadFailed(f"no file matches {pattern}", hint=hint, kind="configuration")
        return found

    def list_files(self, options: Any, *, marker: str | None = None) -> list[SourceFile]:
        """The files of a source, with their marks; none is no error."""
        try:
            paths = self.sources(options.file_path)
        except ReadFailed:
            return []
        return [replace(state, name=self._said(path)) for path, state in _file_states.states_of(paths, marker=marker)]

    def _said(self, path: FilePath) -> str:
        """A file as `path` finds it again: an address, or relative to the connection's folder where it lies inside."""
        if isinstance(path, Path) and isinstance(self._folder, Path) and path.is_relative_to(self._folder):
            return path.relative_to(self._folder).as_posix()
        return str(path)

    def content_digest(self, file: SourceFile) -> str:
        """What changes only with a file's content; empty for a large one."""
        return _file_states.content_digest(self.path(file.name), file)

    def wanted(self, request: ReadRequest) -> Sequence[FilePath]:
        """The files that a read is about: all of the source, or just those asked for, unless they were written anew since.

        Raises ReadFailed when one of those asked for is gone.
        """
        if request.files is None:
            return self.sources(request.options.file_path)
        return _file_states.unchanged(request.files, self.path)


def _anchored(options: StorageOptions | None, folder: Path) -> StorageOptions | None:
    """The options with their file's path made whole."""
    if options is None or options.service_account_file is None:
        return options
    return options.model_copy(update={"service_account_file": str(folder / options.service_account_file)})


def _declared(columns: dict[str, str]) -> pa.Schema | None:
    """The columns that an endpoint's `schema` wants. Raises ValueRefused for an unknown type."""
    if not columns:
        return None
    return pa.schema(list(column_types(columns).items()))


@dataclass(frozen=True)
class OpenFile:
    """One of the files a source reads, as it was when reading began; `mark` changes with its content."""

    path: FilePath
    mark: Mark | None
    held: str | None = None
    """A path to the file's content that outlives its name."""

    def open(self) -> Any:
        """Its bytes from the start. Raises ReadFailed when it cannot be opened, or was replaced and is not held."""
        if isinstance(self.path, ObjectPath):
            return pa.PythonFile(RangeFile.of(self.path), mode="r")
        handle = _opened(Path(self.held) if self.held else self.path, self.path)
        if not self.held and mark_of(self.path) != self.mark:
            raise ReadFailed(f"{self.path} was replaced while it was read", hint="run it again", transient=True)
        return handle

    def tail(self, length: int) -> bytes | None:
        """Its last bytes; None where they cannot be had without all that comes before."""
        if isinstance(self.path, ObjectPath):
            return RangeFile.of(self.path).last(length)
        with self.open() as handle:
            size: int = handle.size()
            found: bytes = handle.read_at(min(length, size), max(size - length, 0))
        return found


@contextmanager
def snapshot(paths: Iterable[FilePath]) -> Iterator[list[OpenFile]]:
    """The files as they are now: the first 64 are held open, so that a rename cannot swap them; a later one that was swapped is refused.

    An object is read in the state that it has now, or refused.
    """
    with ExitStack() as stack:
        opened = []
        for number, path in enumerate(paths):
            if isinstance(path, ObjectPath):
                path = path.pinned()
                opened.append(OpenFile(path, mark_of(path)))
                continue
            held = None
            if number < _OPEN_AT_ONCE and _DESCRIPTORS.is_dir():
                held = str(_DESCRIPTORS / str(stack.enter_context(_descriptor(path))))
            opened.append(OpenFile(path, mark_of(Path(held) if held else path), held))
        yield opened


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ReadFailed(f"{path} cannot be opened: {error}", hint="see that it exists and may be read", kind=kind_of(error)) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _opened(path: Path, shown: FilePath) -> Any:
    try:
        return pa.OSFile(str(path), "rb")
    except OSError as error:
        raise ReadFailed(f"{shown} cannot be opened: {error}", hint="see that it exists and may be read", kind=kind_of(error)) from error


def reader_of(
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    window: WindowFilter | None = None,
    columns: Iterable[str] | None = None,
    rows: int = 65_536,
) -> pa.RecordBatchReader:
    """A reader of the rows in the window, with these columns, in batches of at most `rows` rows."""
    if window is not None:
        require(schema, [window.column])
        window.bounds(schema.field(window.column).type)
    names = list(columns) if columns is not None else schema.names
    require(schema, names)
    wanted = pa.schema([schema.field(name) for name in names])
    chosen = (_within(batch, window).select(names) for batch in batches)
    fit = (batch if batch.schema.equals(wanted, check_metadata=True) else batch.cast(wanted) for batch in cut(chosen, rows=rows))
    return pa.RecordBatchReader.from_batches(wanted, fit)


def _within(batch: pa.RecordBatch, window: WindowFilter | None) -> pa.RecordBatch:
    if window is None or batch.num_rows == 0:
        return batch
    mask = file_rows.inside(batch.column(window.column), window)
    if mask.null_count:
        raise ValueRefused(
            f"{mask.null_count} rows have no value in column {window.column!r}, so they lie in no window and would be lost",
            hint="give them a time, or read the file without windows",
        )
    return batch.filter(mask)


def require(schema: pa.Schema, names: Iterable[str]) -> None:
    """Raises ReadFailed naming the columns that are not there."""
    if missing := [name for name in names if name not in schema.names]:
        raise ReadFailed(f"there is no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, schema.names))}")
