"""A connector that can only be planned with: one file for each writer, whole or appended."""

from typing import Any, ClassVar

from pydantic import BaseModel

from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.spec.base import Model
from dataflow_assets.spec.models import EndpointOptions, SourceOptions
from dataflow_assets.tables import TableName, WriteMode


class Connection(Model):
    """Nothing to say."""


class Source(SourceOptions):
    """A file to read."""

    file_path: str


class Endpoint(EndpointOptions):
    """A file to write; replaced unless the mode says otherwise."""

    file_path: str
    mode: WriteMode | None = WriteMode.REPLACE


class Connector:
    """Plans only."""

    kind: ClassVar[str] = "flatfile"
    capabilities: ClassVar[Capabilities] = Capabilities(modes=frozenset({WriteMode.APPEND, WriteMode.REPLACE}), single_file=True)
    Connection: ClassVar[type[BaseModel]] = Connection
    Source: ClassVar[type[BaseModel]] = Source
    Endpoint: ClassVar[type[BaseModel]] = Endpoint

    def __init__(self, connection: Any, context: ConnectionContext) -> None:
        self.connection, self.context = connection, context

    def source_table(self, options: Any) -> TableName | None:
        return TableName(options.file_path)

    def target_table(self, options: Any) -> TableName:
        return TableName(options.file_path)
