"""`update-gitignore`: added once, really removed, nothing else touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.cli.gitignore import LINE, update
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder

Call = Callable[..., Answer]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ".dataflow/\n"),
        ("", ".dataflow/\n"),
        ("*.pyc\n", "*.pyc\n.dataflow/\n"),
        ("*.pyc", "*.pyc\n.dataflow/\n"),
        ("a\r\nb\r\n", "a\r\nb\r\n.dataflow/\r\n"),
        (".dataflow\n", ".dataflow\n"),
        ("/.dataflow/\n", "/.dataflow/\n"),
    ],
)
def test_adding(tmp_path: Path, before: str | None, after: str) -> None:
    path = tmp_path / ".gitignore"
    if before is not None:
        path.write_bytes(before.encode())
    for _ in range(2):
        update(path, ignore=True)
        assert path.read_bytes().decode() == after


@pytest.mark.parametrize("line", [".dataflow", ".dataflow/", "/.dataflow", " .dataflow/ ", ".dataflow/*"])
def test_removing(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".gitignore"
    path.write_text(f"# kept\n{line}\nmy.dataflow/\n{line}\nlast")
    for _ in range(2):
        update(path, ignore=False)
        assert path.read_text() == "# kept\nmy.dataflow/\nlast"


def test_nothing_to_remove_makes_no_file(tmp_path: Path) -> None:
    assert update(tmp_path / ".gitignore", ignore=False) == "unchanged"
    assert not (tmp_path / ".gitignore").exists()


@given(st.lists(st.sampled_from([".env\n", "\n", "# x\n", "build/\n", "ä\n", "\udcff\n"]), max_size=8))
def test_adding_then_removing_gives_back_the_file(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("git") / ".gitignore"
    before = "".join(lines).encode("utf-8", "surrogateescape")
    path.write_bytes(before)
    assert update(path, ignore=True) == "added"
    assert LINE.encode() in path.read_bytes()
    assert update(path, ignore=False) == "removed"
    assert path.read_bytes() == before


def test_the_verb_follows_the_project_file(call: Call, project: ProjectFolder) -> None:
    file = project.root / "dataflow_project.yml"
    assert call("update-gitignore", "--project", project.root).code == 0
    assert (project.root / ".gitignore").read_text() == ".dataflow/\n"
    file.write_text(file.read_text() + "state: {ignore_in_git: false}\n")
    answer = call("update-gitignore", "--project", project.root, "--json")
    assert answer.json["outcome"] == "removed"
    assert (project.root / ".gitignore").read_text() == ""
    assert call("update-gitignore", "--project", project.root, "--json").json["outcome"] == "unchanged"
