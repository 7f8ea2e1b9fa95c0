"""docs/quarantine.md: its pipeline runs and sets rows aside, its Python reads them back, and the same pipeline can be built in Python."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dataflow_assets import check, endpoint, pipeline, project, source
from dataflow_assets.execution.events import StepFinished
from dataflow_assets.plan.build import build_plan
from dataflow_assets_tests.docs.pages import blocks
from dataflow_assets_tests.execution.workshop import Workshop, failures

PAGE = "docs/quarantine.md"
LINES = ["order_id,ordered_at,amount", *(f"{number},2024-01-01T{number % 24:02d}:00:00Z,{number}" for number in range(100))]


def test_the_page_does_what_it_shows(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    (text,) = (block.text for block in blocks("yaml", page=PAGE))
    shop.pipeline(text.replace("begin: 2024-01-01}", "begin: 2024-01-01, end: 2024-01-02}"))
    (tmp_path / "landing").mkdir()
    shop.write(
        "landing/orders.csv",
        "\n".join([*LINES, "7,2024-01-01T07:00:00Z,7", "500,2024-01-01T07:00:00Z,-5", "501,2024-01-01T08:00:00Z,"]) + "\n",
    )
    events = shop.run()
    assert failures(events) == []
    (report,) = (event for event in events if isinstance(event, StepFinished) and event.step == "shop_orders")
    assert (report.rows, report.quarantined, report.quarantine) == (100, 3, "lake/orders__quarantine.parquet")
    held = pq.read_table(tmp_path / "lake" / "orders__quarantine.parquet")
    assert sorted(held["rules"].to_pylist()) == ["amount_not_null", "amount_range", "order_id_unique"]
    (code,) = (block.text for block in blocks("python", page=PAGE))
    names = {"texts": held["row_json"].combine_chunks(), "row_schema": held["row_schema"][0].as_py()}
    exec(code, names)
    rows = names["rows"]
    assert isinstance(rows, pa.RecordBatch)
    assert sorted(row["order_id"] for row in rows.to_pylist()) == [7, 500, 501]
    assert rows.schema.field("ordered_at").type == pa.timestamp("us", "UTC")


def test_the_same_in_python(tmp_path: Path) -> None:
    rule = {"column": "amount", "min_value": 0, "on_failure": "quarantine"}
    built = pipeline(
        "orders",
        steps=[
            source("orders", "csv", file_path="landing/orders.csv"),
            check("sound", "validator", depends_on="orders", checks=[rule], quarantine={"max_share": "5%"}),
            endpoint("kept", "parquet", depends_on="sound", file_path="lake/orders.parquet", quarantine={"table": "lake/bad.parquet"}),
        ],
    )
    (plan,) = build_plan(project("shop", pipelines=[built], root=tmp_path)).pipelines
    assert plan.by_id["sound"].quarantines
    assert plan.by_id["sound"].quarantine.max_share == 0.05
    assert plan.by_id["kept"].quarantine.table == "lake/bad.parquet"
