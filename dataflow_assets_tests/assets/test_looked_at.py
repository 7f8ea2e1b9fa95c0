"""Checks that look at other datasets, in Dagster: the edge in the graph, the order of the run, the evaluation with its metadata."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from dataflow_assets.assets.build import build_definitions
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.assets import shop
from dataflow_assets_tests.assets.shop import DAYS

LOOKING = """\
  - id: prices
    type: source
    source_type: parquet
    config: {file_path: prices.parquet}
    event_time_column: null
"""
RULES = """\
      - {column: amount, to: {step: prices, column: amount}, severity: warn}
      - {expression: amount < 0, where: id > 0, severity: warn}
"""


def test_the_edge_is_drawn_and_the_other_step_is_staged_first(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    orders = shop.ORDERS.replace("      - {column: id, not_null: true}\n", f"      - {{column: id, not_null: true}}\n{RULES}")
    orders += LOOKING.replace("    event_time_column: null\n", "").replace("prices.parquet}", "prices.parquet, event_time_column: at}")
    root = shop.write_shop(tmp_path / "shop", orders=orders)
    moments = pq.read_table(root / "orders.parquet")["ordered_at"]
    pq.write_table(pa.table({"amount": pa.array([-1.0] * len(moments)), "at": moments}), root / "prices.parquet")
    project = load(root)
    definitions = build_definitions(build_plan(project), project)
    spec = definitions.resolve_asset_graph().get(dg.AssetKey(["orders", "clean"]))
    assert dg.AssetKey(["orders", "prices"]) in spec.parent_keys
    result = shop.run(root, instance, tags={"dagster/partition": DAYS[1]})
    assert result.success
    assert shop.published(root) == {DAYS[1]: 2}
    for name in ("amount_relationships", "amount_0_expression"):
        assert shop.evaluations(instance, name, "orders", "clean") == [(DAYS[1], "FAILED")]
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(["orders", "clean"]), "amount_0_expression"), limit=1
    )
    evaluation = records[0].event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    assert "frequent_values" in evaluation.metadata
    assert evaluation.metadata["failed"].value == 2
