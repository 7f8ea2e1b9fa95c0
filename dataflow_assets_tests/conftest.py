"""What all tests share. Here: the services that they can ask for, each in a module under `services`; secrets and visits of failpoints
end with their test; the gate draws the same examples each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from dataflow_assets import failpoints, secrets

pytest_plugins = [
    "dataflow_assets_tests.services.bigquery",
    "dataflow_assets_tests.services.brokers",
    "dataflow_assets_tests.services.clickhouse",
    "dataflow_assets_tests.services.elasticsearch",
    "dataflow_assets_tests.services.mysql",
    "dataflow_assets_tests.services.object_stores",
    "dataflow_assets_tests.services.postgres",
    "dataflow_assets_tests.services.postgres_tls",
    "dataflow_assets_tests.services.snowflake",
]


# the gate must say the same of the same tree; elsewhere property tests go on looking
settings.register_profile("gate", derandomize=True, database=None, deadline=None, print_blob=True)
if os.environ.get("REQUIRE_SERVICES"):
    settings.load_profile("gate")


@pytest.fixture(autouse=True)
def no_secrets_of_others() -> Iterator[None]:
    """Let no test's secrets mask the text of another."""
    before = set(secrets._registered)
    yield
    secrets._registered.clear()
    secrets._registered.update(before)


@pytest.fixture(autouse=True)
def no_visits_of_others() -> None:
    """Let failpoints count from the start in each test."""
    failpoints._visits.clear()
