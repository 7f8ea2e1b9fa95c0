"""The project that most tests of tests are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_assets_tests.testing.yard import Yard


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """A project with the pipeline `sales`, without any of the environment that its real run needs."""
    for name in ("REGION", "SHOP_PASSWORD", "NOBODY"):
        monkeypatch.delenv(name, raising=False)
    yard = Yard(tmp_path)
    yard.sales()
    return yard
