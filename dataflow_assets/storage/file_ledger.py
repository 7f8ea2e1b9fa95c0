"""The ledger of files: a journal beside the data that says which windows the bytes on disk hold.

Here: the journal's data, its file, its locks, and the decision which state a file is in. The journal is written before a data
file is renamed into place and describes it both as it was and as it will be; the file itself tells which is true. So data and
ledger commit in one rename. Not here: how the new bytes are made (`files`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow_assets.errors import WriteFailed
from dataflow_assets.tables import LedgerEntry, Unit, WriteMode
from dataflow_assets.windows import Window

Key = tuple[str, str, str]
_VERSION = 1
_BLOCK, _BLOCKS = 64 * 1024, 64
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Site:
    """Where a target lives: one file, or a folder of files. `prefix` begins the names of journal and lock."""

    folder: Path
    name: str | None

    @classmethod
    def of(cls, path: Path, *, is_folder: bool) -> Site:
        """The site of a path."""
        return cls(path, None) if is_folder else cls(path.parent, path.name)

    @property
    def prefix(self) -> str:
        """What the names of the site's hidden files begin with."""
        return f".{self.name}" if self.name else ""

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / f"{self.prefix}.dataflow.json"

    def __str__(self) -> str:
        return str(self.folder / self.name if self.name else self.folder)


@dataclass(frozen=True)
class Identity:
    """What tells one content of a file from another: cheap marks first, then a digest of size and evenly spaced blocks."""

    size: int
    mtime_ns: int
    inode: int
    digest: str

    @classmethod
    def of(cls, path: Path) -> Identity:
        """The identity of the file at `path`."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(str(status.st_size).encode())
            step = max(status.st_size - _BLOCK, 0) / (_BLOCKS - 1)
            for start in sorted({int(step * number) for number in range(_BLOCKS)}):
                file.seek(start)
                digest.update(file.read(_BLOCK))
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, digest.hexdigest())

    def looks_like(self, status: os.stat_result) -> bool:
        """Whether a file with this status is the same without looking inside."""
        return (self.size, self.mtime_ns, self.inode) == (status.st_size, status.st_mtime_ns, status.st_ino)


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

    def after(self, record: FileRecord | None) -> FileRecord:
        """The record that replaces `record`."""
        kept = tuple(entry for entry in (record.entries if record else ()) if key_of(entry.unit) != key_of(self.entry.unit))
        return FileRecord(self.identity, self.schema, (*kept, self.entry), cut=self.cut)


@dataclass(frozen=True)
class Journal:
    """All that is known of a site. `serial` counts the commits."""

    serial: int = 0
    claims: dict[Key, int] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    pending: Pending | None = None

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
    return _settled(site, _parsed(site.journal))


_known: dict[Path, tuple[tuple[int, int, int], Journal]] = {}


def _parsed(path: Path) -> Journal:
    """The journal as written, parsed once for each state of its file."""
    try:
        status = path.stat()
        mark = (status.st_mtime_ns, status.st_ino, status.st_size)
        if (found := _known.get(path)) and found[0] == mark:
            return found[1]
        journal = _journal_from(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return Journal()
    except (ValueError, KeyError, TypeError) as error:
        raise WriteFailed(
            f"the ledger {path} cannot be read: {error}",
            hint=f"restore it, or delete {path.name} and the data beside it to publish everything anew",
        ) from error
    _known[path] = (mark, journal)
    return journal


def _settled(site: Site, journal: Journal) -> Journal:
    files = {}
    pending = journal.pending
    for name in {*journal.files, *([pending.name] if pending else [])}:
        found = _state(site.folder, name, journal.files.get(name), pending if pending and pending.name == name else None)
        if found is not None:
            files[name] = found
    return replace(journal, files=files, pending=None)


def _state(folder: Path, name: str, record: FileRecord | None, pending: Pending | None) -> FileRecord | None:
    """What the file holds: None when it is gone, or empty though it was not."""
    path = folder / name
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if pending and pending.identity.looks_like(status):
        return pending.after(record)
    if record and record.identity.looks_like(status):
        return replace(record, edited=False)
    identity = Identity.of(path)
    if pending and identity.digest == pending.identity.digest:
        return replace(pending.after(record), identity=identity)
    if record and identity.digest == record.identity.digest:
        return replace(record, identity=identity, edited=False)
    if pending and not (folder / pending.temporary).exists():
        record = pending.after(record)
    return replace(record, edited=True, cut=None) if record and status.st_size else None


def save(site: Site, journal: Journal) -> None:
    """Write the journal durably, by rename; called with the state lock held."""
    text = json.dumps(_journal_to(journal), ensure_ascii=False)
    temporary = site.journal.with_name(f"{site.journal.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        status = os.fstat(file.fileno())
    temporary.replace(site.journal)
    _known[site.journal] = ((status.st_mtime_ns, status.st_ino, status.st_size), journal)


@contextmanager
def state_lock(site: Site) -> Iterator[None]:
    """Hold the right to change the journal and rename data; short. Raises WriteFailed when somebody keeps it for a minute."""
    with _lock(site, "state", seconds=_LOCK_SECONDS) as held:
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
    with _lock(site, "writer", seconds=seconds) as held:
        yield held


@contextmanager
def _lock(site: Site, which: str, *, seconds: float) -> Iterator[bool]:
    import fcntl

    handle = os.open(site.folder / f"{site.prefix}.dataflow.{which}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        limit, pause, held = time.monotonic() + seconds, 0.001, False
        while not held:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                if time.monotonic() > limit:
                    break
                time.sleep(pause)
                pause = min(pause * 1.5, 0.05)
        yield held
    finally:
        os.close(handle)


def _journal_to(journal: Journal) -> dict[str, Any]:
    pending = journal.pending
    return {
        "version": _VERSION,
        "serial": journal.serial,
        "claims": [[*key, generation] for key, generation in journal.claims.items()],
        "files": {name: _record_to(record) for name, record in journal.files.items()},
        "pending": pending
        and {**_content_to(pending), "name": pending.name, "temporary": pending.temporary, "entry": entry_to(pending.entry)},
    }


def _journal_from(data: dict[str, Any]) -> Journal:
    if data["version"] != _VERSION:
        raise ValueError(f"it has version {data['version']}, this program knows version {_VERSION}")
    pending = data["pending"]
    return Journal(
        data["serial"],
        {(pipeline, step, key): generation for pipeline, step, key, generation in data["claims"]},
        {name: _record_from(item) for name, item in data["files"].items()},
        pending
        and Pending(pending["name"], *_content_from(pending), entry_from(pending["entry"]), _cut_from(pending), pending["temporary"]),
    )


def _content_to(item: FileRecord | Pending) -> dict[str, Any]:
    identity = item.identity
    return {
        "size": identity.size,
        "mtime_ns": identity.mtime_ns,
        "inode": identity.inode,
        "digest": identity.digest,
        "schema": _schema_to(item.schema),
        "cut": item.cut and [item.cut.by, [[*key, length] for key, length in item.cut.pieces]],
    }


def _content_from(data: dict[str, Any]) -> tuple[Identity, pa.Schema]:
    return Identity(data["size"], data["mtime_ns"], data["inode"], data["digest"]), _schema_from(data["schema"])


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
