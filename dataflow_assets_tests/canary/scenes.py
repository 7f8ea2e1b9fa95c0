"""Projects with a planted password: connections that work, and connections that fail in every way that may show it.

Here: one scene for each system, on its real service or emulator. Not here: what is done with them (`test_canary`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from dataflow_assets_tests.canary.leaks import PLAIN, SECRET
from dataflow_assets_tests.services.http_server import Answer, Asked, served
from dataflow_assets_tests.services.ladder import free_port
from dataflow_assets_tests.services.mysql import RIGHTS, ask, parts_of

Service = Callable[[str], Any]

PYTHON = """\
import os

def transform(rows):
    raise ValueError("cannot log in with " + os.environ["CANARY_A"] + " or " + repr(os.environ["CANARY_A"]))
"""


@dataclass
class Scene:
    """A project to be written. What the environment holds is under names that do not look like those of secrets."""

    kind: str
    connections: dict[str, Mapping[str, Any]]
    environment: dict[str, str]
    table: Mapping[str, Any] = field(default_factory=lambda: {"table": "facts"})
    """What names a table, in a source and in an endpoint."""
    failing: Mapping[str, Any] = field(default_factory=dict)
    """A source that the server refuses, in words that repeat what it was sent."""
    writes: bool = True
    good: tuple[str, str] = ("by_keys", "by_dsn")
    """The connections that work: one to write by, one to read by."""

    refused_by_all: bool = False
    """Whether the other connections ask for that too, in place of the table."""

    def write(self, root: Path) -> tuple[Path, ...]:
        """Write the project; the files in which the password stands because the user wrote it there."""
        for name in ("pipelines", "data", "code"):
            (root / name).mkdir(parents=True)
        (root / "data" / "rows.csv").write_text("id,value\n1,a\n2,b\n")
        (root / "code" / "boom.py").write_text(PYTHON)
        project = {"project_name": "canary", "connections": {name: {"type": self.kind, **keys} for name, keys in self.connections.items()}}
        (root / "dataflow_project.yml").write_text(yaml.safe_dump(project, allow_unicode=False))
        pipelines = dict(self._pipelines())
        for name, steps in pipelines.items():
            document = {"pipeline_name": name, "retries": {"max_retries": 0}, "steps": steps}
            (root / "pipelines" / f"{name}.yml").write_text(yaml.safe_dump(document))
        return (root / "dataflow_project.yml",)

    def _pipelines(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        write, read = self.good
        if self.writes:
            yield "a_load", [_rows(), self._endpoint(write)]
        yield "b_read", [self._source(read), _file("b_read")]
        yield "c_python", [self._source(read), _boom(), _file("c_python", after="boom")]
        if self.failing:
            yield "d_refused", [self._source(read, self.failing), _file("d_refused")]
        for name in self.connections:
            if name not in self.good:
                yield f"e_{name}", [self._source(name, self.refused_by_all and self.failing), _file(f"e_{name}")]
                if self.writes and name in {"unquoted", "wrong", "written_keys", "no_bucket"}:
                    yield f"f_{name}", [_rows(), self._endpoint(name)]

    def _source(self, connection: str, config: Mapping[str, Any] | bool | None = None) -> dict[str, Any]:
        return {"id": "read", "type": "source", "source_type": self.kind, "connection": connection, "config": dict(config or self.table)}

    def _endpoint(self, connection: str) -> dict[str, Any]:
        own = self.table if connection in self.good else {key: name.replace("facts", connection) for key, name in self.table.items()}
        config = {**own, "mode": "replace"}
        return {
            "id": "write",
            "type": "endpoint",
            "endpoint_type": self.kind,
            "connection": connection,
            "depends_on": ["read"],
            "config": config,
        }


def _rows() -> dict[str, Any]:
    return {"id": "read", "type": "source", "source_type": "csv", "config": {"file_path": "data/rows.csv"}}


def _file(name: str, *, after: str = "read") -> dict[str, Any]:
    config = {"file_path": f"out/{name}.csv", "mode": "replace"}
    return {"id": "write", "type": "endpoint", "endpoint_type": "csv", "depends_on": [after], "config": config}


def _boom() -> dict[str, Any]:
    config = {"file": "code/boom.py", "function": "transform"}
    return {"id": "boom", "type": "processor", "processor_type": "python", "depends_on": ["read"], "config": config}


def _url(scheme: str, keys: Mapping[str, Any], *, password: str) -> str:
    return f"{scheme}://{keys['user']}:{password}@{keys['host']}:{keys['port']}/{keys['database']}"


def _of_servers(kind: str, scheme: str, keys: Mapping[str, Any], *, failing: str, dsn: str = "dsn") -> Scene:
    """Keys and DSN, quoted as it must be, and as it must not be; wrong, absent and unreachable logins."""
    quoted = quote(SECRET, safe="")
    environment = {
        "CANARY_A": SECRET,
        "CANARY_B": _url(scheme, keys, password=quoted),
        "CANARY_C": _url(scheme, keys, password=SECRET),
        "CANARY_D": _url(scheme, {**keys, "port": free_port()}, password=quoted),
        "CANARY_E": f"{_url(scheme, keys, password=quoted)}?{kind}_no_such_option={quoted}",
        "CANARY_F": SECRET.swapcase(),
    }
    connections = {
        "by_dsn": {dsn: "${CANARY_B}"},
        "as_written": {dsn: environment["CANARY_B"]},
        "unquoted": {dsn: "${CANARY_C}"},
        "away": {dsn: "{{ env_var('CANARY_D') }}"},
        "odd": {dsn: "${CANARY_E}"},
    }
    if dsn == "dsn":
        connections |= {
            "by_keys": {**keys, "password": "${CANARY_A}"},
            "written_keys": {**keys, "user": "nobody_known", "password": SECRET},
            "wrong": {**keys, "password": "{{ env_var('CANARY_F') }}"},
        }
    good = ("by_keys", "by_dsn") if dsn == "dsn" else ("by_dsn", "by_dsn")
    return Scene(kind, connections, environment, failing={"query": failing}, good=good)


@contextmanager
def postgres(service: Service) -> Iterator[Scene]:
    """A role with the password, which the server asks for where its files are at hand."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    dsn = service("postgres_dsn")
    parts = conninfo_to_dict(dsn)
    role = f"canary_{os.getpid()}"
    with psycopg.connect(dsn, autocommit=True) as admin, _asked_for(admin, role):
        admin.execute(psycopg.sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(psycopg.sql.Identifier(role), SECRET))
        try:
            keys = {"host": parts["host"], "port": int(parts["port"]), "database": parts["dbname"], "user": role}
            yield _of_servers("postgres", "postgresql", keys, failing="select ({{ env_var('CANARY_A') }})::text::int as x")
        finally:
            admin.execute(psycopg.sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(psycopg.sql.Identifier(role)))


@contextmanager
def _asked_for(admin: Any, role: str) -> Iterator[None]:
    """Let the server ask this role for its password."""
    file = Path(admin.execute("SHOW hba_file").fetchone()[0])
    if not os.access(file, os.W_OK):
        yield
        return
    before = file.read_text()
    file.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    admin.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        file.write_text(before)
        admin.execute("SELECT pg_reload_conf()")


@contextmanager
def sqlalchemy(service: Service) -> Iterator[Scene]:
    """The same role through SQLAlchemy."""
    with postgres(service) as scene:
        keys = scene.connections["by_keys"]
        login = {name: keys[name] for name in ("host", "port", "database", "user")}
        yield _of_servers("sqlalchemy", "postgresql+psycopg", login, failing=str(scene.failing["query"]), dsn="url")


@contextmanager
def mysql(service: Service) -> Iterator[Scene]:
    """A user with the password."""
    dsn = service("mysql_dsn")
    parts = parts_of(dsn)
    import pymysql

    written = pymysql.converters.escape_string(SECRET)
    ask(dsn, f"CREATE USER canary@'%' IDENTIFIED BY '{written}'", f"GRANT {RIGHTS} ON `{parts['database']}`.* TO canary@'%'")
    try:
        keys = {**{name: parts[name] for name in ("host", "port", "database")}, "user": "canary"}
        yield _of_servers("mysql", "mysql", keys, failing="select extractvalue('<a/>', concat('$', {{ env_var('CANARY_A') }})) as x")
    finally:
        ask(dsn, "DROP USER canary@'%'")


@contextmanager
def snowflake(service: Service) -> Iterator[Scene]:
    """The emulator takes every password."""
    keys = {name: value for name, value in service("snowflake_keys").items() if name not in {"password", "private_key_path"}}
    away = {**keys, "port": free_port(), "login_timeout": "1s"}
    connections = {
        "by_keys": {**keys, "password": "${CANARY_A}"},
        "written_keys": {**keys, "password": SECRET},
        "away": {**away, "password": "{{ env_var('CANARY_A') }}"},
    }
    failing = {"query": "select to_number({{ env_var('CANARY_A') }}) as x"}
    yield Scene("snowflake", connections, {"CANARY_A": SECRET}, failing=failing, good=("by_keys", "by_keys"))


@contextmanager
def http(service: Service) -> Iterator[Scene]:
    """An API that repeats in its errors what it was sent."""

    def answer(asked: Asked) -> Answer:
        known = asked.headers.get("authorization", "").startswith("Bearer ") or PLAIN in asked.headers.get("x-login", "")
        if not known or asked.path.endswith("refused"):
            return Answer({"error": f"not with {asked.headers} and {asked.query}"}, 400)
        return Answer([{"id": 1, "value": "a"}])

    with served(answer) as server:
        connections = {
            "by_token": {"base_url": server.url, "token": "${CANARY_A}"},
            "by_header": {"base_url": server.url, "headers": {"X-Login": f"Key {PLAIN}"}},
            "by_written_header": {"base_url": server.url, "headers": {"Authorization": f"Token {PLAIN}"}},
            "by_password": {"base_url": server.url, "username": "me", "password": PLAIN},
            "by_parameter": {"base_url": server.url, "api_key": "${CANARY_A}", "key_parameter": "key"},
            "away": {"base_url": f"http://127.0.0.1:{free_port()}", "token": "{{ env_var('CANARY_A') }}", "retries": 0},
        }
        good = ("by_token", "by_token")
        yield Scene(
            "http", connections, {"CANARY_A": PLAIN}, {"path": "facts"}, {"path": "refused"}, writes=False, good=good, refused_by_all=True
        )


@contextmanager
def s3(service: Service) -> Iterator[Scene]:
    """A bucket, with a secret key that the emulator does not check."""
    root = service("s3_root")
    options = {name: value for name, value in root.options.items() if name != "secret"}
    connections = {
        "by_keys": {"root": root.url, "storage_options": {**options, "secret": "${CANARY_A}"}},
        "written_keys": {"root": root.url, "storage_options": {**options, "secret": PLAIN}},
        "no_bucket": {"root": "s3://no-such-bucket", "storage_options": {**options, "secret": "${CANARY_A}", "token": PLAIN}},
    }
    yield Scene(
        "parquet",
        connections,
        {"CANARY_A": PLAIN},
        {"file_path": "facts.parquet"},
        good=("by_keys", "by_keys"),
    )


SCENES: Mapping[str, Callable[[Service], Any]] = {
    "postgres": postgres,
    "mysql": mysql,
    "snowflake": snowflake,
    "http": http,
    "s3": s3,
    "sqlalchemy": sqlalchemy,
}
