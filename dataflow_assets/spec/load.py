"""From a folder to a Project: find the project file, read it and its pipelines, collect everything that is wrong in one pass.

Here: files, `.env`, names that must be unique. Not here: YAML itself (`spec.yaml`), contracts (`spec.contract_files`), wording
(`spec.problems`), templates, which stay unrendered (`spec.templates`), and what only a plan can know (`plan`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow_assets.errors import Place, Problem, SpecError
from dataflow_assets.secrets import looks_secret, register_secret, register_written
from dataflow_assets.spec import yaml
from dataflow_assets.spec.acknowledgements import FILE as ACKNOWLEDGED
from dataflow_assets.spec.acknowledgements import read_acknowledgements
from dataflow_assets.spec.alerts import register_alerts
from dataflow_assets.spec.models import PipelineModel, ProjectModel
from dataflow_assets.spec.problems import missing_plugins, validated
from dataflow_assets.spec.project import LoadedPipeline, LoadFailure, Places, Project

if TYPE_CHECKING:
    from dataflow_assets.spec.contracts import LoadedContract

PROJECT_FILES = ("dataflow_project.yml", "dataflow_project.yaml", "dft_project.yml", "dft_project.yaml")


def find_project_file(start: Path) -> Path:
    """The project file at `start`, in it, or in the nearest folder above it. Raises SpecError when there is none."""
    start = Path(start).expanduser().absolute()
    if start.is_file():
        return start
    if not start.exists():
        raise SpecError([Problem(Place(str(start)), "does not exist", "give the project's folder or its dataflow_project.yml")])
    for folder in (start, *start.parents):
        for name in PROJECT_FILES:
            if (folder / name).is_file():
                return folder / name
    hint = "go to the project's folder, name it with --project, or make one: dataflow init my_project"
    raise SpecError([Problem(Place(str(start)), f"no project here: neither this folder nor one above it holds {PROJECT_FILES[0]}", hint)])


def load(
    path: Path, *, overrides: Mapping[str, Any] | None = None, choose: Callable[[Sequence[Path]], Sequence[Path]] | None = None
) -> Project:
    """Load the project at `path` (its file, its folder, or a folder below); `choose` picks the pipeline files to read, default: all.

    Raises SpecError when the project file itself is wrong; a wrong pipeline file becomes a LoadFailure and the others load.
    """
    file = find_project_file(Path(path))
    model, places = _read_project_file(file)
    folder = file.parent / model.pipelines_dir
    if not folder.is_dir():
        hint = "create the folder, or say where the pipelines are with `pipelines_dir:`"
        raise SpecError([places.problem(("pipelines_dir",), f"the pipelines folder {folder} does not exist", hint=hint)])
    contracts_dir = file.parent / model.contracts_dir
    if folder.resolve().is_relative_to(contracts_dir.resolve()):
        hint = "give contracts a folder of their own, or one inside that of the pipelines"
        message = f"the pipelines folder {model.pipelines_dir!r} lies in that of the contracts, {model.contracts_dir!r}"
        raise SpecError([places.problem(("contracts_dir",), message, hint=hint)])
    files = _pipeline_files(folder, project_file=file, contracts=contracts_dir)
    pipelines, failures = _read_pipelines(choose(files) if choose else files)
    contracts, broken = _read_contracts(contracts_dir)
    return Project(
        root=file.parent,
        model=model,
        places=places,
        pipelines=tuple(pipelines),
        failures=(*failures, *broken),
        contracts=contracts,
        overrides=dict(overrides or {}),
        environment=environment_of(file.parent),
        acknowledged=read_acknowledgements(file.parent),
    )


def environment_of(root: Path) -> dict[str, str]:
    """The process environment above the `.env` file in `root`; `os.environ` stays as it is."""
    file = root / ".env"
    own: dict[str, str] = {}
    if file.is_file():
        from dotenv import dotenv_values

        try:
            own = {key: value for key, value in dotenv_values(file, encoding="utf-8-sig").items() if value is not None}
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError([Problem(Place(str(file)), f"cannot be read: {error}", "save it as UTF-8 lines of NAME=value")]) from error
    for key, value in own.items():
        if looks_secret(key):
            register_secret(value)
    return {**own, **os.environ}


def _read_project_file(file: Path) -> tuple[ProjectModel, Places]:
    parsed = yaml.read(file)
    problems = list(parsed.problems)
    if len(parsed.documents) > 1:
        places = parsed.documents[1].places
        problems.append(places.problem((), "a project file holds one document", hint="remove the line --- and what follows it"))
    document = parsed.documents[0] if parsed.documents else yaml.Document({}, Places(str(file)))
    _register_connections(document.data)
    model = validated(ProjectModel, document.data, document.places, problems)
    if model is None or problems:
        raise SpecError(problems)
    return model, document.places


def _read_contracts(folder: Path) -> tuple[tuple[LoadedContract, ...], tuple[LoadFailure, ...]]:
    """The contracts of a project, and the files that hold broken ones; a project without the folder does not import their model."""
    if not folder.is_dir():
        return (), ()
    from dataflow_assets.spec.contract_files import contract_files, read_contracts

    found = read_contracts(contract_files(folder))
    return found.loaded, found.failures


def _pipeline_files(folder: Path, *, project_file: Path, contracts: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix in {".yml", ".yaml"} and path.is_file())
    visible = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    others = {project_file, project_file.parent / ACKNOWLEDGED}
    pipelines = (path for path in visible if path.name not in PROJECT_FILES and path not in others)
    return sorted(path for path in pipelines if folder == contracts or not path.is_relative_to(contracts))


def _read_pipelines(files: Sequence[Path]) -> tuple[list[LoadedPipeline], list[LoadFailure]]:
    pipelines: list[LoadedPipeline] = []
    failures: list[LoadFailure] = []
    for file in files:
        try:
            pipelines += read_pipeline_file(file)
        except SpecError as error:
            failures.append(LoadFailure(str(file), tuple(error.problems)))
    return _without_duplicates(pipelines, failures)


def read_pipeline_file(file: Path) -> list[LoadedPipeline]:
    """The pipelines of one file. Raises SpecError with everything that is wrong in it."""
    parsed = yaml.read(file)
    problems = list(parsed.problems)
    loaded: list[LoadedPipeline] = []
    for document in parsed.documents:
        _register_connections(document.data)
        model = validated(PipelineModel, document.data, document.places, problems)
        if model is None:
            continue
        problems += missing_plugins(model, document.places)
        if not model.pipeline_name:
            if len(parsed.documents) > 1:
                problems.append(document.places.problem((), "a pipeline in a file of several needs a name", hint="add `pipeline_name:`"))
            model = model.model_copy(update={"pipeline_name": file.stem})
        loaded.append(LoadedPipeline(model, document.places))
    if problems:
        raise SpecError(problems)
    return loaded


def _register_connections(data: Any) -> None:
    """Secrets that stand in the file itself are masked before anything is said of the file."""
    sections = (data.get(name) for name in ("connections", "sources")) if isinstance(data, Mapping) else ()
    for section in sections:
        if isinstance(section, Mapping):
            register_written(section)
    if isinstance(data, Mapping) and isinstance(alerts := data.get("alerts"), Mapping):
        register_alerts(alerts)


def _without_duplicates(pipelines: list[LoadedPipeline], failures: list[LoadFailure]) -> tuple[list[LoadedPipeline], list[LoadFailure]]:
    """Of pipelines with one name none is loaded: which of them is meant cannot be known."""
    by_name: dict[str, list[LoadedPipeline]] = {}
    for pipeline in pipelines:
        by_name.setdefault(pipeline.name, []).append(pipeline)
    failed = {failure.file: failure for failure in failures}
    for name, group in by_name.items():
        for pipeline in group if len(group) > 1 else []:
            others = ", ".join(str(_name_place(other)) for other in group if other is not pipeline)
            problem = pipeline.places.problem(
                _name_path(pipeline), f"the pipeline name {name!r} is also used at {others}", hint="rename one of them"
            )
            before = failed.get(pipeline.places.file, LoadFailure(pipeline.places.file, ()))
            failed[pipeline.places.file] = replace(before, problems=(*before.problems, problem))
    kept = [pipeline for pipeline in pipelines if len(by_name[pipeline.name]) == 1]
    return kept, [failed[file] for file in sorted(failed)]


def _name_path(pipeline: LoadedPipeline) -> tuple[str, ...]:
    return next(((key,) for key in ("pipeline_name", "name", "pipeline") if (key,) in pipeline.places.known), ())


def _name_place(pipeline: LoadedPipeline) -> Place:
    return pipeline.places.at(_name_path(pipeline))
