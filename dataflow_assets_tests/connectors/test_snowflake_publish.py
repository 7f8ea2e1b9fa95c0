"""What only Snowflake does when a window is published: transactions that it ends, replies that are lost, files, schemas, duplicates."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets.connectors import _snowflake_publish
from dataflow_assets.errors import AuditFailed, ConnectionFailed, DataflowError, ValueRefused, WriteFailed
from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.contract_base import MODES, pairs
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events, failing, unit
from dataflow_assets_tests.connectors.publisher import target_of
from dataflow_assets_tests.connectors.test_snowflake import SnowflakeHarness, connect
from dataflow_assets_tests.services.snowflake import Snowflake, run


@pytest.fixture
def harness(snowflake_keys: dict[str, Any], tmp_path: Path) -> Iterator[SnowflakeHarness]:
    made = SnowflakeHarness(tmp_path, keys=snowflake_keys)
    yield made
    made.connector.close()


@pytest.fixture
def emulator(snowflake_account: Snowflake) -> Iterator[Snowflake]:
    """The emulator, which can be made to fail; such tests are skipped on an account."""
    if not snowflake_account.emulated:
        pytest.skip("an account does not fail on demand")
    yield snowflake_account
    snowflake_account.control(fault=None)


@pytest.fixture
def hasty(harness: SnowflakeHarness) -> Iterator[SnowflakeHarness]:
    """The same place, for a connector that gives up soon."""
    made = SnowflakeHarness(harness.scratch, keys={**harness.keys, "statement_timeout": "4s"})
    yield made
    made.connector.close()


def at(failpoint: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `act` called when a publish comes to this failpoint."""
    monkeypatch.setattr(_snowflake_publish, "failpoint", lambda name: act() if name == failpoint else None)


# -- transactions


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failpoint", ["publish.after_delete", "publish.before_commit"])
def test_a_transaction_that_snowflake_has_ended_is_noticed(
    harness: SnowflakeHarness, emulator: Snowflake, monkeypatch: pytest.MonkeyPatch, mode: WriteMode, failpoint: str
) -> None:
    """Snowflake ends a transaction whose client was silent for too long, and tells it nothing."""
    target = target_of(harness, mode)
    harness.publish(events(day(0), note="old"), target, day(0))
    before = harness.connector.ledger(target, pipeline="contract", step="write")
    number = 1 if mode is WriteMode.APPEND else 0
    with monkeypatch.context() as patch:
        at(failpoint, lambda: emulator.control(end_transactions=True), patch)
        with pytest.raises((WriteFailed, AuditFailed)) as caught:
            harness.publish(events(day(number), note="slow"), target, day(number), "slow")
    assert caught.value.transient or isinstance(caught.value, AuditFailed)
    assert_same_rows(events(day(0), note="old"), harness.rows(target))
    assert harness.connector.ledger(target, pipeline="contract", step="write") == before
    harness.publish(events(day(number), note="again"), target, day(number), "again")
    assert harness.rows(target)["note"].to_pylist().count("again 0") == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_lost_reply_to_commit_is_looked_up_in_the_ledger(
    harness: SnowflakeHarness, hasty: SnowflakeHarness, emulator: Snowflake, mode: WriteMode
) -> None:
    target = target_of(harness, mode)
    emulator.control(fault={"text": "COMMIT", "runs": True, "after": "AND CURRENT_TRANSACTION()"})
    done = hasty.publish(events(day(0)), target, day(0))
    assert "COMMIT" in done.note
    assert not done.already
    assert_same_rows(events(day(0)), harness.rows(target))
    assert len(harness.connector.ledger(target, pipeline="contract", step="write")) == 1


@pytest.mark.parametrize(
    ("text", "after"),
    [("COMMIT", "AND CURRENT_TRANSACTION()"), ("DELETE FROM", ""), ("INSERT INTO", ""), ("COPY INTO", ""), ("PUT ", "")],
)
def test_a_connection_lost_before_the_commit_is_transient(
    harness: SnowflakeHarness, hasty: SnowflakeHarness, emulator: Snowflake, text: str, after: str
) -> None:
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    harness.publish(events(day(0), note="old"), target, day(0))
    claim = harness.connector.claim(target, day(0), attempt="cut")
    emulator.control(fault={"text": text, "runs": False, "after": after})
    with pytest.raises(ConnectionFailed) as caught:
        hasty.connector.publish(hasty.request(events(day(0), note="cut"), target, claim))
    assert caught.value.transient
    assert_same_rows(events(day(0), note="old"), harness.rows(target))
    harness.publish(events(day(0), note="new"), target, day(0), "again")
    assert_same_rows(events(day(0), note="new"), harness.rows(target))


def test_readers_see_old_or_new_never_between(harness: SnowflakeHarness) -> None:
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0), note="0", rows=500), target, unit())
    seen: set[tuple[int, int]] = set()
    stop = threading.Event()

    def watch() -> None:
        other = connect(harness.keys, harness.scratch)
        while not stop.is_set():
            with other.read_target(target, None) as reader:
                notes = reader.read_all()["note"].to_pylist()
            seen.add((len(notes), len({note.split()[0] for note in notes})))
        other.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 5):
        harness.publish(events(day(0), note=str(number), rows=500), target, unit(), str(number))
    stop.set()
    watcher.join()
    assert seen == {(500, 1)}


def test_a_unit_that_is_twice_in_the_ledger_is_refused(harness: SnowflakeHarness) -> None:
    """Snowflake does not enforce primary keys."""
    target = harness.make_target("things", WriteMode.APPEND)
    harness.connector.claim(target, day(0), attempt="first")
    run(harness.keys, 'CREATE TABLE "copy" AS SELECT * FROM "_dataflow_ledger"')
    run(harness.keys, 'DROP TABLE "_dataflow_ledger"', 'CREATE TABLE "_dataflow_ledger" AS SELECT * FROM "copy"')
    run(harness.keys, 'INSERT INTO "_dataflow_ledger" SELECT * FROM "copy"')
    with pytest.raises(WriteFailed, match="2 rows") as caught:
        harness.connector.claim(target, day(0), attempt="second")
    assert '"_dataflow_ledger"' in caught.value.hint


# -- files and tables


def test_a_large_window_travels_in_several_files(
    harness: SnowflakeHarness, monkeypatch: pytest.MonkeyPatch, snowflake_account: Snowflake
) -> None:
    monkeypatch.setattr(_snowflake_publish, "_FILE_BYTES", 1)
    monkeypatch.setattr(_snowflake_publish, "_BATCH_ROWS", 100)
    target = harness.make_target("things", WriteMode.UPSERT, keys=["id"])
    if snowflake_account.emulated:
        snowflake_account.control()
    harness.publish(events(day(0), rows=1_000), target, day(0))
    if snowflake_account.emulated:
        said = snowflake_account.control()
        assert len({text for text in said if text.startswith("PUT 'file:///")}) == 10
        assert sum(text.startswith("COPY ") for text in said) == 1
    assert_same_rows(events(day(0), rows=1_000), harness.rows(target))


def test_nothing_is_left_behind(harness: SnowflakeHarness) -> None:
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0)), target, unit())
    claim = harness.connector.claim(target, unit(), attempt="second")
    with pytest.raises(DataflowError):
        harness.connector.publish(failing(harness.request(events(day(0)), target, claim)))
    found = run(harness.keys, "SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = CURRENT_SCHEMA()")
    assert {name for (name,) in found} == {"things", "_dataflow_ledger", "_dataflow_schemas"}


@pytest.mark.parametrize("schema", ["mart", "My Schema"])
def test_a_schema_is_made_and_the_current_one_kept(harness: SnowflakeHarness, schema: str, emulator: Snowflake) -> None:
    inside = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"], table_schema=schema)
    outside = harness.make_target("pairs", WriteMode.APPEND)
    harness.publish(pairs((1, "inside")), inside, unit("one"))
    harness.publish(pairs((2, "outside")), outside, unit("two"))
    harness.publish(pairs((1, "again")), inside, unit("three"))
    assert_same_rows(pairs((1, "again")), harness.rows(inside))
    assert_same_rows(pairs((2, "outside")), harness.rows(outside))
    assert [entry.unit.key for entry in harness.connector.ledger(inside, pipeline="contract", step="write")] == ["one", "three"]


def test_a_missing_table_is_named_when_it_may_not_be_made(harness: SnowflakeHarness) -> None:
    target = harness.make_target("pairs", WriteMode.APPEND, auto_create=False)
    with pytest.raises(WriteFailed, match="auto_create") as caught:
        harness.publish(pairs((1, "a")), target, unit("one"))
    assert caught.value.hint == 'CREATE TABLE IF NOT EXISTS "pairs" ("key" NUMBER(19,0), "value" TEXT);'
    run(harness.keys, caught.value.hint.rstrip(";"))
    harness.publish(pairs((1, "a")), target, unit("one"), "second")
    assert_same_rows(pairs((1, "a")), harness.rows(target))


def test_columns_with_a_default_may_be_left_out(harness: SnowflakeHarness) -> None:
    run(harness.keys, """CREATE TABLE "pairs" ("key" NUMBER(19,0), "value" TEXT, "source" TEXT DEFAULT 'pipeline')""")
    harness.publish(pairs((1, "a")), harness.make_target("pairs", WriteMode.APPEND), unit())
    assert run(harness.keys, 'SELECT "source" FROM "pairs"') == [("pipeline",)]


def test_upsert_keys_must_be_columns_of_the_data(harness: SnowflakeHarness) -> None:
    with pytest.raises(WriteFailed, match="'nonesuch' is not a column"):
        harness.publish(pairs((1, "a")), harness.make_target("pairs", WriteMode.UPSERT, keys=["nonesuch"]), unit())
    with pytest.raises(ValueRefused, match="null"):
        harness.publish(pairs((None, "a")), harness.make_target("pairs", WriteMode.UPSERT, keys=["key"]), unit())
