"""A project whose source changes after its windows were published: orders of three days in DuckDB, copied into SQLite.

Here: making, changing, looking and running. Not here: expectations.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dataflow_assets.execution.events import Event
from dataflow_assets.execution.late_data import LateWindow, look_for_late_data
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import WindowTodo
from dataflow_assets.spec.load import load
from dataflow_assets_tests.execution.workshop import NOW, Workshop, days, failures

PROJECT = """
project_name: test
connections:
  shop: {type: duckdb, database: shop.duckdb}
  lake: {type: sqlite, database: lake.sqlite}
"""
COPY = """
pipeline_name: orders
event_time_column: ts
windows: {{every: day, begin: 2024-01-01, end: 2024-01-04}}
late_data: {late}
steps:
  - {{id: read, type: source, connection: shop, config: {{table: orders}}}}
  - {{id: write, type: endpoint, connection: lake, depends_on: [read], config: {{table: orders{more}}}}}
"""
MADE = """
pipeline_name: {name}
event_time_column: ts
windows: {{every: {every}, begin: 2024-01-01, end: 2024-01-04}}
{more}
steps:
  - {{id: read, type: source, connection: lake, config: {{query: "select id, ts, value * 2 as value from {table}"}}}}
  - {{id: write, type: endpoint, connection: lake, depends_on: [read], config: {{table: {name}, mode: replace_window}}}}
"""
WHOLE = """
pipeline_name: {name}
{more}
steps:
  - {{id: read, type: source, connection: lake, config: {{query: "select count(*) as n, sum(value) as value from {table}"}}}}
  - {{id: write, type: endpoint, connection: lake, depends_on: [read], config: {{table: {name}, mode: replace}}}}
"""
_count = iter(range(10_000))


@dataclass
class Shop:
    """A project of several pipelines, run in order without Dagster."""

    workshop: Workshop

    @property
    def folder(self) -> Path:
        return self.workshop.folder

    def pipeline(self, name: str, text: str) -> None:
        self.workshop.write(f"pipelines/{name}.yml", text)

    def source(self, *statements: str) -> None:
        with duckdb.connect(str(self.folder / "shop.duckdb")) as connection:
            for statement in statements:
                connection.execute(statement)

    def lake(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "lake.sqlite")) as connection, connection:
            return connection.execute(statement).fetchall()

    def holds_its_source(self) -> bool:
        """Whether the target has the rows of the source."""
        with duckdb.connect(str(self.folder / "shop.duckdb"), read_only=True) as connection:
            query = "SELECT id, strftime({}, '%Y-%m-%d %H'), value FROM orders ORDER BY id, value"
            there = connection.execute(query.format("ts AT TIME ZONE 'UTC'")).fetchall()
        query = "SELECT id, strftime('%Y-%m-%d %H', ts), value FROM orders ORDER BY id, value"
        return there == self.lake(query)

    def look(self, name: str = "orders", **asked: Any) -> list[LateWindow]:
        project = load(self.folder)
        return look_for_late_data(project, build_plan(project).by_name[name], now=NOW, **asked)

    def todos(self, name: str = "orders") -> list[WindowTodo]:
        project = load(self.folder)
        return window_status(project, build_plan(project).by_name[name], now=NOW)

    def due(self, name: str = "orders") -> dict[str, str]:
        return {todo.key: todo.reason for todo in self.todos(name) if todo.state == "reopened"}

    def run(self, name: str = "orders", *, keys: Sequence[str] | None = None) -> list[Event]:
        """Run what is due of one pipeline."""
        project = load(self.folder)
        plan = build_plan(project).by_name[name]
        todos = [todo for todo in self.todos(name) if todo.run and (keys is None or todo.key in keys)]
        request = RunRequest(project, plan, tuple(todo.window for todo in todos), f"try-{next(_count)}", NOW)
        return list(run(request))

    def ledger(self, name: str = "orders") -> dict[str, Any]:
        project = load(self.folder)
        entries = ledger_entries(project, build_plan(project).by_name[name], now=NOW)["write"]
        return {entry.unit.key: entry for entry in entries}


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bare`: a source of three days; `copied`: the same, published with late_data: {keys: id}."""
    folder = tmp_path_factory.mktemp("late")
    bare = Shop(Workshop(folder / "bare"))
    bare.workshop.write("dataflow_project.yml", PROJECT)
    with duckdb.connect(str(bare.folder / "shop.duckdb")) as connection:
        connection.register("given", days(rows_a_day=4))
        connection.execute("CREATE TABLE orders AS SELECT * FROM given")
    shutil.copytree(folder / "bare", folder / "copied")
    copied = Shop(Workshop(folder / "copied"))
    copied.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    assert failures(copied.run()) == []
    return folder


@pytest.fixture
def bare(tmp_path: Path, templates: Path) -> Shop:
    shutil.copytree(templates / "bare", tmp_path / "project")
    return Shop(Workshop(tmp_path / "project"))


@pytest.fixture
def shop(tmp_path: Path, templates: Path) -> Shop:
    """Orders of three days, published."""
    shutil.copytree(templates / "copied", tmp_path / "project")
    return Shop(Workshop(tmp_path / "project"))


def copied(bare: Shop, late: str, more: str = "") -> Shop:
    bare.pipeline("orders", COPY.format(late=late, more=more))
    assert failures(bare.run()) == []
    return bare


def found(windows: list[LateWindow]) -> dict[str, str]:
    return {window.key: window.sentence.partition(" at the source")[0] for window in windows if window.finding == "late"}
