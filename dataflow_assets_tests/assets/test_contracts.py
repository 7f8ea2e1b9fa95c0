"""A contract in Dagster: owner, description, columns, tags, and its asset check, before and after a run."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.operations.load import load_project
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

CONTRACT = """\
contract: orders
dataset: orders/publish
version: 3
owner: sales@example.com
description: What was ordered
mode: strict
columns:
  id: {type: bigint, nullable: false, description: the number of the order, unique: true}
  ordered_at: timestamptz
  amount: {type: bigint, min_value: 0}
"""
KEY = dg.AssetKey(["orders", "publish"])


@pytest.fixture
def promised(project: Path) -> Path:
    (project / "contracts").mkdir()
    (project / "contracts" / "orders.yml").write_text(CONTRACT)
    return project


def test_the_asset_carries_its_contract(promised: Path) -> None:
    graph = load_project(promised).resolve_asset_graph()
    asset = graph.get(KEY)
    assert asset.owners == ["sales@example.com", "team:data", "ann@example.com"]
    assert asset.description == "What was ordered"
    assert asset.tags["dataflow/contract"] == "orders"
    assert asset.tags["dataflow/contract_version"] == "3"
    assert asset.metadata["contract"] == "orders"
    columns = {column.name: column for column in asset.metadata["dagster/column_schema"].columns}
    assert columns["id"].description == "the number of the order"
    assert columns["id"].constraints == dg.TableColumnConstraints(nullable=False, unique=True, other=["not null", "unique"])
    names = {key.name for key in graph.asset_check_keys if key.asset_key == KEY}
    assert names == {"contract", "id_not_null", "id_unique", "amount_range"}
    assert "dataflow/contract" not in graph.get(dg.AssetKey(["orders", "read"])).tags


def test_a_run_records_the_check_and_the_promised_columns(promised: Path, instance: dg.DagsterInstance) -> None:
    assert shop.run(promised, instance, tags={"dagster/partition": DAYS[0]}).success
    assert shop.evaluations(instance, "contract", "orders", "publish") == [(DAYS[0], "SUCCEEDED")]
    record = instance.fetch_materializations(KEY, limit=1).records[0]
    schema = record.asset_materialization.metadata["dagster/column_schema"].value  # type: ignore[union-attr]
    (column,) = [item for item in schema.columns if item.name == "id"]  # type: ignore[union-attr]
    assert (column.type, column.description, column.constraints.nullable) == ("int64", "the number of the order", False)

    (promised / "contracts" / "orders.yml").write_text(CONTRACT.replace("amount: {type: bigint", "amount: {type: text"))
    assert not shop.run(promised, instance, tags={"dagster/partition": DAYS[1]}).success
    assert set(shop.evaluations(instance, "contract", "orders", "publish")) == {(DAYS[0], "SUCCEEDED"), (DAYS[1], "FAILED")}
    assert shop.published(promised) == {DAYS[0]: 2}


def test_a_broken_contract_shows_and_takes_only_its_pipeline(promised: Path) -> None:
    (promised / "contracts" / "orders.yml").write_text(CONTRACT.replace("bigint", "bigitn"))
    (promised / "pipelines" / "report.yml").write_text(shop.REPORT.replace("depends_on: [orders]\n", "", 1))
    keys = {key.to_user_string() for key in load_project(promised).resolve_asset_graph().get_all_asset_keys()}
    assert {"_load_errors/contract_orders", "_load_errors/orders", "report/write"} <= keys
    assert "orders/publish" not in keys
