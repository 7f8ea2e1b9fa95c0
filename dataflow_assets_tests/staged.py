"""Real stages for the tests of checks and transforms. Here: making one from a table, and the context of a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow_assets import discovery
from dataflow_assets.batches import BATCH_ROWS
from dataflow_assets.protocols import CheckResult, StagedInput, StepContext
from dataflow_assets.storage.stages import load_stage, write_stage


def staged(rows: pa.Table | pa.RecordBatchReader, folder: Path, name: str = "rows", *, batch_rows: int = BATCH_ROWS) -> StagedInput:
    """The rows as a stage on disk, under the step id `name`."""
    reader = rows.to_reader(batch_rows) if isinstance(rows, pa.Table) else rows
    for _ in write_stage(folder / name, reader, step=name, fingerprint="test"):
        pass
    stage = load_stage(folder / name)
    assert stage is not None
    return stage.as_input(name)


def context_in(folder: Path, **more: Any) -> StepContext:
    """A step's context whose project is `folder`, with an empty scratch folder."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return StepContext(pipeline="shop", step="under_test", project_dir=folder, scratch=scratch, **more)


def verdicts(
    options: Mapping[str, Any],
    stage: StagedInput,
    context: StepContext,
    *,
    kind: str = "validator",
    batches: Iterable[pa.RecordBatch] | None = None,
) -> dict[str, CheckResult]:
    """Run a check over a stage and return its results by name, in the promised order."""
    check_class = discovery.find("checks", kind)
    check = check_class(check_class.Options.model_validate(options))
    run = check.begin(stage.schema, context)
    for batch in stage.open_reader() if batches is None else batches:
        run.update(batch)
    results = run.finish(stage)
    assert [result.name for result in results] == [promise.name for promise in check.promises]
    return {result.name: result for result in results}
