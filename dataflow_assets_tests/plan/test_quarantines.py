"""What is wrong with a quarantine is said before anything runs, with its place."""

from __future__ import annotations

import pytest

from dataflow_assets.spec.models import QuarantineOptions
from dataflow_assets_tests.plan.conftest import Workbench

READ = "  - {id: read, type: source, connection: raw, config: {table: t}%s}\n"
WRITE = "  - {id: write, type: endpoint, connection: mart, depends_on: [read], config: {table: %s, mode: append}%s}\n"
RULE = ", checks: [{column: a, not_null: true, on_failure: quarantine}]"


def pipeline(name: str = "p", *, read: str = "", write: str = "", table: str = "t") -> str:
    return f"pipeline_name: {name}\nsteps:\n" + READ % read + WRITE % (table, write)


@pytest.mark.parametrize(
    ("read", "write", "problem"),
    [
        (
            ", quarantine: {max_rows: 5}",
            "",
            "p.yml:3 step 'read': max_rows limits what the step's own rules quarantine, but none does -> add on_failure: quarantine",
        ),
        (
            RULE + ", quarantine: {table: bad}",
            "",
            "p.yml:3 step 'read': the rows that a pipeline quarantines stand beside what an endpoint writes, and this is a source",
        ),
        (RULE, ", quarantine: {table: \"{{ var('x') }}\"}", "p.yml:4 step 'write': the quarantine's table cannot be a template"),
        (
            ", checks: [{column: a, not_null: true, on_failure: quarantien}]",
            "",
            "step 'read': checks.0.on_failure: Input should be 'fail' or 'quarantine'",
        ),
        (", checks: [{check: row_count, min_rows: 1, on_failure: quarantine}]", "", "row_count judges the dataset, not a row"),
    ],
)
def test_refusals_name_their_place(bench: Workbench, read: str, write: str, problem: str) -> None:
    problems = bench.problems(p=pipeline(read=read, write=write))
    assert any(problem in text for text in problems), problems


def test_without_an_endpoint_below_nothing_would_hold_the_rows(bench: Workbench) -> None:
    text = "pipeline_name: p\nsteps:\n" + READ % RULE
    assert any("step 'read' quarantines rows, but no endpoint follows it" in problem for problem in bench.problems(p=text))


def test_two_endpoints_cannot_share_a_quarantine(bench: Workbench) -> None:
    both = {"p": pipeline("p", write=RULE), "q": pipeline("q", write=RULE)}
    (problem,) = bench.problems(**both)
    assert "q.write quarantines into mart.public.t__quarantine, as p.write does" in problem
    assert "add quarantine: {table: ...} to one of them" in problem
    both["q"] = pipeline("q", write=RULE + ", quarantine: {table: t_rejects}")
    assert bench.problems(**both) == []


def test_a_table_of_that_name_belongs_to_its_writer(bench: Workbench) -> None:
    problems = bench.problems(p=pipeline("p", write=RULE), q=pipeline("q", table="t__quarantine"))
    assert len(problems) == 1


def test_the_plan_knows_budget_and_rules(bench: Workbench) -> None:
    (plan,) = bench.plan(p=pipeline(read=RULE + ", quarantine: {max_rows: 5, max_share: 2.5%}")).pipelines
    read, write = plan.by_id["read"], plan.by_id["write"]
    assert read.quarantines
    assert not write.quarantines
    assert (read.quarantine.max_rows, read.quarantine.max_share) == (5, 0.025)
    assert (write.quarantine.max_rows, write.quarantine.max_share) == (None, 0.1)


@pytest.mark.parametrize("share", ["ten%", "120%", "-1%", "ten", 2])
def test_a_share_is_a_share(share: object) -> None:
    with pytest.raises(ValueError, match="max_share"):
        QuarantineOptions.model_validate({"max_share": share})
