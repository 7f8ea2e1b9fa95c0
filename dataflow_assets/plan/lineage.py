"""Which tables and files steps read and write, and so which pipelines hang together.

Here: table addresses that can be compared across pipelines, and the tables that SQL reads, found with sqlglot. Not here:
lineage of columns (`plan.columns`), what Dagster makes of it (`assets`).
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from dataflow_assets.errors import DataflowError
from dataflow_assets.plan.kinds import Link
from dataflow_assets.plan.model import AssetPath
from dataflow_assets.plan.names import legal
from dataflow_assets.plan.options import has_template
from dataflow_assets.plan.steps import Draft
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import TableName

PLACEHOLDER = "dataflow_template"
"""What stands in SQL for a template while it is parsed."""
_EXPRESSION, _STATEMENT = re.compile(r"\{\{.*?\}\}", re.DOTALL), re.compile(r"\{[%#].*?[%#]\}", re.DOTALL)
_ENVIRONMENT = re.compile(r"\$\{[^}]*\}")
_NAME = r'(?:"[^"]+"|`[^`]+`|\[[^\]]+\]|[\w$]+)'
_FROM = re.compile(rf"\b(?:from|join)\s+({_NAME}(?:\s*\.\s*{_NAME})*)(?!\s*[\w$.]*\()", re.IGNORECASE)
_CTE = re.compile(rf"(?:\bwith(?:\s+recursive)?|,)\s*({_NAME})(?:\s*\([^)]*\))?\s+as\s+(?:not\s+)?(?:materialized\s+)?\(", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_DEFAULT_SCHEMA = {"postgres": "public", "redshift": "public", "duckdb": "main", "snowflake": "public", "tsql": "dbo"}
_WHO = re.compile(r"(?i)password|passwd|pwd|secret|token|key|credential|user|role|warehouse|timeout|application")
_USERINFO = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True)
class TableRef:
    """A table or file of one system. `system` tells systems apart, whatever their connections are called."""

    system: str
    connection: str
    schema: str | None
    name: str
    is_file: bool = False

    @property
    def identity(self) -> tuple[str, str, str]:
        """Equal for the same table, however it is written; SQL names compare without case, as unquoted ones do."""
        return (self.system, "", self.name) if self.is_file else (self.system, (self.schema or "").casefold(), self.name.casefold())

    @property
    def asset_path(self) -> AssetPath:
        """The asset key of the table where no pipeline publishes it."""
        if self.is_file:
            return (legal(self.connection), *(legal(part) for part in PurePosixPath(self.name).parts if part not in {"/", ".."}))
        return tuple(legal(part) for part in (self.connection, self.schema, self.name) if part)

    def __str__(self) -> str:
        return self.name if self.is_file else ".".join(part for part in (self.connection, self.schema, self.name) if part)

    def is_read_from(self, target: TableRef) -> bool:
        """Whether reading this one reads what `target` wrote; a file pattern or folder reads every file it covers."""
        if self.identity == target.identity:
            return True
        if not (self.is_file and target.is_file):
            return False
        return fnmatchcase(target.name, self.name) or self.name.startswith(target.name.rstrip("/") + "/")


@dataclass(frozen=True)
class Reads:
    """What a source step reads: a table or file known by name, or SQL still to be searched."""

    table: TableRef | None = None
    sql: str | None = None
    dialect: str | None = None


def read_by(draft: Draft, root: Path) -> Reads:
    """What a source step reads, as far as it is known before rendering."""
    if draft.options is None or draft.link is None:
        return Reads()
    dialect = draft.plugin.implementation.capabilities.dialect
    if dialect is not None and (query := getattr(draft.options, "query", None)):
        return Reads(sql=str(query), dialect=dialect)
    return Reads(_table(draft, draft.link, root, "source_table"))


def written_by(draft: Draft, root: Path) -> TableRef | None:
    """The table or file that an endpoint step writes; None when a template hides it."""
    return _table(draft, draft.link, root, "target_table") if draft.options is not None and draft.link is not None else None


def partly_written_by(draft: Draft, root: Path) -> TableRef | None:
    """The same with `PLACEHOLDER` in place of each template: what is known of the name before rendering."""
    name = _name(draft, draft.link, root, "target_table") if draft.options is not None and draft.link is not None else None
    if name is None or draft.link is None:
        return None
    return table_ref(draft, draft.link, TableName(_masked(name.name), _masked(name.schema) if name.schema else None), root)


def _masked(name: str) -> str:
    return PLACEHOLDER if "{%" in name else without_templates(name)


def _table(draft: Draft, link: Link, root: Path, method: str) -> TableRef | None:
    name = _name(draft, link, root, method)
    return None if name is None or has_template(str(name)) else table_ref(draft, link, name, root)


def _name(draft: Draft, link: Link, root: Path, method: str) -> TableName | None:
    """What the connector calls it; None where its options are too broken to ask."""
    implementation = draft.plugin.implementation
    if link.model is None:
        return None
    try:
        name: TableName | None = getattr(implementation(link.model, ConnectionContext(link.name or draft.plugin.kind, root)), method)(
            draft.options
        )
    except (DataflowError, ValueError, TypeError, AttributeError):
        return None
    return name


def table_ref(draft: Draft, link: Link, name: TableName, root: Path) -> TableRef:
    """The address of a table of a step's connection, with the default schema of its dialect, or of a file below the project.

    A system that has no SQL and is only read (an API, a search index) has tables by name, which no pipeline writes.
    """
    return table_of(draft.plugin.implementation, link.name or draft.plugin.kind, link.block, name, root)


def table_of(implementation: Any, connection: str, block: Mapping[str, Any], name: TableName, root: Path) -> TableRef:
    """The address of a table of a connection, whose block tells which system that is."""
    dialect, modes, kind = implementation.capabilities.dialect, implementation.capabilities.modes, implementation.kind
    if dialect is None and not modes:
        return TableRef(_system(kind, block), connection, None, name.name)
    if dialect is None:
        return TableRef("", connection, None, _relative(name.name, root), is_file=True)
    return TableRef(_system(kind, block), connection, name.schema or _DEFAULT_SCHEMA.get(dialect), name.name)


def _system(kind: str, block: Mapping[str, Any]) -> str:
    """Two connections that differ only in who logs in lead to the same system."""
    where = {key: value for key, value in block.items() if key != "type" and not _WHO.search(key)}
    return f"{kind} {_USERINFO.sub('', json.dumps(where, sort_keys=True, default=str))}"


def _relative(path: str, root: Path) -> str:
    """`path` from the project folder, or absolute when it lies outside; text alone decides, nothing is looked up."""
    if "://" in path:
        return path
    inside = os.path.relpath(os.path.normpath(os.path.join(root, path)), root)  # noqa: PTH118 - pathlib does not fold `..`
    return os.path.normpath(os.path.join(root, path)) if inside.startswith("..") else inside  # noqa: PTH118


def tables_of(draft: Draft, reads: Reads, root: Path) -> Iterator[TableRef]:
    """Every table that a source step reads."""
    if reads.table is not None:
        yield reads.table
    elif reads.sql is not None and draft.link is not None:
        for schema, name in tables_in(reads.sql, reads.dialect):
            yield table_ref(draft, draft.link, TableName(name, schema), root)


def mentions(sql: str, target: TableRef) -> bool:
    """Whether the text could read `target`: a cheap no, before sqlglot is imported for a sure answer."""
    return target.name.casefold() in sql.casefold()


@lru_cache(maxsize=4096)
def tables_in(sql: str, dialect: str | None) -> tuple[tuple[str | None, str], ...]:
    """(schema, name) of every table that the SQL reads, in the order met; not its CTEs, not what a template names."""
    text = without_templates(sql)
    found = _parsed(text, dialect)
    if found is None:
        found = _guessed(text)
    return tuple(dict.fromkeys(item for item in found if PLACEHOLDER not in f"{item[0]}{item[1]}"))


def without_templates(sql: str) -> str:
    """The SQL with a name in place of each template, so that it can be parsed."""
    return _ENVIRONMENT.sub(PLACEHOLDER, _EXPRESSION.sub(PLACEHOLDER, _STATEMENT.sub(" ", sql)))


def _parsed(text: str, dialect: str | None) -> list[tuple[str | None, str]] | None:
    """The tables as sqlglot sees them, None when it cannot read the SQL."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse(text, dialect=dialect)
        return [table for statement in statements if statement is not None for table in _tables(statement)]
    except (SqlglotError, ValueError, RecursionError):
        return None


def _tables(statement: Any) -> Iterator[tuple[str | None, str]]:
    from sqlglot import exp

    for table in statement.find_all(exp.Table, bfs=False):
        if isinstance(table.this, exp.Identifier) and (table.db or not _is_cte(table)):
            yield table.db or None, table.name


def _is_cte(table: Any) -> bool:
    """Whether a bare name means a CTE: one of a WITH around it, declared before the place it is used at (or recursive)."""
    from sqlglot import exp

    name, inside, node = table.name.casefold(), None, table
    while node is not None:
        if isinstance(node, exp.CTE):
            inside = node
        clause = node.args.get("with_") or node.args.get("with")
        for cte in clause.expressions if clause is not None else ():
            if cte is inside and not clause.args.get("recursive"):
                break
            if cte.alias.casefold() == name:
                return True
        node = node.parent
    return False


def _guessed(text: str) -> list[tuple[str | None, str]]:
    """Names after FROM and JOIN, for SQL that sqlglot cannot read."""
    text = _COMMENT.sub(" ", text)
    ctes = {_bare(name).casefold() for name in _CTE.findall(text)}
    found: list[tuple[str | None, str]] = []
    for match in _FROM.findall(text):
        parts = [_bare(part) for part in re.findall(_NAME, match)]
        if len(parts) > 1 or parts[0].casefold() not in ctes | {"select", "lateral", "unnest", "values", "only"}:
            found.append((parts[-2] if len(parts) > 1 else None, parts[-1]))
    return found


def _bare(name: str) -> str:
    return name.strip('"`[]')
