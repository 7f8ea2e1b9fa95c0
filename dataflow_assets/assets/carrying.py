"""Moving a Dagster instance from one storage to another: what is carried over.

Here: states and cursors of schedules and sensors, values that several hosts share, limits of pools, and runs with their events.
Not here: the switch (`assets.instance_settings`). What is published lies in the ledgers of the targets, and needs no move.

Not carried: ticks of the past, backfills, and events that belong to no run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True)
class Carried:
    """How many of each were copied; what the new storage had already is left as it is."""

    automations: int = 0
    values: int = 0
    pools: int = 0
    runs: int = 0


def carry(old: dg.DagsterInstance, new: dg.DagsterInstance, *, history: bool) -> Carried:
    """Copy what the new storage does not have; with `history` also the runs that have ended, with their events. May be repeated."""
    return Carried(_automations(old, new), _values(old, new), _pools(old, new), _runs(old, new) if history else 0)


def _automations(old: dg.DagsterInstance, new: dg.DagsterInstance) -> int:
    copied = 0
    for state in old.all_instigator_state():
        if new.get_instigator_state(state.instigator_origin_id, state.selector_id) is None:
            new.add_instigator_state(state)
            copied += 1
    return copied


def _values(old: dg.DagsterInstance, new: dg.DagsterInstance) -> int:
    import sqlalchemy as sa
    from dagster._core.storage.runs import SqlRunStorage
    from dagster._core.storage.runs.schema import KeyValueStoreTable

    if not isinstance(old.run_storage, SqlRunStorage):
        return 0
    with old.run_storage.connect() as connection:
        rows = connection.execute(sa.select(KeyValueStoreTable.c.key, KeyValueStoreTable.c.value)).fetchall()
    found = {str(row[0]): str(row[1]) for row in rows}
    known = new.run_storage.get_cursor_values(set(found))
    missing = {key: value for key, value in found.items() if key not in known}
    if missing:
        new.run_storage.set_cursor_values(missing)
    return len(missing)


def _pools(old: dg.DagsterInstance, new: dg.DagsterInstance) -> int:
    known = {pool.name for pool in new.event_log_storage.get_pool_limits() if not pool.from_default}
    limits = [pool for pool in old.event_log_storage.get_pool_limits() if not pool.from_default and pool.name not in known]
    for pool in limits:
        new.event_log_storage.set_concurrency_slots(pool.name, pool.limit)
    return len(limits)


def _runs(old: dg.DagsterInstance, new: dg.DagsterInstance) -> int:
    records = sorted(old.get_run_records(), key=lambda record: record.storage_id)
    missing = [record for record in records if record.dagster_run.is_finished and not new.has_run(record.dagster_run.run_id)]
    for record in missing:
        _snapshots(old, new, record.dagster_run)
        new.run_storage.add_historical_run(record.dagster_run, record.create_timestamp)
        for entry in old.all_logs(record.dagster_run.run_id):
            new.event_log_storage.store_event(entry)
            if entry.dagster_event is not None and entry.dagster_event.is_job_event:
                new.run_storage.handle_run_event(entry.run_id, entry.dagster_event, datetime.fromtimestamp(entry.timestamp, UTC))
    return len(missing)


def _snapshots(old: dg.DagsterInstance, new: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    if (job := run.job_snapshot_id) and not new.has_job_snapshot(job):
        snapshot = old.get_job_snapshot(job)
        parent = snapshot.lineage_snapshot.parent_snapshot_id if snapshot.lineage_snapshot else None
        if parent and not new.has_job_snapshot(parent):
            new.run_storage.add_job_snapshot(old.get_job_snapshot(parent))
        new.run_storage.add_job_snapshot(snapshot)
    if (plan := run.execution_plan_snapshot_id) and not new.run_storage.has_execution_plan_snapshot(plan):
        new.run_storage.add_execution_plan_snapshot(old.run_storage.get_execution_plan_snapshot(plan))
