"""Late and changed data between DuckDB files: what a look finds, what is due afterwards, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dataflow_assets.errors import PlanError
from dataflow_assets.execution.events import Event, WindowFailed
from dataflow_assets.execution.fingerprints import SOURCES, fingerprints_of
from dataflow_assets.execution.late_data import LateWindow, look_for_late_data
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import WindowTodo
from dataflow_assets.spec.load import load
from dataflow_assets.storage import digests
from dataflow_assets_tests.execution.workshop import NOW, Workshop, days, failures

PROJECT = """
project_name: test
connections:
  shop: {type: duckdb, database: shop.duckdb}
  lake: {type: duckdb, database: lake.duckdb}
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

    def source(self, *statements: str, file: str = "shop") -> None:
        with duckdb.connect(str(self.folder / f"{file}.duckdb")) as connection:
            for statement in statements:
                connection.execute(statement)

    def rows(self, table: str, file: str = "lake") -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / f"{file}.duckdb"), read_only=True) as connection:
            return connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()

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


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        table = days(rows_a_day=4)
        connection.register("given", table)
        connection.execute("CREATE TABLE orders AS SELECT * FROM given")
    made = Shop(Workshop(tmp_path))
    made.workshop.write("dataflow_project.yml", PROJECT)
    return made


def copied(shop: Shop, late: str = "{keys: id}", more: str = "") -> Shop:
    shop.pipeline("orders", COPY.format(late=late, more=more))
    assert failures(shop.run()) == []
    return shop


def found(windows: list[LateWindow]) -> dict[str, str]:
    return {window.key: window.sentence.partition(" at the source")[0] for window in windows if window.finding == "late"}


def test_what_came_changed_and_vanished_is_counted_and_due_until_it_is_published(shop: Shop):
    copied(shop)
    assert {window.finding for window in shop.look()} == {"same"}
    assert shop.due() == {}
    shop.source(
        "INSERT INTO orders VALUES (100, '2024-01-02 00:00:00+00', 7), (101, '2024-01-02 23:59:59.999999+00', 7)",
        "UPDATE orders SET value = 1 WHERE id IN (0, 5)",
        "DELETE FROM orders WHERE id IN (1, 2)",
    )
    assert shop.due() == {}, "nothing is known before somebody looks"
    windows = shop.look()
    assert found(windows) == {"2024-01-01": "0 rows came, 1 changed, 2 vanished", "2024-01-02": "2 rows came, 1 changed, 0 vanished"}
    assert [window.is_news for window in windows] == [True, True, False]
    assert shop.due().keys() == {"2024-01-01", "2024-01-02"}
    assert shop.due()["2024-01-02"].startswith("2 rows came, 1 changed, 0 vanished at the source since it was published at 2")
    assert [window.is_news for window in shop.look()] == [False, False, False]
    assert failures(shop.run()) == []
    assert shop.due() == {}
    assert {window.finding for window in shop.look()} == {"same"}
    assert shop.rows("orders") == shop.rows("orders", file="shop")


def test_a_deletion_and_an_insertion_of_equal_count_are_found(shop: Shop):
    copied(shop)
    shop.source("DELETE FROM orders WHERE id = 1", "INSERT INTO orders VALUES (99, '2024-01-01 05:00:00+00', 10)")
    assert found(shop.look()) == {"2024-01-01": "1 row came, 0 changed, 1 vanished"}


def test_a_row_that_moves_to_another_window_reopens_both(shop: Shop):
    copied(shop)
    shop.source("UPDATE orders SET ts = '2024-01-03 12:00:00+00' WHERE id = 0")
    assert found(shop.look()) == {"2024-01-01": "0 rows came, 0 changed, 1 vanished", "2024-01-03": "1 row came, 0 changed, 0 vanished"}


def test_without_keys_the_words_claim_no_more_than_is_known(shop: Shop):
    copied(shop, late="true")
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(shop.look()) == {"2024-01-01": "1 row came or changed, 1 vanished or changed"}


def test_behind_a_transform_only_the_difference_is_known(shop: Shop):
    text = COPY.format(late="{keys: id}", more="").replace("depends_on: [read]", "depends_on: [clean]")
    clean = '  - {id: clean, type: transform, kind: sql, depends_on: [read], config: {query: "select * from read where value >= 0"}}\n'
    shop.pipeline("orders", text + clean)
    assert failures(shop.run()) == []
    shop.source("INSERT INTO orders VALUES (100, '2024-01-01 01:00:00+00', 7)", "UPDATE orders SET value = 1 WHERE id = 5")
    assert found(shop.look()) == {
        "2024-01-01": "1 row more than before, and others may have changed,",
        "2024-01-02": "rows changed, or as many came as vanished,",
    }


def test_counting_alone_sees_more_and_fewer_rows_and_no_more(shop: Shop):
    copied(shop, late="{compare: count}")
    assert fingerprints_of(shop.ledger()["2024-01-01"])["read"].columns == {}
    shop.source("DELETE FROM orders WHERE id = 1", "UPDATE orders SET value = 1 WHERE id = 5")
    assert found(shop.look()) == {"2024-01-01": "1 row fewer than before"}


def test_ignored_columns_may_change(shop: Shop):
    copied(shop, late="{ignore: value}")
    shop.source("UPDATE orders SET value = 1")
    assert found(shop.look()) == {}


def test_a_failed_rerun_keeps_a_window_open_and_a_change_taken_back_closes_it(shop: Shop):
    copied(shop)
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    shop.look()
    text = (shop.folder / "pipelines/orders.yml").read_text()
    shop.pipeline("orders", text.replace("config: {table: orders}}", 'config: {query: "select * from orders where error(value)"}}', 1))
    assert isinstance(failures(shop.run())[0], WindowFailed)
    shop.pipeline("orders", text)
    (todo,) = [todo for todo in shop.todos() if todo.run]
    assert (todo.key, todo.state) == ("2024-01-01", "failed")
    assert "1 changed" in todo.reason
    shop.source("UPDATE orders SET value = 0 WHERE id = 0")
    assert found(shop.look()) == {}
    assert [todo.reason for todo in shop.todos() if todo.run] == ["the last attempt failed"]


def test_rows_that_come_between_the_look_and_the_rerun_or_while_it_reads_are_not_lost(shop: Shop):
    copied(shop)
    shop.source("INSERT INTO orders VALUES (100, '2024-01-01 01:00:00+00', 7)")
    shop.look()
    shop.source("INSERT INTO orders VALUES (101, '2024-01-01 01:00:00+00', 7)")
    shop.run()
    assert shop.due() == {}
    assert shop.rows("orders") == shop.rows("orders", file="shop")
    shop.source("INSERT INTO orders VALUES (102, '2024-01-01 01:00:00+00', 7)")
    assert found(shop.look()) == {"2024-01-01": "1 row came, 0 changed, 0 vanished"}


def test_a_stage_that_was_read_before_the_look_does_not_close_the_window(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    copied(shop)
    monkeypatch.setenv("DATAFLOW_FAILPOINTS", "publish.ready=error")
    shop.pipeline("orders", (shop.folder / "pipelines/orders.yml").read_text().replace("end:", "lookback: 3, end:"))
    assert failures(shop.run(keys=["2024-01-01"]))
    monkeypatch.delenv("DATAFLOW_FAILPOINTS")
    shop.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    shop.look()
    assert failures(shop.run(keys=["2024-01-01"])) == []
    if shop.due():  # it took over the stage of the attempt that failed, which is older than the change
        assert failures(shop.run()) == []
    assert shop.due() == {}
    assert shop.rows("orders") == shop.rows("orders", file="shop")


def test_windows_published_without_fingerprints_get_a_baseline_and_say_so(shop: Shop):
    copied(shop, late="false")
    assert SOURCES not in shop.ledger()["2024-01-01"].state
    shop.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    first = shop.look()
    assert {window.finding for window in first} == {"baseline"}
    assert "4 rows at its source are the baseline from now on" in first[0].sentence
    assert {window.finding for window in shop.look()} == {"same"}
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(shop.look()) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished"}
    assert found(shop.look()) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished"}
    shop.run()
    assert shop.due() == {}
    assert {window.finding for window in shop.look()} == {"same"}


def test_only_the_newest_windows_are_looked_at(shop: Shop):
    copied(shop, late="{windows: 2}")
    assert [window.key for window in shop.look()] == ["2024-01-02", "2024-01-03"]
    assert [window.key for window in shop.look(windows=1)] == ["2024-01-03"]
    shop.pipeline("orders", COPY.format(late="{max_age: 1d}", more=""))
    assert [window.key for window in shop.look()] == ["2024-01-03"]


def test_told_and_no_more(shop: Shop):
    copied(shop, late="{reopen: false}", more=", mode: append")
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(shop.look()).keys() == {"2024-01-01"}
    assert shop.due() == {}


def test_an_upsert_takes_in_what_came_and_changed(shop: Shop):
    copied(shop, late="true", more=", mode: upsert, upsert_keys: id")
    shop.source("UPDATE orders SET value = 1 WHERE id = 0", "INSERT INTO orders VALUES (100, '2024-01-01 01:00:00+00', 7)")
    assert found(shop.look()) == {"2024-01-01": "1 row came, 1 changed, 0 vanished"}
    shop.run()
    assert shop.due() == {}
    assert shop.rows("orders") == shop.rows("orders", file="shop")


def test_one_query_looks_at_all_windows(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    copied(shop)
    asked: list[str] = []
    original = digests.SqlRows._ask

    def counting(self: Any, columns: Any, query: Any) -> Any:
        asked.append("asked")
        return original(self, columns, query)

    monkeypatch.setattr(digests.SqlRows, "_ask", counting)
    assert len(shop.look()) == 3
    assert len(asked) == 1


def test_a_column_that_is_gone_leaves_the_count_and_a_new_one_is_no_change(shop: Shop):
    copied(shop)
    shop.source("ALTER TABLE orders ADD COLUMN note VARCHAR")
    assert found(shop.look()) == {}
    shop.source("ALTER TABLE orders DROP COLUMN value")
    assert found(shop.look()) == {}
    shop.source("DELETE FROM orders WHERE id = 0")
    assert found(shop.look()) == {"2024-01-01": "1 row fewer than before"}


def test_a_query_that_cuts_the_window_out_by_itself_is_asked_window_by_window(shop: Shop):
    query = "select * from orders where ts >= {{ window.start }} and ts < {{ window.end }}"
    shop.pipeline("orders", COPY.format(late="{keys: id}", more="").replace("table: orders}", f'query: "{query}"}}', 1))
    assert failures(shop.run()) == []
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(shop.look()) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished"}


# -- pipelines that follow


def test_what_is_downstream_follows_in_order_and_only_where_it_was_read(shop: Shop):
    hours = COPY.format(late="{keys: id}", more="").replace("every: day", "every: '0 */6 * * *'")
    shop.pipeline("orders", hours.replace("end: 2024-01-04", "end: 2024-01-03"))
    shop.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    shop.pipeline("total", WHOLE.format(name="total", table="daily", more=""))
    shop.pipeline("later", WHOLE.format(name="later", table="(select 1 as value)", more="depends_on: [total]"))
    for name in ("orders", "daily", "total", "later"):
        assert failures(shop.run(name)) == []
        assert shop.due(name) == {}
    shop.source("UPDATE orders SET value = 1 WHERE id = 1")
    shop.look(windows=100)
    assert list(shop.due()) == ["2024-01-01T00:00+0000"]
    assert shop.due("daily") == {}, "nothing follows before the upstream is published"
    shop.run()
    assert list(shop.due("daily")) == ["2024-01-01"]
    assert "orders.write 2024-01-01T00:00+0000 was rewritten at" in shop.due("daily")["2024-01-01"]
    assert shop.due("total") == {}
    shop.run("daily")
    assert shop.due("daily") == {}
    assert list(shop.due("total")) == ["all"]
    shop.run("total")
    assert shop.due("total") == {}
    assert list(shop.due("later")) == ["all"]
    shop.run("later")
    assert shop.due("later") == {}
    assert shop.rows("total")[0][1] == 2 * (sum(range(0, 80, 10)) - 10 + 1)


def test_what_is_rewritten_with_the_same_rows_reopens_nothing(shop: Shop):
    copied(shop)
    shop.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    shop.run("daily")
    shop.pipeline("orders", COPY.format(late="{keys: id}", more="").replace("end:", "lookback: 2, end:"))
    assert failures(shop.run()) == []
    assert shop.due("daily") == {}


def test_nothing_follows_where_nobody_asked(shop: Shop):
    copied(shop, late="{downstream: false}")
    shop.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    shop.run("daily")
    shop.source("UPDATE orders SET value = 1 WHERE id = 1")
    shop.look()
    shop.run()
    assert shop.due("daily") == {}


def test_a_dataset_without_windows_that_grows_is_no_news_of_old_rows(shop: Shop):
    """A (windows, late data) -> B (whole) -> C (windows): B is made anew at each run, and C follows only when old rows changed."""
    shop.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    whole = WHOLE.replace("count(*) as n, sum(value) as value", "*").format(name="all_orders", table="orders", more="")
    shop.pipeline("all_orders", whole)
    shop.pipeline("again", MADE.format(name="again", every="day", more="", table="all_orders"))
    for name in ("orders", "all_orders", "again"):
        assert failures(shop.run(name)) == []
    shop.source("INSERT INTO all_orders VALUES (500, '2024-01-03 12:00:00+00', 7)", file="lake")
    shop.run("all_orders")
    assert shop.due("again") == {}
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    shop.look()
    for name in ("orders", "all_orders"):
        shop.run(name)
    assert list(shop.due("again")) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    shop.run("again")
    assert shop.due("again") == {}


def test_windows_published_before_they_followed_are_compared_by_time(shop: Shop):
    copied(shop, late="false")
    shop.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    shop.run("daily")
    shop.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    shop.look()
    assert shop.due("daily") == {}
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    shop.look()
    shop.run()
    assert list(shop.due("daily")) == ["2024-01-01"]
    shop.run("daily")
    assert shop.due("daily") == {}


# -- what is refused

REFUSED = [
    ("late_data: {windows: 3, max_age: 3d}", "", "has either windows or max_age, not both"),
    ("late_data: {every: 5s}", "", "is too often"),
    ("late_data: {max_age: soon}", "", "is not a duration"),
    ("late_data: {windos: 3}", "", "windos"),
    ("late_data: {sources: [raed]}", "", "there is no source step 'raed'"),
    ("late_data: true", ", mode: append", "endpoint 'write' appends, and what is appended is never rewritten"),
]


@pytest.mark.parametrize(("section", "more", "message"), REFUSED)
def test_a_section_that_cannot_do_what_it_says_is_refused_where_it_stands(shop: Shop, section: str, more: str, message: str):
    shop.pipeline("orders", COPY.format(late="true", more=more).replace("late_data: true", section))
    project = load(shop.folder)
    problems = [problem for failure in project.failures for problem in failure.problems]
    if not problems:
        with pytest.raises(PlanError) as refused:
            build_plan(project)
        problems = list(refused.value.problems)
    (problem,) = [problem for problem in problems if message in str(problem)]
    assert (problem.place.file.endswith("orders.yml"), problem.place.line) == (True, 5)


def test_a_source_that_cannot_tell_windows_apart_is_refused_and_an_api_only_counted(shop: Shop):
    shop.pipeline("orders", COPY.format(late="true", more=", mode: upsert, upsert_keys: id").replace("event_time_column: ts\n", ""))
    with pytest.raises(PlanError, match="no source reads the rows of a window alone"):
        build_plan(load(shop.folder))
    api = "{id: read, type: source, source_type: http, connection: api, config: {path: orders}}"
    text = COPY.format(late="true", more="").replace("{id: read, type: source, connection: shop, config: {table: orders}}", api)
    shop.workshop.write("dataflow_project.yml", PROJECT + "  api: {type: http, base_url: 'http://127.0.0.1:1'}\n")
    shop.pipeline("orders", text)
    with pytest.raises(PlanError, match="cannot sum up its rows by itself"):
        build_plan(load(shop.folder))
    shop.pipeline("orders", text.replace("late_data: true", "late_data: {compare: count}"))
    assert build_plan(load(shop.folder)).by_name["orders"].late_data is not None


def test_a_pipeline_without_windows_is_looked_at_whole(shop: Shop):
    text = COPY.format(late="{keys: id}", more=", mode: replace").replace("windows: {every: day, begin: 2024-01-01, end: 2024-01-04}\n", "")
    shop.pipeline("orders", text)
    assert failures(shop.run()) == []
    assert shop.due() == {}
    shop.source("UPDATE orders SET value = 1 WHERE id IN (0, 5)")
    assert found(shop.look()) == {"all": "0 rows came, 2 changed, 0 vanished"}
    assert list(shop.due()) == ["all"]
    shop.run()
    assert shop.due() == {}


def test_what_the_ledger_keeps_of_a_source_is_what_was_read(shop: Shop):
    copied(shop)
    entry = shop.ledger()["2024-01-01"]
    print_ = fingerprints_of(entry)["read"]
    assert print_.tally.rows == 4
    assert dict(print_.columns) == {"id": "integer", "ts": "instant", "value": "integer"}
    assert print_.read_at is not None
    assert print_.read_at < entry.published_at
    assert fingerprints_of(replace(entry, state={SOURCES: "no json"})) == {}
