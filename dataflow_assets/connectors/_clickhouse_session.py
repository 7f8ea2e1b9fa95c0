"""Talking to ClickHouse over HTTP: the client, statements with bound values, and what a driver's error means.

Here: one client for a connector; it holds no session, so threads share it. Not here: what is said (`clickhouse`,
`_clickhouse_ledger`, `_clickhouse_publish`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from dataflow_assets.error_kinds import Codes, stream_kind
from dataflow_assets.errors import ConnectionFailed, DataflowError, MissingDriver, ValueRefused, WriteFailed
from dataflow_assets.storage.sql import Dialect

CLICKHOUSE = Dialect("ClickHouse", quotes=("`", "`"), escapes=True, retyping="MODIFY COLUMN {column} {kind}")
NATIVE_PORTS = frozenset({9000, 9440})
_UTC_NAMES = frozenset({"UTC", "Etc/UTC", "UCT", "Etc/UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal", "GMT", "Etc/GMT"})

_NOT_ALLOWED = {192, 193, 194, 516}
ERROR_CODES = Codes(
    "error code",
    transient=(3, 32, *(159, 198, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 279, 285, 286, 319, 394, 425, 473, 499, 999)),
    configuration=(48, 60, 81, 115, 164, *sorted(_NOT_ALLOWED), 195, 291, 452, 497),
    transient_also="no answer, or one without a code of ClickHouse",
)
_BAD_VALUE = {6, 25, 26, 27, 38, 41, 53, 69, 70, 72, 131, 321, 349, 376, 407, 441, 675, 676, 691}
UNKNOWN_TABLE = 60
TABLE_EXISTS = 57
_HINTS = {
    47: "check the column names of the query",
    60: "list the tables with SHOW TABLES, and check table_database",
    62: "run the query in clickhouse-client to see where it breaks off",
    81: "create the database, or check `database` of the connection",
    497: "the user lacks a right: see GRANT",
    630: "a view or dictionary hangs on the table: drop it, or publish windows instead of the whole table",
    48: "the database needs the engine Atomic: CREATE DATABASE ... ENGINE = Atomic",
}
_UNREACHABLE = "check host, port, user and password, and whether the server is up"
_NATIVE = "port {port} usually speaks ClickHouse's native protocol; this connector speaks HTTP: 8123, or 8443 with TLS"
# What a publish needs whatever the user's profile says; a server that does not know one has the behaviour anyway.
_WANTED = {
    "async_insert": 0,
    "insert_deduplicate": 0,
    "mutations_sync": 1,
    "input_format_null_as_default": 0,
    "input_format_defaults_for_omitted_fields": 1,
    "optimize_on_insert": 0,
    "max_table_size_to_drop": 0,
    "max_partition_size_to_drop": 0,
    "max_partitions_per_insert_block": 0,
    "allow_replace_partition_from_empty_source": 1,
    "enable_time_time64_type": 1,
    "output_format_arrow_string_as_string": 1,
}
_READ_WANTED = {"output_format_arrow_string_as_string": 1}


@dataclass(frozen=True)
class Options:
    """How a client is opened."""

    name: str
    host: str
    port: int
    user: str
    password: str
    database: str
    secure: bool
    verify: bool
    seconds: int


class Server:
    """One server as a connector sees it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._client: Any = None
        self._zone: str | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        """The driver's client, connected at first use. Raises ConnectionFailed."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        from importlib.util import find_spec

        if find_spec("clickhouse_connect") is None:
            raise MissingDriver(kind="clickhouse", module="clickhouse_connect")
        import clickhouse_connect

        given = self.options
        with translated(f"connection {given.name!r}", ConnectionFailed, port=given.port):
            return clickhouse_connect.get_client(
                interface="https" if given.secure else "http",
                host=given.host,
                port=given.port,
                username=given.user,
                password=given.password,
                database=given.database,
                verify=given.verify,
                client_name="dataflow",
                autogenerate_session_id=False,
                connect_timeout=10,
                send_receive_timeout=given.seconds,
                dedicated_pool=True,
            )

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def zone(self) -> str | None:
        """The server's timezone, None for UTC under any of its names."""
        if self._zone is None:
            self._zone = str(self.rows("SELECT timezone()")[0][0])
        return None if self._zone in _UTC_NAMES else self._zone

    def settings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the wanted settings that the server knows."""
        known = self.client.server_settings
        return {name: value for name, value in wanted.items() if name in known}

    def run(self, text: str, values: Sequence[Any] = ()) -> None:
        """Run a statement whose placeholders are those of `bound(values)`."""
        self.client.raw_query(text, parameters=_parameters(values) or None, settings=self.settings(_WANTED), use_database=False)

    def rows(self, text: str, values: Sequence[Any] = (), *, use_database: bool = False) -> list[tuple[Any, ...]]:
        """The rows of a query, as Python values; `use_database`: tables without a database are those of the connection's."""
        import pyarrow as pa

        settings = self.settings(_READ_WANTED)
        parameters = _parameters(values) or None
        raw = self.client.raw_query(text, parameters=parameters, settings=settings, fmt="ArrowStream", use_database=use_database)
        if not raw:
            return []
        table = pa.ipc.open_stream(raw).read_all()
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def describe(self, source: str, values: Sequence[Any]) -> list[tuple[str, str]]:
        """Name and type of each column of `source`, the text after FROM."""
        import json

        text = f"DESCRIBE TABLE (SELECT * FROM {source})"  # noqa: S608 - built by storage.sql
        raw = self.client.raw_query(text, parameters=_parameters(values) or None, fmt="JSONCompact")
        return [(row[0], row[1]) for row in json.loads(raw)["data"]]

    def stream(self, text: str, values: Sequence[Any]) -> Any:
        """The bytes of a query's Arrow stream, as a file."""
        settings = self.settings(_READ_WANTED)
        return self.client.raw_stream(text, parameters=_parameters(values) or None, settings=settings, fmt="ArrowStream")

    def insert(self, table: str, columns: Sequence[str], blocks: Iterator[bytes]) -> None:
        """Send an Arrow stream into a table, in one INSERT that the server cuts into blocks."""
        into = f"{table} ({CLICKHOUSE.names(columns)})"
        self.client.raw_insert(into, insert_block=blocks, settings=self.settings(_WANTED), fmt="ArrowStream")


def bound(values: Sequence[Any], *, first: int = 1) -> Dialect:
    """The dialect in which the n-th placeholder is the server's own `{name:Type}` for the n-th of these values."""
    written = [_placeholder(position, value) for position, value in enumerate(values, start=first)]
    return replace(CLICKHOUSE, placeholder=lambda position: written[position - first])


def placeholders(values: Sequence[Any]) -> str:
    """All placeholders of `values`, with commas."""
    return ", ".join(_placeholder(position, value) for position, value in enumerate(values, start=1))


def _placeholder(position: int, value: Any) -> str:
    name = f"dataflow_{position}"
    return f"unhex({{{name}:String}})" if isinstance(value, bytes) else f"{{{name}:{_type_of(value)}}}"


def _type_of(value: Any) -> str:
    """The type that holds the value exactly."""
    if isinstance(value, int) and not isinstance(value, bool):
        sizes = {"Int64": (-(2**63), 2**63), "UInt64": (0, 2**64), "Int128": (-(2**127), 2**127), "Int256": (-(2**255), 2**255)}
        return next((name for name, (low, high) in sizes.items() if low <= value < high), "String")
    if isinstance(value, Decimal):
        return f"Decimal(76, {max(-int(value.as_tuple().exponent), 0)})" if value.is_finite() else "Float64"
    if isinstance(value, datetime):
        return "DateTime64(6, 'UTC')" if value.tzinfo else "DateTime64(6)"
    if isinstance(value, list | tuple):
        kinds = {_type_of(item) for item in value if item is not None}
        return f"Array(Nullable({kinds.pop() if len(kinds) == 1 else 'String'}))"
    if value is None:
        return "Nullable(String)"
    return {bool: "Bool", float: "Float64", date: "Date32", UUID: "UUID"}.get(type(value), "String")


def _parameters(values: Sequence[Any]) -> dict[str, Any]:
    return {f"dataflow_{position}": _written(value) for position, value in enumerate(values, start=1)}


def _written(value: Any) -> Any:
    """The value as text that the server parses back exactly; the driver escapes it."""
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    if isinstance(value, datetime):
        moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return moment.isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None or isinstance(value, int) else repr(value) if isinstance(value, float) else str(value)


def code_of(error: BaseException | None) -> int | None:
    """ClickHouse's number of an error, None when it did not come from the server."""
    return getattr(error, "code", None)


def failure(error: Exception, doing: str, kind: type[DataflowError], *, port: int = 0) -> DataflowError:
    """A driver's error as one of ours, told apart by ClickHouse's code; an error without one is a lost or refused connection."""
    code = code_of(error)
    text = f"{doing}: {str(error).strip()}"
    if code is None:
        return ConnectionFailed(text, hint=_NATIVE.format(port=port) if port in NATIVE_PORTS else _UNREACHABLE)
    if code in _NOT_ALLOWED:
        return ConnectionFailed(text, hint="check user and password", transient=False)
    if kind is WriteFailed and code in _BAD_VALUE:
        return ValueRefused(text, hint="change the value in the query, or the type of the target column")
    return kind(text, hint=_HINTS.get(code, ""), kind=ERROR_CODES.kind(code))


def driver_errors() -> tuple[type[Exception], ...]:
    """What the driver and its transport raise."""
    from clickhouse_connect.driver.exceptions import ClickHouseError
    from urllib3.exceptions import HTTPError

    return (ClickHouseError, HTTPError)


@contextmanager
def translated(doing: str, kind: type[DataflowError], *, port: int = 0) -> Iterator[None]:
    """Turn the driver's errors, raised inside, into `kind` or ConnectionFailed."""
    import pyarrow as pa

    try:
        yield
    except driver_errors() as error:
        raise failure(error, doing, kind, port=port) from error
    except (pa.ArrowException, OSError) as error:
        raise kind(f"{doing}: {error}", kind=stream_kind(error)) from error
