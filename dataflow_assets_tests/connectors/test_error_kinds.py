"""What each system's errors are worth: time, another setting, or another query; with the real system wherever it runs here."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from dataflow_assets import discovery
from dataflow_assets.connectors import (
    _bigquery_errors,
    _clickhouse_session,
    _mysql_session,
    _objects_s3,
    _postgres_session,
    _snowflake_session,
    _sqlalchemy_session,
    _sqlite_session,
)
from dataflow_assets.connectors._http_errors import Reply, judge_status
from dataflow_assets.connectors._postgres_login import login_state
from dataflow_assets.connectors.clickhouse import ClickHouseConnection
from dataflow_assets.connectors.clickhouse import Connector as ClickHouse
from dataflow_assets.connectors.csv import Connector as Csv
from dataflow_assets.connectors.duckdb import Connector as DuckDB
from dataflow_assets.connectors.http import Connector as Http
from dataflow_assets.connectors.mysql import Connector as MySQL
from dataflow_assets.connectors.postgres import Connector as Postgres
from dataflow_assets.connectors.snowflake import Connector as Snowflake
from dataflow_assets.connectors.sqlite import Connector as SQLite
from dataflow_assets.error_kinds import Codes, kind_of, os_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, ErrorKind, ReadFailed, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.storage.stages import write_stage
from dataflow_assets.tables import ReadRequest
from dataflow_assets_tests.connectors.test_postgres import asking_for_a_password
from dataflow_assets_tests.services.clickhouse import ClickHouseServer
from dataflow_assets_tests.services.http_server import Answer, served
from dataflow_assets_tests.services.ladder import free_port
from dataflow_assets_tests.services.mysql import MySQLServer, ask, parts_of


def made(connector: Any, folder: Path = Path(), **keys: Any) -> Any:
    """A connector with these keys."""
    return connector(connector.Connection.model_validate(keys), ConnectionContext("warehouse", folder))


def failure_of(action: Callable[[], object]) -> DataflowError:
    """What the action raises."""
    with pytest.raises(DataflowError) as caught:
        action()
    return caught.value


def read_all(connector: Any, **options: Any) -> None:
    """Read a source to its end."""
    source = connector.Source.model_validate(options)
    with connector.read(ReadRequest(source)) as reader:
        reader.read_all()


@pytest.mark.parametrize("kind", discovery.kinds("connectors"))
def test_every_connector_says_its_codes(kind: str) -> None:
    codes = discovery.find("connectors", kind).error_codes
    assert codes.transient
    assert codes.configuration
    assert not set(map(str, codes.transient)) & set(map(str, codes.configuration))


def test_the_longest_text_and_the_single_number_decide() -> None:
    codes = Codes("x", transient=("53", 5, range(100, 200)), configuration=("53400", 150), prefixes=True)
    kinds = {code: codes.kind(code) for code in ("53100", "53400", "5", 5, 120, 150, "42P01", "", None, 0)}
    assert kinds == {
        "53100": "transient",
        "53400": "configuration",
        "5": "permanent",
        5: "transient",
        120: "transient",
        150: "configuration",
        "42P01": "permanent",
        "": "permanent",
        None: "permanent",
        0: "permanent",
    }


@given(st.text(alphabet="0123456789ABCDEFP", max_size=6), st.integers(-10, 999_999))
def test_any_code_has_one_kind(text: str, number: int) -> None:
    for kind in discovery.kinds("connectors"):
        codes = discovery.find("connectors", kind).error_codes
        assert {codes.kind(text), codes.kind(number)} <= {"transient", "permanent", "configuration"}


# -- Postgres


def postgres(dsn: str, **changes: Any) -> Any:
    parts = {**conninfo_to_dict(dsn), **changes}
    keys = {"host": parts["host"], "port": parts["port"], "database": parts["dbname"], "user": parts["user"]}
    return made(Postgres, **keys, **({"password": parts["password"]} if parts.get("password") else {}))


def test_postgres_logins(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
        try:
            found = {name: failure_of(postgres(postgres_dsn, user=name).probe) for name in ("crowded", "nobody_of_that_name")}
            found |= {"missing": failure_of(postgres(postgres_dsn, dbname="no_such_database").probe)}
            found |= {"bulk": failure_of(lambda: read_all(postgres(postgres_dsn, dbname="no_such_database"), query="SELECT 1"))}
            found |= {"nobody listens": failure_of(postgres(postgres_dsn, port=free_port()).probe)}
        finally:
            admin.execute("DROP ROLE crowded")
    assert {name: (type(error), error.kind) for name, error in found.items()} == {
        "crowded": (ConnectionFailed, "transient"),
        "nobody_of_that_name": (ConnectionFailed, "configuration"),
        "missing": (ConnectionFailed, "configuration"),
        "bulk": (ConnectionFailed, "configuration"),
        "nobody listens": (ConnectionFailed, "transient"),
    }
    assert "in use" in found["crowded"].hint
    assert "no_such_database" in found["missing"].message


def test_a_postgres_at_its_limit_is_transient_though_the_password_was_asked_for(postgres_server: Any, postgres_dsn: str) -> None:
    """The server says so after the login, as it says that a password is wrong."""
    if postgres_server.rung == "TEST_POSTGRES_DSN":
        pytest.skip("the rules of that server are not ours to change")
    with asking_for_a_password(postgres_dsn, "narrow"):
        with psycopg.connect(postgres_dsn, autocommit=True) as admin:
            admin.execute("ALTER ROLE narrow CONNECTION LIMIT 0")
        assert failure_of(postgres(postgres_dsn, user="narrow", password="right").probe).kind == "transient"
        assert failure_of(postgres(postgres_dsn, user="narrow", password="wrong").probe).kind == "configuration"
        assert failure_of(postgres(postgres_dsn, user="narrow").probe).kind == "configuration"


@contextmanager
def refusing(code: str) -> Iterator[int]:
    """A server that refuses every login with this SQLSTATE, in a language that is not English; yields its port."""
    fields = "".join(f"{field}{value}\0" for field, value in {"S": "FATAL", "V": "FATAL", "C": code, "M": "zu früh"}.items()) + "\0"
    body = fields.encode()
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with closing(client):
                        while (data := client.recv(1024))[4:8] == struct.pack("!i", 80877103):
                            client.sendall(b"N")
                        if data:
                            client.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("code", "kind"), [("57P03", "transient"), ("53300", "transient"), ("28P01", "configuration"), ("XX000", "permanent")]
)
def test_a_postgres_says_by_code_why_it_refuses(code: str, kind: ErrorKind) -> None:
    with refusing(code) as port:
        assert login_state(f"host=127.0.0.1 port={port} dbname=x user=y") == code
        error = failure_of(made(Postgres, host="127.0.0.1", port=port, database="x", user="y").probe)
    assert (error.kind, type(error)) == (kind, ConnectionFailed)


def test_postgres_statements(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE locked (id int PRIMARY KEY); INSERT INTO locked VALUES (1), (2)")
        admin.execute("CREATE TABLE closed (id int); DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
    kinds = {
        "SELECT * FROM no_such_table": "configuration",
        "SELECT * FROM no_such_schema.t": "configuration",
        "SET ROLE guest; SELECT * FROM closed": "configuration",
        "SELEC 1": "permanent",
        "SELECT no_such_column FROM locked": "permanent",
        "SELECT 1/0": "permanent",
        "SET lock_timeout = '20ms'; UPDATE locked SET id = id WHERE id = 1": "transient",
        "SELECT pg_terminate_backend(pg_backend_pid())": "transient",
    }
    with psycopg.connect(postgres_dsn) as holder:
        holder.execute("SELECT * FROM locked WHERE id = 1 FOR UPDATE")
        found = {text: failure_of(lambda: in_postgres(postgres_dsn, text)).kind for text in kinds}  # noqa: B023 - called at once
    assert found == kinds
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute("DROP TABLE closed; DROP ROLE guest")


def in_postgres(dsn: str, text: str) -> None:
    with _postgres_session.translated("trying", WriteFailed), psycopg.connect(dsn) as connection:
        connection.execute(text.encode())


def test_a_postgres_deadlock(postgres_dsn: str) -> None:
    setup = "CREATE TABLE pair (id int PRIMARY KEY); INSERT INTO pair VALUES (1), (2)"
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(setup)

    def crossing(first: int, second: int, met: threading.Barrier) -> None:
        with _postgres_session.translated("trying", WriteFailed), psycopg.connect(postgres_dsn) as connection:
            connection.execute("SET deadlock_timeout = '10ms'")
            connection.execute("UPDATE pair SET id = id WHERE id = %s", [first])
            met.wait(30)
            connection.execute("UPDATE pair SET id = id WHERE id = %s", [second])

    assert [error.kind for error in crossed(crossing)] == ["transient"]


def crossed(crossing: Callable[[int, int, threading.Barrier], None]) -> list[DataflowError]:
    """Two transactions take two rows in opposite order; what they raise."""
    met, raised = threading.Barrier(2), []

    def run(first: int, second: int) -> None:
        try:
            crossing(first, second, met)
        except DataflowError as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


@contextmanager
def tiny_disk(folder: Path, *, kilobytes: int) -> Iterator[Path]:
    """A file system of a few kilobytes; skips where none can be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=777", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_of_postgres(postgres_server: Any, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if postgres_server.rung != "system binaries":
        pytest.skip("the disk of that server is not ours")
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as scratch, tiny_disk(Path(scratch) / "full", kilobytes=300) as disk:
        Path(scratch).chmod(0o755)
        with psycopg.connect(postgres_dsn, autocommit=True) as admin:
            place = disk / "space"
            place.mkdir()
            owner = Path(admin.execute("SHOW data_directory").fetchone()[0]).stat()  # type: ignore[index]
            os.chown(place, owner.st_uid, owner.st_gid)
            admin.execute(f"CREATE TABLESPACE tiny LOCATION '{place}'".encode())
            try:
                admin.execute("CREATE TABLE big (t text) TABLESPACE tiny")
                fill = "INSERT INTO big SELECT repeat('x', 900) FROM generate_series(1, 9000)"
                error = failure_of(lambda: in_postgres(postgres_dsn, fill))
                admin.execute("DROP TABLE big")
            finally:
                admin.execute("DROP TABLESPACE tiny")
    assert error.kind == "transient"


# -- MySQL


def test_mysql_logins(mysql_server: MySQLServer, mysql_dsn: str) -> None:
    parts = parts_of(mysql_dsn)
    right = {key: parts[key] for key in ("host", "port", "database", "user", "password") if parts[key]}
    found = {
        "password": failure_of(made(MySQL, **{**right, "user": "somebody", "password": "wrong"}).probe),
        "database": failure_of(made(MySQL, **{**right, "database": "no_such_database"}).probe),
        "nobody listens": failure_of(made(MySQL, **{**right, "port": free_port()}).probe),
    }
    assert {name: error.kind for name, error in found.items()} == {
        "password": "configuration",
        "database": "configuration",
        "nobody listens": "transient",
    }


def in_mysql(dsn: str, *texts: str) -> None:
    with _mysql_session.translated("trying", WriteFailed), closing(pymysql.connect(**parts_of(dsn))) as connection:
        for text in texts:
            connection.cursor().execute(text)


def test_mysql_statements(mysql_dsn: str) -> None:
    ask(mysql_dsn, "CREATE TABLE locked (id int PRIMARY KEY) ENGINE=InnoDB", "INSERT INTO locked VALUES (1), (2)")
    patience = "SET innodb_lock_wait_timeout = 1"
    kinds: dict[tuple[str, ...], str] = {
        ("SELECT * FROM no_such_table",): "configuration",
        ("SELEC 1",): "permanent",
        ("SELECT no_such_column FROM locked",): "permanent",
        ("KILL CONNECTION_ID()",): "transient",
        (patience, "UPDATE locked SET id = 7 WHERE id = 1"): "transient",
    }
    with closing(pymysql.connect(**parts_of(mysql_dsn))) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT * FROM locked WHERE id = 1 FOR UPDATE")
        found = {texts: failure_of(lambda: in_mysql(mysql_dsn, *texts)).kind for texts in kinds}  # noqa: B023 - called at once
    assert found == kinds

    def crossing(first: int, second: int, met: threading.Barrier) -> None:
        with _mysql_session.translated("trying", WriteFailed), closing(pymysql.connect(**parts_of(mysql_dsn))) as connection:
            connection.cursor().execute("SELECT * FROM locked WHERE id = %s FOR UPDATE", [first])
            met.wait(30)
            connection.cursor().execute("SELECT * FROM locked WHERE id = %s FOR UPDATE", [second])

    assert [error.kind for error in crossed(crossing)] == ["transient"]


# -- ClickHouse


def test_clickhouse(clickhouse: ClickHouseServer) -> None:
    keys = {"host": "127.0.0.1", "port": clickhouse.port, "database": clickhouse.database}
    sound = made(ClickHouse, **keys)
    kinds = {
        "SELECT * FROM no_such_table": "configuration",
        "SELECT * FROM no_such_database.t": "configuration",
        "SELEC 1": "permanent",
        "SELECT no_such_column FROM system.one": "permanent",
        "SELECT sleepEachRow(0.1) FROM numbers(40) SETTINGS max_execution_time = 1, max_block_size = 1": "transient",
    }
    found = {query: failure_of(lambda: read_all(sound, query=query)).kind for query in kinds}  # noqa: B023 - called at once
    sound.close()
    assert found == kinds
    assert failure_of(made(ClickHouse, **{**keys, "port": free_port()}).probe).kind == "transient"
    assert ClickHouseConnection.model_validate(keys).database == clickhouse.database
    assert {code: _clickhouse_session.ERROR_CODES.kind(code) for code in (516, 497, 241, 252, 999, 62)} == {
        516: "configuration",
        497: "configuration",
        241: "transient",
        252: "transient",
        999: "transient",
        62: "permanent",
    }


# -- Snowflake, BigQuery


def test_snowflake(snowflake_keys: dict[str, Any]) -> None:
    connector = made(Snowflake, **snowflake_keys)
    kinds = {"SELECT * FROM no_such_table": "configuration", "SELEC 1": "permanent"}
    found = {query: failure_of(lambda: read_all(connector, query=query)).kind for query in kinds}  # noqa: B023 - called at once
    connector.close()
    assert found == kinds


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((250001, "transient"), (251010, "transient"), (251001, "configuration"), (390100, "configuration"), (390114, "transient")),
        *((625, "transient"), (610, "transient"), (606, "configuration"), (3001, "configuration"), (1003, "permanent")),
    ],
)
def test_numbers_of_snowflake(number: int, kind: ErrorKind) -> None:
    assert _snowflake_session.ERROR_CODES.kind(number) == kind


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "accessDenied", "configuration"),
        (403, "rateLimitExceeded", "transient"),
        (403, "quotaExceeded", "transient"),
        (404, "notFound", "configuration"),
        (400, "invalidQuery", "permanent"),
        (400, "resourcesExceeded", "permanent"),
        (429, "", "transient"),
        (500, "backendError", "transient"),
        (503, "", "transient"),
        (401, "", "configuration"),
        (403, "", "configuration"),
    ],
)
def test_reasons_of_bigquery(status: int, reason: str, kind: ErrorKind) -> None:
    from google.api_core.exceptions import from_http_status

    errors = [{"reason": reason, "message": "as it says"}] if reason else []
    assert _bigquery_errors.failure(from_http_status(status, "as it says", errors=errors), "trying", ReadFailed).kind == kind


# -- DuckDB, SQLite, SQLAlchemy


def test_duckdb(tmp_path: Path) -> None:
    (tmp_path / "text.duckdb").write_text("this is no database, and long enough to be looked at")
    found = {"no database": failure_of(made(DuckDB, tmp_path, database="text.duckdb", lock_timeout="1s").probe)}
    sound = made(DuckDB, tmp_path, database="sound.duckdb")
    with sound._database.writing(sound._settings) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")
    for query in ("SELECT * FROM no_such_table", "SELEC 1", "SELECT no_such_column FROM t"):
        found[query] = failure_of(lambda: read_all(sound, query=query))  # noqa: B023 - called at once
    sound.close()
    assert {name: error.kind for name, error in found.items()} == {
        "no database": "configuration",
        "SELECT * FROM no_such_table": "configuration",
        "SELEC 1": "permanent",
        "SELECT no_such_column FROM t": "permanent",
    }


def in_sqlite(path: Path, *texts: str) -> None:
    with _sqlite_session.translated("trying", WriteFailed), closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        for text in texts:
            connection.execute(text)


def test_sqlite(tmp_path: Path) -> None:
    path, text = tmp_path / "a.db", tmp_path / "text.db"
    in_sqlite(path, "CREATE TABLE t (id INTEGER)")
    text.write_text("this is no database, and long enough to be looked at" * 40)
    full = ("PRAGMA max_page_count = 3", "CREATE TABLE big AS SELECT randomblob(90000) AS b")
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert failure_of(lambda: in_sqlite(path, "INSERT INTO t VALUES (1)")).kind == "transient"
    assert failure_of(lambda: in_sqlite(path, *full)).kind == "transient"
    assert failure_of(lambda: in_sqlite(path, "SELEC 1")).kind == "permanent"
    assert failure_of(lambda: in_sqlite(text, "SELECT * FROM t")).kind == "configuration"
    assert failure_of(lambda: in_sqlite(tmp_path / "no" / "folder.db", "SELECT 1")).kind == "configuration"
    assert failure_of(lambda: in_sqlite(path, "PRAGMA query_only = 1", "INSERT INTO t VALUES (1)")).kind == "configuration"
    assert failure_of(lambda: read_all(made(SQLite, tmp_path, database="none.db"), query="SELECT 1")).kind == "configuration"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("SELECT * FROM no_such_table", "configuration"),
        ("SELEC 1", "permanent"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "transient"),
    ],
)
def test_sqlalchemy_on_postgres(postgres_dsn: str, text: str, kind: ErrorKind) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(postgres_dsn.replace("postgresql://", "postgresql+psycopg://"))

    def run() -> None:
        with _sqlalchemy_session.translated("trying", ReadFailed), engine.connect() as connection:
            connection.exec_driver_sql(text).fetchall()

    assert failure_of(run).kind == kind
    engine.dispose()


# -- HTTP and object stores


@pytest.mark.parametrize(
    ("status", "headers", "kind", "after"),
    [
        (429, {"retry-after": "17"}, "transient", 17.0),
        (503, {}, "transient", None),
        (500, {}, "transient", None),
        (521, {}, "transient", None),
        (501, {}, "permanent", None),
        (401, {}, "configuration", None),
        (403, {}, "configuration", None),
        (404, {}, "configuration", None),
        (400, {}, "permanent", None),
        (422, {}, "permanent", None),
    ],
)
def test_http_statuses(status: int, headers: dict[str, str], kind: ErrorKind, after: float | None) -> None:
    error = judge_status(Reply(status, headers, "http://a/b", b"said"), "asking")
    assert (error.kind, error.retry_after) == (kind, after)


def test_what_an_http_server_asks_for_reaches_the_run(tmp_path: Path) -> None:
    """The connector gives up when the server asks for more than its own budget; the run may have a larger one."""
    with served(lambda _: Answer(status=429, headers={"Retry-After": "3600"})) as server:
        connector = made(Http, tmp_path, base_url=server.url)
        error = failure_of(lambda: read_all(connector, path="/rows", format="json"))
        connector.close()
    assert (error.kind, error.retry_after) == ("transient", 3600.0)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("SlowDown", 503, "transient"),
        ("RequestTimeout", 400, "transient"),
        ("SomethingOfAnotherVendor", 503, "transient"),
        ("NoSuchBucket", 404, "configuration"),
        ("InvalidAccessKeyId", 403, "configuration"),
        ("SomethingOfAnotherVendor", 403, "configuration"),
        ("InvalidArgument", 400, "permanent"),
    ],
)
def test_codes_of_s3(code: str, status: int, kind: ErrorKind) -> None:
    assert _objects_s3._kind(code, status) == kind


# -- files and stages


def test_files(tmp_path: Path) -> None:
    files = made(Csv, tmp_path)
    (tmp_path / "broken.csv").write_bytes(b"a,b\n1\n")
    (tmp_path / "folder.csv").mkdir()
    assert failure_of(lambda: read_all(files, file_path="none.csv")).kind == "configuration"
    assert failure_of(lambda: read_all(files, file_path="none-*.csv")).kind == "configuration"
    assert failure_of(lambda: read_all(files, file_path="broken.csv")).kind == "permanent"
    assert failure_of(made(Csv, tmp_path, root="no/such/folder").probe).kind == "configuration"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "full"), "transient"),
        (OSError(errno.EDQUOT, "quota"), "transient"),
        (OSError(errno.ECONNREFUSED, "nobody"), "transient"),
        (TimeoutError("slow"), "transient"),
        (ConnectionResetError("gone"), "transient"),
        (FileNotFoundError(errno.ENOENT, "none"), "configuration"),
        (PermissionError(errno.EACCES, "not yours"), "configuration"),
        (OSError(errno.EFBIG, "limit"), "configuration"),
        (OSError("without a number"), "permanent"),
        (OSError(errno.EINVAL, "odd"), "permanent"),
        (ValueError("a bug"), "permanent"),
        (ReadFailed("x", transient=True), "transient"),
    ],
)
def test_what_the_operating_system_says(error: Exception, kind: ErrorKind) -> None:
    assert kind_of(error) == kind
    if isinstance(error, OSError) and error.errno is None and kind == "permanent":
        assert os_kind(error, unnumbered="transient") == "transient"


def staged(folder: Path) -> None:
    rows = pa.table({"x": pa.array(os.urandom(600_000)[i : i + 1000] for i in range(0, 600_000, 1000))})
    for _ in write_stage(folder, rows.to_reader(), step="s", fingerprint="f"):
        pass


def test_a_stage_on_a_full_disk_is_transient_and_says_so(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", kilobytes=200) as disk:
        error = failure_of(lambda: staged(disk / "stage"))
    assert (type(error), error.kind) == (WriteFailed, "transient")
    assert "make room" in error.hint
    assert "stage" in error.message


def test_a_stage_beyond_the_largest_file_is_a_matter_of_configuration(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        error = failure_of(lambda: staged(tmp_path / "stage"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (type(error), error.kind) == (WriteFailed, "configuration")
