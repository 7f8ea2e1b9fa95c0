"""Move tables between systems, incrementally and exactly once, as Dagster assets.

The public surface; every name is imported when it is first used, so importing this package loads neither Dagster nor a driver.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataflow_assets.assets.io_managers import (
        BigQueryIOManager,
        ClickHouseIOManager,
        CSVIOManager,
        DuckDBIOManager,
        JSONIOManager,
        MySQLIOManager,
        ParquetIOManager,
        PostgresIOManager,
        SnowflakeIOManager,
        SQLAlchemyIOManager,
        SQLiteIOManager,
    )
    from dataflow_assets.errors import DataflowError
    from dataflow_assets.operations.component import ProjectComponent
    from dataflow_assets.operations.late_data import late_data
    from dataflow_assets.operations.load import load_project
    from dataflow_assets.operations.reconcile import reconcile
    from dataflow_assets.spec.builders import check, contract, data_test, endpoint, pipeline, project, source, transform
    from dataflow_assets.windows import Window

__version__ = "0.1.0"

_HOMES = {
    "BigQueryIOManager": "assets.io_managers",
    "CSVIOManager": "assets.io_managers",
    "ClickHouseIOManager": "assets.io_managers",
    "DataflowError": "errors",
    "DuckDBIOManager": "assets.io_managers",
    "JSONIOManager": "assets.io_managers",
    "MySQLIOManager": "assets.io_managers",
    "ParquetIOManager": "assets.io_managers",
    "PostgresIOManager": "assets.io_managers",
    "ProjectComponent": "operations.component",
    "SQLAlchemyIOManager": "assets.io_managers",
    "SQLiteIOManager": "assets.io_managers",
    "SnowflakeIOManager": "assets.io_managers",
    "Window": "windows",
    "check": "spec.builders",
    "contract": "spec.builders",
    "data_test": "spec.builders",
    "endpoint": "spec.builders",
    "late_data": "operations.late_data",
    "load_project": "operations.load",
    "pipeline": "spec.builders",
    "project": "spec.builders",
    "reconcile": "operations.reconcile",
    "source": "spec.builders",
    "transform": "spec.builders",
}

__all__ = [
    "BigQueryIOManager",
    "CSVIOManager",
    "ClickHouseIOManager",
    "DataflowError",
    "DuckDBIOManager",
    "JSONIOManager",
    "MySQLIOManager",
    "ParquetIOManager",
    "PostgresIOManager",
    "ProjectComponent",
    "SQLAlchemyIOManager",
    "SQLiteIOManager",
    "SnowflakeIOManager",
    "Window",
    "__version__",
    "check",
    "contract",
    "data_test",
    "endpoint",
    "late_data",
    "load_project",
    "pipeline",
    "project",
    "reconcile",
    "source",
    "transform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
