"""Whether the project's drive table can be kept where the project file says.

Here: refusals of the section `drive:`, with what to use instead. Not here: opening it (`execution.drive`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.errors import PlanError, Problem
from dataflow_assets.plan.names import suggest
from dataflow_assets.protocols import KeepsRecords
from dataflow_assets.spec.project import Project

_INSTEAD = "use a connection to Postgres, MySQL, Snowflake, BigQuery, DuckDB, SQLite or a SQLAlchemy URL, or leave `connection` out"


def refuse_bad_drive(project: Project) -> None:
    """Raises PlanError when the drive names no connection of the project, or one whose system cannot change single rows."""
    if problem := _problem(project):
        raise PlanError([problem])


def _problem(project: Project) -> Problem | None:
    options, known = project.model.drive, project.model.connections
    if options.connection is None:
        if options.table_schema is None:
            return None
        hint = "name a connection, or leave `schema` out"
        return project.places.problem(("drive", "schema"), "the drive's own SQLite file has no schemas", hint=hint)
    if options.connection not in known:
        message = f"the drive's connection {options.connection!r} does not exist"
        hint = suggest(options.connection, known, noun="connections") or "add it to `connections:` of the project file"
        return project.places.problem(("drive", "connection"), message, hint=hint)
    kind = str(known[options.connection].get("type", ""))
    try:
        connector = discovery.find("connectors", kind)
    except KeyError:
        message, hint = f"the drive's connection {options.connection!r} has the unknown type {kind!r}", _INSTEAD
        return project.places.problem(("drive", "connection"), message, hint=hint)
    if (spoken := _spoken(known[options.connection])) is not None and not issubclass(spoken, KeepsRecords):
        connector, kind = spoken, str(spoken.kind)
    if not issubclass(connector, KeepsRecords):
        message = f"the drive cannot be kept in connection {options.connection!r}: {kind} does not change single rows"
        return project.places.problem(("drive", "connection"), message, hint=_INSTEAD)
    if options.table_schema is not None and not _has_schemas(connector):
        message = f"tables of connection {options.connection!r} ({kind}) lie in no schema"
        return project.places.problem(("drive", "schema"), message, hint="leave `schema` out")
    return None


def _spoken(block: Mapping[str, Any]) -> Any | None:
    """The connector of the system that a URL names, such as clickhouse in `clickhouse+http://`; None where it says nothing known."""
    scheme = re.match(r"(\w+)(\+\w+)?://", str(block.get("url") or ""))
    try:
        return discovery.find("connectors", scheme[1]) if scheme else None
    except KeyError:
        return None


def _has_schemas(connector: type) -> bool:
    """Whether endpoints of this kind may name more than their table."""
    options: dict[str, object] = getattr(connector, "Endpoint").model_fields  # noqa: B009 - a protocol, of which issubclass left no more
    return bool({"table_schema", "dataset"} & options.keys())
