"""Whether an incident is told: once for one cause, again when it changes or still lasts, and when it is over.

Here: pure decisions about one pipeline's incidents, on what is remembered of them. Not here: where that is kept (`memory`), what happened
(`watching`), the words (`wording`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dataflow_assets.operations.alerts.incidents import Incident
from dataflow_assets.operations.alerts.memory import Known, PipelineMemory
from dataflow_assets.plan.model import AlertPlan

LASTING = frozenset({"failure", "check_failure", "stale_run", "overdue", "gap"})
"""Events that go on until somebody mends something: that they are over is told."""
FOUND_ANEW = frozenset({"overdue"})
"""Those that each look finds again while they last: it tells them again, and what none has found for long, such as of a pipeline that is
paused by now, is forgotten."""
REMINDED = LASTING - {"gap"} - FOUND_ANEW
"""Those that are told again while they last. What was left out of loading may be left out for good."""
ENDED_BY_RUNS = frozenset({"failure", "check_failure", "stale_run", "gap"})
"""Events that end when their windows are published."""
_MOST_WINDOWS = 1000


@dataclass(frozen=True)
class Telling:
    """One thing to be told: an incident, how it is known by now, and whether it is new, changed, still so, or over."""

    kind: str
    incident: Incident
    known: Known


def note(memory: PipelineMemory, incidents: Iterable[Incident], plan: AlertPlan, *, now: datetime, muted: bool = False) -> list[Telling]:
    """Take up what was found of a pipeline, and say what of it is to be told. Changes `memory`."""
    return [telling for incident in joined(incidents) if (telling := _noted(memory, incident, plan, now=now, muted=muted))]


def joined(incidents: Iterable[Incident]) -> list[Incident]:
    """The incidents in their order, the windows of one and the same in one; of what else differs the last word counts."""
    found: dict[tuple[str, bool], Incident] = {}
    for incident in incidents:
        key = (incident.identity, incident.over)
        before = found.pop(key, None)
        windows = dict.fromkeys([*(before.windows if before else ()), *incident.windows])
        since = min((item.since for item in (before, incident) if item and item.since), default=None)
        found[key] = replace(incident, windows=tuple(windows), since=since)
    return list(found.values())


def _noted(memory: PipelineMemory, incident: Incident, plan: AlertPlan, *, now: datetime, muted: bool) -> Telling | None:
    if incident.over:
        return end(memory, incident.identity, plan, now=now, muted=muted, summary=incident.summary, run_id=incident.run_id)
    if incident.event not in plan.events:
        return None
    before = memory.known.get(incident.identity)
    if before is None:
        before = Known(incident.event, incident.identity, memory.count, incident.summary, since=incident.since or now)
        memory.count += 1
    windows = tuple(dict.fromkeys([*before.windows, *incident.windows]))[-_MOST_WINDOWS:]
    known = replace(
        before,
        summary=incident.summary,
        step=incident.step,
        windows=windows,
        change=incident.change,
        run_id=incident.run_id,
        last=now,
        times=before.times + 1,
    )
    memory.known[incident.identity] = known
    kind = _kind(known, plan, now=now)
    if kind is None or muted:
        return None
    return Telling(kind, incident, _told(memory, known, now=now))


def _kind(known: Known, plan: AlertPlan, *, now: datetime) -> str | None:
    if known.told_at is None:
        return "new"
    if known.change != known.told_change:
        return "changed"
    return "still" if now - known.told_at >= timedelta(seconds=plan.repeat_after) else None


def _told(memory: PipelineMemory, known: Known, *, now: datetime) -> Known:
    memory.known[known.identity] = told = replace(known, told=known.told + 1, told_at=now, told_change=known.change)
    return told


def end(
    memory: PipelineMemory, identity: str, plan: AlertPlan, *, now: datetime, muted: bool = False, summary: str = "", run_id: str = ""
) -> Telling | None:
    """An incident is over: forget it, and tell so if it was told and lasts until somebody mends something, or if its end is reported."""
    known = memory.known.pop(identity, None)
    if known is None or known.told_at is None or muted or "recovery" not in plan.events:
        return None
    if known.event not in LASTING and not summary:
        return None
    over = Incident(known.event, "", summary, run_id=run_id, step=known.step, over=True)  # type: ignore[arg-type]
    return Telling("over", over, replace(known, last=now))


def published(
    memory: PipelineMemory, windows: Collection[str | None], plan: AlertPlan, *, now: datetime, muted: bool, run_id: str
) -> list[Telling]:
    """Windows were published (None: a pipeline without windows): incidents that were about them alone are over."""
    return list(_ended(memory, ENDED_BY_RUNS, windows, plan, now=now, muted=muted, run_id=run_id))


def passed(
    memory: PipelineMemory, identity: str, windows: Collection[str | None], plan: AlertPlan, *, now: datetime, muted: bool, run_id: str
) -> list[Telling]:
    """A check has passed in these windows."""
    known = memory.known.get(identity)
    return list(_ended(memory, {known.event}, windows, plan, now=now, muted=muted, run_id=run_id, only=identity)) if known else []


def _ended(
    memory: PipelineMemory,
    events: Collection[str],
    windows: Collection[str | None],
    plan: AlertPlan,
    *,
    now: datetime,
    muted: bool,
    run_id: str,
    only: str | None = None,
) -> Iterator[Telling]:
    if not windows:
        return
    for known in list(memory.known.values()):
        if known.event not in events or (only is not None and known.identity != only):
            continue
        if known.event == "gap" and not known.windows:  # which windows are missing nobody said: another one is no cure
            continue
        left = tuple(window for window in known.windows if window not in windows)
        if left and left != known.windows:
            memory.known[known.identity] = replace(known, windows=left)
        elif not left:
            telling = end(memory, known.identity, plan, now=now, muted=muted, run_id=run_id)
            if telling:
                yield replace(telling, known=replace(telling.known, windows=known.windows))


def remind(memory: PipelineMemory, plan: AlertPlan, *, now: datetime, muted: bool) -> list[Telling]:
    """What still lasts, and was told long ago or, since the pipeline was muted, not at all; what does not last is forgotten in time."""
    found = []
    for known in list(memory.known.values()):
        stale = now - (known.last or now) >= timedelta(seconds=plan.repeat_after)
        if known.event not in LASTING - FOUND_ANEW and stale and known.told_at is not None:
            memory.without(known.identity)
        elif not muted and known.event in plan.events and (kind := _reminder(known, plan, now=now)):
            incident = Incident(known.event, "", known.summary, step=known.step, windows=known.windows, run_id=known.run_id)  # type: ignore[arg-type]
            found.append(Telling(kind, incident, _told(memory, known, now=now)))
    return found


def _reminder(known: Known, plan: AlertPlan, *, now: datetime) -> str | None:
    kind = _kind(known, plan, now=now)
    return kind if kind != "still" or known.event in REMINDED else None
