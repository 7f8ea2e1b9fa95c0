"""One window into Postgres, in one transaction: lock, ledger, delete, copy, count, ledger, commit.

Here: the order of the statements, and which rows may enter. Not here: how values are converted (`_postgres_types`), connections
and their errors (`_postgres_session`), a COMMIT whose reply was lost (`postgres`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from dataflow_assets.connectors._postgres_session import (
    POSTGRES,
    CommitUnknown,
    count_affected,
    failure,
    literal,
    literals,
    lock_key,
    run,
    translated,
    unit_lock,
)
from dataflow_assets.connectors._postgres_types import TargetColumn, held_column, route, sql_type
from dataflow_assets.errors import ConnectionFailed, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.agreement import Agreement, System, agree
from dataflow_assets.storage.feed import ORDER, Feed, Route, WindowBounds, require_replaced, require_target_rows, window_bounds
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Published, PublishRequest, TableName, Target, WriteMode

SYSTEM = System(POSTGRES, lambda kind, column: sql_type(kind, name=column.name))
EARLY_LOCK_SECONDS = 2.0
"""How long a publish of rows that are still being staged waits for somebody's lock."""
COPY_ROWS = 4_096  # measured: the server need not wait for the next batch, and 5 million rows take 0.3 s less than in batches of 16k rows
_INCOMING = "_dataflow_incoming"
_GONE = {
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "idle_in_transaction_session_timeout": "5min",
}
_COLUMNS = """
SELECT a.attname::text, t.typname::text, format_type(t.oid, NULL), CASE WHEN d.typtype = 'd' THEN d.typtypmod ELSE a.atttypmod END,
    NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> '', a.attidentity = 'a',
    NOT (a.attnotnull OR d.typnotnull), d.typtype = 'd'
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type d ON d.oid = a.atttypid JOIN pg_type t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_HANDS_ON = """
SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
AND (c.relkind NOT IN ('r', 'p') OR EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal))
"""
_UNIQUE = """
SELECT (SELECT array_agg(a.attname::text) FROM pg_attribute a
    WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
"""


def publish(connection: Any, request: PublishRequest, *, lock_seconds: float, registry: Registry) -> Published:
    """Publish over an ADBC connection that is outside any transaction. Raises CommitUnknown beside the errors of the protocol."""
    publication = _Publication(connection, request, registry)
    with translated(f"publishing {request.claim.unit} into {request.target.table}", WriteFailed):
        publication.lock(lock_seconds)
        if (done := ledger.settled(publication.ledger_row(), request)) is not None:
            return done
        failpoint("publish.begin")
        result = publication.write()
        publication.record()
        failpoint("publish.before_commit")
    _commit(connection, request)
    failpoint("publish.after_commit")
    return result


def _commit(connection: Any, request: PublishRequest) -> None:
    import adbc_driver_manager

    try:
        connection.commit()
    except adbc_driver_manager.Error as error:
        cause = failure(error, f"committing {request.claim.unit} into {request.target.table}", WriteFailed)
        raise (CommitUnknown(cause.message) if isinstance(cause, ConnectionFailed) else cause) from error


@dataclass
class _Publication:
    """One publish under way; its methods are called in their order in this file."""

    connection: Any
    request: PublishRequest
    registry: Registry
    created: bool = False
    routes: Mapping[str, Route] = field(default_factory=dict)

    @property
    def _target(self) -> Target:
        return self.request.target

    @property
    def _table(self) -> TableName:
        return self.request.target.table

    def lock(self, seconds: float) -> None:
        """Wait for the publishes that may not run beside this one. Everybody locks table, then unit, so nobody deadlocks.

        Upsert and replace touch rows of other units, so they have the table to themselves; windows run side by side.
        `_GONE` ends a session whose client is gone without a word, which would hold its locks for hours.
        """
        if self.request.known_rows is None:
            seconds = min(seconds, EARLY_LOCK_SECONDS)
        shared = "_shared" if self._target.mode in {WriteMode.APPEND, WriteMode.REPLACE_WINDOW} else ""
        settings = {"TimeZone": "UTC", "lock_timeout": f"{int(seconds * 1000)}ms", **_GONE}
        calls = [f"set_config('{name}', '{value}', true)" for name, value in settings.items()]
        run(self.connection, Statement(f"SELECT {', '.join(calls)}"))
        run(self.connection, Statement(f"SELECT pg_advisory_xact_lock{shared}({lock_key('table', str(self._table))})::text"))
        run(self.connection, Statement(f"SELECT pg_advisory_xact_lock({unit_lock(self._target, self.request.claim.unit)})::text"))

    def ledger_row(self) -> ledger.LedgerRow | None:
        """What the ledger says of the unit; a publish into a table that is gone counts for nothing."""
        rows = run(self.connection, ledger.fetch_unit(POSTGRES, self._target, self.request.claim.unit))
        row = ledger.ledger_row(rows[0]) if rows else None
        return replace(row, entry=None) if row and row.entry and not self._columns() else row

    def write(self) -> Published:
        """Delete, copy and count."""
        self._require_undoable()
        columns, agreement = self._agreed(self._columns_or_create())
        by_name = {column.name: column for column in columns}
        routes = self.routes = {item.name: route(item.name, item.type, by_name[item.name]) for item in self.request.schema}
        mode = self._target.mode
        self.request.require_wanted()
        deleted = None
        if mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}:
            deleted = 0 if self.created else count_affected(self.connection, sql.delete_rows(POSTGRES, self._table, self._predicate).text)
        require_replaced(deleted, self.request)
        failpoint("publish.after_delete")
        identity = any(column.always_identity and column.name in self.request.schema.names for column in columns)
        written = self._copy(routes, overriding=" OVERRIDING SYSTEM VALUE" if identity else "")
        self.registry.keep(self.request, map(held_column, columns), POSTGRES, partial(run, self.connection))
        self._index()
        done = Published(self.request.rows, self.request.claim.generation, deleted=deleted, target_rows=self._count(written))
        return agreement.reported(done)

    def _require_undoable(self) -> None:
        """Rows that a trigger or a foreign table hands on are not taken back by a rollback: they wait for their checks."""
        early = self.request.known_rows is None
        if early and run(self.connection, Statement(_HANDS_ON, (self._table.schema, self._table.name))):
            self.request.require_checked()

    def _columns_or_create(self) -> list[TargetColumn]:
        if found := self._columns():
            return found
        if not self._target.options.auto_create:
            raise WriteFailed(f"table {self._table} does not exist and auto_create is off", hint=f"{self._create_table().text};")
        if self._target.mode is not WriteMode.REPLACE or run(self.connection, ledger.published_keys(POSTGRES, self._table)):
            self.request.require_checked()  # what follows is locked until the commit, and others want it
        # Taken after table and unit, and only while the table is missing: neighbours then wait for its creator to commit.
        run(self.connection, Statement(f"SELECT pg_advisory_xact_lock({lock_key('create', str(self._table))})::text"))
        if found := self._columns():
            return found
        run(self.connection, ledger.forget_publications(POSTGRES, self._table))
        count_affected(self.connection, self._create_table().text)
        if self._target.mode is WriteMode.UPSERT:
            count_affected(self.connection, sql.create_index(POSTGRES, self._table, self._target.keys, unique=True).text)
        self.created = True
        return self._columns()

    def _columns(self) -> list[TargetColumn]:
        rows = run(self.connection, Statement(_COLUMNS, (self._table.schema, self._table.name)))
        return [TargetColumn(*row) for row in rows]

    def _create_table(self) -> Statement:
        given: Mapping[str, str] = self._target.options.columns
        inferred = {item.name: sql_type(item.type, name=item.name) for item in self.request.schema if item.name not in given}
        return sql.create_table(POSTGRES, self._table, {**given, **inferred})

    def _agreed(self, columns: list[TargetColumn]) -> tuple[list[TargetColumn], Agreement]:
        """Change the table where the schema policy says so: before any lock on it, so that nobody's lock has to grow."""
        agreement = agree(self.request, map(held_column, columns), SYSTEM)
        self.request = agreement.request(self.request)
        if not agreement.alters:
            return columns, agreement
        self.request.require_checked()  # an ALTER TABLE keeps readers out until the commit
        for statement in agreement.statements(self.request, POSTGRES):
            run(self.connection, statement)
        failpoint("publish.after_alter")
        return self._columns(), agreement

    @cached_property
    def _window(self) -> WindowBounds | None:
        return window_bounds(self.request, self.routes)

    @cached_property
    def _predicate(self) -> Statement | None:
        if self._window is None:
            return None
        bounds = (self._window.start.as_py(), self._window.end.as_py())
        dialect = literals([literal(bound) for bound in bounds])
        return Statement(sql.window_predicate(dialect, self._window.column, bounds).text)

    def _copy(self, routes: Mapping[str, Route], *, overriding: str) -> int:
        """Into the target itself where the types line up, else through a temporary table and casts; how many rows it wrote."""
        if self._target.mode is not WriteMode.UPSERT and all(way.cast is None for way in routes.values()):
            return self._ingest(self._table, routes)
        incoming = TableName(_INCOMING)
        kinds = {name: sql_type(way.wire, name=name) for name, way in routes.items()} | {ORDER: "bigint"}
        count_affected(
            self.connection,
            sql.create_table(POSTGRES, incoming, kinds).text.replace("CREATE TABLE", "CREATE TEMPORARY TABLE", 1) + " ON COMMIT DROP",
        )
        self._ingest(incoming, routes)
        columns = {name: f"{POSTGRES.quote(name)}::{way.cast}" if way.cast else POSTGRES.quote(name) for name, way in routes.items()}
        if self._target.mode is not WriteMode.UPSERT:
            source = f"{POSTGRES.table(incoming)} ORDER BY {POSTGRES.quote(ORDER)}"
            return count_affected(self.connection, sql.insert_select(POSTGRES, self._table, columns, source, overriding=overriding))
        return self._upsert(columns, overriding=overriding)

    def _upsert(self, columns: Mapping[str, str], *, overriding: str) -> int:
        """Of rows with equal keys the last of the stage wins."""
        keys = self._target.keys
        rows = run(self.connection, Statement(_UNIQUE, (self._table.schema, self._table.name)))
        if not any(set(names) == set(keys) for (names,) in rows if names):
            text = sql.create_index(POSTGRES, self._table, keys, unique=True).text
            raise WriteFailed(f"table {self._table} has no unique index on the upsert keys {', '.join(keys)}", hint=f"{text};")
        source = sql.latest_rows(POSTGRES, POSTGRES.quote(_INCOMING), keys=[columns[key] for key in keys], order=ORDER)
        return count_affected(self.connection, sql.upsert_select(POSTGRES, self._table, columns, source, keys=keys, overriding=overriding))

    def _ingest(self, table: TableName, routes: Mapping[str, Route]) -> int:
        feed = Feed(self.request, routes, self._window, batch_rows=COPY_ROWS, ordered=table.schema is None)
        place = {"temporary": True} if table.schema is None else {"db_schema_name": table.schema}
        with self.connection.cursor() as cursor:
            try:
                cursor.adbc_ingest(table.name, feed.reader(), mode="append", **place)
            except Exception as error:
                feed.raise_own(error)
                raise
        feed.require_all()
        return feed.rows

    def _index(self) -> None:
        """A table made for windows gets an index on its event time, because every publish deletes and counts by it."""
        if self.created and self._window is not None:
            count_affected(self.connection, sql.create_index(POSTGRES, self._table, [self._window.column]).text)

    def _count(self, written: int) -> int:
        """Count what the target now holds, and roll back when it is not what was sent."""
        if self._target.mode is WriteMode.UPSERT:
            return written
        if self._target.mode is WriteMode.APPEND:
            require_target_rows(written, self.request)
            return written
        ((found,),) = run(self.connection, sql.count_rows(POSTGRES, self._table, self._predicate))
        require_target_rows(found, self.request)
        return int(found)

    def record(self) -> None:
        """Write the ledger row, unless a newer claim came while the rows were copied."""
        run(self.connection, ledger.publish_unit(POSTGRES, self.request))
        ledger.confirm(self.ledger_row(), self.request)
