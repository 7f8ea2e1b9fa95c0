"""The Dagster instance of a project: where runs made from a terminal are kept, and where `dataflow dev` looks for them.

Here: finding, writing and opening it. Not here: what runs in it (`assets.execute`), its storage (`assets.history`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.assets.instance_settings import BACKEND, BROKER, SQLITE, STORAGE, URL, storage_of
from dataflow_assets.errors import ConnectionFailed, DataflowError
from dataflow_assets.plan.model import PoolPlan
from dataflow_assets.plan.pools import UNSAID
from dataflow_assets.spec.project import Project

if TYPE_CHECKING:
    import dagster as dg

HOME = "DAGSTER_HOME"
FOLDER = Path(".dataflow") / "dagster"
_NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}

SETTINGS = f"""\
# Written by dataflow; yours to change. Every setting: https://docs.dagster.io/deployment/oss/dagster-yaml
{SQLITE}\
telemetry: {{enabled: false}}
nux: {{enabled: false}}
concurrency:
  pools: {{default_limit: 1, granularity: run}}
  runs:
    tag_concurrency_limits:
      - {{key: dataflow/pipeline, limit: 1, value: {{applyLimitPerUniqueValue: true}}}}
run_monitoring: {{enabled: true, free_slots_after_run_end_seconds: 60}}
# a tick whose target is away is tried again every minute, at most for a day
scheduler: {{module: dagster._core.scheduler, class: DagsterDaemonScheduler, config: {{max_tick_retries: 1440}}}}
retention:
  schedule: {{purge_after_days: 30}}
  sensor: {{purge_after_days: {{skipped: 7, failure: 30, success: -1}}}}
"""


def dagster_home(project: Project) -> Path:
    """The folder of the instance: `DAGSTER_HOME`, else `.dataflow/dagster` of the project, made with settings when new."""
    home = home_of(project)
    home.mkdir(parents=True, exist_ok=True)
    if not os.environ.get(HOME):
        settle(home)
    return home


def home_of(project: Project) -> Path:
    """Where that folder is, or will be."""
    named = os.environ.get(HOME)
    return Path(named).expanduser().resolve() if named else (project.root / FOLDER).resolve()


def settle(home: Path) -> None:
    """Write the settings of an instance that has none."""
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(SETTINGS, encoding="utf-8")


def open_instance(project: Project) -> dg.DagsterInstance:
    """The project's instance, for runs in this process: output goes to the terminal, not to Dagster's capture.

    SQLite history is opened pooled (`assets.history`), also where the settings name Dagster's own; any other storage is kept.
    Raises ConnectionFailed when its database cannot be reached, DataflowError when its settings are wrong.
    """
    import dagster as dg
    from dagster._core.instance.ref import InstanceRef

    home = dagster_home(project)
    share_environment(project)
    overrides: dict[str, Any] = {"compute_logs": _NO_CAPTURE, "telemetry": {"enabled": False}}
    if storage_of(home) == "sqlite":
        overrides["storage"] = {"custom": {**STORAGE, "config": {"base_dir": str(home)}}}
    with _explained(home), _one_at_a_time(home):
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))


def share_environment(project: Project) -> None:
    """Let `.env` of the project say where its instance is: Dagster reads the settings' variables from the process."""
    for name in (URL, BROKER, BACKEND):
        if name in project.environment:
            os.environ.setdefault(name, project.environment[name])


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Two processes that make the tables of a new SQLite history together would both note its version, and it could not be opened again."""
    import fcntl

    if storage_of(home) != "sqlite":  # a folder that holds settings alone may be closed to writing
        yield
        return
    with (home / ".opening").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(home: Path) -> Iterator[None]:
    """What can go wrong when an instance is opened, in our words: a missing variable, a database that does not answer."""
    import sqlalchemy as sa
    from dagster import DagsterInvalidConfigError

    try:
        yield
    except DagsterInvalidConfigError as error:
        unset = re.search(r'environment variable "(\w+)" which is not set', str(error))
        if unset is None:
            raise DataflowError(f"{home / 'dagster.yaml'}: {error}", hint="mend it, or move it away to get a new one") from None
        hint = "set it in the environment of every process, or in .env of the project"
        raise DataflowError(f"{home / 'dagster.yaml'} takes an address from {unset[1]}, which is not set", hint=hint) from None
    except ModuleNotFoundError as error:
        if error.name not in {"dagster_postgres", "dagster_celery", "celery", "psycopg2"}:
            raise
        extra = "postgres" if error.name in {"dagster_postgres", "psycopg2"} else "celery"
        raise DataflowError(
            f"{home / 'dagster.yaml'} needs the package {error.name}", hint=f'pip install "dataflow-assets[{extra}]"'
        ) from error
    except Exception as error:
        cause = error.__cause__ or error
        if not isinstance(cause, sa.exc.DBAPIError):
            raise
        raise ConnectionFailed(
            f"the database of the Dagster instance in {home} cannot be used: {str(cause.orig).strip()}",
            hint="look whether the server is up, and whether the address and the password are right",
            transient=isinstance(cause, sa.exc.OperationalError),
        ) from None


def provision_pools(instance: dg.DagsterInstance, pools: Iterable[PoolPlan]) -> list[str]:
    """Give each pool the limit that the project says, and one to each that has none yet; returns those that changed.

    A default limit alone lets the first two runs overlap. Only where whole runs wait for pools (`granularity: run`): with slots held by
    ops, a killed process would block the next run.
    """
    from dagster._core.instance.config import PoolGranularity

    storage = instance.event_log_storage
    granularity = instance.get_concurrency_config().pool_config.pool_granularity
    if granularity is not PoolGranularity.RUN or not storage.supports_global_concurrency_limits:
        return []
    known = {pool.name: pool.limit for pool in storage.get_pool_limits() if not pool.from_default}
    wanted = {pool.name: pool.limit or known.get(pool.name, UNSAID) for pool in pools}
    changed = sorted(name for name, limit in wanted.items() if known.get(name) != limit)
    for name in changed:
        storage.set_concurrency_slots(name, wanted[name])
    return changed
