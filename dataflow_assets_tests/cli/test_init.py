"""`init`: the project it writes is sound, runs at once, and nothing that exists is overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow_assets_tests.cli.conftest import Answer

Call = Callable[..., Answer]


def test_the_project_is_sound(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call("init", "my_project")
    assert answer.code == 0, answer.err
    assert answer.out.rstrip().endswith("cd my_project && dataflow run")
    assert call("validate", "--project", "my_project").code == 0
    assert [item["name"] for item in call("list", "--project", "my_project", "--json").json["pipelines"]] == ["orders", "revenue_report"]


def test_its_tests_pass(call: Call, tmp_path: Path) -> None:
    call("init", tmp_path / "shop")
    answer = call(
        "test", "--project", tmp_path / "shop", "--json", "orders_without_a_product_are_dropped", "a_negative_amount_is_not_published"
    )
    assert answer.code == 0, answer.out
    assert answer.json["passed"] == 2


def test_every_file_is_there_and_no_placeholder_is_left(call: Call, tmp_path: Path) -> None:
    answer = call("init", tmp_path / "shop", "--json")
    files = set(answer.json["files"])
    assert files == {
        "dataflow_project.yml", "pipelines/orders.yml", "pipelines/revenue_report.yml", "data/orders.csv", "data/customers.csv",
        "transforms/clean_orders.py", ".env.example", ".gitignore", "pyproject.toml", "workspace.yaml", "dagster.yaml", "README.md",
        ".schema/project.json", ".schema/pipeline.json", ".schema/test.json", "tests/orders.yml",
    }  # fmt: skip
    on_disk = {str(path.relative_to(tmp_path / "shop")) for path in (tmp_path / "shop").rglob("*") if path.is_file()}
    assert on_disk == files
    for file in files - {".gitignore"}:
        text = (tmp_path / "shop" / file).read_text(encoding="utf-8")
        assert "__" not in text.replace("__pycache__", "").replace("__quarantine", ""), file


@pytest.mark.parametrize("folder", ["pipelines", "flows", "flows/daily"])
def test_editors_find_the_schema(call: Call, tmp_path: Path, folder: str) -> None:
    assert call("init", tmp_path / "shop", "--pipelines-dir", folder).code == 0
    files = ("dataflow_project.yml", f"{folder}/orders.yml", "tests/orders.yml")
    for file in (tmp_path / "shop" / name for name in files):
        first = file.read_text().splitlines()[0]
        schema = file.parent / first.removeprefix("# yaml-language-server: $schema=")
        assert json.loads(schema.read_text())["$schema"].startswith("http")
    assert call("validate", "--project", tmp_path / "shop").code == 0


def test_what_exists_is_left_alone(call: Call, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("mine")
    answer = call("init", tmp_path / "shop")
    assert answer.code == 2
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine.txt"]
    assert call("init", tmp_path / "shop" / "mine.txt").code == 2


def test_an_empty_folder_will_do(call: Call, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert call("init", tmp_path / "shop").code == 0


@pytest.mark.parametrize("folder", ["/abs", "../up", "a/../../b", ".", "data", "we ird", ""])
def test_a_pipelines_folder_outside_the_project_is_refused(call: Call, tmp_path: Path, folder: str) -> None:
    assert call("init", tmp_path / "shop", "--pipelines-dir", folder).code == 2
    assert not (tmp_path / "shop").exists()


def test_a_name_that_yaml_would_misread_is_refused(call: Call, tmp_path: Path) -> None:
    assert call("init", tmp_path / "a: b").code == 2
    assert call("init", tmp_path / "1.0").code == 0
    assert call("validate", "--project", tmp_path / "1.0").code == 0
