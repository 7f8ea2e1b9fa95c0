"""The ledger of files: a journal beside the data that says which windows the bytes on disk hold.

Here: the journal's data, its text, and the decision which state a file is in. The journal is written before a data file is put
into place and describes it both as it was and as it will be; the file itself tells which is true. So data and ledger commit in
one rename, or in one conditional write of an object. Not here: how the new bytes are made (`files`), locks and writes (`places`).
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa

from dataflow_assets.errors import WriteFailed
from dataflow_assets.storage.file_rows import combined
from dataflow_assets.storage.file_schemas import with_version
from dataflow_assets.storage.places import FilePath, Identity, Mark, Place, place_of
from dataflow_assets.tables import ColumnVersion, LedgerEntry, SchemaVersion, Unit, WriteMode
from dataflow_assets.windows import Window

Key = tuple[str, str, str]
_VERSION = 1
_LOCK_SECONDS = 60.0
_OVERTAKEN = 8
"""How many commits that can hardly arrive any more are remembered."""


@dataclass(frozen=True)
class Site:
    """Where a target lives: one file, or a folder of files. `prefix` begins the names of journal and lock."""

    place: Place
    name: str | None

    @classmethod
    def of(cls, path: FilePath, *, is_folder: bool) -> Site:
        """The site of a path."""
        return cls(place_of(path), None) if is_folder else cls(place_of(path.parent), path.name)

    @property
    def prefix(self) -> str:
        """What the names of the site's hidden files begin with."""
        return f".{self.name}" if self.name else ""

    @property
    def journal(self) -> FilePath:
        """The journal's file."""
        return self.place.path(f"{self.prefix}.dataflow.json")

    def __str__(self) -> str:
        return str(self.place.path(self.name) if self.name else self.place)


@dataclass(frozen=True)
class Cut:
    """The bytes of a text file: a header, then one piece per window, in order. `by` names the column that the windows cut."""

    by: str
    pieces: tuple[tuple[Key, int], ...]
    """The unit and the length of each piece."""


@dataclass(frozen=True)
class FileRecord:
    """One data file: the content it had when it was published, its columns, and the units in it, oldest first."""

    identity: Identity
    schema: pa.Schema
    entries: tuple[LedgerEntry, ...] = ()
    edited: bool = False
    """The file was changed by somebody else since."""
    cut: Cut | None = None
    """Which bytes belong to which window; None when that is not known."""


@dataclass(frozen=True)
class Pending:
    """What is true of the file `name` once its rename has happened."""

    name: str
    identity: Identity
    schema: pa.Schema
    entry: LedgerEntry
    cut: Cut | None
    temporary: str
    """The new content's name until the rename: while it is there, the rename has not happened."""
    base: str = ""
    """The version of the object that may be replaced, empty when there must be none."""

    def after(self, record: FileRecord | None) -> FileRecord:
        """The record that replaces `record`. A unit whose newer rows were overtaken by these counts as missing, to be written again."""
        entries = record.entries if record else ()
        kept = tuple(entry for entry in entries if key_of(entry.unit) != key_of(self.entry.unit))
        late = any(entry.generation > self.entry.generation for entry in entries if key_of(entry.unit) == key_of(self.entry.unit))
        return FileRecord(self.identity, self.schema, kept if late else (*kept, self.entry), cut=None if late else self.cut)


@dataclass(frozen=True)
class Journal:
    """All that is known of a site. `serial` counts the commits; `mark` is that of the journal's file."""

    serial: int = 0
    claims: dict[Key, int] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    pendings: tuple[Pending, ...] = ()
    """Commits that were begun: in a local folder the last one; in an object store all that may still arrive."""
    schemas: tuple[SchemaVersion, ...] = ()
    """The versions of the target's columns, oldest first."""
    mark: Mark | None = field(default=None, compare=False)

    @property
    def entries(self) -> list[LedgerEntry]:
        """Every published unit, oldest first."""
        return sorted((entry for record in self.files.values() for entry in record.entries), key=lambda entry: entry.published_at)

    def find(self, unit: Unit) -> LedgerEntry | None:
        """The entry of a unit."""
        return next((entry for entry in self.entries if key_of(entry.unit) == key_of(unit)), None)

    def newest(self, unit: Unit) -> int:
        """The newest generation claimed."""
        return self.claims.get(key_of(unit), 0)


def key_of(unit: Unit) -> Key:
    """What identifies a unit within its target."""
    return unit.pipeline, unit.step, unit.key


def load(site: Site) -> Journal:
    """The journal, settled: its pending state taken over or dropped, files that are gone forgotten, edited ones marked.

    Raises WriteFailed when the journal cannot be read.
    """
    return _settled(site, _parsed(site))


_known: dict[FilePath, Journal] = {}


def _parsed(site: Site) -> Journal:
    """The journal as written, parsed once for each state of its file."""
    path = site.journal
    known = _known.get(path)
    try:
        if (found := site.place.load(path.name, known=known.mark if known else None)) is None:
            return Journal()
        mark, text = found
        if known is not None and known.mark == mark:
            return known
        journal = replace(_journal_from(json.loads(text)), mark=mark)
    except (ValueError, KeyError, TypeError) as error:
        raise WriteFailed(
            f"the ledger {path} cannot be read: {error}",
            hint=f"restore it, or delete {path.name} and the data beside it to publish everything anew",
        ) from error
    _known[path] = journal
    return journal


def _settled(site: Site, journal: Journal) -> Journal:
    names = {*journal.files, *(pending.name for pending in journal.pendings)}
    marks = site.place.marks(names)
    files, waiting, arrived = {}, [], []
    for name in names:
        pendings = [pending for pending in journal.pendings if pending.name == name]
        found = _state(site.place, name, marks.get(name), journal.files.get(name), pendings)
        if found is not None:
            files[name] = found
        here = [item for item in pendings if found is not None and found.identity.digest == item.identity.digest]
        waiting += [item for item in pendings if item not in here]
        arrived += here
    kept = _may_arrive(waiting, marks) if site.place.commits_late else ()
    return replace(journal, files=files, pendings=kept, schemas=_with_arrived(journal.schemas, files, arrived))


def _with_arrived(known: tuple[SchemaVersion, ...], files: Mapping[str, FileRecord], arrived: list[Pending]) -> tuple[SchemaVersion, ...]:
    """The versions after commits that have happened: what is committed is known with it, and nothing else."""
    for pending in sorted(arrived, key=lambda item: item.entry.published_at):
        columns = pending.schema if len(files) == 1 else combined(record.schema for record in files.values())
        known = with_version(known, pending.schema if columns is None else columns, pending.entry)
    return known


def _may_arrive(waiting: list[Pending], marks: Mapping[str, Mark]) -> tuple[Pending, ...]:
    """The commits whose condition still holds, and the last others: an object that returns to an old content has its old ETag."""
    versions = {name: str(mark[1]) for name, mark in marks.items()}
    last = waiting[-_OVERTAKEN:]
    return tuple(item for item in waiting if item in last or versions.get(item.name, "") == item.base)


def _state(place: Place, name: str, mark: Mark | None, record: FileRecord | None, pendings: Sequence[Pending]) -> FileRecord | None:
    """What the file holds: None when it is gone, or empty though it was not."""
    if mark is None:
        return None
    for pending in pendings:
        if pending.identity.mark == mark:
            return pending.after(record)
    # equal bytes have equal ETags: only the token tells a commit of the same rows
    repeated = place.commits_late and any(pending.identity.size == mark[0] for pending in pendings)
    if record and record.identity.mark == mark and not repeated:
        return replace(record, edited=False)
    try:
        identity = Identity.of(place.path(name))
    except FileNotFoundError:
        return None
    for pending in pendings:
        if identity.digest == pending.identity.digest:
            return replace(pending.after(record), identity=identity)
    if record and identity.digest == record.identity.digest:
        return replace(record, identity=identity, edited=False)
    for pending in pendings:
        if place.moved(pending.temporary):
            record = pending.after(record)
    return replace(record, edited=True, cut=None) if record and mark[0] else None


def save(site: Site, journal: Journal) -> None:
    """Write the journal durably and at once; called with the state lock held.

    Raises Changed where the place has no lock and the journal is no longer the one that was loaded.
    """
    path = site.journal
    text = json.dumps(_journal_to(journal), ensure_ascii=False)
    mark = site.place.save(path.name, text, expected=journal.mark)
    if mark is not None:
        _known[path] = replace(journal, mark=mark)


@contextmanager
def state_lock(site: Site) -> Iterator[None]:
    """Hold the right to change the journal and rename data; short. Raises WriteFailed when somebody keeps it for a minute."""
    with site.place.lock(f"{site.prefix}.dataflow.state.lock", seconds=_LOCK_SECONDS) as held:
        if not held:
            raise WriteFailed(
                f"{site}: another process has held its ledger for {_LOCK_SECONDS:.0f} s",
                hint="look for a stopped or hanging run that writes the same file",
                transient=True,
            )
        yield


@contextmanager
def writer_lock(site: Site, *, seconds: float = _LOCK_SECONDS) -> Iterator[bool]:
    """Wait for other writers, to save work; yields whether the wait succeeded. A stopped writer must not stop the others."""
    with site.place.lock(f"{site.prefix}.dataflow.writer.lock", seconds=seconds) as held:
        yield held


def _journal_to(journal: Journal) -> dict[str, Any]:
    pendings = [_pending_to(pending) for pending in journal.pendings]
    return {
        "version": _VERSION,
        "serial": journal.serial,
        "nonce": secrets.token_hex(8),  # no two journals are equal, so no version of an object comes twice
        "claims": [[*key, generation] for key, generation in journal.claims.items()],
        "files": {name: _record_to(record) for name, record in journal.files.items()},
        "pending": pendings[0] if len(pendings) == 1 else pendings or None,
        "schemas": [_version_to(version) for version in journal.schemas],
    }


def _journal_from(data: dict[str, Any]) -> Journal:
    if data["version"] != _VERSION:
        raise ValueError(f"it has version {data['version']}, this program knows version {_VERSION}")
    pending = data["pending"] or []
    return Journal(
        data["serial"],
        {(pipeline, step, key): generation for pipeline, step, key, generation in data["claims"]},
        {name: _record_from(item) for name, item in data["files"].items()},
        tuple(_pending_from(item) for item in (pending if isinstance(pending, list) else [pending])),
        schemas=tuple(_version_from(item) for item in data.get("schemas", ())),  # older journals have none
    )


def _version_to(version: SchemaVersion) -> dict[str, Any]:
    return {**asdict(version), "recorded_at": version.recorded_at.isoformat()}


def _version_from(data: dict[str, Any]) -> SchemaVersion:
    columns, moment = tuple(ColumnVersion(**item) for item in data["columns"]), datetime.fromisoformat(data["recorded_at"])
    return SchemaVersion(**{**data, "columns": columns, "changes": tuple(data["changes"]), "recorded_at": moment})


def _pending_to(item: Pending) -> dict[str, Any]:
    return {**_content_to(item), "name": item.name, "temporary": item.temporary, "base": item.base, "entry": entry_to(item.entry)}


def _pending_from(data: dict[str, Any]) -> Pending:
    identity, schema = _content_from(data)
    return Pending(data["name"], identity, schema, entry_from(data["entry"]), _cut_from(data), data["temporary"], data.get("base", ""))


def _content_to(item: FileRecord | Pending) -> dict[str, Any]:
    identity = item.identity
    return {
        "size": identity.size,
        "mtime_ns": identity.mtime_ns,
        "inode": identity.inode,
        "digest": identity.digest,
        "object": identity.version,
        "schema": _schema_to(item.schema),
        "cut": item.cut and [item.cut.by, [[*key, length] for key, length in item.cut.pieces]],
    }


def _content_from(data: dict[str, Any]) -> tuple[Identity, pa.Schema]:
    identity = Identity(data["size"], data["mtime_ns"], data["inode"], data["digest"], data.get("object", ""))
    return identity, _schema_from(data["schema"])


def _cut_from(data: dict[str, Any]) -> Cut | None:
    if data["cut"] is None:
        return None
    by, pieces = data["cut"]
    return Cut(by, tuple(((pipeline, step, key), length) for pipeline, step, key, length in pieces))


@lru_cache(maxsize=64)
def _schema_to(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize()).decode()


@lru_cache(maxsize=64)
def _schema_from(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _record_to(record: FileRecord) -> dict[str, Any]:
    return {**_content_to(record), "edited": record.edited, "entries": [entry_to(entry) for entry in record.entries]}


def _record_from(data: dict[str, Any]) -> FileRecord:
    return FileRecord(*_content_from(data), tuple(entry_from(item) for item in data["entries"]), data["edited"], _cut_from(data))


def entry_to(entry: LedgerEntry) -> dict[str, Any]:
    """An entry as JSON values."""
    unit, window = entry.unit, entry.unit.window
    return {
        "target": entry.target,
        "pipeline": unit.pipeline,
        "step": unit.step,
        "key": unit.key,
        "window": window and [window.start.isoformat(), window.end.isoformat()],
        "mode": entry.mode.value,
        "generation": entry.generation,
        "attempt": entry.attempt,
        "rows": entry.rows,
        "checksum": entry.checksum,
        "schema_fingerprint": entry.schema_fingerprint,
        "published_at": entry.published_at.isoformat(),
        "metrics": entry.metrics,
        "state": entry.state,
    }


def entry_from(data: dict[str, Any]) -> LedgerEntry:
    """The entry of `entry_to`'s values."""
    window = data["window"] and Window(*map(datetime.fromisoformat, data["window"]))
    unit = Unit(data["pipeline"], data["step"], data["key"], window)
    rest = {name: data[name] for name in ("target", "generation", "attempt", "rows", "checksum", "schema_fingerprint", "metrics", "state")}
    return LedgerEntry(unit=unit, mode=WriteMode(data["mode"]), published_at=datetime.fromisoformat(data["published_at"]), **rest)
