"""Pipelines that are switched off, by hand or by the environment."""

import pytest

from dataflow_assets_tests.plan.conftest import Workbench

ORDERS = """
pipeline_name: orders
enabled: {enabled}
steps:
  - {{id: a, type: source, connection: raw, config: {{table: orders}}}}
  - {{id: b, type: endpoint, connection: mart, depends_on: [a], config: {{table: orders}}}}
"""
AFTER = ORDERS.replace("pipeline_name: orders", "pipeline_name: after\ndepends_on: [orders]").replace("{enabled}", "true")


def names(bench: Workbench, enabled: str) -> list[str]:
    return [pipeline.name for pipeline in bench.plan(orders=ORDERS.format(enabled=enabled)).pipelines]


@pytest.mark.parametrize("enabled", ["false", "\"{{ var('on', false) }}\"", "\"{{ env_var('NOT_SET', '') != '' }}\"", "'no'"])
def test_a_disabled_pipeline_is_left_out(bench: Workbench, enabled: str) -> None:
    assert names(bench, enabled) == []


@pytest.mark.parametrize("enabled", ["true", '"{{ 1 == 1 }}"'])
def test_an_enabled_one_is_there(bench: Workbench, enabled: str) -> None:
    assert names(bench, enabled) == ["orders"]


def test_depending_on_a_disabled_pipeline_says_so(bench: Workbench) -> None:
    (problem,) = bench.problems(orders=ORDERS.format(enabled="false"), after=AFTER.replace("{{", "{").replace("}}", "}"))
    assert "'orders'" in problem
    assert "not enabled" in problem


def test_an_unknown_name_is_a_problem_with_its_place(bench: Workbench) -> None:
    (problem, *_) = bench.problems(orders=ORDERS.format(enabled='"{{ nonsense }}"'))
    assert "nonsense" in problem
