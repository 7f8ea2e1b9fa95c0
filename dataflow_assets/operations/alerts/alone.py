"""One sweep of a project at a time: on this host, and where history is in Postgres, on all hosts.

Here: the two locks; two sweeps at once would write over each other's outboxes. Not here: the sweep (`sweep`).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

_FILE = "dataflow-alerts.lock"


@contextmanager
def alone(instance: dg.DagsterInstance, project: str) -> Iterator[bool]:
    """Whether nobody else is at it; then nobody is until the end of the block. Raises what the instance's storage raises."""
    with ExitStack() as held:
        try:
            held.enter_context(_of_host(instance))
        except Timeout:
            free = False
        else:
            free = held.enter_context(_of_all_hosts(instance, project))
        yield free


def _of_host(instance: dg.DagsterInstance) -> FileLock:
    """Where the instance's folder cannot be written, the lock is in that for temporary files."""
    folder = Path(instance.root_directory)
    if os.access(folder, os.W_OK):
        return FileLock(folder / _FILE, timeout=0)
    own = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"{own}-{_FILE}", timeout=0)


@contextmanager
def _of_all_hosts(instance: dg.DagsterInstance, project: str) -> Iterator[bool]:
    """An advisory lock of a session, which ends with its process. SQLite is for one host."""
    import sqlalchemy as sa
    from dagster._core.storage.runs import SqlRunStorage

    storage = instance.run_storage
    if not isinstance(storage, SqlRunStorage) or not type(storage).__module__.startswith("dagster_postgres."):
        yield True
        return
    name = {"name": int.from_bytes(hashlib.sha256(f"dataflow/alerts/{project}".encode()).digest()[:8], "big", signed=True)}
    with storage.connect() as session:
        free = bool(session.execute(sa.text("SELECT pg_try_advisory_lock(:name)"), name).scalar())
        try:
            yield free
        finally:
            if free:
                session.execute(sa.text("SELECT pg_advisory_unlock(:name)"), name)
