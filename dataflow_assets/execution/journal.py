"""From the events of a run to the rows of the drive table.

Here: one row per attempt at a window, begun when the window begins and filled when it ends; what is usual for its phases. Not here: the
table and its database (`storage.drive`, `execution.drive`), the clock of the phases (`execution.phases`).
"""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from dataflow_assets.error_kinds import kind_of
from dataflow_assets.errors import Interrupted
from dataflow_assets.execution.drive import FAILED, PHASES, SKIPPED, SUCCESS, Drive, DriveRow, open_drive
from dataflow_assets.execution.events import Event, StepFinished, StepStarted, WindowFailed, WindowFinished, WindowStarted
from dataflow_assets.execution.phases import Phase, Phases
from dataflow_assets.execution.session import RunRequest
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window

_USUAL_ATTEMPTS = 20
_LONGEST_ID = 180


def duration_text(seconds: float) -> str:
    """Whole seconds as `1h 30m 45s`; days are hours, as in the Drive system."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if number]
    return " ".join(parts) or "0s"


class Journal:
    """Hears the events of one request and writes its attempts down. Nothing that happens to the drive is raised."""

    def __init__(self, drive: Drive, request: RunRequest, *, run_id: str | None = None) -> None:
        self._drive, self._request, self._run_id = drive, request, run_id
        self._failures: dict[str, int] | None = None
        self._usual: Mapping[str, float] = {}
        self._open: dict[str, DriveRow] = {}
        self._live: dict[str, Phases | None] = {}
        self._published: dict[str, int] = {}
        self._step = ""

    @property
    def open_ids(self) -> Sequence[str]:
        """The attempts that are under way."""
        return [row.pipeline_id for row in list(self._open.values())]  # heartbeats ask from another thread

    def attempt_at(self, key: str) -> str | None:
        """The attempt at this window that is under way."""
        row = self._open.get(key)
        return row.pipeline_id if row else None

    def hear(self, event: Event) -> None:
        """Note what an event says."""
        if isinstance(event, WindowStarted):
            self._begin(event)
        elif isinstance(event, StepStarted):
            self._step = event.step
        elif isinstance(event, StepFinished) and event.published is not None:
            self._published[event.key] = self._published.get(event.key, 0) + event.published.rows
        elif isinstance(event, WindowFinished):
            self._end(event.key, SUCCESS, event.phases)
        elif isinstance(event, WindowFailed):
            self._end(event.key, FAILED, event.phases, error=event.error)

    def close(self) -> None:
        """The end of the run: an attempt that is still under way was interrupted."""
        for key in list(self._open):
            message = f"interrupted at step {self._step}" if self._step else "interrupted"
            phases = self._live.get(key) or Phases()
            phases.drop_untouched()
            self._end(key, FAILED, phases.settle({}), error=Interrupted(message))

    def _begin(self, event: WindowStarted) -> None:
        if self._failures is None:
            self._failures, self._usual = self._look_back()
        row = attempt_row(self._request, event, run_id=self._run_id, retry=self._failures.get(event.key, 0))
        self._open[event.key] = row
        self._live[event.key] = event.phases
        self._drive.begin(row)

    def _look_back(self) -> tuple[dict[str, int], Mapping[str, float]]:
        """What the drive knows of earlier attempts; nothing while it is away, which the first row that is written will say."""
        name = self._request.pipeline.name
        try:
            return self._drive.failures(name), usual_seconds(self._drive.rows(pipeline=name, statuses=[SUCCESS], limit=_USUAL_ATTEMPTS))
        except Exception:  # noqa: BLE001 - whatever its database does, the load goes on
            return {}, {}

    def _end(self, key: str, status: str, phases: Mapping[str, Phase], *, error: Exception | None = None) -> None:
        expected = {**self._usual, **self._request.pipeline.expected_seconds}
        states = {name: phase.status for name, phase in phases.items()}
        said: dict[str, Any] = {
            "phases": {name: described(phase, expected.get(name)) for name, phase in phases.items()},
            "phases_completed": _of(states, "COMPLETED"),
            "phases_skipped": _of(states, "SKIPPED"),
            "phases_pending": tuple(name for name in PHASES if name not in states),
            "phase_failed": next(iter(_of(states, "FAILED")), None),
            "rows": self._published.pop(key, 0),
            # said of a success too: whoever took the worker for dead has left his sentence there
            "error_class": type(error).__name__ if error is not None else None,
            "error_message": mask(str(error)) if error is not None else None,
        }
        if self._failures is not None:
            self._failures[key] = self._failures.get(key, 0) + 1 if status == FAILED else 0
        self._finish(key, status, said)

    def _finish(self, key: str, status: str, said: Mapping[str, Any]) -> None:
        row = self._open.pop(key, None)
        self._live.pop(key, None)
        if row is None:  # a window that failed before it began
            return
        now = utc_now()
        took = (now - (row.pipeline_start_timestamp or now)).total_seconds()
        times: dict[str, Any] = {"pipeline_end_timestamp": now, "pipeline_run_duration": duration_text(took), "heartbeat_at": now}
        self._drive.update(row.pipeline_id, pipeline_status=status, **times, **said)


def attempt_row(request: RunRequest, event: WindowStarted, *, run_id: str | None, retry: int) -> DriveRow:
    """The row of an attempt that begins now, in this process."""
    now, attempt = utc_now(), event.attempt or request.attempt
    return DriveRow(
        pipeline_id=row_id(request.pipeline.name, event.key, attempt),
        pipeline_name=request.pipeline.name,
        pipeline_retry_number=retry,
        pipeline_start_timestamp=now,
        **_window(request.pipeline, event.window),
        phases_pending=PHASES,
        unit_key=event.key,
        attempt=attempt,
        run_id=run_id,
        host=_host(),
        process_id=os.getpid(),
        heartbeat_at=now,
        created_at=now,
    )


def record_skip(project: Project, pipeline: str, *, reason: str) -> None:
    """Write a row SKIPPED for a pipeline that is not run, with the reason."""
    name = uuid.uuid4().hex
    with closing(open_drive(project)) as drive:
        drive.begin(DriveRow(row_id(pipeline, WHOLE, name), pipeline, SKIPPED, attempt=name, unit_key=WHOLE, error_message=mask(reason)))


def row_id(pipeline: str, key: str, attempt: str) -> str:
    """What identifies an attempt; one that a key column would not hold is cut and told by its hash."""
    text = f"{pipeline}:{key}:{attempt}"
    if len(text.encode()) <= _LONGEST_ID:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text.encode()[: _LONGEST_ID - 17].decode(errors='ignore')}~{digest}"


def _window(pipeline: PipelinePlan, window: Window | None) -> dict[str, Any]:
    if window is None or pipeline.windows is None:
        return {"target_date": utc_now().date()}
    return {
        "query_window_start": window.start,
        "query_window_end": window.end,
        "query_window_duration": duration_text((window.end - window.start).total_seconds()),
        "target_date": window.start.astimezone(ZoneInfo(pipeline.windows.cadence.timezone)).date(),
    }


def described(phase: Phase, expected: float | None) -> dict[str, Any]:
    """A phase as its JSON column holds it."""
    found: dict[str, Any] = {
        "phase_name": phase.name,
        "status": phase.status,
        "start_timestamp": _text(phase.started_at),
        "end_timestamp": _text(phase.ended_at),
        "actual_run_duration": duration_text(phase.seconds),
        "actual_run_seconds": round(phase.seconds, 3),
        "expected_run_duration": duration_text(expected) if expected is not None else None,
        "expected_run_seconds": round(expected, 3) if expected is not None else None,
        **phase.counts,
    }
    if phase.skipped and phase.error is None:
        found["reason"] = phase.skipped
    if phase.error is not None:
        found |= {"error_type": kind_of(phase.error), "error_class": type(phase.error).__name__, "error_message": mask(str(phase.error))}
    return found


def usual_seconds(rows: Iterable[DriveRow]) -> dict[str, float]:
    """Phase -> the median of how long it took in these attempts, where it was not skipped."""
    seen: dict[str, list[float]] = {}
    for row in rows:
        for name, phase in row.phases.items():
            seconds = phase.get("actual_run_seconds")
            if phase.get("status") == "COMPLETED" and isinstance(seconds, int | float):
                seen.setdefault(name, []).append(float(seconds))
    return {name: median(found) for name, found in seen.items()}


def _of(states: Mapping[str, str], status: str) -> tuple[str, ...]:
    return tuple(name for name, found in states.items() if found == status)


def _text(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None


@cache
def _host() -> str:
    return socket.gethostname()
