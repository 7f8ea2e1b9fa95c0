"""Sensors of type rows: new rows below the oldest open transaction, on real databases with writers at work."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dataflow_assets.errors import DataflowError, ReadFailed
from dataflow_assets.execution.sensing import Memory
from dataflow_assets.operations.alerts.incidents import reported
from dataflow_assets.operations.sensors import rows
from dataflow_assets.operations.sensors.tick import Evaluation
from dataflow_assets.plan.build import build_plan
from dataflow_assets_tests.operations.sensors.post import Post, windows_of
from dataflow_assets_tests.services import mysql, snowflake

SENSOR = "orders_rows_sensor"
PIPELINE = """\
pipeline_name: orders
event_time_column: at
windows: {every: day, begin: %(begin)s}
connections:
  shop: %(connection)s
sensors: [{type: rows%(more)s}]
steps:
  - {id: read, type: source, connection: shop, config: {table: orders}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/orders/}}
"""
TODAY = datetime.now(UTC).date()


def write(post: Post, dsn: str, *, more: str = "", kind: str = "postgres") -> None:
    """The pipeline over a database."""
    begin = TODAY - timedelta(days=4)
    post.write(orders=PIPELINE % {"connection": f'{{type: {kind}, dsn: "{dsn}"}}', "more": more, "begin": begin})
    post.now = datetime.now(UTC)


def look(post: Post, memory: Memory) -> rows.Found:
    """Only look, as often as a test likes."""
    project = post.project
    plan = build_plan(project)
    pipeline = plan.by_name["orders"]
    evaluation = Evaluation(plan, project, pipeline, pipeline.sensors[0], post.instance, datetime.now(UTC))
    try:
        return rows.look(evaluation, memory)
    finally:
        evaluation.session.close()


def counted(said: str) -> int:
    """The number of new rows that a look tells of."""
    found = re.match(r"([\d,]+) new row", said)
    return int(found[1].replace(",", "")) if found else 0


def loaded(post: Post) -> list[str]:
    """The windows that the next two ticks ask for; their runs are made."""
    return windows_of(*post.load(SENSOR, "orders"), *post.load(SENSOR, "orders"))


@pytest.fixture
def shop(postgres_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a shop with orders, whose times are those of their transactions."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), writer int)")
        # long before any look: a first look's ceiling lies a delay ago, and above it everything is new
        connection.execute("INSERT INTO orders (at, writer) VALUES (now() - interval '1 minute', 0)")
        yield connection


@contextmanager
def writers(dsn: str, *, number: int = 6, transactions: int = 25) -> Iterator[threading.Event]:
    """Writers that insert, linger, and commit; the event is set when they are done."""

    def write_some(writer: int) -> None:
        with psycopg.connect(dsn) as connection:
            for turn in range(transactions):
                connection.execute("INSERT INTO orders (writer) VALUES (%s)", (writer,))
                connection.execute("SELECT pg_sleep(%s)", ((writer * 7 + turn * 3) % 11 * 0.004,))
                connection.execute("INSERT INTO orders (writer) VALUES (%s)", (writer,))
                connection.commit()

    threads = [threading.Thread(target=write_some, args=(writer,)) for writer in range(1, number + 1)]
    done = threading.Event()
    for thread in threads:
        thread.start()

    def await_all() -> None:
        for thread in threads:
            thread.join()
        done.set()

    waiter = threading.Thread(target=await_all)
    waiter.start()
    yield done
    waiter.join()


@pytest.mark.parametrize("cursor", ["at", "id"])
def test_with_six_writers_no_row_is_passed_over_and_none_comes_twice(
    post: Post, shop: psycopg.Connection[Any], postgres_dsn: str, cursor: str
) -> None:
    write(post, postgres_dsn, more=f", cursor: {cursor}{', delay: 100ms' if cursor == 'at' else ''}")
    memory = Memory()
    while not memory.position.get("upto"):
        memory = Memory(look(post, memory).position)
    found, naive, last = 0, 0, shop.execute(f"SELECT max({cursor}) FROM orders").fetchone()  # type: ignore[arg-type]
    with writers(postgres_dsn) as done:
        while not done.wait(0.02):
            told = look(post, memory)
            found, memory = found + counted(told.said), Memory(told.position)
            row = shop.execute(f"SELECT count(*), max({cursor}) FROM orders WHERE {cursor} > %s", last).fetchone()  # type: ignore[arg-type]
            assert row is not None
            naive, last = naive + row[0], (row[1],) if row[1] else last
    shop.execute("SELECT pg_sleep(0.15)")
    for _ in range(2):
        told = look(post, memory)
        found, memory = found + counted(told.said), Memory(told.position)
    total = shop.execute("SELECT count(*) FROM orders WHERE writer > 0").fetchone()
    assert total is not None
    assert found == total[0] == 300
    assert naive < 300, "a cursor without a ceiling would have passed over some: the writers were at work side by side"


def test_a_transaction_that_commits_late_reopens_its_window(post: Post, shop: psycopg.Connection[Any], postgres_dsn: str) -> None:
    write(post, postgres_dsn, more=", cursor: id")
    shop.execute("INSERT INTO orders (at) SELECT current_date - n FROM generate_series(1, 4) AS n")
    (first,) = post.tick(SENSOR)
    assert "the first tick" in first.tags["dataflow/why"]
    assert len(windows_of(first)) == 2, "everything that is due, as a range"
    post.launch("orders", first)
    with psycopg.connect(postgres_dsn) as late:
        late.execute("INSERT INTO orders (at) VALUES (current_date - 3)")
        shop.execute("INSERT INTO orders (at) VALUES (current_date - 1)")
        assert "below the oldest open transaction" in post.skip(SENSOR)
        late.commit()
    assert loaded(post) == [str(TODAY - timedelta(days=days)) for days in (3, 1)]
    assert "no new row" in post.skip(SENSOR)


def test_a_prepared_transaction_and_hidden_sessions_are_no_surprise(post: Post, shop: psycopg.Connection[Any], postgres_dsn: str) -> None:
    write(post, postgres_dsn)
    shop.execute("BEGIN")
    shop.execute("INSERT INTO orders DEFAULT VALUES")
    shop.execute("PREPARE TRANSACTION 'left behind'")
    assert "transaction 'left behind' is prepared" in post.skip(SENSOR)
    shop.execute("ROLLBACK PREPARED 'left behind'")
    shop.execute("DROP ROLE IF EXISTS narrow_reader")
    shop.execute("CREATE ROLE narrow_reader LOGIN")
    try:
        shop.execute("GRANT SELECT ON orders TO narrow_reader")
        narrow = re.sub(r"//[^@]*@", "//narrow_reader@", postgres_dsn)
        write(post, narrow)
        with pytest.raises(DataflowError, match="pg_read_all_stats"):
            post.tick(SENSOR)
        write(post, narrow, more=", delay: 2s")
        assert len(post.tick(SENSOR)) == 1, "a delay that is said is enough"
        shop.execute("GRANT pg_read_all_stats TO narrow_reader")
        write(post, narrow)
        assert "no new row" in post.skip(SENSOR)
    finally:
        shop.execute("DROP OWNED BY narrow_reader")
        shop.execute("DROP ROLE narrow_reader")


def test_what_cannot_be_a_cursor_fails_and_a_server_that_is_away_is_a_skip(
    post: Post, shop: psycopg.Connection[Any], postgres_dsn: str
) -> None:
    shop.execute("ALTER TABLE orders ADD note text DEFAULT 'x', ADD day date DEFAULT current_date")
    for column, message in (("note", "cannot place a row"), ("day", "holds days"), ("nothing", "nothing")):
        write(post, postgres_dsn, more=f", cursor: {column}")
        with pytest.raises(DataflowError, match=message):
            post.tick(SENSOR)
    write(post, re.sub(r":\d+/", ":1/", postgres_dsn))
    post.cursors[SENSOR] = '{"v":1,"position":{"column":"at","kind":"time","upto":"2024-03-01T00:00:00+00:00"},"waiting":{}}'
    kept = post.cursors[SENSOR]
    assert "the next tick looks again" in post.skip(SENSOR)
    assert Memory.read(post.cursors[SENSOR], sensor=SENSOR).position == Memory.read(kept, sensor=SENSOR).position
    post.now += timedelta(minutes=15)
    with pytest.raises(DataflowError):
        post.tick(SENSOR)
    told = reported(post.instance, "watched", cursor=None)[0]
    assert len(told) == 4, "three columns that are none, and a server that does not come back"
    assert told[-1].summary.startswith(f"the sensor {SENSOR} cannot look")


def test_mysql_knows_its_open_transactions(post: Post, mysql_dsn: str) -> None:
    mysql.ask(
        mysql_dsn,
        "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6) NOT NULL) ENGINE=InnoDB",
        "INSERT INTO orders (at) VALUES (UTC_TIMESTAMP() - INTERVAL 2 DAY)",
    )
    write(post, mysql_dsn, more=", cursor: id", kind="mysql")
    assert "no new row" in post.skip(SENSOR), "it is not told of transactions that have just begun"
    mysql.ask(mysql_dsn, "SELECT SLEEP(1.1)")
    (first,) = post.tick(SENSOR)
    post.launch("orders", first)
    late = mysql.connect(mysql_dsn)
    try:
        with late.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("INSERT INTO orders (at) VALUES (UTC_TIMESTAMP() - INTERVAL 3 DAY)")
        mysql.ask(mysql_dsn, "INSERT INTO orders (at) VALUES (UTC_TIMESTAMP() - INTERVAL 1 DAY)")
        assert "no new row" in post.skip(SENSOR)
        mysql.ask(mysql_dsn, "SELECT SLEEP(1.1)")
        assert "below the oldest open transaction" in post.skip(SENSOR)
        late.commit()
        mysql.ask(mysql_dsn, "SELECT SLEEP(0.2)")
    finally:
        late.close()
    assert loaded(post) == [str(TODAY - timedelta(days=days)) for days in (3, 1)]


def test_mysql_says_who_may_look(mysql_user_dsn: str) -> None:
    from dataflow_assets.connectors.mysql import Connector, MySQLConnection
    from dataflow_assets.protocols import ConnectionContext

    connector = Connector(MySQLConnection.model_validate({"dsn": mysql_user_dsn}), ConnectionContext("shop", Path()))
    with pytest.raises(ReadFailed, match="GRANT PROCESS"):
        connector.horizon()


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_file_with_one_writer_waits_for_it(post: Post, kind: str) -> None:
    post.folder.mkdir()
    path = post.folder / "shop.db"
    begin = TODAY - timedelta(days=4)
    post.write(orders=PIPELINE % {"connection": f"{{type: {kind}, database: shop.db}}", "more": "", "begin": begin})
    if kind == "sqlite":
        import sqlite3

        writer: Any = sqlite3.connect(path, isolation_level=None)
    else:
        import duckdb

        writer = duckdb.connect(str(path))
    at = datetime.now(UTC).replace(tzinfo=None)
    writer.execute('CREATE TABLE orders (id BIGINT, "at" TIMESTAMP)')
    writer.execute(f"INSERT INTO orders VALUES (1, '{at - timedelta(days=2)}')")
    if kind == "sqlite":
        writer.execute("BEGIN IMMEDIATE")
        assert "nobody knows since when" in look(post, Memory()).said
        writer.execute("COMMIT")
    else:
        writer.close()
    first = look(post, Memory())
    assert set(first.units) == {"due", str(at.date())}, "what is there of today is below the cursor from now on"
    position = {**first.position, "upto": (datetime.now(UTC) - timedelta(days=3)).isoformat()}
    found = look(post, Memory(position))
    assert counted(found.said) == 1
    assert list(found.units) == [str((at - timedelta(days=2)).date())]
    if kind == "sqlite":
        more = PIPELINE.replace("config: {table: orders}", "config: {table: orders, column_types: {at: timestamp}}")
        post.write(orders=more % {"connection": f"{{type: {kind}, database: shop.db}}", "more": ", cursor: id", "begin": begin})
        assert "the first tick" in look(post, Memory(found.position)).said, "of another column than before"
        assert list(look(post, Memory({"column": "id", "kind": "id", "upto": 0})).units) == [str((at - timedelta(days=2)).date())]
    writer.close()


ANY = """\
pipeline_name: orders
event_time_column: MOMENT
windows: {every: day, begin: %(begin)s}
connections:
  shop: %(connection)s
sensors: [{type: rows, cursor: %(cursor)s, delay: 0s}]
steps:
  - {id: read, type: source, connection: shop, config: {%(what)s}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: lake/orders/}}
"""


@pytest.mark.parametrize("system", ["clickhouse", "snowflake", "sqlalchemy"])
def test_systems_that_tell_nothing_of_transactions_go_by_their_delay(
    post: Post, request: pytest.FixtureRequest, tmp_path: Path, system: str
) -> None:
    connection, execute = _system(system, request, tmp_path)
    at = datetime.now(UTC) - timedelta(days=2)
    kinds = {"clickhouse": "(ID Int64, MOMENT DateTime64(6, 'UTC')) ENGINE = MergeTree ORDER BY ID"}
    execute(f"CREATE TABLE ORDERS {kinds.get(system, '(ID BIGINT, MOMENT TIMESTAMP)')}")
    execute(f"INSERT INTO ORDERS VALUES (1, '{at:%Y-%m-%d %H:%M:%S}')")
    cursors = ["MOMENT"] if system == "sqlalchemy" else ["ID", "MOMENT"]
    for cursor in cursors:
        what = "table: ORDERS" if cursor == "ID" or system == "sqlalchemy" else 'query: "SELECT * FROM ORDERS WHERE ID > 0;"'
        begin = TODAY - timedelta(days=4)
        post.write(orders=ANY % {"connection": json.dumps(connection), "cursor": cursor, "what": what, "begin": begin})
        first = look(post, Memory())
        assert "first tick" in first.said
        upto = 0 if cursor == "ID" else (at - timedelta(days=1)).isoformat()
        found = look(post, Memory({**first.position, "upto": upto}))
        assert counted(found.said) == 1
        assert list(found.units) == [str(at.date())]


def _system(name: str, request: pytest.FixtureRequest, folder: Path) -> tuple[dict[str, Any], Callable[[str], object]]:
    """The keys of a connection, and a way to run a statement there."""
    if name == "clickhouse":
        server = request.getfixturevalue("clickhouse")
        keys = {"host": server.host, "port": server.port, "user": server.user, "database": server.database}
        return {"type": "clickhouse", **keys}, server.client().command
    if name == "snowflake":
        keys = request.getfixturevalue("snowflake_keys")
        return {"type": "snowflake", **keys}, lambda statement: snowflake.run(keys, statement)
    import sqlite3

    opened = sqlite3.connect(folder / "any.db", isolation_level=None)
    return {"type": "sqlalchemy", "url": f"sqlite:///{folder / 'any.db'}"}, opened.execute
