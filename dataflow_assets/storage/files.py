"""Publishing into files: a new file made aside, then one step that puts it into place and commits rows and ledger together.

Here: the protocol that every file format shares: claim, fence, merge, commit, sweep. Not here: the journal (`file_ledger`), local
folders and object stores (`places`), which rows stay (`file_rows`), how bytes of a format are read and written (the connectors).
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache, partial

import pyarrow as pa

from dataflow_assets.error_kinds import kind_of
from dataflow_assets.errors import DataflowError, Fenced, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import file_rows
from dataflow_assets.storage.feed import require_replaced
from dataflow_assets.storage.file_ledger import (
    FileRecord,
    Journal,
    Pending,
    Site,
    key_of,
    load,
    save,
    state_lock,
    writer_lock,
)
from dataflow_assets.storage.file_writing import Counts, Format, Slot, schema_for, write_file
from dataflow_assets.storage.objects import Changed
from dataflow_assets.storage.places import FilePath, NewFile, is_filled, mark_of
from dataflow_assets.tables import Claim, LedgerEntry, Published, PublishRequest, Unit, WriteMode, schema_fingerprint, utc_now

_TRIES = 20
_NOTES = 3


def known(site: Site, format: Format) -> Journal:
    """The journal, with files in the site that only their own footers know of."""
    journal = load(site)
    paths = [site.place.path(site.name)] if site.name else data_files(site, format.suffix)
    found = {path.name: format.recover(path) for path in paths if path.name not in journal.files and is_filled(path)}
    return replace(journal, files={**journal.files, **{name: record for name, record in found.items() if record}})


def data_files(site: Site, suffix: str) -> list[FilePath]:
    """The data files of a folder, by name; what begins with `.` or `_` is none."""
    return [site.place.path(name) for name in site.place.names() if name.endswith(suffix) and name[0] not in "._"]


def claim(site: Site, unit: Unit, *, attempt: str, format: Format) -> Claim:
    """Take the next generation of `unit`, durably."""
    with _as_write_failed(site):
        site.place.make()
        for tried in range(_TRIES):
            with suppress(Changed), state_lock(site):
                journal = known(site, format)
                found = journal.find(unit)
                generation = max(journal.newest(unit), found.generation if found else 0) + 1
                save(site, replace(journal, claims={**journal.claims, key_of(unit): generation}))
                return Claim(unit, generation, attempt, found)
            _step_back(tried)
    raise _busy(site, f"{unit} was claimed")


def publish(site: Site, request: PublishRequest, format: Format, *, declared: pa.Schema | None = None) -> Published:
    """Make the staged rows visible. `declared`: the column types that the user wants in a new file.

    Raises Fenced, WriteFailed or ValueRefused with the file as it was.
    """
    failpoint("publish.begin")
    # rows that are still being staged would keep others waiting; whoever is first commits
    with _as_write_failed(site), nullcontext(False) if request.known_rows is None else writer_lock(site) as alone:
        if alone:
            site.place.sweep(site.prefix)
        for tried in range(_TRIES):
            request.require_wanted()
            journal = known(site, format)
            if done := _already(request, journal):
                return done
            _fence(request, journal)
            slot = _slot(site, request, journal, format)
            if published := _attempt(site, request, format, journal, slot, declared):
                return published
            _step_back(tried)
    raise _busy(site, f"{request.claim.unit} was published")


def _step_back(tried: int) -> None:
    """Wait a moment, so that of many who change one journal somebody gets on."""
    time.sleep(random.uniform(0, 0.02 * (tried + 1)))


def _busy(site: Site, meanwhile: str) -> WriteFailed:
    return WriteFailed(f"{site} kept changing while {meanwhile}", hint="run it again", transient=True)


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


def _slot(site: Site, request: PublishRequest, journal: Journal, format: Format) -> Slot:
    name = site.name or _name_in_folder(site, request, journal, format)
    path, record = site.place.path(name), journal.files.get(name)
    # record and mark are of one moment: what arrived since the journal was settled fails the commit
    mark = record.identity.mark if record and not record.edited else mark_of(path)
    path = site.place.path(name, mark=mark)
    if mark is None and not request.target.options.auto_create:
        raise WriteFailed(f"{path} does not exist, and auto_create is off", hint="create it, or set auto_create: true")
    exists = mark is not None and (mark[0] > 0 or record is not None)
    return Slot(path, record, mark, exists=exists, merges=exists and not _covers(request, record), columns=columns_of(journal))


def columns_of(journal: Journal) -> pa.Schema | None:
    """The columns of a target as they were published, None when nothing was."""
    return file_rows.combined(record.schema for record in journal.files.values())


def rows_of(format: Format, path: FilePath, journal: Journal, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a file with the columns of its target: null where the file is older than a column."""
    record = journal.files.get(path.name)
    own = record.schema if record and not record.edited else schema  # of what others changed nothing is supposed
    reading = pa.schema([schema.field(name) for name in own.names])
    for batch in format.rows(path, reading):
        yield batch if batch.schema.equals(schema) else file_rows.conform(batch, schema)


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
    present = {path.name for path in data_files(site, format.suffix)}
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
    site: Site, request: PublishRequest, format: Format, journal: Journal, slot: Slot, declared: pa.Schema | None
) -> Published | None:
    """Write the new file and commit it; None when the site changed meanwhile."""
    entry = cache(partial(_entry, request))
    others = _others(slot.record, request.claim.unit)
    schema, agreement = schema_for(request, format, slot, declared=declared)
    with site.place.new_file(site.prefix) as new:
        counts = write_file(new.file, request, format, slot, schema, lambda: [*others, entry()])
        identity = site.place.seal(new)
        require_replaced(_deleted(request, slot, counts), request)
        if counts.staged != request.rows:
            found = f"{counts.staged} rows instead of {request.rows}"
            raise WriteFailed(f"the stage of {request.claim.unit} holds {found}", hint="run it again")
        base = str(slot.mark[1]) if slot.mark else ""
        pending = Pending(slot.path.name, identity, schema, entry(), counts.cut, new.name, base)
        if not _commit(site, request, journal, slot, pending, new):
            return None
    edited = slot.merges and slot.record is not None and slot.record.edited
    note = f"{slot.path} was changed by somebody else since it was published; those rows stay" if edited else ""
    deleted, rows = (None, None) if counts.copied else (counts.deleted, counts.kept + counts.written)
    return agreement.reported(Published(request.rows, request.claim.generation, deleted=deleted, target_rows=rows, note=note))


def _deleted(request: PublishRequest, slot: Slot, counts: Counts) -> int:
    """How many rows leave the file; of one that nobody else has changed, and that was not looked at, its ledger knows."""
    if slot.merges and not counts.copied:
        return counts.deleted
    entries = slot.record.entries if slot.record is not None and slot.exists else ()
    return sum(entry.rows for entry in entries if key_of(entry.unit) == key_of(request.claim.unit))


def _others(record: FileRecord | None, unit: Unit) -> list[LedgerEntry]:
    return [item for item in (record.entries if record else ()) if key_of(item.unit) != key_of(unit)]


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
        published_at=request.published_at or utc_now(),
        metrics=dict(request.metrics),
        state=dict(request.state),
    )


def _commit(site: Site, request: PublishRequest, base: Journal, slot: Slot, pending: Pending, new: NewFile) -> bool:
    """Put the new file into place; False when what it was made from is no longer there."""
    with state_lock(site):
        journal = load(site)
        _fence(request, journal)
        if journal.serial != base.serial or mark_of(slot.path) != slot.mark:
            return False
        files = {**base.files, **journal.files}
        try:
            save(site, replace(journal, serial=journal.serial + 1, files=files, pendings=(*journal.pendings, pending)))
            failpoint("publish.before_commit")
            site.place.publish(new, slot.path.name, expected=slot.mark)
        except Changed:
            return False
    failpoint("publish.after_commit")
    if site.place.commits_late:
        _note(site)
    return True


def _note(site: Site) -> None:
    """Write down that the commit has arrived, before a stranger's write could hide it; without this, whoever comes next finds out."""
    for _ in range(_NOTES):
        with suppress(Changed):
            with suppress(DataflowError):
                save(site, load(site))
            return


@contextmanager
def _as_write_failed(site: Site) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        hint = "see that the folder can be written to, has room, and that the stage is whole"
        raise WriteFailed(f"{site}: {error}", hint=hint, kind=kind_of(error)) from error
