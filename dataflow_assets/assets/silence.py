"""Whether a pipeline is to be left alone by what runs by itself: pauses and blackouts.

Here: one question, for every schedule, sensor and condition. Not here: how a pause is kept (`assets.pauses`), calendars (`calendars`).
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg

from dataflow_assets.assets.pauses import kept_pauses, pause_of
from dataflow_assets.calendars import covering
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.project import Project


def reason_for_silence(instance: dg.DagsterInstance, project: Project, pipeline: PipelinePlan, *, now: datetime) -> str:
    """Why nothing is to be asked for at `now`, whatever is due; empty where nothing stands against it."""
    kept = kept_pauses(instance, project.model.project_name, [pipeline.name]).get(pipeline.name)
    if pause := pause_of(pipeline, kept, now=now):
        how = "" if pause.written else f"; dataflow unpause {pipeline.name} ends it"
        return f"{pipeline.name} is {pause.text(pipeline)}{how}"
    schedule = pipeline.schedule
    if schedule and (calendar := covering(schedule.blackout, now)):
        end = calendar.end(now)
        until = f" until {end.astimezone(ZoneInfo(schedule.timezone)):%Y-%m-%d %H:%M} {schedule.timezone}" if end else ""
        return f"blackout {calendar.name}{until}; what is due by then is asked for at the first tick after it"
    return ""
