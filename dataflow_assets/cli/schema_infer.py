"""`dataflow schema infer`: a pandera model, or rules in YAML, from what an endpoint has published.

Here: the options, and where the text goes. Not here: reading the target (`execution.inference`), deciding and writing (`checks`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataflow_assets.cli.choosing import find_pipeline
from dataflow_assets.cli.failures import OK, UsageFailed
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand

if TYPE_CHECKING:
    from dataflow_assets.execution.inference import Measured
    from dataflow_assets.plan.model import PipelinePlan, StepPlan


@click.command("infer", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE[.STEP]")
@click.option(
    "--as", "form", type=click.Choice(["python", "yaml"]), default="python", show_default=True, help="A pandera model, or checks."
)
@click.option(
    "--backend", type=click.Choice(["pandas", "polars"]), default="polars", show_default=True, help="Which pandera the model is of."
)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write this file, which must not exist.")
@click.option("--rows", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Read about this many rows at most.")
@click.option(
    "--margin", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Widen ranges by this share on either side, e.g. 0.1."
)
@variable_options
@click.pass_obj
@collecting_garbage()
def infer(
    session: Session,
    name: str,
    form: str,
    backend: str,
    output: Path | None,
    rows: int,
    margin: float,
    several: tuple[str, ...],
    single: tuple[str, ...],
) -> int:
    """Write a pandera model of what an endpoint has published: types, nulls, ranges, lists of values, lengths.

    All rows are read, or, where there are more than --rows, windows spread evenly over the history. What it says held for those rows;
    whether it should hold is yours to say: edit it, then name it in a step as `schema: models.py:Model`. --as yaml prints `checks:`.
    """
    from dataflow_assets.execution.inference import measure
    from dataflow_assets.tables import utc_now

    if output is not None and output.exists():
        raise UsageFailed(f"{output} exists", hint="write another file, or remove it")
    project = session.load(read_variables(several, single))
    pipeline, step_id = find_pipeline(project, name)
    step = _endpoint(pipeline, step_id)
    measured = measure(project, pipeline, step, now=utc_now(), limit=rows)
    text = _text(measured, f"{pipeline.name}.{step.id}", form=form, backend=backend, margin=margin)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
        session.say(f"{output}: {plural(len(measured.columns), 'column')}, from {_extent(measured)}.")
    elif not session.json:
        session.write(text)
    session.emit(
        {
            "ok": True,
            "target": measured.target,
            "rows": measured.rows,
            "windows": list(measured.read),
            "whole": measured.whole,
            "columns": [column.name for column in measured.columns],
            "output": str(output) if output else None,
            "text": text,
        }
    )
    return OK


def _endpoint(pipeline: PipelinePlan, step_id: str | None) -> StepPlan:
    names = [step.id for step in pipeline.endpoints]
    if step_id is None and len(names) == 1:
        return pipeline.endpoints[0]
    if step_id in names:
        return pipeline.by_id[str(step_id)]
    hint = f"name one: {', '.join(f'{pipeline.name}.{name}' for name in names)}" if names else "give it an endpoint and run it"
    if step_id is None:
        raise UsageFailed(f"{pipeline.name} has {plural(len(names), 'endpoint')}", hint=hint)
    raise UsageFailed(f"{pipeline.name}.{step_id} is no endpoint of the pipeline; only what is published can be read back", hint=hint)


def _text(measured: Measured, name: str, *, form: str, backend: str, margin: float) -> str:
    from dataflow_assets.checks._suggested_model import class_name, model_text
    from dataflow_assets.checks._suggested_rules import rules_text
    from dataflow_assets.checks._suggestion import suggest

    suggestions = [suggest(column, margin=margin) for column in measured.columns]
    told = (
        f"{measured.target} as {name} has published it: {_extent(measured)}.\n\n"
        "Made by `dataflow schema infer`: it says what held for these rows. Edit it to what should hold.\n"
    )
    if form == "yaml":
        return rules_text(suggestions, told=told)
    from dataflow_assets.errors import MissingDriver

    try:
        return model_text(suggestions, name=class_name(measured.target), told=told, backend="pandas" if backend == "pandas" else "polars")
    except ImportError as error:
        raise MissingDriver(kind="pandera", module="pandera") from error


def _extent(measured: Measured) -> str:
    """`336,776 rows, all of 365 windows (2013-01-01 to 2013-12-31)`."""
    read, published = len(measured.read), measured.published
    span = f" ({measured.read[0]} to {measured.read[-1]})" if read > 1 else f" ({measured.read[0]})" if read else ""
    rows = plural(measured.rows, "row")
    if measured.whole:
        return f"{rows}, all of {plural(published, 'published unit')}{span}"
    if read < published:
        return f"{rows} of {read:,} of {plural(published, 'published window')} spread evenly{span}"
    return f"the first {rows} of more"
