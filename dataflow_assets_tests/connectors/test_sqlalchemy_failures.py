"""Broken lines, locks, triggers and rivals through SQLAlchemy, with a real Postgres."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from psycopg.conninfo import conninfo_to_dict

from dataflow_assets.connectors.sqlalchemy import SQLAlchemySource
from dataflow_assets.errors import AuditFailed, ConnectionFailed, Fenced, WriteFailed
from dataflow_assets.tables import ReadRequest, WriteMode
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.test_sqlalchemy import SQLAlchemyHarness, admin, connect, harness_of, read, with_secret
from dataflow_assets_tests.services.proxy import proxy_to


@pytest.fixture
def on_postgres(postgres_dsn: str, tmp_path: Path) -> Iterator[SQLAlchemyHarness]:
    made = harness_of(with_secret(postgres_dsn), tmp_path)
    yield made
    made.connector.close()


# -- failures


def test_a_lost_reply_to_commit_is_looked_up_in_the_ledger(postgres_dsn: str, tmp_path: Path) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    with proxy_to(str(parts["host"]), int(str(parts["port"]))) as proxy:
        url = with_secret(postgres_dsn).replace(f":{parts['port']}/", f":{proxy.port}/")
        harness = SQLAlchemyHarness(tmp_path, url=url)
        target = harness.make_target("things", WriteMode.APPEND)
        harness.publish(events(day(1)), target, day(1))
        request = harness.request(events(day(0)), target, harness.connector.claim(target, day(0), attempt="only"))
        open_reader = request.open_reader

        def armed() -> pa.RecordBatchReader:
            proxy.trigger(b"COMMIT")
            return open_reader()

        done = harness.connector.publish(replace(request, open_reader=armed))
        assert proxy.cut == 1
        assert "COMMIT" in done.note
        assert_same_rows(pa.concat_tables([events(day(0)), events(day(1))]), harness.rows(target))
        assert harness.connector.publish(request).already
        harness.connector.close()


def test_a_connection_lost_before_commit_is_transient(postgres_dsn: str, tmp_path: Path) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    with proxy_to(str(parts["host"]), int(str(parts["port"]))) as proxy:
        harness = SQLAlchemyHarness(tmp_path, url=with_secret(postgres_dsn).replace(f":{parts['port']}/", f":{proxy.port}/"))
        target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
        harness.publish(events(day(0), note="old"), target, day(0))
        for word in (b"DELETE FROM", b"INSERT INTO", b'"published_generation" ='):
            request = harness.request(events(day(0), note="new"), target, harness.connector.claim(target, day(0), attempt=str(word)))
            proxy.trigger(word)
            with pytest.raises(ConnectionFailed) as caught:
                harness.connector.publish(request)
            assert caught.value.transient
            assert_same_rows(events(day(0), note="old"), harness.rows(target))
        assert proxy.cut == 3
        harness.publish(events(day(0), note="new"), target, day(0), "last")
        assert_same_rows(events(day(0), note="new"), harness.rows(target))
        harness.connector.close()


def test_a_terminated_session_is_transient(on_postgres: SQLAlchemyHarness) -> None:
    def terminate() -> None:
        with admin(on_postgres) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def read_and_be_cut_off() -> None:
        options = SQLAlchemySource(query="SELECT x, repeat('x', 100) AS t FROM generate_series(1, 1000000) x")
        with on_postgres.connector.read(ReadRequest(options)) as reader:
            reader.read_next_batch()
            terminate()
            reader.read_all()

    with pytest.raises(ConnectionFailed) as caught:
        read_and_be_cut_off()
    assert caught.value.transient
    assert read(on_postgres.connector, "SELECT 1 AS a").num_rows == 1
    terminate()  # an idle connection that the pool has kept
    assert read(on_postgres.connector, "SELECT 1 AS a").num_rows == 1


def test_a_locked_row_is_waited_for_and_then_transient(on_postgres: SQLAlchemyHarness) -> None:
    hasty = SQLAlchemyHarness(
        on_postgres.scratch, url=on_postgres.url, _connector=connect(on_postgres.url, on_postgres.scratch, lock_timeout="1s")
    )
    target = on_postgres.make_target("things", WriteMode.REPLACE)
    on_postgres.publish(events(day(0)), target, unit())
    claim = on_postgres.connector.claim(target, unit(), attempt="second")
    with admin(on_postgres) as other, other.transaction():
        other.execute('UPDATE "_dataflow_ledger" SET claimed_generation = claimed_generation')
        with pytest.raises(WriteFailed) as caught:
            hasty.connector.publish(on_postgres.request(events(day(0)), target, claim))
    assert caught.value.transient
    hasty.connector.close()


def test_rows_that_a_trigger_drops_are_noticed(on_postgres: SQLAlchemyHarness) -> None:
    with admin(on_postgres) as other:
        other.execute("""CREATE TABLE pairs (key bigint, value text);
            CREATE FUNCTION drop_some() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RETURN CASE WHEN NEW.key = 2 THEN NULL ELSE NEW END; END $$;
            CREATE TRIGGER drop_some BEFORE INSERT ON pairs FOR EACH ROW EXECUTE FUNCTION drop_some()""")
    for mode in (WriteMode.APPEND, WriteMode.REPLACE):
        with pytest.raises(AuditFailed, match="holds 1 rows"):
            on_postgres.publish(pairs((1, "a"), (2, "b")), on_postgres.make_target("pairs", mode), unit(mode.value))


def test_readers_see_old_or_new_never_between(on_postgres: SQLAlchemyHarness) -> None:
    target = on_postgres.make_target("things", WriteMode.REPLACE)
    on_postgres.publish(events(day(0), note="0", rows=500), target, unit())
    seen: set[tuple[int, int]] = set()
    stop = threading.Event()

    def watch() -> None:
        with admin(on_postgres) as other:
            while not stop.is_set():
                seen.update(other.execute("SELECT count(*), count(DISTINCT split_part(note, ' ', 1)) FROM things").fetchall())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 8):
        on_postgres.publish(events(day(0), note=str(number), rows=500), target, unit(), str(number))
    stop.set()
    watcher.join()
    assert seen == {(500, 1)}


def test_replaces_of_two_steps_beside_each_other_leave_one(on_postgres: SQLAlchemyHarness) -> None:
    target = on_postgres.make_target("pairs", WriteMode.REPLACE)
    on_postgres.publish(pairs((0, "first")), target, unit())

    def replace_all(number: int) -> None:
        on_postgres.publish(pairs(*((key, str(number)) for key in range(300))), target, unit("all", step=f"step{number % 2}"), str(number))

    with ThreadPoolExecutor(2) as pool:
        failed = [job.exception() for job in [pool.submit(replace_all, number) for number in range(8)]]
    assert all(error is None or getattr(error, "transient", False) or isinstance(error, AuditFailed | Fenced) for error in failed)
    found = on_postgres.rows(target)
    assert found.num_rows == 300
    assert len(set(found["value"].to_pylist())) == 1
