"""Where attempts are recorded: the section `drive:` of the project file.

Here: the model. Not here: which connections can serve (`plan.drive`), the table itself (`storage.drive`).
"""

from __future__ import annotations

from pydantic import AliasChoices, Field

from dataflow_assets.spec.base import Model


class DriveOptions(Model):
    """The table that holds a row for every attempt at a window."""

    connection: str | None = Field(
        None, description="a connection of the project, in a database that every worker reaches; default: SQLite in .dataflow/"
    )
    table_schema: str | None = Field(
        None, validation_alias=AliasChoices("schema", "table_schema"), description="the table's schema; default: the connection's"
    )
    table: str = Field("pipeline_execution_drive", min_length=1, description="the table, which is made when it is missing")
