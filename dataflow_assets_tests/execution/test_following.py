"""Pipelines that follow: what is downstream of a reopened window runs after it, once, and only where it was read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from dataflow_assets.execution.late_data import published_units
from dataflow_assets.execution.status import reopened_todos
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.late_data import LateDataOptions
from dataflow_assets.spec.load import load
from dataflow_assets.tables import RETIRED
from dataflow_assets_tests.execution.late_shop import COPY, MADE, WHOLE, Shop, copied, found
from dataflow_assets_tests.execution.workshop import NOW, failures


def test_what_is_downstream_follows_in_order_and_only_where_it_was_read(bare: Shop):
    hours = COPY.format(late="{keys: id}", more="").replace("every: day", "every: '0 */6 * * *'")
    bare.pipeline("orders", hours.replace("end: 2024-01-04", "end: 2024-01-03"))
    bare.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    bare.pipeline("total", WHOLE.format(name="total", table="daily", more=""))
    bare.pipeline("later", WHOLE.format(name="later", table="(select 1 as value)", more="depends_on: [total]"))
    for name in ("orders", "daily", "total", "later"):
        assert failures(bare.run(name)) == []
        assert bare.due(name) == {}
    bare.source("UPDATE orders SET value = 1 WHERE id = 1")
    bare.look(windows=100)
    assert list(bare.due()) == ["2024-01-01T00:00+0000"]
    assert bare.due("daily") == {}, "nothing follows before the upstream is published"
    bare.run()
    assert list(bare.due("daily")) == ["2024-01-01"]
    assert "orders.write 2024-01-01T00:00+0000 was rewritten at" in bare.due("daily")["2024-01-01"]
    assert bare.due("total") == {}
    bare.run("daily")
    assert bare.due("daily") == {}
    assert list(bare.due("total")) == ["all"]
    bare.run("total")
    assert bare.due("total") == {}
    assert list(bare.due("later")) == ["all"]
    bare.run("later")
    assert bare.due("later") == {}
    assert bare.lake("SELECT value FROM total")[0][0] == 2 * (sum(range(0, 80, 10)) - 10 + 1)


def test_windows_that_read_back_follow_what_lies_before_them(shop: Shop):
    """Sums over two days: the day of a late row, and the one after it."""
    text = MADE.format(name="rolling", every="day", more="depends_on: [orders]", table="orders")
    shop.pipeline("rolling", text.replace("end: 2024-01-04", "end: 2024-01-04, reads_back: 1d"))
    shop.run("rolling")
    shop.source("UPDATE orders SET value = 1 WHERE id = 5")
    shop.look()
    shop.run()
    assert list(shop.due("rolling")) == ["2024-01-02", "2024-01-03"]
    shop.run("rolling")
    assert shop.due("rolling") == {}


def test_windows_out_of_reach_are_told_of_and_not_run(shop: Shop):
    shop.source("UPDATE orders SET value = 1 WHERE id IN (0, 11)")
    shop.pipeline("orders", COPY.format(late="{keys: id}", more="").replace("end: 2024-01-04", "end: 2024-01-04, x_days_back: 2d"))
    assert found(shop.look()).keys() == {"2024-01-01", "2024-01-03"}
    assert list(shop.due()) == ["2024-01-03"]
    project = load(shop.folder)
    plan = build_plan(project).by_name["orders"]
    assert [todo.key for todo in reopened_todos(project, plan, now=NOW)] == ["2024-01-03"]


def test_windows_that_have_left_their_target_are_not_looked_at(shop: Shop):
    entries = shop.ledger()
    gone = {**entries, "2024-01-02": replace(entries["2024-01-02"], state={RETIRED: "{}"})}
    plan = build_plan(load(shop.folder)).by_name["orders"]
    units = published_units(plan, {"write": gone}, LateDataOptions(), now=NOW)
    assert [key for key, _ in units] == ["2024-01-01", "2024-01-03"]


def test_what_was_made_of_windows_that_have_left_stays_as_it_is(bare: Shop):
    """Sums are kept for ever, what they were made of for a while: to make them again would empty them."""
    copied(bare, late="{keys: id}")
    bare.pipeline("daily", MADE.format(name="daily", every="day", more="late_data: {windows: 10}", table="orders"))
    bare.run("daily")
    bare.source("UPDATE orders SET value = 1 WHERE id IN (1, 5)")
    bare.look()
    bare.run()
    assert list(bare.due("daily")) == ["2024-01-01", "2024-01-02"]
    days = (NOW - datetime(2024, 1, 2, tzinfo=UTC)).days
    kept = f"retention: {{target: {days}d}}\nsteps:"
    bare.pipeline("orders", COPY.format(late="{keys: id}", more="").replace("steps:", kept))
    assert list(bare.due("daily")) == ["2024-01-02"], "the first day is not kept any longer"
    bare.run("daily")
    bare.lake("DELETE FROM orders WHERE ts < '2024-01-02'")
    assert [(window.key, window.finding) for window in bare.look("daily")] == [("2024-01-02", "same"), ("2024-01-03", "same")]
    assert bare.due("daily") == {}
    text = MADE.format(name="daily", every="day", more="late_data: {windows: 10}", table="orders")
    bare.pipeline("daily", text.replace("end: 2024-01-04", "end: 2024-01-04, reads_back: 1d"))
    assert [window.key for window in bare.look("daily")] == ["2024-01-03"], "the second day reads the first as well"


def test_what_is_rewritten_with_the_same_rows_reopens_nothing(shop: Shop):
    shop.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    shop.run("daily")
    shop.pipeline("orders", COPY.format(late="{keys: id}", more="").replace("end:", "lookback: 2, end:"))
    assert failures(shop.run()) == []
    assert shop.due("daily") == {}


def test_nothing_follows_where_nobody_asked(bare: Shop):
    copied(bare, late="{downstream: false}")
    bare.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    bare.run("daily")
    bare.source("UPDATE orders SET value = 1 WHERE id = 1")
    bare.look()
    bare.run()
    assert bare.due("daily") == {}


def test_a_dataset_without_windows_that_grows_is_no_news_of_old_rows(bare: Shop):
    """A (windows, late data) -> B (whole) -> C (windows): B is made anew at each run, and C follows only when old rows changed."""
    bare.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    whole = WHOLE.replace("count(*) as n, sum(value) as value", "*").format(name="all_orders", table="orders", more="")
    bare.pipeline("all_orders", whole)
    bare.pipeline("again", MADE.format(name="again", every="day", more="", table="all_orders"))
    for name in ("orders", "all_orders", "again"):
        assert failures(bare.run(name)) == []
    bare.lake("INSERT INTO all_orders SELECT 500, max(ts), 7 FROM all_orders")
    bare.run("all_orders")
    assert bare.due("again") == {}
    bare.source("UPDATE orders SET value = 1 WHERE id = 0")
    bare.look()
    for name in ("orders", "all_orders"):
        bare.run(name)
    assert list(bare.due("again")) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    bare.run("again")
    assert bare.due("again") == {}


def test_windows_published_before_they_followed_are_compared_by_time(bare: Shop):
    copied(bare, late="false")
    bare.pipeline("daily", MADE.format(name="daily", every="day", more="", table="orders"))
    bare.run("daily")
    bare.pipeline("orders", COPY.format(late="{keys: id}", more=""))
    bare.look()
    assert bare.due("daily") == {}
    bare.source("UPDATE orders SET value = 1 WHERE id = 0")
    bare.look()
    bare.run()
    assert list(bare.due("daily")) == ["2024-01-01"]
    bare.run("daily")
    assert bare.due("daily") == {}
