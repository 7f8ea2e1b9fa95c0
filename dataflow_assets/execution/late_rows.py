"""How many rows of a window came, changed and vanished at its source, and the sentence that says so.

Here: counting the rows that differ where the old ones can still be had, which is in a target that holds them unchanged; honest words where
they cannot. Not here: whether anything differs at all (`execution.late_data`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dataflow_assets.execution.bisecting import find_differences
from dataflow_assets.execution.comparing import opened, source_side, target_side
from dataflow_assets.execution.fingerprints import Fingerprint
from dataflow_assets.execution.quarantine import may_quarantine
from dataflow_assets.execution.reconciling import identifying, options_of, window_of
from dataflow_assets.execution.session import Session
from dataflow_assets.execution.work import producer_of
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.spec.late_data import LateDataOptions
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets.windows import Window

MOST = 1_000
"""So many differing rows are counted one by one; of more it is said that there are more."""


@dataclass(frozen=True)
class Changes:
    """What became of a window's rows. Without `keys`, a changed row counts as one that vanished and one that came.

    `counted`: whether rows were compared; else only `difference`, the number of rows more than before, is known. `complete`: there are no
    others. `by_count`: checksums were not compared, so rows that merely changed would not have been seen.
    """

    difference: int
    came: int = 0
    changed: int = 0
    vanished: int = 0
    keys: tuple[str, ...] = ()
    counted: bool = False
    complete: bool = True
    by_count: bool = False


def changes_of(
    session: Session,
    source: StepPlan,
    endpoints: Sequence[StepPlan],
    window: Window | None,
    options: LateDataOptions,
    *,
    published: Fingerprint,
    seen: Fingerprint,
) -> Changes:
    """What differs between a source and what was published of it; `published` and `seen` are already known to differ.

    Raises ReadFailed, ConnectionFailed.
    """
    difference = seen.tally.rows - published.tally.rows
    by_count = not seen.columns
    for step in endpoints:
        target = session.target(step, window)
        if by_count or not _holds_the_old_rows(session.pipeline, source, step, target, window):
            continue
        if found := _compared(session, source, step, target, window, options, difference):
            return found
    return Changes(difference, by_count=by_count)


def _holds_the_old_rows(pipeline: PipelinePlan, source: StepPlan, step: StepPlan, target: Target, window: Window | None) -> bool:
    """Whether the target has what the source had, unchanged, and the window's rows can be told from others."""
    if producer_of(pipeline, step) is not source or may_quarantine(pipeline, step) or target.mode is WriteMode.APPEND:
        return False
    return window is None or window_of(target, window) is not None


def _compared(
    session: Session, source: StepPlan, step: StepPlan, target: Target, window: Window | None, options: LateDataOptions, difference: int
) -> Changes | None:
    """The rows that differ; None where source and target have the same rows by now, or none in common that could be compared."""
    sides = source_side(session, source, window), target_side(session, step, target, window_of(target, window))
    with opened(*sides, ignore=options.ignore) as pair:
        totals = pair.totals()
        if totals[0] == totals[1]:
            return None
        compared = {column.name for column in pair.agreed.columns}
        named = tuple(name for name in options.keys or identifying(step, options_of(step)) if name in compared) or pair.primary_key()
        found = find_differences(pair, totals, keys=named, limit=MOST)
    came, changed, vanished = (found.count(kind) for kind in ("missing", "changed", "extra"))
    if not came + changed + vanished:
        return None
    return Changes(difference, came, changed, vanished, tuple(named), counted=True, complete=found.complete)


def sentence_of(changes: Changes, *, published_at: datetime) -> str:
    """What has changed at a source since a window was published, in words that claim no more than is known."""
    since = f"since it was published at {published_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{_what(changes)} at the source {since}"


def _what(changes: Changes) -> str:
    more = "" if changes.complete else "at least "
    if changes.counted and changes.keys:
        return f"{more}{_rows(changes.came)} came, {changes.changed:,} changed, {changes.vanished:,} vanished"
    if changes.counted:
        return f"{more}{_rows(changes.came)} came or changed, {changes.vanished:,} vanished or changed"
    if not changes.difference:
        return "rows changed, or as many came as vanished,"
    count = abs(changes.difference)
    kind = "more" if changes.difference > 0 else "fewer"
    others = "" if changes.by_count else ", and others may have changed,"
    return f"{_rows(count)} {kind} than before{others}"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
