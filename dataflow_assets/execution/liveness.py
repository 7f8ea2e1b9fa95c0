"""Who is dead: attempts that the drive table shows under way and whose worker has fallen silent.

Here: the judgement, from rows and what was seen of them before; and marking what is dead. Not here: beating (`execution.heartbeat`),
what becomes of Dagster's runs (`operations.stale_runs`).

Silence is measured by the clock of whoever looks: a worker is dead when its heartbeat has not changed between two looks that lie so far
apart. Clocks of different hosts are never compared.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dataflow_assets.execution.drive import FAILED, RUNNING, Drive, DriveRow

ERROR_CLASS = "WorkerDied"


@dataclass(frozen=True)
class Sighting:
    """The heartbeat of an attempt as it was seen, and when it was first seen so."""

    beat: str
    since: datetime


@dataclass(frozen=True)
class Look:
    """What one look has found: the dead, those at work, and what the next look must remember."""

    dead: tuple[DriveRow, ...]
    alive: tuple[DriveRow, ...]
    sightings: Mapping[str, Sighting]


def look(rows: Iterable[DriveRow], before: Mapping[str, Sighting], *, now: datetime, after: float) -> Look:
    """Judge the attempts under way among `rows`; `after` in seconds. One that is seen for the first time is alive, and so is one that was
    seen in what is the future now: the clock was set back."""
    dead: list[DriveRow] = []
    alive: list[DriveRow] = []
    sightings: dict[str, Sighting] = {}
    for row in rows:
        if row.pipeline_status != RUNNING:
            continue
        beat = row.heartbeat_at.isoformat() if row.heartbeat_at else ""
        seen = before.get(row.pipeline_id)
        if seen is None or seen.beat != beat or seen.since > now:
            seen = Sighting(beat, now)
        silent = now - seen.since >= timedelta(seconds=after)
        (dead if silent else alive).append(row)
        sightings[row.pipeline_id] = seen
    return Look(tuple(dead), tuple(alive), sightings)


def bury(drive: Drive, rows: Iterable[DriveRow], *, now: datetime) -> None:
    """Mark dead attempts as failed, unless they have ended since; a worker that wakes up finds itself fenced off by the next attempt."""
    for row in rows:
        drive.update(
            row.pipeline_id,
            only_if=RUNNING,
            pipeline_status=FAILED,
            pipeline_end_timestamp=now,
            error_class=ERROR_CLASS,
            error_message=obituary(row),
        )


def obituary(row: DriveRow) -> str:
    """One sentence for people: which worker, last heard of when."""
    heard = f", last heard of at {row.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC by its own clock" if row.heartbeat_at else ""
    return f"the worker {worker_name(row)} died while it loaded {row.pipeline_name} {row.unit_key}{heard}"


def worker_name(row: DriveRow) -> str:
    """`host:process` of whoever works on the attempt."""
    return f"{row.host or 'unknown host'}:{row.process_id or '?'}"


def is_gone(row: DriveRow) -> bool:
    """Whether the attempt's process is known not to exist: only of this host's processes can that be said."""
    return row.host == socket.gethostname() and bool(row.process_id) and not process_exists(row.process_id or 0)


def process_exists(process_id: int) -> bool:
    """Whether this host has a process of this number, also one of somebody else's."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
