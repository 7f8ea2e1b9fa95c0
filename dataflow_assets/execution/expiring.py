"""What has grown old: rows set aside, windows of targets, what ledgers say of those that have left.

Here: finding them, and letting go of rows of a ledger. Not here: removing windows (`execution.retention`), for how long things are kept
(`plan.retention`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.held import HeldUnit, held_units
from dataflow_assets.execution.ledgers import endpoint_entries
from dataflow_assets.execution.quarantine import DISCARDED, PUBLISHED_WITH, START, ledger_step
from dataflow_assets.execution.retention import Doomed
from dataflow_assets.execution.session import Session
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.plan.retention import horizon
from dataflow_assets.protocols import KeepsRecords
from dataflow_assets.storage.ledger import forget_retired
from dataflow_assets.tables import RESTORED, LedgerEntry, Target, Unit
from dataflow_assets.windows import Window

_MOMENT = timedelta(microseconds=1)
_AT_ONCE = 200
WHY = "older than retention keeps quarantined rows"


def old_windows(session: Session, step: StepPlan, *, now: datetime) -> list[Doomed]:
    """The published windows of an endpoint that are not kept any longer, oldest first; those brought back lately are left alone.

    Raises DataflowError where there are some, and rows of other pipelines may be among theirs.
    """
    edge = horizon(session.pipeline.retention, now=now)
    if edge is None:
        return []
    found = []
    for entry in endpoint_entries(session, step):
        window = entry.unit.window
        if window is not None and window.end <= edge and not entry.retired and not _brought_back(session, entry, now):
            found.append(Doomed(step, session.target(step, window), entry.unit, entry))
    if found and (doubts := session.pipeline.retention.doubts):
        raise DataflowError(
            f"{session.pipeline.name}.{step.id}: its {len(found)} old windows stay: nobody can tell whether {', '.join(doubts)} writes the "
            "same table, and its rows would go as well",
            hint="mend it first: `dataflow validate` shows what is wrong, or delete the file of one that is not enabled",
            kind="configuration",
        )
    return found


def _brought_back(session: Session, entry: LedgerEntry, now: datetime) -> bool:
    if not entry.restored:
        return False
    at = datetime.fromisoformat(json.loads(entry.state[RESTORED])["at"])
    return now < at + timedelta(seconds=session.pipeline.retention.restored)


def old_rows_of_ledger(session: Session, step: StepPlan, *, now: datetime) -> list[tuple[Target, LedgerEntry]]:
    """The windows that have left so long ago that the ledger need not know of them; none where it cannot let go of single rows."""
    age = session.pipeline.retention.ledger
    if age is None or horizon(session.pipeline.retention, now=now) is None or not isinstance(session.connector(step), KeepsRecords):
        return []
    entries = [entry for entry in endpoint_entries(session, step) if entry.retired]
    old = [entry for entry in entries if entry.unit.window and entry.unit.window.end <= now - timedelta(seconds=age)]
    return [(session.target(step, entry.unit.window), entry) for entry in old]


def forget(session: Session, step: StepPlan, rows: list[tuple[Target, LedgerEntry]]) -> None:
    """Take these rows out of the ledger; one that somebody has claimed since stays."""
    keeper = session.connector(step)
    assert isinstance(keeper, KeepsRecords)
    dialect = keeper.record_forms().dialect
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        keeper.write_records([forget_retired(dialect, target, entry.unit, generation=entry.generation) for target, entry in part])


def old_quarantine(session: Session, step: StepPlan, *, now: datetime) -> Iterator[Doomed]:
    """The units of an endpoint's quarantine whose rows were set aside too long ago. One whose window is not published yet stays."""
    age = session.pipeline.retention.quarantine
    if age is None:
        return
    for unit in held_units(session, step):
        if unit.rows and not unit.unfinished and unit.entry.published_at <= now - timedelta(seconds=age):
            yield _doomed(session, step, unit, now=now)


def _doomed(session: Session, step: StepPlan, unit: HeldUnit, *, now: datetime) -> Doomed:
    """The unit with the window in which its rows stand; its ledger keeps the decision, as `dataflow quarantine discard` would."""
    window = unit.window or Window(unit.start, unit.start + _MOMENT)
    own = Unit(session.pipeline.name, ledger_step(step), unit.key, window)
    note = {"at": now.isoformat(), "by": "retention", "why": WHY, "rule": None, "rows": unit.rows}
    kept = {name: unit.entry.state[name] for name in (PUBLISHED_WITH, START) if name in unit.entry.state}
    return Doomed(step, unit.aside, own, unit.entry, {**kept, DISCARDED: json.dumps([*unit.discarded, note])})
