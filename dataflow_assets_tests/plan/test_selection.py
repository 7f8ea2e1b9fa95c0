"""Selecting from a plan."""

from collections.abc import Callable

import pytest

from dataflow_assets.errors import SelectionError
from dataflow_assets.plan.selection import select
from dataflow_assets_tests.plan.conftest import Workbench

Steps = Callable[..., str]


def test_selectors_over_a_plan(bench: Workbench, steps: Steps) -> None:
    plan = bench.plan(
        a=steps(head="tags: [nightly]\n"),
        b=steps(source="query: select * from orders_copy", endpoint="table: b").replace("connection: raw", "connection: mart"),
        c=steps(endpoint="table: c", head="depends_on: [b]\n"),
    )

    def names(*selectors: str, exclude: tuple[str, ...] = ()) -> list[str]:
        return [item.pipeline.name for item in select(plan, select=selectors, exclude=exclude, root=bench.root)]

    assert names() == ["a", "b", "c"]
    assert names("+c") == ["a", "b", "c"]
    assert names("b+") == ["b", "c"]
    assert names("1+c") == ["b", "c"]
    assert names("tag:nightly") == ["a"]
    assert names("a+", exclude=("c",)) == ["a", "b"]
    assert names("path:pipelines/b.yml") == ["b"]
    with pytest.raises(SelectionError):
        names("nothing")


def test_a_step_of_a_pipeline(bench: Workbench, steps: Steps) -> None:
    plan = bench.plan(a=steps())
    assert [(item.pipeline.name, item.steps) for item in select(plan, select=["a.read"])] == [("a", frozenset({"read"}))]
    assert [item.steps for item in select(plan, select=["a"])] == [None]
