"""An incident in words: what, where, since when, how many rows or what value, what was not affected, and what to do next.

Here: plain text, secrets masked, control characters taken out. Not here: markup of any kind (the channels).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime

from dataflow_assets.operations.alerts.deciding import Telling
from dataflow_assets.operations.alerts.messages import Message, Tone
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project

HEADLINES = {
    "failure": "failed",
    "check_failure": "check failed",
    "check_warning": "check warns",
    "anomaly": "anomaly",
    "late_window": "late data",
    "duration": "slow",
    "gap": "gap",
    "stale_run": "worker died",
    "overdue": "overdue",
}
_UNAFFECTED = {
    "check_warning": "the rows were published: the check does not hold them up",
    "late_window": "what is published is as it was, until the window is loaded again",
}
_WARNINGS = frozenset({"check_warning", "anomaly", "late_window", "duration"})
_SHOWN_WINDOWS = 3
_LONGEST_TITLE, _LONGEST_FACT, _LONGEST_DETAIL = 200, 500, 6000
_READ = 4
"""How many times as much is read as is shown: a secret is masked before the cut, and what is far behind it is not looked at."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def message_of(telling: Telling, pipeline: PipelinePlan, project: Project, *, now: datetime) -> Message:
    """The message of one incident."""
    incident, known, over = telling.incident, telling.known, telling.kind == "over"
    tone: Tone = "good" if over else "warning" if incident.event in _WARNINGS else "bad"
    run_id = incident.run_id or known.run_id
    ui = project.model.alerts.ui_url
    return Message(
        id=f"{plain(project.model.project_name)}/{pipeline.name}/{incident.event}/{known.number}/{known.told + over}",
        event="recovery" if over else incident.event,
        tone=tone,
        project=line(project.model.project_name),
        pipeline=pipeline.name,
        title=line(_title(telling, pipeline), longest=_LONGEST_TITLE),
        facts=tuple((label, line(text.replace(f"{project.root}/", ""))) for label, text in _facts(telling, pipeline, now=now)),
        detail="" if over else text(incident.detail),
        commands=tuple(line(command) for command in (() if over else _commands(telling, pipeline))),
        link=f"{ui.rstrip('/')}/runs/{run_id}" if ui and run_id else "",
        at=now,
    )


def plain(text: str) -> str:
    """`text` as part of an id."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)


def line(text: str, *, longest: int = _LONGEST_FACT) -> str:
    """`text` on one line, without what a terminal or a mail would act on."""
    return _cut(_CONTROL.sub(" ", mask(text[: _READ * longest]).replace("\n", " ").replace("\t", " ")).strip(), longest)


def text(words: str) -> str:
    """`words` in their lines, without what a terminal or a mail would act on."""
    return _cut(_CONTROL.sub(" ", mask(words[: _READ * _LONGEST_DETAIL]).replace("\r\n", "\n")).strip(), _LONGEST_DETAIL)


def _cut(words: str, longest: int) -> str:
    return words if len(words) <= longest else words[: longest - 1] + "…"


def _title(telling: Telling, pipeline: PipelinePlan) -> str:
    incident, headline = telling.incident, HEADLINES[telling.incident.event]
    if telling.kind == "over":
        return f"works again: {pipeline.name} ({headline})"
    again = "still " if telling.kind == "still" else ""
    return f"{again}{headline}: {pipeline.name}{f'.{incident.step}' if incident.step else ''}: {incident.summary}"


def _facts(telling: Telling, pipeline: PipelinePlan, *, now: datetime) -> Iterator[tuple[str, str]]:
    incident, known = telling.incident, telling.known
    yield "What" if telling.kind != "over" else "What it was", known.summary if telling.kind == "over" else incident.summary
    if telling.kind == "over" and incident.summary:
        yield "Now", incident.summary
    yield "Where", _where(telling, pipeline)
    windows = incident.windows or known.windows
    if windows and pipeline.windows is not None:
        yield "Windows" if len(windows) > 1 else "Window", _windows(windows)
    yield "Since", _since(telling, now=now)
    if telling.kind == "over":
        return
    for name, value in incident.facts.items():
        yield name.replace("_", " ").capitalize(), f"{value:,}" if isinstance(value, int) else str(value)
    if unaffected := incident.unaffected or _UNAFFECTED.get(incident.event, ""):
        yield "Not affected", unaffected
    if known.times > 1:
        yield "Seen", f"{known.times:,} times"


def _where(telling: Telling, pipeline: PipelinePlan) -> str:
    incident = telling.incident
    step = pipeline.by_id.get(incident.step)
    place = incident.place or str((step or pipeline).place)
    return f"{pipeline.name}{f'.{incident.step}' if incident.step else ''} ({place})"


def _windows(keys: Sequence[str]) -> str:
    if len(keys) <= _SHOWN_WINDOWS:
        return ", ".join(keys)
    ordered = sorted(keys)
    return f"{len(keys):,} windows from {ordered[0]} to {ordered[-1]}"


def _since(telling: Telling, *, now: datetime) -> str:
    since = telling.known.since or now
    return f"{since:%Y-%m-%d %H:%M} UTC" + (f", for {lasted((now - since).total_seconds())}" if now > since else "")


def lasted(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `5 d 2 h`."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds:.3g} s"


def _commands(telling: Telling, pipeline: PipelinePlan) -> list[str]:
    incident = telling.incident
    if incident.next_step:
        return list(incident.next_step)
    windows = incident.windows or telling.known.windows
    chosen = [word for key in windows for word in ("--window", key)] if pipeline.windows and 0 < len(windows) <= _SHOWN_WINDOWS else []
    return [shlex.join(["dataflow", "run", "--select", pipeline.name, *chosen])]
