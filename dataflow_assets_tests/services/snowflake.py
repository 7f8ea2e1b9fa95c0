"""Snowflake for tests: a real account where TEST_SNOWFLAKE_ACCOUNT and its siblings name one, else the emulator fakesnow.

Here: the ladder, and a schema (of the account) or a database (of the emulator) for each test that asks. Not here: what the emulator
cannot do by itself (`services.snowflake_emulator`).

Variables: TEST_SNOWFLAKE_ACCOUNT, _USER, _PASSWORD or _PRIVATE_KEY_PATH, _ROLE, _WAREHOUSE, _DATABASE: any key of the connection in
upper case. The role must be allowed to create schemas in the database.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets_tests.services.ladder import absent, free_port, note_rung

_PREFIX = "TEST_SNOWFLAKE_"


@dataclass(frozen=True)
class Snowflake:
    """An account to log into: `keys` are those of a connection, without the schema."""

    keys: dict[str, Any] = field(repr=False)
    emulated: bool = True

    @property
    def url(self) -> str:
        """The emulator's address."""
        return f"http://{self.keys['host']}:{self.keys['port']}"

    def control(self, **asked: Any) -> list[str]:
        """Plant a fault in the emulator or end its transactions; the statements it has run since the last call."""
        request = urllib.request.Request(f"{self.url}/control", json.dumps(asked).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            return list(json.loads(reply.read()))


@contextmanager
def _emulator() -> Iterator[Snowflake]:
    """A server on a free port of the loopback."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "dataflow_assets_tests.services.snowflake_emulator", str(port)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        account = Snowflake(
            {
                "account": "emulator",
                "user": "loader",
                "password": "correct horse battery",
                "host": "127.0.0.1",
                "port": port,
                "protocol": "http",
                "statement_timeout": "2min",
                "login_timeout": "1min",
            }
        )
        try:
            _await(account, server)
            yield account
        finally:
            server.kill()
            server.communicate()
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))


def _await(account: Snowflake, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            account.control()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the emulator of Snowflake did not start") from None
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def snowflake_account(pytestconfig: pytest.Config) -> Iterator[Snowflake]:
    """The account of this session; a test that needs a place in it asks for `snowflake_keys`."""
    if find_spec("snowflake") is None or find_spec("snowflake.connector") is None:
        absent(pytestconfig, "snowflake", "the driver is not installed")
    if os.environ.get(f"{_PREFIX}ACCOUNT"):
        note_rung(pytestconfig, "snowflake", "a real account")
        keys = {name.removeprefix(_PREFIX).lower(): value for name, value in os.environ.items() if name.startswith(_PREFIX)}
        yield Snowflake(keys, emulated=False)
        return
    if find_spec("fakesnow") is None or find_spec("uvicorn") is None:
        absent(pytestconfig, "snowflake", "set TEST_SNOWFLAKE_ACCOUNT, or pip install fakesnow[server]")
    note_rung(pytestconfig, "snowflake", "emulator (fakesnow)")
    with _emulator() as account:
        yield account


_numbers = itertools.count(1)


@pytest.fixture
def snowflake_keys(snowflake_account: Snowflake) -> Iterator[dict[str, Any]]:
    """The keys of a connection to an empty place for this test alone."""
    name = f"DATAFLOW_TEST_{os.getpid()}_{next(_numbers)}"
    if snowflake_account.emulated:
        yield {**snowflake_account.keys, "database": name, "schema": "PUBLIC"}
        snowflake_account.control(forget=name)
        return
    keys = {**snowflake_account.keys, "schema": name}
    run(snowflake_account.keys, f"CREATE SCHEMA {name}")
    try:
        yield keys
    finally:
        run(snowflake_account.keys, f"DROP SCHEMA IF EXISTS {name}")


def run(keys: dict[str, Any], *statements: str) -> list[tuple[Any, ...]]:
    """Run statements with the driver itself, each committed; the rows of the last."""
    import snowflake.connector

    from dataflow_assets.connectors._snowflake_login import SnowflakeConnection, login
    from dataflow_assets.protocols import ConnectionContext

    given = login(SnowflakeConnection.model_validate(keys), ConnectionContext("tests", Path()))
    rows: list[tuple[Any, ...]] = []
    with snowflake.connector.connect(**{**given, "autocommit": True}) as connection:
        for statement in statements:
            with connection.cursor() as cursor:
                rows = list(cursor.execute(statement).fetchall())
    return rows
