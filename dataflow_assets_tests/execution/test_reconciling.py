"""Reconciliation within a window: what passes, what is refused before the publish, what is found after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dataflow_assets import reconcile
from dataflow_assets.canonical import Tally
from dataflow_assets.errors import AuditFailed, CheckFailed, DataflowError, SelectionError
from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished
from dataflow_assets.execution.reconciling import judge
from dataflow_assets.protocols import CheckResult
from dataflow_assets.spec.models import ToleranceOptions
from dataflow_assets_tests.execution.workshop import Workshop, failures

PROJECT = """
project_name: test
connections:
  shop: {type: duckdb, database: shop.duckdb}
  mart: {type: sqlite, database: mart.sqlite}
  till: {type: sqlite, database: till.sqlite}
  lake: {type: duckdb, database: lake.duckdb}
"""
COPY = """
pipeline_name: copy
event_time_column: ts
windows: {{every: day, begin: 2024-01-01, end: 2024-01-03}}
steps:
  - {{id: read, type: source, connection: shop, config: {{table: orders}}}}
  - {{id: write, type: endpoint, connection: {to}, depends_on: [read], config: {{table: orders, reconcile: {how}, {more}}}}}
"""
MEDDLING = """
pipeline_name: copy
steps:
  - {{id: read, type: source, connection: till, config: {{table: orders}}}}
  - {{id: meddle, type: transform, kind: python, depends_on: [read], config: {{file: meddle.py, function: meddle}}}}
  - {{id: write, type: endpoint, connection: lake, depends_on: [meddle], config: {{table: orders, mode: replace, reconcile: {how}}}}}
"""
MEDDLE = """
import sqlite3
import pyarrow as pa

def meddle(table: pa.Table) -> pa.Table:
    connection = sqlite3.connect({path!r})
    connection.execute({change!r})
    connection.commit()
    connection.close()
    return table
"""


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE orders AS SELECT range AS id, TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL (range * 4) HOUR AS ts, "
            "'name ' || range AS name, (range * 1.5)::DECIMAL(9, 2) AS price FROM range(12)"
        )
    with closing(sqlite3.connect(tmp_path / "till.sqlite")) as till, till:
        till.execute("CREATE TABLE orders (id INTEGER, name TEXT, price INTEGER)")
        till.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(number, f"name {number}", number) for number in range(12)])
    shop = Workshop(tmp_path)
    shop.write("dataflow_project.yml", PROJECT)
    return shop


def results(events: list[Event]) -> dict[str, list[CheckResult]]:
    found: dict[str, list[CheckResult]] = {}
    for event in events:
        if isinstance(event, CheckEvaluated):
            found.setdefault(event.result.name, []).append(event.result)
    return found


def meddling(shop: Workshop, change: str, how: str) -> dict[str, Any]:
    """Run while a transform changes the source; the one result for the source, and the failure if any."""
    shop.write("meddle.py", MEDDLE.format(path=str(shop.folder / "till.sqlite"), change=change))
    shop.pipeline(MEDDLING.format(how=how))
    events = shop.run()
    return {"result": results(events)["reconcile_source"][0], "failed": failures(events), "events": events}


@pytest.mark.parametrize("to", ["lake", "mart"])
def test_a_faithful_copy_passes_with_counts_and_checksums_of_every_side(shop: Workshop, to: str):
    shop.pipeline(COPY.format(to=to, how="true", more="mode: replace_window"))
    events = shop.run()
    assert failures(events) == []
    found = results(events)
    assert [len(found[name]) for name in ("reconcile_source", "reconcile_target")] == [2, 2]
    for name, left, right in (("reconcile_source", "source", "stage"), ("reconcile_target", "stage", "target")):
        for result in found[name]:
            assert result.passed
            assert result.checked == 6
            assert result.metadata[f"{left}_rows"] == result.metadata[f"{right}_rows"] == 6
            assert result.metadata[f"{left}_checksum"] == result.metadata[f"{right}_checksum"]
            assert result.metadata["loss_percent"] == 0
            assert result.samples == ()
    assert found["reconcile_source"][0].metadata["source_counted_in"] == "duckdb"
    assert found["reconcile_target"][0].metadata["target_counted_in"] == ("duckdb" if to == "lake" else "here")


def test_rows_lost_on_the_way_in_are_refused_before_anything_is_published(shop: Workshop):
    found = meddling(shop, "DELETE FROM orders WHERE id = 3", "{keys: id}")
    assert isinstance(found["failed"][0].error, CheckFailed)
    assert not [event for event in found["events"] if isinstance(event, StepFinished) and event.step == "write"]
    result = found["result"]
    assert "source has 11 rows, stage 12: 1 more" in result.description
    assert [sample["difference"] for sample in result.samples] == ["extra"]
    assert result.samples[0]["id"] == 3
    assert shop.ledger()["write"] == []


@pytest.mark.parametrize(
    ("change", "how", "passes"),
    [
        ("DELETE FROM orders WHERE id = 3", "{source_to_stage: {allow_gains: true}}", True),
        ("INSERT INTO orders SELECT id + 100, name, price FROM orders LIMIT 4", "{source_to_stage: {tolerance: 25%}}", True),
        ("INSERT INTO orders SELECT id + 100, name, price FROM orders LIMIT 4", "{source_to_stage: {tolerance: 24.9}}", False),
        ("UPDATE orders SET price = price + 1 WHERE id = 5", "{keys: [id], source_to_stage: {tolerance: 50%}}", False),
        ("UPDATE orders SET price = price + 1 WHERE id = 5", "{ignore: price}", True),
        ("UPDATE orders SET price = price + 1 WHERE id = 5", "{checksum: false}", True),
    ],
)
def test_tolerances_are_inclusive_and_gains_count_unless_they_are_allowed(shop: Workshop, change: str, how: str, passes: bool):
    found = meddling(shop, change, how)
    assert found["result"].passed is passes, found["result"].description
    assert (found["failed"] == []) is passes
    if "keys" in how:
        (sample,) = found["result"].samples
        assert sample == {"difference": "changed", "id": 5, "price": "6 -> 5"}


def test_a_warning_publishes_all_the_same(shop: Workshop):
    found = meddling(shop, "DELETE FROM orders WHERE id = 3", "{severity: warn}")
    assert not found["result"].passed
    assert found["failed"] == []
    assert [entry.rows for entry in shop.ledger()["write"]] == [12]


def test_a_trigger_that_changes_rows_in_the_target_is_found_after_the_publish(shop: Workshop):
    with closing(sqlite3.connect(shop.folder / "mart.sqlite")) as mart, mart:
        mart.execute("CREATE TABLE orders (id INTEGER, ts TIMESTAMP WITH TIME ZONE, name TEXT, price DECIMAL(9, 2))")
        mart.execute(
            "CREATE TRIGGER meddle AFTER INSERT ON orders WHEN new.id = 2 BEGIN UPDATE orders SET name = upper(name) WHERE id = 2; END"
        )
    shop.pipeline(COPY.format(to="mart", how="{keys: [id]}", more="mode: replace_window"))
    events = shop.run()
    (failed,) = failures(events)
    assert isinstance(failed.error, AuditFailed)
    assert "dataflow reconcile copy.write" in failed.error.hint
    assert "have 6 rows each, but not the same ones" in failed.error.message
    assert [(todo.state, todo.run) for todo in shop.status()] == [("failed", True), ("missing", True)]
    (result,) = results(events)["reconcile_target"]
    assert result.samples == ({"difference": "changed", "id": 2, "name": "'name 2' -> 'NAME 2'"},)
    (found,) = reconcile(shop.folder, "copy", windows=["2024-01-01"])
    assert [(row.kind, row.key, row.cells) for row in found.differences.rows] == [("changed", {"id": 2}, {"name": ("name 2", "NAME 2")})]


@pytest.mark.parametrize("mode", ["append", "upsert, upsert_keys: [id]"])
def test_an_append_or_upsert_is_held_to_what_its_publish_counted(shop: Workshop, mode: str):
    shop.pipeline(COPY.format(to="lake", how="true", more=f"mode: {mode}").replace("event_time_column: ts\n", "").replace(
        "config: {table: orders}", "config: {table: orders, event_time_column: ts}"
    ))  # fmt: skip
    events = shop.run()
    assert failures(events) == []
    for result in results(events)["reconcile_target"]:
        assert result.passed
        assert "counted by the publish alone" in result.metadata["note"]


def test_a_run_of_checks_alone_compares_the_source_with_the_target(shop: Workshop):
    shop.pipeline(COPY.format(to="lake", how="{keys: [id]}", more="mode: replace_window"))
    assert failures(shop.run()) == []
    todo = shop.status(full_refresh=True)
    assert all(result.passed for found in results(shop.run(todo=todo, checks_only=True)).values() for result in found)
    with duckdb.connect(str(shop.folder / "lake.duckdb")) as lake:
        lake.execute("DELETE FROM orders WHERE id = 8")
    found = results(shop.run(todo=todo, checks_only=True))
    assert [result.passed for result in found["reconcile_source"]] == [True, False]
    assert found["reconcile_source"][1].samples[0]["id"] == 8


def test_the_block_changes_no_fingerprint(shop: Workshop):
    prints = []
    for how in ("false", "true", "{checksum: false}"):
        shop.pipeline(COPY.format(to="lake", how=how, more="mode: replace_window"))
        _, plan = shop.load()
        prints.append(plan.by_id["write"].fingerprint)
        assert [check.names for check in plan.by_id["write"].checks] == [("reconcile_source", "reconcile_target")] * (how != "false")
    assert len(set(prints[1:])) == 1


SEVERAL = """
pipeline_name: copy
steps:
  - {id: first, type: source, connection: shop, config: {table: orders}}
  - {id: early, type: endpoint, connection: lake, depends_on: [first], config: {table: early, mode: replace, reconcile: true}}
  - {id: second, type: source, connection: till, depends_on: [early], config: {table: orders}}
  - id: both
    type: transform
    kind: sql
    depends_on: [second, first]
    config: {query: "SELECT second.id, first.ts FROM second JOIN first USING (id)"}
  - {id: late, type: endpoint, connection: mart, depends_on: [both], config: {table: late, mode: replace, reconcile: true}}
"""


def test_every_source_of_an_endpoint_is_compared_each_in_its_turn(shop: Workshop):
    shop.pipeline(SEVERAL)
    events = shop.run()
    assert failures(events) == []
    first, late = results(events)["reconcile_source"]
    assert first.metadata["source_rows"] == 12
    assert (late.checked, late.metadata["first.source_rows"], late.metadata["second.stage_rows"]) == (24, 12, 12)
    assert all(result.passed for result in results(events)["reconcile_target"])


def _judged() -> Iterator[Any]:
    yield 100, 100, {}, True
    yield 100, 99, {}, False
    yield 100, 99, {"tolerance": 1}, True
    yield 1000, 989, {"tolerance": 1}, False
    yield 100, 103, {"tolerance": 100}, False
    yield 100, 103, {"allow_gains": True}, True
    yield 0, 5, {}, False
    yield 0, 5, {"allow_gains": True}, True
    yield 0, 0, {}, True
    yield 5, 0, {"tolerance": 99.9}, False
    yield 5, 0, {"tolerance": 100}, True


@pytest.mark.parametrize(("before", "after", "how", "passes"), list(_judged()))
def test_loss_is_measured_as_in_the_audit_of_old(before: int, after: int, how: dict[str, Any], passes: bool):
    verdict = judge(Tally(before, 1), Tally(after, 1), names=("stage", "target"), tolerance=ToleranceOptions(**how))
    assert verdict.passed is passes, verdict.sentence
    assert verdict.loss == ((before - after) / before * 100 if before else 0)


def test_what_the_ledger_recorded_is_held_against_the_target(shop: Workshop):
    shop.pipeline(COPY.format(to="lake", how="false", more="mode: replace_window"))
    assert failures(shop.run()) == []
    assert [found.same for found in reconcile(shop.folder, "copy.write", against="ledger")] == [True, True]
    with duckdb.connect(str(shop.folder / "lake.duckdb")) as lake:
        lake.execute("UPDATE orders SET name = 'x' WHERE id = 1")
    first, second = reconcile(shop.folder, "copy.write", against="ledger")
    assert (first.same, second.same) == (False, True)
    assert first.differences is None


def test_where_rows_are_made_only_the_ledger_can_be_asked(shop: Workshop):
    assert meddling(shop, "SELECT 1", "true")["failed"] == []
    (found,) = reconcile(shop.folder, "copy")
    assert (found.against, found.same, found.tallies[1].rows) == ("ledger", True, 12)
    with pytest.raises(DataflowError, match="no plain copy of a source: step 'meddle' makes its rows"):
        reconcile(shop.folder, "copy", against="source")


def test_a_primary_key_is_found_where_no_keys_are_said(shop: Workshop):
    with duckdb.connect(str(shop.folder / "shop.duckdb")) as connection:
        connection.execute("CREATE TABLE keyed (shop VARCHAR, id INTEGER, name VARCHAR, PRIMARY KEY (shop, id))")
        connection.execute("INSERT INTO keyed VALUES ('a', 1, 'x'), ('b', 1, 'y'), ('b', 2, NULL)")
    shop.pipeline(COPY.format(to="lake", how="false", more="mode: replace").replace("table: orders}", "table: keyed}").replace(
        "event_time_column: ts\nwindows: {every: day, begin: 2024-01-01, end: 2024-01-03}\n", ""
    ))  # fmt: skip
    assert failures(shop.run()) == []
    with duckdb.connect(str(shop.folder / "lake.duckdb")) as lake:
        lake.execute("UPDATE orders SET name = '' WHERE id = 2")
    (found,) = reconcile(shop.folder, "copy")
    assert found.keys == ("shop", "id")
    (row,) = found.differences.rows
    assert (row.kind, row.key, row.cells) == ("changed", {"shop": "b", "id": 2}, {"name": (None, "")})


def test_names_keys_and_windows_that_are_not_there_are_refused_with_those_that_are(shop: Workshop):
    shop.pipeline(COPY.format(to="lake", how="true", more="mode: replace_window"))
    assert failures(shop.run()) == []
    with pytest.raises(SelectionError, match="there is no sound pipeline 'cpoy'") as missing:
        reconcile(shop.folder, "cpoy")
    assert "copy" in missing.value.hint
    with pytest.raises(SelectionError, match="copy has no endpoint 'wirte'"):
        reconcile(shop.folder, "copy.wirte")
    with pytest.raises(DataflowError, match="'2024-13-01' is no key of a window"):
        reconcile(shop.folder, "copy", windows=["2024-13-01"])
    with pytest.raises(DataflowError, match="there is no column 'ident' on both sides") as unknown:
        reconcile(shop.folder, "copy", keys=["ident"])
    assert "id, ts, name, price" in unknown.value.hint


@pytest.mark.parametrize("where", ["read", "write"])
def test_rows_set_aside_are_no_loss(shop: Workshop, where: str):
    rule = "checks: [{{column: price, max_value: 10, on_failure: quarantine}}], quarantine: {{max_share: 90%}}"
    text = COPY.replace("config: {{table: orders}}}}", "config: {{table: orders}}, " + rule + "}}", 1)
    if where == "write":
        text = COPY.replace("{more}}}}}", "{more}}}, " + rule + "}}")
    shop.pipeline(text.format(to="lake", how="true", more="mode: replace_window"))
    events = shop.run()
    assert failures(events) == []
    found = results(events)
    assert [(result.passed, result.checked) for result in found["reconcile_source"]] == [(True, 6), (True, 6)]
    assert [(result.passed, result.checked) for result in found["reconcile_target"]] == [(True, 6), (True, 1)]
    (outcome,) = [item for item in reconcile(shop.folder, "copy") if not item.same]
    assert "5 of the window are in its quarantine" in outcome.verdict.sentence
    assert {row.kind for row in outcome.differences.rows} == {"missing"}
