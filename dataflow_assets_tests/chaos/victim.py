"""What is killed: a process that runs one pipeline of a project, as a worker would.

Here: the run itself, importable by a fork server so that a victim starts in milliseconds, and a deliberately naive writer that
the same tests must catch. Not here: who kills it and what is expected afterwards.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet  # noqa: F401 -- preloaded for the fork server

from dataflow_assets.errors import Fenced
from dataflow_assets.execution.events import WindowFailed
from dataflow_assets.execution.held import held_units, open_session
from dataflow_assets.execution.replaying import replay_rows
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.failpoints import VARIABLE, failpoint
from dataflow_assets.operations.retention import remove_old
from dataflow_assets.plan.build import build_plan
from dataflow_assets.spec.load import load
from dataflow_assets.tables import Published, PublishRequest, WriteMode

NOW = datetime(2024, 1, 10, tzinfo=UTC)
OK, FAILED, FENCED = 0, 1, 3


def work(
    project_folder: str,
    *,
    failpoints: str = "",
    naive: str = "",
    attempt: str | None = None,
    batch: str = "",
    again: bool = False,
    steps: Sequence[str] = (),
) -> None:
    """Run what is due of the only pipeline; exits 0, 1 when a window failed, 3 when it was fenced off.

    `naive` is the DSN of the target when the naive writer is to be used; `again` runs published windows too; `steps`: only these.
    """
    os.environ[VARIABLE] = failpoints
    if naive:
        _use_naive_writer(naive)
    project = load(Path(project_folder))
    (pipeline,) = build_plan(project).pipelines
    todo = window_status(project, pipeline, now=NOW)
    windows = tuple(item.window for item in todo if item.run or again)
    request = RunRequest(project, pipeline, windows, attempt or uuid.uuid4().hex, NOW, steps=frozenset(steps) or None, batch=batch)
    failures = [event for event in run(request) if isinstance(event, WindowFailed)]
    for failure in failures:
        print(f"{failure.key} {failure.step}: {type(failure.error).__name__}: {failure.error}", flush=True)
    if failures:
        raise SystemExit(FENCED if any(isinstance(failure.error, Fenced) for failure in failures) else FAILED)


def replay(project_folder: str, *, failpoints: str = "") -> None:
    """Take what passes by now out of the quarantine of the only endpoint, row by row."""
    os.environ[VARIABLE] = failpoints
    project = load(Path(project_folder))
    (pipeline,) = build_plan(project).pipelines
    (step,) = pipeline.endpoints
    session = open_session(project, pipeline, now=NOW)
    for unit in held_units(session, step):
        replay_rows(open_session(project, pipeline, now=NOW, attempt=uuid.uuid4().hex), step, unit)


def retain(project_folder: str, *, failpoints: str = "") -> None:
    """Remove what is older than the project keeps; exits 1 when something stays."""
    os.environ[VARIABLE] = failpoints
    project = load(Path(project_folder))
    done = remove_old(project, build_plan(project).pipelines, now=NOW)
    for old in done:
        if old.error:
            print(f"{old.what} {old.key}: {type(old.error).__name__}: {old.error}", flush=True)
    if any(old.error for old in done):
        raise SystemExit(FAILED)


def _use_naive_writer(dsn: str) -> None:
    """Replace the Postgres publish by what most home-made loaders do: delete, commit, insert, commit; the ledger apart."""
    import psycopg

    from dataflow_assets.connectors.postgres import Connector

    def publish(self: Connector, request: PublishRequest) -> Published:
        window, table = request.claim.unit.window, request.target.table.name
        with psycopg.connect(dsn, autocommit=True) as connection:
            failpoint("publish.begin")
            connection.execute(f"create table if not exists {table} (id bigint, ts timestamptz, amount numeric(12,2), note text)")
            if window is not None and request.target.mode is not WriteMode.APPEND:
                connection.execute(f"delete from {table} where ts >= %s and ts < %s", (window.start, window.end))
            failpoint("publish.after_delete")
            with connection.cursor() as cursor, cursor.copy(f"copy {table} (id, ts, amount, note) from stdin") as copy:
                for batch in request.open_reader():
                    for row in batch.to_pylist():
                        copy.write_row((row["id"], row["ts"], row["amount"], row["note"]))
            failpoint("publish.mid_copy")
            failpoint("publish.before_commit")
        failpoint("publish.after_commit")
        return Published(request.rows, request.claim.generation, target_rows=request.rows)

    Connector.publish = publish  # type: ignore[method-assign]
