"""Every kind of target keeps the rows set aside beside it, replaces them with its window, and gives them back as they were."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dataflow_assets.execution.events import WindowFailed
from dataflow_assets.execution.held import held_rows, held_units, open_session
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.spec.load import load
from dataflow_assets.storage.row_text import rows_from_text
from dataflow_assets_tests.chaos.arena import Arena, build, source_table
from dataflow_assets_tests.chaos.lookers import target_of
from dataflow_assets_tests.chaos.test_quarantine_kills import RULE, put_rule

NOW = datetime(2024, 1, 10, tzinfo=UTC)
KINDS = ["sqlite", "csv", "mysql"]
"""Others differ from these in nothing that a quarantine asks of them; `chaos.test_quarantine_kills` has Postgres, DuckDB and Parquet."""


def run_once(arena: Arena, attempt: str) -> None:
    """The first window, whatever is published."""
    project = load(arena.folder)
    (pipeline,) = build_plan(project).pipelines
    assert pipeline.windows is not None
    windows = tuple(expected_windows(pipeline.windows, NOW)[:1])
    events = list(run(RunRequest(project, pipeline, windows, attempt, NOW)))
    assert [str(event.error) for event in events if isinstance(event, WindowFailed)] == []


def aside(arena: Arena) -> tuple[pa.Table, dict[str, int]]:
    """The rows set aside as they were, by id, and the rules that they broke."""
    project = load(arena.folder)
    (pipeline,) = build_plan(project).pipelines
    (step,) = pipeline.endpoints
    session = open_session(project, pipeline, now=NOW)
    schema = source_table(1).schema
    try:
        units = held_units(session, step)
        batches, rules = [], dict[str, int]()
        for unit in units:
            rules |= unit.rules
            with held_rows(session, step, unit.aside, unit.key, unit.start) as reader:
                batches += [rows_from_text(batch.column("row_json"), schema) for batch in reader]
        return pa.Table.from_batches(batches, schema).sort_by("id"), rules
    finally:
        session.close()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_set_aside_in(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / "project"
    arena = build(folder, kind=kind, mode="replace_window", target=target_of(kind, folder, request))
    put_rule(arena, RULE)
    source = source_table(1).slice(0, 200)
    pq.write_table(source, folder / "source.parquet")
    run_once(arena, "first")
    bad = pc.is_null(source["note"])
    rows, rules = aside(arena)
    assert rows.equals(source.filter(bad))
    assert rules == {"note_not_null": rows.num_rows}
    assert sum(arena.look().values()) + rows.num_rows == 200
    pq.write_table(source.filter(pc.invert(bad)).slice(10), folder / "source.parquet")
    run_once(arena, "second")
    assert aside(arena)[0].num_rows == 0
    assert sum(arena.look().values()) == 200 - rows.num_rows - 10
