"""A test brought together with the pipeline it is about, and every refusal that needs no run.

Here: names against the plan, windows, which steps need rows. Not here: what one document can tell by itself (`spec.data_tests`),
running (`testing.bench`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import pyarrow as pa

from dataflow_assets.errors import Problem
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.plan.options import has_template
from dataflow_assets.plan.substitution import needed_steps
from dataflow_assets.spec.data_tests import LoadedTest, Moment, RangeModel
from dataflow_assets.spec.project import Project
from dataflow_assets.storage.type_names import arrow_type
from dataflow_assets.tables import utc_now
from dataflow_assets.windows import Cadence, Window, as_utc

FINER = {
    "year": "month",
    "month": "day",
    "week": "day",
    "day": "hour",
    "hour": "10min",
    "60min": "10min",
    "30min": "10min",
    "20min": "10min",
    "15min": "5min",
    "10min": "5min",
}
"""What `split_window` cuts a window into."""
MOST_WINDOWS = 1_000
"""A test of more is a slip in a date."""
_NOT_OF_READING = frozenset({"file_path", "columns", "event_time_column", "column_types", "compression"})


@dataclass(frozen=True)
class BoundTest:
    """A test that can be run. `project` has the test's variables."""

    test: LoadedTest
    project: Project
    pipeline: PipelinePlan
    step: StepPlan
    windows: tuple[Window | None, ...]

    @property
    def now(self) -> datetime:
        """The instant that the run believes to be now."""
        written = self.test.model.now
        if written is not None:
            return as_utc(written, self.project.model.timezone)
        last = self.windows[-1]
        return last.end if last is not None else utc_now()

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell one row from another, as far as they are known."""
        return tuple(self.test.model.expect.keys) or self.step.keys

    def csv_options(self, step: StepPlan) -> dict[str, Any]:
        """How a source of CSV files reads them; empty for any other step, and without what is a template."""
        options = step.config if step.role == "source" and step.kind == "csv" else {}
        return {name: value for name, value in options.items() if name not in _NOT_OF_READING and not has_template(value)}

    def known_types(self, step: StepPlan) -> dict[str, pa.DataType]:
        """The types that the pipeline says of a source's columns."""
        written = step.config.get("column_types") if step.role == "source" else None
        types = written if isinstance(written, Mapping) and not has_template(written) else {}
        return {str(name): arrow_type(str(kind)) for name, kind in types.items()}


class Planner:
    """The plans of a project under the variables of its tests; each is made once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._plans: dict[str, tuple[Project, Mapping[str, PipelinePlan], Mapping[str, list[Problem]]]] = {}

    def planned(self, pipeline: str, variables: Mapping[str, Any]) -> tuple[Project, PipelinePlan | None, list[Problem]]:
        """The project with the variables, and the pipeline or its problems. A pipeline that is not enabled is planned as if it were."""
        project, plans, problems = self._plan("", variables)
        if pipeline not in plans and pipeline not in problems:
            project, plans, problems = self._plan(pipeline, variables)
        return project, plans.get(pipeline), problems.get(pipeline, [])

    def _plan(self, enabled: str, variables: Mapping[str, Any]) -> tuple[Project, Mapping[str, PipelinePlan], Mapping[str, list[Problem]]]:
        name = json.dumps([enabled, dict(variables)], sort_keys=True, default=repr)
        if name not in self._plans:
            project = replace(self._project, overrides={**self._project.overrides, **variables})
            loaded = [
                replace(item, model=item.model.model_copy(update={"enabled": True})) if item.name == enabled else item
                for item in project.pipelines
            ]
            plan, broken = build_plan_tolerant(replace(project, pipelines=tuple(loaded)), external=False)
            self._plans[name] = project, plan.by_name, broken
        return self._plans[name]

    @cached_property
    def names(self) -> list[str]:
        """Every pipeline that could be read, enabled or not."""
        return [item.name for item in self._project.pipelines]

    def broken_file(self, pipeline: str) -> list[Problem]:
        """The problems of files that could not be read, one of which may hold the pipeline."""
        return [problem for failure in self._project.failures for problem in failure.problems if pipeline not in self.names]


def bind(test: LoadedTest, planner: Planner) -> BoundTest | list[Problem]:
    """The test with its pipeline, or what is wrong with it. A pipeline's own problems are given as they are."""
    model = test.model
    if model.pipeline not in planner.names:
        hint = suggest(model.pipeline, planner.names, noun="pipelines")
        return [test.problem(("pipeline",), f"there is no pipeline {model.pipeline!r}", hint=hint), *planner.broken_file(model.pipeline)]
    project, pipeline, problems = planner.planned(model.pipeline, model.variables)
    if pipeline is None:
        return problems
    step = _step(test, pipeline)
    if isinstance(step, Problem):
        return [step]
    windows = _windows(test, pipeline)
    found = [*_wrong_inputs(test, pipeline, step), *_wrong_expectations(test, pipeline, step), *_wrong_types(test)]
    found += windows if isinstance(windows, list) else []
    return found if found or isinstance(windows, list) else BoundTest(test, project, pipeline, step, windows)


def _step(test: LoadedTest, pipeline: PipelinePlan) -> StepPlan | Problem:
    name = test.model.step
    if name is None:
        if len(pipeline.endpoints) == 1:
            return pipeline.endpoints[0]
        names = ", ".join(step.id for step in pipeline.endpoints or pipeline.steps)
        return test.problem(("test",), f"does not say which step of {pipeline.name!r} it tests", hint=f"add step: one of {names}")
    if name not in pipeline.by_id:
        hint = suggest(name, pipeline.by_id, noun="steps")
        return test.problem(("step",), f"pipeline {pipeline.name!r} has no step {name!r}", hint=hint)
    return pipeline.by_id[name]


def _windows(test: LoadedTest, pipeline: PipelinePlan) -> tuple[Window | None, ...] | list[Problem]:
    written = test.model.window
    if pipeline.windows is None:
        if written:
            hint = "remove the key: the pipeline runs whole"
            return [test.problem(("window",), f"pipeline {pipeline.name!r} has no windows", hint=hint)]
        return (None,)
    cadence = pipeline.windows.cadence
    if not written:
        begin = pipeline.windows.begin
        example = cadence.key(next(cadence.between(begin, begin + timedelta(microseconds=1))))
        message = f"pipeline {pipeline.name!r} has windows of {cadence.every}, and the test does not say which one it runs"
        return [test.problem(("test",), message, hint=f"add window: {example}")]
    if isinstance(written, RangeModel):
        return _range(test, written, cadence)
    found: list[Window | None] = []
    problems = []
    for number, moment in enumerate(written):
        window = window_at(moment, cadence)
        if isinstance(window, Window):
            found.append(window)
        else:
            path = ("window", number) if len(written) > 1 else ("window",)
            problems.append(test.problem(path, window[0], hint=window[1]))
    return problems or tuple(found)


def _range(test: LoadedTest, written: RangeModel, cadence: Cadence) -> tuple[Window | None, ...] | list[Problem]:
    edges = {"start": window_at(written.start, cadence), "end": window_at(written.end, cadence)}
    problems = [test.problem(("window", name), at[0], hint=at[1]) for name, at in edges.items() if not isinstance(at, Window)]
    first, last = edges.values()
    if problems or not isinstance(first, Window) or not isinstance(last, Window):
        return problems
    found = tuple(itertools.islice(cadence.between(first.start, last.start), MOST_WINDOWS + 1)) if first < last else ()
    if not 0 < len(found) <= MOST_WINDOWS:
        said = f"is more than {MOST_WINDOWS:,} windows" if found else "holds no window"
        return [
            test.problem(
                ("window",), f"{written.start} to {written.end} {said}", hint="start is the first window, end the one after the last"
            )
        ]
    return found


def window_at(moment: Moment, cadence: Cadence) -> Window | tuple[str, str]:
    """The window that begins at `moment` on the cadence's wall clock, or what is wrong with it and a hint."""
    try:
        start = as_utc(moment, cadence.timezone)
        window = next(cadence.between(start, start + timedelta(microseconds=1)))
    except ValueError:
        return f"{moment!r} is not a moment", "write a date or a date and time, such as 2024-01-31"
    if window.start != start:
        return (
            f"no {cadence.every} window begins at {moment} in {cadence.timezone}",
            f"the one that holds it begins at {cadence.key(window)}",
        )
    return window


def _wrong_inputs(test: LoadedTest, pipeline: PipelinePlan, step: StepPlan) -> Iterator[Problem]:
    given = test.model.given
    for name in given:
        if name not in pipeline.by_id:
            hint = suggest(name, pipeline.by_id, noun="steps")
            yield test.problem(("given", name), f"pipeline {pipeline.name!r} has no step {name!r}", hint=hint)
        elif pipeline.by_id[name].role == "endpoint":
            hint = "write what its target holds under existing, and the rows that reach it under the step before it"
            yield test.problem(("given", name), f"{name!r} is an endpoint, it gives no rows", hint=hint)
    if set(given) <= set(pipeline.by_id):
        needed = needed_steps(pipeline, step.id, given=given)
        for name in set(given) - needed:
            yield test.problem(("given", name), f"step {step.id!r} does not read {name!r} here", hint="remove it, or test a step after it")
        for item in pipeline.steps:
            if item.id in needed and item.role == "source" and item.id not in given:
                path = ("given",) if given else ("test",)
                yield test.problem(
                    path, f"source {item.id!r} of {pipeline.name!r} has no rows", hint=f"add under given:  {item.id}: {{rows: [...]}}"
                )


def _wrong_expectations(test: LoadedTest, pipeline: PipelinePlan, step: StepPlan) -> Iterator[Problem]:
    model = test.model
    if model.existing is not None and step.role != "endpoint":
        yield test.problem(
            ("existing",), f"step {step.id!r} is a {step.role} and has no target", hint="test an endpoint, or remove existing"
        )
    if model.expect.ordered and step.role == "endpoint":
        yield test.problem(("expect", "ordered"), "the rows of a table have no order", hint="remove ordered, or test the step before it")
    names = [name for item in pipeline.steps for check in item.checks for name in check.names]
    for number, name in enumerate(model.expect.failed_checks or ()):
        templated = any(has_template(check.options) for item in pipeline.steps for check in item.checks)
        if name not in names and not templated:
            hint = suggest(name, names, noun="checks")
            yield test.problem(("expect", "failed_checks", number), f"pipeline {pipeline.name!r} has no check {name!r}", hint=hint)
    for number, name in enumerate(model.properties):
        if message := _wrong_property(name, pipeline, step):
            yield test.problem(("properties", number), message[0], hint=message[1])


def _wrong_property(name: str, pipeline: PipelinePlan, step: StepPlan) -> tuple[str, str] | None:
    if name == "late" and step.role != "endpoint":
        return f"late rows are about a target, and step {step.id!r} is a {step.role}", "test an endpoint"
    if name == "split_window":
        if pipeline.windows is None:
            return f"pipeline {pipeline.name!r} has no windows to split", "remove split_window"
        if pipeline.windows.cadence.every not in FINER:
            return f"windows of {pipeline.windows.cadence.every} are not split", f"split_window can split {', '.join(FINER)}"
    return None


def _wrong_types(test: LoadedTest) -> Iterator[Problem]:
    model = test.model
    tables: dict[tuple[str, ...], dict[str, str]] = {("given", name): table.columns for name, table in model.given.items()}
    tables |= {("expect",): model.expect.columns, **({("existing",): model.existing.columns} if model.existing else {})}
    for path, columns in tables.items():
        for column, kind in columns.items():
            try:
                _ = arrow_type(kind) if kind else None
            except ValueError as error:
                yield test.problem((*path, "columns", column), str(error))


def bind_all(tests: Sequence[LoadedTest], project: Project) -> tuple[list[BoundTest], list[Problem], dict[str, list[Problem]]]:
    """The tests that can be run, the mistakes in tests, and by test name the problems of pipelines that keep a test from running."""
    planner = Planner(project)
    bound: list[BoundTest] = []
    mistakes: list[Problem] = []
    kept_back: dict[str, list[Problem]] = {}
    for test in tests:
        found = bind(test, planner)
        if isinstance(found, BoundTest):
            bound.append(found)
        elif any(problem.place.file == test.places.file for problem in found):
            mistakes += found
        else:
            kept_back[test.name] = found
    return bound, mistakes, kept_back
