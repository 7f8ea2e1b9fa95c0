"""Which columns a query names: every dialect that is spoken here, and names that only look like columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.plan.column_uses import read_query
from dataflow_assets.plan.columns import column_lineage

ORDERS = ["id", "amount", "note"]
DIALECTS = ["postgres", "snowflake", "bigquery", "mysql", "clickhouse", "tsql", "duckdb", "sqlite"]


def named(sql: str, *, dialect: str = "duckdb", **tables: list[str]) -> tuple[set[str], set[str]]:
    """The columns named, and those that are strangers; a `?` behind one that only may be meant."""
    reading = read_query(sql, dialect=dialect, inputs=tables or {"orders": ORDERS})
    assert reading is not None
    return {item.column + ("" if item.sure else "?") for item in reading.mentions}, {item.column.lower() for item in reading.strangers}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect(dialect: str) -> None:
    sql = "select o.amount, o.nte from sales.orders o\nwhere id > 3"
    reading = read_query(sql, dialect=dialect, inputs={"sales.orders": ORDERS})
    assert reading is not None
    assert {(item.table, item.column, item.line) for item in reading.mentions} == {("sales.orders", "amount", 1), ("sales.orders", "id", 2)}
    assert [item.column for item in reading.strangers] == ["nte"]
    assert named("select Amount as Total from Orders where NOTE = 'x' and nte = 1", dialect=dialect) == ({"amount", "note"}, {"nte"})


@pytest.mark.parametrize(
    ("sql", "columns", "strangers"),
    [
        ("select * from orders", set(ORDERS), set()),
        ("select * exclude (amount) from orders", set(ORDERS), set()),
        ("select count(*) from orders", set(), set()),
        ("select to_json(o) as j from orders as o", {"id?", "amount?", "note?"}, set()),
        ("from orders", set(ORDERS), set()),
        ("select id from orders a join orders b using (id)", {"id"}, set()),
        ("select note.x, {'k': amount} from orders", {"note", "amount"}, set()),
        ("select rowid, filename, _row, metadata$file from orders", set(), set()),
        ("select list_transform([1], x -> x + amount) from orders", {"amount"}, set()),
        ("select id as key from orders group by key having key > 1 order by key", {"id"}, set()),
        ("with orders as (select 1 as k) select k, z from orders", set(), set()),
        ("with o as (select id from orders) select nte from o", {"id"}, set()),
        ("select id from orders union all select amont from orders", {"id"}, {"amont"}),
        ("select (select max(k) from other where other.k = amount) from orders", {"k", "amount"}, set()),
        ("select id from orders where note = {{ var('x') }} limit {{ var('n') }}", {"id", "note"}, set()),
        ("select id, date_trunc('day', att) from orders", {"id"}, {"att"}),
    ],
)
def test_what_a_query_names(sql: str, columns: set[str], strangers: set[str]) -> None:
    found, foreign = named(sql)
    assert (found, foreign) == (columns, strangers)


def test_a_bare_name_of_several_tables_only_may_be_meant() -> None:
    found, foreign = named("select total from a, b, c", a=["total"], b=["total"])
    assert found == {"total?"}
    assert foreign == set()


def test_outputs_with_casts_and_columns_passed_on() -> None:
    reading = read_query(
        "select id, cast(amount as bigint) as whole, id + 1 as next, 1 as one from orders", dialect="duckdb", inputs={"orders": ORDERS}
    )
    assert reading is not None
    assert reading.outputs == {"id": (("orders", "id"),), "whole": (("orders", "amount"),), "next": (("orders", "id"),), "one": ()}
    assert reading.complete
    assert reading.plain == {"id": ("orders", "id")}
    assert reading.casts == {"whole": "BIGINT"}


def test_columns_that_nobody_knows_leave_the_answer_open() -> None:
    reading = read_query("select * from nowhere", dialect="duckdb", inputs={})
    assert reading is not None
    assert not reading.complete


def test_lineage_of_quoted_columns_has_no_quotes() -> None:
    inputs = {"orders": ["Amount", "a.b", 'x"y']}
    found = column_lineage('select `o`.`Amount`, `a.b` as c, `x"y` as d from `orders` as `o`', dialect="mysql", inputs=inputs)
    assert found == {"Amount": [("orders", "Amount")], "c": [("orders", "a.b")], "d": [("orders", 'x"y')]}


@pytest.mark.parametrize("expression", ["count(*)", "cast(amount as text)", "amount + 1", "upper(note)"])
def test_a_column_that_the_system_names_is_not_known(expression: str) -> None:
    reading = read_query(f"select id, {expression} from orders", dialect="duckdb", inputs={"orders": ORDERS})
    assert reading is not None
    assert not reading.complete


@given(st.text(alphabet="select*from, ()'\"ordesiamunt.{}$%-;\n", max_size=60))
def test_rubbish_is_read_or_not_but_never_raises(sql: str) -> None:
    read_query(sql, dialect="duckdb", inputs={"orders": ORDERS})
    read_query(f"select {sql} from orders", dialect="postgres", inputs={"orders": ORDERS})
