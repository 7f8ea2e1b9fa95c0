"""The SQLite connector: the contract, and what only SQLite does."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.connectors.sqlite import Connector, SQLiteConnection, SQLiteEndpoint, SQLiteSource
from dataflow_assets.errors import AuditFailed, ConnectionFailed, DataflowError, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Bind, Query, ReadRequest, Target, WindowFilter, WriteMode
from dataflow_assets_tests.connectors.arrow_types import FLOATS, NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.contract_schema import SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.kills import KillPromises


@dataclass
class SQLiteHarness(Harness):
    """A file in the scratch folder."""

    _connector: Connector | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """The database file."""
        return self.scratch / "nested" / "test.sqlite"

    def make_file(self) -> None:
        """An empty database."""
        self.path.parent.mkdir(exist_ok=True)
        sqlite3.connect(self.path).close()

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = SQLiteEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> SQLiteSource:
        return SQLiteSource(table=name)


def connect(folder: Path, **options: Any) -> Connector:
    """A connector for a database in `folder`."""
    return Connector(SQLiteConnection(database="nested/test.sqlite", **options), ConnectionContext("local", folder))


@pytest.fixture
def harness(tmp_path: Path) -> SQLiteHarness:
    return SQLiteHarness(tmp_path)


class TestSQLite(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        **dict.fromkeys(FLOATS, Lossy("SQLite makes a null of NaN")),
        **dict.fromkeys(NESTED, Lossy("SQLite has no nested types")),
        "duration_us": Lossy("SQLite has no durations"),
    }

    @pytest.fixture
    def harness(self, harness: SQLiteHarness) -> SQLiteHarness:
        return harness


class TestSQLiteSchemas(SchemaPromises):
    """Columns that change."""

    widens = False

    @pytest.fixture
    def harness(self, harness: SQLiteHarness) -> SQLiteHarness:
        return harness


class TestSQLiteDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, SQLiteHarness)
        connection = sqlite3.connect(harness.path)
        connection.execute(f"drop table {table}")
        connection.close()


class TestSQLiteKilled(KillPromises):
    """Processes."""

    kind = "sqlite"

    @pytest.fixture
    def place(self, harness: SQLiteHarness) -> str:
        return str(harness.scratch)


@contextmanager
def shell(harness: SQLiteHarness) -> Iterator[sqlite3.Connection]:
    """The file as another program opens it; what it did is committed."""
    harness.path.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(harness.path)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def read(connector: Connector, *parts: str | Bind, window: WindowFilter | None = None, **types: str) -> pa.Table:
    options = SQLiteSource(query="rendered", column_types=types)
    with connector.read(ReadRequest(options, query=Query(parts), window=window)) as reader:
        return reader.read_all()


# -- what is written


def test_columns_that_fill_themselves_may_be_left_out(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, made TEXT DEFAULT 'now', twice AS (v || v))")
    target = harness.make_target("t", WriteMode.APPEND)
    harness.publish(pa.table({"v": ["a"]}), target, unit("one"))
    with shell(harness) as other:
        assert other.execute("SELECT * FROM t").fetchall() == [(1, "a", "now", "aa")]
    with pytest.raises(WriteFailed, match="'twice' itself"):
        harness.publish(pa.table({"v": ["a"], "twice": ["b"]}), target, unit("two"))


def test_upsert_without_a_unique_index_says_what_to_type(harness: SQLiteHarness) -> None:
    harness.publish(pairs((1, "a")), harness.make_target("pairs", WriteMode.APPEND), unit("one"))
    upsert = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    with pytest.raises(WriteFailed, match="unique index") as caught:
        harness.publish(pairs((1, "b")), upsert, unit("two"))
    with shell(harness) as other:
        other.execute(caught.value.hint)
    harness.publish(pairs((1, "b"), (2, "c")), upsert, unit("two"))
    assert_same_rows(pairs((1, "b"), (2, "c")), harness.rows(upsert))


def test_upsert_of_many_rows_with_equal_keys_keeps_the_last(harness: SQLiteHarness) -> None:
    target = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    harness.publish(pairs(*((number % 7, str(number)) for number in range(20_000))), target, unit("one"))
    assert_same_rows(pairs(*((number % 7, str(number)) for number in range(19_993, 20_000))), harness.rows(target))


def test_rows_that_a_trigger_drops_are_noticed(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE pairs (key INTEGER, value TEXT)")
        other.execute("CREATE TRIGGER some BEFORE INSERT ON pairs WHEN new.key = 2 BEGIN SELECT RAISE(IGNORE); END")
    for mode in (WriteMode.APPEND, WriteMode.REPLACE):
        target = harness.make_target("pairs", mode)
        with pytest.raises(AuditFailed, match="holds 1 rows"):
            harness.publish(pairs((1, "a"), (2, "b")), target, unit(mode.value))
        assert harness.rows(target).num_rows == 0


def test_auto_create_off_says_what_to_type(harness: SQLiteHarness) -> None:
    target = harness.make_target("things", WriteMode.APPEND, auto_create=False)
    with pytest.raises(WriteFailed, match="does not exist") as caught:
        harness.publish(events(day(0)), target, day(0))
    with shell(harness) as other:
        other.execute(caught.value.hint)
    harness.publish(events(day(0)), target, day(0))
    assert_same_rows(events(day(0)), harness.rows(target))


def test_a_failed_first_publish_leaves_no_table(harness: SQLiteHarness) -> None:
    target = harness.make_target("t", WriteMode.APPEND)
    with pytest.raises(ValueRefused):
        harness.publish(pa.table({"v": [float("nan")]}), target, unit())
    with shell(harness) as other:
        assert other.execute("SELECT name FROM sqlite_master WHERE name = 't'").fetchall() == []


# -- names, values, rights


def test_names_that_occur_twice_are_refused(harness: SQLiteHarness) -> None:
    harness.make_file()
    with pytest.raises(ValueRefused, match="'a' more than once"):
        read(harness.connector, "SELECT 1 AS a, 2 AS a")


@pytest.mark.parametrize("value", ["it's", "?1 %s :x", 5, None, 1.5, "\U0001f600"], ids=repr)
def test_values_reach_the_query_as_values(harness: SQLiteHarness, value: Any) -> None:
    harness.make_file()
    found = read(harness.connector, "SELECT ", Bind("first"), " AS a, ", Bind(value), " AS v -- end")
    assert found.to_pylist() == [{"a": "first", "v": value}]


def test_a_query_cannot_write(harness: SQLiteHarness) -> None:
    harness.publish(pairs((1, "a")), harness.make_target("pairs", WriteMode.APPEND), unit())
    for query in ("DELETE FROM pairs RETURNING *", "SELECT 1) AS x; DROP TABLE pairs; --"):
        with pytest.raises(DataflowError):
            read(harness.connector, query)
    assert harness.read("pairs").num_rows == 1


def test_a_statement_that_is_none_says_so(harness: SQLiteHarness) -> None:
    harness.make_file()
    with pytest.raises(ReadFailed, match="syntax error") as caught:
        read(harness.connector, "SELEC 1")
    assert not caught.value.transient


@pytest.mark.parametrize("given", [{"database": ":memory:"}, {"database": ""}, {"database": "x", "lock_timeout": "soon"}, {"databse": "x"}])
def test_connection_keys_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SQLiteConnection.model_validate(given)


def test_what_is_no_database_is_refused_at_once(harness: SQLiteHarness) -> None:
    harness.path.parent.mkdir()
    harness.path.write_text("id,name\n1,x\n" * 100)
    with pytest.raises(ConnectionFailed, match="local") as caught:
        harness.connector.probe()
    assert not caught.value.transient


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "nested").write_text("not a folder")
    with pytest.raises(DataflowError, match="nested"):
        connect(tmp_path).probe()


# -- beside others

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT * FROM sqlite_master").fetchone()
print("open", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


def hold(path: Path, begin: str) -> subprocess.Popen[str]:
    """A process in a transaction until its input ends."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path), begin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    return child


def test_a_writer_elsewhere_is_waited_for_and_then_transient(tmp_path: Path) -> None:
    harness = SQLiteHarness(tmp_path, _connector=connect(tmp_path, lock_timeout="300ms"))
    target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    harness.publish(events(day(0)), target, day(0))
    with hold(harness.path, "BEGIN IMMEDIATE") as child:
        assert harness.rows(target).num_rows == 24
        with pytest.raises(ConnectionFailed, match="locked") as caught:
            harness.publish(events(day(1)), target, day(1))
        assert caught.value.transient
        patient = SQLiteHarness(tmp_path, _connector=connect(tmp_path, lock_timeout="20s"))
        waiting = threading.Thread(target=lambda: patient.publish(events(day(1)), target, day(1)))
        waiting.start()
        time.sleep(0.3)
        child.communicate("")
        waiting.join(20)
    assert harness.rows(target).num_rows == 48


@pytest.mark.parametrize("wal", [True, False])
def test_readers_see_old_or_new_never_between(tmp_path: Path, wal: bool) -> None:
    harness = SQLiteHarness(tmp_path, _connector=connect(tmp_path, wal=wal))
    target = harness.make_target("things", WriteMode.REPLACE)
    harness.publish(events(day(0), note="0", rows=500), target, unit())
    seen: set[tuple[int, int]] = set()
    stop = threading.Event()

    def watch() -> None:
        connection = sqlite3.connect(harness.path, timeout=20)
        while not stop.is_set():
            seen.update(connection.execute("SELECT count(*), count(DISTINCT substr(note, 1, 1)) FROM things").fetchall())
        connection.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 8):
        harness.publish(events(day(0), note=str(number), rows=500), target, unit(), str(number))
    stop.set()
    watcher.join()
    assert seen == {(500, 1)}
    with shell(harness) as other:
        assert other.execute("PRAGMA journal_mode").fetchall() == [("wal" if wal else "delete",)]


def test_wide_rows_stay_in_bounds(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (v TEXT)")
        other.executemany("INSERT INTO t SELECT hex(zeroblob(?))", [(100_000,)] * 300)
    with harness.connector.read(ReadRequest(SQLiteSource(table="t"))) as reader:
        sizes = [batch.nbytes for batch in reader]
    assert sum(sizes) > 300 * 200_000
    assert max(sizes) <= 16 * 1024 * 1024


def test_rows_that_grow_wide_are_told_apart_in_time(harness: SQLiteHarness) -> None:
    with shell(harness) as other:
        other.execute("CREATE TABLE t (id INTEGER, v BLOB, t TEXT)")
        other.executemany("INSERT INTO t VALUES (?, NULL, NULL)", [(number,) for number in range(5_000)])
        other.executemany("INSERT INTO t SELECT ?, zeroblob(5000), hex(zeroblob(5000))", [(number,) for number in range(5_000, 9_000)])
    with harness.connector.read(ReadRequest(SQLiteSource(table="t"))) as reader:
        batches = list(reader)
    assert [value for batch in batches for value in batch["id"].to_pylist()] == list(range(9_000))
    assert [len(value or b"") for batch in batches for value in batch["v"].to_pylist()] == [0] * 5_000 + [5_000] * 4_000
    assert max(batch.nbytes for batch in batches) <= 16 * 1024 * 1024
