"""Tests of the contract suite itself: the memory connector passes it, and each broken one is caught by the test named here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataflow_assets_tests.connectors.broken import BROKEN, PASSWORD
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.memory import MemoryHarness


class TestMemory(ConnectorContract):
    """The reference keeps every promise."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> MemoryHarness:
        return MemoryHarness(tmp_path)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_connector_is_caught(kind: Any, tmp_path: Path) -> None:
    """By the test that it names, and by an assertion, not by an accident."""
    harness = MemoryHarness(tmp_path, kind=kind, secret=PASSWORD)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(TestMemory(), kind.caught.test)(harness, **kind.caught.arguments)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_the_whole_connector_passes_what_the_broken_one_fails(kind: Any, tmp_path: Path) -> None:
    harness = MemoryHarness(tmp_path, secret=PASSWORD)
    getattr(TestMemory(), kind.caught.test)(harness, **kind.caught.arguments)
