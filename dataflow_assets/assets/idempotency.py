"""Idempotency keys: whoever asks twice with one key gets one run, and the outcome of the first.

Here: the record of a call from a terminal in the instance, runs whose ids follow from a key, and which of several submitted runs with one
key is the one that works. Not here: the option and what is printed (`cli.idempotency`), running (`assets.execute`).

A call is recorded when it has ended. While it is under way, a lock file keeps others of this host waiting; on another host the ids of its
runs are taken already.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from dataflow_assets.assets.drivers import driver_of
from dataflow_assets.assets.names import DRIVER_TAG, IDEMPOTENCY_TAG, PIPELINE_TAG, tag_value
from dataflow_assets.errors import SelectionError
from dataflow_assets.tables import utc_now

LONGEST = 200
_NAMESPACE = uuid.UUID("6f0cf5d3-92b2-4f3b-8f6e-6a2f1f1f7c55")
_RECORD = "dataflow/idempotency/"
_LARGEST = 200_000
_POLL_SECONDS = 0.5
_OVER = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def checked_key(key: str) -> str:
    """The key. Raises SelectionError for one that is empty, too long, or has characters that cannot be seen."""
    if not key.strip() or len(key) > LONGEST or not key.isprintable():
        hint = f"use 1 to {LONGEST} printable characters, such as orders-2024-01-31"
        raise SelectionError(f"{key[:40]!r} is no idempotency key", hint=hint)
    return key


@dataclass(frozen=True)
class KeyedCall:
    """One call with a key: `outcome` is the document of the first one, when that has ended."""

    instance: dg.DagsterInstance
    project: str
    key: str
    asked: str
    outcome: Mapping[str, Any] | None = None

    def run_id(self, pipeline: str, first: str, *, deaths: int = 0) -> str:
        """The id of the run that begins with the window `first`: the same in every process. `deaths`: how many before it died."""
        return str(uuid.uuid5(_NAMESPACE, json.dumps([self.project, self.key, pipeline, first, deaths])))

    def keep(self, document: Mapping[str, Any]) -> None:
        """Record the outcome, without the windows where there are very many."""
        kept = {"asked": self.asked, "at": utc_now().isoformat(), "document": document}
        text = json.dumps(kept)
        if len(text) > _LARGEST:
            pipelines = [{**pipeline, "windows": []} for pipeline in document.get("pipelines", ())]
            text = json.dumps({**kept, "document": {**document, "pipelines": pipelines}})
        self.instance.run_storage.set_cursor_values({_name(self.project, self.key): text})


@contextmanager
def keyed_call(
    instance: dg.DagsterInstance, home: Path, project: str, key: str, *, asked: Mapping[str, Any], waiting: Callable[[], None]
) -> Iterator[KeyedCall]:
    """A call with this key, alone on this host for as long as the context; `waiting` is called when another one is under way.

    Raises SelectionError when the key was used to ask for something else.
    """
    from filelock import FileLock, Timeout

    folder = home / "idempotency"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(folder / f"{hashlib.sha256(_name(project, key).encode()).hexdigest()[:32]}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield _found(instance, project, checked_key(key), _digest(asked, key))
    finally:
        lock.release()


def _found(instance: dg.DagsterInstance, project: str, key: str, asked: str) -> KeyedCall:
    text = instance.run_storage.get_cursor_values({_name(project, key)}).get(_name(project, key))
    if text is None:
        return KeyedCall(instance, project, key, asked)
    kept = json.loads(text)
    if kept["asked"] != asked:
        raise SelectionError(
            f"the idempotency key {key!r} was used at {kept['at'][:19]} UTC to ask for something else",
            hint="use one key for one request: another selection, range or set of variables needs another key",
        )
    return KeyedCall(instance, project, key, asked, {**kept["document"], "idempotency_key": key, "first_at": kept["at"]})


def _name(project: str, key: str) -> str:
    return f"{_RECORD}{project}/{key}"


def _digest(asked: Mapping[str, Any], key: str) -> str:
    """What was asked for, so that another request is noticed; variables may be secret, so they are not kept."""
    return hashlib.sha256(json.dumps([key, dict(asked)], sort_keys=True, default=str).encode()).hexdigest()


def await_end(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun | None:
    """The run when it is over; None when its process has died, in which case it is marked as failed."""
    while True:
        record = instance.get_run_record_by_id(run_id)
        if record is None or record.dagster_run.status in _OVER:
            return record.dagster_run if record else None
        driver = driver_of(record.dagster_run, at=record.update_timestamp)
        if driver is not None and not driver.alive(now=utc_now()):
            instance.report_run_failed(record.dagster_run, f"its process, {driver.process_id} on {driver.host}, is gone")
            return None
        time.sleep(_POLL_SECONDS)


def has_outcome(instance: dg.DagsterInstance, run: dg.DagsterRun | None) -> bool:
    """Whether a run that is over came to an end of its own: one that was cancelled, or whose process died, did not."""
    if run is None or run.status is dg.DagsterRunStatus.CANCELED:
        return False
    failed = run.status is dg.DagsterRunStatus.FAILURE
    return not failed or bool(instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1).records)


def outcome_before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun | None:
    """The run with the same key, about the same pipeline, that began first, when it is over; None where this one is to work.

    A re-execution works again, whatever its key: somebody has asked for it. Of two runs of calls from a terminal their ids decide.
    """
    if IDEMPOTENCY_TAG not in run.tags or run.parent_run_id:
        return None
    ended = (await_end(instance, record.dagster_run.run_id) for record in _before(instance, run))
    return next((found for found in ended if has_outcome(instance, found)), None)


def batch_of_key(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The run with the same key that began first; empty where that is this one. What it had appended when it died counts as done."""
    first = next(iter(_before(instance, run)), None) if IDEMPOTENCY_TAG in run.tags else None
    return first.dagster_run.run_id if first is not None else ""


def _before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.RunRecord]:
    """The runs with the same key, about the same pipeline, that began before this one, in that order."""
    shared = {name: run.tags[name] for name in (IDEMPOTENCY_TAG, PIPELINE_TAG) if name in run.tags}
    records = instance.get_run_records(dg.RunsFilter(tags=shared))
    mine = next((record for record in records if record.dagster_run.run_id == run.run_id), None)
    return sorted((record for record in records if mine and _is_before(record, mine)), key=_began)


def _is_before(other: dg.RunRecord, mine: dg.RunRecord) -> bool:
    theirs, own = other.dagster_run, mine.dagster_run
    if other.start_time is None or mine.start_time is None or theirs.parent_run_id or theirs.run_id == own.run_id:
        return False
    from_terminals = DRIVER_TAG in theirs.tags and DRIVER_TAG in own.tags
    return not from_terminals and theirs.job_name == own.job_name and _began(other) < _began(mine)


def _began(record: dg.RunRecord) -> tuple[float, int]:
    return record.start_time or 0.0, record.storage_id


def key_tags(key: str, pipeline: str) -> dict[str, str]:
    """The tags of a run that somebody submits with a key."""
    return {IDEMPOTENCY_TAG: checked_key(key), PIPELINE_TAG: tag_value(pipeline)}
