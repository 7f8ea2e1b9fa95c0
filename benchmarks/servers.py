"""The systems that one call of the benchmark needs: each is started when the first way asks for it, and all end together.

Here: starting late, and what the report says of them. Not here: any one system (`server` for Postgres, `mysql`, `clickhouse`, `sqlite`).
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from types import TracebackType

from benchmarks.clickhouse import ClickHouse, running_clickhouse
from benchmarks.mysql import MySQL, running_mysql
from benchmarks.server import Server, running_server
from benchmarks.sqlite import SQLite, found_sqlite


class Servers:
    """Postgres, MariaDB, ClickHouse and SQLite's shell. Each raises NoServer where it cannot be had."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @cached_property
    def postgres(self) -> Server:
        """The server that makes the rows, and has them."""
        return self._stack.enter_context(running_server())

    @cached_property
    def mysql(self) -> MySQL:
        """A MariaDB server."""
        return self._stack.enter_context(running_mysql())

    @cached_property
    def clickhouse(self) -> ClickHouse:
        """The ClickHouse engine."""
        return self._stack.enter_context(running_clickhouse())

    @cached_property
    def sqlite(self) -> SQLite:
        """The shell of SQLite."""
        return found_sqlite()

    def settle(self) -> None:
        """Have what runs write out what earlier runs left, so that the next one does not pay for it."""
        if "postgres" in self.__dict__:
            self.postgres.checkpoint()
        if "mysql" in self.__dict__:
            self.mysql.settle()

    @property
    def described(self) -> dict[str, str]:
        """Name, version and settings of what was used."""
        titles = {"postgres": "Postgres", "mysql": "MariaDB", "clickhouse": "ClickHouse", "sqlite": "SQLite"}
        used = [(title, self.__dict__[name]) for name, title in titles.items() if name in self.__dict__]
        return {title: f"{system.version}; {system.settings}" for title, system in used}
