"""The tests of a project, each as one case that can be run by itself.

Here: a test and each of its properties as a case; finding them; running one. Not here: what a case finds (`testing.judging`,
`testing.properties`), transformation files (`testing.transformations`).
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dataflow_assets.errors import DataflowError, Place, Problem, SpecError
from dataflow_assets.secrets import mask
from dataflow_assets.spec.data_tests import LoadedTest, Property, files_in, folder_of_tests, load_tests, same_names
from dataflow_assets.spec.project import Project
from dataflow_assets.testing.bench import Ran, open_bench
from dataflow_assets.testing.binding import BoundTest, bind_all
from dataflow_assets.testing.judging import judge
from dataflow_assets.testing.outcomes import Outcome, Status
from dataflow_assets.testing.properties import try_property


@dataclass(frozen=True)
class Case:
    """One test to run. `str` gives its name, which suits as an id in pytest."""

    name: str
    group: str
    place: Place
    attempt: Callable[[], list[str]]
    """Does the work and gives what is wrong, in lines. Raises DataflowError when it cannot be done."""
    step: str = ""
    """`pipeline.step` that is tested; empty for a transformation file."""

    def __str__(self) -> str:
        return self.name

    def run(self) -> Outcome:
        """Run it. Never raises for what the test or the code under test does."""
        started, printed = time.perf_counter(), io.StringIO()
        status: Status = "passed"
        lines: list[str] = []
        try:
            with contextlib.redirect_stdout(printed):
                lines = self.attempt()
            status = "failed" if lines else "passed"
        except NothingToCompare as error:
            status, lines = "skipped", [str(error)]
        except SystemExit as error:
            status, lines = "error", [f"the code under test ended the process with exit code {error.code}"]
        except DataflowError as error:
            status, lines = "error", [str(error)]
        except Exception as error:  # noqa: BLE001 - whatever one test does, the others are run too
            status, lines = "error", [f"{type(error).__name__}: {mask(str(error))}"]
        seconds = time.perf_counter() - started
        return Outcome(self.name, self.group, self.place, status, tuple(lines), seconds, printed.getvalue())

    def check(self) -> None:
        """Run it for a test runner. Raises AssertionError with the difference when it does not pass."""
        __tracebackhide__ = True
        outcome = self.run()
        if not outcome.ok:
            raise AssertionError(outcome.text)


class NothingToCompare(DataflowError):
    """A property cannot be tried, because the run that it would be compared with failed."""


class _Trial:
    """A test that can be run, with the plain run kept for its properties."""

    def __init__(self, bound: BoundTest, seed: int) -> None:
        self._bound, self._seed = bound, seed

    @cached_property
    def _plain(self) -> Ran:
        with open_bench(self._bound) as bench:
            return bench.run()

    def plain(self) -> list[str]:
        """The test itself."""
        return judge(self._bound, self._plain)

    def property_(self, name: Property) -> list[str]:
        """One of its properties."""
        if self._plain.error is not None:
            raise NothingToCompare("the plain run failed, so that there is nothing to compare with")
        return try_property(name, self._bound, self._plain, seed=self._seed)


def cases_of(tests: Sequence[LoadedTest], project: Project, *, seed: int) -> list[Case]:
    """The cases of these tests. Raises SpecError with every mistake in them; a broken pipeline is the outcome of its own tests."""
    if problems := same_names(tests):
        raise SpecError(problems)
    bound, mistakes, kept_back = bind_all(tests, project)
    if mistakes:
        raise SpecError(list(dict.fromkeys(mistakes)))
    sound = {item.test.name: item for item in bound}
    cases: list[Case] = []
    for test in tests:
        place = test.places.at(("test",))
        if test.name in sound:
            cases += _cases(sound[test.name], place, seed)
        else:
            cases.append(Case(test.name, test.model.pipeline, place, _raising(kept_back[test.name]), f"{test.model.pipeline}."))
    return cases


def _cases(bound: BoundTest, place: Place, seed: int) -> Iterator[Case]:
    trial = _Trial(bound, seed)
    name, group, step = bound.test.name, bound.pipeline.name, f"{bound.pipeline.name}.{bound.step.id}"
    yield Case(name, group, place, trial.plain, step)
    for number, item in enumerate(dict.fromkeys(bound.test.model.properties)):
        where = bound.test.places.at(("properties", number))
        yield Case(f"{name}[{item}]", group, where, lambda item=item: trial.property_(item), step)  # type: ignore[misc]


def _raising(problems: Iterable[Problem]) -> Callable[[], list[str]]:
    def attempt() -> list[str]:
        raise SpecError(list(problems))

    return attempt


def mistakes_in_tests(project: Project) -> list[Problem]:
    """What is wrong with the tests in the project's files; none of them is run."""
    try:
        _, mistakes, _ = bind_all(written_tests(project), project)
    except SpecError as error:
        return list(error.problems)
    return mistakes


def written_tests(project: Project, *, paths: Sequence[Path] = ()) -> list[LoadedTest]:
    """The tests in the project's folder of tests, or in these files and folders. Raises SpecError."""
    folder = folder_of_tests(project)
    places = list(paths) or ([folder] if folder.is_dir() else [])
    files = dict.fromkeys(file for path in places for file in (files_in(path) if path.is_dir() else [path]))
    return load_tests(list(files))
