"""One verdict out of all answers: ready or not.

Here: asking everything once, and the verdict as data. Not here: the questions (`questions`), who asks how often (`service`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import dagster as dg

from dataflow_assets.operations.health import questions
from dataflow_assets.operations.health.questions import Answer, asked
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.spec.project import Project


@dataclass(frozen=True)
class Verdict:
    """What was found at one moment; `plan` and `project` as they were loaded for it, None where they could not be."""

    answers: tuple[Answer, ...]
    at: datetime
    plan: ProjectPlan | None = None
    project: Project | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing failed."""
        return all(answer.state != "failed" for answer in self.answers)

    def data(self) -> dict[str, Any]:
        """The verdict for a reader of JSON."""
        checks = {answer.question: {"state": answer.state, "said": answer.said} for answer in self.answers}
        return {"ready": self.ready, "at": self.at.isoformat(), "checks": checks}


def examine(
    project: Project,
    instance: dg.DagsterInstance,
    *,
    now: datetime,
    require_daemon: bool = False,
    connections: tuple[Answer, ...] | None = (),
) -> Verdict:
    """Ask everything. `connections` are answers of an earlier time, None: reach them now."""
    loaded: list[tuple[ProjectPlan, Project]] = []

    def ask_project() -> Answer:
        answer, plan, now_loaded = questions.project_answer(project)
        loaded.append((plan, now_loaded))
        return answer

    answers = [
        asked("project", ask_project),
        asked("instance", lambda: questions.instance_answer(instance)),
        asked("daemon", lambda: questions.daemon_answer(instance, now=now, required=require_daemon)),
        asked("drive", lambda: questions.drive_answer(project)),
        asked("disk", lambda: questions.disk_answer(project)),
    ]
    verdict = Verdict(tuple(answers), now, *(loaded[0] if loaded else (None, None)))
    return replace(verdict, answers=(*verdict.answers, *(connections if connections is not None else reached(verdict))))


def reached(verdict: Verdict) -> tuple[Answer, ...]:
    """Whether the connections of the loaded project can be reached."""
    if verdict.plan is None or verdict.project is None:
        return ()
    try:
        return tuple(questions.connection_answers(verdict.project, verdict.plan))
    except Exception as error:  # noqa: BLE001 - whatever a part answers is its state
        return (Answer("connections", "failed", type(error).__name__),)
