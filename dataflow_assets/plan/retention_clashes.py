"""Whose rows retention would take: tables that several pipelines write, and archives that lie in one another's place.

Here: what `retention:` of one pipeline would do to the rows of another. Not here: a section on its own (`plan.retention`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.errors import DataflowError
from dataflow_assets.plan.lineage import PLACEHOLDER, TableRef, partly_written_by, table_of
from dataflow_assets.plan.options import check_options, split_block
from dataflow_assets.plan.pipelines import PipelineDraft
from dataflow_assets.plan.quarantine import asides
from dataflow_assets.plan.writes import Writer, apart
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import TableName

_TARGET, _ARCHIVE = ("retention", "target"), ("retention", "archive")


def keep_what_is_shared(
    drafts: Sequence[PipelineDraft], *, root: Path, beside: Sequence[PipelineDraft] = (), unread: Sequence[str] = ()
) -> list[PipelineDraft]:
    """The drafts, of which those keep their windows that write a table together with another pipeline; a problem where one asks otherwise.

    A window is taken out by its time: the rows of the other pipeline would go with it, and its ledger would still count them. `beside`:
    pipelines that are not enabled, whose rows are there all the same. `unread`: pipeline files that could not be loaded. What these, or
    broken endpoints, write cannot be known: that is noted as a doubt, and passes once they are mended.
    """
    everybody = _Writers(drafts, beside, root, unread)
    return [_keeping(draft, everybody) if draft.retention.target is not None else draft for draft in drafts]


class _Writers:
    """Who writes which table, as far as that is known before anything is rendered."""

    def __init__(self, drafts: Sequence[PipelineDraft], beside: Sequence[PipelineDraft], root: Path, unread: Sequence[str]) -> None:
        self.at: dict[tuple[str, str, str], list[Writer]] = {}
        self.partly: list[Writer] = []
        """Of whose tables a template makes the names."""
        self._obscure = [("", file) for file in unread]
        for draft, rests in [*((draft, "") for draft in drafts), *((draft, ", not enabled") for draft in beside)]:
            for writer in draft.writers():
                self.at.setdefault(writer.table.identity, []).append(writer)
            partly = list(_partly_known(draft, root))
            self.partly += partly
            known = {writer.step for writer in (*draft.writers(), *partly)}
            places = [(step.id, index) for index, step in enumerate(draft.model.steps) if step.role == "endpoint" and step.id not in known]
            obscure = [f"{draft.name}.{step} ({draft.findings.places.at(('steps', index))}{rests})" for step, index in places]
            self._obscure += [(draft.name, text) for text in obscure]

    def beside(self, writer: Writer) -> list[Writer]:
        """Those of other pipelines that surely write its table in its windows, and those that may."""
        hidden = [other for other in self.partly if _may_be(other.table, writer.table)]
        if PLACEHOLDER in str(writer.table):
            hidden += [other for group in self.at.values() for other in group if _may_be(other.table, writer.table)]
        found = (*self.at.get(writer.table.identity, ()), *hidden)
        return [other for other in found if other.pipeline != writer.pipeline and not apart(writer, other)]

    def doubts(self, pipeline: str) -> tuple[str, ...]:
        """What is too broken to tell what it writes, the pipeline's own aside."""
        return tuple(text for name, text in self._obscure if name != pipeline)


def _partly_known(draft: PipelineDraft, root: Path) -> Iterator[Writer]:
    for name, step in draft.steps.items():
        mode = draft.writings[name].mode
        if step.plugin.role != "endpoint" or name in draft.writes or mode is None:
            continue
        if (table := partly_written_by(step, root)) is not None:
            single = step.plugin.implementation.capabilities.single_file
            yield Writer(draft.name, name, draft.findings.places.at(("steps", step.index)), table, mode, single, draft.windows)


def _may_be(first: TableRef, second: TableRef) -> bool:
    """Whether templates can make these one table."""
    if (first.system, first.is_file) != (second.system, second.is_file):
        return False
    return all(_alike(one, other) for one, other in zip(first.identity[1:], second.identity[1:], strict=True))


def _alike(first: str, second: str) -> bool:
    """Whether the fixed parts of one name are found in the other, in their order; of two templates, whether their ends do not differ."""
    if PLACEHOLDER not in first or PLACEHOLDER not in second:
        made, plain = (first, second) if PLACEHOLDER in first else (second, first)
        return re.fullmatch(".*".join(map(re.escape, made.split(PLACEHOLDER))), plain, re.DOTALL) is not None
    heads = [text.partition(PLACEHOLDER)[0] for text in (first, second)]
    tails = [text.rpartition(PLACEHOLDER)[2] for text in (first, second)]
    return _one_begins(*heads) and _one_begins(*(text[::-1] for text in tails))


def _one_begins(first: str, second: str) -> bool:
    return first.startswith(second) or second.startswith(first)


def _keeping(draft: PipelineDraft, everybody: _Writers) -> PipelineDraft:
    shared = list(_shared(draft, everybody))
    kept = {step: reason for step, reason, _ in shared}
    own = draft.model.retention
    if own is not None and own.target is not None:
        for reason in (reason for _, reason, sure in shared if sure):
            draft.findings.add(_TARGET, f"retention: {reason}", hint="leave target: out, or write to tables of their own")
    return replace(draft, retention=replace(draft.retention, kept={**kept, **draft.retention.kept}, doubts=everybody.doubts(draft.name)))


def _shared(draft: PipelineDraft, everybody: _Writers) -> Iterator[tuple[str, str, bool]]:
    """Endpoint, who else has, or may have, rows in its windows, and whether that is sure: what only may be refuses nobody."""
    own = [writer for writer in (*draft.writers(), *everybody.partly) if writer.pipeline == draft.name and not writer.aside]
    for writer in own:
        others = everybody.beside(writer)
        sure = [other for other in others if PLACEHOLDER not in f"{other.table}{writer.table}"]
        names = ", ".join(f"{other.pipeline}.{other.step}" for other in sure or others)
        said = f"endpoint {writer.step!r} writes {str(writer.table).replace(PLACEHOLDER, '{{...}}')}"
        if sure:
            yield writer.step, f"{said} together with {names}, whose rows would go as well", True
        elif others:
            yield writer.step, f"{said}, and so may {names}, whose rows would go as well: a template makes the name of a table", False


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
    endpoints = [name for name, step in draft.steps.items() if step.plugin.role == "endpoint"]
    leaving = [name for name in endpoints if retention.target is not None and not retention.kept]
    leaving += [f"{name}.quarantine" for name in asides(draft.steps, draft.writes) if retention.quarantine is not None]
    block = draft.connections.get(plan.connection or "", {"type": "parquet"})
    try:
        connector = discovery.find("connectors", str(block.get("type", "")))
    except KeyError:
        return  # said where the connection is written
    for step in leaving:
        if plan.table is not None:
            yield step, table_of(connector, plan.connection or "", block, plan.table_of(draft.name, step), root)
        elif (folder := _folder(connector, block, plan.folder_of(draft.name, step), root)) is not None:
            yield step, table_of(connector, plan.connection or "archive", block, folder, root)


def _folder(connector: Any, block: Mapping[str, Any], folder: str, root: Path) -> TableName | None:
    """The folder as an endpoint of that connection would name it, whose own root may come before it; None where the block is broken."""
    options = check_options(connector.Connection, split_block(connector, block)[0]).model
    if options is None or not hasattr(connector, "path"):
        return None
    try:
        found: TableName = connector(options, ConnectionContext("archive", root)).target_table(connector.Endpoint(file_path=folder))
    except (DataflowError, ValueError):
        return None  # said where the connection is written
    return found
