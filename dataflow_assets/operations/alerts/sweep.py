"""One look at what happened since the last one: what the sensor does at each tick, and the terminal when it is asked to.

Here: the order of things, so that a sweep which is killed anywhere loses nothing: messages are in the outbox before what is remembered
says that they were told, and both before the position moves on; a message that is put there twice has one id. Not here: each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import dagster as dg

from dataflow_assets.assets.silence import reason_for_silence
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.drive import Drive, open_drive
from dataflow_assets.operations.alerts import deciding
from dataflow_assets.operations.alerts.alone import alone
from dataflow_assets.operations.alerts.broken import broken, whole_project
from dataflow_assets.operations.alerts.channels import shown
from dataflow_assets.operations.alerts.deciding import Telling
from dataflow_assets.operations.alerts.drive_watch import DriveWatch
from dataflow_assets.operations.alerts.ended_runs import EndedRuns
from dataflow_assets.operations.alerts.incidents import Incident, reported
from dataflow_assets.operations.alerts.memory import Memory, Position
from dataflow_assets.operations.alerts.sending import Delivered, deliver, destinations, enqueue
from dataflow_assets.operations.alerts.watching import Runs, Seen
from dataflow_assets.operations.alerts.wording import message_of
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project

FIRST_LOOK = timedelta(hours=1)
"""How far back the first sweep looks: what is older is not told when alerts are switched on."""


@dataclass(frozen=True)
class Swept:
    """What one sweep did. `told` are the titles of new messages; `notes` what could not be looked at."""

    told: tuple[str, ...] = ()
    delivered: Delivered = field(default_factory=Delivered)
    notes: tuple[str, ...] = ()
    busy: bool = False
    """Another sweep was at work, so this one did nothing."""


def sweep(plan: ProjectPlan, project: Project, instance: dg.DagsterInstance, *, now: datetime, since: datetime | None = None) -> Swept:
    """Read what happened, decide what is told, and send it. `since`: where the first sweep of an instance begins.

    Raises what the instance's storage raises; nothing for the sake of a channel or of the drive's database.
    """
    with alone(instance, project.model.project_name) as free:
        return _Sweep(plan, project, instance, now=now).go(since or now - FIRST_LOOK) if free else Swept(busy=True)


class _Sweep:
    def __init__(self, plan: ProjectPlan, project: Project, instance: dg.DagsterInstance, *, now: datetime) -> None:
        self.plan, self.project, self.instance, self.now = plan, project, instance, now
        self.memory = Memory(instance, project.model.project_name)
        everything = (*plan.pipelines, whole_project(project))
        self.listeners = {pipeline.name: pipeline for pipeline in everything if destinations(pipeline.alerts)}
        self.heard = ProjectPlan(plan.name, tuple(pipeline for pipeline in plan.pipelines if pipeline.name in self.listeners))
        self.known = self.memory.pipelines(self.listeners)
        self.muted = {name for name, until in self.memory.muted(self.listeners).items() if until > now}
        self.tellings: list[tuple[PipelinePlan, Telling]] = []
        self._ended: list[Seen] = []
        self.notes: list[str] = []

    def go(self, since: datetime) -> Swept:
        before = {name: dict(memory.known) for name, memory in self.known.items()}
        position = self._runs(self.memory.position() or Position(since), since=since)
        incidents, cursor = reported(self.instance, self.project.model.project_name, cursor=position.reports)
        self._note([*incidents, broken(self.plan, self.project)])
        position = replace(position, reports=cursor)
        self._drive()
        self._each(lambda name, plan: deciding.remind(self.known[name], plan.alerts, now=self.now, muted=name in self.muted))
        messages = [
            (message_of(telling, pipeline, self.project, now=self.now), destinations(pipeline.alerts))
            for pipeline, telling in self.tellings
        ]
        enqueue(self.memory, messages, now=self.now)
        for name, memory in self.known.items():
            if memory.known != before[name]:
                self.memory.keep_pipeline(name, memory)
        self.memory.keep_position(position)
        delivered = deliver(self.project, self.memory, now=self.now)
        return Swept(tuple(message.title for message, _ in messages), delivered, tuple(self.notes))

    # -- what is looked at

    def _runs(self, position: Position, *, since: datetime) -> Position:
        """The runs that ended since. One that cannot be read is said, and keeps none of the others from being told."""
        ended = EndedRuns(self.instance, position, since=since)
        runs = Runs(self.heard, self.instance)
        for record in ended:
            try:
                seen = runs.read(record)
            except Exception as error:  # noqa: BLE001 - whatever is in its events
                self.notes.append(mask(f"run {record.dagster_run.run_id} cannot be read: {type(error).__name__}: {error}"))
                continue
            for found in seen:
                self._take(found)
                self._ended.append(found)
        return ended.position

    def _take(self, found: Seen) -> None:
        pipeline, name = found.pipeline, found.pipeline.name
        memory, plan, muted = self.known[name], pipeline.alerts, name in self.muted
        ended = deciding.published(memory, found.published, plan, now=self.now, muted=muted, run_id=found.run_id)
        for identity, windows in found.passed.items():
            ended += deciding.passed(memory, identity, windows, plan, now=self.now, muted=muted, run_id=found.run_id)
        self._tell(pipeline, ended)
        self._tell(pipeline, deciding.note(memory, found.incidents, plan, now=self.now, muted=muted))

    def _drive(self) -> None:
        """Durations, and what is overdue. A drive that cannot be asked is said, and asked again at the next sweep."""
        drive: Drive | None = None
        try:
            drive = open_drive(self.project)
            watch = DriveWatch(drive, self.heard)
            found = watch.running(now=self.now)
            for seen in self._ended:
                if "duration" in seen.pipeline.alerts.events and seen.published:
                    found += watch.ended(seen.pipeline, seen.run_id, now=self.now)
            found += watch.overdue(now=self.now, silent=self._silent)
        except (DataflowError, KeyError) as error:
            self.notes.append(f"the drive table cannot be asked: {error}")
            return
        finally:
            if drive is not None:
                drive.close()
        self._note(found)

    def _silent(self, pipeline: PipelinePlan) -> str:
        return reason_for_silence(self.instance, self.project, pipeline, now=self.now)

    def _note(self, incidents: Iterable[Incident]) -> None:
        by_pipeline: dict[str, list[Incident]] = {}
        for incident in incidents:
            by_pipeline.setdefault(incident.pipeline, []).append(incident)
        for name, found in by_pipeline.items():
            if name in self.listeners:
                pipeline = self.listeners[name]
                told = deciding.note(self.known[name], found, pipeline.alerts, now=self.now, muted=name in self.muted)
                self._tell(pipeline, told)

    # -- what is told

    def _each(self, decide: Callable[[str, PipelinePlan], Sequence[Telling]]) -> None:
        for name, pipeline in self.listeners.items():
            self._tell(pipeline, decide(name, pipeline))

    def _tell(self, pipeline: PipelinePlan, tellings: Iterable[Telling]) -> None:
        self.tellings += [(pipeline, telling) for telling in tellings]


def summary(swept: Swept) -> Iterator[str]:
    """What a sweep did, a line each, for the tick of a sensor and for the terminal."""
    if swept.busy:
        yield "another look at alerts is under way"
        return
    for sent in swept.delivered.sent:
        yield f"{'not sent' if sent.error else 'sent'} to {shown(sent.channel)}: {sent.title}{f' ({sent.error})' if sent.error else ''}"
    for channel, waiting in dict(swept.delivered.waiting).items():
        first = waiting[0]
        again = f", tried {first.tries} times, again at {first.next_try:%H:%M:%S} UTC: {first.error}" if first.next_try else ""
        yield f"{len(waiting)} waiting for {shown(channel)}{again}"
    yield from swept.notes
