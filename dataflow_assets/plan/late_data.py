"""What `late_data:` means for one pipeline, and which pipelines follow another's reopened windows.

Here: the sources that are looked at, and every refusal of a section that could not do what it says. Not here: looking (`execution`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import Followed, PipelinePlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.plan.steps import Draft
from dataflow_assets.plan.writes import TEMPLATED_WINDOW, Writing
from dataflow_assets.spec.late_data import LateDataOptions
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.tables import WriteMode

_SECTION = ("late_data",)


def planned_late_data(
    model: PipelineModel, steps: Mapping[str, Draft], writings: Mapping[str, Writing], findings: Findings
) -> LateDataOptions | None:
    """The section with its sources named; adds a problem for each thing that stands in its way."""
    options = model.late_data
    if options is None:
        return None
    sources = {name: draft for name, draft in steps.items() if draft.plugin.role == "source"}
    unknown = [name for name in options.sources if name not in sources]
    for name in unknown:
        hint = suggest(name, sources, noun="sources")
        findings.add((*_SECTION, "sources"), f"late_data: there is no source step {name!r}", hint=hint)
    chosen = list(options.sources) or [name for name, draft in sources.items() if _reads_a_window(model, draft, writings[name])]
    if sources and not chosen:
        hint = (
            "give the pipeline event_time_column:, or name the steps in late_data: {sources: [...]}: then any change reopens every window"
        )
        findings.add(
            _SECTION, "late_data: no source reads the rows of a window alone, so none can tell which window a row is late for", hint=hint
        )
    _refuse_appends(model, steps, writings, findings)
    for name in chosen:
        if name not in unknown and options.compare == "checksum" and sources[name].plugin.implementation.capabilities.costly_reads:
            _refuse_costly(sources[name], findings)
    return options.model_copy(update={"sources": chosen})


def _reads_a_window(model: PipelineModel, draft: Draft, writing: Writing) -> bool:
    """Whether the rows of a window are a part of what the source holds: filtered by time, or cut out by the query itself."""
    if model.windows is None or writing.window_column is not None:
        return True
    written = json.dumps(draft.model.config, default=str)
    variables = json.dumps(model.variables, default=str) if "{{" in written else ""
    return any(word in text for word in TEMPLATED_WINDOW for text in (written, variables))


def _refuse_appends(model: PipelineModel, steps: Mapping[str, Draft], writings: Mapping[str, Writing], findings: Findings) -> None:
    options = model.late_data
    for name, draft in steps.items():
        mode = writings[name].mode
        if draft.plugin.role != "endpoint" or mode is None or options is None:
            continue
        if mode is WriteMode.APPEND and options.reopen:
            message = f"late_data: endpoint {name!r} appends, and what is appended is never rewritten"
            hint = "publish with mode: replace_window or upsert, or write late_data: {reopen: false} to be told and no more"
            findings.add(_SECTION, message, hint=hint)
        elif model.windows is None and mode is not WriteMode.REPLACE:
            message = f"late_data: without windows, endpoint {name!r} makes a batch of its own of every run"
            findings.add(_SECTION, message, hint="give the pipeline windows:, or the endpoint mode: replace")


def _refuse_costly(source: Draft, findings: Findings) -> None:
    message = (
        f"late_data: {source.plugin.kind} source {source.id!r} cannot sum up its rows by itself, and would be read again for every look"
    )
    hint = "write late_data: {compare: count}, which still reads the rows to count them, or re-run windows with windows: {lookback: 7}"
    findings.add(_SECTION, message, hint=hint)


def follow(plans: dict[str, PipelinePlan], order: Sequence[str]) -> None:
    """Note in each pipeline which of those before it may be rewritten for late data, upstream ones first."""
    for name in order:
        found = tuple(_followed(plans[name], plans))
        if found:
            plans[name] = replace(plans[name], follows=found)


def _followed(plan: PipelinePlan, plans: Mapping[str, PipelinePlan]) -> Iterator[Followed]:
    read = {key for step in plan.steps for key in step.reads}
    for name in plan.upstream:
        other = plans.get(name)
        if other is not None and is_followed(other):
            endpoints = tuple(step for step in other.endpoints if step.asset_key in read)
            yield Followed(other, endpoints or other.endpoints)


def is_followed(plan: PipelinePlan) -> bool:
    """Whether the pipelines after this one run again when its windows were reopened."""
    own = plan.late_data
    return bool(plan.follows) or (own is not None and own.reopen and own.downstream)


def may_be_reopened(plan: PipelinePlan) -> bool:
    """Whether anything can reopen its windows."""
    return bool(plan.follows) or (plan.late_data is not None and plan.late_data.reopen)
