"""A batch that one endpoint has appended and another has not, which a later run is to complete.

Here: under which name the rows of a run without windows are published, and the refusal where nobody can tell which of them an endpoint has
already. Not here: who is ahead (`execution.shared_state`), the publish (`execution.publishing`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dataflow_assets.errors import BatchUnclear
from dataflow_assets.execution.shared_state import batch_of
from dataflow_assets.execution.work import Work, sources_of
from dataflow_assets.plan.model import StepPlan
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.storage.stages import Stage
from dataflow_assets.tables import LedgerEntry, WriteMode


@dataclass(frozen=True)
class Batch:
    """`name` is its unit in the ledgers. `label`: what an endpoint that has it already calls it; empty for a new one."""

    name: str
    label: str = ""


def batch_for(work: Work, step: StepPlan, stage: Stage) -> Batch:
    """The batch that the endpoint gets this stage as: the one it was read for, or the unfinished one that it completes.

    Endpoints that were each run alone have the same rows under different names: one that has the batch keeps its own name for it.
    Rows that were read from where the state stood before an unfinished batch may hold that batch and newer rows: an endpoint that has
    appended it can take neither all of them nor none. Raises BatchUnclear then. A pipeline that asks for no state reads what it reads
    whatever was published, and each of its runs is a batch of its own.
    """
    state = work.session.state_of(step)
    together = tuple(item.id for item in state.endpoints)
    # kept: whoever asks for the state later on, for what is written, must not turn this into an answer
    ahead = work.ahead.setdefault(together, state.ahead)
    found = {name: _completed(work, work.pipeline.by_id[name], entries, together) for name, entries in _appended(work, ahead).items()}
    if not found:
        return Batch(stage.receipt.batch)
    first, own = next(iter(found.values())), found.get(step.id)
    name = (own or first).unit.key
    return Batch(stage.receipt.batch if own is None and name == WHOLE else name, batch_of(first))


def _appended(work: Work, ahead: Mapping[str, tuple[LedgerEntry, ...]]) -> Mapping[str, tuple[LedgerEntry, ...]]:
    """Of those that are ahead the ones that append: an upsert takes rows twice without harm."""
    return {step: found for step, found in ahead.items() if step in work.targets and work.targets[step].mode is WriteMode.APPEND}


def _completed(work: Work, step: StepPlan, entries: tuple[LedgerEntry, ...], together: Collection[str]) -> LedgerEntry:
    """The batch that the endpoint has and others lack, when this run holds its rows. Raises BatchUnclear."""
    receipt, newest = work.stage_of(step).receipt, max(entries, key=lambda entry: entry.published_at)
    taken_over = newest.unit.key == receipt.batch and sources_of(work.pipeline, step) <= work.resumed
    made = (newest.rows, newest.checksum, newest.schema_fingerprint)
    if len(entries) == 1 and (taken_over or made == (receipt.rows, receipt.checksum, receipt.schema_fingerprint)):
        return newest
    own = f"{work.pipeline.name}.{step.id}"
    others = [f"{work.pipeline.name}.{name}" for name in together if name in work.chosen and name != step.id]
    alone = ", then ".join(f"dataflow run --select {name}" for name in (*others, own))
    raise BatchUnclear(
        f"{own} has {newest.rows:,} rows of batch {newest.unit.key} that {', '.join(others)} did not get, and "
        f"they cannot be told from newer ones any more: {receipt.rows:,} rows are there since the last batch that all have",
        hint=f"nothing was published; let each catch up alone while the source stands still: {alone}; or --full-refresh, which replaces "
        "what the targets hold by what the source holds now (a folder of files that was appended to must be emptied first)",
    )
