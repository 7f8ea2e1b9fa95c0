"""What happens to MySQL publishes and reads when something breaks, or when others run beside them, against a real server.

Here: lost connections, killed sessions, restarts, TLS that does not fit, concurrent attempts. Not here: the contract and the target
table (`test_mysql`), types (`test_mysql_types`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pymysql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dataflow_assets.connectors._mysql_session import run
from dataflow_assets.connectors.mysql import Connector, MySQLConnection, MySQLSource
from dataflow_assets.errors import ConnectionFailed, Fenced
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import ReadRequest, WriteMode
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.harness import assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.restarts import Crashing, RestartPromises
from dataflow_assets_tests.connectors.test_mysql import MySQLHarness, open_connector
from dataflow_assets_tests.services.mysql import SECRET, MySQLServer, ask, connect, dsn_of, parts_of, running
from dataflow_assets_tests.services.proxy import Proxy, proxy_to


@pytest.fixture
def harness(mysql_user_dsn: str, tmp_path: Path) -> Any:
    made = MySQLHarness(tmp_path, dsn=mysql_user_dsn)
    yield made
    made.connector.close()


# -- connections that break


@contextmanager
def behind_a_proxy(dsn: str, scratch: Path) -> Iterator[tuple[MySQLHarness, Proxy]]:
    """A harness whose connections lead through a proxy, one of them open already."""
    parts = parts_of(dsn)
    with proxy_to(parts["host"], parts["port"]) as proxy:
        harness = MySQLHarness(scratch, dsn=dsn_of(dsn, host="127.0.0.1", port=proxy.port))
        with harness.connector._sessions.writing():
            pass
        yield harness, proxy
        harness.connector.close()


def test_a_lost_reply_to_commit_is_looked_up_in_the_ledger(mysql_user_dsn: str, tmp_path: Path) -> None:
    with behind_a_proxy(mysql_user_dsn, tmp_path) as (harness, proxy):
        target = harness.make_target("things", WriteMode.APPEND)
        request = harness.request(events(day(0)), target, harness.connector.claim(target, day(0), attempt="only"))
        proxy.trigger(b"\x03COMMIT")
        done = harness.connector.publish(request)
        assert proxy.cut == 1
        assert "COMMIT" in done.note
        assert_same_rows(events(day(0)), harness.rows(target))
        assert harness.connector.publish(request).already


@pytest.mark.parametrize("word", [b"DELETE FROM", b"LOAD DATA", b"new 12", b"UPDATE ", b"FOR UPDATE"])
def test_a_connection_lost_before_commit_is_transient(mysql_user_dsn: str, tmp_path: Path, word: bytes) -> None:
    with behind_a_proxy(mysql_user_dsn, tmp_path) as (harness, proxy):
        target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
        harness.publish(events(day(0), note="old"), target, day(0))
        request = harness.request(events(day(0), note="new"), target, harness.connector.claim(target, day(0), attempt="cut off"))
        proxy.trigger(word)
        with pytest.raises(ConnectionFailed) as caught:
            harness.connector.publish(request)
        assert caught.value.transient
        assert proxy.cut == 1
        assert_same_rows(events(day(0), note="old"), harness.rows(target))
        harness.publish(events(day(0), note="new"), target, day(0), "last")
        assert_same_rows(events(day(0), note="new"), harness.rows(target))


def kill_sessions(server: MySQLServer) -> None:
    """End every session but this one."""
    with connect(server.dsn) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user <> 'system user'")
        for (number,) in cursor.fetchall():
            with suppress(pymysql.MySQLError):
                cursor.execute(f"KILL {number}")


def test_a_killed_session_is_transient(mysql_server: MySQLServer, harness: MySQLHarness) -> None:
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0), rows=100_000), target, unit())
    long = ReadRequest(MySQLSource(query="SELECT seq, repeat('x', 100) AS t FROM seq_1_to_1000000"))

    def read_and_be_cut_off() -> None:
        with harness.connector.read(long) as reader:
            reader.read_next_batch()
            kill_sessions(mysql_server)
            reader.read_all()

    with pytest.raises(ConnectionFailed) as caught:
        read_and_be_cut_off()
    assert caught.value.transient
    kill_sessions(mysql_server)
    assert harness.rows(target).num_rows == 100_000
    request = harness.request(events(day(0), note="new", rows=10), target, harness.connector.claim(target, unit(), attempt="second"))

    def dying() -> pa.RecordBatchReader:
        kill_sessions(mysql_server)
        return request.open_reader()

    with pytest.raises(ConnectionFailed) as caught:
        harness.connector.publish(replace(request, open_reader=dying))
    assert caught.value.transient
    assert harness.rows(target).num_rows == 100_000
    assert harness.connector.publish(request).deleted == 100_000


class TestMySQLRestarts(RestartPromises):
    """Whatever InnoDB had not committed is gone."""

    @pytest.fixture
    def crashing(self, mysql_server: MySQLServer, tmp_path: Path) -> Iterator[Crashing]:
        if mysql_server.process is None:
            pytest.skip("the server is not ours to restart")
        with running("--innodb-flush-log-at-trx-commit=1") as server:
            ask(server.dsn, "CREATE DATABASE mart")
            harness = MySQLHarness(tmp_path, dsn=dsn_of(server.dsn, database="mart"))
            yield Crashing(harness, server.kill, lambda: server.start(tmp_path / "log"))
            harness.connector.close()


@pytest.mark.parametrize(
    ("changes", "transient"), [({"port": 1}, True), ({"database": "nowhere"}, False), ({"password": "not " + SECRET}, False)]
)
def test_an_unreachable_server(mysql_user_dsn: str, changes: dict[str, Any], transient: bool) -> None:
    connector = open_connector(dsn_of(mysql_user_dsn, **changes))
    with pytest.raises(ConnectionFailed, match="warehouse") as caught:
        connector.probe()
    assert caught.value.transient == transient
    assert "password" in caught.value.hint
    assert SECRET not in str(caught.value)


def test_no_file_is_sent_to_a_server_that_asks_for_one(harness: MySQLHarness, tmp_path: Path) -> None:
    """Any statement may be answered by such a wish; only the load itself answers it, and with rows."""
    (tmp_path / "private").write_text("private\n")
    ask(harness.dsn, "CREATE TABLE stolen (line TEXT)")
    text = f"LOAD DATA LOCAL INFILE '{tmp_path / 'private'}' INTO TABLE stolen"
    with pytest.raises(RuntimeError, match="local_infile"), harness.connector._sessions.writing() as connection:
        run(connection, Statement(text))
    assert ask(harness.dsn, "SELECT count(*) FROM stolen") == ((0,),)


@pytest.fixture(scope="module")
def tls_server(mysql_server: MySQLServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MySQLServer, Path]]:
    """A server with a certificate for `localhost`, and its file."""
    if mysql_server.process is None:
        pytest.skip("the server is not ours to configure")
    folder = tmp_path_factory.mktemp("tls")
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    with running(f"--ssl-cert={folder / 'certificate.pem'}", f"--ssl-key={folder / 'key.pem'}") as server:
        ask(server.dsn, "CREATE DATABASE mart")
        yield server, folder


@pytest.mark.parametrize(
    ("host", "options", "encrypted"),
    [
        *(("127.0.0.1", {}, True), ("127.0.0.1", {"ssl_mode": "disabled"}, False), ("127.0.0.1", {"ssl_mode": "required"}, True)),
        *(("127.0.0.1", {"ssl_mode": "verify_ca", "ssl_ca": "certificate.pem"}, True), ("127.0.0.1", {"ssl_mode": "verify_ca"}, None)),
        *(
            (host, {"ssl_mode": "verify_identity", "ssl_ca": "certificate.pem"}, found)
            for host, found in (("localhost", True), ("127.0.0.1", None))
        ),
        ("127.0.0.1", {"ssl_mode": "verify_ca", "ssl_ca": "nowhere.pem"}, None),
    ],
)
def test_tls(tls_server: tuple[MySQLServer, Path], tmp_path: Path, host: str, options: dict[str, Any], encrypted: bool | None) -> None:
    """None: refused, and not tried again."""
    server, folder = tls_server
    known = {"host": host, "port": server.parts["port"], "user": "root", "database": "mart"}
    connector = Connector(MySQLConnection(**known, **options), ConnectionContext("warehouse", folder))
    if encrypted is None:
        with pytest.raises(ConnectionFailed, match="warehouse") as caught:
            connector.probe()
        assert not caught.value.transient
        return
    with connector._sessions.reading() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
        assert bool(cursor.fetchall()[0][1]) == encrypted
    harness = MySQLHarness(tmp_path, _connector=connector)
    harness.publish(events(day(0), rows=20_000), harness.make_target("things", WriteMode.REPLACE), unit())
    with connector.read(ReadRequest(MySQLSource(table="things"), batch_rows=1_000)) as reader:
        reader.read_next_batch()
    assert harness.read("things").num_rows == 20_000
    connector.close()


# -- attempts beside each other


def test_a_claim_waits_for_no_publish(harness: MySQLHarness) -> None:
    """A zombie that wakes up in the middle of its load is fenced. The claim that does it is made in the same thread: waiting would hang."""
    target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    harness.publish(events(day(0), note="old"), target, day(0))
    request = harness.request(events(day(0), note="slow"), target, harness.connector.claim(target, day(0), attempt="slow"))

    def overtaken() -> pa.RecordBatchReader:
        harness.connector.claim(target, day(0), attempt="quick")
        return request.open_reader()

    with pytest.raises(Fenced):
        harness.connector.publish(replace(request, open_reader=overtaken))
    assert_same_rows(events(day(0), note="old"), harness.rows(target))


def test_one_claim_published_twice_at_once_appends_once(harness: MySQLHarness) -> None:
    """As after a connection that was lost while the server was still writing."""
    target = harness.make_target("things", WriteMode.APPEND)
    harness.publish(events(day(1)), target, day(1))
    request = harness.request(events(day(0), rows=2_000), target, harness.connector.claim(target, day(0), attempt="only"))
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: harness.connector.publish(request), range(4)))
    assert sorted(result.already for result in done) == [False, True, True, True]
    assert harness.rows(target).num_rows == 2_024


def test_many_may_create_database_ledger_and_table_at_once(mysql_dsn: str, tmp_path: Path) -> None:
    schema = f"{parts_of(mysql_dsn)['database']}_new"

    def publish(number: int) -> None:
        harness = MySQLHarness(tmp_path / str(number), dsn=mysql_dsn)
        harness.scratch.mkdir()
        target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at", table_schema=schema)
        harness.publish(events(day(number)), target, day(number))
        assert len(harness.connector.ledger(target, pipeline="contract", step="write")) >= 1
        harness.connector.close()

    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(publish, range(6)))
        assert ask(mysql_dsn, f"SELECT count(*), count(DISTINCT id) FROM `{schema}`.things") == ((144, 144),)
    finally:
        ask(mysql_dsn, f"DROP DATABASE `{schema}`")


def test_upserts_beside_each_other_do_not_deadlock(harness: MySQLHarness) -> None:
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


def test_replaces_windows_and_upserts_of_one_table_beside_each_other(harness: MySQLHarness) -> None:
    """Each is counted against what it wrote, so a mixture would be noticed; none fails."""
    ask(harness.dsn, "CREATE TABLE things (id BIGINT PRIMARY KEY, at TIMESTAMP(6) NULL, note VARCHAR(50), KEY (at))")
    windowed = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    whole, upsert = harness.make_target("things", WriteMode.REPLACE), harness.make_target("things", WriteMode.UPSERT, keys=["id"])

    def publish(number: int) -> None:
        of, target = day(number % 4), (windowed, whole, upsert)[number % 3]
        at = of if target is windowed else unit(str(number), of.window, step=target.mode.value)
        harness.publish(events(of, note=str(number), rows=400), target, at, str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, range(24)))
    found = harness.rows(windowed)
    assert len(set(found["id"].to_pylist())) == found.num_rows >= 400


def test_readers_see_old_or_new_never_between(harness: MySQLHarness) -> None:
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0), note="0", rows=500), target, unit())
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def watch() -> None:
        with connect(harness.dsn) as reader, reader.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("SELECT count(*), count(DISTINCT substring_index(note, ' ', 1)) FROM things")
                seen.extend(cursor.fetchall())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 8):
        harness.publish(events(day(0), note=str(number), rows=500), target, unit(), str(number))
    stop.set()
    watcher.join()
    assert len(seen) > 7
    assert set(seen) == {(500, 1)}
