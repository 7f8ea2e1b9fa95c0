"""Whose rows retention would take: tables that several pipelines write, and archives that lie in one another's place.

Here: what `retention:` of one pipeline would do to the rows of another. Not here: a section on its own (`plan.retention`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dataflow_assets import discovery
from dataflow_assets.plan.lineage import TableRef, table_of
from dataflow_assets.plan.pipelines import PipelineDraft
from dataflow_assets.plan.quarantine import asides
from dataflow_assets.plan.writes import Writer, apart
from dataflow_assets.tables import TableName

_TARGET, _ARCHIVE = ("retention", "target"), ("retention", "archive")


def keep_what_is_shared(drafts: Sequence[PipelineDraft], *, beside: Sequence[PipelineDraft] = ()) -> list[PipelineDraft]:
    """The drafts, of which those keep their windows that write a table together with another pipeline; a problem where one asks otherwise.

    A window is taken out by its time: the rows of the other pipeline would go with it, and its ledger would still count them. `beside`:
    pipelines that are not enabled, whose rows are there all the same.
    """
    at: dict[tuple[str, str, str], list[Writer]] = {}
    for writer in (writer for draft in (*drafts, *beside) for writer in draft.writers()):
        at.setdefault(writer.table.identity, []).append(writer)
    return [_keeping(draft, at) if draft.retention.target is not None else draft for draft in drafts]


def _keeping(draft: PipelineDraft, at: Mapping[tuple[str, str, str], Sequence[Writer]]) -> PipelineDraft:
    kept = dict(_shared(draft, at))
    own = draft.model.retention
    if own is not None and own.target is not None:
        for reason in kept.values():
            draft.findings.add(_TARGET, f"retention: {reason}", hint="leave target: out, or write to tables of their own")
    return replace(draft, retention=replace(draft.retention, kept={**kept, **draft.retention.kept})) if kept else draft


def _shared(draft: PipelineDraft, at: Mapping[tuple[str, str, str], Sequence[Writer]]) -> Iterator[tuple[str, str]]:
    """Endpoint -> who else has rows in its windows."""
    for writer in draft.writers():
        others = [other for other in at[writer.table.identity] if other.pipeline != draft.name and not apart(writer, other)]
        if others and not writer.aside:
            names = ", ".join(f"{other.pipeline}.{other.step}" for other in others)
            yield writer.step, f"endpoint {writer.step!r} writes {writer.table} together with {names}, whose rows would go as well"


def refuse_shared_archives(drafts: Sequence[PipelineDraft], root: Path) -> None:
    """Add a problem for each archive that is also that of another endpoint, or a table that a pipeline writes: both would be lost."""
    archived = [(draft, step, table) for draft in drafts for step, table in _archives(draft, root)]
    if not archived:
        return
    taken = {writer.table.identity: f"what {writer.pipeline}.{writer.step} writes" for draft in drafts for writer in draft.writers()}
    for draft, step, table in archived:
        if table.identity in taken:
            own = draft.model.retention
            add = draft.findings.add if own is not None and "archive" in own.model_fields_set else draft.findings.add_to_project
            message = f"retention: the archive of {draft.name}.{step} is {table}, which is also {taken[table.identity]}"
            add(_ARCHIVE, message, hint='give each its own, such as table: "{pipeline}_{step}_archive"')
        taken.setdefault(table.identity, f"the archive of {draft.name}.{step}")


def _archives(draft: PipelineDraft, root: Path) -> Iterator[tuple[str, TableRef]]:
    """Endpoint, or its quarantine -> where the rows go that leave it; none where that is not known yet."""
    retention = draft.retention
    plan = retention.archive
    if plan is None or (retention.target is None and retention.quarantine is None):
        return
    leaving = [name for name in draft.writes if retention.target is not None and not retention.kept]
    leaving += [f"{name}.quarantine" for name in asides(draft.steps, draft.writes) if retention.quarantine is not None]
    block = draft.connections.get(plan.connection or "", {"type": "parquet"})
    try:
        connector = discovery.find("connectors", str(block.get("type", "")))
    except KeyError:
        return  # said where the connection is written
    for step in leaving:
        if plan.table is not None:
            yield step, table_of(connector, plan.connection or "", block, plan.table_of(draft.name, step), root)
        elif plan.connection is None:
            yield step, table_of(connector, "archive", block, TableName(plan.folder_of(draft.name, step)), root)
