"""What importing costs: the public package loads neither Dagster nor a driver."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dataflow_assets

HEAVY = [
    "dagster",
    "duckdb",
    "polars",
    "pandas",
    "psycopg",
    "adbc_driver_manager",
    "adbc_driver_postgresql",
    "httpx",
    "pymysql",
    "sqlglot",
    "sqlalchemy",
    "pyarrow",
]


def loaded_by(statement: str) -> set[str]:
    """The heavy modules that a fresh interpreter has after the statement."""
    code = f"import sys; {statement}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("statement", ["import dataflow_assets", "import dataflow_assets.cli", "from dataflow_assets import Window"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_loading_and_planning_load_no_dagster_and_no_driver() -> None:
    modules = loaded_by("import dataflow_assets.spec.load, dataflow_assets.plan.build, dataflow_assets.execution.run")
    assert modules <= {"pyarrow"}


@pytest.mark.parametrize("kind", ["postgres", "mysql", "clickhouse", "snowflake", "duckdb", "sqlite", "sqlalchemy", "http"])
def test_a_connector_loads_no_driver_before_it_is_used(kind: str) -> None:
    assert loaded_by(f"import dataflow_assets.connectors.{kind}") == set()


def test_every_public_name_is_there_and_documented() -> None:
    for name in dataflow_assets.__all__:
        value = getattr(dataflow_assets, name)
        assert isinstance(value, str) or value.__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dataflow_assets.nonsense  # noqa: B018
