"""What only BigQuery does when a window is published: transactions that it aborts, replies that are lost, load jobs, datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from dataflow_assets.connectors import _bigquery_publish
from dataflow_assets.errors import ConnectionFailed, DataflowError, Fenced, ValueRefused, WriteFailed
from dataflow_assets.tables import SchemaPolicy, Target, WriteMode
from dataflow_assets_tests.connectors.contract_base import MODES, pairs
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events, failing, unit
from dataflow_assets_tests.connectors.publisher import target_of
from dataflow_assets_tests.connectors.test_bigquery import BigQueryHarness
from dataflow_assets_tests.services.bigquery import BigQuery, client_of, make_table, run
from dataflow_assets_tests.services.ladder import free_port
from dataflow_assets_tests.services.proxy import Proxy, proxy_to


@pytest.fixture
def harness(bigquery_keys: dict[str, Any], tmp_path: Path) -> Iterator[BigQueryHarness]:
    made = BigQueryHarness(tmp_path, keys=bigquery_keys)
    yield made
    made.connector.close()


@pytest.fixture
def emulator(bigquery_project: BigQuery) -> Iterator[BigQuery]:
    """The emulator, which can be made to fail; such tests are skipped on a project."""
    if not bigquery_project.emulated:
        pytest.skip("a project does not fail on demand")
    bigquery_project.control()
    yield bigquery_project
    bigquery_project.control(abort=0)


@pytest.fixture
def far(harness: BigQueryHarness, emulator: BigQuery) -> Iterator[tuple[BigQueryHarness, Proxy]]:
    """The same dataset, over a line that can be cut."""
    address = urlsplit(harness.keys["endpoint"])
    with proxy_to(str(address.hostname), int(address.port or 0)) as proxy:
        made = BigQueryHarness(harness.scratch, keys={**harness.keys, "endpoint": f"http://127.0.0.1:{proxy.port}"})
        yield made, proxy
        made.connector.close()


def names_in(harness: BigQueryHarness) -> set[str]:
    """The tables of the dataset."""
    with client_of(harness.keys) as client:
        return {table.table_id for table in client.list_tables(harness.keys["dataset"])}


# -- transactions


@pytest.mark.parametrize("mode", MODES)
def test_an_aborted_transaction_is_tried_again(harness: BigQueryHarness, emulator: BigQuery, mode: WriteMode) -> None:
    target = target_of(harness, mode)
    claim = harness.connector.claim(target, day(0), attempt="first")
    emulator.control(abort=2)
    harness.connector.publish(harness.request(events(day(0)), target, claim))
    assert sum("_dataflow_held" in text for text in emulator.control()) == 3
    assert_same_rows(events(day(0)), harness.rows(target))
    assert len(harness.connector.ledger(target, pipeline="contract", step="write")) == 1


def test_a_transaction_that_is_always_aborted_leaves_the_old_rows(harness: BigQueryHarness, emulator: BigQuery) -> None:
    hasty = BigQueryHarness(harness.scratch, keys={**harness.keys, "lock_timeout": "1s"})
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    harness.publish(events(day(0), note="old"), target, day(0))
    claim = harness.connector.claim(target, day(0), attempt="second")
    emulator.control(abort=100)
    with pytest.raises(WriteFailed, match="concurrent update") as caught:
        hasty.connector.publish(hasty.request(events(day(0), note="new"), target, claim))
    emulator.control(abort=0)
    hasty.connector.close()
    assert caught.value.transient
    assert_same_rows(events(day(0), note="old"), harness.rows(target))
    assert names_in(harness) == {"things", "_dataflow_ledger", "_dataflow_schemas"}


@pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.REPLACE_WINDOW])
def test_a_lost_reply_is_asked_for_by_the_name_of_its_job(
    harness: BigQueryHarness, far: tuple[BigQueryHarness, Proxy], emulator: BigQuery, mode: WriteMode
) -> None:
    distant, proxy = far
    target = target_of(harness, mode)
    claim = distant.connector.claim(target, day(0), attempt="first")
    emulator.control()
    proxy.trigger(b"COMMIT TRANSACTION")
    done = distant.connector.publish(distant.request(events(day(0)), target, claim))
    assert proxy.cut == 1
    assert not done.already
    assert done.target_rows == 24
    assert sum("_dataflow_held" in text for text in emulator.control()) == 1
    assert_same_rows(events(day(0)), harness.rows(target))


def test_a_claim_whose_reply_is_lost_counts_once(harness: BigQueryHarness, far: tuple[BigQueryHarness, Proxy]) -> None:
    distant, proxy = far
    target = target_of(harness, WriteMode.APPEND)
    distant.connector.claim(target, day(0), attempt="first")
    proxy.trigger(b"COMMIT TRANSACTION")
    assert distant.connector.claim(target, day(0), attempt="second").generation == 2
    assert harness.connector.claim(target, day(0), attempt="third").generation == 3


def test_a_file_whose_reply_is_lost_is_not_loaded_twice(harness: BigQueryHarness, far: tuple[BigQueryHarness, Proxy]) -> None:
    distant, proxy = far
    target = target_of(harness, WriteMode.APPEND)
    claim = distant.connector.claim(target, day(0), attempt="first")
    proxy.trigger(b"PAR1")
    distant.connector.publish(distant.request(events(day(0)), target, claim))
    assert proxy.cut == 1
    assert_same_rows(events(day(0)), harness.rows(target))


def test_a_server_that_is_gone_is_transient(harness: BigQueryHarness, emulator: BigQuery) -> None:
    gone = BigQueryHarness(harness.scratch, keys={**harness.keys, "endpoint": f"http://127.0.0.1:{free_port()}", "retry_timeout": "1s"})
    with pytest.raises(ConnectionFailed) as caught:
        gone.connector.claim(target_of(gone, WriteMode.APPEND), day(0), attempt="first")
    assert caught.value.transient


@pytest.mark.parametrize("mode", [WriteMode.REPLACE, WriteMode.UPSERT])
def test_a_statement_that_fails_undoes_those_before_it(harness: BigQueryHarness, mode: WriteMode) -> None:
    """A value that BigQuery finds out about in the middle of the transaction, after DELETE."""
    make_table(harness.keys, "kept", {"name": "id", "type": "INT64"}, {"name": "v", "type": "JSON"})
    target = harness.make_target("kept", mode, keys=["id"])
    harness.publish(pa.table({"id": [1], "v": ['{"a":1}']}), target, unit())
    before = harness.connector.ledger(target, pipeline="contract", step="write")
    with pytest.raises(WriteFailed, match="JSON") as caught:
        harness.publish(pa.table({"id": [1, 2], "v": ["{}", "{"]}), target, unit(), "second")
    assert not caught.value.transient
    assert harness.rows(target)["v"].to_pylist() == ['{"a":1}']
    assert harness.connector.ledger(target, pipeline="contract", step="write") == before


def test_a_doubled_ledger_is_refused(harness: BigQueryHarness) -> None:
    """BigQuery enforces no primary keys."""
    target = harness.make_target("things", WriteMode.APPEND)
    harness.connector.claim(target, day(0), attempt="first")
    run(harness.keys, "INSERT INTO {d}._dataflow_ledger SELECT * FROM {d}._dataflow_ledger")
    with pytest.raises(WriteFailed, match="2 rows") as caught:
        harness.connector.claim(target, day(0), attempt="second")
    assert "`_dataflow_ledger`" in caught.value.hint


# -- columns that change


def evolving(harness: BigQueryHarness, mode: WriteMode = WriteMode.APPEND) -> Target:
    """The table `kept`, whose columns may change."""
    return replace(harness.make_target("kept", mode), schema_policy=SchemaPolicy.EVOLVE)


def test_all_new_columns_come_by_one_statement(harness: BigQueryHarness, bigquery_project: BigQuery) -> None:
    """Of which a table takes five in ten seconds."""
    target = evolving(harness)
    harness.publish(pa.table({"id": [1]}), target, unit("one"))
    if bigquery_project.emulated:
        bigquery_project.control()
    table = pa.table({"id": [2], "with space": ["x"], "tags": [["a", "b"]]})
    done = harness.publish(table, target, unit("two"))
    assert [(change.action, change.column) for change in done.schema_changes] == [("added", "with space"), ("added", "tags")]
    assert harness.rows(target).sort_by("id").to_pylist() == [{"id": 1, "with space": None, "tags": []}, *table.to_pylist()]
    if bigquery_project.emulated:
        (text,) = [text for text in bigquery_project.control() if text.startswith("ALTER")]
        assert text.endswith("`kept` ADD COLUMN IF NOT EXISTS `with space` STRING, ADD COLUMN IF NOT EXISTS `tags` ARRAY<STRING>")


def test_decimals_and_texts_are_widened(harness: BigQueryHarness) -> None:
    price = {"name": "price", "type": "NUMERIC", "precision": 5, "scale": 2}
    make_table(harness.keys, "kept", price, {"name": "code", "type": "STRING", "maxLength": 3})
    target = evolving(harness)
    old, new = pairs_of("999.99", "abc"), pairs_of("12345.678", "abcd")
    harness.publish(old, target, unit("one"))
    with pytest.raises(ValueRefused):
        harness.publish(new, replace(target, schema_policy=SchemaPolicy.FREEZE), unit("two"))
    done = harness.publish(new, target, unit("two"), "second")
    assert [str(change.after) for change in done.schema_changes] == ["NUMERIC(8,3)", "STRING"]
    assert harness.rows(target).sort_by("code")["price"].to_pylist() == [Decimal("999.990"), Decimal("12345.678")]
    last = harness.connector.schemas(target)[-1]
    assert last.changes == ("changed 'price' from NUMERIC(5,2) to NUMERIC(8,3)", "changed 'code' from STRING(3) to STRING")


def pairs_of(price: str, code: str) -> pa.Table:
    """One row, whose decimal has as many digits as it needs."""
    return pa.table({"price": pa.array([Decimal(price)]), "code": [code]})


def test_a_required_column_is_not_left_null(harness: BigQueryHarness) -> None:
    make_table(harness.keys, "kept", {"name": "id", "type": "INT64"}, {"name": "shop", "type": "STRING", "mode": "REQUIRED"})
    with pytest.raises(WriteFailed, match="has column 'shop' without a default"):
        harness.publish(pa.table({"id": [1]}), evolving(harness), unit())


def test_columns_that_differ_in_capitals_are_not_added(harness: BigQueryHarness) -> None:
    target = evolving(harness)
    harness.publish(pa.table({"id": [1]}), target, unit("one"))
    with pytest.raises(WriteFailed, match="capitals"):
        harness.publish(pa.table({"ID": [1]}), target, unit("two"))


def test_an_attempt_that_is_fenced_sends_no_alter(harness: BigQueryHarness, emulator: BigQuery) -> None:
    target = evolving(harness)
    harness.publish(pa.table({"id": [1]}), target, unit())
    slow = harness.connector.claim(target, unit(), attempt="slow")
    harness.connector.claim(target, unit(), attempt="quick")
    emulator.control()
    with pytest.raises(Fenced):
        harness.connector.publish(harness.request(pa.table({"id": [1], "new": [2]}), target, slow))
    assert not [text for text in emulator.control() if text.startswith(("ALTER", "BEGIN", "DECLARE"))]


def test_a_failed_publish_leaves_the_column_and_no_version_of_it(harness: BigQueryHarness, emulator: BigQuery) -> None:
    target = evolving(harness)
    harness.publish(pa.table({"id": [1]}), target, unit("one"))
    hasty = BigQueryHarness(harness.scratch, keys={**harness.keys, "lock_timeout": "1s"})
    table, claim = pa.table({"id": [2], "new": [3]}), harness.connector.claim(target, unit("two"), attempt="first")
    emulator.control(abort=100)
    with pytest.raises(WriteFailed, match="concurrent update"):
        hasty.connector.publish(hasty.request(table, target, claim))
    emulator.control(abort=0)
    hasty.connector.close()
    assert harness.rows(target).to_pylist() == [{"id": 1, "new": None}]
    assert [version.changes for version in harness.connector.schemas(target)] == [()]
    assert harness.publish(table, target, unit("two"), "second").schema_changes == ()
    assert [version.changes for version in harness.connector.schemas(target)] == [(), ("added 'new' INT64",)]


def test_a_known_version_costs_nothing(harness: BigQueryHarness, emulator: BigQuery) -> None:
    target = evolving(harness)
    for name in ("one", "two"):
        harness.publish(pa.table({"id": [1]}), target, unit(name))
    emulator.control()
    harness.publish(pa.table({"id": [1]}), target, unit("three"))
    assert not [text for text in emulator.control() if "_dataflow_schemas" in text]
    assert [version.version for version in harness.connector.schemas(target)] == [1]


# -- files and tables


def test_a_large_window_travels_in_several_files(harness: BigQueryHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bigquery_publish, "_FILE_BYTES", 1)
    monkeypatch.setattr(_bigquery_publish, "_BATCH_ROWS", 100)
    target = harness.make_target("things", WriteMode.UPSERT, keys=["id"])
    harness.publish(events(day(0), rows=400), target, day(0))
    assert_same_rows(events(day(0), rows=400), harness.rows(target))


def test_nothing_is_left_behind(harness: BigQueryHarness) -> None:
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0)), target, unit())
    claim = harness.connector.claim(target, unit(), attempt="second")
    with pytest.raises(DataflowError):
        harness.connector.publish(failing(harness.request(events(day(0)), target, claim)))
    assert names_in(harness) == {"things", "_dataflow_ledger", "_dataflow_schemas"}


def test_a_staging_table_expires_if_nobody_drops_it(harness: BigQueryHarness, emulator: BigQuery) -> None:
    harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND), unit())
    (made,) = [text for text in emulator.control() if "_dataflow_incoming_" in text and "expirationTime" in text]
    expires = datetime.fromtimestamp(int(json.loads(made)["expirationTime"]) / 1000, UTC)
    assert timedelta(hours=23) < expires - datetime.now(UTC) < timedelta(hours=25)


def test_a_dataset_is_made_and_tables_of_one_name_kept_apart(harness: BigQueryHarness) -> None:
    other = f"{harness.keys['dataset']}_mart"
    inside = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"], dataset=other)
    outside = harness.make_target("pairs", WriteMode.APPEND)
    try:
        harness.publish(pairs((1, "inside")), inside, unit("one"))
        harness.publish(pairs((2, "outside")), outside, unit("two"))
        harness.publish(pairs((1, "again")), inside, unit("three"))
        assert_same_rows(pairs((1, "again")), harness.rows(inside))
        assert_same_rows(pairs((2, "outside")), harness.rows(outside))
        assert [entry.unit.key for entry in harness.connector.ledger(inside, pipeline="contract", step="write")] == ["one", "three"]
    finally:
        with client_of(harness.keys) as client:
            client.delete_dataset(other, delete_contents=True, not_found_ok=True)


def test_a_missing_table_is_named_when_it_may_not_be_made(harness: BigQueryHarness) -> None:
    target = harness.make_target("pairs", WriteMode.APPEND, auto_create=False)
    with pytest.raises(WriteFailed, match="auto_create") as caught:
        harness.publish(pairs((1, "a")), target, unit("one"))
    address = f"`{harness.keys['project']}`.`{harness.keys['dataset']}`.`pairs`"
    assert caught.value.hint == f"CREATE TABLE IF NOT EXISTS {address} (`key` INT64, `value` STRING);"
    run(harness.keys, caught.value.hint.rstrip(";"))
    harness.publish(pairs((1, "a")), target, unit("one"), "second")
    assert_same_rows(pairs((1, "a")), harness.rows(target))


def test_a_table_is_partitioned_and_clustered_as_asked(harness: BigQueryHarness, bigquery_project: BigQuery) -> None:
    target = harness.make_target("things", WriteMode.APPEND, partition_by="TIMESTAMP_TRUNC(at, DAY)", cluster_by=["id", "note"])
    if bigquery_project.emulated:
        bigquery_project.control()
    harness.publish(events(day(0)), target, day(0))
    assert_same_rows(events(day(0)), harness.rows(target))
    if bigquery_project.emulated:
        (made,) = [text for text in bigquery_project.control() if text.startswith("CREATE TABLE") and "`things`" in text]
        assert made.endswith("`note` STRING) PARTITION BY TIMESTAMP_TRUNC(at, DAY) CLUSTER BY `id`, `note`")
    else:
        with client_of(harness.keys) as client:
            found = client.get_table(f"{harness.keys['dataset']}.things")
        assert (found.time_partitioning.field, found.clustering_fields) == ("at", ["id", "note"])


def test_upsert_keys_must_be_columns_of_the_data(harness: BigQueryHarness) -> None:
    with pytest.raises(WriteFailed, match="'nonesuch' is not a column"):
        harness.publish(pairs((1, "a")), harness.make_target("pairs", WriteMode.UPSERT, keys=["nonesuch"]), unit())


def test_names_that_bigquery_does_not_take_are_refused(harness: BigQueryHarness) -> None:
    target = harness.make_target("things", WriteMode.APPEND)
    for name in ("semi;colon", "back`tick", "line\nbreak", "do.t", "\U0001f600"):
        with pytest.raises(ValueRefused, match="none that a column"):
            harness.publish(pa.table({name: [1]}), target, unit())
    with pytest.raises(WriteFailed, match="upper and lower case"):
        harness.publish(pa.table({"id": [1], "ID": [2]}), target, unit())
    for table in ("semi;colon", "back`tick", "do.t"):
        with pytest.raises(ValueRefused, match="cannot name a table"):
            harness.publish(pairs((1, "a")), harness.make_target(table, WriteMode.APPEND), unit())
    with pytest.raises(ValueRefused, match="cannot name a dataset"):
        harness.publish(pairs((1, "a")), harness.make_target("things", WriteMode.APPEND, dataset="a`b"), unit())
