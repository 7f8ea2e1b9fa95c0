"""Unit tests for data: `dataflow test`, and the same from Python and pytest.

Here: `data_tests`, each of a project's tests as a case, and `run_tests`, which runs them. Not here: the verb (`cli.testing`), what a test
may say (`spec.data_tests`).

    @pytest.mark.parametrize("case", data_tests("."), ids=str)
    def test_data(case):
        case.check()
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow_assets.spec.data_tests import LoadedTest
    from dataflow_assets.spec.project import Project
    from dataflow_assets.testing.cases import Case
    from dataflow_assets.testing.outcomes import Outcome

__all__ = ["data_tests", "run_tests"]


def data_tests(
    project: str | Path | Project,
    *,
    tests: Sequence[LoadedTest] | None = None,
    paths: Iterable[str | Path] = (),
    seed: int | None = None,
) -> list[Case]:
    """The tests of a project (its folder, file, or the loaded one): one case for each test, property and transformation file.

    `tests`: these, made with `data_test`, in place of those in the project's files. `paths`: test files, folders of them and
    transformation files, in place of all. `seed`: of the properties that draw rows; default: another one each time, which a failure
    names. Raises SpecError with every mistake in the tests.
    """
    from dataflow_assets.spec.load import load
    from dataflow_assets.spec.project import Project
    from dataflow_assets.testing.cases import cases_of, written_tests
    from dataflow_assets.testing.transformations import transformation_case, transformation_files

    loaded = project if isinstance(project, Project) else load(Path(project))
    seed = random.randrange(2**32) if seed is None else seed
    chosen = [Path(path).absolute() for path in paths]
    if tests is not None:
        return cases_of(list(tests), loaded, seed=seed)
    files = [path for path in chosen if path.suffix == ".py"]
    if not chosen:
        files = transformation_files(loaded)
    rest = [path for path in chosen if path.suffix != ".py"]
    written = written_tests(loaded, paths=rest) if rest or not chosen else []
    cases = cases_of(written, loaded, seed=seed)
    return [*cases, *(transformation_case(path, loaded.root) for path in files)]


def run_tests(
    project: str | Path | Project, *, tests: Sequence[LoadedTest] | None = None, paths: Iterable[str | Path] = (), seed: int | None = None
) -> list[Outcome]:
    """Run the tests of a project; see `data_tests`. Each outcome says `ok`, and its `text` why not. Raises SpecError."""
    return [case.run() for case in data_tests(project, tests=tests, paths=paths, seed=seed)]
