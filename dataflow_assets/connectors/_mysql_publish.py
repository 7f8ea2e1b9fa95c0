"""One window into MySQL, in one transaction: lock, delete, load, count, ledger, commit.

Here: the order of the statements, and which rows may enter. Only DML stands inside the transaction, for each DDL statement would
commit it; the table is made before. A swap by RENAME TABLE is not used for `replace`: it is DDL, so the ledger row would commit apart
from it. Not here: the table (`_mysql_target`), the text of the rows (`_mysql_text`), a COMMIT whose reply was lost (`mysql`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from dataflow_assets.connectors import _mysql_target as tables
from dataflow_assets.connectors import _mysql_wire as wire
from dataflow_assets.connectors._mysql_session import (
    LOCAL_OFF,
    MYSQL,
    NO_TABLE,
    CommitUnknown,
    code_of,
    failure,
    fetch,
    refuse_warnings,
    run,
    translated,
)
from dataflow_assets.connectors._mysql_text import Spelling
from dataflow_assets.connectors._mysql_types import MySQLRoute, TargetColumn, changed_type, held_column, route
from dataflow_assets.errors import ConnectionFailed, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.agreement import Agreement, System, agree
from dataflow_assets.storage.feed import Feed, WindowBounds, require_replaced, require_target_rows, window_bounds
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Published, PublishRequest, TableName, Target, WriteMode

if TYPE_CHECKING:
    import pymysql

BATCH_ROWS = 16_384
INSERT_BYTES = 1024 * 1024
_INCOMING = "_dataflow_incoming"
_ATTEMPTS = 5
_COLUMN_EXISTS = 1060
SYSTEM = System(MYSQL, changed_type)


class _TableChanged(Exception):
    """Somebody dropped or altered the table between the plan and the transaction, or made the same change a moment earlier."""


def publish(connection: pymysql.Connection[Any], request: PublishRequest, registry: Registry) -> Published:
    """Publish over a connection outside any transaction. Raises CommitUnknown beside the errors of the protocol."""
    doing = f"publishing {request.claim.unit} into {request.target.table}"
    with translated(doing, WriteFailed):
        for _ in range(_ATTEMPTS):
            publication = _Publication(connection, request, registry, doing)
            if (done := ledger.settled(publication.ledger_row(), request)) is not None:
                return done
            failpoint("publish.begin")
            try:
                return publication.run()
            except _TableChanged:
                continue
    raise WriteFailed(f"{doing}: the table was changed {_ATTEMPTS} times meanwhile", hint="see who else alters it", transient=True)


@dataclass
class _Publication:
    """One publish under way."""

    connection: pymysql.Connection[Any]
    request: PublishRequest
    registry: Registry
    doing: str
    created: bool = False
    columns: Mapping[str, TargetColumn] = field(default_factory=dict)
    routes: Mapping[str, MySQLRoute] = field(default_factory=dict)
    agreement: Agreement = field(init=False)

    @property
    def _target(self) -> Target:
        return self.request.target

    @property
    def _table(self) -> TableName:
        return self.request.target.table

    def ledger_row(self) -> ledger.LedgerRow | None:
        """What the ledger says of the unit; a publish into a table that is gone counts for nothing."""
        row = self._unit_row()
        return replace(row, entry=None) if row and row.entry and not tables.exists(self.connection, self._table) else row

    def _unit_row(self, *, lock: str = "") -> ledger.LedgerRow | None:
        statement = ledger.fetch_unit(MYSQL, self._target, self.request.claim.unit)
        rows = fetch(self.connection, Statement(statement.text + lock, statement.values))
        return ledger.ledger_row(rows[0]) if rows else None

    def run(self) -> Published:
        """Make the table where it is missing, then the transaction; after a failure the target is as it was."""
        import pymysql

        try:
            self._prepare()
            done = self._write()
            failpoint("publish.before_commit")
        except BaseException as error:
            self._undo()
            if isinstance(error, Exception) and code_of(error) in {NO_TABLE, _COLUMN_EXISTS}:
                raise _TableChanged from error
            raise
        if done.already:
            self._undo()
            return done
        self._commit()
        failpoint("publish.after_commit")
        with suppress(pymysql.MySQLError):  # it goes with the session at the latest
            self._drop_incoming()
        return done

    def _prepare(self) -> None:
        """Everything that may fail before a row is touched."""
        self.columns = tables.columns_of(self.connection, self._table)
        if not self.columns:
            self.created = tables.make(self.connection, self.request)
            self.columns = tables.columns_of(self.connection, self._table)
        tables.require_innodb(self.connection, self._table)
        self._agree()
        self.routes = {item.name: route(item.name, item.type, self.columns[item.name]) for item in self.request.schema}
        _ = self._window
        if self._target.mode is WriteMode.UPSERT:
            tables.require_one_index(self.connection, self._target, self.request.schema.names)
            self._load_incoming()

    def _agree(self) -> None:
        """Change the table where the schema policy says so: before the transaction, which a change would end."""
        agreement = agree(self.request, map(held_column, self.columns.values()), SYSTEM)
        if agreement.alters:
            tables.alter(self.connection, self.request, agreement)
            self.columns = tables.columns_of(self.connection, self._table)
            failpoint("publish.after_alter")
        self.request, self.agreement = agreement.request(self.request), agreement

    @cached_property
    def _window(self) -> WindowBounds | None:
        return window_bounds(self.request, self.routes)

    @cached_property
    def _predicate(self) -> Statement | None:
        if self._window is None:
            return None
        return sql.window_predicate(MYSQL, self._window.column, (self._window.start.as_py(), self._window.end.as_py()))

    def _write(self) -> Published:
        """The transaction up to its COMMIT."""
        mode, connection = self._target.mode, self.connection
        tables.begin(connection, self._target, alone=mode in {WriteMode.REPLACE, WriteMode.UPSERT})
        self._pin()
        deleted = None
        if mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}:
            deleted = run(connection, sql.delete_rows(MYSQL, self._table, self._predicate))
        require_replaced(deleted, self.request)
        failpoint("publish.after_delete")
        written = self._upsert() if mode is WriteMode.UPSERT else self._load(Spelling(self._table, self.routes))
        if mode is not WriteMode.UPSERT:
            self._require(self._count(written))
        done = Published(self.request.rows, self.request.claim.generation, deleted=deleted, target_rows=written)
        return self._record() or self.agreement.reported(done)

    def _pin(self) -> None:
        """Touch the table, which keeps others from altering it until the transaction ends, and see that it is as planned."""
        fetch(self.connection, Statement(sql.select(MYSQL, None, MYSQL.table(self._table)) + " LIMIT 0"))
        if tables.columns_of(self.connection, self._table) != self.columns:
            raise _TableChanged

    def _require(self, found: int) -> None:
        """Hold the count against the stage's; an older attempt that sees the rows of a newer one as well is fenced."""
        if found != self.request.rows:
            ledger.settled(self._unit_row(), self.request)
        require_target_rows(found, self.request)

    def _count(self, written: int) -> int:
        if self._target.mode is WriteMode.APPEND:
            return written
        ((found,),) = fetch(self.connection, sql.count_rows(MYSQL, self._table, self._predicate))
        return int(found)

    def _record(self) -> Published | None:
        """Write the ledger row, unless a newer claim came meanwhile; a result when another try of this claim was faster.

        The row is locked only now: a claim waits for no publish but one that is about to commit.
        """
        if (done := ledger.settled(self._unit_row(lock=" FOR UPDATE"), self.request)) is not None:
            return done
        self.registry.keep(self.request, map(held_column, self.columns.values()), MYSQL, partial(fetch, self.connection))
        run(self.connection, ledger.publish_unit(MYSQL, self.request))
        ledger.confirm(self._unit_row(), self.request)
        return None

    def _commit(self) -> None:
        import pymysql

        try:
            self.connection.commit()
        except pymysql.MySQLError as error:
            cause = failure(error, f"committing {self.request.claim.unit} into {self._table}", WriteFailed)
            raise (CommitUnknown(cause.message) if isinstance(cause, ConnectionFailed) else cause) from error

    def _undo(self) -> None:
        """Roll back, and drop a table that this publish has made; on a connection that is lost the server does the first."""
        import pymysql

        try:
            self.connection.rollback()
            self._drop_incoming()
            if self.created:
                tables.drop_if_empty(self.connection, self._table)
        except (pymysql.MySQLError, OSError):
            return

    def _load(self, spelling: Spelling) -> int:
        """The stage into a table; how many rows it took."""
        feed = Feed(self.request, self.routes, self._window, batch_rows=BATCH_ROWS, ordered=False)
        try:
            written = self._send(spelling, feed)
        except Exception as error:
            feed.raise_own(error)
            raise
        feed.require_all()
        return written

    def _send(self, spelling: Spelling, feed: Feed) -> int:
        """LOAD DATA LOCAL where the server takes it, else INSERTs of thousands of rows."""
        import pymysql

        try:
            with feed.reader() as reader:
                outcome = wire.load(self.connection, spelling.load_statement(), (spelling.lines(batch) for batch in reader))
        except pymysql.MySQLError as error:
            if code_of(error) not in LOCAL_OFF or feed.rows:
                raise
            return self._insert(spelling, feed)
        refuse_warnings(self.connection, outcome, self.doing)
        return outcome.rows

    def _insert(self, spelling: Spelling, feed: Feed) -> int:
        ((largest,),) = fetch(self.connection, Statement("SELECT @@max_allowed_packet"))
        written = 0
        with feed.reader() as reader:
            for batch in reader:
                for statement in spelling.inserts(batch, bytes_=min(INSERT_BYTES, int(largest) // 2)):
                    if len(statement) >= largest:
                        hint = "raise max_allowed_packet on the server, or allow local_infile there"
                        raise WriteFailed(f"{self.doing}: a row needs {len(statement)} bytes, max_allowed_packet is {largest}", hint=hint)
                    outcome = wire.execute(self.connection, statement)
                    refuse_warnings(self.connection, outcome, self.doing)
                    written += outcome.rows
        return written

    def _load_incoming(self) -> None:
        """The stage into a temporary table, before the transaction begins: of rows with equal keys the last takes the others' place.

        Its columns compare as the target's do.
        """
        self._drop_incoming()
        keys = self._target.keys
        kinds = {name: _like(self.columns[name], required=name in keys) for name in self.routes}
        statement = sql.create_table(MYSQL, self._incoming, kinds, primary_key=keys, options="ENGINE=InnoDB")
        run(self.connection, Statement(statement.text.replace("CREATE TABLE", "CREATE TEMPORARY TABLE", 1)))
        self._load(Spelling(self._incoming, self.routes, replaces=True))

    @property
    def _incoming(self) -> TableName:
        return TableName(_INCOMING, self._table.schema)

    def _drop_incoming(self) -> None:
        if self._target.mode is WriteMode.UPSERT:
            run(self.connection, Statement(f"DROP TEMPORARY TABLE IF EXISTS {MYSQL.table(self._incoming)}"))

    def _upsert(self) -> int:
        """Insert or update; how many rows there were, which the count of touched rows, two for an update, does not say."""
        columns = {name: MYSQL.quote(name) for name in self.routes}
        text = sql.upsert_select(MYSQL, self._table, columns, MYSQL.table(self._incoming), keys=self._target.keys)
        refuse_warnings(self.connection, wire.execute(self.connection, text), self.doing)
        ((rows,),) = fetch(self.connection, sql.count_rows(MYSQL, self._incoming))
        return int(rows)


def _like(column: TargetColumn, *, required: bool) -> str:
    """A column of the type and collation of the target's."""
    collation = f" COLLATE {column.collation}" if column.collation else ""
    return f"{column.definition}{collation} {'NOT NULL' if required else 'NULL'}"
