"""Late data under fire: whatever is killed between a look and the rerun, and in whatever order sources change and ticks come, the target
ends as its source."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from dataflow_assets.execution.late_data import look_for_late_data
from dataflow_assets.failpoints import VARIABLE
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.chaos.victim import NOW, work
from dataflow_assets_tests.execution.workshop import Workshop, failures
from dataflow_assets_tests.forked import context

PIPELINE = """
pipeline_name: orders
event_time_column: ts
windows: {every: day, timezone: America/New_York, begin: 2024-01-01, end: 2024-01-04}
late_data: {keys: id, windows: 3}
steps:
  - {id: read, type: source, connection: shop, config: {table: orders}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/}}
"""
FIRST = datetime(2024, 1, 1, 5, tzinfo=UTC)


def look(folder: str, failpoints: str = "") -> list[str]:
    """Look at the sources of the only pipeline; the keys of the windows that differ, and were not told of before."""
    os.environ[VARIABLE] = failpoints
    project = load(Path(folder))
    (plan,) = build_plan(project).pipelines
    return [window.key for window in look_for_late_data(project, plan, now=NOW) if window.finding == "late" and window.is_news]


def victim(action: Callable[..., object], folder: Path, failpoints: str) -> int | None:
    """Do something in a process of its own; its exit code."""
    process = context.Process(target=action, args=(str(folder),), kwargs={"failpoints": failpoints})
    process.start()
    process.join(60)
    return process.exitcode


@dataclass
class Store:
    """The source, and what should be in it."""

    folder: Path

    def ask(self, *statements: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.folder / "shop.duckdb")) as connection:
            found: list[tuple[object, ...]] = []
            for statement in statements:
                found = connection.execute(statement).fetchall()
            return found

    def source(self) -> list[tuple[object, ...]]:
        return self.ask("SELECT id, epoch_us(ts), value FROM orders ORDER BY ALL")

    def target(self) -> list[tuple[object, ...]]:
        return duckdb.sql(f"SELECT id, epoch_us(ts), value FROM '{self.folder}/lake/*.parquet' ORDER BY ALL").fetchall()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("late")
    Store(folder).ask(
        "CREATE TABLE orders AS SELECT range AS id, TIMESTAMPTZ '2024-01-01 05:00:00+00' + INTERVAL (range * 6) HOUR AS ts, "
        "range * 10 AS value FROM range(12)"
    )
    shop = Workshop(folder, now=NOW)
    shop.write("dataflow_project.yml", "project_name: t\nconnections: {shop: {type: duckdb, database: shop.duckdb}}\n")
    shop.write("pipelines/p.yml", PIPELINE)
    assert failures(shop.run()) == []
    return folder


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Store:
    shutil.copytree(template, tmp_path / "project")
    return Store(tmp_path / "project")


def test_kills_between_the_look_and_the_rerun_lose_nothing(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "")
    shop = Workshop(store.folder, now=NOW)
    store.ask("INSERT INTO orders VALUES (100, '2024-01-02 12:00:00+00', 7)", "DELETE FROM orders WHERE id = 1")
    assert victim(look, store.folder, "late.seen=kill") == -9
    assert [todo.key for todo in shop.status() if todo.run] == []
    assert look(str(store.folder)) == ["2024-01-01", "2024-01-02"], "a look that was killed has told nobody"
    for failpoints in ("extract.batch=kill", "publish.begin=kill"):
        assert victim(work, store.folder, failpoints) == -9
        assert [todo.key for todo in shop.status() if todo.run] == ["2024-01-01", "2024-01-02"], failpoints
    store.ask("INSERT INTO orders VALUES (101, '2024-01-01 13:00:00+00', 8)")
    assert look(str(store.folder)) == ["2024-01-01"]
    assert failures(shop.run()) == []
    assert store.target() == store.source()
    assert look(str(store.folder)) == []
    assert [todo.key for todo in shop.status() if todo.run] == []


CHANGES = st.one_of(
    st.tuples(st.just("insert"), st.integers(0, 71), st.integers(0, 3)),
    st.tuples(st.just("update"), st.integers(0, 14), st.integers(0, 99)),
    st.tuples(st.just("move"), st.integers(0, 14), st.integers(0, 71)),
    st.tuples(st.just("delete"), st.integers(0, 14), st.just(0)),
    st.tuples(st.sampled_from(["look", "run", "fail"]), st.just(0), st.just(0)),
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(CHANGES, max_size=10))
def test_after_any_changes_and_ticks_the_target_equals_the_source(template: Path, tmp_path_factory: pytest.TempPathFactory, steps):
    folder = tmp_path_factory.mktemp("any") / "project"
    shutil.copytree(template, folder)
    store, shop = Store(folder), Workshop(folder, now=NOW)
    numbers = iter(range(200, 300))
    for kind, first, second in steps:
        moment = f"TIMESTAMPTZ '{FIRST + timedelta(hours=first if kind == 'insert' else second):%Y-%m-%d %H:%M:%S+00}'"
        if kind == "insert":
            store.ask(f"INSERT INTO orders VALUES ({next(numbers)}, {moment}, {second})")
        elif kind == "update":
            store.ask(f"UPDATE orders SET value = {second} WHERE id = {first}")
        elif kind == "move":
            store.ask(f"UPDATE orders SET ts = {moment} WHERE id = {first}")
        elif kind == "delete":
            store.ask(f"DELETE FROM orders WHERE id = {first}")
        elif kind == "look":
            look(str(folder))
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(VARIABLE, "publish.ready=error" if kind == "fail" else "")
                shop.run()
    look(str(folder))
    assert failures(shop.run()) == []
    assert store.target() == store.source()
    assert look(str(folder)) == []
    assert [todo for todo in shop.status() if todo.run] == []
