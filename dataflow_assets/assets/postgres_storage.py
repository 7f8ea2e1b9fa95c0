"""Dagster's runs, events, ticks and cursors in Postgres, with the connections kept open.

Here: the same tables as `dagster-postgres` makes, so either reads what the other wrote, and `dagster instance migrate` serves both. Its
own classes open a connection for each statement; and they hand the URL to SQLAlchemy as written, which refuses `postgres://` and will
take a bare `postgresql://` for another driver from 2.1 on. Named in `dagster.yaml` under `storage: custom:` by
`dataflow instance use postgres`. Not here: that file (`assets.instance_settings`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import sqlalchemy as sa
from dagster import BoolSource, Field, StringSource
from dagster_postgres.storage import DagsterPostgresStorage

from dataflow_assets.errors import DataflowError
from dataflow_assets.secrets import register_secret

if TYPE_CHECKING:
    from dagster._config import UserConfigSchema
    from dagster._serdes import ConfigurableClassData

DRIVER = "postgresql+psycopg2"
_SCHEME = re.compile(r"^(?:postgres|postgresql|pg|pgsql)(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_OPEN, _MORE, _RECYCLE_SECONDS = 2, 30, 1800


def postgres_url(text: str) -> str:
    """Any spelling of a Postgres address as SQLAlchemy and psycopg2 want it: a URL of any of its schemes, or libpq's `key=value` words.

    Raises DataflowError, without showing it, for what is neither.
    """
    text = text.strip()
    if not _SCHEME.match(text):
        text = _url_of_words(text)
    text = _SCHEME.sub(f"{DRIVER}://", text)
    try:
        password = sa.make_url(text).password
    except (sa.exc.ArgumentError, ValueError):
        raise _no_address() from None
    if password:
        register_secret(str(password))
    return text


def _url_of_words(text: str) -> str:
    import psycopg2
    from psycopg2.extensions import parse_dsn

    try:
        words = parse_dsn(text) if "=" in text else {}
    except psycopg2.Error:
        words = {}
    if not words:
        raise _no_address()
    login = ":".join(quote(words.pop(key), safe="") for key in ("user", "password") if key in words)
    database = quote(words.pop("dbname", ""), safe="")
    host = words.pop("host", "")
    if host.startswith("/"):  # a folder of sockets
        words["host"], host = host, ""
    port = f":{words.pop('port')}" if "port" in words else ""
    query = f"?{urlencode(words)}" if words else ""
    return f"postgresql://{login}{'@' if login else ''}{host}{port}/{database}{query}"


def _no_address() -> DataflowError:
    return DataflowError(
        "the address of the Postgres database for Dagster's history cannot be read",
        hint="write postgresql://user:password@host:5432/database; special characters of a password as %xx",
    )


class PostgresStorage(DagsterPostgresStorage):
    """Dagster's Postgres storage with one pool of connections, each tried before it is used, so that a restarted server is no matter."""

    def __init__(self, url: str, should_autocreate_tables: bool = True, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url(url), should_autocreate_tables, inst_data)
        self._engine = sa.create_engine(
            self.postgres_url,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=_OPEN,
            max_overflow=_MORE,
            pool_pre_ping=True,
            pool_recycle=_RECYCLE_SECONDS,
        )
        for part in (self._run_storage, self._event_log_storage, self._schedule_storage):
            part._engine.dispose()
            part._engine = self._engine
        # a forked process must not talk over its parent's connections
        os.register_at_fork(after_in_child=lambda: self._engine.dispose(close=False))

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """The keys of `config:` in `dagster.yaml`."""
        return {
            "url": Field(StringSource, description="the address, in any spelling; {env: NAME} takes it from the environment"),
            "should_autocreate_tables": Field(BoolSource, is_required=False, default_value=True),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> PostgresStorage:
        """What Dagster calls with the block of `dagster.yaml`."""
        return cls(inst_data=inst_data, **config_value)

    def dispose(self) -> None:
        """Close every connection."""
        self._event_log_storage.dispose()
        self._engine.dispose()
