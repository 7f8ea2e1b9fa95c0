"""Sensors of late data: one for each pipeline that looks at its sources again, and for each that follows such a one.

Here: when to look, which reopened windows to ask for now, and the key that makes two ticks ask once. Not here: looking
(`execution.late_data`), what is reopened (`execution.reopening`), events and alerts (`operations.late_data`).

A pipeline asks for its own windows only, so that nobody asks for them twice; what follows becomes due when what it follows is published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

from dataflow_assets.assets.names import LATE_TAG, PIPELINE_TAG, job_name, plain_name, tag_value
from dataflow_assets.execution.late_data import LateWindow, look_for_late_data
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.operations.late_data import Reopened, find_reopened, report
from dataflow_assets.operations.run_requests import run_requests
from dataflow_assets.operations.waiting import reason_to_wait
from dataflow_assets.plan.late_data import may_be_reopened
from dataflow_assets.plan.model import PipelinePlan, ProjectPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Window, parse_duration

_FOLLOWING_SECONDS = 60
"""How often a pipeline that follows asks the ledgers."""
_PAUSE, _LONGEST_PAUSE = timedelta(minutes=2), timedelta(hours=1)
"""Between the tries of what keeps failing: a follower ticks every minute, and a source may be away for a night."""
_FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def build_late_sensors(plan: ProjectPlan, project: Project) -> Iterator[dg.SensorDefinition]:
    """The sensors of a project."""
    for pipeline in plan.pipelines:
        if pipeline.late_data is not None or pipeline.follows:
            yield build_late_sensor(plan, project, pipeline)


def sensor_name(pipeline: PipelinePlan) -> str:
    """The name of a pipeline's sensor."""
    return f"{plain_name(pipeline.name)}_late_data"


def build_late_sensor(plan: ProjectPlan, project: Project, pipeline: PipelinePlan) -> dg.SensorDefinition:
    """One sensor, stopped until somebody starts it unless the YAML says `status: running`, there or at a pipeline that it follows."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        tick = Tick(plan, project, pipeline, context.instance, utc_now(), context.log.info)
        return tick.result(context.cursor)

    return dg.SensorDefinition(
        name=sensor_name(pipeline),
        evaluation_fn=evaluate,
        job_name=job_name(pipeline.name),
        minimum_interval_seconds=_interval(pipeline),
        description=_described(pipeline),
        default_status=dg.DefaultSensorStatus.RUNNING if _is_running(pipeline) else dg.DefaultSensorStatus.STOPPED,
        tags={PIPELINE_TAG: tag_value(pipeline.name)},
    )


def _interval(pipeline: PipelinePlan) -> int:
    own = [int(parse_duration(pipeline.late_data.every).total_seconds())] if pipeline.late_data else []
    return min([*own, *([_FOLLOWING_SECONDS] if pipeline.follows else [])])


def _is_running(pipeline: PipelinePlan) -> bool:
    own = pipeline.late_data is not None and pipeline.late_data.status == "running"
    return own or any(_is_running(followed.pipeline) for followed in pipeline.follows)


def _described(pipeline: PipelinePlan) -> str:
    options = pipeline.late_data
    said = []
    if options is not None:
        which = f"that ended in the last {options.max_age}" if options.max_age else "published last"
        said.append(f"Every {options.every}: looks again at the sources of the windows {which}")
        said.append("runs those again whose rows have changed" if options.reopen else "tells which rows have changed")
    if pipeline.follows:
        said.append(f"follows {', '.join(followed.pipeline.name for followed in pipeline.follows)} when old rows of it were rewritten")
    return "; ".join(said) + "."


@dataclass
class Tick:
    """One evaluation of a sensor. `say` writes into the tick's log."""

    plan: ProjectPlan
    project: Project
    pipeline: PipelinePlan
    instance: dg.DagsterInstance
    now: datetime
    say: Callable[[str], None] = field(default=lambda _: None)

    def result(self, cursor: str | None) -> dg.SensorResult:
        """Look when it is time, and ask for the reopened windows. Raises DataflowError when a system cannot be asked."""
        found: list[LateWindow] = []
        if self.pipeline.late_data is not None and self._is_time(cursor):
            found = look_for_late_data(self.project, self.pipeline, now=self.now, tell=self._tell)
            cursor = json.dumps({"looked_at": self.now.isoformat()})
        requests = self._requests()
        if isinstance(requests, str):
            looked = _summed_up(found)
            return dg.SensorResult(skip_reason="; ".join(filter(None, [looked, requests])), cursor=cursor)
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    def _is_time(self, cursor: str | None) -> bool:
        options = self.pipeline.late_data
        last = _looked_at(cursor)
        # a tick may come a little early: half a second less than the period counts
        return options is not None and (last is None or self.now - last >= parse_duration(options.every) - timedelta(seconds=0.5))

    def _tell(self, found: Iterable[LateWindow]) -> None:
        windows = list(found)
        for window in windows:
            if window.finding in {"late", "unknown"}:
                self.say(f"{window.pipeline} {window.key}: {window.sentence}")
        report(self.instance, self.plan, self.project, windows)

    def _requests(self) -> list[dg.RunRequest] | str:
        """What is asked for, or why nothing is."""
        if not may_be_reopened(self.pipeline):
            return "nothing is run again: late_data says reopen: false"
        reopened = find_reopened(self.project, self.pipeline, now=self.now)
        if not reopened.windows:
            return "no window is reopened"
        if wait := reason_to_wait(self.instance, self.project, self.pipeline, now=self.now):
            return wait
        ready, waiting = self._ready(reopened)
        if not ready:
            return waiting
        facts = self._facts(ready)
        tags = {PIPELINE_TAG: tag_value(self.pipeline.name), LATE_TAG: facts}
        failed = self.instance.get_run_records(dg.RunsFilter(tags=tags, statuses=_FAILED))
        if (later := _again_at(failed)) > utc_now():
            return f"{len(failed)} runs for this have failed; the next is asked for after {later:%Y-%m-%d %H:%M:%S} UTC"
        tries = len(failed)
        windows = [window for window in ready.values() if window is not None]
        for key in ready:
            self.say(f"{self.pipeline.name} {key}: {reopened.reasons[key]}")
        return run_requests(self.pipeline, windows, key=f"late:{self.pipeline.name}:{facts}:{tries}", tags={LATE_TAG: facts})

    def _ready(self, reopened: Reopened) -> tuple[dict[str, Window | None], str]:
        """The windows that nothing upstream is to rewrite first, and what the others wait for."""
        open_above = {found.pipeline.name: found for found in self._open_above(self.pipeline, {})}
        ready: dict[str, Window | None] = {}
        waiting: dict[str, None] = {}
        for key, window in reopened.windows.items():
            time = plan.reads(window) if (plan := self.pipeline.windows) is not None and window is not None else window
            above = [name for name, found in open_above.items() if _meets(time, found.windows.values())]
            if above:
                waiting |= dict.fromkeys(above)
            else:
                ready[key] = window
        return ready, f"{self.pipeline.name} waits for {', '.join(waiting)}, which is to be published again first"

    def _open_above(self, pipeline: PipelinePlan, known: dict[str, Reopened]) -> Iterator[Reopened]:
        """What is reopened of the pipelines that this one follows, however far above."""
        for followed in pipeline.follows:
            other = followed.pipeline
            if other.name not in known:
                known[other.name] = find_reopened(self.project, other, now=self.now)
                yield known[other.name]
                yield from self._open_above(other, known)

    def _facts(self, windows: Mapping[str, Window | None]) -> str:
        """What this request would replace: asked for twice, it is the same; after any publish it is another."""
        ledgers = ledger_entries(self.project, self.pipeline, now=self.now)
        held = [
            (entry.unit.key, step, entry.generation) for step, entries in ledgers.items() for entry in entries if entry.unit.key in windows
        ]
        return hashlib.sha256(json.dumps(sorted(held)).encode()).hexdigest()[:16]


def _again_at(failed: Sequence[dg.RunRecord]) -> datetime:
    """When what failed may be asked for again: the first time at once, then after a pause that doubles."""
    ended = [datetime.fromtimestamp(record.end_time, UTC) for record in failed if record.end_time is not None]
    if not ended or len(failed) < 2:
        return datetime.min.replace(tzinfo=UTC)
    doubled: int = 2 ** min(len(failed) - 2, 16)
    return max(ended) + min(_PAUSE * doubled, _LONGEST_PAUSE)


def _meets(window: Window | None, others: Iterable[Window | None]) -> bool:
    return any(window is None or other is None or window.overlaps(other) for other in others)


def _looked_at(cursor: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(json.loads(cursor or "")["looked_at"])
    except (ValueError, KeyError, TypeError):
        return None


def _summed_up(found: list[LateWindow]) -> str:
    if not found:
        return ""
    counts = {finding: sum(window.finding == finding for window in found) for finding in ("late", "baseline", "unknown")}
    said = ", ".join(f"{count} {finding}" for finding, count in counts.items() if count)
    return f"{len(found)} windows looked at: {said or 'all as published'}"
