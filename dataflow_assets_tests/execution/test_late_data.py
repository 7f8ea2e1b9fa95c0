"""Late and changed data between DuckDB files: what a look finds, what is due afterwards, and what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dataflow_assets.errors import PlanError
from dataflow_assets.execution.events import WindowFailed
from dataflow_assets.execution.fingerprints import SOURCES, fingerprints_of
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.builders import endpoint, pipeline, source
from dataflow_assets.spec.builders import project as build_project
from dataflow_assets.spec.load import load
from dataflow_assets.storage import digests
from dataflow_assets_tests.execution.late_shop import COPY, PROJECT, Shop, copied, found
from dataflow_assets_tests.execution.workshop import failures


def test_what_came_changed_and_vanished_is_counted_and_due_until_it_is_published(shop: Shop):
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
    assert shop.holds_its_source()


def test_a_deletion_and_an_insertion_of_equal_count_are_found(shop: Shop):
    shop.source("DELETE FROM orders WHERE id = 1", "INSERT INTO orders VALUES (99, '2024-01-01 05:00:00+00', 10)")
    assert found(shop.look()) == {"2024-01-01": "1 row came, 0 changed, 1 vanished"}


def test_a_row_that_moves_to_another_window_reopens_both(shop: Shop):
    shop.source("UPDATE orders SET ts = '2024-01-03 12:00:00+00' WHERE id = 0")
    assert found(shop.look()) == {"2024-01-01": "0 rows came, 0 changed, 1 vanished", "2024-01-03": "1 row came, 0 changed, 0 vanished"}


def test_without_keys_the_words_claim_no_more_than_is_known(bare: Shop):
    copied(bare, late="true")
    bare.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(bare.look()) == {"2024-01-01": "1 row came or changed, 1 vanished or changed"}


def test_behind_a_transform_only_the_difference_is_known(bare: Shop):
    text = COPY.format(late="{keys: id}", more="").replace("depends_on: [read]", "depends_on: [clean]")
    clean = '  - {id: clean, type: transform, kind: sql, depends_on: [read], config: {query: "select * from read where value >= 0"}}\n'
    bare.pipeline("orders", text + clean)
    assert failures(bare.run()) == []
    bare.source("INSERT INTO orders VALUES (100, '2024-01-01 01:00:00+00', 7)", "UPDATE orders SET value = 1 WHERE id = 5")
    assert found(bare.look()) == {
        "2024-01-01": "1 row more than before, and others may have changed,",
        "2024-01-02": "rows changed, or as many came as vanished,",
    }


def test_counting_alone_sees_more_and_fewer_rows_and_no_more(bare: Shop):
    copied(bare, late="{compare: count}")
    assert fingerprints_of(bare.ledger()["2024-01-01"])["read"].columns == {}
    bare.source("DELETE FROM orders WHERE id = 1", "UPDATE orders SET value = 1 WHERE id = 5")
    assert found(bare.look()) == {"2024-01-01": "1 row fewer than before"}


def test_ignored_columns_may_change(bare: Shop):
    copied(bare, late="{ignore: value}")
    bare.source("UPDATE orders SET value = 1")
    assert found(bare.look()) == {}


def test_a_source_whose_columns_change_places_does_not_reopen_for_ever(shop: Shop):
    shop.source("CREATE TABLE turned AS SELECT value, ts, id FROM orders", "DROP TABLE orders", "ALTER TABLE turned RENAME TO orders")
    shop.source("UPDATE orders SET value = 1 WHERE id = 11")
    assert found(shop.look()).keys() == {"2024-01-03"}
    shop.run()
    assert list(fingerprints_of(shop.ledger()["2024-01-03"])["read"].columns) == ["value", "ts", "id"]
    assert found(shop.look()) == {}, "windows that were summed up in different orders are not asked together"


def test_a_failed_rerun_keeps_a_window_open_and_a_change_taken_back_closes_it(shop: Shop):
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
    shop.source("INSERT INTO orders VALUES (100, '2024-01-01 01:00:00+00', 7)")
    shop.look()
    shop.source("INSERT INTO orders VALUES (101, '2024-01-01 01:00:00+00', 7)")
    shop.run()
    assert shop.due() == {}
    assert shop.holds_its_source()
    shop.source("INSERT INTO orders VALUES (102, '2024-01-01 01:00:00+00', 7)")
    assert found(shop.look()) == {"2024-01-01": "1 row came, 0 changed, 0 vanished"}


def test_a_stage_that_was_read_before_the_look_does_not_close_the_window(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATAFLOW_FAILPOINTS", "publish.ready=error")
    shop.pipeline("orders", (shop.folder / "pipelines/orders.yml").read_text().replace("end:", "lookback: 3, end:"))
    assert failures(shop.run(keys=["2024-01-01"]))
    monkeypatch.delenv("DATAFLOW_FAILPOINTS")
    shop.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    shop.source("UPDATE orders SET value = 1 WHERE id = 0")
    shop.look()
    assert failures(shop.run(keys=["2024-01-01"])) == []
    assert shop.due() == {}
    assert shop.holds_its_source()


def test_windows_published_without_fingerprints_get_a_baseline_and_say_so(bare: Shop):
    copied(bare, late="false")
    assert SOURCES not in bare.ledger()["2024-01-01"].state
    bare.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    first = bare.look()
    assert {window.finding for window in first} == {"baseline"}
    assert "4 rows at its source are the baseline from now on" in first[0].sentence
    assert {window.finding for window in bare.look()} == {"same"}
    bare.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(bare.look()) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished"}
    assert found(bare.look()) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished"}
    bare.run()
    assert bare.due() == {}
    assert {window.finding for window in bare.look()} == {"same"}


def test_only_the_newest_windows_are_looked_at(shop: Shop):
    shop.pipeline("orders", COPY.format(late="{windows: 2}", more=""))
    assert [window.key for window in shop.look()] == ["2024-01-02", "2024-01-03"]
    assert [window.key for window in shop.look(windows=1)] == ["2024-01-03"]
    shop.pipeline("orders", COPY.format(late="{max_age: 1d}", more=""))
    assert [window.key for window in shop.look()] == ["2024-01-03"]


def test_told_and_no_more(bare: Shop):
    copied(bare, late="{reopen: false}", more=", mode: append")
    bare.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(bare.look()).keys() == {"2024-01-01"}
    assert bare.due() == {}


def test_an_upsert_takes_in_what_came_and_changed(bare: Shop):
    copied(bare, late="true", more=", mode: upsert, upsert_keys: id")
    bare.source("UPDATE orders SET value = 1 WHERE id = 0", "INSERT INTO orders VALUES (100, '2024-01-01 01:00:00+00', 7)")
    assert found(bare.look()) == {"2024-01-01": "1 row came, 1 changed, 0 vanished"}
    bare.run()
    assert bare.due() == {}
    assert bare.holds_its_source()


def test_one_query_looks_at_all_windows(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    original = digests.SqlRows._ask

    def counting(self: Any, columns: Any, query: Any) -> Any:
        asked.append("asked")
        return original(self, columns, query)

    monkeypatch.setattr(digests.SqlRows, "_ask", counting)
    assert len(shop.look()) == 3
    assert len(asked) == 1


def test_a_column_that_is_gone_leaves_the_count_and_a_new_one_is_no_change(shop: Shop):
    shop.source("ALTER TABLE orders ADD COLUMN note VARCHAR")
    assert found(shop.look()) == {}
    shop.source("ALTER TABLE orders DROP COLUMN value")
    assert found(shop.look()) == {}
    shop.source("DELETE FROM orders WHERE id = 0")
    assert found(shop.look()) == {"2024-01-01": "1 row fewer than before"}


def test_a_query_that_cuts_the_window_out_by_itself_is_asked_window_by_window(bare: Shop):
    query = "select * from orders where ts >= {{ window.start }} and ts < {{ window.end }}"
    bare.pipeline("orders", COPY.format(late="{keys: id}", more="").replace("table: orders}", f'query: "{query}"}}', 1))
    assert failures(bare.run()) == []
    bare.source("UPDATE orders SET value = 1 WHERE id = 0")
    assert found(bare.look()) == {"2024-01-01": "0 rows came, 1 changed, 0 vanished"}


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
def test_a_section_that_cannot_do_what_it_says_is_refused_where_it_stands(bare: Shop, section: str, more: str, message: str):
    bare.pipeline("orders", COPY.format(late="true", more=more).replace("late_data: true", section))
    project = load(bare.folder)
    problems = [problem for failure in project.failures for problem in failure.problems]
    if not problems:
        with pytest.raises(PlanError) as refused:
            build_plan(project)
        problems = list(refused.value.problems)
    (problem,) = [problem for problem in problems if message in str(problem)]
    assert (problem.place.file.endswith("orders.yml"), problem.place.line) == (True, 5)


def test_a_source_that_cannot_tell_windows_apart_is_refused_and_an_api_only_counted(bare: Shop):
    bare.pipeline("orders", COPY.format(late="true", more=", mode: upsert, upsert_keys: id").replace("event_time_column: ts\n", ""))
    with pytest.raises(PlanError, match="no source reads the rows of a window alone"):
        build_plan(load(bare.folder))
    api = "{id: read, type: source, source_type: http, connection: api, config: {path: orders}}"
    text = COPY.format(late="true", more="").replace("{id: read, type: source, connection: shop, config: {table: orders}}", api)
    bare.workshop.write("dataflow_project.yml", PROJECT + "  api: {type: http, base_url: 'http://127.0.0.1:1'}\n")
    bare.pipeline("orders", text)
    with pytest.raises(PlanError, match="cannot sum up its rows by itself"):
        build_plan(load(bare.folder))
    bare.pipeline("orders", text.replace("late_data: true", "late_data: {compare: count}"))
    assert build_plan(load(bare.folder)).by_name["orders"].late_data is not None


def test_a_pipeline_without_windows_is_looked_at_whole(bare: Shop):
    text = COPY.format(late="{keys: id}", more=", mode: replace").replace("windows: {every: day, begin: 2024-01-01, end: 2024-01-04}\n", "")
    bare.pipeline("orders", text)
    assert failures(bare.run()) == []
    assert bare.due() == {}
    bare.source("UPDATE orders SET value = 1 WHERE id IN (0, 5)")
    assert found(bare.look()) == {"all": "0 rows came, 2 changed, 0 vanished"}
    assert list(bare.due()) == ["all"]
    bare.run()
    assert bare.due() == {}


def test_what_the_ledger_keeps_of_a_source_is_what_was_read(shop: Shop):
    entry = shop.ledger()["2024-01-01"]
    print_ = fingerprints_of(entry)["read"]
    assert print_.tally.rows == 4
    assert dict(print_.columns) == {"id": "integer", "ts": "instant", "value": "integer"}
    assert print_.read_at is not None
    assert print_.read_at < entry.published_at
    assert fingerprints_of(replace(entry, state={SOURCES: "no json"})) == {}


def test_of_several_sources_the_one_that_changed_is_named_and_small_tables_are_left_alone(bare: Shop):
    """Orders and payments of a window, and a table of names that no window is read from."""
    bare.source("CREATE TABLE payments AS SELECT * FROM orders", "CREATE TABLE names AS SELECT 1 AS id, 'x' AS name")
    more = (
        "  - {id: paid, type: source, connection: shop, config: {table: payments}}\n"
        "  - {id: names, type: source, connection: shop, config: {table: names, event_time_column: null}}\n"
        "  - id: joined\n    type: transform\n    kind: sql\n    depends_on: [read, paid, names]\n"
        "    config: {query: 'select r.id, r.ts, p.value from read r join paid p using (id) cross join (select count(*) from names)'}\n"
    )
    text = COPY.format(late="true", more="").replace("depends_on: [read]", "depends_on: [joined]")
    bare.pipeline("orders", text + more)
    assert failures(bare.run()) == []
    assert set(fingerprints_of(bare.ledger()["2024-01-01"])) == {"read", "paid"}
    bare.source("UPDATE names SET name = 'y'", "DELETE FROM payments WHERE id = 0")
    (late,) = [window for window in bare.look() if window.finding == "late"]
    assert late.sentence.startswith("paid: 1 row fewer than before, and others may have changed, at the source since")
    bare.source("UPDATE orders SET value = 5 WHERE id = 1")
    (late,) = [window for window in bare.look() if window.finding == "late"]
    assert late.sentence.startswith("read: rows changed, or as many came as vanished,")
    assert "; paid: 1 row fewer than before" in late.sentence
    assert failures(bare.run()) == []
    assert bare.due() == {}
    assert {window.finding for window in bare.look()} == {"same"}
    bare.pipeline("orders", (text + more).replace("late_data: true", "late_data: {sources: names}"))
    assert {window.finding for window in bare.look()} == {"baseline"}
    bare.source("UPDATE names SET name = 'z'")
    assert list(bare.due()) == []
    assert len(found(bare.look())) == 3, "every window may have read it"


def test_written_in_python_it_is_the_same(bare: Shop):
    steps = [
        source("read", connection="shop", table="orders"),
        endpoint("write", connection="lake", depends_on="read", table="orders", mode="replace_window"),
    ]
    windows = {"every": "day", "begin": "2024-01-01", "end": "2024-01-04"}
    made = [pipeline("orders", steps=steps, event_time_column="ts", windows=windows, late_data=wanted) for wanted in (True, {"windows": 3})]
    for one, asked in zip(made, (None, 3), strict=True):
        connections = {"shop": {"type": "duckdb", "database": "shop.duckdb"}, "lake": {"type": "sqlite", "database": "lake.sqlite"}}
        plan = build_plan(build_project("t", pipelines=[one], root=bare.folder, connections=connections)).by_name["orders"]
        assert plan.late_data is not None
        assert (plan.late_data.windows, plan.late_data.sources) == (asked, ["read"])
