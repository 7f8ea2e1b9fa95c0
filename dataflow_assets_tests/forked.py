"""Processes of a test that start in milliseconds: forked from a server that has imported ahead what they work with.

Here: the server's context, and a child whose exit code and output a test asks for. Not here: what the children do (`chaos.victim`,
`connectors.publisher`, `storage.publish_once`). What a start itself imports is a matter for a fresh interpreter: see `cli`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from dataflow_assets.failpoints import VARIABLE

AHEAD = [
    "dataflow_assets_tests.chaos.victim",
    "dataflow_assets_tests.storage.publish_once",
    "dataflow_assets_tests.connectors.on_objects",
    *(
        f"dataflow_assets_tests.connectors.test_{kind}"
        for kind in ("postgres", "mysql", "clickhouse", "snowflake", "bigquery", "duckdb", "sqlite", "sqlalchemy")
    ),
    # drivers that their connectors import when they connect
    *("adbc_driver_postgresql.dbapi", "clickhouse_connect", "google.cloud.bigquery", "psycopg", "pymysql", "snowflake.connector"),
]
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(AHEAD)


class Child:
    """A forked process that runs `main(*words)` in the environment of now, both its streams one text."""

    def __init__(self, main: Callable[..., None], *words: str, failpoints: str = "") -> None:
        ours, theirs = context.Pipe(duplex=False)
        environment = {**os.environ, VARIABLE: failpoints}
        self.process: BaseProcess = context.Process(target=_run, args=(theirs, environment, main, words))
        self.process.start()
        theirs.close()
        self.stdout = os.fdopen(os.dup(ours.fileno()), encoding="utf-8")
        ours.close()

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative when a signal ended it; None while it runs."""
        return self.process.exitcode

    def communicate(self, *, timeout: float) -> str:
        """Wait for its end; what it has still said, which must fit into a pipe."""
        self.process.join(timeout)
        if self.returncode is None:
            self.process.kill()
            raise TimeoutError(f"the child ran for more than {timeout} s")
        with self.stdout:
            return self.stdout.read()


def _run(pipe: Connection, environment: dict[str, str], main: Callable[..., None], words: tuple[str, ...]) -> None:
    os.dup2(pipe.fileno(), 1)
    os.dup2(pipe.fileno(), 2)
    pipe.close()
    os.environ.clear()
    os.environ.update(environment)
    main(*words)
