"""BigQuery for tests: a real project where TEST_BIGQUERY_PROJECT names one, else the emulator bqemulator in an environment of its own.

Here: the ladder, and a dataset for each test that asks. Not here: what the emulator cannot do by itself (`services.bigquery_emulator`).

Variables: TEST_BIGQUERY_PROJECT, _LOCATION, _CREDENTIALS_PATH, ...: any key of the connection in upper case; without credentials,
Google's application default ones. The account must be allowed to make datasets. BQEMULATOR: the emulator's program, where it is not
`.venv-bigquery/bin/bqemulator`. To make that environment:

    python -m venv .venv-bigquery
    .venv-bigquery/bin/pip install --no-deps --require-hashes -r requirements-bigquery.txt

The emulator's home is a temporary folder; the one extension of DuckDB that it insists on is unpacked there from its wheel.
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

_PREFIX = "TEST_BIGQUERY_"
_ROOT = Path(__file__).resolve().parents[2]
_EXTENSION = "import duckdb_extensions; duckdb_extensions.import_extension('spatial')"


@dataclass(frozen=True)
class BigQuery:
    """A project: `keys` are those of a connection, without the dataset."""

    keys: dict[str, Any] = field(repr=False)
    emulated: bool = True

    def control(self, **asked: Any) -> list[str]:
        """Plant a fault in the emulator; the statements it was sent since the last call."""
        request = urllib.request.Request(f"{self.keys['endpoint']}/control", json.dumps(asked).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            return list(json.loads(reply.read()))


@contextmanager
def _emulator(python: Path) -> Iterator[BigQuery]:
    """A server on free ports of the loopback."""
    rest, grpc = free_port(), free_port()
    program = Path(__file__).with_name("bigquery_emulator.py")
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="bqemulator-") as home:
        environment = {**os.environ, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONPATH", None)
        subprocess.run([python, "-c", _EXTENSION], env=environment, cwd=home, check=True, capture_output=True)
        command = [python, "-W", "ignore", str(program), str(rest), str(grpc)]
        server = subprocess.Popen(command, env=environment, cwd=home, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        project = BigQuery(
            {
                "project": "test-project",
                "endpoint": f"http://127.0.0.1:{rest}",
                "storage_endpoint": f"127.0.0.1:{grpc}",
                "statement_timeout": "2min",
                "lock_timeout": "1min",
                "retry_timeout": "3s",
            }
        )
        try:
            _await(project, server)
            yield project
        finally:
            server.kill()
            server.communicate()
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-20_000:])


def _await(project: BigQuery, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            project.control()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the emulator of BigQuery did not start") from None
            time.sleep(0.1)
        else:
            return


def _python() -> Path | None:
    """The interpreter beside the emulator's program."""
    program = Path(os.environ.get("BQEMULATOR") or _ROOT / ".venv-bigquery" / "bin" / "bqemulator")
    python = program.with_name("python")
    return python if program.exists() and python.exists() else None


@pytest.fixture(scope="session")
def bigquery_project(pytestconfig: pytest.Config) -> Iterator[BigQuery]:
    """The project of this session; a test that needs a place in it asks for `bigquery_keys`."""
    if find_spec("google.cloud") is None or find_spec("google.cloud.bigquery") is None:
        absent(pytestconfig, "bigquery", "the driver is not installed")
    if os.environ.get(f"{_PREFIX}PROJECT"):
        note_rung(pytestconfig, "bigquery", "a real project")
        keys = {name.removeprefix(_PREFIX).lower(): value for name, value in os.environ.items() if name.startswith(_PREFIX)}
        yield BigQuery(keys, emulated=False)
        return
    python = _python()
    if python is None:
        absent(pytestconfig, "bigquery", "set TEST_BIGQUERY_PROJECT or BQEMULATOR, or make .venv-bigquery")
    note_rung(pytestconfig, "bigquery", "emulator (bqemulator)")
    with _emulator(python) as project:
        yield project


_numbers = itertools.count(1)


@pytest.fixture
def bigquery_keys(bigquery_project: BigQuery) -> Iterator[dict[str, Any]]:
    """The keys of a connection to a dataset for this test alone, which does not exist yet.

    In the emulator it has the same name each time: statements that it has seen before take it a fifth of the time.
    """
    name = "dataflow_test" if bigquery_project.emulated else f"dataflow_test_{os.getpid()}_{next(_numbers)}"
    keys = {**bigquery_project.keys, "dataset": name}
    yield keys
    with client_of(keys) as client:
        client.delete_dataset(keys["dataset"], delete_contents=True, not_found_ok=True)


@contextmanager
def client_of(keys: dict[str, Any]) -> Iterator[Any]:
    """Google's client with these keys."""
    from dataflow_assets.connectors._bigquery_login import BigQueryConnection, Login
    from dataflow_assets.protocols import ConnectionContext

    client = Login(BigQueryConnection.model_validate(keys), ConnectionContext("tests", Path())).client()
    try:
        yield client
    finally:
        client.close()


def run(keys: dict[str, Any], *statements: str) -> list[tuple[Any, ...]]:
    """Run statements with the driver itself, in the dataset of the keys, which is made; the rows of the last.

    `{d}` in a statement stands for the dataset.
    """
    rows: list[tuple[Any, ...]] = []
    with client_of(keys) as client:
        client.create_dataset(keys["dataset"], exists_ok=True)
        for statement in statements:
            rows = [tuple(row) for row in client.query(statement.replace("{d}", f"`{keys['dataset']}`")).result()]
    return rows


def make_table(keys: dict[str, Any], name: str, *fields: dict[str, Any]) -> None:
    """Make a table by the API, for the emulator forgets what SQL says of a column's type beyond its family."""
    from google.cloud import bigquery

    with client_of(keys) as client:
        client.create_dataset(keys["dataset"], exists_ok=True)
        schema = [bigquery.SchemaField.from_api_repr(item) for item in fields]
        client.create_table(bigquery.Table(f"{client.project}.{keys['dataset']}.{name}", schema=schema))
