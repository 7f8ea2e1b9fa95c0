"""`dataflow instance`: the switch to Postgres and back, what it refuses, and what doctor says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow_assets.assets.instance_settings import BROKER, URL
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder

pytest.importorskip("dagster_postgres")
Call = Callable[..., Answer]
SECRET = "hunter2-of-postgres"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address from outside, and none that `.env` of a test leaves behind."""
    for name in (URL, BROKER):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_to_postgres_and_back(call: Call, project: ProjectFolder, postgres_dsn: str) -> None:
    root = project.root
    (root / "dataflow_project.yml").write_text(
        "project_name: shop\nconnections:\n  db: {type: duckdb, path: shop.duckdb, max_concurrent: 2}\n"
    )
    assert "none yet" in call("doctor", "--project", root).out
    assert call("run", "--project", root, "--select", "first").code == 0
    missing = call("instance", "--project", root, "use", "postgres")
    assert (missing.code, URL in missing.err) == (2, True)
    (root / ".env").write_text(f"{URL}={postgres_dsn}\n")
    used = call("instance", "--project", root, "use", "postgres", "--history", "--json").json
    assert (used["changed"], used["carried"]["runs"]) == (["postgres"], 1)
    assert postgres_dsn not in (root / ".dataflow/dagster/dagster.yaml").read_text()
    shown = call("instance", "show", "--project", root, "--json").json
    assert shown["history"] == "Postgres, 1 run"
    assert shown["pools"] == [{"name": "connection/db", "limit": 2, "wanted": 2, "pipelines": ["first", "second", "third"]}]
    assert call("run", "--project", root, "--select", "first", "--full-refresh").code == 0
    doctor = call("doctor", "--project", root)
    assert "Dagster's history: Postgres, 2 runs; runs start in processes" in doctor.out
    assert "pool connection/db: 2 runs at once (first, second, third)" in doctor.out
    assert call("instance", "prepare", "--project", root, "--json").json["limits_set"] == []
    assert call("instance", "use", "sqlite", "--project", root, "--fresh", "--json").json["carried"] is None
    assert call("instance", "show", "--project", root, "--json").json["history"].endswith("1 run")
    assert call("instance", "use", "sqlite", "--project", root, "--json").json["changed"] == []


def test_an_unreachable_database_changes_nothing_and_shows_no_secret(
    call: Call, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_postgres.utils.time.sleep", lambda _: None)
    monkeypatch.setenv(URL, f"postgresql://u:{SECRET}@127.0.0.1:1/d")
    answer = call("instance", "use", "postgres", "--project", project.root)
    assert answer.code == 1
    assert "cannot be used" in answer.err
    assert SECRET not in answer.out + answer.err
    assert "postgres_storage" not in _settings(project.root)


def test_what_fits_not_together_is_refused(call: Call, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = call("instance", "use", "postgres", "sqlite", "--project", project.root)
    assert (both.code, "one storage" in both.err) == (2, True)
    assert BROKER in call("instance", "use", "celery", "--project", project.root).err
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dagster.yaml").write_text("storage:\n  sqlite: {base_dir: here}\n")
    refused = call("instance", "use", "sqlite", "--project", project.root)
    assert (refused.code, "in its own words" in refused.err) == (1, True)


def _settings(root: Path) -> str:
    return (root / ".dataflow" / "dagster" / "dagster.yaml").read_text()
