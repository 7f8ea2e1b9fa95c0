"""The Postgres connector against a real server: the contract, and what only Postgres does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pyarrow as pa
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError

from dataflow_assets.connectors.postgres import Connector, PostgresConnection, PostgresEndpoint, PostgresSource
from dataflow_assets.errors import AuditFailed, ConnectionFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest, SchemaPolicy, Target, WriteMode
from dataflow_assets_tests.connectors.arrow_types import LISTS, NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.contract_schema import SchemaKillPromises, SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.connectors.restarts import Crashing, RestartPromises
from dataflow_assets_tests.services.postgres import PostgresServer, process_of, system_binaries, wheel_binaries
from dataflow_assets_tests.services.proxy import proxy_to

SECRET = "correct horse battery"


@dataclass
class PostgresHarness(Harness):
    """Postgres keeps 63 bytes of a name."""

    dsn: str = ""
    secret: str | None = SECRET
    longest_name: int | None = 63
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.dsn)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = PostgresEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> PostgresSource:
        return PostgresSource(table=name)


def connect(dsn: str, **options: Any) -> Connector:
    """A connector for a DSN, with a password that the server does not ask for."""
    parts = conninfo_to_dict(dsn)
    known = {"host": parts["host"], "port": str(parts["port"]), "database": parts["dbname"], "user": parts["user"]}
    return Connector(PostgresConnection(**known, password=parts.get("password", SECRET), **options), ConnectionContext("warehouse", Path()))


@pytest.fixture
def harness(postgres_dsn: str, tmp_path: Path) -> Any:
    made = PostgresHarness(tmp_path, dsn=postgres_dsn)
    yield made
    made.connector.close()


OTHER = set(NESTED) - set(LISTS)


class TestPostgres(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        **dict.fromkeys(OTHER, Lossy("Postgres has arrays of scalars, and no other nested values")),
        "list_view": Lossy("Postgres takes lists of other layouts"),
        "duration_us": Lossy("Postgres' intervals count months and days as well"),
        "string_nul": Lossy("Postgres has no text with a zero byte"),
        "time_ns_fine": Lossy("Postgres keeps microseconds"),
        "timestamp_ns_fine": Lossy("Postgres keeps microseconds"),
        "instant_ns_fine": Lossy("Postgres keeps microseconds"),
    }

    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, harness: PostgresHarness) -> PostgresHarness:
        return harness


class TestPostgresDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, PostgresHarness)
        with psycopg.connect(harness.dsn, autocommit=True) as connection:
            connection.execute(f"drop table {table}")


class TestPostgresKilled(KillPromises, SchemaKillPromises):
    """Processes."""

    kind = "postgres"

    @pytest.fixture
    def place(self, postgres_dsn: str) -> str:
        return postgres_dsn


def test_a_lost_reply_to_commit_is_looked_up_in_the_ledger(postgres_dsn: str, tmp_path: Path) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    with proxy_to(str(parts["host"]), int(str(parts["port"]))) as proxy:
        harness = PostgresHarness(tmp_path, dsn=postgres_dsn.replace(f":{parts['port']}/", f":{proxy.port}/"))
        target = harness.make_target("things", WriteMode.APPEND)
        request = harness.request(events(day(0)), target, harness.connector.claim(target, day(0), attempt="only"))
        with harness.connector._sessions.bulk():
            pass  # open the connection before the proxy is armed
        proxy.trigger(b"COMMIT")
        done = harness.connector.publish(request)
        assert proxy.cut == 1
        assert "COMMIT" in done.note
        assert_same_rows(events(day(0)), harness.rows(target))
        assert harness.connector.publish(request).already
        harness.connector.close()


def test_a_connection_lost_before_commit_is_transient(postgres_dsn: str, tmp_path: Path) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    with proxy_to(str(parts["host"]), int(str(parts["port"]))) as proxy:
        harness = PostgresHarness(tmp_path, dsn=postgres_dsn.replace(f":{parts['port']}/", f":{proxy.port}/"))
        target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
        harness.publish(events(day(0), note="old"), target, day(0))
        for word in (b"DELETE FROM", b'COPY "', b"UPDATE "):
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


def test_a_terminated_session_is_transient(harness: PostgresHarness) -> None:
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0), rows=100_000), target, unit())

    def terminate() -> None:
        with psycopg.connect(harness.dsn, autocommit=True) as admin:
            mine = "datname = current_database() AND application_name = 'dataflow'"
            admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}".encode())

    long = ReadRequest(PostgresSource(query="SELECT x, repeat('x', 100) AS t FROM generate_series(1, 1000000) x"))

    def read_and_be_cut_off() -> None:
        with harness.connector.read(long) as reader:
            reader.read_next_batch()
            terminate()
            reader.read_all()

    with pytest.raises(ConnectionFailed) as caught:
        read_and_be_cut_off()
    assert caught.value.transient
    terminate()
    assert harness.rows(target).num_rows == 100_000
    claim = harness.connector.claim(target, unit(), attempt="second")
    request = harness.request(events(day(0), note="new", rows=10), target, claim)

    def dying() -> pa.RecordBatchReader:
        terminate()
        return request.open_reader()

    with pytest.raises(ConnectionFailed):
        harness.connector.publish(replace(request, open_reader=dying))
    assert harness.rows(target).num_rows == 100_000
    assert harness.connector.publish(request).deleted == 100_000


@pytest.mark.parametrize(("changes", "kind"), [({"port": 1}, "transient"), ({"database": "nowhere"}, "configuration")])
def test_an_unreachable_server(postgres_dsn: str, changes: dict[str, Any], kind: str) -> None:
    parts = conninfo_to_dict(postgres_dsn)
    options = {"host": parts["host"], "port": parts["port"], "database": "postgres", "user": parts["user"], "password": SECRET} | changes
    connector = Connector(PostgresConnection(**options), ConnectionContext("warehouse", Path()))
    with pytest.raises(ConnectionFailed, match="warehouse") as caught:
        connector.probe()
    assert caught.value.kind == kind
    assert "password" in caught.value.hint
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_refused_login_is_not_tried_again(postgres_server: PostgresServer, postgres_dsn: str, password: str | None) -> None:
    if postgres_server.rung == "TEST_POSTGRES_DSN":
        pytest.skip("the rules of that server are not ours to change")
    with asking_for_a_password(postgres_dsn, "locked"):
        parts = conninfo_to_dict(postgres_dsn) | {"user": "locked", "database": "postgres", "password": password}
        options = {name: parts[name] for name in ("host", "port", "database", "user", "password")}
        connector = Connector(PostgresConnection(**options), ConnectionContext("warehouse", Path()))
        with pytest.raises(ConnectionFailed, match="warehouse") as caught:
            connector.probe()
    assert not caught.value.transient
    assert "wrong" not in str(caught.value)


@contextmanager
def asking_for_a_password(dsn: str, role: str) -> Iterator[None]:
    """A role that the server lets in with its password alone."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'".encode())
        ((path, rules),) = admin.execute("SELECT setting, pg_read_file(setting) FROM pg_settings WHERE name = 'hba_file'").fetchall()
        file = Path(path)
        file.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{rules}")
        admin.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)  # the postmaster reads it when the signal arrives
        try:
            yield
        finally:
            file.write_text(rules)
            admin.execute("SELECT pg_reload_conf()")
            admin.execute(f"DROP ROLE {role}".encode())


def test_upsert_without_a_unique_index_says_what_to_type(harness: PostgresHarness) -> None:
    harness.publish(pairs((1, "a")), harness.make_target("pairs", WriteMode.APPEND), unit("one"))
    upsert = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    with pytest.raises(WriteFailed) as caught:
        harness.publish(pairs((1, "b")), upsert, unit("two"))
    with psycopg.connect(harness.dsn, autocommit=True) as admin:
        admin.execute(caught.value.hint.encode())
    harness.publish(pairs((1, "b"), (2, "c")), upsert, unit("two"))
    assert_same_rows(pairs((1, "b"), (2, "c")), harness.rows(upsert))


def test_upsert_of_keys_alone_leaves_the_rows(harness: PostgresHarness) -> None:
    target = harness.make_target("keys", WriteMode.UPSERT, keys=["key"])
    for number in range(2):
        harness.publish(pairs((1, None), (2, None)).select(["key"]), target, unit(str(number)))
    assert harness.rows(target).num_rows == 2


def test_rows_that_a_trigger_drops_are_noticed(harness: PostgresHarness) -> None:
    with psycopg.connect(harness.dsn, autocommit=True) as admin:
        admin.execute("""CREATE TABLE things (id bigint, at timestamptz, note text);
            CREATE FUNCTION drop_some() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RETURN CASE WHEN NEW.id % 7200 = 0 THEN NULL ELSE NEW END; END $$;
            CREATE TRIGGER drop_some BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION drop_some()""")
    target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    with pytest.raises(AuditFailed, match="12 rows"):
        harness.publish(events(day(0)), target, day(0))
    assert harness.rows(target).num_rows == 0
    assert harness.connector.ledger(target, pipeline="contract", step="write") == []


def test_readers_see_old_or_new_never_between(harness: PostgresHarness) -> None:
    """Readers run beside replaces of the whole table, and are never blocked into seeing it empty."""
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0), note="0", rows=500), target, unit())
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def watch() -> None:
        with psycopg.connect(harness.dsn, autocommit=True) as admin:
            while not stop.is_set():
                seen.extend(admin.execute("SELECT count(*), count(DISTINCT split_part(note, ' ', 1)) FROM things").fetchall())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 8):
        harness.publish(events(day(0), note=str(number), rows=500), target, unit(), str(number))
    stop.set()
    watcher.join()
    assert len(seen) > 7
    assert set(seen) == {(500, 1)}


def test_many_may_create_schema_ledger_and_table_at_once(postgres_dsn: str, tmp_path: Path) -> None:
    def publish(number: int) -> None:
        harness = PostgresHarness(tmp_path / str(number), dsn=postgres_dsn)
        harness.scratch.mkdir()
        target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at", table_schema="new")
        harness.publish(events(day(number)), target, day(number))
        harness.connector.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(publish, range(6)))
    with psycopg.connect(postgres_dsn) as admin:
        assert admin.execute("SELECT count(*), count(DISTINCT id) FROM new.things").fetchone() == (144, 144)
        assert admin.execute("SELECT count(*) FROM pg_indexes WHERE schemaname = 'new' AND tablename = 'things'").fetchone() == (1,)


def test_upserts_beside_each_other_do_not_deadlock(harness: PostgresHarness) -> None:
    target = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    harness.publish(pairs((0, "first")), target, unit("first"))

    def upsert(number: int) -> None:
        keys = range(300) if number % 2 else range(299, -1, -1)
        harness.publish(pairs(*((key, str(number)) for key in keys)), target, unit(str(number)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upsert, range(8)))
    found = harness.rows(target)
    assert found.num_rows == 300
    assert len(set(found["value"].to_pylist())) == 1


def test_auto_create_off_says_what_to_type(harness: PostgresHarness) -> None:
    target = harness.make_target("things", WriteMode.APPEND, auto_create=False)
    with pytest.raises(WriteFailed, match="does not exist") as caught:
        harness.publish(events(day(0)), target, day(0))
    with psycopg.connect(harness.dsn, autocommit=True) as admin:
        admin.execute(caught.value.hint.encode())
    harness.publish(events(day(0)), target, day(0))
    assert_same_rows(events(day(0)), harness.rows(target))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"dsn": "postgresql+psycopg2://u:p%40ss@h:6543/d?sslmode=require"},
            {"host": "h", "port": "6543", "dbname": "d", "password": "p@ss", "sslmode": "require"},
        ),
        ({"url": "postgres://u@h/d"}, {"host": "h", "dbname": "d", "user": "u"}),
        ({"host": "h", "port": "6543", "database": "d", "user": "u", "password": "p w'"}, {"port": "6543", "password": "p w'"}),
        ({"database": "d"}, {"host": "localhost", "port": "5432"}),
    ],
)
def test_connection_keys(given: dict[str, Any], expected: dict[str, str]) -> None:
    connector = Connector(PostgresConnection.model_validate(given), ConnectionContext("x", Path()))
    found = {name: str(value) for name, value in conninfo_to_dict(connector._conninfo()).items()}
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    "given", [{"dsn": "mysql://h/d"}, {"dsn": "postgres://h/d", "host": "x"}, {"hots": "x"}, {"port": "many"}, {"lock_timeout": "soon"}]
)
def test_connection_keys_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PostgresConnection.model_validate(given)


def test_endpoint_names_its_schema_either_way() -> None:
    for key in ("pg_schema", "table_schema"):
        assert PostgresEndpoint.model_validate({"table": "t", key: "mart"}).table_schema == "mart"
        assert PostgresSource.model_validate({"table": "t", key: "mart"}).table_schema == "mart"


class TestPostgresRestarts(RestartPromises):
    """Recovery from the write-ahead log."""

    @pytest.fixture
    def crashing(self, postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Crashing]:
        binaries = system_binaries() or wheel_binaries()
        if binaries is None:
            pytest.skip("the server is not ours to restart")
        with process_of(binaries) as server:
            with psycopg.connect(server.dsn, autocommit=True) as admin:  # the servers of the tests forget what a crash finds in memory
                admin.execute("ALTER DATABASE postgres SET synchronous_commit = on")
            harness = PostgresHarness(tmp_path, dsn=server.dsn)
            yield Crashing(harness, lambda: server.stop(signal.SIGQUIT), server.start)
            harness.connector.close()


def test_evolve_in_a_table_made_by_hand(harness: PostgresHarness) -> None:
    """Text is given room when a value needs it; domains, wide numerics and columns that fill themselves are let be."""
    with psycopg.connect(harness.dsn, autocommit=True) as connection:
        connection.execute("CREATE DOMAIN small AS integer")
        connection.execute(
            "CREATE TABLE hand (id small, note varchar(5), code varchar(5), n numeric(6,2), wide numeric(100,2),"
            " made timestamptz DEFAULT now(), twice bigint GENERATED ALWAYS AS (id * 2) STORED)"
        )
    target = replace(harness.make_target("hand", WriteMode.APPEND), schema_policy=SchemaPolicy.EVOLVE)
    table = pa.table({"id": [1], "note": ["longer than five"], "code": ["short"], "n": pa.array([Decimal("12345.678")])})
    done = harness.publish(table, target, unit("a"))
    said = {(change.action, change.column, change.before, change.after) for change in done.schema_changes}
    assert said == {
        ("widened", "note", "character varying(5)", "text"),
        ("widened", "n", "numeric(6,2)", "numeric(8, 3)"),
        ("absent", "wide", "", ""),
    }
    with psycopg.connect(harness.dsn) as connection:
        found = connection.execute("SELECT id, note, code, n, twice FROM hand").fetchall()
    assert found == [(1, "longer than five", "short", Decimal("12345.678"), 2)]
    with pytest.raises(ValueRefused, match="id"):
        harness.publish(pa.table({"id": [2**40]}), target, unit("b"))
