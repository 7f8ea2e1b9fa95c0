"""Pauses: a pipeline that somebody has told to wait, for a while or until further notice.

Here: the record, kept among the cursor values of the Dagster instance so that every host sees it, and which of two pauses counts. Not
here: `paused_until` as it is written (`plan.schedules`), what a tick does about it (`operations.schedules`), the verbs (`cli.pause`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow_assets.assets.instance import home_of, open_instance
from dataflow_assets.assets.instance_settings import storage_of
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.project import Project

if TYPE_CHECKING:
    import dagster as dg

_MOST_NAMES = 500


@dataclass(frozen=True)
class Pause:
    """`until` None: until somebody ends it. `by` is who said so, or the file in which it is written."""

    until: datetime | None
    reason: str = ""
    by: str = ""
    since: datetime | None = None
    written: bool = False
    """Whether it stands in the YAML, and ends there only."""

    def holds(self, now: datetime) -> bool:
        """Whether it is in force at `now`."""
        return self.until is None or now < self.until

    def text(self, pipeline: PipelinePlan) -> str:
        """`paused until 2026-12-01 06:00 UTC by ann: the warehouse moves`, on the pipeline's clock."""
        schedule, windows = pipeline.schedule, pipeline.windows
        zone = schedule.timezone if schedule else windows.cadence.timezone if windows else "UTC"
        ends = f"until {_shown(self.until, zone)}" if self.until else "until somebody unpauses it"
        by = f" (paused_until in {self.by})" if self.written else f" by {self.by}" if self.by else ""
        return f"paused {ends}{by}" + (f": {self.reason}" if self.reason else "")


def _shown(moment: datetime, zone: str) -> str:
    from zoneinfo import ZoneInfo

    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M} {zone}"


def pause_of(pipeline: PipelinePlan, kept: Pause | None, *, now: datetime) -> Pause | None:
    """The pause that holds at `now`, that of the YAML or the kept one; of two the one that lasts longer."""
    written = pipeline.schedule.paused_until if pipeline.schedule else None
    found = [Pause(written, by=pipeline.place.file, written=True)] if written else []
    found += [kept] if kept else []
    holding = [pause for pause in found if pause.holds(now)]
    return max(holding, key=lambda pause: (pause.until is None, pause.until or now), default=None)


def kept_pauses(instance: dg.DagsterInstance, project: str, names: Iterable[str]) -> dict[str, Pause]:
    """Pipeline -> the pause kept for it in the instance, over or not; `project` is the project's name."""
    keys = {_key(project, name): name for name in names}
    return _read(keys, instance.run_storage.get_cursor_values(set(keys)) if keys else {})


def keep_pause(instance: dg.DagsterInstance, project: str, name: str, pause: Pause | None) -> None:
    """Pause a pipeline, or with None end its pause."""
    said = "" if pause is None else json.dumps(_document(pause))
    instance.run_storage.set_cursor_values({_key(project, name): said})


def paused_now(project: Project, pipelines: Iterable[PipelinePlan], *, now: datetime) -> dict[str, Pause]:
    """Pipeline -> the pause that holds at `now`, for a terminal: where the history is SQLite it is read without Dagster's import."""
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    kept = _kept(project, list(by_name))
    found = {name: pause_of(pipeline, kept.get(name), now=now) for name, pipeline in by_name.items()}
    return {name: pause for name, pause in found.items() if pause}


def _kept(project: Project, names: list[str]) -> dict[str, Pause]:
    title = project.model.project_name
    home = home_of(project)
    if storage_of(home) != "sqlite":
        with open_instance(project) as instance:
            return kept_pauses(instance, title, names)
    keys = {_key(title, name): name for name in names}
    return _read(keys, _values(home / "history" / "runs.db", list(keys)))


def _values(file: Path, keys: list[str]) -> Mapping[str, str]:
    """Dagster's cursor values, from the table in which its SQLite storage keeps them."""
    import sqlite3

    if not file.exists():
        return {}
    found: dict[str, str] = {}
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'kvs'").fetchone():
            return {}
        for start in range(0, len(keys), _MOST_NAMES):
            part = keys[start : start + _MOST_NAMES]
            marks = ", ".join("?" * len(part))
            found |= dict(connection.execute(f"SELECT key, value FROM kvs WHERE key IN ({marks})", part))  # noqa: S608 - marks only
    return found


def _key(project: str, pipeline: str) -> str:
    return f"dataflow/pause/{project}/{pipeline}"


def _document(pause: Pause) -> dict[str, str | None]:
    until, since = (moment.isoformat() if moment else None for moment in (pause.until, pause.since))
    return {"until": until, "reason": pause.reason, "by": pause.by, "since": since}


def _read(keys: Mapping[str, str], values: Mapping[str, str]) -> dict[str, Pause]:
    """What is no pause, such as one that was ended, is left out."""
    found = {}
    for key, text in values.items():
        if text and (pause := _pause(text)):
            found[keys[key]] = pause
    return found


def _pause(text: str) -> Pause | None:
    try:
        said = json.loads(text)
        until, since = (datetime.fromisoformat(said[name]) if said[name] else None for name in ("until", "since"))
        return Pause(until, str(said["reason"]), str(said["by"]), since)
    except (ValueError, TypeError, KeyError):
        return None
