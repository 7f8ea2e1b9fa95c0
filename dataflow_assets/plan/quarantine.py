"""What is wrong with the rows that a pipeline sets aside, seen before it runs.

Here: refusals of `quarantine:` blocks and of rules with `on_failure: quarantine`, and the names of the tables that hold the rows. Not
here: setting rows aside (`execution`), what such a table looks like (`storage.quarantine`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dataflow_assets.plan.findings import Findings, step_path
from dataflow_assets.plan.graph import children, reachable
from dataflow_assets.plan.lineage import TableRef
from dataflow_assets.plan.options import has_template
from dataflow_assets.plan.steps import Draft

SUFFIX = "__quarantine"


def quarantines(draft: Draft) -> bool:
    """Whether a rule of this step sets rows aside."""
    return any(check.quarantines for check in draft.checks)


def refuse_bad_quarantines(drafts: Mapping[str, Draft], findings: Findings) -> None:
    """A budget needs a rule that it limits, a table an endpoint that it belongs to, a rule an endpoint that publishes the other rows."""
    below = children({name: draft.model.depends_on for name, draft in drafts.items()})
    endpoints = {name for name, draft in drafts.items() if draft.plugin.role == "endpoint"}
    for name, draft in drafts.items():
        if quarantines(draft) and not endpoints & {name, *reachable(below, [name])}:
            path = step_path(draft.index, *(["checks"] if draft.model.checks else []))
            message = f"step {name!r} quarantines rows, but no endpoint follows it that would publish the others"
            findings.add(path, message, hint="move the rule to a step that an endpoint publishes, or write on_failure: fail")
        for key, message, hint in _wrong_keys(draft):
            findings.add(step_path(draft.index, "quarantine", key), f"step {name!r}: {message}", hint=hint)


def _wrong_keys(draft: Draft) -> Iterator[tuple[str, str, str]]:
    options = draft.model.quarantine
    if options is None:
        return
    if options.table is not None and draft.plugin.role != "endpoint":
        hint = "write quarantine: {table: ...} at the endpoint"
        yield "table", f"the rows that a pipeline quarantines stand beside what an endpoint writes, and this is a {draft.plugin.role}", hint
    if options.table is not None and has_template(options.table):
        yield "table", "the quarantine's table cannot be a template", "write the name itself"
    budget = [key for key in ("max_rows", "max_share") if key in options.model_fields_set]
    if budget and not quarantines(draft) and not any(has_template(check.options) for check in draft.checks):
        yield (
            budget[0],
            f"{budget[0]} limits what the step's own rules quarantine, but none does",
            "add on_failure: quarantine to one of its rules",
        )


def asides(drafts: Mapping[str, Draft], writes: Mapping[str, TableRef]) -> dict[str, TableRef]:
    """The table or file that holds the quarantined rows of each endpoint that may have any, where its own is known."""
    found = {}
    for name, table in writes.items():
        if any(quarantines(drafts[other]) for other in _with_ancestors(drafts, name)):
            options, suffixes = drafts[name].model.quarantine, getattr(drafts[name].plugin.implementation, "suffixes", ())
            written = options.table if options is not None else None
            found[name] = replace(table, name=written or (file_beside(table.name, suffixes) if table.is_file else beside(table.name)))
    return found


def _with_ancestors(drafts: Mapping[str, Draft], name: str) -> set[str]:
    waiting, found = [name], set[str]()
    while waiting:
        step = waiting.pop()
        if step in drafts and step not in found:
            found.add(step)
            waiting += drafts[step].model.depends_on
    return found


def beside(name: str) -> str:
    """The name of a dataset's quarantine: `orders__quarantine` beside the table `orders`."""
    return name + SUFFIX


def file_beside(path: str, suffixes: Sequence[str]) -> str:
    """`out/orders__quarantine.csv` beside `out/orders.csv`; beside a folder, or a file without an ending, a file with the first of
    the format's `suffixes`."""
    if path.endswith("/") or not PurePosixPath(path).suffix:
        return f"{path.rstrip('/')}{SUFFIX}{suffixes[0] if suffixes else ''}"
    folder, _, name = path.rpartition("/")
    stem, dot, ending = name.partition(".") if not name.startswith(".") else (name, "", "")
    return f"{folder + '/' if folder else ''}{stem}{SUFFIX}{dot}{ending}"
