"""How an endpoint writes: its mode, its keys, its window column, and who else writes the same table.

Here: the decisions and refusals of publishing. Not here: doing it (`connectors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dataflow_assets.errors import Place
from dataflow_assets.plan.findings import Findings, step_path
from dataflow_assets.plan.lineage import TableRef
from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.plan.options import has_template, written_key
from dataflow_assets.plan.steps import Draft, options_model
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.tables import SchemaPolicy, WriteMode

_PLANNED = ("mode", "upsert_keys", "event_time_column", "schema_policy", "reconcile")
TEMPLATED_WINDOW = ("window.", "batch_start", "batch_end", "batch_period")


@dataclass(frozen=True)
class Writing:
    """How one step meets its target, or which column filters what a source reads."""

    mode: WriteMode | None = None
    keys: tuple[str, ...] = ()
    window_column: str | None = None
    schema_policy: SchemaPolicy | None = None


@dataclass(frozen=True)
class Writer:
    """An endpoint step of some pipeline with the table it writes."""

    pipeline: str
    step: str
    place: Place
    table: TableRef
    mode: WriteMode
    single_file: bool
    windows: WindowPlan | None
    aside: bool = False
    """Whether the table holds the rows that the step has set aside."""


def source_column(pipeline: PipelineModel, draft: Draft, findings: Findings) -> str | None:
    """The column that a source is filtered by: its own, else the pipeline's unless its query cuts the window out by itself.

    Adds a problem for a source that would tell its system the window, but has no column to say which rows that holds.
    """
    if pipeline.windows is None or draft.options is None:
        return None
    if "event_time_column" in draft.options.model_fields_set:
        column = _text(draft.options.event_time_column)
    else:
        query = str(getattr(draft.options, "query", None) or "")
        column = None if any(word in query for word in TEMPLATED_WINDOW) else pipeline.event_time_column
    if column is None and getattr(draft.options, "window", None) is not None:
        message = f"step {draft.id!r} tells the window in parameters, but no event_time_column says which rows it holds"
        findings.add(step_path(draft.index, "config", "window"), message, hint="add event_time_column: to the pipeline or to its config")
    return column


def endpoint_writing(pipeline: PipelineModel, draft: Draft, findings: Findings) -> Writing:
    """The effective mode, keys and window column of an endpoint; adds a problem for what its connector or its pipeline cannot do."""
    options = draft.options
    if _refuse_templates(draft, findings) or options is None:
        return Writing()
    own = _text(options.event_time_column)
    column = own or pipeline.event_time_column
    mode = effective_mode(pipeline, options)
    keys = tuple(options.upsert_keys)
    at = _Reporter(draft, findings)
    modes = draft.plugin.implementation.capabilities.modes
    if mode not in modes:
        hint = f"it can {' or '.join(sorted(item.value for item in modes))}"
        at.add("mode", f"step {draft.id!r}: {draft.plugin.kind} cannot write with mode {mode.value}", hint=hint)
    if mode is WriteMode.UPSERT and not keys:
        at.add("upsert_keys", f"step {draft.id!r} upserts without upsert_keys", hint="add upsert_keys: [the columns that identify a row]")
    if mode is WriteMode.REPLACE_WINDOW and pipeline.windows is None:
        at.add(
            "mode",
            f"step {draft.id!r} has mode replace_window, but its pipeline has no windows",
            hint="add windows: {every: day, begin: ...}, or use mode: replace",
        )
    if mode is WriteMode.REPLACE_WINDOW and pipeline.windows is not None and not column:
        hint = "add event_time_column: to the pipeline or to this step's config"
        at.add("mode", f"step {draft.id!r} has mode replace_window, but no event_time_column says which rows a window holds", hint=hint)
    return Writing(mode, keys, column if pipeline.windows else None, options.schema_policy or pipeline.schema_policy)


def effective_mode(pipeline: PipelineModel, options: Any) -> WriteMode:
    """The mode as written; with windows, a missing mode or `append` beside the step's own event_time_column replaces the window."""
    written = options.mode if "mode" in options.model_fields_set else None
    if pipeline.windows is not None:
        if options.event_time_column and written in (None, WriteMode.APPEND):
            return WriteMode.REPLACE_WINDOW
        if written is None and pipeline.event_time_column:
            return WriteMode.REPLACE_WINDOW
    return WriteMode(written or options.mode or WriteMode.APPEND)


def _text(value: Any) -> str | None:
    return str(value) if value else None


@dataclass(frozen=True)
class _Reporter:
    draft: Draft
    findings: Findings

    def add(self, name: str, message: str, *, hint: str) -> None:
        config = self.draft.config
        key = written_key(options_model(self.draft.plugin), config, name)
        self.findings.add(step_path(self.draft.index, "config", *([key] if key in config else [])), message, hint=hint)


def _refuse_templates(draft: Draft, findings: Findings) -> bool:
    """Mode, keys, column, policy and reconciliation decide what is planned, before anything is rendered."""
    config = draft.config
    found = [name for name in _PLANNED if has_template(config.get(written_key(options_model(draft.plugin), config, name)))]
    for name in found:
        _Reporter(draft, findings).add(
            name, f"step {draft.id!r}: {name} cannot be a template, the plan depends on it", hint="write the value itself"
        )
    return bool(found)


def clashes(writers: Sequence[Writer]) -> list[tuple[Writer, Writer, str]]:
    """Pairs of endpoints that would undo each other's rows, the later one first, with the reason."""
    groups: dict[tuple[Any, ...], list[Writer]] = {}
    for writer in writers:
        groups.setdefault(writer.table.identity, []).append(writer)
    return [
        (later, first, reason)
        for group in groups.values()
        for first, later in combinations(group, 2)
        if (reason := _why_not_both(first, later))
    ]


def _why_not_both(first: Writer, later: Writer) -> str:
    for writer, other in ((first, later), (later, first)):
        if writer.mode is WriteMode.REPLACE:
            return f"mode replace of {writer.pipeline}.{writer.step} deletes what {other.pipeline}.{other.step} wrote"
    if first.single_file or later.single_file:
        return "a single file has one writer"
    if WriteMode.REPLACE_WINDOW in (first.mode, later.mode) and not apart(first, later):
        return "a window that one of them replaces holds rows of the other"
    return ""


def apart(first: Writer, later: Writer) -> bool:
    """Whether both replace windows of ranges that share no instant."""
    if not first.mode == later.mode == WriteMode.REPLACE_WINDOW or first.windows is None or later.windows is None:
        return False
    (_, early_end), (late_begin, _) = sorted(((w.begin, w.end) for w in (first.windows, later.windows)), key=lambda item: item[0])
    return early_end is not None and early_end <= late_begin
