"""The emulator fakesnow as a server of its own process: `python -m dataflow_assets_tests.services.snowflake_emulator PORT`.

Here: what a real account does and fakesnow 0.12 does not, put around it so that the connector needs no branch for it: locks and
transactions, temporary tables with a schema, timestamps made of counts, nulls in timestamps, error numbers; and faults on demand. Not
here: who starts it (`services.snowflake`). DuckDB does the work, so it proves the order of statements and their effect, not speed,
rights, or what Snowflake itself makes of a value.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from string import Template
from typing import Any

import duckdb
import fakesnow.arrow
import fakesnow.converter
import fakesnow.copy_into
import fakesnow.cursor
import fakesnow.info_schema
import fakesnow.rowtype
import fakesnow.server
import fakesnow.transforms
import numpy as np
import pyarrow as pa
import uvicorn
from snowflake.connector.errors import ProgrammingError
from sqlglot import exp, parse_one
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DETACHED_SECONDS = 120.0
"""How long a silent transaction keeps its locks from others; five minutes with Snowflake. Here, at once when its client is gone."""
_NAME = r"(?:\"(?:[^\"]|\"\")+\"|\w+)"
_LOCKING = re.compile(rf"^\s*(?:UPDATE|DELETE FROM|MERGE INTO)\s+({_NAME}(?:\.{_NAME})*)", re.IGNORECASE)
_DESCRIBE = re.compile(rf"^\s*DESCRIBE TABLE\s+({_NAME}(?:\.{_NAME})*)\s*$", re.IGNORECASE)
_TEMPORARY = re.compile(r"^\s*CREATE TEMPORARY TABLE\s+(\S+)", re.IGNORECASE)
_DEFINES = re.compile(r"^\s*(?:CREATE|DROP|ALTER)\b", re.IGNORECASE)
_SUCCESS = """SELECT 'Statement executed successfully.' AS "status\""""


@dataclass
class State:
    """What the server knows of one session beside fakesnow."""

    token: str
    transaction: int = 0
    busy: int = 0
    touched: float = field(default_factory=time.monotonic)
    temporary: list[str] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)
    """Where its client's connections come from."""

    def is_detached(self) -> bool:
        """Whether its client is dead or was silent for too long."""
        silent = time.monotonic() - self.touched
        return not self.busy and (silent > DETACHED_SECONDS or (silent > 0.3 and not self.ports & _connected()))


def _connected() -> set[int]:
    """The ports of all established connections from this machine; any port where Linux does not tell."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        return set(range(65_536))
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return {int(row[2].split(":")[1], 16) for row in rows if row[3] == "01"}


@dataclass
class Fault:
    """The next statement that holds `text` is run, if `runs`; it and all further ones of its session get status 503.

    With `after`, only once a statement has passed that holds this.
    """

    text: str
    runs: bool
    after: str = ""
    token: str = ""

    def hits(self, token: str, text: str) -> bool:
        """Whether it strikes this statement of this session."""
        if self.after:
            self.after = "" if self.after in text else self.after
            return False
        return token == self.token or (not self.token and self.text in text)


_states: dict[str, State] = {}
_locks: dict[str, State] = {}
_faults: list[Fault] = []
_statements: list[str] = []
_definitions = asyncio.Lock()
_numbers = iter(range(1, sys.maxsize))


async def query(request: Request) -> Response:
    """Run a statement: wait for its locks, rewrite what fakesnow does not know, and let fakesnow do the rest."""
    token = fakesnow.server.to_token(request)
    state = _states.setdefault(token, State(token))
    if request.client is not None:
        state.ports.add(request.client.port)
    body = json.loads(gzip.decompress(await request.body()))
    text = body["sqlText"]
    _statements.append(text)
    fault = next((fault for fault in _faults if fault.hits(token, text)), None)
    if fault is not None:
        first, fault.token = not fault.token, token
        if not (first and fault.runs):
            return Response(status_code=503)
    if body.get("bindings"):
        body["describeOnly"] = False  # fakesnow describes values as nulls, which are text
    state.busy += 1
    try:
        locked = await _lock(state, text)
        async with _definitions if _DEFINES.match(text) else nullcontext():
            reply = await fakesnow.server.query_request(_with_body(request, {**body, "sqlText": _rewritten(state, text)}))
        _after(state, text, locked=locked)
    finally:
        state.busy -= 1
        state.touched = time.monotonic()
    return Response(status_code=503) if fault is not None else reply


async def _lock(state: State, text: str) -> str | None:
    """UPDATE, DELETE and MERGE have their table to themselves until the transaction ends."""
    match = _LOCKING.match(text)
    if match is None:
        return None
    connection = fakesnow.server.sessions[state.token]
    table = f"{connection.database}.{'' if '.' in match[1] else connection.schema}.{match[1]}"
    while (holder := _locks.get(table, state)) is not state:
        if holder.is_detached():
            end_transaction(holder)
        else:
            await asyncio.sleep(0.02)
    _locks[table] = state
    return table


def end_transaction(state: State) -> None:
    """Roll back what a session has open, and give its locks to others."""
    if (connection := fakesnow.server.sessions.get(state.token)) is not None:
        with suppress(duckdb.Error):  # none was open
            connection._duck_conn.rollback()
        connection._in_transaction = False
    state.transaction = 0
    _release(state)


def _release(state: State) -> None:
    for table in [table for table, holder in _locks.items() if holder is state]:
        del _locks[table]


def _rewritten(state: State, text: str) -> str:
    verb = text.strip().upper()
    if verb == "BEGIN":
        state.transaction = next(_numbers)
        if not fakesnow.server.sessions[state.token]._autocommit:
            return _SUCCESS  # DuckDB's transaction, and with it its snapshot, begins with the first change
    if verb.startswith("DROP STAGE"):
        return _SUCCESS  # its name is never used again
    if (match := _TEMPORARY.match(text)) is not None:
        state.temporary.append(match[1])
        return re.sub("TEMPORARY ", "", text, count=1)
    number = f"'{state.transaction}'" if state.transaction else "NULL"
    return text.replace("CURRENT_TRANSACTION()", number)


def _after(state: State, text: str, *, locked: str | None) -> None:
    verb = text.strip().upper()
    connection = fakesnow.server.sessions.get(state.token)
    if verb in {"COMMIT", "ROLLBACK"}:
        state.transaction = 0
        _release(state)
    elif locked is not None and connection is not None and connection._autocommit and not state.transaction:
        _release(state)


def _with_body(request: Request, body: dict[str, Any]) -> Request:
    raw = json.dumps(body).encode()
    headers = [(name, value) for name, value in request.scope["headers"] if name not in {b"content-encoding", b"content-length"}]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    return Request({**request.scope, "headers": headers}, receive)


async def login(request: Request) -> Response:
    """With a master token, without which the driver does not end its sessions."""
    reply = json.loads((await fakesnow.server.login_request(request)).body)
    reply["data"]["masterToken"] = reply["data"]["token"]
    return JSONResponse(reply)


async def session(request: Request) -> Response:
    """The end of a session takes its transaction and its temporary tables with it."""
    if request.query_params.get("delete"):
        token = fakesnow.server.to_token(request)
        if (state := _states.pop(token, None)) is not None and token in fakesnow.server.sessions:
            end_transaction(state)
            for table in state.temporary:
                fakesnow.server.sessions[token].cursor().execute(f"DROP TABLE IF EXISTS {table}")
    return await fakesnow.server.session(request)


async def control(request: Request) -> Response:
    """For tests: plant faults, end the transactions of all sessions, forget a database, list the statements so far."""
    asked = json.loads(await request.body())
    if "fault" in asked:
        _faults[:] = [Fault(**asked["fault"])] if asked["fault"] else []
    if asked.get("end_transactions"):
        for state in _states.values():
            end_transaction(state)
    if "forget" in asked:  # every database makes all of them slower
        with fakesnow.server.shared_fs.duck_conn.cursor() as cursor, suppress(duckdb.Error):
            cursor.execute(f"DETACH {asked['forget']}")
    said = list(_statements)
    _statements.clear()
    return JSONResponse(said)


# -- what fakesnow gets wrong


def _sent_timestamps(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """As Snowflake sends them: counts, or seconds, nanoseconds and offset; fakesnow makes 1970 of a null, and stops at 2262."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    counts = array.cast(pa.timestamp("us", array.type.tz)).cast(pa.int64())
    if not array.type.tz:
        return counts
    numbers = counts.fill_null(0).to_numpy(zero_copy_only=False)
    arrays = [numbers // 1_000_000, numbers % 1_000_000 * 1_000, np.full(len(numbers), 1440)]
    names = ("epoch", "fraction", "timezone")
    kinds = (pa.int64(), pa.int32(), pa.int32())
    fields = [pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)]
    return pa.StructArray.from_arrays(
        [pa.array(values, kind) for values, kind in zip(arrays, kinds, strict=True)], fields=fields, mask=array.is_null()
    )


def _described(original: Callable[[list[Any]], list[Any]]) -> Callable[[list[Any]], list[Any]]:
    """DuckDB's timestamps have six digits, and that is what is said of them."""

    def describe(results: list[Any]) -> list[Any]:
        found = original(results)
        for column in found:
            if column["type"].startswith("timestamp"):
                column["scale"] = 6
        return found

    return describe


def _execute(original: Callable[..., Any]) -> Callable[..., Any]:
    """Errors of DuckDB as Snowflake numbers them; fakesnow answers with status 500, and the driver tries again and again."""

    def execute(self: Any, command: str, *arguments: Any, **more: Any) -> Any:
        _require_table(self, command)
        try:
            if command.startswith("MERGE "):
                count = _merge(self, command, more.get("binding_params"))
                return original(self, f'SELECT {count} AS "number of rows inserted"', server=True)
            return original(self, command, *arguments, **more)
        except duckdb.ConstraintException as error:
            raise ProgrammingError(msg=str(error), errno=100072, sqlstate="22000") from error
        except duckdb.TransactionException as error:
            raise ProgrammingError(msg=str(error), errno=625, sqlstate="57014") from error
        except (duckdb.DataError, duckdb.InvalidInputException) as error:
            raise ProgrammingError(msg=str(error), errno=100038, sqlstate="22018") from error
        except duckdb.Error as error:
            raise ProgrammingError(msg=str(error), errno=1, sqlstate="XX000") from error

    return execute


def _merge(cursor: Any, command: str, values: Any) -> int:
    """DuckDB has a MERGE of its own by now, which takes any expression; fakesnow builds one of several statements."""
    connection = cursor._conn
    if not connection._autocommit and not connection._in_transaction:
        cursor._duck_conn.begin()
        connection._in_transaction = True
    text = cursor._transform(fakesnow.cursor.parse_one(command), values).sql(dialect="duckdb")
    return int(cursor._duck_conn.execute(text, list(values) if values else None).fetchall()[0][0])


def _require_table(cursor: Any, command: str) -> None:
    """A table that is not there is told without a failing statement, after which DuckDB's transaction could only be rolled back."""
    if (match := _DESCRIBE.match(command)) is None:
        return
    names = [part[1:-1].replace('""', '"') if part[0] == '"' else part.upper() for part in re.findall(_NAME, match[1])]
    schema, table = [cursor._conn.schema, *names][-2:]
    found = cursor._duck_conn.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = $1 AND schema_name = $2 AND table_name = $3",
        [cursor._conn.database, schema, table],
    ).fetchall()
    if not found:
        raise ProgrammingError(msg=f"Object '{match[1]}' does not exist or not authorized.", errno=2003, sqlstate="42S02")


def _from_binding(original: Callable[[dict[str, str]], Any]) -> Callable[[dict[str, str]], Any]:
    def convert(binding: dict[str, str]) -> Any:
        if binding["type"] == "FIXED" and "." in (binding["value"] or ""):
            return Decimal(binding["value"])
        value = original(binding)
        return value.replace(tzinfo=None) if binding["type"] == "TIMESTAMP_NTZ" and isinstance(value, datetime) else value

    return convert


def _timestamps(original: Callable[..., Any]) -> Callable[..., Any]:
    """TO_TIMESTAMP_NTZ, _LTZ and _TZ of a count, exactly; a nanosecond that DuckDB's timestamps do not have is an error."""

    def transform(expression: exp.Expression) -> exp.Expression:
        if not isinstance(expression, exp.UnixToTime) or expression.args.get("scale") is None:
            return original(expression)
        count, nanoseconds = expression.this.sql("duckdb"), expression.args["scale"].name == "9"
        micros = (
            f"(CASE WHEN {count} % 1000 = 0 THEN {count} // 1000 ELSE error('finer than microseconds: ' || {count}) END)"
            if nanoseconds
            else count
        )
        moment = f"make_timestamp(CAST({micros} AS BIGINT))"
        zoned = "TZ" in expression.args["target_type"].sql("snowflake").replace("NTZ", "")
        return parse_one(f"{moment} AT TIME ZONE 'UTC'" if zoned else moment, read="duckdb")

    return transform


def _table_columns(table: exp.Table, duck: duckdb.DuckDBPyConnection, database: str | None, schema: str | None) -> list[str]:
    """The columns of a table as they are spelled; fakesnow makes them upper case, finds no such column in the file, and loads nulls."""
    names = (table.catalog or database, table.db or schema, table.name)
    text = "SELECT column_name FROM duckdb_columns() WHERE (database_name, schema_name, table_name) = ($1, $2, $3) ORDER BY column_index"
    return [name for (name,) in duck.execute(text, list(names)).fetchall()]


def _text_lengths(original: Callable[..., str]) -> Callable[..., str]:
    """Names with an apostrophe, which fakesnow pastes into text as they are."""

    def insert(catalog: str, schema: str, table: str, lengths: list[tuple[str, int]]) -> str:
        names = [name.replace("'", "''") for name in (catalog, schema, table)]
        return original(*names, [(name.replace("'", "''"), length) for name, length in lengths])

    return insert


def _describe_table(original: Callable[..., Any]) -> Callable[..., Any]:
    """The same for the statement that DESCRIBE TABLE becomes."""

    def transform(expression: exp.Expression, *arguments: Any, **more: Any) -> exp.Expression:
        if isinstance(expression, exp.Describe) and isinstance(expression.this, exp.Table):
            expression = expression.copy()
            for part in expression.this.find_all(exp.Identifier):
                part.set("this", part.name.replace("'", "''"))
        return original(expression, *arguments, **more)

    return transform


def _integers(original: Callable[..., Any]) -> Callable[..., Any]:
    """NUMBER(38,0) has 38 digits; fakesnow makes 64 bits of it."""
    return lambda expression: expression if isinstance(expression, exp.DataType) and expression.expressions else original(expression)


def _patch() -> None:
    fakesnow.arrow.timestamp_to_sf_struct = _sent_timestamps
    described = _described(fakesnow.rowtype.describe_as_rowtype)
    fakesnow.rowtype.describe_as_rowtype = fakesnow.server.describe_as_rowtype = described
    fakesnow.cursor.FakeSnowflakeCursor.execute = _execute(fakesnow.cursor.FakeSnowflakeCursor.execute)
    fakesnow.cursor.SQL_CREATED_TABLE = fakesnow.cursor.SQL_DROPPED = Template(_SUCCESS)  # theirs paste the name as it is
    fakesnow.copy_into._get_table_columns = _table_columns
    fakesnow.info_schema.insert_text_lengths_sql = _text_lengths(fakesnow.info_schema.insert_text_lengths_sql)
    fakesnow.transforms.describe_table = _describe_table(fakesnow.transforms.describe_table)
    fakesnow.transforms.integer_precision = _integers(fakesnow.transforms.integer_precision)
    fakesnow.transforms.to_timestamp = _timestamps(fakesnow.transforms.to_timestamp)
    fakesnow.server.from_binding = _from_binding(fakesnow.converter.from_binding)


def _end_with_parent() -> None:
    """Whoever started the server holds its input open; also one that is killed lets it go."""
    sys.stdin.buffer.read()
    os._exit(0)


def main(port: str) -> None:
    """Serve on the loopback until killed, or until standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _patch()
    fakesnow.server.logger.handlers, fakesnow.server.logger.level = [logging.StreamHandler()], logging.ERROR
    own = {"/session/v1/login-request": login, "/queries/v1/query-request": query, "/session": session}
    routes = [route for route in fakesnow.server.routes if route.path not in own]
    routes += [Route(path, handler, methods=["POST"]) for path, handler in {**own, "/control": control}.items()]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(port), log_level="error", timeout_keep_alive=600)


if __name__ == "__main__":
    main(sys.argv[1])
