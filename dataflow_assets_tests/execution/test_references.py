"""Relationships in real runs: against a step of the same window, what another pipeline has published, a table, and the data itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pyarrow as pa
import pytest

from dataflow_assets import failpoints
from dataflow_assets.execution.events import CheckEvaluated
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.execution.workshop import NOW, Workshop, checks, failures, finished

ORDERS = pa.table({"id": [1, 2, 3, 4], "customer": [1, 2, 9, None], "parent": [None, 1, 1, 7]})
PROJECT = """\
project_name: test
connections:
  shop: {type: sqlite, database: shop.sqlite}
"""
CUSTOMERS = """\
pipeline_name: customers
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: customers.parquet}}
  - {id: people, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: people.parquet}}
"""
PIPELINE = """\
pipeline_name: orders
steps:
  - id: orders
    type: source
    source_type: parquet
    config: {file_path: orders.parquet}
    checks:
      - {column: customer, to: {step: customers, column: id}, name: of_step, severity: warn}
      - {column: customer, to: {pipeline: customers, column: id}, name: of_pipeline, severity: warn}
      - {column: customer, to: {connection: shop, table: clients, column: number}, name: of_table, severity: warn}
      - {column: parent, to: {step: orders, column: id}, name: of_itself, severity: warn}
  - id: customers
    type: source
    source_type: parquet
    config: {file_path: customers.parquet}
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [orders]
    config: {file_path: kept.parquet, mode: replace}
    checks: [{column: customer, to: {step: customers, column: id}, max_failed: 1}]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    shop = Workshop(tmp_path)
    shop.write("dataflow_project.yml", PROJECT)
    shop.write("pipelines/customers.yml", CUSTOMERS)
    shop.write("pipelines/orders.yml", PIPELINE)
    shop.write("orders.parquet", ORDERS)
    shop.write("customers.parquet", pa.table({"id": [1, 2, 3]}))
    with sqlite3.connect(tmp_path / "shop.sqlite") as connection:
        connection.execute("CREATE TABLE clients (number INTEGER, name TEXT)")
        connection.execute("INSERT INTO clients VALUES (1, 'a'), (9, 'b')")
    return shop


def test_every_kind_of_dataset_is_looked_at(shop: Workshop) -> None:
    project = load(shop.folder)
    plan = build_plan(project)
    assert [pipeline.name for pipeline in plan.pipelines] == ["customers", "orders"]
    events = [event for pipeline in plan.pipelines for event in run(RunRequest(project, pipeline, (None,), attempt=pipeline.name, now=NOW))]
    assert failures(events) == []
    results = {event.result.name: event.result for event in events if isinstance(event, CheckEvaluated)}
    assert {name: (result.failed, result.passed) for name, result in results.items()} == {
        "of_step": (1, False),
        "of_pipeline": (1, False),
        "of_table": (1, False),
        "of_itself": (1, False),
        "customer_relationships": (1, True),
    }
    assert [results[name].samples[0]["customer"] for name in ("of_step", "of_pipeline", "of_table")] == [9, 9, 2]
    assert results["of_table"].metadata["to"] == "shop.clients.number"


def test_a_check_alone_stages_what_it_looks_at(shop: Workshop) -> None:
    project = load(shop.folder)
    plans = build_plan(project).by_name
    for name in ("customers", "orders"):
        list(run(RunRequest(project, plans[name], (None,), attempt=name, now=NOW)))
    (shop.folder / "orders.parquet").unlink()
    request = RunRequest(project, plans["orders"], (None,), attempt="again", now=NOW, steps=frozenset({"kept"}), checks_only=True)
    events = list(run(request))
    assert failures(events) == []
    assert checks(events) == {"customer_relationships": True}
    assert [event.result.failed for event in events if isinstance(event, CheckEvaluated)] == [1]


def test_a_target_that_is_not_there_fails_the_window_with_its_name(shop: Workshop) -> None:
    project = load(shop.folder)
    events = list(run(RunRequest(project, build_plan(project).by_name["orders"], (None,), attempt="first", now=NOW)))
    (failed,) = failures(events)
    assert "people.parquet" in str(failed)
    assert not (shop.folder / "kept.parquet").exists()


def test_a_resumed_attempt_looks_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load(shop.folder)
    plans = build_plan(project).by_name
    list(run(RunRequest(project, plans["customers"], (None,), attempt="customers", now=NOW)))
    monkeypatch.setattr(failpoints, "_visits", {})
    monkeypatch.setenv(failpoints.VARIABLE, "publish.ready=error")
    assert failures(list(run(RunRequest(project, plans["orders"], (None,), attempt="first", now=NOW))))
    monkeypatch.delenv(failpoints.VARIABLE)
    events = list(run(RunRequest(project, plans["orders"], (None,), attempt="second", now=NOW)))
    assert failures(events) == []
    assert [report.resumed for step in ("customers", "orders") for report in finished(events, step)] == [True, True]
    assert {event.result.name: event.result.failed for event in events if isinstance(event, CheckEvaluated)} == {
        "of_step": 1,
        "of_pipeline": 1,
        "of_table": 1,
        "of_itself": 1,
        "customer_relationships": 1,
    }


def test_a_part_of_a_pipeline_stages_what_its_checks_look_at(shop: Workshop) -> None:
    project = load(shop.folder)
    plans = build_plan(project).by_name
    list(run(RunRequest(project, plans["customers"], (None,), attempt="customers", now=NOW)))
    for number, chosen in enumerate((frozenset({"orders"}), frozenset({"kept"}))):
        request = RunRequest(project, plans["orders"], (None,), attempt=f"part-{number}", now=NOW, steps=chosen)
        events = list(run(request))
        assert failures(events) == []
        assert len(checks(events)) == (4 if "orders" in chosen else 1)
