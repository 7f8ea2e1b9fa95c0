"""Datasets that checks look at: refused where they do not exist, staged first where they do, drawn as lineage."""

from __future__ import annotations

import pytest

from dataflow_assets_tests.plan.conftest import Workbench

ORDERS = """\
steps:
  - id: orders
    type: source
    connection: raw
    config: {table: orders}
    checks:
      - {column: id, not_null: true}
      - {column: customer, to: %s}
  - {id: customers, type: source, connection: raw, config: {table: customers}}
  - {id: big, type: transform, processor_type: sql, depends_on: [orders], config: {query: select 1}}
  - {id: kept, type: endpoint, connection: mart, depends_on: [big], config: {table: kept}}
"""
SHOP = """\
steps:
  - {id: read, type: source, connection: raw, config: {table: people}}
  - {id: people, type: endpoint, connection: mart, depends_on: [read], config: {table: people}}
"""
TWO = SHOP + "  - {id: again, type: endpoint, connection: mart, depends_on: [read], config: {table: again}}\n"


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("{step: customer}", "orders.yml:8 step 'orders': there is no step 'customer' to look values up in -> did you mean 'cust"),
        (
            "{step: big}",
            "step 'orders' is checked against 'big', which would have to be there before 'orders', but is made of it -> put the rule on",
        ),
        ("{step: kept}", "is checked against 'kept', which would have to be there before 'orders'"),
        ("{pipeline: shp}", "there is no pipeline 'shp' to look values up in -> did you mean 'shop'?"),
        ("{pipeline: shop, step: read}", "'read' is not an endpoint of pipeline 'shop'; of other pipelines only what is published"),
        ("{pipeline: two}", "`step` must say which endpoint is meant of pipeline 'two'; of other pipelines only what is published can"),
        ("{connection: rwa, table: t}", "there is no connection 'rwa' to look values up in -> did you mean 'raw'?"),
        ("{connection: files, table: t}", "connection 'files' is of type flatfile, which has no tables to look values up in -> read it in"),
        ("{step: '{{ var(1) }}'}", "a template cannot name the dataset to look values up in"),
        ("{stp: customers}", "unknown key 'stp' -> did you mean 'step'?"),
    ],
)
def test_what_does_not_exist_is_refused_with_its_place(bench: Workbench, to: str, expected: str) -> None:
    extra = "connections:\n  files: {type: flatfile}\n"
    problems = bench.problems(
        orders=extra + ORDERS % to if "files" in to else ORDERS % to, shop=SHOP, two=TWO.replace("table: p", "table: q")
    )
    assert any(expected in problem for problem in problems), problems


def test_a_step_that_is_looked_at_is_made_first_and_drawn(bench: Workbench) -> None:
    plan = bench.plan(orders=ORDERS % "{step: customers, column: id}").by_name["orders"]
    assert [step.id for step in plan.steps] == ["customers", "orders", "big", "kept"]
    assert plan.by_id["orders"].looks_at == ("customers",)
    (check,) = plan.by_id["orders"].checks
    assert [reference.path for reference in check.references] == [("checks", 1, "to")]


def test_a_step_may_be_looked_at_by_itself(bench: Workbench) -> None:
    plan = bench.plan(orders=ORDERS % "{step: orders, column: id}").by_name["orders"]
    assert [step.looks_at for step in plan.steps] == [(), (), (), ()]


def test_two_steps_cannot_look_at_each_other(bench: Workbench) -> None:
    back = "config: {table: customers}, checks: [{column: id, to: {step: orders, column: customer}}]"
    problems = bench.problems(orders=(ORDERS % "{step: customers, column: id}").replace("config: {table: customers}", back))
    assert len(problems) == 2, problems
    assert all("is checked against" in problem for problem in problems)


def test_another_pipeline_comes_first_and_is_an_edge(bench: Workbench) -> None:
    plan = bench.plan(orders=ORDERS % "{pipeline: shop, column: id}", shop=SHOP)
    orders = plan.by_name["orders"]
    assert [pipeline.name for pipeline in plan.pipelines] == ["shop", "orders"]
    assert (orders.upstream, orders.by_id["orders"].reads[-1]) == (("shop",), ("shop", "people"))
    assert orders.looks_at["shop"].by_id["people"].table == "mart.public.people"


def test_pipelines_cannot_look_at_each_other(bench: Workbench) -> None:
    back = "config: {table: people}, checks: [{column: id, to: {pipeline: orders, step: kept}}]"
    shop = SHOP.replace("config: {table: people}}\n  - {id: people", back + "}\n  - {id: people")
    problems = bench.problems(orders=ORDERS % "{pipeline: shop}", shop=shop)
    assert any("pipelines depend on each other in a circle" in problem for problem in problems), problems


def test_a_table_is_an_edge_to_who_publishes_it_or_to_the_table(bench: Workbench) -> None:
    published = bench.plan(orders=ORDERS % "{connection: mart, table: people}", shop=SHOP).by_name["orders"]
    assert (published.upstream, published.by_id["orders"].reads[-1]) == (("shop",), ("shop", "people"))
    plan = bench.plan(orders=ORDERS % "{connection: raw, table: elsewhere}", shop=SHOP)
    assert plan.by_name["orders"].by_id["orders"].reads[-1] == ("raw", "public", "elsewhere")
    assert ("raw", "public", "elsewhere") in plan.external


def test_the_rules_of_a_check_step_are_found_too(bench: Workbench) -> None:
    text = """\
steps:
  - {id: orders, type: source, connection: raw, config: {table: orders}}
  - {id: valid, type: check, kind: validator, depends_on: [orders], config: {checks: [{column: c, to: {step: %s}}]}}
  - {id: customers, type: source, connection: raw, config: {table: customers}}
  - {id: kept, type: endpoint, connection: mart, depends_on: [valid], config: {table: kept}}
"""
    plan = bench.plan(orders=text % "customers").by_name["orders"]
    assert [step.id for step in plan.steps][:2] == ["customers", "orders"]
    assert plan.by_id["valid"].looks_at == ("customers",)
    (problem,) = bench.problems(orders=text % "custmers")
    assert problem.startswith("orders.yml:3 step 'valid': there is no step 'custmers'")
