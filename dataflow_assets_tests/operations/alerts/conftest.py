"""A certificate for mail servers, and messages to send."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dataflow_assets_tests.services.ladder import absent
from dataflow_assets_tests.services.mail import make_certificate


@pytest.fixture(scope="session")
def certificate(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost and its key."""
    if shutil.which("openssl") is None:
        absent(pytestconfig, "mail", "a mail server with TLS needs openssl")
    return make_certificate(tmp_path_factory.mktemp("mail"))
