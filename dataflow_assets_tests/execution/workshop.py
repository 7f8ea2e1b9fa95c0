"""A project in a folder, and running it without Dagster.

Here: from YAML text to events. Not here: expectations.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished, WindowFailed
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.status import window_status
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import PipelinePlan, WindowTodo
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry

NOW = datetime(2024, 1, 4, 12, tzinfo=UTC)
_attempts = itertools.count(1)


@dataclass
class Workshop:
    """A project folder; files are given as text or as tables."""

    folder: Path
    now: datetime = NOW
    overrides: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str, content: str | pa.Table) -> None:
        """Put a file into the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            pq.write_table(content, path)

    def pipeline(self, text: str) -> None:
        """Write the only pipeline."""
        if not (self.folder / "dataflow_project.yml").exists():
            self.write("dataflow_project.yml", "project_name: test\n")
        self.write("pipelines/p.yml", text)

    def load(self) -> tuple[Project, PipelinePlan]:
        """The project and its only pipeline."""
        project = load(self.folder, overrides=self.overrides)
        (plan,) = build_plan(project).pipelines
        return project, plan

    def status(self, **asked: Any) -> list[WindowTodo]:
        """What is due."""
        project, plan = self.load()
        return window_status(project, plan, now=self.now, **asked)

    def run(self, *, todo: Sequence[WindowTodo] | None = None, attempt: str | None = None, **keys: Any) -> list[Event]:
        """Run what is due; returns every event."""
        project, plan = self.load()
        todo = window_status(project, plan, now=self.now) if todo is None else todo
        windows = tuple(item.window for item in todo if item.run)
        return list(run(RunRequest(project, plan, windows, attempt or f"attempt-{next(_attempts)}", self.now, **keys)))

    def ledger(self) -> dict[str, list[LedgerEntry]]:
        """What the endpoints' ledgers hold."""
        project, plan = self.load()
        return ledger_entries(project, plan, now=self.now)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a Parquet file or folder in the project, ordered by id."""
        path = self.folder / name
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        return sorted((row for file in files for row in pq.read_table(file).to_pylist()), key=lambda row: row["id"])


def failures(events: Sequence[Event]) -> list[WindowFailed]:
    """The windows that failed."""
    return [event for event in events if isinstance(event, WindowFailed)]


def finished(events: Sequence[Event], step: str) -> list[StepFinished]:
    """The reports of one step."""
    return [event for event in events if isinstance(event, StepFinished) and event.step == step]


def checks(events: Sequence[Event]) -> dict[str, bool]:
    """Check name -> passed, the last word counting."""
    return {event.result.name: event.result.passed for event in events if isinstance(event, CheckEvaluated)}


def days(*, count: int = 3, rows_a_day: int = 4) -> pa.Table:
    """Rows over the first days of 2024, `id` counting up, `value` ten times it."""
    ids = list(range(count * rows_a_day))
    moments = [datetime(2024, 1, 1 + i // rows_a_day, i % rows_a_day * 5, tzinfo=UTC) for i in ids]
    return pa.table({"id": ids, "ts": pa.array(moments, pa.timestamp("us", "UTC")), "value": [i * 10 for i in ids]})
