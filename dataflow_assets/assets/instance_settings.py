"""`dagster.yaml`: where a Dagster instance keeps its history and how it starts runs, as one switch each.

Here: reading and changing these blocks of the file, everything else in it being the user's. Not here: the instance itself
(`assets.instance`), what is moved from one storage to another (`assets.carrying`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from dataflow_assets.errors import DataflowError

Choice = Literal["sqlite", "postgres", "local", "celery"]

URL = "DATAFLOW_DAGSTER_URL"
BROKER, BACKEND = "DATAFLOW_CELERY_BROKER", "DATAFLOW_CELERY_BACKEND"
STORAGE = {"module": "dataflow_assets.assets.history", "class": "PooledSqliteStorage"}
SQLITE = """\
storage:
  custom:
    module: dataflow_assets.assets.history
    class: PooledSqliteStorage
    config: {base_dir: {env: DAGSTER_HOME}}
"""
POSTGRES = f"""\
storage:
  custom:
    module: dataflow_assets.assets.postgres_storage
    class: PostgresStorage
    config: {{url: {{env: {URL}}}}}
"""
CELERY = f"""\
run_launcher:
  module: dataflow_assets.assets.celery_runs
  class: CeleryRuns
  config: {{broker: {{env: {BROKER}}}}}
"""
_BLOCKS: Mapping[Choice, tuple[str, str]] = {
    "sqlite": ("storage", SQLITE),
    "postgres": ("storage", POSTGRES),
    "local": ("run_launcher", ""),
    "celery": ("run_launcher", CELERY),
}
_STORAGE_KEYS = {"storage", "run_storage", "event_log_storage", "schedule_storage", "instance_class"}
_OURS = "dataflow_assets."
_QUEUE_SECONDS = 3600


def written(home: Path) -> dict[str, Any]:
    """The settings of an instance; none when there is no file. Raises DataflowError when it cannot be read."""
    file = home / "dagster.yaml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None
    except yaml.YAMLError as error:
        raise DataflowError(f"{file} is no YAML: {error}", hint="mend it, or move it away to get a new one") from None
    if not isinstance(found or {}, dict):
        raise DataflowError(f"{file} is no mapping of settings", hint="mend it, or move it away to get a new one")
    return found or {}


def storage_of(home: Path) -> Literal["sqlite", "postgres", "own"]:
    """Where the history is kept: SQLite in the folder, Postgres by our switch, or as the user's own settings say."""
    settings = written(home)
    named = _STORAGE_KEYS & settings.keys()
    if not named:
        return "sqlite"
    block = settings.get("storage") or {}
    module = str((block.get("custom") or {}).get("module", "")) if named == {"storage"} and isinstance(block, dict) else ""
    return "postgres" if module.endswith(".postgres_storage") else "sqlite" if module == STORAGE["module"] else "own"


def launcher_of(home: Path) -> Literal["local", "celery", "own"]:
    """Who starts runs: Dagster's own processes on this host, Celery by our switch, or as the user's own settings say."""
    block = written(home).get("run_launcher")
    if not block:
        return "local"
    return "celery" if str(block.get("module", "")).startswith(_OURS) else "own"


def switch(home: Path, choice: Choice) -> bool:
    """Write one choice into `dagster.yaml`; whether that changed it. Raises DataflowError for a block that the user wrote himself."""
    key, block = _BLOCKS[choice]
    current = storage_of(home) if key == "storage" else launcher_of(home)
    if current == "own":
        raise DataflowError(
            f"{home / 'dagster.yaml'} says `{key}:` in its own words", hint=f"remove that block, or keep it and leave out {choice}"
        )
    if current == choice:
        return False
    file = home / "dagster.yaml"
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    after = with_block(before, key, block)
    if choice == "celery":
        after = _with_patience(after)
    if (yaml.safe_load(after) or {}).get(key) != (yaml.safe_load(block) or {}).get(key):
        raise DataflowError(f"{file}: the block `{key}:` cannot be replaced", hint=f"write it by hand:\n{block}")
    beside = file.with_name("dagster.yaml.new")
    beside.write_text(after, encoding="utf-8")
    beside.replace(file)
    return True


def _with_patience(text: str) -> str:
    """Let a run wait in the broker's queue: Dagster takes one that does not start within three minutes for lost."""
    monitoring = (yaml.safe_load(text) or {}).get("run_monitoring") or {"enabled": True}
    if not isinstance(monitoring, dict) or "start_timeout_seconds" in monitoring:
        return text
    words = ", ".join(f"{name}: {json.dumps(value)}" for name, value in {**monitoring, "start_timeout_seconds": _QUEUE_SECONDS}.items())
    return with_block(text, "run_monitoring", f"run_monitoring: {{{words}}}\n")


def with_block(text: str, key: str, block: str) -> str:
    """The text of a YAML mapping with the block of a top-level key replaced, added or, when `block` is empty, removed."""
    lines = text.splitlines(keepends=True)
    start = next((number for number, line in enumerate(lines) if line.startswith(f"{key}:")), None)
    if start is None:
        return text + ("" if not text or text.endswith("\n") else "\n") + block
    end = start + 1
    for number in range(start + 1, len(lines)):
        if lines[number][:1] in {" ", "\t"} and lines[number].strip():
            end = number + 1
        elif lines[number].strip() and not lines[number].startswith("#"):
            break
    return "".join([*lines[:start], block, *lines[end:]])
