"""Which steps of a pipeline are tied to each other by their rows."""

from __future__ import annotations

from pathlib import Path

from dataflow_assets.plan.shared_sources import tied_to
from dataflow_assets_tests.execution.workshop import Workshop

SOURCE = "  - {{id: {0}, type: source, source_type: parquet, depends_on: [{1}], config: {{file_path: {0}.parquet}}}}\n"
JOIN = '  - {{id: {0}, type: transform, kind: sql, depends_on: [{1}], config: {{query: "select 1 as id"}}}}\n'
LAKE = "  - {{id: {0}, type: endpoint, endpoint_type: parquet, depends_on: [{1}], config: {{file_path: {0}/, mode: append}}}}\n"


def ties(folder: Path, *steps: str) -> dict[str, str]:
    shop = Workshop(folder)
    shop.pipeline("pipeline_name: p\nsteps:\n" + "".join(steps))
    _, plan = shop.load()
    return {step.id: " ".join(sorted(tied_to(plan, step))) for step in plan.steps}


def test_steps_are_tied_by_a_source_over_however_many_steps(tmp_path: Path) -> None:
    found = ties(
        tmp_path,
        *(SOURCE.format(name, "") for name in "abc"),
        JOIN.format("ab", "a, b"),
        LAKE.format("x", "ab"),
        LAKE.format("y", "b"),
        LAKE.format("z", "c"),
    )
    assert {found[name] for name in ("a", "b", "ab", "x", "y")} == {"a ab b x y"}
    assert {found[name] for name in ("c", "z")} == {"c z"}


def test_an_order_alone_ties_nothing(tmp_path: Path) -> None:
    found = ties(tmp_path, SOURCE.format("a", ""), LAKE.format("x", "a"), SOURCE.format("b", "x"), LAKE.format("y", "b, x"))
    assert (found["x"], found["y"]) == ("a x", "b y")
