"""What the drive table shows: attempts that take longer than usual, windows that are overdue.

Here: rows to incidents. Not here: the drive itself (`execution.drive`), failures, which the runs' own events tell (`watching`), gaps, which
whoever finds them reports (`operations.gaps`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median

from dataflow_assets.execution.drive import RUNNING, SUCCESS, Drive, DriveRow
from dataflow_assets.operations.alerts.incidents import Incident
from dataflow_assets.operations.alerts.wording import lasted
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan

LEARNED_FROM = 20
"""How many successful attempts say what is usual."""
AT_LEAST = 5
"""Before so many there is no usual."""


class DriveWatch:
    """The drive of a project, asked as little as may be: once for what runs, and for pipelines of which a run ended or lasts."""

    def __init__(self, drive: Drive, plan: ProjectPlan) -> None:
        self._drive, self._plan = drive, plan

    def running(self, *, now: datetime) -> list[Incident]:
        """Attempts under way that have taken too long already. One whose worker has died is no matter of duration."""
        rows = [row for row in self._drive.rows(statuses=(RUNNING,)) if row.pipeline_name in self._plan.by_name]
        wanted = [row for row in rows if _seconds(row, now=now) >= self._plan.by_name[row.pipeline_name].alerts.duration_at_least]
        found = []
        for row in wanted:
            pipeline = self._plan.by_name[row.pipeline_name]
            usual = usual_seconds(self._drive.rows(pipeline=pipeline.name, statuses=(SUCCESS,), limit=LEARNED_FROM))
            found += _too_slow(pipeline, [row], usual, now=now)
        return found

    def ended(self, pipeline: PipelinePlan, run_id: str, *, now: datetime) -> list[Incident]:
        """The attempts of a run that has ended: too slow, or, when none of them was, that this is over."""
        rows = self._drive.rows(pipeline=pipeline.name, statuses=(SUCCESS,), limit=LEARNED_FROM * 3)
        own = [row for row in rows if row.run_id == run_id]
        usual = usual_seconds([row for row in rows if row.run_id != run_id][:LEARNED_FROM]) or usual_seconds(own)
        if not own or usual is None:
            return []
        slow = _too_slow(pipeline, own, usual, now=now)
        return slow or [Incident("duration", pipeline.name, "", cause="run", run_id=run_id, over=True)]

    def overdue(self, *, now: datetime, silent: Callable[[PipelinePlan], object] = lambda _: False) -> Iterator[Incident]:
        """Pipelines whose newest published window is older than it should be; not those that are paused."""
        for pipeline in self._plan.pipelines:
            wanted = pipeline.windows is not None and pipeline.alerts.overdue_after is not None and "overdue" in pipeline.alerts.events
            if wanted and not silent(pipeline):
                rows = self._drive.rows(pipeline=pipeline.name, statuses=(SUCCESS,), limit=LEARNED_FROM)
                if not all(found.over for found in _overdue(pipeline, rows, now=now)):  # or a backfill of old windows is all it did lately
                    rows += self._drive.rows(pipeline=pipeline.name, statuses=(SUCCESS,), limit=LEARNED_FROM, newest=("query_window_end",))
                yield from _overdue(pipeline, rows, now=now)


def usual_seconds(rows: Iterable[DriveRow]) -> float | None:
    """The median duration of successful attempts in seconds; None where there are too few of them to tell."""
    known = [_seconds(row) for row in rows if row.pipeline_start_timestamp and row.pipeline_end_timestamp]
    return median(known) if len(known) >= AT_LEAST else None


def _seconds(row: DriveRow, *, now: datetime | None = None) -> float:
    end = row.pipeline_end_timestamp or now
    if row.pipeline_start_timestamp is None or end is None:
        return 0.0
    return (end - row.pipeline_start_timestamp).total_seconds()


def _too_slow(pipeline: PipelinePlan, rows: Sequence[DriveRow], usual: float | None, *, now: datetime) -> list[Incident]:
    plan = pipeline.alerts
    if usual is None:
        return []
    limit = max(usual * plan.duration_multiplier, plan.duration_at_least)
    slow = [row for row in rows if _seconds(row, now=now) > limit]
    if not slow:
        return []
    slowest = max(slow, key=lambda row: _seconds(row, now=now))
    seconds = _seconds(slowest, now=now)
    running = slowest.pipeline_status == RUNNING
    times = f"{seconds / usual:.3g} times as long as usual" if usual > 0 else "and usually no time at all"
    facts = {"Took" if not running else "Takes since": lasted(seconds), "Usually": f"{lasted(usual)} (median of the last attempts)"}
    if slowest.rows is not None and not running:
        facts["Rows"] = f"{slowest.rows:,}"
    return [
        Incident(
            "duration",
            pipeline.name,
            f"{'is taking' if running else 'took'} {lasted(seconds)}, {times}",
            cause="run",
            windows=tuple(row.unit_key for row in slow if row.query_window_start is not None),
            facts=facts,
            unaffected="nothing has failed" + ("; the target is as it was until the window is done" if running else ""),
            next_step=(shlex.join(["dataflow", "history", pipeline.name]),),
            run_id=slowest.run_id or "",
            since=slowest.pipeline_start_timestamp,
        )
    ]


def _overdue(pipeline: PipelinePlan, rows: Sequence[DriveRow], *, now: datetime) -> Iterator[Incident]:
    windows, patience = pipeline.windows, pipeline.alerts.overdue_after
    newest = max((row.query_window_end for row in rows if row.query_window_end), default=None)
    if windows is None or patience is None or newest is None or (windows.end is not None and newest >= windows.end):
        return
    missing = windows.cadence.next(newest)
    due = missing + timedelta(seconds=windows.lag_seconds + patience)
    if now < due:
        yield Incident("overdue", pipeline.name, "the newest window is published", cause="windows", over=True)
        return
    behind = (now - missing).total_seconds()
    yield Incident(
        "overdue",
        pipeline.name,
        f"nothing newer than {newest:%Y-%m-%d %H:%M} UTC is published, {lasted(behind)} behind",
        cause="windows",
        facts={"Behind": lasted(behind)},
        unaffected="what is published is as it was",
        next_step=(shlex.join(["dataflow", "plan", "--select", pipeline.name]), shlex.join(["dataflow", "run", "--select", pipeline.name])),
        since=missing,
    )
