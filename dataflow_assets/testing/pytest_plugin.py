"""Tests in YAML as items of pytest: `pytest_plugins = ["dataflow_assets.testing.pytest_plugin"]` in a conftest.py.

Here: collecting the .yml files in the tests folder of the project around them. Not here: the tests (`testing.cases`). It is no entry
point: an installed package should not collect the YAML files of others.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets.errors import DataflowError
from dataflow_assets.testing.cases import Case, cases_of, written_tests


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the YAML files that lie in the tests folder of a project."""
    if file_path.suffix in {".yml", ".yaml"} and _project(file_path.parent) is not None:
        return DataTestFile.from_parent(parent, path=file_path)
    return None


@lru_cache(maxsize=256)
def _project(folder: Path) -> Any:
    """The project whose tests folder holds `folder`, None when there is none."""
    from dataflow_assets.spec.data_tests import folder_of_tests
    from dataflow_assets.spec.load import load

    try:
        project = load(folder)
    except DataflowError:
        return None
    return project if folder.is_relative_to(folder_of_tests(project)) else None


class DataTestFile(pytest.File):
    """One file of tests."""

    def collect(self) -> Iterator[pytest.Item]:
        """The tests and their properties. Raises SpecError, which pytest shows as an error of the collection."""
        project = _project(self.path.parent)
        seed = getattr(self.config.option, "randomly_seed", None)
        drawn = seed if isinstance(seed, int) else _seed()
        for case in cases_of(written_tests(project, paths=[self.path]), project, seed=drawn):
            yield DataTestItem.from_parent(self, name=case.name, case=case)


def _seed() -> int:
    import random

    return random.randrange(2**32)


class DataTestItem(pytest.Item):
    """One test, or one property of it."""

    def __init__(self, *, case: Case, **rest: Any) -> None:
        super().__init__(**rest)
        self._case = case

    def runtest(self) -> None:
        """Run it. Raises AssertionError."""
        self._case.check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The difference alone: the place in this package helps nobody."""
        return str(excinfo.value) if isinstance(excinfo.value, AssertionError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the test is written."""
        return self.path, max(self._case.place.line - 1, 0), self.name
