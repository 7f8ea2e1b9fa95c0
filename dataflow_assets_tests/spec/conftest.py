"""A project folder to write files into."""

from __future__ import annotations

from pathlib import Path

import pytest


class Folder:
    """A project on disk; `write` adds a file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty project; the current folder is the project's, so that places read short."""
    monkeypatch.chdir(tmp_path)
    made = Folder(tmp_path)
    made.write("dataflow_project.yml", "project_name: shop\n")
    (tmp_path / "pipelines").mkdir()
    return made
