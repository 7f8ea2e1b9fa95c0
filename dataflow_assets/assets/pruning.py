"""Dagster's own records of old runs: which of them may go, and removing them with their events.

Here: runs and their event logs in the instance, whatever storage it has. Not here: the drive table (`execution.pruning`), which pipelines
and what age (`cli.history_clean`).

What the UI shows of a window is the newest materialization of each asset in it: the run that made it stays, however old.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG, job_name, tag_value
from dataflow_assets.plan.model import PipelinePlan

_PAGE = 500
_AT_REST = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
    dg.DagsterRunStatus.NOT_STARTED,
]
Window = tuple[dg.AssetKey, str | None]


@dataclass(frozen=True)
class OldRun:
    """A run that came to rest, made before the instant asked for. `needed`: what the UI shows that only this run tells."""

    run_id: str
    pipeline: str
    status: str
    created_at: datetime
    needed: tuple[Window, ...] = ()


def old_runs(instance: dg.DagsterInstance, pipelines: Mapping[str, PipelinePlan | None], *, before: datetime) -> list[OldRun]:
    """The runs of these pipelines, the oldest last; a pipeline that is no longer in the project is known by its name alone."""
    names = _Names(pipelines)
    records = [(record, name) for record in _records(instance, before) if (name := names.of(record.dagster_run)) is not None]
    made = {record.dagster_run.run_id: set(_materialized(instance, record.dagster_run.run_id)) for record, _ in records}
    newest = _newest(instance, {asset for found in made.values() for asset, _ in found})
    return [
        OldRun(
            record.dagster_run.run_id,
            name,
            record.dagster_run.status.value,
            record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC),
            tuple(sorted((item for item in made[record.dagster_run.run_id] if newest.get(item) == record.dagster_run.run_id), key=str)),
        )
        for record, name in records
    ]


class _Names:
    """Which pipeline a run is about: by its tag, its job, or the assets that it was launched for in the UI."""

    def __init__(self, pipelines: Mapping[str, PipelinePlan | None]) -> None:
        self._by_tag = {tag_value(name): name for name in pipelines}
        self._by_job = {job_name(name): name for name in pipelines}
        self._by_asset = {dg.AssetKey(step.asset_key): name for name, plan in pipelines.items() if plan for step in plan.steps}

    def of(self, run: dg.DagsterRun) -> str | None:
        if PIPELINE_TAG in run.tags:
            return self._by_tag.get(run.tags[PIPELINE_TAG])
        assets = set(run.asset_selection or ())
        if assets and assets <= self._by_asset.keys():
            return self._by_asset[min(assets)]
        return self._by_job.get(run.job_name) if not run.job_name.startswith("__") and not assets else None


def _records(instance: dg.DagsterInstance, before: datetime) -> Iterator[dg.RunRecord]:
    cursor: str | None = None
    while page := instance.get_run_records(dg.RunsFilter(statuses=_AT_REST, created_before=before), limit=_PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def _materialized(instance: dg.DagsterInstance, run_id: str) -> Iterator[Window]:
    cursor, more = None, True
    while more:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=_PAGE)
        cursor, more = page.cursor, page.has_more
        yield from ((record.asset_key, record.partition_key) for record in page.records if record.asset_key)


def _newest(instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey]) -> dict[Window, str]:
    """(asset, partition) -> the run of its newest materialization."""
    found: dict[Window, str] = {}
    for asset in assets:
        last = instance.fetch_materializations(asset, limit=1).records
        if last and last[0].partition_key is None:
            found[asset, None] = last[0].run_id
        by_partition = instance.event_log_storage.get_latest_storage_id_by_partition(asset, dg.DagsterEventType.ASSET_MATERIALIZATION)
        ids = list(by_partition.values())
        for start in range(0, len(ids), _PAGE):
            wanted = dg.AssetRecordsFilter(asset, storage_ids=ids[start : start + _PAGE])
            records = instance.fetch_materializations(wanted, limit=_PAGE).records
            found |= {(asset, record.partition_key): record.run_id for record in records}
    return found


def delete_runs(instance: dg.DagsterInstance, runs: Sequence[OldRun]) -> None:
    """Remove runs with their events and what they printed; of SQLite also the file that holds the events of one run."""
    for run in runs:
        instance.delete_run(run.run_id)
        rmtree(Path(instance.storage_directory()) / run.run_id, ignore_errors=True)
    locate = getattr(instance.event_log_storage, "path_for_shard", None)
    if locate is None:
        return
    instance.event_log_storage.dispose()  # closes the files
    for run in runs:
        path = Path(locate(run.run_id))
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            with suppress(OSError):
                file.unlink(missing_ok=True)
