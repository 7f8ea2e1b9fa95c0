"""Late and changed data at real servers, in files and in a bucket: rows that come, change and vanish in the nights of both clock changes,
transactions that are open during a look, files that are merely touched."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from dataflow_assets.connectors import _files
from dataflow_assets.execution.late_data import LateWindow, look_for_late_data
from dataflow_assets.execution.sightings import read_sightings
from dataflow_assets.storage import digests, local_digests
from dataflow_assets_tests.connectors.on_objects import at, put
from dataflow_assets_tests.execution.workshop import Workshop, failures
from dataflow_assets_tests.services import mysql
from dataflow_assets_tests.services.clickhouse import ClickHouseServer
from dataflow_assets_tests.services.http_server import Answer, served
from dataflow_assets_tests.services.object_stores import StoreRoot

PIPELINE = """
pipeline_name: night
event_time_column: moment
windows: {{every: hour, timezone: Europe/Berlin, begin: '{begin}', end: '{end}'}}
late_data: {{windows: 10, keys: id}}
steps:
  - {{id: read, type: source, connection: shop, config: {{table: orders}}}}
  - {{id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {{file_path: lake/orders/}}}}
"""
SPRING, AUTUMN = datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 10, 26, 23, tzinfo=UTC)
"""The hour before the clocks go forward, and two hours before they go back."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+")
"""When rows were read: one in a thousand holds a price of ours, as 12:30:41.507 does."""
TABLES = {
    "postgres": "CREATE TABLE orders (id int PRIMARY KEY, moment timestamptz, price numeric(9, 2), note text)",
    "mysql": "CREATE TABLE orders (id int PRIMARY KEY, moment datetime(6), price decimal(9, 2), note text) ENGINE=InnoDB",
    "clickhouse": "CREATE TABLE orders (id Int32, moment DateTime64(6, 'UTC'), price Decimal(9, 2), note Nullable(String)) "
    "ENGINE = MergeTree ORDER BY id",
}


@dataclass
class Source:
    """A server with the source table, the words it is changed with, and its connection in YAML."""

    kind: str
    ask: Callable[[str], Any]
    connection: dict[str, Any]

    def insert(self, *rows: tuple[int, datetime, str]) -> None:
        values = ", ".join(f"({number}, '{moment:%Y-%m-%d %H:%M:%S.%f}', 1.50, '{note}')" for number, moment, note in rows)
        self.ask(f"INSERT INTO orders VALUES {values}")

    def change(self, number: int) -> None:
        words = (
            "ALTER TABLE orders UPDATE price = 7 WHERE id = {}"
            if self.kind == "clickhouse"
            else "UPDATE orders SET price = 7 WHERE id = {}"
        )
        self.ask(words.format(number))

    def delete(self, number: int) -> None:
        self.ask(f"DELETE FROM orders WHERE id = {number}")


@pytest.fixture
def postgres(postgres_dsn: str) -> Iterator[Source]:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield Source("postgres", lambda text: connection.execute(text.encode()), {"dsn": postgres_dsn})


@pytest.fixture
def mariadb(mysql_user_dsn: str) -> Source:
    parts = {name: value for name, value in mysql.parts_of(mysql_user_dsn).items() if value}
    return Source("mysql", lambda text: mysql.ask(mysql_user_dsn, text), parts)


@pytest.fixture
def engine(clickhouse: ClickHouseServer) -> Source:
    known = {"host": clickhouse.host, "port": clickhouse.port, "user": clickhouse.user, "database": clickhouse.database}
    client = clickhouse.client()
    settings = {"mutations_sync": 2}
    return Source("clickhouse", lambda text: client.command(text, settings=settings), {**known, "secure": clickhouse.secure})


def watched(folder: Path, source: Source, first: datetime) -> Workshop:
    """Four hours from `first` on, an order each twenty minutes, published."""
    source.ask(TABLES[source.kind])
    source.insert(*((number, first + number * timedelta(minutes=20), f"note {number}") for number in range(12)))
    shop = Workshop(folder)
    shop.write(
        "dataflow_project.yml", yaml.safe_dump({"project_name": "t", "connections": {"shop": {"type": source.kind, **source.connection}}})
    )
    shop.pipeline(PIPELINE.format(begin=first.isoformat(), end=(first + timedelta(hours=4)).isoformat()))
    shop.now = first + timedelta(days=300)
    events = shop.run()
    assert failures(events) == []
    return shop


def look(shop: Workshop) -> list[LateWindow]:
    project, plan = shop.load()
    return look_for_late_data(project, plan, now=shop.now)


def found(windows: list[LateWindow]) -> dict[str, str]:
    return {window.key: window.sentence.partition(" at the source")[0] for window in windows if window.finding == "late"}


@pytest.mark.parametrize("name", ["postgres", "mariadb", "engine"])
def test_rows_that_are_late_at_both_clock_changes(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source: Source = request.getfixturevalue(name)
    first = SPRING if name == "mariadb" else AUTUMN
    shop = watched(tmp_path, source, first)
    asked = _counted(monkeypatch, digests.SqlRows, "_ask")
    assert {window.finding for window in look(shop)} == {"same"}
    assert len(asked) == 1, "all windows in one query"

    source.insert((100, first + timedelta(hours=2, microseconds=-1), "late"), (101, first + timedelta(hours=2), "late"))
    source.change(0)
    source.delete(11)
    keys = [todo.key for todo in shop.status()]
    expected = ["0 rows came, 1 changed, 0 vanished", "1 row came, 0 changed, 0 vanished"]
    expected += ["1 row came, 0 changed, 0 vanished", "0 rows came, 0 changed, 1 vanished"]
    assert found(look(shop)) == dict(zip(keys, expected, strict=True))
    assert [key[11:] for key in keys] == (
        ["01:00+0100", "03:00+0200", "04:00+0200", "05:00+0200"]
        if first is SPRING
        else ["01:00+0200", "02:00+0200", "02:00+0100", "03:00+0100"]
    )
    source.insert((200, first, "instead of another"))
    source.delete(1)
    assert found(look(shop))[keys[0]] == "1 row came, 1 changed, 1 vanished"
    assert [todo.state for todo in shop.status()] == ["reopened"] * 4
    assert failures(shop.run()) == []
    assert {window.finding for window in look(shop)} == {"same"}
    assert sorted(row["id"] for row in shop.rows("lake/orders")) == [0, *range(2, 11), 100, 101, 200]
    kept = _MOMENT.sub("", json.dumps(shop.ledger()["write"][0].state))
    assert "1.50" not in kept, "a digest of the rows is kept, and none of their values"


def _counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[str]:
    """Append to the list whenever a method is called."""
    calls: list[str] = []
    original = getattr(owner, name)

    def counting(*given: Any, **named: Any) -> Any:
        calls.append(name)
        return original(*given, **named)

    monkeypatch.setattr(owner, name, counting)
    return calls


def test_a_transaction_that_commits_after_a_look_began_is_found_by_the_next(postgres: Source, postgres_dsn: str, tmp_path: Path):
    shop = watched(tmp_path, postgres, AUTUMN)
    with psycopg.connect(postgres_dsn) as other:
        other.execute("INSERT INTO orders VALUES (300, '2024-10-27 00:30:00+00', 1, 'not yet there')")
        assert found(look(shop)) == {}
        other.commit()
    assert found(look(shop)) == {"2024-10-27T02:00+0200": "1 row came, 0 changed, 0 vanished"}
    with psycopg.connect(postgres_dsn) as other:  # a row that is in no snapshot of the rerun, and committed before that ends
        other.execute("INSERT INTO orders VALUES (301, '2024-10-27 00:40:00+00', 1, 'while it ran')")
        assert failures(shop.run()) == []
        other.commit()
    assert [todo.state for todo in shop.status()] == ["published"] * 4, "nobody has seen it yet"
    assert found(look(shop)) == {"2024-10-27T02:00+0200": "1 row came, 0 changed, 0 vanished"}
    assert failures(shop.run()) == []
    assert {300, 301} <= {row["id"] for row in shop.rows("lake/orders")}


FILES = """
pipeline_name: files
event_time_column: ts
windows: {{every: day, begin: 2024-01-01, end: 2024-01-03}}
late_data: {{keys: id}}
steps:
  - {{id: read, type: source, source_type: csv{connection}, config: {{file_path: {path}}}}}
  - {{id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {{file_path: lake/}}}}
"""
ROWS = "id,ts,value\n1,2024-01-01T10:00:00Z,1.5\n2,2024-01-02T10:00:00Z,\n"


def test_files_are_read_again_only_when_size_or_time_differ_and_then_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shop = Workshop(tmp_path)
    shop.write("in/a.csv", ROWS)
    shop.pipeline(FILES.format(connection="", path="in/"))
    assert failures(shop.run()) == []
    reads = _counted(monkeypatch, local_digests.LocalRows, "tallies_between")
    assert {window.finding for window in look(shop)} == {"same"}
    assert reads == []
    os.utime(tmp_path / "in/a.csv", (1, 1))
    assert {window.finding for window in look(shop)} == {"same"}
    assert {window.finding for window in look(shop)} == {"same"}
    assert len(reads) == 1, "touched: read once, for both windows, and no more"
    shop.write("in/b.csv", "id,ts,value\n3,2024-01-02T11:00:00Z,2.5\n")
    assert found(look(shop)) == {"2024-01-02": "1 row came, 0 changed, 0 vanished"}
    assert len(reads) == 2
    look(shop)
    assert len(reads) == 2
    assert failures(shop.run()) == []
    assert {window.finding for window in look(shop)} == {"same"}
    assert len(reads) == 2, "what was published has the version that was read"
    shop.write("in/a.csv", ROWS.replace("value", "worth"))
    (tmp_path / "in/b.csv").unlink()
    assert found(look(shop)) == {"2024-01-02": "1 row fewer than before"}, "a column is gone: rows are counted"


def test_objects_are_read_again_only_when_their_tag_differs(tmp_path: Path, s3_root: StoreRoot, monkeypatch: pytest.MonkeyPatch):
    shop = Workshop(tmp_path)
    connection = {"type": "csv", "root": s3_root.url, "storage_options": s3_root.options}
    shop.write("dataflow_project.yml", yaml.safe_dump({"project_name": "t", "connections": {"landing": connection}}))
    put(at(s3_root, "in/1.csv"), ROWS.encode())
    shop.pipeline(FILES.format(connection=", connection: landing", path="in/*.csv"))
    assert failures(shop.run()) == []
    opened = _counted(monkeypatch, _files.OpenFile, "open")
    assert {window.finding for window in look(shop)} == {"same"}
    assert opened == []
    put(at(s3_root, "in/1.csv"), ROWS.replace("1.5", "9.5").encode())
    assert found(look(shop)) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished"}
    assert failures(shop.run()) == []
    assert {window.finding for window in look(shop)} == {"same"}
    assert [row["value"] for row in shop.rows("lake")] == [9.5, None]


def test_an_api_is_only_counted(tmp_path: Path):
    rows = [{"id": number, "ts": f"2024-01-0{1 + number % 2} 10:00:00"} for number in range(5)]
    with served(lambda _: Answer(rows)) as server:
        shop = Workshop(tmp_path)
        shop.write(
            "dataflow_project.yml", f"project_name: t\nconnections: {{api: {{type: http, base_url: '{server.url}', verify: false}}}}\n"
        )
        asked = "connection: api, config: {path: orders, column_types: {id: int64, ts: timestamp}}"
        text = FILES.format(connection="", path="x").replace("source_type: csv, config: {file_path: x}", asked)
        shop.pipeline(text.replace("{keys: id}", "{compare: count}"))
        assert failures(shop.run()) == []
        before = len(server.log)
        assert {window.finding for window in look(shop)} == {"same"}
        assert len(server.log) == before + 1, "one pass over its pages for all windows"
        rows.append({"id": 9, "ts": "2024-01-02 11:00:00"})
        assert found(look(shop)) == {"2024-01-02": "1 row more than before"}
        assert failures(shop.run()) == []
        assert {window.finding for window in look(shop)} == {"same"}


def test_what_is_seen_is_shared_by_all_hosts_in_the_database_of_the_drive(
    postgres: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    shop = watched(tmp_path, postgres, AUTUMN)
    kept = {"project_name": "t", "connections": {"shop": {"type": "postgres", **postgres.connection}}, "drive": {"connection": "shop"}}
    shop.write("dataflow_project.yml", yaml.safe_dump(kept))
    postgres.change(0)
    project, plan = shop.load()
    with ThreadPoolExecutor(2) as pool:  # two hosts look at the same moment, at a table that is not there yet
        both = list(pool.map(lambda _: found(look(shop)), range(2)))
    assert both == [{"2024-10-27T01:00+0200": "0 rows came, 1 changed, 0 vanished"}] * 2
    elsewhere = replace(project, root=tmp_path / "other")
    assert [key for key, _ in read_sightings(elsewhere, plan.name)] == ["2024-10-27T01:00+0200"]
    assert failures(shop.run()) == []
    assert {window.finding for window in look(shop)} == {"same"}
    assert [sighting.sentence for sighting in read_sightings(elsewhere, plan.name).values()] == [""]
    broken = {**kept, "connections": {**kept["connections"], "away": {"type": "postgres", "dsn": "postgresql://x:y@127.0.0.1:1/z"}}}
    shop.write("dataflow_project.yml", yaml.safe_dump({**broken, "drive": {"connection": "away"}}))
    assert [todo.state for todo in shop.status()] == ["published"] * 4, "loads go on"
    assert "no window counts as reopened" in caplog.text


def test_rows_that_their_system_cannot_sum_up_are_streamed_once_for_all_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def till(*statements: str) -> None:
        with closing(sqlite3.connect(tmp_path / "till.sqlite")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    till(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, ts TIMESTAMP, share REAL)",
        "INSERT INTO orders VALUES (1, '2024-01-01 10:00:00', 0.5), (2, '2024-01-02 10:00:00', NULL)",
    )
    shop = Workshop(tmp_path)
    shop.write("dataflow_project.yml", "project_name: t\nconnections: {till: {type: sqlite, database: till.sqlite}}\n")
    text = FILES.format(connection="", path="x")
    shop.pipeline(text.replace("source_type: csv, config: {file_path: x}", "connection: till, config: {table: orders}"))
    assert failures(shop.run()) == []
    reads = _counted(monkeypatch, local_digests.LocalRows, "tallies_between")
    assert {window.finding for window in look(shop)} == {"same"}
    assert len(reads) == 1
    till("UPDATE orders SET share = 0.75 WHERE id = 1", "INSERT INTO orders VALUES (3, '2024-01-02 23:59:59', 1)")
    assert found(look(shop)) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished", "2024-01-02": "1 row came, 0 changed, 0 vanished"}
