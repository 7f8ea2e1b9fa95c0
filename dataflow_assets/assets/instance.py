"""The Dagster instance of a project: where runs made from a terminal are kept, and where `dataflow dev` looks for them.

Here: finding, writing and opening it. Not here: what runs in it (`assets.execute`), its storage (`assets.history`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.spec.project import Project

if TYPE_CHECKING:
    import dagster as dg

HOME = "DAGSTER_HOME"
FOLDER = Path(".dataflow") / "dagster"
STORAGE = {"module": "dataflow_assets.assets.history", "class": "PooledSqliteStorage"}
_STORAGE_KEYS = {"storage", "run_storage", "event_log_storage", "schedule_storage", "instance_class"}
_NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}

SETTINGS = """\
# Written by dataflow; yours to change. Every setting: https://docs.dagster.io/deployment/oss/dagster-yaml
storage:
  custom:
    module: dataflow_assets.assets.history
    class: PooledSqliteStorage
    config: {base_dir: {env: DAGSTER_HOME}}
telemetry: {enabled: false}
nux: {enabled: false}
concurrency:
  pools: {default_limit: 1, granularity: run}
  runs:
    tag_concurrency_limits:
      - {key: dataflow/pipeline, limit: 1, value: {applyLimitPerUniqueValue: true}}
run_monitoring: {enabled: true, free_slots_after_run_end_seconds: 60}
retention:
  schedule: {purge_after_days: 30}
  sensor: {purge_after_days: {skipped: 7, failure: 30, success: -1}}
"""


def dagster_home(project: Project) -> Path:
    """The folder of the instance: `DAGSTER_HOME`, else `.dataflow/dagster` of the project, made with settings when new."""
    named = os.environ.get(HOME)
    home = Path(named).expanduser().resolve() if named else (project.root / FOLDER).resolve()
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not named and not settings.exists():
        settings.write_text(SETTINGS, encoding="utf-8")
    return home


def open_instance(project: Project) -> dg.DagsterInstance:
    """The project's instance, for runs in this process: output goes to the terminal, not to Dagster's capture.

    SQLite history is opened pooled (`assets.history`), also where the settings name Dagster's own; any other storage is kept.
    """
    import dagster as dg
    from dagster._core.instance.ref import InstanceRef

    home = dagster_home(project)
    overrides: dict[str, Any] = {"compute_logs": _NO_CAPTURE, "telemetry": {"enabled": False}}
    if _uses_sqlite_in(home):
        overrides["storage"] = {"custom": {**STORAGE, "config": {"base_dir": str(home)}}}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))


def _uses_sqlite_in(home: Path) -> bool:
    settings = home / "dagster.yaml"
    if not settings.exists():
        return True
    import yaml

    written = yaml.safe_load(settings.read_text(encoding="utf-8")) or {}
    named = _STORAGE_KEYS & written.keys()
    return not named or (named == {"storage"} and (written["storage"] or {}).get("custom", {}).get("module") == STORAGE["module"])


def provision_pools(instance: dg.DagsterInstance, pools: Iterable[str], *, limit: int = 1) -> list[str]:
    """Give each pool that has no limit yet this limit; returns those. A default limit alone lets the first two runs overlap.

    Only where whole runs wait for pools (`granularity: run`): with slots held by ops, a killed process would block the next run.
    """
    from dagster._core.instance.config import PoolGranularity

    storage = instance.event_log_storage
    granularity = instance.get_concurrency_config().pool_config.pool_granularity
    if granularity is not PoolGranularity.RUN or not storage.supports_global_concurrency_limits:
        return []
    missing = sorted(set(pools) - {pool.name for pool in storage.get_pool_limits() if not pool.from_default})
    for pool in missing:
        storage.set_concurrency_slots(pool, limit)
    return missing
