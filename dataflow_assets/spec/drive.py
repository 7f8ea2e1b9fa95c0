"""Where attempts are recorded, and how long their phases should take: `drive:` of the project file, `phases:` of a pipeline.

Here: the models. Not here: which connections can serve (`plan.drive`), the table itself (`storage.drive`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field

from dataflow_assets.spec.base import Duration, Model

PhaseName = Literal[
    "stale_pipeline_handling",
    "pre_validation",
    "source_to_stage_transfer",
    "stage_to_target_transfer",
    "audit",
    "stage_cleaning",
    "target_cleaning",
]


class DriveOptions(Model):
    """The table that holds a row for every attempt at a window."""

    connection: str | None = Field(
        None, description="a connection of the project, in a database that every worker reaches; default: SQLite in .dataflow/"
    )
    table_schema: str | None = Field(
        None, validation_alias=AliasChoices("schema", "table_schema"), description="the table's schema; default: the connection's"
    )
    table: str = Field("pipeline_execution_drive", min_length=1, description="the table, which is made when it is missing")


class PhaseOptions(Model):
    """What is expected of a phase."""

    expected_run_duration: Duration = Field(
        description="how long it should take, such as 10m; default: the median of earlier successful attempts"
    )
