"""What has been counted since the service began, and what is so now, as plain numbers.

Here: reading the drive table, ended runs and ledgers into figures, each counted once. Counters begin at 0 with the service: the drive table
is pruned and runs are deleted, and a counter must never fall. Not here: the text of Prometheus (`metrics`).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import get_args

import dagster as dg

from dataflow_assets.assets.names import PIPELINE_TAG
from dataflow_assets.execution.drive import FAILED, RUNNING, SKIPPED, SUCCESS, DriveRow, open_drive
from dataflow_assets.execution.status import window_status
from dataflow_assets.operations.alerts.channels import shown
from dataflow_assets.operations.alerts.incidents import Incident
from dataflow_assets.operations.alerts.memory import Memory
from dataflow_assets.operations.alerts.watching import Runs
from dataflow_assets.operations.health.questions import disk_of_stages
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan, WindowState
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import Window

BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0)
"""Upper bounds of durations in seconds."""
STATES: tuple[WindowState, ...] = get_args(WindowState)
_ENDED = {SUCCESS: "success", FAILED: "failed", SKIPPED: "skipped"}
_OF_CHECKS = frozenset({"check_failure", "check_warning", "anomaly"})
_OVERLAP = timedelta(minutes=2)
_DEAD = timedelta(hours=1)
"""An attempt that fell silent so long ago is not waited for: all that began after it would be read again at each look."""
_RUN_ENDS = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_UNDER_WAY = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


@dataclass
class Durations:
    """A histogram: how many durations fell below each bound, how many there were, their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass(frozen=True)
class DatasetFigures:
    """What the ledgers say of one pipeline at one moment; `ends` is when its newest published window ends."""

    states: dict[str, int]
    newest: Window | None
    at: datetime


@dataclass
class Figures:
    """Every figure. Names of pipelines are keys."""

    began: datetime
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    durations: dict[str, Durations] = field(default_factory=dict)
    checks: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    under_way: dict[str, int] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    heartbeats: dict[str, datetime] = field(default_factory=dict)
    """Of attempts at work: the oldest of their last heartbeats."""
    daemons: dict[str, datetime] = field(default_factory=dict)
    datasets: dict[str, DatasetFigures] = field(default_factory=dict)
    open_alerts: dict[tuple[str, str], int] = field(default_factory=dict)
    waiting_alerts: dict[str, int] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    """Pipelines whose ledgers could not be asked."""
    stage_disk: tuple[int, int] | None = None
    """Free bytes and size of the disk of the stages."""
    sources: dict[str, bool] = field(default_factory=dict)
    """What figures come from -> whether it answered."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Held while figures change, and while they are read together; never while a system is asked."""


class Counting:
    """Keeps figures up to date; each method reads one source, and raises when that does not answer."""

    def __init__(self, *, now: datetime) -> None:
        self.figures = Figures(now)
        self._counted: dict[str, datetime] = {}
        self._since = now - _OVERLAP
        self._runs_after = now - _OVERLAP
        self._seen: set[str] = set()

    def read_drive(self, project: Project, *, now: datetime) -> None:
        """Attempts that have ended since the service began, each once, and those at work."""
        drive = open_drive(project)
        try:
            running = drive.rows(statuses=(RUNNING,))
            rows = drive.rows(since=self._since)
        finally:
            drive.close()
        with self.figures.lock:
            for row in rows:
                if row.pipeline_status in _ENDED and row.pipeline_id not in self._counted and self._is_new(row):
                    self._counted[row.pipeline_id] = row.created_at or now
                    self._count(row)
            self.figures.running = dict(Counter(row.pipeline_name for row in running))
            self.figures.heartbeats = _quietest(running)
        begun = [row.created_at for row in running if row.created_at is not None and now - (row.heartbeat_at or row.created_at) < _DEAD]
        self._since = min([*begun, now]) - _OVERLAP
        self._counted = {name: at for name, at in self._counted.items() if at >= self._since}

    def _is_new(self, row: DriveRow) -> bool:
        return (row.pipeline_end_timestamp or row.updated_at or self.figures.began) >= self.figures.began

    def _count(self, row: DriveRow) -> None:
        name, figures = row.pipeline_name, self.figures
        figures.attempts[name, _ENDED[row.pipeline_status]] += 1
        figures.rows[name] += row.rows or 0
        figures.bytes[name] += _bytes_of(row.phases.get("source_to_stage_transfer", {}).get("stage_bytes"))
        figures.retries[name] += row.pipeline_retry_number > 0
        if row.pipeline_status != SKIPPED and row.pipeline_start_timestamp and row.pipeline_end_timestamp:
            seconds = (row.pipeline_end_timestamp - row.pipeline_start_timestamp).total_seconds()
            figures.durations.setdefault(name, Durations()).add(max(seconds, 0.0))

    def read_runs(self, plan: ProjectPlan, instance: dg.DagsterInstance) -> None:
        """Runs that have ended since, by pipeline and status, their checks that did not pass, and how many runs are under way."""
        runs = Runs(plan, instance)
        filters = dg.RunsFilter(statuses=list(_RUN_ENDS), updated_after=self._runs_after - _OVERLAP)
        records = instance.get_run_records(filters, order_by="update_timestamp", ascending=True)
        began = self.figures.began.timestamp()
        new = [record for record in records if record.dagster_run.run_id not in self._seen and (record.end_time or 0) >= began]
        failed = [incident for record in new for incident in _incidents(runs, record) if incident.event in _OF_CHECKS]
        under_way = {status.value.lower(): instance.get_runs_count(dg.RunsFilter(statuses=[status])) for status in _UNDER_WAY}
        with self.figures.lock:
            for record in new:
                run = record.dagster_run
                self.figures.runs[run.tags.get(PIPELINE_TAG, ""), run.status.value.lower()] += 1
            for incident in failed:
                self.figures.checks[incident.pipeline, incident.cause, incident.event] += max(len(incident.windows), 1)
            self.figures.under_way = under_way
        self._seen = {record.dagster_run.run_id for record in records}
        if records:
            newest = records[-1].update_timestamp
            self._runs_after = newest if newest.tzinfo else newest.replace(tzinfo=UTC)

    def read_disk(self, project: Project) -> None:
        """The disk of the stages; not when it is asked for, since a network's disk may not answer."""
        _, usage = disk_of_stages(project)
        with self.figures.lock:
            self.figures.stage_disk = usage.free, usage.total

    def read_daemons(self, instance: dg.DagsterInstance) -> None:
        """When each daemon was last heard of."""
        beats = {name: datetime.fromtimestamp(beat.timestamp, UTC) for name, beat in instance.get_daemon_heartbeats().items()}
        with self.figures.lock:
            self.figures.daemons = beats

    def read_alerts(self, plan: ProjectPlan, project: Project, instance: dg.DagsterInstance) -> None:
        """The incidents that are not over, by pipeline and event, and the messages that wait for a channel."""
        memory = Memory(instance, project.model.project_name)
        known = memory.pipelines([pipeline.name for pipeline in plan.pipelines])
        opened = Counter((name, item.event) for name, found in known.items() for item in found.known.values())
        waiting = {shown(channel): len(memory.outbox(channel)) for channel in memory.channels()}
        with self.figures.lock:
            self.figures.open_alerts, self.figures.waiting_alerts = dict(opened), waiting

    def read_ledger(self, project: Project, pipeline: PipelinePlan, *, now: datetime) -> None:
        """What the ledgers say of one pipeline: windows by state, and the newest that is published."""
        try:
            todos = window_status(project, pipeline, now=now)
        except Exception:
            with self.figures.lock:
                self.figures.unreachable.add(pipeline.name)
            raise
        states: Counter[str] = Counter(todo.state for todo in todos)
        published = [todo.window for todo in todos if todo.window and todo.state in {"published", "stale", "reopened"}]
        found = DatasetFigures({state: states[state] for state in STATES}, max(published, default=None), now)
        with self.figures.lock:
            self.figures.unreachable.discard(pipeline.name)
            self.figures.datasets[pipeline.name] = found

    def forget_others(self, plan: ProjectPlan) -> None:
        """Drop what ledgers said of pipelines that the project has no more."""
        with self.figures.lock:
            self.figures.datasets = {name: found for name, found in self.figures.datasets.items() if name in plan.by_name}
            self.figures.unreachable &= set(plan.by_name)


def _incidents(runs: Runs, record: dg.RunRecord) -> Iterable[Incident]:
    """What a run shows; nothing where its events cannot be read, which alerts tell, so that one run hides no other."""
    try:
        return [incident for seen in runs.read(record) for incident in seen.incidents]
    except Exception:  # noqa: BLE001 - whatever is in its events
        return ()


def _quietest(running: Iterable[DriveRow]) -> dict[str, datetime]:
    beats: dict[str, datetime] = {}
    for row in running:
        if row.heartbeat_at is not None:
            beats[row.pipeline_name] = min(row.heartbeat_at, beats.get(row.pipeline_name, row.heartbeat_at))
    return beats


def _bytes_of(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
