"""Contracts in a run: what is broken is not published, and rows in the target can be held to the contract later."""

from __future__ import annotations

import pytest

from dataflow_assets_tests.execution.workshop import Workshop, checks, failures

ORDERS = """\
pipeline_name: sales
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: orders.csv}}
  - id: tidy
    type: transform
    kind: sql
    depends_on: [read]
    config: {query: "select cast(id as bigint) as id, cast(amount as decimal(18,2)) as amount, note from read"}
  - id: out
    type: endpoint
    endpoint_type: parquet
    depends_on: [tidy]
    checks: [{column: id, not_null: true}]
    config: {file_path: out.parquet, mode: replace}
"""
CONTRACT = """\
contract: orders
dataset: sales/out
mode: strict
columns:
  id: {type: bigint, nullable: false, unique: true}
  amount: {type: "decimal(18,2)", min_value: 0}
  note: text
"""


@pytest.fixture
def sales(tmp_path) -> Workshop:
    shop = Workshop(tmp_path)
    shop.pipeline(ORDERS)
    shop.write("contracts/orders.yml", CONTRACT)
    shop.write("orders.csv", "id,amount,note\n1,10.5,a\n2,3,\n")
    return shop


def test_rows_that_break_the_contract_leave_the_target_as_it_was(sales):
    events = sales.run()
    assert not failures(events)
    assert checks(events) == dict.fromkeys(["id_not_null", "contract", "contract_id_not_null", "id_unique", "amount_range"], True)
    before = sales.rows("out.parquet")
    assert len(before) == 2

    sales.write("orders.csv", "id,amount,note\n1,-10.5,a\n1,3,\n")
    events = sales.run()
    (failed,) = failures(events)
    assert "amount" in str(failed.error)
    assert {name for name, passed in checks(events).items() if not passed} == {"id_unique", "amount_range"}
    assert sales.rows("out.parquet") == before

    sales.write("contracts/orders.yml", CONTRACT + "enforce: warn\n")
    events = sales.run()
    assert not failures(events)
    assert len(sales.rows("out.parquet")) == 2
    assert sales.rows("out.parquet") != before


def test_columns_and_types_are_looked_at_before_publishing(sales):
    sales.write("contracts/orders.yml", CONTRACT.replace("bigint", "int") + "  more: text\n")
    (failed,) = failures(sales.run())
    assert "column 'more' is missing; column 'id' is bigint, promised is int" in str(failed.error)
    assert not (sales.folder / "out.parquet").exists()


def test_a_contract_in_between_keeps_every_endpoint_from_publishing(sales):
    sales.write("contracts/orders.yml", CONTRACT.replace("sales/out", "sales/tidy").replace("min_value: 0", "min_value: 5"))
    (failed,) = failures(sales.run())
    assert failed.step == "tidy"
    assert not (sales.folder / "out.parquet").exists()


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_the_target_can_be_held_to_the_contract_later(sales, kind):
    sales.pipeline(ORDERS.replace("endpoint_type: parquet", f"endpoint_type: {kind}").replace("out.parquet", f"out.{kind}"))
    assert not failures(sales.run())
    events = sales.run(checks_only=True, steps=frozenset({"out"}))
    assert not failures(events), failures(events)
    assert checks(events)["contract"] is True


def test_a_target_without_narrow_types_keeps_the_contract(sales):
    """SQLite has one width of integers: what is published as an int is read back as a bigint."""
    sales.write("dataflow_project.yml", "connections: {db: {type: sqlite, database: db.sqlite}}\n")
    text = ORDERS.replace("endpoint_type: parquet", "connection: db").replace("file_path: out.parquet", "table: orders")
    sales.pipeline(text.replace("cast(id as bigint)", "cast(id as int)"))
    sales.write("contracts/orders.yml", CONTRACT.replace("bigint", "int"))
    assert not failures(sales.run())
    assert checks(sales.run(checks_only=True, steps=frozenset({"out"})))["contract"] is True
    sales.write("contracts/orders.yml", CONTRACT.replace("bigint", "text"))
    assert checks(sales.run(checks_only=True, steps=frozenset({"out"})))["contract"] is False
