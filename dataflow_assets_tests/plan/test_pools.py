"""Which pool a pipeline draws from, and what is refused about limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dataflow_assets.plan.model import PoolPlan
from dataflow_assets.plan.pools import project_pools, undrawn
from dataflow_assets_tests.plan.conftest import Workbench

Steps = Callable[..., str]


def _raw(limit: int | None) -> PoolPlan:
    return PoolPlan("connection/raw", limit, ("raw",))


def _mart(limit: int | None) -> PoolPlan:
    return PoolPlan("connection/mart", limit, ("mart",))


def _connections(bench: Workbench, *, raw: str = "", mart: str = "") -> None:
    (bench.root / "dataflow_project.yml").write_text(
        f"project_name: shop\nconnections:\n  raw: {{type: tabledb, host: db{raw}}}\n  mart: {{type: tabledb, host: warehouse{mart}}}\n"
    )


@pytest.mark.parametrize(
    ("raw", "mart", "pools"),
    [
        ("", "", [_mart(None)]),
        ("", ", max_concurrent: 4", [_mart(4)]),
        (
            ", max_concurrent: 2",
            ", max_concurrent: 4",
            [_raw(2), _mart(4)],
        ),
        (
            ", max_concurrent: 4",
            ", max_concurrent: 4",
            [_mart(4), _raw(4)],
        ),
        (", max_concurrent: 4", "", [_mart(None), _raw(4)]),
        (", pool: server, max_concurrent: 5", ", pool: server, max_concurrent: 3", [PoolPlan("server", 3, ("mart", "raw"))]),
        (", pool: server, max_concurrent: 5", ", pool: server", [PoolPlan("server", 5, ("mart", "raw"))]),
    ],
)
def test_a_pipeline_draws_from_the_pool_with_the_smallest_limit(
    bench: Workbench, steps: Steps, raw: str, mart: str, pools: list[PoolPlan]
) -> None:
    _connections(bench, raw=raw, mart=mart)
    plan = bench.plan(orders=steps(head="pipeline_name: orders\n"))
    assert list(plan.by_name["orders"].pools) == pools
    assert list(project_pools(plan)) == sorted(pool.name for pool in pools)
    assert [pool for _, pool in undrawn(plan)] == [pool for pool in pools[1:] if pool.limit]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("max_concurrent: 0", "max_concurrent"),
        ("max_concurrent: many", "max_concurrent"),
        ("max_concurent: 3", "unknown key 'max_concurent'"),
        ("pool: 'two words'", "pool"),
        ("max_concurrent: \"{{ var('limit') }}\"", "max_concurrent takes no template"),
    ],
)
def test_a_limit_that_is_none_is_refused_where_it_is_written(bench: Workbench, steps: Steps, written: str, message: str) -> None:
    (bench.root / "dataflow_project.yml").write_text(
        f"project_name: shop\nconnections:\n  raw: {{type: tabledb, host: db}}\n  mart:\n    type: tabledb\n    host: w\n    {written}\n"
    )
    (problem,) = bench.problems(orders=steps(head="pipeline_name: orders\n"))
    assert problem.startswith("dataflow_project.yml:7 ")
    assert message in problem


def test_a_limit_changes_no_fingerprint(bench: Workbench, steps: Steps) -> None:
    before = bench.plan(orders=steps(head="pipeline_name: orders\n")).by_name["orders"]
    _connections(bench, mart=", max_concurrent: 4")
    after = bench.plan(orders=steps(head="pipeline_name: orders\n")).by_name["orders"]
    assert [step.fingerprint for step in before.steps] == [step.fingerprint for step in after.steps]
