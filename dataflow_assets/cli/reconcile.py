"""`dataflow reconcile`: whether targets still hold what their sources do, and the rows that differ.

Here: printing counts, checksums and rows. Not here: comparing (`execution.reconciliation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.choosing import find_pipeline
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.ranges import bounds, check_bound, window_of
from dataflow_assets.cli.terminal import Session, plain, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.secrets import mask

if TYPE_CHECKING:
    from dataflow_assets.execution.bisecting import Differences, RowDifference
    from dataflow_assets.execution.reconciliation import Reconciled
    from dataflow_assets.windows import Window

_LONGEST = 60
_SIGNS = {"missing": "-", "extra": "+", "changed": "~"}


def _names(_ctx: click.Context, _parameter: click.Parameter, value: Sequence[str]) -> tuple[str, ...]:
    """Several names, by commas or by repeating the option."""
    return tuple(name.strip() for text in value for name in text.split(",") if name.strip())


@click.command("reconcile", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE[.ENDPOINT]")
@click.option("--start", metavar="TIME", callback=check_bound, help="Only windows from this moment on, on the pipeline's clock; inclusive.")
@click.option("--end", metavar="TIME", callback=check_bound, help="Only windows before this moment; exclusive.")
@click.option(
    "--window", "keys_of_windows", multiple=True, metavar="KEY", help="This window; may be repeated. Default: every published one."
)
@click.option("--against", type=click.Choice(["source", "ledger"]), help="What with; default: the source where it is copied unchanged.")
@click.option("--key", multiple=True, metavar="COLUMNS", callback=_names, help="The columns that identify a row, e.g. id or shop,day.")
@click.option("--ignore", multiple=True, metavar="COLUMNS", callback=_names, help="Columns that are not compared.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="How many differing rows to show; 0 looks for none."
)
@variable_options
@click.pass_obj
@collecting_garbage()
def command(session: Session, /, name: str, several: tuple[str, ...], single: tuple[str, ...], **given: Any) -> int:
    """Compare what an endpoint has published with its source, and show the rows that differ.

    Both systems count their rows and sum up a checksum of them; only where these differ are rows looked for, by their keys, and only few
    are fetched. Exits with 1 when something differs.
    """
    from dataflow_assets.execution.reconciliation import Question, reconcile
    from dataflow_assets.tables import utc_now

    project = session.load(read_variables(several, single))
    pipeline, step_id = find_pipeline(project, name)
    now = utc_now()
    windows = _windows(pipeline, given, now=now)
    question = Question(given["against"], given["key"], max(given["limit"], 1), given["ignore"], windows, find_rows=given["limit"] > 0)
    documents: list[dict[str, Any]] = []
    for step in _endpoints(pipeline, step_id):
        session.say(click.style(f"{pipeline.name}.{step.id}", bold=True) + f" -> {step.table or step.kind}")
        told: tuple[str, ...] = ()
        for found in reconcile(project, pipeline, step, question, now=now):
            documents.append(_data(pipeline, found))
            for sentence in found.left_out if found.left_out != told else ():
                session.say(mask(f"  not compared: {sentence}"))
            told = found.left_out
            for line in _lines(found, limit=given["limit"]):
                session.say(mask(line))
    return _conclude(session, documents)


def _endpoints(pipeline: PipelinePlan, step_id: str | None) -> Sequence[StepPlan]:
    if step_id is None:
        return pipeline.endpoints
    step = pipeline.by_id.get(step_id)
    if step is not None and step.role == "endpoint":
        return (step,)
    from dataflow_assets.plan.names import suggest

    wrong = f"step {step_id!r} of {pipeline.name} is no endpoint" if step else f"{pipeline.name} has no step {step_id!r}"
    raise UsageFailed(wrong, hint=suggest(step_id, [item.id for item in pipeline.endpoints], noun="endpoints"))


def _windows(pipeline: PipelinePlan, given: Mapping[str, Any], *, now: datetime) -> tuple[Window, ...] | None:
    """The windows asked for, None for all that are published. Raises UsageFailed."""
    start, end, keys = given["start"], given["end"], given["keys_of_windows"]
    if not (start or end or keys):
        return None
    if pipeline.windows is None:
        raise UsageFailed(f"{pipeline.name} has no windows", hint="leave --start, --end and --window out: it is compared as a whole")
    if keys:
        found = {key: window_of(pipeline, key, now=now) for key in keys}
        if unknown := [key for key, window in found.items() if window is None]:
            raise UsageFailed(f"{pipeline.name} has no window {unknown[0]!r}", hint="`dataflow plan` shows the keys of windows")
        return tuple(window for window in found.values() if window is not None)
    since, until = bounds(pipeline, start=start, end=end)
    every = expected_windows(pipeline.windows, now)
    return tuple(item for item in every if (since is None or item.end > since) and (until is None or item.start < until))


def _lines(found: Reconciled, *, limit: int) -> list[str]:
    verdict = click.style("same" if found.same else "DIFFERENT", fg="green" if found.same else "red")
    lines = [f"  {found.key}  {verdict}: {found.verdict.sentence}"]
    if not found.same or found.differences is not None:
        sides = zip(found.names, found.tallies, found.made_in, strict=True)
        lines += [
            f"    {name:<7} {tally.rows:>12,} rows  checksum {tally.checksum:016x}" + (f"  ({_made(place)})" if place else "")
            for name, tally, place in sides
        ]
    if found.differences is not None:
        lines += _rows(found, found.differences, limit=limit)
    elif not found.same and found.against == "ledger":
        lines.append("    the ledger keeps no rows: compare with the source to see which differ")
    return lines


def _made(place: str) -> str:
    return "streamed and computed here" if place == "here" else f"computed in {place}"


def _rows(found: Reconciled, differences: Differences, *, limit: int) -> list[str]:
    counts = ", ".join(f"{differences.count(kind)} {kind}" for kind in _SIGNS)
    by = f"by {', '.join(found.keys)}" if found.keys else "by all columns, as no keys are known (--key)"
    begin = "rows that differ" if differences.complete else "some of the rows that differ"
    lines = [f"    {begin}, {by}: {counts}  ({plural(differences.queries, 'query').replace('querys', 'queries')}, "
             f"{plural(differences.fetched, 'row')} fetched)"]  # fmt: skip
    lines += [f"      {_row(row)}" for row in differences.rows[:limit]]
    if len(differences.rows) > limit:
        lines.append(f"      and {len(differences.rows) - limit:,} more (--limit)")
    return lines


def _row(row: RowDifference) -> str:
    sign = _SIGNS[row.kind]
    if row.kind == "changed":
        cells = "; ".join(f"{name}: {_cell(one)} -> {_cell(two)}" for name, (one, two) in row.cells.items())
        return f"{sign} {_pairs(row.key)}  {cells}"
    return f"{sign} {_pairs(row.row)}"


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_cell(value)}" for name, value in values.items())


def _cell(value: Any) -> str:
    """A value in one short piece of a line."""
    if value is None:
        return "null"
    text = (
        repr(value)
        if isinstance(value, str)
        else value.isoformat(sep=" ")
        if hasattr(value, "hour") and hasattr(value, "year")
        else str(value)
    )
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _data(pipeline: PipelinePlan, found: Reconciled) -> dict[str, Any]:
    sides = [
        {"side": name, "rows": tally.rows, "checksum": f"{tally.checksum:016x}", "computed_in": place or None}
        for name, tally, place in zip(found.names, found.tallies, found.made_in, strict=True)
    ]
    document: dict[str, Any] = {
        "step": f"{pipeline.name}.{found.step}",
        "window": found.key,
        "against": found.against,
        "same": found.same,
        "reason": found.verdict.sentence,
        "loss_percent": found.verdict.loss,
        "sides": sides,
        "not_compared": list(found.left_out),
        "differences": None,
    }
    if (differences := found.differences) is not None:
        document["differences"] = {
            "keys": list(found.keys),
            "complete": differences.complete,
            "queries": differences.queries,
            "rows_fetched": differences.fetched,
            "rows": [_row_data(row) for row in differences.rows],
        }
    return document


def _row_data(row: RowDifference) -> dict[str, Any]:
    if row.kind == "changed":
        cells = {name: {"left": plain(one), "right": plain(two)} for name, (one, two) in row.cells.items()}
        return {"kind": row.kind, "key": plain(row.key), "cells": cells}
    return {"kind": row.kind, "row": plain(row.row)}


def _conclude(session: Session, documents: Sequence[Mapping[str, Any]]) -> int:
    different = sum(not document["same"] for document in documents)
    session.emit({"ok": different == 0, "compared": documents})
    if not documents:
        session.say("Nothing is published yet.")
    else:
        session.say(f"\n{plural(len(documents), 'comparison')}, {different} different.")
    return FAILED if different else OK
