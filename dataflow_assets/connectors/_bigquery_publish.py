"""One window into BigQuery: columns and files into a staging table first, then one script: begin, ledger, delete, insert, count, commit.

Here: the order of the statements. Not here: how values travel (`_bigquery_types`), clients, jobs and their errors (`_bigquery_session`).

The transaction is one job. It runs to its end on BigQuery's side whether this process lives or not, so no transaction is ever left open;
one that spans several jobs would stay open for hours after its client had died. Its UPDATE of the ledger stands first: of two
transactions that change one table BigQuery aborts one, and so does it before either has written much.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa

from dataflow_assets.connectors._bigquery_errors import driver_errors, translated
from dataflow_assets.connectors._bigquery_session import Session, Sessions
from dataflow_assets.connectors._bigquery_sql import Script, alterations
from dataflow_assets.connectors._bigquery_types import (
    Column,
    agreed_type,
    held_column,
    route,
    same_but_for_case,
    sql_type,
    staged,
    staged_kind,
    staged_type,
    taken,
)
from dataflow_assets.connectors._parquet_files import parquet_files
from dataflow_assets.errors import Fenced, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.agreement import Agreement, System, agree
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
from dataflow_assets.storage.registry import Registry, fetch_versions, merge_version, schema_version
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Published, PublishRequest, SchemaVersion, TableName, Target, WindowFilter, WriteMode, utc_now

_BATCH_ROWS = 32_768
_FILE_BYTES = 256 * 1024 * 1024
"""Arrow bytes of one file; each takes a load job, of which a project has 100,000 a day."""
_EXPIRY = timedelta(days=1)
"""When BigQuery drops a staging table whose process was killed."""
_ALL = Statement("TRUE")
"""BigQuery deletes nothing without a WHERE."""
_SCRIPT = """\
DECLARE _dataflow_held, _dataflow_deleted, _dataflow_found INT64 DEFAULT 0;
BEGIN TRANSACTION;
{record};
SET _dataflow_held = @@row_count;
IF _dataflow_held = 1 THEN
{delete}
{insert};
SET _dataflow_found = {found};
{version}
END IF;
IF _dataflow_held = 1 AND {complete} THEN
COMMIT TRANSACTION;
ELSE
ROLLBACK TRANSACTION;
END IF;
SELECT _dataflow_held AS held, _dataflow_deleted AS deleted, _dataflow_found AS found;
"""


def publish(sessions: Sessions, request: PublishRequest, registry: Registry) -> Published:
    """Publish, unless the ledger shows it done."""
    with sessions.use() as session, translated(f"publishing {request.claim.unit} into {request.target.table}", WriteFailed):
        publication = _Publication(session, request, registry)
        if (done := ledger.settled(publication.ledger_row(), request)) is not None:
            return done
        failpoint("publish.begin")
        publication.prepare()
        with publication.incoming():
            return publication.agreement.reported(publication.run())


class _Publication:
    """One publish under way; its public methods are called in their order in this file."""

    agreement: Agreement

    def __init__(self, session: Session, request: PublishRequest, registry: Registry) -> None:
        self._session, self.request, self._registry = session, request, registry
        self._dialect = session.dialect
        self._name = uuid.uuid4().hex
        self._incoming = TableName(f"_dataflow_incoming_{self._name}", request.target.table.schema)

    @property
    def _target(self) -> Target:
        return self.request.target

    @property
    def _table(self) -> TableName:
        return self.request.target.table

    def ledger_row(self) -> ledger.LedgerRow | None:
        """What the ledger says of the unit; a publish into a table that is gone counts for nothing."""
        rows = self._session.fetch(ledger.fetch_unit(self._dialect, self._target, self.request.claim.unit))
        row = ledger.ledger_row(rows[0]) if rows else None
        return replace(row, entry=None) if row and row.entry and not self._session.columns(self._table) else row

    def prepare(self) -> None:
        """Make the table unless it is there, and find the way of each column."""
        if twice := same_but_for_case(self.request.schema.names):
            hint = "rename one of them in the query: BigQuery does not tell upper and lower case apart"
            raise WriteFailed(f"column {twice!r} differs from another one of the data in upper and lower case only", hint=hint)
        found = self._session.columns(self._table)
        if not found:
            self._create()
            found = self._session.columns(self._table)
        self._found = self._agree(found)

    def _agree(self, found: dict[str, Column]) -> dict[str, Column]:
        """Change the table where the schema policy says so: a transaction takes no DDL but that of temporary tables."""
        system = System(self._dialect, agreed_type)
        self.agreement = agree(self.request, map(held_column, found.values()), system)
        self.request = self.agreement.request(self.request)
        if not self.agreement.alters:
            return found
        for number, text in enumerate(alterations(self._dialect, self._table, self.agreement.added, self.agreement.widened)):
            self._session.run(text, {}, name=f"alter_{self._name}_{number}")
        failpoint("publish.after_alter")
        return self._session.columns(self._table)

    def _create(self) -> None:
        """Make the table; before that, forget what was published into an older one of its name.

        That is what the ledger showed before the table was seen to be missing; what another process publishes into a new one is later.
        """
        table = self._create_table()
        if not self._target.options.auto_create:
            raise WriteFailed(f"table {self._table} does not exist and auto_create is off", hint=f"{table.text};")
        published = [str(key) for (key,) in self._session.fetch(ledger.published_keys(self._dialect, self._table))]
        if published and not self._session.columns(self._table):
            self._session.fetch(ledger.forget_keys(self._dialect, self._table, published))
        self._session.fetch(table)

    def _create_table(self) -> Statement:
        given: Mapping[str, str] = self._target.options.columns
        inferred = {item.name: sql_type(item.type, name=item.name) for item in self.request.schema if item.name not in given}
        chosen = self._target.options
        parts = [f"PARTITION BY {chosen.partition_by}"] if chosen.partition_by else []
        parts += [f"CLUSTER BY {self._dialect.names(chosen.cluster_by)}"] if chosen.cluster_by else []
        return sql.create_table(self._dialect, self._table, {**given, **inferred}, options=" ".join(parts))

    @cached_property
    def _routes(self) -> dict[str, Route]:
        return {item.name: route(item.name, item.type, self._found[item.name]) for item in self.request.schema}

    @cached_property
    def _staged(self) -> dict[str, str]:
        """Column -> its name in the files and in the staging table, which is plain whatever the column's is."""
        return {name: f"c{number}" for number, name in enumerate(self._routes)}

    @cached_property
    def _window(self) -> WindowBounds | None:
        return window_bounds(self.request, self._routes)

    def _predicate(self, dialect: sql.Dialect) -> Statement:
        """Which rows of the target the window is; all of them where the mode has no window."""
        bounds, window = self._window, self.request.claim.unit.window
        if bounds is None or window is None:
            return _ALL
        filter_ = WindowFilter(bounds.column, window, self._target.timezone)
        return sql.window_predicate(dialect, bounds.column, filter_.bounds(bounds.start.type))

    @contextmanager
    def incoming(self) -> Iterator[None]:
        """The stage in a table of its own, which BigQuery drops after a day when this process does not."""
        kinds = {self._staged[name]: staged_type(way.wire) for name, way in self._routes.items()}
        if self._ordered:
            kinds[ORDER] = "INT64"
        self._session.make_table(self._incoming, kinds, expires=utc_now() + _EXPIRY)
        try:
            self._load()
            yield
        finally:
            with suppress(*driver_errors()):
                self._session.drop_table(self._incoming)

    @property
    def _ordered(self) -> bool:
        return self._target.mode is WriteMode.UPSERT

    def _load(self) -> None:
        """Write the stage as Parquet, file by file, and have each loaded into the staging table."""
        feed, taken_rows = Feed(self.request, self._routes, self._window, batch_rows=_BATCH_ROWS, ordered=self._ordered), 0
        try:
            with tempfile.TemporaryDirectory(prefix="dataflow-bigquery-") as folder:
                for number, path in enumerate(self._files(feed, Path(folder))):
                    with path.open("rb") as file:
                        taken_rows += self._session.load(file, self._incoming, name=f"load_{self._name}_{number}")
                    path.unlink()
        except Exception as error:
            feed.raise_own(error)
            raise
        feed.require_all()
        require_rows(taken_rows, self.request)

    def _files(self, feed: Feed, folder: Path) -> Iterator[Path]:
        fields = [pa.field(self._staged[name], staged_kind(way.wire)) for name, way in self._routes.items()]
        schema = pa.schema([*fields, pa.field(ORDER, pa.int64())] if self._ordered else fields)
        with feed.reader() as reader:
            yield from parquet_files(reader, schema, staged, folder, file_bytes=_FILE_BYTES)

    def run(self) -> Published:
        """The transaction, and what became of it."""
        failpoint("publish.before_commit")
        script = Script(self._dialect)
        text = self._script(script)
        ((held, deleted, found),) = self._session.run(text, script.values, name=f"publish_{self._name}")
        failpoint("publish.after_commit")
        if not held:
            return self._refused()
        require_replaced(int(deleted), self.request)
        if self._target.mode is not WriteMode.UPSERT:
            require_target_rows(int(found), self.request)
        replaces = self._target.mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}
        return Published(
            self.request.rows, self.request.claim.generation, deleted=int(deleted) if replaces else None, target_rows=int(found)
        )

    def _script(self, script: Script) -> str:
        counted = self._target.mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW}
        delete = script.bind(lambda dialect: sql.delete_rows(dialect, self._table, self._predicate(dialect))) if counted else ""
        count = script.bind(lambda dialect: sql.count_rows(dialect, self._table, self._predicate(dialect))) if counted else ""
        rows = script.bind(lambda dialect: Statement(dialect.placeholder(1), (self.request.rows,)))
        complete = "TRUE" if self._ordered else f"_dataflow_found = {rows}"
        if self.request.replaces is not None:
            complete += f" AND _dataflow_deleted = {int(self.request.replaces)}"
        return _SCRIPT.format(
            record=script.bind(self._record),
            delete=f"{delete};\nSET _dataflow_deleted = @@row_count;" if counted else "",
            insert=self._insert(),
            version=self._version(script),
            found=f"({count})" if counted else "@@row_count",
            complete=complete,
        )

    def _version(self, script: Script) -> str:
        """What writes down the columns of the target; empty where its newest version has them."""
        new: list[SchemaVersion] = []
        self._registry.keep_by(self.request, map(held_column, self._found.values()), read=self._read_versions, write=new.append)
        return "\n".join(f"{script.bind(partial(merge_version, target=self._table, version=version))};" for version in new)

    def _read_versions(self) -> Sequence[SchemaVersion]:
        return [schema_version(row) for row in self._session.fetch(fetch_versions(self._dialect, self._table))]

    def _record(self, dialect: sql.Dialect) -> Statement:
        """The ledger row, if this claim is still the newest; what was appended is not appended again."""
        record = ledger.publish_unit(dialect, self.request)
        if self._target.mode is not WriteMode.APPEND:
            return record
        return Statement(f"{record.text} AND {dialect.quote('published_generation')} IS NULL", record.values)

    def _insert(self) -> str:
        """Insert from the staging table, or merge: of rows with equal keys the last of the stage wins."""
        quoted = {name: self._dialect.quote(self._staged[name]) for name in self._routes}
        columns = {name: taken(quoted[name], self._found[name]) for name in self._routes}
        place = self._dialect.table(self._incoming)
        if not self._ordered:
            return sql.insert_select(self._dialect, self._table, columns, place)
        keys = self._target.keys
        latest = sql.latest_rows(self._dialect, place, keys=[quoted[key] for key in keys], order=ORDER)
        source = f"({sql.select(self._dialect, columns, latest)})"
        return sql.merge_rows(self._dialect, self._table, list(columns), source, keys=keys)

    def _refused(self) -> Published:
        """Nothing was written: the ledger says why."""
        row = self.ledger_row()
        if (done := ledger.settled(row, self.request)) is not None:
            return done
        newest = row.generation if row else 0
        raise Fenced(target=str(self._table), unit=str(self.request.claim.unit), generation=self.request.claim.generation, newest=newest)
