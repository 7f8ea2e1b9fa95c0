"""What is wrong with one pipeline, collected while planning goes on.

Here: a list of problems that knows the places of the pipeline and of the project file. Not here: any rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dataflow_assets.errors import Problem
from dataflow_assets.secrets import MASK
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

    def add_to_project(self, path: Path_, message: str, *, hint: str = "") -> None:
        """A problem at a path of the project file."""
        self._keep(self.project.problem(path, message, hint=hint))

    def add_at_connection(self, name: str, path: Path_, message: str, *, hint: str = "") -> None:
        """A problem inside the block of connection `name`, wherever that block is written. The value is not shown: under a key
        that is misspelt it may be a password."""
        written = ((self.places, "connections"), (self.project, "sources"), (self.project, "connections"))
        places, section = next((pair for pair in written if (pair[1], name) in pair[0].known), (self.project, "connections"))
        problem = places.problem((section, name, *path), message, hint=hint)
        if path not in {(), ("type",)} and problem.place.column > 1:
            problem = replace(problem, source_line=f"{problem.source_line[: problem.place.column - 1]}{MASK}")
        self._keep(problem)

    def _keep(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def step_path(index: int, *rest: str | int) -> Path_:
    """The path of something in step number `index`."""
    return ("steps", index, *rest)


def merged_connections(project: Project, own: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The project's connections with those of one pipeline laid over them."""
    return {**project.model.connections, **own}
