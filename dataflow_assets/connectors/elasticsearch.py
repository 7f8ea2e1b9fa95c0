"""Elasticsearch and OpenSearch as a source: `kind: elasticsearch`, also written `opensearch`.

Here: the options and the connector. Over plain HTTP rather than a vendor's client: each of these refuses the other system. Not here:
the cluster's calls (`_elasticsearch_session`), the read (`_elasticsearch_read`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from dataflow_assets.connectors._http_auth import Fixed, basic
from dataflow_assets.connectors._http_errors import ERROR_CODES
from dataflow_assets.connectors._http_options import PoliteConnection, checked_address
from dataflow_assets.connectors._http_session import Session, shown
from dataflow_assets.connectors._source_only import SourceOnly
from dataflow_assets.error_kinds import Codes
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.spec.base import Names
from dataflow_assets.spec.models import SourceOptions
from dataflow_assets.tables import ReadRequest, TableName
from dataflow_assets.windows import parse_duration

if TYPE_CHECKING:
    import pyarrow as pa

    from dataflow_assets.connectors._elasticsearch_session import Cluster


class ElasticsearchConnection(PoliteConnection):
    """The keys of a cluster."""

    url: str = Field(validation_alias=AliasChoices("url", "cloud_id"), description="https://host:9200, or the Cloud ID of a deployment")
    api_key: SecretStr | None = Field(None, description="an API key, encoded or as id:key")
    username: str | None = Field(None, description="for basic authentication")
    password: SecretStr | None = Field(None, description="for basic authentication")
    token: SecretStr | None = Field(None, description="a bearer token, as of a service account")
    system: Literal["auto", "elasticsearch", "opensearch"] = Field("auto", description="which of the two it is; auto asks it")

    @field_validator("url")
    @classmethod
    def _url_is_an_address(cls, value: str) -> str:
        return checked_address(value if "://" in value else cloud_address(value))

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        given = [name for name in ("api_key", "password", "token") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"there is more than one way to log in: {', '.join(given)}")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")
        return self


def cloud_address(text: str) -> str:
    """The URL that a Cloud ID stands for: `name:` and base64 of `host[:port]$id$...`. Raises ValueError."""
    try:
        host, cluster, *_ = base64.b64decode(text.rpartition(":")[2], validate=True).decode().split("$")
    except (binascii.Error, UnicodeError, ValueError):
        raise ValueError("write a URL that begins with https://, or a Cloud ID") from None
    name, _, port = host.partition(":")
    inner, _, own_port = cluster.partition(":")
    return f"https://{inner}.{name}:{own_port or port or 443}"


class ElasticsearchSource(SourceOptions):
    """Which documents, and what their fields become."""

    index: str = Field(min_length=1, description="an index, alias, data stream or pattern such as logs-*; several separated by commas")
    query: dict[str, Any] | None = Field(None, description="a query of the query DSL, e.g. {term: {state: open}}; default: all documents")
    column_types: dict[str, str] = Field(
        default_factory=dict, description="field -> int64, decimal(12,2), string, ..., in place of the mapping's"
    )
    arrays: Names = Field(default_factory=list, description="the fields that hold several values: they become lists")
    nested: Literal["text", "struct"] = Field("text", description="whether objects and nested documents become JSON text or structs")
    page_size: int = Field(1000, ge=1, le=10_000, description="documents of one request")
    slices: int = Field(1, ge=1, le=64, description="how many parts are read side by side")
    keep_alive: str = Field("5min", description="how long the point in time outlives the last request")
    tiebreaker: str | None = Field(
        None, description="a field that differs in every document, to page by; default: _shard_doc, in OpenSearch _id"
    )

    @field_validator("keep_alive")
    @classmethod
    def _keep_alive_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value


class Connector(SourceOnly):
    """Reads documents from one point in time."""

    kind: ClassVar[str] = "elasticsearch"
    capabilities: ClassVar[Capabilities] = Capabilities(costly_reads=True)
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[ElasticsearchConnection]] = ElasticsearchConnection
    Source: ClassVar[type[ElasticsearchSource]] = ElasticsearchSource
    example: ClassVar[str] = """\
pipeline_name: failed_logins
windows: {every: hour, begin: 2024-01-01}
event_time_column: "@timestamp"
steps:
  - id: logins
    type: source
    source_type: elasticsearch
    connection: logs
    config:
      index: logs-auth-*
      query: {bool: {filter: [{term: {event.action: login}}, {term: {event.outcome: failure}}]}}
      columns: [_id, "@timestamp", user.name, source.ip, tags]
      arrays: [tags]
  - id: warehouse
    type: endpoint
    endpoint_type: parquet
    depends_on: [logins]
    config: {file_path: lake/failed_logins/}
"""

    def __init__(self, connection: ElasticsearchConnection, context: ConnectionContext) -> None:
        self._options, self._context = connection, context
        self._login = Fixed(_headers(connection))
        self._made: tuple[Session, Cluster] | None = None

    def __repr__(self) -> str:
        return f"elasticsearch at {shown(self._options.url)}"

    @property
    def _cluster(self) -> Cluster:
        """Made when first used: its modules load Arrow."""
        if self._made is None:
            from dataflow_assets.connectors._elasticsearch_session import Cluster, judge

            options = self._options
            session = Session(options.url, options.policy, kind=self.kind, credentials=self._login, judge=judge)
            self._made = session, Cluster(session, self._context.name, None if options.system == "auto" else options.system)
        return self._made[1]

    def probe(self) -> str:
        """Ask the cluster for its version."""
        return self._cluster.version()

    def close(self) -> None:
        """Close the pooled connections."""
        if self._made is not None:
            self._made[0].close()

    def source_table(self, options: ElasticsearchSource) -> TableName | None:
        """The index."""
        return TableName(options.index)

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        """Stream the documents."""
        from dataflow_assets.connectors import _elasticsearch_read

        with _elasticsearch_read.stream(self._cluster, request) as reader:
            yield reader


def _headers(options: ElasticsearchConnection) -> dict[str, str]:
    if options.username is not None and options.password is not None:
        register_secret(options.password.get_secret_value())
        return {"authorization": basic(options.username, options.password.get_secret_value())}
    if options.token is not None:
        register_secret(options.token.get_secret_value())
        return {"authorization": f"Bearer {options.token.get_secret_value()}"}
    if options.api_key is not None:
        given = options.api_key.get_secret_value()
        encoded = base64.b64encode(given.encode()).decode() if ":" in given else given
        for secret in (given, encoded, given.rpartition(":")[2]):
            register_secret(secret)
        return {"authorization": f"ApiKey {encoded}"}
    return {}
