"""The target table as it stands: its columns and unique indexes, making it, and taking it away again.

Here: what is asked of the catalog and every DDL statement. MySQL commits at each DDL statement, so none of this runs inside the
transaction of a publish (`_mysql_publish`). Not here: rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataflow_assets.connectors._mysql_session import MYSQL, NO_DATABASE, NO_TABLE, code_of, fetch, run
from dataflow_assets.connectors._mysql_types import TargetColumn, sql_type
from dataflow_assets.errors import WriteFailed
from dataflow_assets.storage import ledger, registry, sql
from dataflow_assets.storage.agreement import Agreement
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import PublishRequest, TableName, Target, WriteMode

if TYPE_CHECKING:
    import pymysql

LOCK = ("", "", "")
"""Pipeline, step and unit of the ledger row that stands for the whole table and is locked by publishes."""
_SHOWS, _BEING_ALTERED = 20, 1684
_KEY = ("target_table", "pipeline", "step", "unit_key")
_ENGINE = """
SELECT table_name, table_type, engine FROM information_schema.tables
WHERE table_schema = coalesce({schema}, database()) AND table_name = {name}
"""


@dataclass(frozen=True)
class UniqueIndex:
    """A unique index; `whole` says that it covers its columns in full."""

    name: str
    columns: tuple[str, ...]
    whole: bool
    counts: bool
    """Whether a column of it counts up by itself."""


def table_options(connection: pymysql.Connection[Any]) -> str:
    """What new tables have in common: InnoDB, and text that is equal only where it is the same, blanks and case included."""
    version = str(connection.get_server_info())
    exact = "utf8mb4_nopad_bin" if "MariaDB" in version else "utf8mb4_0900_bin" if int(version.split(".", 1)[0]) >= 8 else "utf8mb4_bin"
    return f"ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {exact}"


def require_ledger(connection: pymysql.Connection[Any], target: Target, known: Registry) -> None:
    """Create database, ledger and registry where they are missing."""
    import pymysql

    table, schemas = ledger.ledger_table(target.table), registry.registry_table(target.table)
    statement = ledger.create_ledger(MYSQL, table, options=table_options(connection))
    try:
        run(connection, statement)
    except pymysql.MySQLError as error:
        if code_of(error) != NO_DATABASE or table.schema is None:
            raise
        run(connection, Statement(f"CREATE DATABASE IF NOT EXISTS {MYSQL.quote(table.schema)} CHARACTER SET utf8mb4"))
        run(connection, statement)
    run(connection, registry.create_registry(MYSQL, schemas, options=table_options(connection)))
    known.made.add(schemas)


def require_registry(connection: pymysql.Connection[Any], target: Target, known: Registry) -> None:
    """Create what is missing beside the target, where that is not known: an older ledger has no registry."""
    schemas = registry.registry_table(target.table)
    if schemas not in known.made:
        if exists(connection, schemas):
            known.made.add(schemas)
        else:
            require_ledger(connection, target, known)


def exists(connection: pymysql.Connection[Any], table: TableName) -> bool:
    """Whether there is a table or view of this name."""
    return bool(columns_of(connection, table))


def columns_of(connection: pymysql.Connection[Any], table: TableName) -> dict[str, TargetColumn]:
    """Name -> column; empty when there is no such table. By name and not by pattern, so capitals count where they do on the server."""
    found = _shown(connection, "FULL COLUMNS", table)
    columns = {}
    for name, definition, collation, null, index, default, extra, _, comment in found:
        filled = any(word in extra.lower() for word in ("auto_increment", "virtual", "stored", "persistent"))
        bare = default is None and not extra and not index and not comment
        columns[name] = TargetColumn(name, _text(definition), collation, default is None and not filled, null == "YES", bare)
    return columns


def unique_indexes(connection: pymysql.Connection[Any], table: TableName) -> list[UniqueIndex]:
    """The unique indexes of the table, its primary key among them."""
    counting = {row[0] for row in _shown(connection, "FULL COLUMNS", table) if "auto_increment" in row[6].lower()}
    parts: dict[str, list[tuple[str | None, Any]]] = {}
    for row in _shown(connection, "INDEX", table, "WHERE Non_unique = 0"):
        parts.setdefault(row[2], []).append((row[4], row[7] or row[10] == "HASH"))  # by hash: a key that another table cannot have
    return [
        UniqueIndex(
            name,
            tuple(str(column) for column, _ in found),
            all(column is not None and not part for column, part in found),
            any(column in counting for column, _ in found),
        )
        for name, found in parts.items()
    ]


def _shown(connection: pymysql.Connection[Any], what: str, table: TableName, where: str = "") -> list[tuple[Any, ...]]:
    """The answer to SHOW ... FROM a table; none when there is no such table."""
    import pymysql

    name = MYSQL.table(table)
    for _ in range(_SHOWS):
        try:
            return fetch(connection, Statement(f"SHOW {what} FROM {name} {where}"))
        except pymysql.MySQLError as error:
            if code_of(error) in {NO_TABLE, NO_DATABASE}:
                return []
            if code_of(error) != _BEING_ALTERED:
                raise
        # SHOW does not wait for another session's DDL, as a SELECT does
        with suppress(pymysql.MySQLError):
            fetch(connection, Statement(f"SELECT 1 FROM {name} LIMIT 0"))  # noqa: S608 - the name is quoted
    raise WriteFailed(f"{table} is being altered all the time", hint="see who alters it", transient=True)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def require_innodb(connection: pymysql.Connection[Any], table: TableName) -> None:
    """Raise WriteFailed unless the table is one whose changes can be taken back."""
    statement = Statement(_ENGINE.format(schema=MYSQL.placeholder(1), name=MYSQL.placeholder(2)), (table.schema, table.name))
    found = fetch(connection, statement)
    exact = [row for row in found if row[0] == table.name] or found
    for _, kind, engine in exact[:1]:
        if kind != "BASE TABLE" or str(engine).lower() != "innodb":
            what = f"a table of engine {engine}" if kind == "BASE TABLE" else f"a {str(kind).lower()}"
            hint = f"ALTER TABLE {MYSQL.table(table)} ENGINE=InnoDB;" if kind == "BASE TABLE" else "name the table itself"
            raise WriteFailed(f"{table} is {what}: only InnoDB can take half a window back", hint=hint)


def create_table(connection: pymysql.Connection[Any], request: PublishRequest) -> Statement:
    """The statement for a table of the data, in one piece with its indexes: a kill cannot leave it without them."""
    target = request.target
    keys = target.keys if target.mode is WriteMode.UPSERT else ()
    given: Mapping[str, str] = target.options.columns
    inferred = {item.name: sql_type(item.type, name=item.name, key=item.name in keys) for item in request.schema if item.name not in given}
    window = target.window_column if target.mode is WriteMode.REPLACE_WINDOW else None
    index = [window] if window is not None and window in {*given, *inferred} else []
    options = table_options(connection)
    return sql.create_table(MYSQL, target.table, {**given, **inferred}, primary_key=keys, index=index, options=options)


def make(connection: pymysql.Connection[Any], request: PublishRequest) -> bool:
    """Create the target table unless it is there; whether it did.

    The lock makes the test and the forgetting one step: whoever publishes into the new table waits for it, so nothing that is
    published is forgotten. CREATE TABLE then commits both.
    """
    statement = create_table(connection, request)
    table = request.target.table
    if not request.target.options.auto_create:
        raise WriteFailed(f"table {table} does not exist and auto_create is off", hint=f"{statement.text};")
    begin(connection, request.target, alone=True)
    if exists(connection, table):
        run(connection, Statement("ROLLBACK"))
        return False
    run(connection, ledger.forget_publications(MYSQL, table))
    run(connection, statement)
    return True


def alter(connection: pymysql.Connection[Any], request: PublishRequest, agreement: Agreement) -> None:
    """Change the table; each statement commits by itself. Whoever publishes into it is waited for."""
    begin(connection, request.target, alone=True)
    for statement in agreement.statements(request, MYSQL):
        run(connection, statement)


def begin(connection: pymysql.Connection[Any], target: Target, *, alone: bool) -> None:
    """Begin a transaction that has the table to itself, or shares it with others that share it.

    READ COMMITTED: the locks of a stricter level cover the gaps around a window, and so its neighbours.
    """
    mode = "FOR UPDATE" if alone else "LOCK IN SHARE MODE"
    ledger_table = MYSQL.table(ledger.ledger_table(target.table))
    where = " AND ".join(f"{MYSQL.quote(name)} = {MYSQL.placeholder(position)}" for position, name in enumerate(_KEY, start=1))
    values = (str(target.table), *LOCK)
    for _ in range(3):
        run(connection, Statement("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        run(connection, Statement("START TRANSACTION"))
        if fetch(connection, Statement(f"SELECT 1 FROM {ledger_table} WHERE {where} {mode}", values)):  # noqa: S608 - names are quoted
            return
        run(connection, Statement("ROLLBACK"))
        marks = ", ".join(MYSQL.placeholder(position) for position in range(1, 7))
        names = MYSQL.names([*_KEY, "claimed_generation", "claimed_attempt"])
        run(connection, Statement(f"INSERT IGNORE INTO {ledger_table} ({names}) VALUES ({marks})", (*values, 0, "")))  # noqa: S608
    raise WriteFailed(f"the ledger keeps no row for the lock of {target.table}", hint="shorten the names of schema and table")


def drop_if_empty(connection: pymysql.Connection[Any], table: TableName) -> None:
    """Take away a table that a failed publish has made, unless somebody wrote into it since; as far as rights allow.

    LOCK TABLES, because DROP would first commit, and so let go of any other lock.
    """
    import pymysql

    name = MYSQL.table(table)
    with suppress(pymysql.MySQLError):
        run(connection, Statement("SET SESSION lock_wait_timeout = 5"))
        run(connection, Statement(f"LOCK TABLES {name} WRITE"))
        if not fetch(connection, Statement(f"SELECT 1 FROM {name} LIMIT 1")):  # noqa: S608 - the name is quoted
            run(connection, Statement(f"DROP TABLE {name}"))
    with suppress(pymysql.MySQLError):
        run(connection, Statement("UNLOCK TABLES"))


def require_one_index(connection: pymysql.Connection[Any], target: Target, names: Sequence[str]) -> None:
    """Raise WriteFailed unless the upsert keys are a unique index and the only one that a row can meet.

    ON DUPLICATE KEY answers to every unique index: with a second one a row would overwrite a row with other keys. One that counts
    up by itself, and is not among the columns of the data, meets nothing.
    """
    found = unique_indexes(connection, target.table)
    if not any(set(index.columns) == set(target.keys) and index.whole for index in found):
        text = sql.create_index(MYSQL, target.table, target.keys, name="dataflow_upsert", unique=True).text
        raise WriteFailed(f"table {target.table} has no unique index on the upsert keys {', '.join(target.keys)}", hint=f"{text};")
    others = [index for index in found if set(index.columns) != set(target.keys)]
    if meeting := [index.name for index in others if not (index.counts and not set(index.columns) <= set(names))]:
        raise WriteFailed(
            f"table {target.table} has another unique index, {meeting[0]}, which ON DUPLICATE KEY would answer to as well",
            hint="drop it, or publish with replace_window or append",
        )
