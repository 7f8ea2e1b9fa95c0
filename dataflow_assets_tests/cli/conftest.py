"""Projects and ways to call `dataflow`: in this process, and as a real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner

from dataflow_assets.cli.app import app
from dataflow_assets.cli.init import write_project

LINES = [
    "id,at,value",
    "1,2024-01-01T10:00:00Z,10",
    "2,2024-01-01T11:00:00Z,20",
    "3,2024-01-02T10:00:00Z,30",
    "4,2024-01-03T10:00:00Z,40",
]


@dataclass(frozen=True)
class Answer:
    """What a call answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Call in this process."""
    monkeypatch.delenv("DATAFLOW_PROJECT", raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def invoke(*arguments: object) -> Answer:
        result = CliRunner().invoke(app, [str(item) for item in arguments], prog_name="dataflow")
        return Answer(result.exit_code, result.stdout, result.stderr)

    return invoke


def environment(**extra: str) -> dict[str, str]:
    """The environment of a real command: as here, but for what would change the outcome."""
    hidden = {"DATAFLOW_PROJECT", "DAGSTER_HOME", "NO_COLOR", "DATAFLOW_FAILPOINTS", "PYTHONUNBUFFERED"}
    return {**{key: value for key, value in os.environ.items() if key not in hidden}, **extra}


def real(*arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60) -> Answer:
    """Call as a command of its own, with pipes for streams."""
    words = [str(Path(sys.executable).with_name("dataflow")), *map(str, arguments)]
    done = subprocess.run(words, cwd=cwd, env=environment(**(env or {})), capture_output=True, text=True, timeout=timeout, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """What `dataflow init` writes."""
    root = tmp_path / "my_project"
    write_project(root, title="my_project", pipelines_dir=PurePosixPath("pipelines"))
    return root


def windowed(name: str, *, table: str, extra: str = "", steps: str = "") -> str:
    """A pipeline of three daily windows, from data/rows.csv into a DuckDB table."""
    return f"""
pipeline_name: {name}
event_time_column: at
windows: {{every: day, begin: 2024-01-01, end: 2024-01-04}}
{extra}
steps:
  - id: read
    type: source
    source_type: csv
    config: {{file_path: data/rows.csv}}
  - id: check
    type: processor
    processor_type: validator
    depends_on: [read]
    config:
      checks: [{{column: value, min_value: 0}}]
  - id: publish
    type: endpoint
    endpoint_type: duckdb
    connection: db
    depends_on: [check]
    config: {{table: {table}}}
{steps}
"""


def whole(name: str, *, table: str, extra: str = "") -> str:
    """A pipeline without windows that reads a DuckDB table and writes a CSV."""
    return f"""
pipeline_name: {name}
{extra}
steps:
  - id: read
    type: source
    source_type: duckdb
    connection: db
    config: {{query: "select id, value from {table}"}}
  - id: write
    type: endpoint
    endpoint_type: csv
    depends_on: [read]
    config: {{file_path: "out/{name}.csv", mode: replace}}
"""


@dataclass(frozen=True)
class ProjectFolder:
    """A project on disk that a test may write to."""

    root: Path

    def pipeline(self, name: str, text: str) -> None:
        """Write one pipeline file."""
        (self.root / "pipelines" / f"{name}.yml").write_text(text, encoding="utf-8")

    def rows(self, *more: str, lines: list[str] | None = None) -> None:
        """Write data/rows.csv."""
        (self.root / "data" / "rows.csv").write_text("\n".join([*(lines or LINES), *more]) + "\n", encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> ProjectFolder:
    """`first` with daily windows, `second` that reads what it publishes, `third` on its own."""
    folder = ProjectFolder(tmp_path / "shop")
    for name in ("pipelines", "data"):
        (folder.root / name).mkdir(parents=True)
    (folder.root / "dataflow_project.yml").write_text(
        "project_name: shop\nvars: {currency: EUR}\nconnections:\n  db: {type: duckdb, path: shop.duckdb}\n", encoding="utf-8"
    )
    folder.rows()
    folder.pipeline("first", windowed("first", table="facts", extra="tags: [daily, core]"))
    folder.pipeline("second", whole("second", table="facts", extra="tags: [report]"))
    folder.pipeline("third", windowed("third", table="other", extra="tags: [daily]"))
    return folder
