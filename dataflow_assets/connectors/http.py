"""An HTTP API as a source: `kind: http`. JSON, NDJSON or CSV, one page after the other.

APIs have no snapshots: what is guarded against, and what is not, stands in the docs. Here: the connector. Not here: its options
(`_http_options`), sending (`_http_session`), pages (`_http_pages`), rows (`_http_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from dataflow_assets.connectors._http_auth import ClientCredentials, Fixed, basic, judge_login
from dataflow_assets.connectors._http_errors import ERROR_CODES, Reply
from dataflow_assets.connectors._http_options import HttpConnection, HttpSource
from dataflow_assets.connectors._http_session import Call, Credentials, Session, shown
from dataflow_assets.connectors._source_only import SourceOnly
from dataflow_assets.error_kinds import Codes
from dataflow_assets.errors import ReadFailed
from dataflow_assets.protocols import Capabilities, ConnectionContext
from dataflow_assets.secrets import register_secret
from dataflow_assets.tables import ReadRequest, TableName

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN_HEADERS = frozenset({"accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "content-type", "prefer"})
_PLAIN_HEADERS |= {"host", "origin", "referer", "user-agent", "x-requested-with"}


class Connector(SourceOnly):
    """Reads rows that an API hands out in pages."""

    kind: ClassVar[str] = "http"
    capabilities: ClassVar[Capabilities] = Capabilities(exact_types=False, costly_reads=True)
    error_codes: ClassVar[Codes] = ERROR_CODES
    Connection: ClassVar[type[HttpConnection]] = HttpConnection
    Source: ClassVar[type[HttpSource]] = HttpSource
    example: ClassVar[str] = """\
pipeline_name: incidents
windows: {every: day, begin: 2024-01-01}
event_time_column: sys_updated_on
steps:
  - id: incidents
    type: source
    source_type: http
    connection: servicenow
    config:
      path: table/incident
      params:
        sysparm_limit: 1000
        sysparm_fields: sys_id,number,priority,closed_at,sys_updated_on
        sysparm_exclude_reference_link: true
        sysparm_query: ORDERBYsys_id
      window:
        parameter: sysparm_query
        text: sys_updated_on>={start}^sys_updated_on<{end}^ORDERBYsys_id
        format: "%Y-%m-%d %H:%M:%S"
      rows: result
      pagination: {type: link}
      key: sys_id
      null_values: [""]
      column_types: {sys_id: string, number: string, priority: int64, closed_at: timestamp, sys_updated_on: timestamp}
  - id: lake
    type: endpoint
    endpoint_type: parquet
    depends_on: [incidents]
    config: {file_path: lake/incidents/}
"""

    def __init__(self, connection: HttpConnection, context: ConnectionContext) -> None:
        self._options, self._context = connection, context
        self._session = Session(
            connection.base_url, connection.policy, kind=self.kind, credentials=credentials_of(connection), judge=judge_login
        )

    def __repr__(self) -> str:
        return f"http API at {shown(self._options.base_url)}"

    def probe(self) -> str:
        """Ask for `probe_path`; any answer that does not refuse the credentials will do for the base URL itself."""
        url = self._session.address(self._options.probe_path)
        call = Call(url, f"GET {shown(url)} of connection {self._context.name!r}")
        try:
            server = self._session.fetch(call, _server)
        except ReadFailed as error:
            if self._options.probe_path or error.transient:
                raise
            server = ""
        return f"HTTP API at {urlsplit(self._options.base_url).netloc}{server}"

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def source_table(self, options: HttpSource) -> TableName | None:
        """The path, as the name of what is read."""
        return TableName(options.path.strip("/") or urlsplit(self._options.base_url).netloc)

    @contextmanager
    def read(self, request: ReadRequest) -> Iterator[pa.RecordBatchReader]:
        """Stream the rows of all pages."""
        from dataflow_assets.connectors import _http_rows

        with _http_rows.stream(self._session, request, name=self._context.name) as reader:
            yield reader


def _server(reply: Reply) -> str:
    name = reply.headers.get("server", "")
    return f" ({name})" if name else ""


def credentials_of(options: HttpConnection) -> Credentials:
    """What the connection's keys say about logging in; every secret among them is registered."""
    headers = {name: value.get_secret_value() for name, value in options.headers.items()}
    for name, value in headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            for part in (value, value.partition(" ")[2], value.rpartition(" ")[2]):
                register_secret(part)
    if options.oauth2_url and options.client_id and options.client_secret:
        return _client(options, options.client_id, _secret(options.client_secret.get_secret_value()), headers)
    if options.username is not None and options.password is not None:
        return Fixed({**headers, "authorization": basic(options.username, _secret(options.password.get_secret_value()))})
    if options.token is not None:
        return Fixed({**headers, "authorization": f"Bearer {_secret(options.token.get_secret_value())}"})
    if options.api_key is not None:
        key = _secret(options.api_key.get_secret_value())
        if options.key_parameter:
            return Fixed(headers, {options.key_parameter: key})
        return Fixed({**headers, options.key_header or "X-API-Key": key})
    return Fixed(headers)


def _secret(value: str) -> str:
    register_secret(value)
    return value


def _client(options: HttpConnection, client: str, secret: str, headers: Mapping[str, str]) -> ClientCredentials:
    url, in_header = options.oauth2_url or "", options.client_auth == "header"
    more = {**options.oauth2_params, **({"scope": options.scope} if options.scope else {})}
    return ClientCredentials(url, client, secret, more=more, in_header=in_header, headers=headers)
