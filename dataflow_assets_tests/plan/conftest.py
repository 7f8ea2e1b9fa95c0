"""Projects to plan: YAML in a temporary folder, and two connectors that can only be planned with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dataflow_assets.connectors
from dataflow_assets import discovery
from dataflow_assets.plan.build import build_plan, build_plan_tolerant
from dataflow_assets.plan.model import ProjectPlan
from dataflow_assets.spec.load import load
from dataflow_assets.spec.project import Project

PLUGINS = Path(__file__).parent / "plugins" / "connectors"
PROJECT = """\
project_name: shop
connections:
  raw: {type: tabledb, host: db}
  mart: {type: tabledb, host: warehouse, password: "{{ env_var('PASSWORD') }}"}
"""


@pytest.fixture(scope="package", autouse=True)
def planning_connectors() -> Iterator[None]:
    """Make `tabledb` and `flatfile` known, as a file beside the real connectors would."""
    folders = dataflow_assets.connectors.__path__
    folders.append(str(PLUGINS))
    discovery.kinds.cache_clear()
    discovery.find.cache_clear()
    yield
    folders.remove(str(PLUGINS))
    discovery.kinds.cache_clear()
    discovery.find.cache_clear()


class Workbench:
    """A project folder to write into and plan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "pipelines").mkdir(parents=True)
        (root / "dataflow_project.yml").write_text(PROJECT)

    def write(self, name: str, text: str) -> None:
        (self.root / "pipelines" / f"{name}.yml").write_text(text)

    def project(self, **files: str) -> Project:
        for name, text in files.items():
            self.write(name, text)
        return load(self.root)

    def plan(self, **files: str) -> ProjectPlan:
        return build_plan(self.project(**files))

    def problems(self, **files: str) -> list[str]:
        """Each problem as `file:line message -> hint`."""
        project = self.project(**files)
        assert not project.failures, project.failures
        _, broken = build_plan_tolerant(project)
        found = dict.fromkeys(problem for problems in broken.values() for problem in problems)
        return [
            f"{Path(item.place.file).name}:{item.place.line} {item.message} -> {item.hint}" for item in sorted(found, key=lambda p: p.place)
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture
def steps() -> Callable[..., str]:
    """A pipeline of a source and an endpoint, with further lines for each."""

    def text(source: str = "table: orders", endpoint: str = "table: orders_copy", head: str = "") -> str:
        return (
            f"{head}steps:\n"
            f"  - {{id: read, type: source, connection: raw, config: {{{source}}}}}\n"
            f"  - {{id: write, type: endpoint, connection: mart, depends_on: [read], config: {{{endpoint}}}}}\n"
        )

    return text
