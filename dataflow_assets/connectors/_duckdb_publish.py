"""One window into DuckDB: create what is missing, then BEGIN, delete, insert, count, ledger, COMMIT.

Here: the order of the statements. No DDL stands inside the transaction: with DuckDB 2.0.0 a table created in the transaction that
fills it kept wrong statistics, and filters on it found nothing. Not here: opening the file (`_duckdb_session`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from dataflow_assets.connectors._duckdb_session import DUCKDB, affected, rows, translated
from dataflow_assets.connectors._duckdb_types import held_column, reads_alike, route, sql_type
from dataflow_assets.errors import WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.agreement import Agreement, HeldColumn, System, agree
from dataflow_assets.storage.feed import ORDER, Feed, outside_window, require_replaced, require_rows, require_target_rows, window_bounds
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Published, PublishRequest, TableName, Target, WindowFilter, WriteMode

if TYPE_CHECKING:
    import duckdb

SYSTEM = System(DUCKDB, lambda kind, column: sql_type(kind, name=column.name))
_INCOMING, _STAGE = "_dataflow_incoming", "_dataflow_stage"
_BATCH_ROWS = 65_536
_COLUMNS = """
SELECT column_name, data_type, column_default IS NOT NULL, is_nullable FROM duckdb_columns()
WHERE database_name = current_database() AND schema_name = $1 AND table_name = $2 ORDER BY column_index
"""


def publish(connection: duckdb.DuckDBPyConnection, request: PublishRequest, registry: Registry) -> Published:
    """Publish as the only writer of the file."""
    with translated(f"publishing {request.claim.unit} into {request.target.table}", WriteFailed):
        publication = _Publication(connection, request, registry)
        if (done := ledger.settled(publication.ledger_row(), request)) is not None:
            return done
        failpoint("publish.begin")
        created = publication.prepare()
        try:
            return publication.agreement.reported(publication.run())
        except BaseException:
            publication.undo(drop=created)
            raise


@dataclass
class _Publication:
    """One publish under way: `prepare`, then `run`, or `undo`."""

    connection: duckdb.DuckDBPyConnection
    request: PublishRequest
    registry: Registry
    committed: bool = False
    agreement: Agreement = field(init=False)

    @property
    def _target(self) -> Target:
        return self.request.target

    def ledger_row(self) -> ledger.LedgerRow | None:
        """What the ledger says of the unit; a publish into a table that is gone counts for nothing."""
        found = rows(self.connection, ledger.fetch_unit(DUCKDB, self._target, self.request.claim.unit))
        row = ledger.ledger_row(found[0]) if found else None
        return replace(row, entry=None) if row and row.entry and not self._columns() else row

    def prepare(self) -> bool:
        """Create the table unless it is there; whether it did."""
        created = not self._columns()
        if created:
            table = self._create_table()
            if not self._target.options.auto_create:
                raise WriteFailed(f"table {self._target.table} does not exist and auto_create is off", hint=f"{table.text};")
            # before the table is made: a kill in between must not leave an empty table that counts as published
            rows(self.connection, ledger.forget_publications(DUCKDB, self._target.table))
            rows(self.connection, table)
        try:
            self._plan(self._columns())
        except BaseException:
            self.undo(drop=created)
            raise
        return created

    def undo(self, *, drop: bool) -> None:
        """Leave the target as it was: roll back, and drop a table that this publish has made."""
        import duckdb

        if self.committed:
            return
        with suppress(duckdb.TransactionException):  # none is open when the failure came before BEGIN
            self.connection.execute("ROLLBACK")
        if drop:
            rows(self.connection, Statement(f"DROP TABLE IF EXISTS {DUCKDB.table(self._target.table)}"))

    def run(self) -> Published:
        """The transaction."""
        mode, connection = self._target.mode, self.connection
        if mode is WriteMode.UPSERT:
            self._load_incoming()
        connection.execute("BEGIN TRANSACTION")
        deleted = None
        if mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}:
            deleted = affected(connection, sql.delete_rows(DUCKDB, self._target.table, self._predicate()))
        require_replaced(deleted, self.request)
        failpoint("publish.after_delete")
        written = self._insert()
        if mode is not WriteMode.UPSERT:
            found = (
                written
                if mode is WriteMode.APPEND
                else rows(connection, sql.count_rows(DUCKDB, self._target.table, self._predicate()))[0][0]
            )
            require_target_rows(found, self.request)
        self.registry.keep(self.request, self._there.values(), DUCKDB, partial(rows, connection))
        rows(connection, ledger.publish_unit(DUCKDB, self.request))
        recorded = rows(connection, ledger.fetch_unit(DUCKDB, self._target, self.request.claim.unit))
        ledger.confirm(ledger.ledger_row(recorded[0]) if recorded else None, self.request)
        failpoint("publish.before_commit")
        connection.execute("COMMIT")
        self.committed = True
        failpoint("publish.after_commit")
        return Published(self.request.rows, self.request.claim.generation, deleted=deleted, target_rows=written)

    def _columns(self) -> dict[str, HeldColumn]:
        table = self._target.table
        found = rows(self.connection, Statement(_COLUMNS, (table.schema, table.name)))
        return {name: held_column(name, kind, filled=filled, nullable=null) for name, kind, filled, null in found}

    def _create_table(self) -> Statement:
        given: Mapping[str, str] = self._target.options.columns
        inferred = {item.name: sql_type(item.type, name=item.name) for item in self.request.schema if item.name not in given}
        return sql.create_table(DUCKDB, self._target.table, {**given, **inferred})

    def _plan(self, columns: Mapping[str, HeldColumn]) -> None:
        """Let the columns agree, and work out their ways. Raises before anything is written.

        The table is changed before the transaction, by itself: a new column is null and harmless until the rows come.
        """
        self.agreement = agree(self.request, columns.values(), SYSTEM)
        self.request = self.agreement.request(self.request)
        if self.agreement.alters:
            for statement in self.agreement.statements(self.request, DUCKDB):
                rows(self.connection, statement)
            columns = self._columns()
            failpoint("publish.after_alter")
        self._there = columns
        kinds = {item.name: columns[item.name].declared for item in self.request.schema}
        self._routes = {item.name: route(item.name, item.type, kinds[item.name]) for item in self.request.schema}
        self._fast = bool(self.request.paths) and all(reads_alike(item.type, kinds[item.name]) for item in self.request.schema)
        self._bounds = window_bounds(self.request, self._routes)

    def _predicate(self, *, first: int = 1) -> Statement | None:
        if self._bounds is None or self.request.claim.unit.window is None:
            return None
        bounds = WindowFilter(self._bounds.column, self.request.claim.unit.window, self._target.timezone).bounds(self._bounds.start.type)
        return sql.window_predicate(DUCKDB, self._bounds.column, bounds, first=first)

    def _insert(self) -> int:
        table = self._target.table
        if self._target.mode is WriteMode.UPSERT:
            return self._upsert()
        if self._fast:
            return self._insert_files()
        columns = self._casts()
        return self._from_feed(sql.insert_select(DUCKDB, table, columns, DUCKDB.quote(_STAGE)), ordered=False)

    def _casts(self) -> dict[str, str]:
        return {name: f"CAST({DUCKDB.quote(name)} AS {way.cast})" if way.cast else DUCKDB.quote(name) for name, way in self._routes.items()}

    def _insert_files(self) -> int:
        """DuckDB reads the stage by itself, in parallel and in any order, which is twice as fast as in the stage's.

        It reads in two halves, so that there is a middle to be interrupted in.
        """
        self._check_files()
        self.connection.execute("SET preserve_insertion_order = false")
        try:
            return self._insert_halves()
        finally:
            self.connection.execute("RESET preserve_insertion_order")

    def _insert_halves(self) -> int:
        paths = list(self.request.paths)
        columns = {name: DUCKDB.quote(name) for name in self._routes}
        text = sql.insert_select(DUCKDB, self._target.table, columns, _parquet(1))
        middle = (len(paths) + 1) // 2
        written = affected(self.connection, Statement(text, (paths[:middle],)))
        failpoint("publish.mid_copy")
        return written + (affected(self.connection, Statement(text, (paths[middle:],))) if paths[middle:] else 0)

    def _check_files(self) -> None:
        """Count the stage, and its rows outside the window, before any of it goes in."""
        predicate = self._predicate(first=2)
        inside = f"coalesce({predicate.text}, false)" if predicate else "true"
        values = (list(self.request.paths), *(predicate.values if predicate else ()))
        counts = {"staged": "count(*)", "strays": f"count(*) FILTER (WHERE NOT {inside})"}
        ((count, strays),) = rows(self.connection, Statement(sql.select(DUCKDB, counts, _parquet(1)), values))
        require_rows(count, self.request)
        if strays and self._bounds is not None:
            raise outside_window(self._bounds.column, strays, self.request.claim.unit)

    def _from_feed(self, text: str, *, ordered: bool) -> int:
        feed = Feed(self.request, self._routes, self._bounds, batch_rows=_BATCH_ROWS, ordered=ordered)
        self.connection.register(_STAGE, feed.reader())
        try:
            written = affected(self.connection, Statement(text))
        except Exception as error:
            feed.raise_own(error)
            raise
        finally:
            self.connection.unregister(_STAGE)
        feed.require_all()
        return written

    def _load_incoming(self) -> None:
        """The stage in a temporary table, in its order, before the transaction begins."""
        kinds = {name: sql_type(way.wire, name=name) for name, way in self._routes.items()} | {ORDER: "BIGINT"}
        incoming = sql.create_table(DUCKDB, TableName(_INCOMING), kinds).text.replace("CREATE TABLE", "CREATE TEMPORARY TABLE", 1)
        rows(self.connection, Statement(incoming))
        columns = {name: DUCKDB.quote(name) for name in kinds}
        self._from_feed(sql.insert_select(DUCKDB, TableName(_INCOMING), columns, DUCKDB.quote(_STAGE)), ordered=True)

    def _upsert(self) -> int:
        """Keyed delete and insert: DuckDB needs no unique index for it. Of rows with equal keys the last of the stage wins."""
        columns, incoming = self._casts(), DUCKDB.quote(_INCOMING)
        keys = {key: columns[key] for key in self._target.keys}
        rows(self.connection, sql.delete_matching(DUCKDB, self._target.table, incoming, keys))
        latest = sql.latest_rows(DUCKDB, incoming, keys=list(keys.values()), order=ORDER)
        return affected(self.connection, Statement(sql.insert_select(DUCKDB, self._target.table, columns, latest)))


def _parquet(position: int) -> str:
    return f"read_parquet({DUCKDB.placeholder(position)}, hive_partitioning = false)"
