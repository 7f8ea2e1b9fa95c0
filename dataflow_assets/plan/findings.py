"""What is wrong with one pipeline, collected while planning goes on.

Here: a list of problems that knows the places of the pipeline and of the project file. Not here: any rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dataflow_assets.errors import Problem
from dataflow_assets.spec.project import Path_, Places, Project


@dataclass
class Findings:
    """The problems of one pipeline document. `project` are the places of the project file, for connections written there."""

    places: Places
    project: Places
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: Path_, message: str, *, hint: str = "") -> None:
        """A problem at a path of the pipeline document."""
        self._keep(self.places.problem(path, message, hint=hint))

    def add_at_connection(self, name: str, path: Path_, message: str, *, hint: str = "") -> None:
        """A problem inside the block of connection `name`, wherever that block is written."""
        for places, section in ((self.places, "connections"), (self.project, "sources"), (self.project, "connections")):
            if (section, name) in places.known:
                return self._keep(places.problem((section, name, *path), message, hint=hint))
        return self._keep(self.project.problem(("connections", name, *path), message, hint=hint))

    def _keep(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def step_path(index: int, *rest: str | int) -> Path_:
    """The path of something in step number `index`."""
    return ("steps", index, *rest)


def merged_connections(project: Project, own: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The project's connections with those of one pipeline laid over them."""
    return {**project.model.connections, **own}
