"""One window into Snowflake: files into a temporary table first, then one transaction: ledger, delete, insert, count, ledger, commit.

Here: the order of the statements. Not here: how values travel (`_snowflake_types`), sessions and their errors (`_snowflake_session`).

DDL commits whatever is open, so all of it comes before the transaction. That is also why `replace` deletes and inserts: ALTER TABLE
SWAP WITH is DDL, and would be visible without its ledger row, or the other way round.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from dataflow_assets.connectors._parquet_files import parquet_files
from dataflow_assets.connectors._snowflake_session import (
    SNOWFLAKE,
    CommitUnknown,
    Session,
    Sessions,
    TargetColumn,
    driver_errors,
    failure,
    translated,
)
from dataflow_assets.connectors._snowflake_types import (
    Declared,
    held_column,
    lengthens,
    route,
    sql_type,
    staged,
    staged_kind,
    staged_type,
    taken,
)
from dataflow_assets.errors import ConnectionFailed, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.agreement import Agreement, HeldColumn, System, agree
from dataflow_assets.storage.feed import (
    ORDER,
    Feed,
    Route,
    WindowBounds,
    require_replaced,
    require_rows,
    require_target_rows,
    window_bounds,
)
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Published, PublishRequest, TableName, Target, WindowFilter, WriteMode

SYSTEM = System(SNOWFLAKE, lambda kind, column: sql_type(kind, name=column.name), widens=lengthens)
_BATCH_ROWS = 32_768
_FILE_BYTES = 96 * 1024 * 1024
"""Arrow bytes of one file; as Parquet it is a fraction of that, near the 100 to 250 MB that Snowflake loads best at most."""
_ENDED = "Snowflake ended the transaction before its COMMIT; nothing was published"
_LOST_REPLY = "the reply to COMMIT was lost; the ledger shows that it happened"


def publish(sessions: Sessions, request: PublishRequest, registry: Registry) -> Published:
    """Publish, and look into the ledger when it is not known whether the COMMIT happened."""
    try:
        with sessions.use() as session, translated(f"publishing {request.claim.unit} into {request.target.table}", WriteFailed):
            publication = _Publication(session, request, registry)
            if (done := ledger.settled(publication.ledger_row(), request)) is not None:
                return done
            failpoint("publish.begin")
            publication.prepare()
            with publication.incoming():
                return publication.agreement.reported(publication.run())
    except CommitUnknown:
        if not _committed(sessions, request):
            raise
        return Published(request.rows, request.claim.generation, note=_LOST_REPLY)


def _committed(sessions: Sessions, request: PublishRequest) -> bool:
    """Whether the ledger shows the publish, asked once the broken session has let go of the ledger."""
    with sessions.use() as session, translated(f"asking the ledger about {request.claim.unit}", ConnectionFailed):
        publication = _Publication(session, request, Registry())
        publication.lock()
        row = publication.ledger_row()
        session.rollback()
        return ledger.recorded(row, request.claim)


class _Publication:
    """One publish under way; its public methods are called in their order in this file."""

    agreement: Agreement

    def __init__(self, session: Session, request: PublishRequest, registry: Registry) -> None:
        self._session, self.request, self._registry = session, request, registry
        suffix = uuid.uuid4().hex[:12].upper()
        self._incoming = TableName(f"_DATAFLOW_INCOMING_{suffix}", request.target.table.schema)
        self._transaction = ""

    @property
    def _target(self) -> Target:
        return self.request.target

    @property
    def _table(self) -> TableName:
        return self.request.target.table

    def lock(self) -> None:
        """Begin, and hold the ledger: an UPDATE has the whole table to itself until its transaction ends."""
        self._transaction = self._session.begin()
        self._session.affected(ledger.lock_units(SNOWFLAKE, self._target, self.request.claim.unit))

    def ledger_row(self) -> ledger.LedgerRow | None:
        """What the ledger says of the unit; a publish into a table that is gone counts for nothing."""
        rows = self._session.fetch(ledger.fetch_unit(SNOWFLAKE, self._target, self.request.claim.unit))
        row = ledger.ledger_row(rows[0]) if rows else None
        return replace(row, entry=None) if row and row.entry and not self._session.columns(self._table) else row

    def prepare(self) -> None:
        """Make the table unless it is there, and find the way of each column."""
        found = self._session.columns(self._table)
        if not found:
            self._create()
            found = self._session.columns(self._table)
        found = self._agree(found)
        self._declared = {name: Declared.of(column.declared) for name, column in found.items()}

    def _agree(self, found: dict[str, TargetColumn]) -> dict[str, TargetColumn]:
        """Change the table where the schema policy says so; each change commits by itself, and is null and harmless without its rows."""
        self.agreement = agree(self.request, _held(found), SYSTEM)
        self.request = self.agreement.request(self.request)
        if self.agreement.alters:
            for statement in self.agreement.statements(self.request, SNOWFLAKE):
                self._session.fetch(statement)
            found = self._session.columns(self._table)
            failpoint("publish.after_alter")
        self._held = _held(found)
        return found

    def _create(self) -> None:
        """Make the table; before that, forget what was published into an older one of its name.

        Whoever holds the ledger and sees no table knows that nobody has published into a new one: that takes the ledger too.
        """
        table = self._create_table()
        if not self._target.options.auto_create:
            raise WriteFailed(f"table {self._table} does not exist and auto_create is off", hint=f"{table.text};")
        self.lock()
        if not self._session.columns(self._table):
            self._session.affected(ledger.forget_publications(SNOWFLAKE, self._table))
        self._session.commit()
        self._session.fetch(table)

    def _create_table(self) -> Statement:
        given: Mapping[str, str] = self._target.options.columns
        inferred = {item.name: sql_type(item.type, name=item.name) for item in self.request.schema if item.name not in given}
        return sql.create_table(SNOWFLAKE, self._table, {**given, **inferred})

    @cached_property
    def _routes(self) -> dict[str, Route]:
        return {item.name: route(item.name, item.type, self._declared[item.name]) for item in self.request.schema}

    @cached_property
    def _staged(self) -> dict[str, str]:
        """Column -> its name in the files and in the staging table, which needs no quotes anywhere."""
        return {name: f"C{number}" for number, name in enumerate(self._routes)}

    @cached_property
    def _window(self) -> WindowBounds | None:
        return window_bounds(self.request, self._routes)

    @cached_property
    def _predicate(self) -> Statement | None:
        bounds, window = self._window, self.request.claim.unit.window
        if bounds is None or window is None:
            return None
        filter_ = WindowFilter(bounds.column, window, self._target.timezone)
        return sql.window_predicate(SNOWFLAKE, bounds.column, filter_.bounds(bounds.start.type))

    @contextmanager
    def incoming(self) -> Iterator[None]:
        """The stage in a temporary table, which this session alone sees and which ends with it, whatever happens to the process."""
        kinds = {self._staged[name]: staged_type(way.wire) for name, way in self._routes.items()}
        if self._ordered:
            kinds[ORDER] = "NUMBER(19,0)"
        table, place = sql.create_table(SNOWFLAKE, self._incoming, kinds).text, SNOWFLAKE.table(self._incoming)
        self._session.fetch(Statement(table.replace("CREATE TABLE IF NOT EXISTS", "CREATE TEMPORARY TABLE", 1)))
        self._session.fetch(Statement(f"CREATE TEMPORARY STAGE {place}"))
        self._load()
        yield  # after an error the session is closed, and all that was open or temporary ends with it
        with suppress(*driver_errors()):
            for kind in ("TABLE", "STAGE"):
                self._session.fetch(Statement(f"DROP {kind} IF EXISTS {place}"))

    @property
    def _ordered(self) -> bool:
        return self._target.mode is WriteMode.UPSERT

    def _load(self) -> None:
        """Write the stage as Parquet, file by file, put these into the temporary stage, and copy them into the table."""
        feed = Feed(self.request, self._routes, self._window, batch_rows=_BATCH_ROWS, ordered=self._ordered)
        try:
            with tempfile.TemporaryDirectory(prefix="dataflow-snowflake-") as folder:
                for path in self._files(feed, Path(folder)):
                    self._session.upload(path, self._incoming)
                    path.unlink()
        except Exception as error:
            feed.raise_own(error)
            raise
        feed.require_all()
        if feed.rows:
            require_rows(self._copy(), self.request)

    def _files(self, feed: Feed, folder: Path) -> Iterator[Path]:
        fields = [pa.field(self._staged[name], staged_kind(way.wire)) for name, way in self._routes.items()]
        schema = pa.schema([*fields, pa.field(ORDER, pa.int64())] if self._ordered else fields)
        with feed.reader() as reader:
            yield from parquet_files(reader, schema, staged, folder, file_bytes=_FILE_BYTES)

    def _copy(self) -> int:
        """Copy the files into the temporary table; how many rows Snowflake says it took."""
        place = SNOWFLAKE.table(self._incoming)
        text = f"COPY INTO {place} FROM @{place} FILE_FORMAT = (TYPE = PARQUET BINARY_AS_TEXT = FALSE)"
        loaded = self._session.fetch(Statement(f"{text} MATCH_BY_COLUMN_NAME = CASE_SENSITIVE ON_ERROR = ABORT_STATEMENT"))
        self._session.commit()
        return sum(int(row[3]) for row in loaded)

    def run(self) -> Published:
        """The transaction."""
        self.lock()
        if (done := ledger.settled(self.ledger_row(), self.request)) is not None:
            self._session.rollback()
            return done
        deleted = None
        if self._target.mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}:
            deleted = self._session.affected(sql.delete_rows(SNOWFLAKE, self._table, self._predicate))
        require_replaced(deleted, self.request)
        failpoint("publish.after_delete")
        written = self._count(self._insert())
        self._record()
        failpoint("publish.before_commit")
        self._commit()
        failpoint("publish.after_commit")
        return Published(self.request.rows, self.request.claim.generation, deleted=deleted, target_rows=written)

    def _insert(self) -> int:
        """Insert from the temporary table, or merge: of rows with equal keys the last of the stage wins."""
        ways = {name: (SNOWFLAKE.quote(self._staged[name]), way.wire) for name, way in self._routes.items()}
        columns = {name: taken(quoted, wire, self._declared[name]) for name, (quoted, wire) in ways.items()}
        place = SNOWFLAKE.table(self._incoming)
        if self._target.mode is not WriteMode.UPSERT:
            return self._session.affected(Statement(sql.insert_select(SNOWFLAKE, self._table, columns, place)))
        keys = self._target.keys
        latest = sql.latest_rows(SNOWFLAKE, place, keys=[ways[key][0] for key in keys], order=ORDER)
        source = f"({sql.select(SNOWFLAKE, columns, latest)})"
        return self._session.affected(Statement(sql.merge_rows(SNOWFLAKE, self._table, list(columns), source, keys=keys)))

    def _count(self, written: int) -> int:
        """Count what the target now holds, and undo when it is not what was sent."""
        if self._target.mode is WriteMode.UPSERT:
            return written
        if self._target.mode is not WriteMode.APPEND:
            ((written,),) = self._session.fetch(sql.count_rows(SNOWFLAKE, self._table, self._predicate))
        require_target_rows(int(written), self.request)
        return int(written)

    def _record(self) -> None:
        """Write the ledger row, if this is still the transaction that wrote the rows."""
        self._registry.keep(self.request, self._held, SNOWFLAKE, self._session.fetch)
        record = ledger.publish_unit(SNOWFLAKE, self.request)
        same = Statement(f"{record.text} AND CURRENT_TRANSACTION() = {SNOWFLAKE.placeholder(1)}", (*record.values, self._transaction))
        done, row = self._session.affected(same), self.ledger_row()
        if not done and row is not None and row.generation == self.request.claim.generation:
            raise WriteFailed(f"{self._table} {self.request.claim.unit}: {_ENDED}", transient=True)
        ledger.confirm(row, self.request)

    def _commit(self) -> None:
        """Commit, and make sure that there was something to commit: without a transaction, COMMIT does nothing and says nothing."""
        doing = f"committing {self.request.claim.unit} into {self._table}"
        try:
            self._session.commit()
            row = self.ledger_row()
        except driver_errors() as error:
            cause = failure(error, doing, WriteFailed)
            raise (CommitUnknown(cause.message) if isinstance(cause, ConnectionFailed) else cause) from error
        if not ledger.recorded(row, self.request.claim) and row is not None and row.generation == self.request.claim.generation:
            raise WriteFailed(f"{self._table} {self.request.claim.unit}: {_ENDED}", transient=True)


def _held(columns: Mapping[str, TargetColumn]) -> list[HeldColumn]:
    return [
        held_column(name, column.declared, filled=not column.required, nullable=column.nullable, writable=column.writable)
        for name, column in columns.items()
    ]
