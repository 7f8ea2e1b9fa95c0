"""Fixtures of the Dagster edge: a real instance with SQLite in a temporary folder, and the shop project."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets.assets.instance import HOME, open_instance
from dataflow_assets.spec.models import ProjectModel
from dataflow_assets.spec.project import Places, Project
from dataflow_assets_tests.assets import shop


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance's folder with its databases made, to be copied: making them takes half a second."""
    home = tmp_path_factory.mktemp("instance")
    open_instance(Project(home, ProjectModel(), Places("home"))).dispose()
    return home


@pytest.fixture
def instance(tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A persistent instance of its own, as `dataflow run` opens it."""
    monkeypatch.delenv(HOME, raising=False)
    shutil.copytree(empty_home, tmp_path / "home")
    opened = open_instance(Project(tmp_path / "home", ProjectModel(), Places("home")))
    yield opened
    opened.dispose()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The shop project, all days good."""
    return shop.write_shop(tmp_path / "shop")
