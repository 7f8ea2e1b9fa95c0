"""A pipeline with its outer ends replaced: rows from files in place of its sources, an embedded database in place of its targets.

Here: the derived plan that a unit test for data runs, pure. Everything between the ends stays as it is: transforms, checks, windows,
write modes, keys. Not here: the rows (`testing.tables`), running it (`testing.bench`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.names import legal
from dataflow_assets.plan.options import has_template
from dataflow_assets.tables import WriteMode

RESULT = "(result)"
"""The step that keeps the rows of a tested step which is no endpoint; no step that a user writes can have this id."""
_CONNECTION = "the test's own target"
_KEPT = ("audit",)
_KEPT_OF_DUCKDB = ("audit", "schema", "columns", "table_schema")


def needed_steps(pipeline: PipelinePlan, step: str, *, given: Mapping[str, Any]) -> frozenset[str]:
    """The step and those before it, up to the given ones."""
    needed: set[str] = set()
    waiting = [step]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [] if name in given else pipeline.by_id[name].inputs
    return frozenset(needed)


def substituted(pipeline: PipelinePlan, step: str, *, given: Mapping[str, Path], folder: Path) -> PipelinePlan:
    """The part of the pipeline that makes `step`, which touches nothing outside `folder` but the project's own code.

    `given`: step -> a Parquet file with the rows it gives. An endpoint becomes a DuckDB table of the same mode and keys; the rows of
    any other step go to the Parquet file `result_file(folder)`, in their order.
    """
    needed = needed_steps(pipeline, step, given=given)
    steps = [_substituted(pipeline, item, given) for item in pipeline.steps if item.id in needed]
    tested = pipeline.by_id[step]
    if tested.role != "endpoint":
        config = {"file_path": str(result_file(folder))}
        steps.append(StepPlan(RESULT, "endpoint", "parquet", (step,), config, (RESULT,), tested.place, mode=WriteMode.APPEND))
    block = {"type": "duckdb", "database": str(folder / "target.duckdb"), "threads": 1}
    return replace(pipeline, steps=tuple(steps), connections={_CONNECTION: block}, schedule=None, upstream=())


def result_file(folder: Path) -> Path:
    """Where the rows of a step that is no endpoint are kept."""
    return folder / "result.parquet"


def _substituted(pipeline: PipelinePlan, step: StepPlan, given: Mapping[str, Path]) -> StepPlan:
    if step.id in given:
        column = step.window_column if step.role == "source" else None
        config = {"file_path": str(given[step.id])}
        return replace(step, role="source", kind="parquet", inputs=(), connection=None, config=config, window_column=column)
    if step.role == "endpoint":
        return replace(step, kind="duckdb", connection=_CONNECTION, config={"table": _table(pipeline, step), **_kept(step)})
    return step


def _table(pipeline: PipelinePlan, step: StepPlan) -> str:
    """One table for all endpoints of one target; else one for each."""
    return legal(step.table or f"{pipeline.name}_{step.id}")


def _kept(step: StepPlan) -> dict[str, Any]:
    """The options that mean the same in DuckDB; SQL types of other systems do not."""
    names = _KEPT_OF_DUCKDB if step.kind == "duckdb" else _KEPT
    return {name: step.config[name] for name in names if name in step.config and not has_template(step.config[name])}
