"""A loaded project: the models with the places they were written at.

Here: the result of loading, as data. Not here: how it is read (`spec.load`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.errors import Place, Problem
from dataflow_assets.spec.models import PipelineModel, ProjectModel

if TYPE_CHECKING:
    from dataflow_assets.spec.acknowledgements import Acknowledgement
    from dataflow_assets.spec.contracts import LoadedContract

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Places:
    """Where each key and value of a document stands, by its path, e.g. ("steps", 0, "config", "query")."""

    file: str
    known: Mapping[Path_, Place] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    keys: Mapping[Path_, Place] = field(default_factory=dict)

    def at(self, path: Path_) -> Place:
        """The place of `path`, or of its nearest known ancestor."""
        for length in range(len(path), -1, -1):
            if place := self.known.get(tuple(path[:length])):
                return place
        return Place(self.file)

    def key_at(self, path: Path_) -> Place:
        """The place of the key that ends `path`, or of the nearest known value above it."""
        return self.keys.get(tuple(path)) or self.at(path)

    def problem(self, path: Path_, message: str, *, hint: str = "", at_key: bool = False) -> Problem:
        """A problem at the value (or the key) of `path` with its source line."""
        return self.problem_at(self.key_at(path) if at_key else self.at(path), message, hint=hint)

    def problem_at(self, place: Place, message: str, *, hint: str = "") -> Problem:
        """A problem at `place` with its source line, in which characters that a terminal would act on are blanked."""
        line = self.lines[place.line - 1] if 0 < place.line <= len(self.lines) else ""
        return Problem(place, message, hint, "".join(char if char.isprintable() else " " for char in line))


@dataclass(frozen=True)
class LoadedPipeline:
    """One pipeline document with its places. A pipeline built in Python has the place of the call."""

    model: PipelineModel
    places: Places

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.model.pipeline_name


@dataclass(frozen=True)
class LoadFailure:
    """A pipeline or contract file that could not be loaded; the others go on."""

    file: str
    problems: tuple[Problem, ...]
    name: str = ""
    """What it is called where pipelines are listed; default: the file's stem."""
    datasets: tuple[str, ...] = ()
    """Of a contract: the datasets that it seems to be about, which must not be published past it."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", Path(self.file).stem)


@dataclass(frozen=True)
class Project:
    """A folder with a project file. `variables` on the command line stand in `overrides`."""

    root: Path
    model: ProjectModel
    places: Places
    pipelines: tuple[LoadedPipeline, ...] = ()
    failures: tuple[LoadFailure, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """`.env` below the process environment, as templates see it."""
    acknowledged: tuple[Acknowledgement, ...] = ()
    """What people have said of anomalies, in the order written."""
    contracts: tuple[LoadedContract, ...] = ()
    partial: bool = False
    """Whether only some pipelines are there, those that a run has to do with."""

    @property
    def stages_dir(self) -> Path:
        """Where stages live."""
        return self.root / self.model.stages.dir

    @property
    def contracts_dir(self) -> Path:
        """Where contracts and their accepted versions lie."""
        return self.root / self.model.contracts_dir
