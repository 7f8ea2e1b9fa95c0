"""Which published windows are reopened, as it follows from the ledgers and from what was last seen at the sources.

Here: the rule. Not here: looking at sources (`execution.late_data`), what a pipeline follows (`execution.following`), which windows are due
(`plan.windows`).

A window is reopened while its source, when it was last seen, held other rows than those that were published: seen after that publish, or
after the rows of it were read. A publish with newer rows ends it, a failed one does not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.fingerprints import Fingerprint, fingerprints_of
from dataflow_assets.execution.following import reopened_by_upstream, upstream_ledgers
from dataflow_assets.execution.losses import Losses
from dataflow_assets.execution.sightings import Sighting, Sightings, known_sightings
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.plan.retention import reads_what_left
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry, WriteMode

_log = logging.getLogger(__name__)
Ledger = Mapping[str, Sequence[LedgerEntry]]
"""Endpoint step -> what its ledger holds."""


def reopened_windows(project: Project, pipeline: PipelinePlan, ledger: Ledger, *, now: datetime) -> dict[str, str]:
    """Window key -> why it is to be published again. Asks no source."""
    options = pipeline.late_data
    found: dict[str, str] = {}
    if options is not None and options.reopen:
        found |= reopened_by_source(pipeline, ledger, known_sightings(project, pipeline.name))
    for key, reason in _by_upstream(project, pipeline, ledger, now).items():
        found[key] = f"{found[key]}; {reason}" if key in found else reason
    return _without_losses(pipeline, ledger, found, Losses(project, pipeline, now=now), now) if pipeline.loses else found


def _without_losses(pipeline: PipelinePlan, ledger: Ledger, found: Mapping[str, str], losses: Losses, now: datetime) -> dict[str, str]:
    """Without the windows that stay as they are because retention has taken what they were made of, or takes it any day."""
    windows = {entry.unit.key: entry.unit.window for entries in ledger.values() for entry in entries}
    staying = {key for key in found if reads_what_left(pipeline, windows.get(key), now=now) or losses.why_left_alone(windows.get(key))}
    return {key: reason for key, reason in found.items() if key not in staying}


def _by_upstream(project: Project, pipeline: PipelinePlan, ledger: Ledger, now: datetime) -> dict[str, str]:
    """An upstream that cannot be asked stops nobody: what it has rewritten is seen once it answers."""
    if not pipeline.follows:
        return {}
    try:
        upstream = upstream_ledgers(project, pipeline, now=now)
    except DataflowError as error:
        _log.warning("what %s follows cannot be asked, so nothing of it counts as reopened for that: %s", pipeline.name, mask(str(error)))
        return {}
    return reopened_by_upstream(pipeline, list(rewritable(pipeline, ledger).values()), upstream)


def reopened_by_source(pipeline: PipelinePlan, ledger: Ledger, sightings: Sightings) -> dict[str, str]:
    """The windows whose source has changed, with what has."""
    entries = {name: newest_of_each(found) for name, found in rewritable(pipeline, ledger).items()}
    reasons: dict[str, list[str]] = {}
    for (key, _), sighting in sightings.items():
        against = {name: found[key] for name, found in entries.items() if key in found}
        if is_open(sighting, against):
            reasons.setdefault(key, []).append(sighting.sentence)
    return {key: "; ".join(filter(None, found)) or "its source has changed" for key, found in reasons.items()}


def is_open(sighting: Sighting, entries: Mapping[str, LedgerEntry]) -> bool:
    """Whether an endpoint's publish of the window is without what was seen."""
    for name, entry in entries.items():
        published = published_rows(sighting, name, entry)
        if published is None or published.same_rows(sighting.seen):
            continue
        read_before = published.read_at is not None and published.read_at < sighting.at
        if sighting.compared.get(name) == entry.generation or read_before:
            return True
    return False


def published_rows(sighting: Sighting | None, endpoint: str, entry: LedgerEntry) -> Fingerprint | None:
    """What the source held when an endpoint's window was read; of a publish without a fingerprint, what the first look saw."""
    if sighting is None:
        return None
    if own := fingerprints_of(entry).get(sighting.step):
        return own
    return sighting.baseline if sighting.compared.get(endpoint) == entry.generation else None


def rewritable(pipeline: PipelinePlan, ledger: Ledger) -> dict[str, Sequence[LedgerEntry]]:
    """The ledgers of the endpoints that publish a window anew; of batches without windows only the newest counts."""
    found: dict[str, Sequence[LedgerEntry]] = {}
    for step in pipeline.endpoints:
        if step.mode is not WriteMode.APPEND:
            entries = ledger.get(step.id, ())
            found[step.id] = entries if pipeline.windows else sorted(entries, key=lambda entry: entry.published_at)[-1:]
    return found


def newest_of_each(entries: Sequence[LedgerEntry]) -> dict[str, LedgerEntry]:
    """Window key -> its newest entry."""
    return dict(_by_key(sorted(entries, key=lambda entry: entry.published_at)))


def _by_key(entries: Sequence[LedgerEntry]) -> Iterator[tuple[str, LedgerEntry]]:
    for entry in entries:
        yield (entry.unit.key if entry.unit.window is not None else WHOLE), entry
