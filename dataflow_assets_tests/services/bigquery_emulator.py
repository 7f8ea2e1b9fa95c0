"""The emulator bqemulator, with what BigQuery does and it does not: `BQEMULATOR_PYTHON bigquery_emulator.py REST_PORT GRPC_PORT`.

Here: a program that runs in the emulator's own environment (its packages do not agree with those of this project), so it imports nothing
of this project. Not here: where that environment is, and starting this program (`services.bigquery`).

Added to the emulator: values in scripts, `@@row_count`, tables described as ALTER leaves them, the length and digits of columns, job
ids that are taken once, requests one at a time (its transactions are neither isolated nor safe beside each other), results over the
Storage Read API, and `POST /control`, by which a test has transactions aborted or the Read API refused, and learns what was run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import bqemulator.server
import grpc
import sqlglot
from bqemulator.api.routes import jobs as routes
from bqemulator.api.routes import tables, upload
from bqemulator.catalog.models import TableFieldSchema
from bqemulator.config import LogLevel, Settings
from bqemulator.domain.errors import InvalidQueryError
from bqemulator.grpc_api import read_servicer
from bqemulator.jobs import executor
from bqemulator.scripting import interpreter
from bqemulator.sql import parameters
from bqemulator.sql.table_rewriter import rewrite_table_refs
from bqemulator.storage.engine import DuckDBEngine
from bqemulator.storage.sql_identifiers import quoted_table_ref

_values: ContextVar[list[dict[str, Any]]] = ContextVar("_values")
_VALUE = re.compile(r"[$@](s\d+p\d+)\b")
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_RESULT = re.compile(r'FROM\s+"[^"]*_bqemu_anonymous"\."anon([^"]+)"')
_OWN = re.compile("_dataflow_(ledger|schemas)")
_ALTER = re.compile(r"ALTER TABLE `([^`]+)`\.`([^`]+)`\.`([^`]+)` (.+)", re.DOTALL)
_ACTIONS = re.compile(r", (?=ADD COLUMN )")
_ACTION = re.compile(r"(ADD COLUMN IF NOT EXISTS|ALTER COLUMN) `([^`]+)` (?:SET DATA TYPE )?(ARRAY<)?(\w+)(?:\((\d+)(?:,\s*(\d+))?\))?")
_said: list[str] = []
_asked: dict[str, int] = {"abort": 0, "deny_storage": 0}
_taken: set[str] = set()
_uploads: dict[str, str] = {}
"""Upload -> the id of its job."""
_loaded: ContextVar[str] = ContextVar("_loaded")


def _bind(sql: str, _: object) -> tuple[str, list[Any]]:
    """Values of a script's statement, beside its variables, which are `$1`, `$2` already."""
    known = {item["name"]: item for item in _values.get() if item.get("name")}
    first = max((int(number) for number in re.findall(r"\$(\d+)", sql)), default=0)
    found: list[Any] = []

    def placed(match: re.Match[str]) -> str:
        item = known[match.group(1)]
        value = parameters._extract_value(item)
        found.append(value)
        return parameters._placeholder_for(value, item).replace("?", f"${first + len(found)}")

    return _VALUE.sub(placed, sql), found


def _patch_translation() -> None:
    """Each statement is parsed fifteen times on its way, and those about the ledger are wide: this took most of the time of the tests."""
    parse, translate = sqlglot.parse_one, executor.rewrite_and_translate_statement
    parsed: dict[tuple[Any, ...], Any] = {}
    translated: dict[str, str] = {}

    def parse_once(sql: str, *more: Any, **options: Any) -> Any:
        key = (sql, *more, *sorted(options.items(), key=str))
        if key not in parsed:
            if len(parsed) > 5_000:
                parsed.clear()
            parsed[key] = parse(sql, *more, **options)
        return parsed[key].copy()

    async def translate_once(sql: str, **given: Any) -> str:
        if "FROM " in sql and not _OWN.search(sql):  # the translation may depend on the columns of tables other than these
            return str(await translate(sql, **given))
        if sql not in translated:
            translated[sql] = await translate(sql, **given)
        return translated[sql]

    sqlglot.parse_one = parse_once
    for module in (executor, interpreter):
        module.rewrite_and_translate_statement = translate_once
        module.rewrite_table_refs = lru_cache(4_096)(rewrite_table_refs)


def _patch_scripts() -> None:
    body, query, control = (
        executor._run_query_body,
        interpreter.ScriptInterpreter._run_query,
        interpreter.ScriptInterpreter._handle_txn_statement,
    )

    async def run_body(**given: Any) -> Any:
        _values.set(given["query_params"] or [])
        return await body(**given)

    async def run_query(self: Any, sql: str) -> Any:
        table = await query(self, sql.replace("@@row_count", str(getattr(self, "_rows_written", 0))))
        if _WRITES.match(sql) and table.num_rows and table.num_columns:
            self._rows_written = table.column(0)[0].as_py()
        return table

    async def handle_transaction(self: Any, what: str) -> None:
        if what == "COMMIT" and _asked["abort"]:
            _asked["abort"] -= 1
            raise InvalidQueryError("Transaction is aborted due to concurrent update against table things")
        await control(self, what)

    executor._run_query_body = run_body
    interpreter.bind_parameters = _bind
    interpreter.ScriptInterpreter._run_query = run_query
    interpreter.ScriptInterpreter._handle_txn_statement = handle_transaction


def _patch_alterations() -> None:
    """The emulator changes one column a statement, and goes on to describe the table as it was."""
    body = executor._run_query_body

    async def run_body(**given: Any) -> Any:
        match = _ALTER.fullmatch(given["bq_sql"])
        if match is None:
            return await body(**given)
        *place, actions = match.groups()
        for action in _ACTIONS.split(actions):
            done = await body(**{**given, "bq_sql": f"ALTER TABLE {'.'.join(f'`{part}`' for part in place)} {action}"})
            table = given["ctx"].catalog.get_table(*place)
            schema = table.schema_.model_copy(update={"fields": _changed(table.schema_.fields, action)})
            given["ctx"].catalog.update_table(table.model_copy(update={"schema_": schema}))
        return done

    executor._run_query_body = run_body


def _patch_parameters() -> None:
    """What the API says of the length and the digits of a column; the emulator drops it."""
    parse, show = tables._parse_schema_fields, tables._field_to_rest

    def parse_fields(fields: list[dict[str, Any]]) -> tuple[TableFieldSchema, ...]:
        read = {"max_length": "maxLength", "precision": "precision", "scale": "scale"}
        given = ({key: int(item[name]) for key, name in read.items() if name in item} for item in fields)
        return tuple(field.model_copy(update=update) for field, update in zip(parse(fields), given, strict=True))

    def show_field(field: TableFieldSchema) -> dict[str, Any]:
        known = {"maxLength": field.max_length, "precision": field.precision, "scale": field.scale}
        return show(field) | {name: str(value) for name, value in known.items() if value is not None}

    tables._parse_schema_fields, tables._field_to_rest = parse_fields, show_field


def _changed(fields: Sequence[Any], action: str) -> tuple[Any, ...]:
    """The columns of a table after one of them was added or has another type."""
    match = _ACTION.fullmatch(action.rstrip(">"))
    assert match is not None, action
    what, name, repeated, family, first, second = match.groups()
    is_text = family in {"STRING", "BYTES"}
    parameters = {"max_length": first if is_text else None, "precision": None if is_text else first, "scale": second}
    made = {"name": name, "type": family, **{key: int(value) for key, value in parameters.items() if value is not None}}
    field = TableFieldSchema(**made, mode="REPEATED" if repeated else "NULLABLE")
    if what == "ALTER COLUMN":
        return tuple(field if item.name == name else item for item in fields)
    return (*fields, field) if name not in {item.name for item in fields} else tuple(fields)


def _patch_loads() -> None:
    """A load job has the id that it was given, and says how many rows it took; the emulator says how many the table has."""
    load = executor.execute_load_job
    upload._new_job_id = _loaded.get

    async def execute_load_job(project: str, job_id: str, config: dict[str, Any], ctx: Any) -> Any:
        table = config["load"]["destinationTable"]
        place = quoted_table_ref(table["projectId"], table["datasetId"], table["tableId"])
        ((before,),) = ctx.engine.execute(f"SELECT count(*) FROM {place}").fetchall()
        done = await load(project, job_id, config, ctx)
        after = int(done.statistics["load"]["outputRows"])
        return done.model_copy(update={"statistics": {"load": {"outputRows": str(after - before)}}})

    routes.execute_load_job = upload.execute_load_job = execute_load_job


def _patch_storage_reads() -> None:
    """The result of a job is a table that can be read; the emulator knows it over REST only."""
    fetch, create = DuckDBEngine.fetch_arrow, read_servicer.BigQueryReadHandler._handle_create_read_session

    def fetch_arrow(self: Any, sql: str, values: Any = None) -> Any:
        if match := _RESULT.search(sql):
            return next(table for name, table in routes.JOB_RESULTS.items() if name.replace("-", "") == match.group(1))
        return fetch(self, sql, values)

    def create_session(self: Any, request: bytes, context: Any) -> bytes:
        if _asked["deny_storage"]:
            context.set_code(grpc.StatusCode.PERMISSION_DENIED)
            context.set_details("bigquery.readsessions.create denied")
            return b""
        _said.append("CreateReadSession")
        return bytes(create(self, request, context))

    DuckDBEngine.fetch_arrow = fetch_arrow
    read_servicer.BigQueryReadHandler._handle_create_read_session = create_session


class OneAtATime:
    """Requests in turn, job ids once, and `/control`."""

    def __init__(self, app: Any) -> None:
        self._app, self._lock = app, asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        if scope["path"] == "/control":
            _asked.update(json.loads(body or b"{}"))
            await _answer(send, 200, list(_said))
            _said.clear()
            return
        async with self._lock:
            if scope["method"] == "POST" and scope["path"].endswith("/jobs") and "upload" not in scope["path"]:
                job = json.loads(body)
                name = job.get("jobReference", {}).get("jobId", "")
                if name in _taken:
                    error = {"reason": "duplicate", "message": f"Already Exists: Job {name}"}
                    await _answer(send, 409, {"error": {"code": 409, "message": error["message"], "errors": [error]}})
                    return
                _taken.add(name)
                _said.append(job.get("configuration", {}).get("query", {}).get("query", ""))
            elif scope["method"] == "POST" and scope["path"].endswith("/tables"):
                _said.append(body.decode())
            elif scope["path"].startswith("/upload"):
                send = _with_its_job(scope, body, send)
            await self._app(scope, _once(body), send)


def _with_its_job(scope: Any, body: bytes, send: Any) -> Any:
    """Remember the id of a job between the request that begins an upload and the one that ends it."""
    if scope["method"] == "PUT":
        _loaded.set(_uploads[parse_qs(scope["query_string"].decode())["upload_id"][0]])
        return send
    name = json.loads(body)["jobReference"]["jobId"]

    async def listen(message: dict[str, Any]) -> None:
        for header, value in message.get("headers", ()):
            if header.lower() == b"x-guploader-uploadid":
                _uploads[value.decode()] = name
        await send(message)

    return listen


async def _whole(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _once(body: bytes) -> Any:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


async def _answer(send: Any, status: int, document: object) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


def _end_with_parent() -> None:
    """Whoever started the server holds its input open; also one that is killed lets it go."""
    sys.stdin.buffer.read()
    os._exit(0)


def main(rest_port: str, grpc_port: str) -> None:
    """Serve on the loopback until killed, or until standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _patch_translation()
    _patch_scripts()
    _patch_parameters()
    _patch_alterations()
    _patch_loads()
    _patch_storage_reads()
    make = bqemulator.server.create_app
    bqemulator.server.create_app = lambda context: OneAtATime(make(context))
    settings = Settings(
        rest_port=int(rest_port),
        grpc_port=int(grpc_port),
        enable_format_extensions=False,  # would be fetched from the network
        log_level=LogLevel.ERROR,
    )
    bqemulator.server.run_forever(settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
