"""Postgres as hosts such as Heroku give it: TLS, an address in the environment, credentials that change, few connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError

from dataflow_assets.connectors import _postgres_tls
from dataflow_assets.connectors.postgres import Connector, PostgresConnection, PostgresSource
from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest
from dataflow_assets_tests.execution.workshop import Workshop, failures
from dataflow_assets_tests.services.ladder import free_port
from dataflow_assets_tests.services.postgres_tls import PASSWORD, ROLE, TlsServer

ENCRYPTED = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def connector_of(folder: Path = Path(), **keys: Any) -> Connector:
    """A connector with these keys."""
    return Connector(PostgresConnection.model_validate(keys), ConnectionContext("app", folder))


def encrypted(connector: Connector) -> list[Any]:
    """What the server says of both kinds of connections: of the one that moves rows, and of the one for statements."""
    try:
        with connector.read(ReadRequest(PostgresSource(query=ENCRYPTED))) as reader:
            (bulk,) = reader.read_all().to_pylist()
        with connector._sessions.sql() as session:
            ((ssl, _),) = session.execute(ENCRYPTED.encode()).fetchall()
        return [bulk["ssl"], bulk["version"], ssl]
    finally:
        connector.close()


# -- TLS


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
@pytest.mark.parametrize("keys", [{}, {"sslmode": "require"}])
def test_rows_and_statements_go_over_tls(postgres_tls: TlsServer, scheme: str, keys: dict[str, str]) -> None:
    assert encrypted(connector_of(dsn=postgres_tls.url(scheme=scheme), **keys)) == [True, "TLSv1.3", True]


def test_the_certificate_is_looked_at_where_it_shall_be(postgres_tls: TlsServer, tmp_path: Path) -> None:
    (tmp_path / "trusted.crt").write_bytes(postgres_tls.certificate.read_bytes())
    for mode in ("verify-ca", "verify-full"):
        assert encrypted(connector_of(tmp_path, dsn=postgres_tls.url(), sslmode=mode, sslrootcert="trusted.crt"))[0] is True
    parts = conninfo_to_dict(postgres_tls.url())
    keys = {"host": parts["host"], "port": parts["port"], "database": "app", "user": ROLE, "password": PASSWORD}
    assert encrypted(connector_of(tmp_path, **keys, sslmode="verify-full", sslrootcert="trusted.crt"))[0] is True
    with pytest.raises(ConnectionFailed, match="certificate") as caught:
        connector_of(tmp_path, dsn=postgres_tls.url(), sslmode="verify-full", sslrootcert="system").probe()
    assert "sslrootcert" in caught.value.hint


def test_a_server_without_tls_is_refused(postgres_dsn: str) -> None:
    """No row and no password goes over an open line when TLS was asked for."""
    url = postgres_dsn.replace("postgres@", f"postgres:{PASSWORD.replace('/', '%2F').replace('@', '%40').replace(' ', '%20')}@")
    for mode in ("require", "verify-ca", "verify-full"):
        connector = connector_of(dsn=url, sslmode=mode)
        for attempt in (connector.probe, lambda: encrypted(connector)):  # noqa: B023 - called at once
            with pytest.raises(ConnectionFailed, match=r"connection 'app'.*server does not support SSL") as caught:
                attempt()
            assert f"the server does not speak TLS, and sslmode {mode} insists on it" in caught.value.hint
            assert not caught.value.transient
            assert PASSWORD not in f"{caught.value} {caught.value!r} {caught.value.__cause__} {connector!r}"
    content = connector_of(dsn=url, sslmode="prefer")
    assert content.probe().startswith("PostgreSQL")
    content.close()


def test_a_server_that_insists_on_tls_says_so(postgres_tls: TlsServer) -> None:
    with pytest.raises(ConnectionFailed, match="no encryption") as caught:
        connector_of(dsn=postgres_tls.url(), sslmode="disable").probe()
    assert "say sslmode: require in place of disable" in caught.value.hint


def test_whether_a_server_speaks_tls(postgres_tls: TlsServer, postgres_dsn: str) -> None:
    for dsn, speaks in ((postgres_tls.admin, True), (postgres_dsn, False)):
        parts = conninfo_to_dict(dsn)
        assert _postgres_tls.speaks_tls(str(parts["host"]), str(parts["port"])) is speaks
    assert _postgres_tls.speaks_tls("127.0.0.1", str(free_port())) is None
    for host in ("/var/run/postgresql", "a.example.com,b.example.com"):
        assert _postgres_tls.speaks_tls(host, "5432") is None
    gone = {"host": "127.0.0.1", "port": free_port(), "sslmode": "require"}
    assert _postgres_tls.verdict(gone) is None


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        ({"dsn": "postgres://h/d?sslmode=disable", "sslmode": "require"}, "dsn says sslmode=disable, and the key sslmode says require"),
        ({"dsn": "postgres://h/d?sslrootcert=a.crt", "sslrootcert": "b.crt"}, "dsn says sslrootcert=a.crt"),
        ({"host": "h", "sslmode": "required"}, "verify-full"),
    ],
)
def test_keys_that_contradict_each_other(given: dict[str, str], culprit: str) -> None:
    with pytest.raises(ValidationError, match=culprit):
        PostgresConnection.model_validate(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"dsn": "postgres://h/d", "sslmode": "require"}, {"sslmode": "require"}),
        ({"dsn": "postgres://h/d?sslmode=verify-full"}, {"sslmode": "verify-full"}),
        ({"dsn": "postgres://h/d?sslmode=require", "sslmode": "require"}, {"sslmode": "require"}),
        (
            {"host": "h", "sslmode": "verify-ca", "sslrootcert": "keys/ca.crt"},
            {"sslmode": "verify-ca", "sslrootcert": "/project/keys/ca.crt"},
        ),
        ({"host": "h", "sslmode": "verify-full", "sslrootcert": "system"}, {"sslrootcert": "system"}),
    ],
)
def test_keys_of_tls(given: dict[str, str], expected: dict[str, str]) -> None:
    found = conninfo_to_dict(connector_of(Path("/project"), **given)._conninfo())
    assert expected.items() <= found.items()


# -- the address in the environment

PROJECT = """\
project_name: hosted
connections:
  app: {type: postgres, dsn: "${DATABASE_URL}", sslmode: require}
"""
PIPELINE = """\
pipeline_name: p
event_time_column: at
windows: {every: day, begin: 2024-01-01}
steps:
  - {id: read, type: source, connection: app, config: {table: events}}
  - {id: write, type: endpoint, connection: app, depends_on: [read], config: {table: events_copy}}
"""


@pytest.fixture
def workshop(postgres_tls: TlsServer, tmp_path: Path) -> Iterator[Workshop]:
    """A project whose connection is the environment's, and a table to read."""
    workshop = Workshop(tmp_path)
    workshop.write("dataflow_project.yml", PROJECT)
    workshop.pipeline(PIPELINE)
    with psycopg.connect(postgres_tls.url(), sslmode="require", autocommit=True) as owner:
        moments = "timestamptz '2024-01-01 12:00Z' + n * interval '1 day'"
        owner.execute(f"CREATE TABLE events AS SELECT n AS id, {moments} AS at FROM generate_series(0, 2) n".encode())
        yield workshop
        owner.execute("DROP TABLE IF EXISTS events, events_copy, _dataflow_ledger")


def test_credentials_that_change_between_runs(postgres_tls: TlsServer, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment holds when a run begins is used, and kept nowhere."""
    monkeypatch.setenv("DATABASE_URL", postgres_tls.url())
    assert not failures(workshop.run())
    with password_of(postgres_tls, "rotated-credentials"):
        with pytest.raises(ConnectionFailed, match="connection 'app'") as caught:
            workshop.run()
        assert not caught.value.transient
        assert "password" in caught.value.hint
        monkeypatch.setenv("DATABASE_URL", postgres_tls.url(password="rotated-credentials"))
        workshop.now += timedelta(days=1)
        assert not failures(workshop.run())
        assert len(workshop.ledger()["write"]) == 4
        kept = [path for path in workshop.folder.rglob("*") if path.is_file() and b"rotated-credentials" in path.read_bytes()]
        assert kept == []


@contextmanager
def password_of(server: TlsServer, password: str) -> Iterator[None]:
    """A role's password, as its host rotates it: sessions that were open are ended."""
    with psycopg.connect(server.admin, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {ROLE} PASSWORD '{password}'".encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dataflow'")
        try:
            yield
        finally:
            admin.execute(f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'".encode())


def test_a_run_takes_few_connections(postgres_tls: TlsServer, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source and target of one connection, beside the one that the fixture holds."""
    monkeypatch.setenv("DATABASE_URL", postgres_tls.url())
    with limit_of(postgres_tls, 1), pytest.raises(ConnectionFailed, match="too many connections") as caught:
        workshop.run()
    assert caught.value.transient
    assert "run less at a time" in caught.value.hint
    todo = workshop.status()
    with limit_of(postgres_tls, 4):  # the one that asked for the status may live a moment longer on the server
        assert not failures(workshop.run(todo=todo))
    assert len(workshop.ledger()["write"]) == 3


@contextmanager
def limit_of(server: TlsServer, connections: int) -> Iterator[None]:
    """How many connections a role may have at a time."""
    with psycopg.connect(server.admin, autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT {connections}".encode())
        try:
            yield
        finally:
            admin.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1".encode())
