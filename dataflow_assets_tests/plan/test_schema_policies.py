"""Which schema policy counts: the step's, the pipeline's, the project's."""

from collections.abc import Callable

import pytest

from dataflow_assets.tables import SchemaPolicy
from dataflow_assets_tests.plan.conftest import PROJECT, Workbench

Steps = Callable[..., str]


@pytest.mark.parametrize(
    ("project", "pipeline", "step", "counts"),
    [
        ("", "", "", None),
        ("evolve", "", "", SchemaPolicy.EVOLVE),
        ("evolve", "discard", "", SchemaPolicy.DISCARD),
        ("evolve", "discard", "freeze", SchemaPolicy.FREEZE),
        ("", "", "evolve", SchemaPolicy.EVOLVE),
    ],
)
def test_the_nearest_one_counts(
    bench: Workbench, steps: Steps, project: str, pipeline: str, step: str, counts: SchemaPolicy | None
) -> None:
    (bench.root / "dataflow_project.yml").write_text(PROJECT + (f"schema_policy: {project}\n" if project else ""))
    endpoint = "table: orders_copy" + (f", schema_policy: {step}" if step else "")
    plan = bench.plan(copy=steps(endpoint=endpoint, head=f"schema_policy: {pipeline}\n" if pipeline else ""))
    read, write = plan.by_name["copy"].steps
    assert write.schema_policy == counts
    assert read.schema_policy is None


def test_a_changed_policy_makes_nothing_stale(bench: Workbench, steps: Steps) -> None:
    prints = {
        bench.plan(copy=steps(endpoint=f"table: orders_copy{more}")).by_name["copy"].by_id["write"].fingerprint
        for more in ("", ", schema_policy: evolve", ", schema_policy: discard")
    }
    assert len(prints) == 1


def test_an_unknown_policy_and_one_in_a_template_are_refused(bench: Workbench, steps: Steps) -> None:
    (problem,) = bench.problems(copy=steps(endpoint="table: orders_copy, schema_policy: evolves"))
    assert "'evolve', 'freeze' or 'discard'" in problem
    problems = bench.problems(copy=steps(endpoint="table: orders_copy, schema_policy: \"{{ var('policy') }}\""))
    assert any("schema_policy cannot be a template" in problem for problem in problems)
