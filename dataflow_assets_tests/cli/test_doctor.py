"""`dataflow doctor` against systems that are there and systems that are not."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pytest

from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder

Call = Callable[..., Answer]
SECRET = "hunter2-and-more"


def test_all_is_well(call: Call, project: ProjectFolder) -> None:
    duckdb.connect(str(project.root / "shop.duckdb")).close()
    answer = call("doctor", "--project", project.root)
    assert answer.code == 0
    assert "OK    db (duckdb): DuckDB v" in answer.out
    assert "used by first, second, third" in answer.out
    assert "1 connection reached" in answer.out
    assert "OK    drive: 0 attempts at work" in answer.out
    assert "OK    disk: " in answer.out
    assert not (project.root / ".dataflow").exists()


def test_what_cannot_be_reached_is_named_and_the_others_are_asked(call: Call, project: ProjectFolder, postgres_dsn: str) -> None:
    (project.root / "dataflow_project.yml").write_text(
        f"""project_name: shop
connections:
  db: {{type: duckdb, path: shop.duckdb}}
  away: {{type: postgres, host: 127.0.0.1, port: 1, database: x, user: x, password: {SECRET}}}
  here: {{type: postgres, dsn: "{postgres_dsn}"}}
  odd: {{type: nonesuch}}
  unset: {{type: postgres, dsn: "{{{{ env_var('NO_SUCH_VARIABLE_AT_ALL') }}}}"}}
"""
    )
    document = call("doctor", "--project", project.root, "--json").json
    assert document["exit_code"] == 1
    found = {item["name"]: item for item in document["connections"]}
    assert [name for name, item in found.items() if item["ok"]] == ["db", "here"]
    assert found["here"]["answer"].startswith("PostgreSQL ")
    assert found["away"]["used_by"] == []
    assert "whether the server is up" in found["away"]["error"]["hint"]
    assert "nonesuch" in found["odd"]["error"]["message"]
    assert "NO_SUCH_VARIABLE_AT_ALL" in found["unset"]["error"]["message"]
    text = call("doctor", "--project", project.root)
    assert text.code == 1
    assert "3 connections of 5 cannot be used" in text.out
    assert SECRET not in text.out + text.err + str(document)


def test_a_selection_asks_only_what_it_uses(call: Call, project: ProjectFolder) -> None:
    (project.root / "dataflow_project.yml").write_text(
        "project_name: shop\nconnections:\n  db: {type: duckdb, path: shop.duckdb}\n  away: {type: postgres, host: 127.0.0.1, port: 1}\n"
    )
    assert call("doctor", "--project", project.root, "--select", "first").code == 0
    assert call("doctor", "--project", project.root).code == 1


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_missing_file_is_not_made(call: Call, project: ProjectFolder, kind: str) -> None:
    file = project.root / "dataflow_project.yml"
    file.write_text(f"{file.read_text()}  other: {{type: {kind}, path: deep/er/shop.db}}\n")
    before = sorted(project.root.rglob("*"))
    answer = call("doctor", "--project", project.root)
    assert answer.code == 0
    assert answer.out.count("no file yet, the first publish makes it") == 2
    assert sorted(project.root.rglob("*")) == before
    (project.root / "deep").write_text("no folder")
    refused = call("doctor", "--project", project.root)
    assert refused.code == 1
    assert "deep is no folder" in refused.out
