"""Pipelines that follow: whether what one has read of another was rewritten since, for rows that came late.

Here: the mark that a rewritten window carries in its ledger, what a window keeps of the marks that it has read, and which windows are
reopened because the two differ. Not here: sources outside of the project (`execution.late_data`).

Nothing is counted twice and nothing is remembered elsewhere: both sides are committed with the rows that they speak of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.fingerprints import fingerprint_state, fingerprints_of
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.session import Session
from dataflow_assets.execution.work import Work
from dataflow_assets.plan.late_data import is_followed
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import Claim, LedgerEntry
from dataflow_assets.windows import Window

REWRITTEN = "rewritten"
"""Where a ledger entry's `state` keeps the generation that last replaced its rows by others."""
READ = "upstream"
"""Where it keeps what was rewritten of the pipelines before it when its rows were read."""
_NAMED = 3
Ledgers = Mapping[str, Sequence[LedgerEntry]]
"""`pipeline.endpoint` -> what its ledger holds."""


def upstream_ledgers(project: Project, pipeline: PipelinePlan, *, now: datetime) -> Ledgers:
    """The ledgers that a pipeline follows. Raises ConnectionFailed."""
    found: dict[str, Sequence[LedgerEntry]] = {}
    for followed in pipeline.follows:
        names = {step.id for step in followed.endpoints}
        entries = ledger_entries(project, followed.pipeline, now=now)
        found |= {f"{followed.pipeline.name}.{name}": entries[name] for name in entries if name in names}
    return found


def note_upstream(work: Work) -> None:
    """Keep what was rewritten upstream before the first row is read; what is rewritten later makes the window run once more.

    An upstream that cannot be asked stops nothing: then the times of publishing are compared.
    """
    if work.pipeline.follows:
        try:
            ledgers = work.session.shared(READ, lambda: _ledgers_of(work.session))
        except DataflowError:
            return
        work.upstream = {name: token(entries, _time_read(work.pipeline, work.window)) for name, entries in ledgers.items()}


def _time_read(pipeline: PipelinePlan, window: Window | None) -> Window | None:
    """The time of which a window reads what is upstream: its own and, where `windows: reads_back` says so, some before it."""
    return pipeline.windows.reads(window) if pipeline.windows is not None and window is not None else window


def _ledgers_of(session: Session) -> Ledgers:
    return upstream_ledgers(session.project, session.pipeline, now=session.request.now)


def token(entries: Iterable[LedgerEntry], window: Window | None) -> str:
    """What was rewritten of an endpoint in the time of a window, in few characters; empty when nothing was."""
    marks = sorted((entry.unit.key, entry.state[REWRITTEN]) for entry in _rewritten(entries, window))
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:16] if marks else ""


def _rewritten(entries: Iterable[LedgerEntry], window: Window | None) -> Iterator[LedgerEntry]:
    for entry in entries:
        meets = window is None or entry.unit.window is None or entry.unit.window.overlaps(window)
        if meets and entry.state.get(REWRITTEN):
            yield entry


def following_state(work: Work, step: StepPlan, claim: Claim, checksum: str) -> dict[str, str]:
    """What an endpoint's entry says for those who follow it, and of those whom it follows."""
    state = {READ: json.dumps(work.upstream)} if work.upstream is not None else {}
    mark = _mark(work, step, claim, checksum) if is_followed(work.pipeline) else ""
    return {**state, REWRITTEN: mark} if mark else state


def _mark(work: Work, step: StepPlan, claim: Claim, checksum: str) -> str:
    """The generation that replaced other rows. The first publish replaces none; a dataset without windows grows, which is no news of
    old rows: there it counts when a source, or a pipeline before it, was looked at and has changed."""
    before = claim.published
    if before is None:
        return ""
    known = before.state.get(REWRITTEN, "")
    if before.checksum == checksum:
        return known
    if claim.unit.window is None and not _has_news(work, step, before):
        return known
    return str(claim.generation)


def _has_news(work: Work, step: StepPlan, before: LedgerEntry) -> bool:
    if work.upstream is not None and READ in before.state and json.loads(before.state[READ]) != work.upstream:
        return True
    fingerprint_state(work, step)
    known = fingerprints_of(before)
    return any(name in known and not known[name].same_rows(now) for name, now in work.fingerprints.items())


def reopened_by_upstream(pipeline: PipelinePlan, own: Sequence[Sequence[LedgerEntry]], ledgers: Ledgers) -> dict[str, str]:
    """Window key -> why it is to run again, for the windows of a pipeline whose upstream was rewritten since they were read."""
    found: dict[str, str] = {}
    for entry in (entry for endpoint in own for entry in endpoint):
        time = _time_read(pipeline, entry.unit.window)
        reasons = [reason for name, entries in ledgers.items() if (reason := _reason(entry, name, list(_rewritten(entries, time))))]
        if reasons:
            found[entry.unit.key if pipeline.windows else WHOLE] = "; ".join(reasons)
    return found


def _reason(entry: LedgerEntry, name: str, rewritten: Sequence[LedgerEntry]) -> str:
    recorded = json.loads(entry.state[READ]).get(name) if READ in entry.state else None
    if recorded is None:
        rewritten = [other for other in rewritten if other.published_at > entry.published_at]
    elif recorded == token(rewritten, None):
        return ""
    if not rewritten:
        return ""
    newest = sorted(rewritten, key=lambda other: other.published_at, reverse=True)
    keys = ", ".join(other.unit.key for other in newest[:_NAMED]) + (" ..." if len(newest) > _NAMED else "")
    where = "" if newest[0].unit.window is None else f" {keys}"
    return f"{name}{where} was rewritten at {newest[0].published_at:%Y-%m-%d %H:%M:%S} UTC, after it was read"
