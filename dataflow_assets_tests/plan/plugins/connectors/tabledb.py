"""A connector that can only be planned with: tables and queries in the Postgres dialect, every mode."""

from typing import Any, ClassVar

from pydantic import BaseModel, SecretStr

from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.base import Model, SqlText
from dataflow_assets.spec.models import EndpointOptions, SourceOptions
from dataflow_assets.tables import TableName, WriteMode


class Connection(Model):
    """Where the tables are."""

    host: str
    port: int = 1
    password: SecretStr | None = None


class Source(SourceOptions):
    """Rows of a table or a query."""

    table: str | None = None
    table_schema: str | None = None
    query: SqlText | None = None
    fetch_rows: int = 1


class Endpoint(EndpointOptions):
    """A table to write."""

    table: str
    table_schema: str | None = None


class Connector:
    """Plans only."""

    kind: ClassVar[str] = "tabledb"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset(WriteMode), dialect="postgres")
    Connection: ClassVar[type[BaseModel]] = Connection
    Source: ClassVar[type[BaseModel]] = Source
    Endpoint: ClassVar[type[BaseModel]] = Endpoint

    def __init__(self, connection: Any, context: ConnectionContext) -> None:
        self.connection, self.context = connection, context

    def source_table(self, options: Any) -> TableName | None:
        return TableName(options.table, options.table_schema) if options.table else None

    def target_table(self, options: Any) -> TableName:
        return TableName(options.table, options.table_schema)
