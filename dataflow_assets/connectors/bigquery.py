"""BigQuery as source and target: `kind: bigquery`.

Here: the options of its steps, and the connector. Not here: the keys of a connection (`_bigquery_login`), clients and jobs
(`_bigquery_session`), the read stream (`_bigquery_read`), the publish (`_bigquery_publish`); the last two are imported when used, since
they load Arrow.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field

from dataflow_assets.connectors._bigquery_errors import ERROR_CODES, translated
from dataflow_assets.connectors._bigquery_login import BigQueryConnection, Login, register_secrets
from dataflow_assets.connectors._bigquery_session import Session, Sessions
from dataflow_assets.connectors._bigquery_sql import Script, records
from dataflow_assets.connectors._sql import SqlConnector, Wanted
from dataflow_assets.error_kinds import Codes
from dataflow_assets.errors import ConnectionFailed, ReadFailed, WriteFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.base import Names
from dataflow_assets.spec.models import EndpointOptions, SqlSourceOptions
from dataflow_assets.storage import ledger, registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import (
    Claim,
    LedgerEntry,
    Published,
    PublishRequest,
    Query,
    SchemaVersion,
    TableName,
    Target,
    Unit,
    WriteMode,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.storage.records import RecordForms

_DATASET = AliasChoices("dataset", "table_dataset", "table_schema")
_CLAIM = """\
DECLARE _dataflow_generation INT64;
BEGIN TRANSACTION;
{claim};
SET _dataflow_generation = (SELECT MAX({generation}) FROM ({row}));
COMMIT TRANSACTION;
SELECT _dataflow_generation AS generation, claimed.* FROM ({row}) AS claimed;
"""


class BigQuerySource(SqlSourceOptions):
    """A query, or a table with its dataset."""

    table: str | None = Field(
        None, validation_alias=AliasChoices("table", "table_name"), description="a table, in place of a query; its case counts"
    )
    dataset: str | None = Field(
        None, validation_alias=_DATASET, description="the table's dataset, or project.dataset; default: that of the connection"
    )


class BigQueryEndpoint(EndpointOptions):
    """A table with its dataset, which are made when they are missing."""

    table: str = Field(validation_alias=AliasChoices("table", "table_name"), description="the table; its case counts")
    dataset: str | None = Field(
        None, validation_alias=_DATASET, description="its dataset, or project.dataset, made when it is missing; default: the connection's"
    )
    partition_by: str | None = Field(
        None, description="what a table that is made is partitioned by: a DATE column, or SQL such as TIMESTAMP_TRUNC(ordered_at, DAY)"
    )
    cluster_by: Names = Field(default_factory=list, description="the columns that a table that is made is clustered by, four at most")


class Connector(SqlConnector):
    """Reads the result of one job; publishes Parquet files through a staging table, in one transaction with the ledger."""

    kind: ClassVar[str] = "bigquery"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="bigquery")
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[BigQueryConnection]] = BigQueryConnection
    Source: ClassVar[type[BigQuerySource]] = BigQuerySource
    Endpoint: ClassVar[type[BigQueryEndpoint]] = BigQueryEndpoint
    example: ClassVar[str] = """\
pipeline_name: orders_to_bigquery
windows: {every: day, begin: 2024-01-01}
event_time_column: ordered_at
steps:
  - id: orders
    type: source
    source_type: postgres
    connection: shop
    config:
      query: SELECT id, ordered_at, amount FROM orders
  - id: mart_orders
    type: endpoint
    endpoint_type: bigquery
    connection: warehouse
    depends_on: [orders]
    config:
      table: orders
      dataset: mart
      partition_by: TIMESTAMP_TRUNC(ordered_at, DAY)
      cluster_by: [id]
"""

    def __init__(self, connection: BigQueryConnection, context: ConnectionContext) -> None:
        self._name, self._registry = context.name, registry.Registry()
        register_secrets(connection)
        self._sessions = Sessions(Login(connection, context))

    def probe(self) -> str:
        """Log in, and run a job."""
        with self._sessions.use() as session, translated(f"connection {self._name!r}", ConnectionFailed):
            ((user,),) = session.fetch(Statement("SELECT SESSION_USER()"))
            dataset = session.dialect.dataset
            location = session.dataset_location(TableName(ledger.LEDGER)) if dataset else None
        where = f", dataset {dataset} in {location}" if location else f", dataset {dataset} does not exist yet" if dataset else ""
        return f"BigQuery, project {session.dialect.project} as {user}{where}"

    def close(self) -> None:
        """Close the idle clients."""
        self._sessions.close()

    def _table(self, options: Any) -> TableName:
        return TableName(options.table, options.dataset)

    @contextmanager
    def _stream(self, source: TableName | Query, doing: str, wanted: Wanted, options: Any) -> Iterator[pa.RecordBatchReader]:
        from dataflow_assets.connectors import _bigquery_read

        with _bigquery_read.stream(self._sessions, source, doing, wanted) as reader:
            yield reader

    def claim(self, target: Target, unit: Unit, *, attempt: str) -> Claim:
        """Raise the unit's generation, in a transaction of its own."""
        doing = f"claiming {unit} in {target.table}"
        with self._sessions.use() as session, translated(doing, WriteFailed):
            self._require_ledger(session, target)
            script = Script(session.dialect)
            text = _CLAIM.format(
                claim=script.bind(lambda dialect: ledger.merge_claim(dialect, target, unit, attempt=attempt)),
                row=script.bind(lambda dialect: ledger.fetch_unit(dialect, target, unit)),
                generation=session.dialect.quote("claimed_generation"),
            )
            rows = session.run(text, script.values, name=f"claim_{uuid.uuid4().hex}")
            if len(rows) != 1:  # primary keys are not enforced
                table = session.dialect.table(ledger.ledger_table(target.table))
                raise WriteFailed(f"{doing}: the ledger has {len(rows)} rows of it", hint=f"leave one of them in {table}")
        generation, *row = rows[0]
        return Claim(unit, int(generation), attempt, ledger.ledger_row(row).entry)

    def _require_ledger(self, session: Session, target: Target) -> None:
        """Make dataset, ledger and registry where they are missing."""
        table, schemas = ledger.ledger_table(target.table), registry.registry_table(target.table)
        if not session.columns(table):
            session.make_dataset(table)
            session.fetch(ledger.create_ledger(session.dialect, table))
        if schemas not in self._registry.made:
            if not session.columns(schemas):
                session.fetch(registry.create_registry(session.dialect, schemas))
            self._registry.made.add(schemas)

    def publish(self, request: PublishRequest) -> Published:
        """Write the window and its ledger row in one transaction."""
        from dataflow_assets.connectors import _bigquery_publish

        return _bigquery_publish.publish(self._sessions, request, self._registry)

    def ledger(self, target: Target, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step; none when the table is gone, whatever was published into it."""
        with self._sessions.use() as session, translated(f"reading the ledger of {target.table}", ReadFailed):
            if not (session.columns(ledger.ledger_table(target.table)) and session.columns(target.table)):
                return []
            return ledger.published_entries(session.fetch(ledger.fetch_step(session.dialect, target, pipeline=pipeline, step=step)))

    def schemas(self, target: Target) -> list[SchemaVersion]:
        """The versions of the target's columns."""
        with self._sessions.use() as session, translated(f"reading the schemas of {target.table}", ReadFailed):
            if not session.columns(registry.registry_table(target.table)):
                return []
            return [registry.schema_version(row) for row in session.fetch(registry.fetch_versions(session.dialect, target.table))]

    def record_forms(self) -> RecordForms:
        """How records are written."""
        with self._sessions.use() as session:
            return records(session.dialect)

    def read_records(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._sessions.use() as session, translated(f"reading records of connection {self._name!r}", ReadFailed):
            return session.fetch(statement)

    def write_records(self, statements: Sequence[Statement]) -> None:
        """Run the statements, one after the other."""
        with self._sessions.use() as session, translated(f"writing records of connection {self._name!r}", WriteFailed):
            for statement in statements:  # a transaction would cost each of them a second more
                values = {f"p{position}": value for position, value in enumerate(statement.values, start=1)}
                session.run(statement.text, values, name=f"record_{uuid.uuid4().hex}")
