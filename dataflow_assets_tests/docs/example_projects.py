"""Projects around the pipelines that the documentation shows, and the data that the plugins' examples read.

Here: connections for whatever a pipeline names, rows for each example. Not here: the examples (each plugin's own).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from dataflow_assets import discovery
from dataflow_assets.execution.events import Event
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.windows import expected_windows
from dataflow_assets.spec.load import load

NOW = datetime(2024, 6, 1, tzinfo=UTC)
KINDS = {"shop": "postgres", "warehouse": "duckdb"}
"""The kinds of connections whose steps do not say their own."""


def connections_of(text: str) -> dict[str, dict[str, Any]]:
    """A connection for each name that the pipelines use."""
    found: dict[str, dict[str, Any]] = {}
    for step in (step for document in yaml.safe_load_all(text) for step in document["steps"] if step.get("connection")):
        name = step["connection"]
        kind = step.get("kind") or step.get("source_type") or step.get("endpoint_type") or KINDS[name]
        found[name] = {"type": kind, **_address(kind, name)}
    return found


def calendars_of(text: str) -> dict[str, list[str]]:
    """A calendar for each name under `blackout` of a schedule."""
    schedules = [document.get("schedule") for document in yaml.safe_load_all(text)]
    return {name: ["2026-12-25"] for item in schedules if isinstance(item, dict) for name in item.get("blackout", ())}


def _address(kind: str, name: str) -> dict[str, str]:
    """Where a system of this kind is."""
    known = {
        "duckdb": {"database": f"{name}.duckdb"},
        "sqlite": {"database": f"{name}.sqlite"},
        "sqlalchemy": {"url": f"sqlite:///{name}.sqlite"},
        "http": {"base_url": f"https://{name}.example.com/api/now"},
        "elasticsearch": {"url": f"https://{name}.example.com"},
        "google_play": {"bucket": "pubsite_prod_rev_0123456789"},
        "bigquery": {"project": f"acme-{name}"},
        "snowflake": {"account": f"acme-{name}", "user": "loader", "database": "ANALYTICS"},
    }
    return known.get(kind, {"database": name})


def write_project(folder: Path, text: str) -> Path:
    """A project of these pipelines; returns its folder."""
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    written = {"project_name": "shown", "connections": connections_of(text), "calendars": calendars_of(text)}
    (folder / "dataflow_project.yml").write_text(yaml.safe_dump(written))
    (folder / "pipelines" / "shown.yml").write_text(text)
    return folder


def run_pipeline(folder: Path, *, windows: int = 2) -> list[Event]:
    """Run the only pipeline of a project: the whole, or its first windows."""
    project = load(folder)
    (pipeline,) = build_plan(project).pipelines
    chosen = expected_windows(pipeline.windows, NOW)[:windows] if pipeline.windows else [None]
    return list(run(RunRequest(project, pipeline, tuple(chosen), "shown", NOW)))


def _flights(folder: Path) -> None:
    lines = ["year,month,day,carrier,flight,origin,distance,tailnum,dep_time,dep_delay,time_hour"]
    for number in range(40):
        moment = datetime(2013, 1, 1, 12, tzinfo=UTC) + timedelta(hours=number)
        lines.append(
            f"2013,1,{moment.day},UA,{number},EWR,{700 + number},N{number},{'' if number % 9 else 900},{number},{moment:%Y-%m-%dT%H:%M:%SZ}"
        )
    _text(folder / "data" / "flights.csv", "\n".join(lines) + "\n")
    _text(folder / "data" / "airports.csv", "faa,name\nEWR,Newark\nJFK,Kennedy\n")


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _duckdb(folder: Path) -> None:
    import duckdb

    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute("create table flights as select * from (values ('EWR'), ('EWR'), ('JFK')) as t(origin)")


def _sqlite(folder: Path) -> None:
    with sqlite3.connect(folder / "till.sqlite") as connection:
        connection.execute("create table orders (id integer primary key, ordered_at timestamptz, amount text, paid boolean)")
        rows = [(number, f"2024-01-0{number}T10:00:00Z", "1.50", 1) for number in range(1, 4)]
        connection.executemany("insert into orders values (?, ?, ?, ?)", rows)
    connection.close()


def _sqlalchemy(folder: Path) -> None:
    with sqlite3.connect(folder / "erp.sqlite") as connection:
        connection.execute("create table stock (article text, location text, quantity integer)")
        connection.executemany("insert into stock values (?, ?, ?)", [("a", "north", 3), ("a", "south", 0), ("b", "north", 5)])
    connection.close()


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "landing").mkdir()
    moments = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=7 * number) for number in range(9)]
    rows = pa.table({"id": list(range(9)), "at": pa.array(moments, pa.timestamp("us", "UTC")), "kind": ["x"] * 9, "rest": [0] * 9})
    pq.write_table(rows, folder / "landing" / "events.parquet")


def _csv(folder: Path) -> None:
    _text(folder / "landing" / "orders-1.csv", "order_number,amount\n007,1.50\n008,NA\n")


def _json(folder: Path) -> None:
    rows = [{"order_id": 1, "at": date(2024, 1, 1).isoformat()}, {"order_id": 2, "at": None}]
    _text(folder / "landing" / "orders.json", json.dumps({"data": {"orders": rows}}))


def _python(folder: Path) -> None:
    _flights(folder)
    code = "import polars as pl\n\ndef clean(flights: pl.DataFrame, longest_delay: int) -> pl.DataFrame:\n"
    _text(folder / "transforms" / "clean.py", code + "    return flights.filter(pl.col('dep_delay') < longest_delay)\n")


def _model(folder: Path) -> None:
    _flights(folder)
    _text(
        folder / "models" / "flights.py",
        """\
import pandera.polars as pa


class Flights(pa.DataFrameModel):
    flight: int = pa.Field(ge=0, unique=True)
    origin: str = pa.Field(isin=["EWR", "JFK", "LGA"])
    distance: int = pa.Field(gt=0, le=6000, nullable=True)
""",
    )


def _delays(folder: Path) -> None:
    lines = [f"2024-01-01T{number:02d}:00:00Z,EWR,{number % 3 if number != 20 else 90}" for number in range(24)]
    _text(folder / "data" / "delays.csv", "hour,origin,mean_delay\n" + "\n".join(lines) + "\n")


PREPARE: Mapping[tuple[str, str], Callable[[Path], None]] = {
    ("connectors", "duckdb"): _duckdb,
    ("connectors", "sqlite"): _sqlite,
    ("connectors", "sqlalchemy"): _sqlalchemy,
    ("connectors", "csv"): _csv,
    ("connectors", "json"): _json,
    ("connectors", "parquet"): _parquet,
    ("transforms", "sql"): _flights,
    ("transforms", "python"): _python,
    ("transforms", "mad_anomaly_detector"): _delays,
    ("checks", "validator"): _flights,
    ("checks", "contract"): _flights,
    ("checks", "metric_anomaly"): _flights,
    ("checks", "pandera"): _model,
}
_SERVERS = ("postgres", "mysql", "clickhouse", "snowflake", "bigquery", "http", "elasticsearch", "google_play")
NOT_EMBEDDED = {("connectors", kind) for kind in _SERVERS}


def every_plugin() -> list[tuple[str, str]]:
    """Family and kind of each plugin."""
    return [(family, kind) for family in ("connectors", "transforms", "checks") for kind in discovery.kinds(family)]
