"""Windows that have grown old leave their target: into the archive, verified, then out, with the ledger saying so.

Here: the life of one such window: claim, read, archive, verify, take out. Not here: which windows are old (`execution.expiring`), bringing
one back (`execution.restoring`), the job (`operations.retention`).

The claim comes first, so whoever published or still publishes the window is fenced off, and what is read is what is taken out: the rows
are counted again inside the transaction that deletes them, and any other number undoes it. A death before that leaves the rows where they
are, and a death after it leaves them in the archive; the next time finishes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import pyarrow as pa

from dataflow_assets.errors import AuditFailed, DataflowError
from dataflow_assets.execution.archives import Archive
from dataflow_assets.execution.attempts import Attempt, AttemptRecord, sweep_dead, unit_folder
from dataflow_assets.execution.quarantine import stage_of_rows
from dataflow_assets.execution.session import Session
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.protocols import Retires
from dataflow_assets.storage.stages import Stage, checksum_of
from dataflow_assets.tables import (
    RESTORED,
    RETIRED,
    Claim,
    LedgerEntry,
    PublishRequest,
    Target,
    Unit,
    WindowFilter,
    WriteMode,
)

LEAVING, RETURNING = "retention", "restore"
"""What the folders are called in which a window on its way is staged."""


@dataclass(frozen=True)
class Doomed:
    """One window of an endpoint, or of its quarantine, that is to leave. `unit` has the window in which its rows stand in time."""

    step: StepPlan
    target: Target
    unit: Unit
    entry: LedgerEntry
    state: Mapping[str, str] = field(default_factory=dict)
    """What the ledger is to say of it beside what it says."""

    @property
    def filter(self) -> WindowFilter:
        """Which rows of the target they are."""
        assert self.unit.window is not None
        assert self.target.window_column is not None
        return WindowFilter(self.target.window_column, self.unit.window, self.target.timezone)


@dataclass(frozen=True)
class Retired:
    """A window that has left. `archive`: where its rows are now; empty when nowhere. `note`: what was unusual."""

    rows: int
    bytes: int
    archive: str = ""
    note: str = ""


def retire(session: Session, doomed: Doomed, archive: Archive | None) -> Retired | None:
    """Move a window into the archive (None: nowhere) and take it out of its target; None when that has been done, or undone, meanwhile.

    Raises AuditFailed when the archive does not hold what the target held, or rows came in between; then nothing is taken out.
    """
    connector = session.connector(doomed.step)
    if not isinstance(connector, Retires):
        raise DataflowError(f"{doomed.target.table}: {connector.kind} cannot take the rows of a window out of a target")
    target = replace(doomed.target, mode=WriteMode.REPLACE_WINDOW)
    # the name of the attempt that published stays in the ledger: its quarantine is known by it
    claim = connector.claim(target, doomed.unit, attempt=doomed.entry.attempt)
    if claim.published is None or claim.published.retired or claim.published.published_at != doomed.entry.published_at:
        return None
    failpoint("retention.claimed")
    with folder_for(session, doomed.unit, LEAVING) as attempt:
        stage = _read(session, doomed, attempt)
        kept = archive.keep(doomed, claim.published, stage) if archive is not None else None
        failpoint("retention.archived")
        if archive is not None:
            _require_unchanged(session, doomed, stage)
        rows = kept.rows if kept else stage.receipt.rows
        said = {"at": session.request.now.isoformat(), "rows": rows, "checksum": kept.checksum if kept else stage.receipt.checksum}
        said |= {"generation": claim.published.generation, "archive": str(archive) if archive is not None else None}
        request = _emptied(doomed, target, claim, stage, {RETIRED: json.dumps(said)})
        connector.retire(request, rows=stage.receipt.rows)
        failpoint("retention.retired")
    note = _differs(claim.published, rows)
    return Retired(rows, stage.receipt.bytes, str(archive) if archive is not None else "", note)


def _read(session: Session, doomed: Doomed, attempt: Attempt) -> Stage:
    with session.connector(doomed.step).read_target(doomed.target, doomed.filter) as reader:
        return stage_of_rows(attempt.stage_folder("rows"), [reader], schema=reader.schema)


def _require_unchanged(session: Session, doomed: Doomed, stage: Stage) -> None:
    """The target is read once more after its copy is safe: what somebody changed meanwhile is not in the copy."""
    with session.connector(doomed.step).read_target(doomed.target, doomed.filter) as reader:
        now = str(checksum_of(reader))
    if now != stage.receipt.checksum:
        raise AuditFailed(
            f"{doomed.target.table} {doomed.unit}: its rows changed while they were archived; they stay",
            hint="see who else writes into the table; the next time archives what is there then",
        )


def _emptied(doomed: Doomed, target: Target, claim: Claim, stage: Stage, said: Mapping[str, str]) -> PublishRequest:
    """A publish of no rows in place of those that are there."""
    state = {name: value for name, value in doomed.entry.state.items() if name != RESTORED}
    return PublishRequest(
        target=target,
        claim=replace(claim, unit=doomed.unit),
        schema=stage.schema,
        rows=0,
        checksum=str(checksum_of([])),
        open_reader=lambda: pa.RecordBatchReader.from_batches(stage.schema, []),
        metrics=doomed.entry.metrics,
        published_at=doomed.entry.published_at,
        state={**state, **doomed.state, **said},
    )


def _differs(entry: LedgerEntry, rows: int) -> str:
    """What to say when the target held other rows than were published: somebody changed them since."""
    return f"{entry.rows:,} rows were published, and {rows:,} were there" if rows != entry.rows else ""


def sweep_killed(session: Session) -> None:
    """Remove the folders of processes that were killed while a window left its target, or came back."""
    root = unit_folder(session.project.stages_dir, session.pipeline.name, "any").parent
    for what in (LEAVING, RETURNING):
        for unit in root.glob(f"*.{what}"):
            sweep_dead(unit)
            with suppress(OSError):
                unit.rmdir()


@contextmanager
def folder_for(session: Session, unit: Unit, what: str) -> Iterator[Attempt]:
    """A folder of one's own among the stages, swept at the end; no window has its key, so none counts as failed because of it."""
    name, key = session.request.attempt, f"{unit.key}.{what}"
    attempt = Attempt(unit_folder(session.project.stages_dir, session.pipeline.name, key) / name, AttemptRecord(name, name, key))
    try:
        yield attempt
    finally:
        attempt.succeed()
