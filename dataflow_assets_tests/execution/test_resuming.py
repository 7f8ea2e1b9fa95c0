"""Resume: the next attempt begins at the failed step from the verified stage, never before it, and says why where it does not."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets.connectors import sqlite
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.execution import window as window_module
from dataflow_assets.execution.events import StageJudged
from dataflow_assets.execution.origins import difference
from dataflow_assets.execution.resuming import forecasts
from dataflow_assets.failpoints import VARIABLE
from dataflow_assets.spec.retries import RetryOptions
from dataflow_assets_tests.execution.workshop import Workshop, failures, finished

PROJECT = """\
project_name: test
connections:
  app: {type: sqlite, database: "{{ var('app', 'app.db') }}"}
"""
PIPELINE = """\
variables: {least: 0}
retries: false
steps:
  - id: orders
    type: source
    source_type: sqlite
    connection: app
    config: {query: "SELECT id, value FROM orders WHERE value >= {{ var('least') }}"}
  - {id: doubled, type: transform, kind: sql, depends_on: [orders], config: {query: "SELECT id, value * 2 AS value FROM orders"}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [doubled], config: {file_path: out.parquet, mode: replace}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.write("dataflow_project.yml", PROJECT)
    made.pipeline(PIPELINE)
    for name in ("app.db", "other.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.executescript("CREATE TABLE orders (id INTEGER, value INTEGER); INSERT INTO orders VALUES (1, 10), (2, 20)")
    return made


class Reads:
    """Counts how often the source is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, real = 0, sqlite.Connector.read

        def counted(connector: Any, request: Any) -> Any:
            self.count += 1
            return real(connector, request)

        monkeypatch.setattr(sqlite.Connector, "read", counted)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def no_target() -> Iterator[Callable[[], None]]:
    """The endpoint cannot be published to, until it is called."""
    patch = pytest.MonkeyPatch()

    def broken(*_: Any, **__: Any) -> Iterator[Any]:
        raise ConnectionFailed("the target is away")
        yield

    patch.setattr(window_module, "publish", broken)
    yield patch.undo
    patch.undo()


def judged(events: list[Any]) -> dict[str, str]:
    """What is said of the stages of earlier attempts."""
    return {event.step: str(event) for event in events if isinstance(event, StageJudged)}


def forecast(shop: Workshop) -> dict[str, tuple[str, str]]:
    project, plan = shop.load()
    ((found),) = forecasts(project, plan, {"all": None}, now=shop.now)
    return {step.step: (step.fate, step.reason) for step in found.steps}


def test_a_failed_publish_is_repeated_without_reading(shop: Workshop, reads: Reads, no_target: Callable[[], None]) -> None:
    (failed,) = failures(shop.run())
    assert (failed.step, reads.count) == ("write", 1)
    assert forecast(shop) == {"orders": ("resumed", ""), "doubled": ("resumed", ""), "write": ("published", "")}
    no_target()
    events = shop.run()
    assert (failures(events), reads.count) == ([], 1)
    assert judged(events) == {
        "orders": "stage of step orders used: 2 rows, verified",
        "doubled": "stage of step doubled used: 2 rows, verified",
    }
    assert [row["value"] for row in shop.rows("out.parquet")] == [20, 40]
    assert judged(shop.run()) == {}, "a run after a good one has nothing to resume"


def edit(old: str, new: str) -> Callable[[Workshop], None]:
    def change(shop: Workshop) -> None:
        assert old in PIPELINE
        shop.pipeline(PIPELINE.replace(old, new))

    return change


def set_variable(shop: Workshop) -> None:
    shop.overrides = {"least": 15}


def lead_elsewhere(shop: Workshop) -> None:
    shop.overrides = {"app": "other.db"}


def damage(shop: Workshop) -> None:
    (part,) = (shop.folder / ".dataflow" / "stages").rglob("orders/*.parquet")
    data = bytearray(part.read_bytes())
    data[40] ^= 255
    part.write_bytes(bytes(data))


def cut_short(shop: Workshop) -> None:
    (receipt,) = (shop.folder / ".dataflow" / "stages").rglob("orders/receipt.json")
    receipt.unlink()


def grow_old(shop: Workshop) -> None:
    shop.write("dataflow_project.yml", PROJECT + "stages: {max_age: 1h}\n")
    for receipt in (shop.folder / ".dataflow" / "stages").rglob("receipt.json"):
        os.utime(receipt, (time.time() - 7200,) * 2)


TYPED = 'config: {column_types: {id: int64}, query: "SELECT id, value FROM orders WH'
CHANGES = {
    "query": (edit("SELECT id, value FROM orders", "SELECT id, value + 0 AS value FROM orders"), "orders", "the query changed"),
    "option": (edit('config: {query: "SELECT id, value FROM orders WH', TYPED), "orders", "the option column_types changed"),
    "variable": (set_variable, "orders", "the query has other values: a variable, a date or the state in it changed"),
    "connection": (lead_elsewhere, "orders", "its connection is written differently"),
    "damaged": (damage, "orders", "its files do not hold what its receipt says"),
    "incomplete": (cut_short, "orders", "it was not complete when the attempt ended"),
    "old": (grow_old, "orders", "it is 2.0 hours old, and stages.max_age allows 1.0"),
    "transform": (edit("value * 2", "value * 3"), "doubled", "the query changed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_since_is_made_anew_and_named(shop: Workshop, reads: Reads, no_target: Callable[[], None], change: str) -> None:
    do, step, reason = CHANGES[change]
    shop.run()
    do(shop)
    before = forecast(shop)
    no_target()
    events = shop.run()
    assert failures(events) == []
    assert reads.count == (2 if step == "orders" else 1)
    assert judged(events)[step] == f"stage of step {step} not used: {reason}"
    assert [report.made_anew for report in finished(events, step)] == [reason]
    if change != "damaged":  # which a forecast, that reads no rows, cannot see
        assert before[step] == ("anew", reason)
    if step == "orders":
        assert before["doubled"][0] == ("resumed" if change == "damaged" else "anew")


def test_a_step_before_it_that_gives_the_same_rows_is_named(shop: Workshop, no_target: Callable[[], None]) -> None:
    shop.run()
    edit("SELECT id, value FROM orders", "SELECT id, value FROM orders AS o")(shop)
    no_target()
    said = judged(shop.run())
    assert said["orders"].endswith("the query changed")
    assert said["doubled"].endswith("a step before it, or what its windows are, is written differently")


def test_what_a_check_refused_is_read_again(shop: Workshop, reads: Reads) -> None:
    checked = PIPELINE.replace('AS value FROM orders"}}', 'AS value FROM orders"}, checks: [{column: value, max_value: 30}]}')
    shop.pipeline(checked)
    assert failures(shop.run())
    shop.pipeline(checked.replace("max_value: 30", "max_value: 50"))
    events = shop.run()
    assert (failures(events), reads.count) == ([], 2)
    assert judged(events)["orders"] == "stage of step orders not used: a check refused what came of it, so the rows are read again"


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(shop: Workshop, no_target: Callable[[], None]) -> None:
    shop.write("orders.csv", "id,value\n1,10\n2,20\n")
    shop.pipeline(
        """
retries: false
steps:
  - {id: orders, type: source, source_type: csv, config: {file_path: orders.csv}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [orders], config: {file_path: out.parquet, mode: replace}}
"""
    )
    shop.run()
    assert forecast(shop)["orders"] == ("resumed", "")
    shop.write("orders.csv", "id,value\n1,10\n2,21\n3,30\n")
    assert forecast(shop)["orders"] == ("anew", "the source has changed")
    no_target()
    assert judged(shop.run())["orders"] == "stage of step orders not used: the source has changed"
    assert [row["id"] for row in shop.rows("out.parquet")] == [1, 2, 3]


VICTIM = """
import sys
from pathlib import Path
from dataflow_assets_tests.execution.workshop import Workshop
Workshop(Path(sys.argv[1])).run()
"""


@pytest.mark.parametrize(
    ("place", "read_again", "resumed"),
    [
        ("stage.before_receipt", 1, []),
        ("stage.after_receipt", 0, ["orders"]),
        ("publish.ready", 0, ["orders", "doubled"]),
    ],
)
def test_a_killed_attempt_is_resumed_from_its_last_receipt(
    shop: Workshop, reads: Reads, place: str, read_again: int, resumed: list[str]
) -> None:
    environment = {**os.environ, VARIABLE: f"{place}=kill", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", VICTIM, str(shop.folder)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    events = shop.run()
    assert failures(events) == []
    assert reads.count == read_again
    assert [step for step, said in judged(events).items() if "not used" not in said] == resumed
    if read_again:
        assert judged(events)["orders"].endswith("it was not complete when the attempt ended")
    assert [row["value"] for row in shop.rows("out.parquet")] == [20, 40]


def test_an_endpoint_that_was_published_is_not_published_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two endpoints the second failed: the next attempt begins at that one."""
    second = "  - {id: also, type: endpoint, endpoint_type: csv, depends_on: [doubled], config: {file_path: out.csv, mode: replace}}\n"
    shop.pipeline(PIPELINE + second)
    real, published, broken = window_module.publish, [], True

    def counting(work: Any, step: Any, *, started: float) -> Iterator[Any]:
        if step.id == "also" and broken:
            raise ConnectionFailed("away")
        for event in real(work, step, started=started):
            published.append((step.id, event.published.already))
            yield event

    monkeypatch.setattr(window_module, "publish", counting)
    (failed,) = failures(shop.run())
    assert (failed.step, published) == ("also", [("write", False)])
    broken = False
    assert failures(shop.run()) == []
    assert published == [("write", False), ("write", True), ("also", False)]
    assert failures(shop.run()) == []
    assert published[-2:] == [("write", False), ("also", False)], "a run that resumes nothing publishes everything"


def test_what_was_published_into_a_table_that_is_gone_is_published_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "type: endpoint, endpoint_type: sqlite, connection: app"
    into = f"  - {{id: write, {kind}, depends_on: [doubled], config: {{table: t, mode: replace}}}}\n"
    also = "  - {id: also, type: endpoint, endpoint_type: csv, depends_on: [doubled], config: {file_path: out.csv, mode: replace}}\n"
    shop.pipeline(PIPELINE[: PIPELINE.index("  - {id: write")] + into + also)
    real = window_module.publish

    def broken(work: Any, step: Any, *, started: float) -> Iterator[Any]:
        if step.id == "also":
            raise ConnectionFailed("away")
        yield from real(work, step, started=started)

    with monkeypatch.context() as patch:
        patch.setattr(window_module, "publish", broken)
        assert [failed.step for failed in failures(shop.run())] == ["also"]
    with closing(sqlite3.connect(shop.folder / "app.db")) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
        connection.execute("DROP TABLE t")
    assert failures(shop.run()) == []
    with closing(sqlite3.connect(shop.folder / "app.db")) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)


def test_the_words_for_every_change() -> None:
    assert difference({}, {"kind": "a"}) == "an older version of this software made it"
    assert difference({"kind": "a"}, {"kind": "b", "written:query": "c"}) == "the step is of another kind"
    assert difference({"input:x": "1", "step": "s"}, {"input:x": "2", "step": "t"}) == "step x before it gave other rows"
    assert difference({"code": "1"}, {"code": "2"}) == "its code has changed"
    assert difference({"written:a": "1"}, {"written:b": "1"}) == "the option a changed and the option b changed"
    assert difference({"window": "1"}, {"window": "2"}) == "the window has other bounds"


def test_retries_of_one_run_resume_too(shop: Workshop, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    left, real = [2], window_module.publish

    def flaky(work: Any, step: Any, *, started: float) -> Iterator[Any]:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionFailed("away")
        yield from real(work, step, started=started)

    monkeypatch.setattr(window_module, "publish", flaky)
    events = shop.run(retries=RetryOptions(backoff="none"))
    assert len(failures(events)) == 2
    assert reads.count == 1
    assert not list((shop.folder / ".dataflow" / "stages").glob("*/*/*")), "nothing is left of any try"
