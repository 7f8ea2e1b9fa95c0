"""A small project for tests: orders of five days in a Parquet file, cleaned, checked, published, and a report on them.

Here: writing it into a folder, planning it, running it. Not here: what is expected of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from dataflow_assets.assets.build import build_definitions
from dataflow_assets.assets.names import job_name
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project

DAYS = [f"2024-03-{day:02d}" for day in range(1, 6)]
RANGE = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}

PROJECT = """\
project_name: shop
"""

ORDERS = """\
pipeline_name: orders
description: The orders of each day
tags: [shop, daily]
owners: [team:data, ann@example.com]
group: sales
event_time_column: ordered_at
windows: {every: day, begin: 2024-03-01, end: 2024-03-06}
freshness: {fail_after: 2d, warn_after: 1d}
retries: {max_retries: 2, delay: 10ms}
steps:
  - id: read
    type: source
    source_type: parquet
    config: {file_path: orders.parquet}
  - id: clean
    type: transform
    kind: sql
    depends_on: [read]
    config: {query: "select id, ordered_at, amount from read"}
    checks:
      - {column: amount, min_value: 0}
      - {column: id, not_null: true}
  - id: publish
    type: endpoint
    endpoint_type: parquet
    depends_on: [clean]
    config: {file_path: lake/orders}
"""

REPORT = """\
pipeline_name: report
depends_on: [orders]
steps:
  - id: read
    type: source
    source_type: parquet
    config: {file_path: orders.parquet}
  - id: write
    type: endpoint
    endpoint_type: parquet
    depends_on: [read]
    config: {file_path: lake/report.parquet, mode: replace}
"""


def write_shop(folder: Path, *, bad_days: Sequence[str] = (), **pipelines: str) -> Path:
    """Write the project; on `bad_days` an amount is negative, which a blocking check refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataflow_project.yml").write_text(PROJECT)
    (folder / "pipelines").mkdir(exist_ok=True)
    for name, text in {"orders": ORDERS, "report": REPORT, **pipelines}.items():
        (folder / "pipelines" / f"{name}.yml").write_text(text)
    write_orders(folder, bad_days=bad_days)
    return folder


def write_orders(folder: Path, *, bad_days: Sequence[str] = ()) -> None:
    """Two orders a day."""
    rows = [
        {
            "id": number * 2 + late,
            "ordered_at": datetime.fromisoformat(f"{day}T{8 + 12 * late:02d}:00+00:00"),
            "amount": 20 if late else -1 if day in bad_days else 10,
        }
        for number, day in enumerate(DAYS)
        for late in (0, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "orders.parquet")


def planned(folder: Path) -> tuple[ProjectPlan, Project]:
    """The project loaded and planned."""
    project = load(folder)
    return build_plan(project), project


def definitions(folder: Path) -> dg.Definitions:
    """The Dagster definitions of the project."""
    plan, project = planned(folder)
    return build_definitions(plan, project)


def run(
    folder: Path,
    instance: dg.DagsterInstance,
    *,
    pipeline: str = "orders",
    tags: dict[str, str] | None = None,
    assets: Sequence[str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run the job of a pipeline, or some of its assets; never raises for a failed run."""
    job = definitions(folder).resolve_job_def(job_name(pipeline))
    selection = [dg.AssetKey([pipeline, name]) for name in assets] if assets else None
    return job.execute_in_process(instance=instance, tags=tags, asset_selection=selection, raise_on_error=False)


def published(folder: Path) -> dict[str, int]:
    """Rows in the lake by day."""
    found: dict[str, int] = {}
    for file in (folder / "lake" / "orders").glob("*.parquet"):
        for value in pq.read_table(file)["ordered_at"].to_pylist():
            found[f"{value:%Y-%m-%d}"] = found.get(f"{value:%Y-%m-%d}", 0) + 1
    return dict(sorted(found.items()))


def recorded(instance: dg.DagsterInstance, *key: str) -> list[str]:
    """The partitions that the event log shows as materialized, once for each event."""
    records = instance.fetch_materializations(dg.AssetKey(key), limit=1000).records
    return sorted(record.partition_key or "-" for record in records)


def evaluations(instance: dg.DagsterInstance, check: str, *key: str) -> list[tuple[str | None, str]]:
    """Partition and status of each evaluation of a check, newest first."""
    history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(dg.AssetKey(key), check), limit=100)
    return [(record.partition, record.status.value) for record in history]
