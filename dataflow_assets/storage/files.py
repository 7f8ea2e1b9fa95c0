"""Publishing into files: a new file beside the old one, then one rename that commits rows and ledger together.

Here: the protocol that every file format shares: claim, fence, merge, commit, sweep. Not here: the journal (`file_ledger`),
which rows stay (`file_rows`), how bytes of a format are read and written (the connectors).
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from dataflow_assets.errors import Fenced, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import file_rows
from dataflow_assets.storage.file_ledger import (
    FileRecord,
    Identity,
    Journal,
    Pending,
    Site,
    key_of,
    load,
    save,
    state_lock,
    writer_lock,
)
from dataflow_assets.storage.file_writing import Format, Place, mark_of, schema_for, write_file
from dataflow_assets.tables import Claim, LedgerEntry, Published, PublishRequest, Unit, WriteMode, schema_fingerprint, utc_now

_TRIES = 20


def known(site: Site, format: Format) -> Journal:
    """The journal, with files in the site that only their own footers know of."""
    journal = load(site)
    paths = [site.folder / site.name] if site.name else data_files(site.folder, format.suffix)
    found = {path.name: format.recover(path) for path in paths if path.name not in journal.files and path.is_file() and path.stat().st_size}
    return replace(journal, files={**journal.files, **{name: record for name, record in found.items() if record}})


def data_files(folder: Path, suffix: str) -> list[Path]:
    """The data files of a folder, by name; what begins with `.` or `_` is none."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a folder may hold thousands, and names sort faster than paths
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names if name.endswith(suffix) and name[0] not in "._"]


def claim(site: Site, unit: Unit, *, attempt: str, format: Format) -> Claim:
    """Take the next generation of `unit`, durably."""
    with _as_write_failed(site):
        site.folder.mkdir(parents=True, exist_ok=True)
        with state_lock(site):
            journal = known(site, format)
            found = journal.find(unit)
            generation = max(journal.newest(unit), found.generation if found else 0) + 1
            save(site, replace(journal, claims={**journal.claims, key_of(unit): generation}))
    return Claim(unit, generation, attempt, found)


def publish(site: Site, request: PublishRequest, format: Format, *, declared: pa.Schema | None = None) -> Published:
    """Make the staged rows visible. `declared`: the column types that the user wants in a new file.

    Raises Fenced, WriteFailed or ValueRefused with the file as it was.
    """
    failpoint("publish.begin")
    with _as_write_failed(site), writer_lock(site) as alone:
        if alone:
            _sweep(site)
        for _ in range(_TRIES):
            journal = known(site, format)
            if done := _already(request, journal):
                return done
            _fence(request, journal)
            place = _place(site, request, journal, format)
            if published := _attempt(site, request, format, journal, place, declared):
                return published
    raise WriteFailed(f"{site} kept changing while {request.claim.unit} was published", hint="run it again", transient=True)


def _already(request: PublishRequest, journal: Journal) -> Published | None:
    found = journal.find(request.claim.unit)
    if found is None:
        return None
    same = (found.generation, found.attempt) == (request.claim.generation, request.claim.attempt)
    if not same and request.target.mode is not WriteMode.APPEND:
        return None
    _fence(request, journal)
    note = (
        "" if found.checksum == request.checksum else f"the rows differ from those appended at {found.published_at.isoformat()}, which stay"
    )
    return Published(found.rows, found.generation, already=True, note=note)


def _fence(request: PublishRequest, journal: Journal) -> None:
    newest = journal.newest(request.claim.unit)
    if newest > request.claim.generation:
        target, unit = str(request.target.table), str(request.claim.unit)
        raise Fenced(target=target, unit=unit, generation=request.claim.generation, newest=newest)


def _place(site: Site, request: PublishRequest, journal: Journal, format: Format) -> Place:
    name = site.name or _name_in_folder(site, request, journal, format)
    path, record = site.folder / name, journal.files.get(name)
    mark = mark_of(path)
    if mark is None and not request.target.options.auto_create:
        raise WriteFailed(f"{path} does not exist, and auto_create is off", hint="create it, or set auto_create: true")
    exists = mark is not None and (mark[0] > 0 or record is not None)
    return Place(path, record, mark, exists=exists, merges=exists and not _covers(request, record), columns=columns_of(journal))


def columns_of(journal: Journal) -> pa.Schema | None:
    """The columns of a target as they were published, None when nothing was."""
    return file_rows.combined(record.schema for record in journal.files.values())


def _covers(request: PublishRequest, record: FileRecord | None) -> bool:
    """Whether the unit replaces all that the file holds."""
    unit = request.claim.unit
    if request.target.mode is WriteMode.REPLACE:
        return True
    if request.target.mode is not WriteMode.REPLACE_WINDOW or record is None or record.edited or not record.entries or not unit.window:
        return False
    windows = [entry.unit.window for entry in record.entries]
    return all(window and unit.window.start <= window.start and window.end <= unit.window.end for window in windows)


def _name_in_folder(site: Site, request: PublishRequest, journal: Journal, format: Format) -> str:
    """One file per window or batch, or one in all, so that each publish is one rename."""
    unit, mode = request.claim.unit, request.target.mode
    present = {path.name for path in data_files(site.folder, format.suffix)}
    if mode in {WriteMode.REPLACE, WriteMode.UPSERT}:
        name = f"data{format.suffix}"
        _refuse_others(site, present - {name}, f"mode {mode} keeps one file, {name}, in a folder")
        return name
    if unit.window is None or mode is WriteMode.APPEND:
        digest = hashlib.sha256("\0".join(key_of(unit)).encode()).hexdigest()[:12]
        return f"{re.sub(r'[^A-Za-z0-9_+-]+', '-', unit.key)[:80]}-{digest}{format.suffix}"
    _refuse_others(site, present - set(journal.files), "mode replace_window keeps files of its own in a folder")
    overlapping = [
        name
        for name, record in journal.files.items()
        if any(e.unit.window is None or e.unit.window.overlaps(unit.window) for e in record.entries)
    ]
    if len(overlapping) > 1:
        raise WriteFailed(
            f"{site}: window {unit.window} spans {len(overlapping)} files of shorter windows, which no single rename can replace",
            hint="write longer windows into a new folder",
        )
    return overlapping[0] if overlapping else f"{unit.window.start:%Y%m%dT%H%M%SZ}-{unit.window.end:%Y%m%dT%H%M%SZ}{format.suffix}"


def _refuse_others(site: Site, others: set[str], rule: str) -> None:
    if others:
        shown = ", ".join(sorted(others)[:3]) + (" ..." if len(others) > 3 else "")
        raise WriteFailed(f"{site}: {rule}, but there are others: {shown}", hint="move them away, or write into a folder of its own")


def _attempt(
    site: Site, request: PublishRequest, format: Format, journal: Journal, place: Place, declared: pa.Schema | None
) -> Published | None:
    """Write the new file and commit it; None when the site changed meanwhile."""
    entry = _entry(request)
    schema = schema_for(request, format, place, declared=declared)
    temporary = site.folder / f"{site.prefix}.dataflow.data-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("w+b") as file:
            counts = write_file(file, request, format, place, schema, [*_others(place.record, entry), entry])
            file.flush()
            os.fsync(file.fileno())
        if counts.staged != request.rows:
            raise WriteFailed(f"the stage of {entry.unit} holds {counts.staged} rows instead of {request.rows}", hint="run it again")
        if not _commit(
            site,
            request,
            journal,
            place,
            Pending(place.path.name, Identity.of(temporary), schema, entry, counts.cut, temporary.name),
            temporary,
        ):
            return None
    finally:
        temporary.unlink(missing_ok=True)
    edited = place.merges and place.record is not None and place.record.edited
    note = f"{place.path} was changed by somebody else since it was published; those rows stay" if edited else ""
    deleted, rows = (None, None) if counts.copied else (counts.deleted, counts.kept + counts.written)
    return Published(request.rows, request.claim.generation, deleted=deleted, target_rows=rows, note=note)


def _others(record: FileRecord | None, entry: LedgerEntry) -> list[LedgerEntry]:
    return [item for item in (record.entries if record else ()) if key_of(item.unit) != key_of(entry.unit)]


def _entry(request: PublishRequest) -> LedgerEntry:
    target, claim = request.target, request.claim
    return LedgerEntry(
        target=str(target.table),
        unit=claim.unit,
        mode=target.mode,
        generation=claim.generation,
        attempt=claim.attempt,
        rows=request.rows,
        checksum=request.checksum,
        schema_fingerprint=schema_fingerprint(request.schema),
        published_at=utc_now(),
        metrics=dict(request.metrics),
        state=dict(request.state),
    )


def _commit(site: Site, request: PublishRequest, base: Journal, place: Place, pending: Pending, temporary: Path) -> bool:
    """Rename the new file into place; False when what it was made from is no longer there."""
    with state_lock(site):
        journal = load(site)
        _fence(request, journal)
        if journal.serial != base.serial or mark_of(place.path) != place.mark:
            return False
        files = {**base.files, **journal.files}
        save(site, replace(journal, serial=journal.serial + 1, files=files, pending=pending))
        failpoint("publish.before_commit")
        temporary.replace(place.path)
        _sync_folder(site.folder)
    failpoint("publish.after_commit")
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(site: Site) -> None:
    """Remove what killed writers left; called while no other one is at work."""
    for path in site.folder.glob(f"{glob.escape(site.prefix)}.dataflow.data-*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def _as_write_failed(site: Site) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise WriteFailed(
            f"{site}: {error}", hint="see that the folder can be written to, has room, and that the stage is whole"
        ) from error
