"""A watched project on a real instance."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from dataflow_assets_tests.assets.conftest import empty_home, instance
from dataflow_assets_tests.operations.sensors.post import Post

__all__ = ["empty_home", "instance"]


@pytest.fixture
def post(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Post:
    """An empty project under watch."""
    return Post(tmp_path / "watched", instance, monkeypatch)
