"""Tests of the contract suite itself: the memory connector passes it, and each broken one is caught by the test named here."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.memory import MemoryHarness


class TestMemory(ConnectorContract):
    """The reference keeps every promise."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> MemoryHarness:
        return MemoryHarness(tmp_path)
