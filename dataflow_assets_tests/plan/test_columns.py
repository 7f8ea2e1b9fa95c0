"""From which columns a query makes its own."""

import pytest

from dataflow_assets.plan.columns import column_lineage

ORDERS = {"orders": ["id", "At", "amount", "customer_id"], "mart.customers": ["id", "name"]}


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_expressions_joins_and_stars(dialect: str) -> None:
    sql = """
        with big as (select * from orders where amount > {{ var('least') }})
        select b.id, date_trunc('day', At) as day, amount * 2 as Doubled, c.name as who, 1 as one
        from big b join mart.customers c on c.id = b.customer_id
    """
    assert column_lineage(sql, dialect=dialect, inputs=ORDERS) == {
        "id": [("orders", "id")],
        "day": [("orders", "At")],
        "Doubled": [("orders", "amount")],
        "who": [("mart.customers", "name")],
        "one": [],
    }


def test_aggregates_and_several_sources() -> None:
    sql = "select o.customer_id, sum(o.amount) / count(c.name) as mean from orders o, mart.customers c group by 1"
    assert column_lineage(sql, dialect="duckdb", inputs=ORDERS) == {
        "customer_id": [("orders", "customer_id")],
        "mean": [("mart.customers", "name"), ("orders", "amount")],
    }


def test_a_star_gives_the_inputs_columns() -> None:
    assert column_lineage("select * from orders", dialect="duckdb", inputs=ORDERS) == {
        name: [("orders", name)] for name in ORDERS["orders"]
    }


def test_unions_take_from_both_sides() -> None:
    sql = "select id as k from orders union all select name from mart.customers"
    assert column_lineage(sql, dialect="duckdb", inputs=ORDERS) == {"k": [("mart.customers", "name"), ("orders", "id")]}


def test_without_the_inputs_columns_only_sure_things_are_told() -> None:
    assert column_lineage("select a.x, y from t a", dialect="postgres") == {"x": [("t", "x")], "y": [("t", "y")]}
    found = column_lineage("select a.x, y from t a join u b using (id)", dialect="postgres")
    assert found["x"] == [("t", "x")]
    assert "y" not in found
    assert column_lineage("select * from t", dialect="postgres") == {}


@pytest.mark.parametrize("sql", ["select ((", "insert into t values (1)", "", "drop table t"])
def test_what_cannot_be_read_gives_nothing(sql: str) -> None:
    assert column_lineage(sql, dialect="duckdb", inputs=ORDERS) == {}
