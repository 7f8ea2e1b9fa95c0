"""A window comes back from the archive into its target, as it was.

Here: reading it there, verifying it against what was written down when it left, one publish. The archive keeps its copy. Not here: how it
got there (`execution.retention`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from dataflow_assets.errors import AuditFailed, SelectionError
from dataflow_assets.execution.archives import Archive, Kept, kept_by
from dataflow_assets.execution.quarantine import stage_of_rows
from dataflow_assets.execution.retention import RETURNING, folder_for
from dataflow_assets.execution.session import Session
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.storage.stages import checksum_of
from dataflow_assets.tables import RESTORED, RETIRED, LedgerEntry, PublishRequest, Target, Unit, WindowFilter, WriteMode
from dataflow_assets.windows import Window


@dataclass(frozen=True)
class Restored:
    """A window that is back. `already`: its rows were in the target, and nothing was done."""

    rows: int
    archive: str
    already: bool = False


def restore(session: Session, step: StepPlan, window: Window, archive: Archive) -> Restored:
    """Bring a retired window of an endpoint back, for as long as `retention.restored` says.

    Raises SelectionError when the archive does not hold it, AuditFailed when it does not hold what left the target, or the target does not
    take it unchanged.
    """
    assert session.pipeline.windows is not None
    key = session.pipeline.windows.cadence.key(window)
    name, unit = f"{session.pipeline.name}.{step.id}", Unit(session.pipeline.name, step.id, key, window)
    target = replace(session.target(step, window), mode=WriteMode.REPLACE_WINDOW)
    entry = next((item for item in session.ledger(step, window=window) if item.unit.key == key), None)
    if entry is not None and not entry.retired:
        return Restored(entry.rows, str(archive), already=True)
    kept = _archived(archive, name, key, entry)
    connector = session.connector(step)
    claim = connector.claim(target, unit, attempt=entry.attempt if entry else session.request.attempt)
    if claim.published is not None and not claim.published.retired:
        return Restored(claim.published.rows, str(archive), already=True)
    with folder_for(session, unit, RETURNING) as attempt, archive.read(archive.unit(unit), kept.columns) as reader:
        stage = stage_of_rows(attempt.stage_folder("rows"), [reader], schema=reader.schema)
        if stage.receipt.checksum != kept.checksum:
            raise AuditFailed(
                f"{name} {key}: the archive {archive} should hold rows:checksum {kept.checksum}, and holds {stage.receipt.checksum}",
                hint="nothing was changed; see who else wrote there",
            )
        failpoint("retention.read_back")
        state = {item: value for item, value in (entry.state if entry else {}).items() if item != RETIRED}
        state[RESTORED] = json.dumps({"at": session.request.now.isoformat(), "archive": str(archive)})
        rows = (stage.schema, stage.receipt.rows, stage.receipt.checksum, stage.open_reader, stage.paths)
        metrics = entry.metrics if entry else {}
        connector.publish(PublishRequest(target, claim, *rows, metrics, state, published_at=kept.since, replaces=0))
    _verify(session, step, target, window, kept)
    return Restored(kept.rows, str(archive))


def _archived(archive: Archive, name: str, key: str, entry: LedgerEntry | None) -> Kept:
    """What the archive holds of a window. Raises SelectionError, AuditFailed when that is not what left."""
    found = archive.entries().get(key)
    if found is None:
        raise SelectionError(f"{name}: the archive {archive} holds no window {key!r}", hint="`dataflow retention list` shows what it holds")
    kept = kept_by(found)
    said = json.loads(entry.state[RETIRED]) if entry else {"rows": kept.rows, "checksum": kept.checksum}
    if (said["rows"], said["checksum"]) != (kept.rows, kept.checksum):
        raise AuditFailed(
            f"{name} {key}: {said['rows']:,} rows left the target, and the archive {archive} holds {kept.rows:,} others",
            hint="an earlier window may have been archived over it; nothing was changed",
        )
    return kept


def _verify(session: Session, step: StepPlan, target: Target, window: Window, kept: Kept) -> None:
    assert target.window_column is not None
    with session.connector(step).read_target(target, WindowFilter(target.window_column, window, target.timezone)) as reader:
        found = str(checksum_of(batch.select(list(kept.columns)) for batch in reader))
    if found != kept.checksum:
        raise AuditFailed(f"{target.table} {window}: rows:checksum {kept.checksum} were brought back, the target has {found}")
