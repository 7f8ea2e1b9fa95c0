"""The DuckDB connector: the contract, and what only DuckDB does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.connectors.duckdb import Connector, DuckDBConnection, DuckDBEndpoint, DuckDBSource
from dataflow_assets.errors import ConnectionFailed, ReadFailed, ValueRefused, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import Bind, Query, ReadRequest, Target, WriteMode
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.contract_schema import SchemaKillPromises, SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.kills import KillPromises


@dataclass
class DuckDBHarness(Harness):
    """A file in the scratch folder."""

    _connector: Connector | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """The database file."""
        return self.scratch / "nested" / "test.duckdb"

    def make_file(self) -> None:
        """An empty database."""
        self.path.parent.mkdir(exist_ok=True)
        duckdb.connect(str(self.path)).close()

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = connect(self.scratch)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = DuckDBEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> DuckDBSource:
        return DuckDBSource(table=name)


def connect(folder: Path, **options: Any) -> Connector:
    """A connector for a database in `folder`."""
    return Connector(DuckDBConnection(database="nested/test.duckdb", **options), ConnectionContext("local", folder))


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[DuckDBHarness]:
    made = DuckDBHarness(tmp_path)
    yield made
    made.connector.close()


class TestDuckDB(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "decimal_76_10": Lossy("DuckDB's decimals end at 38 digits"),
        "duration_us": Lossy("DuckDB's intervals count months and days as well"),
        "list_view": Lossy("DuckDB takes lists of other layouts"),
    }

    @pytest.fixture
    def harness(self, harness: DuckDBHarness) -> DuckDBHarness:
        return harness


class TestDuckDBSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, harness: DuckDBHarness) -> DuckDBHarness:
        return harness


class TestDuckDBDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        harness.connector.close()
        assert isinstance(harness, DuckDBHarness)
        with duckdb.connect(str(harness.path)) as connection:
            connection.execute(f"drop table {table}")


class TestDuckDBKilled(KillPromises, SchemaKillPromises):
    """Processes."""

    kind = "duckdb"

    @pytest.fixture
    def place(self, harness: DuckDBHarness) -> str:
        return str(harness.scratch)


def read(connector: Connector, *parts: str | Bind) -> pa.Table:
    with connector.read(ReadRequest(DuckDBSource(query="rendered"), query=Query(parts))) as reader:
        return reader.read_all()


KEPT: dict[str, tuple[str, Any, str]] = {
    "hugeint": ("(99999999999999999999999999999999999999)::HUGEINT", Decimal("9" * 38), "decimal128(38, 0)"),
    "decimal": ("12.50::DECIMAL(10,2)", Decimal("12.50"), "decimal128(10, 2)"),
    "uuid": ("'00000000-0000-0000-0000-00000000000a'::UUID", "00000000-0000-0000-0000-00000000000a", "string"),
    "json": ("""'{"a": 1.50}'::JSON""", '{"a": 1.50}', "string"),
    "enum": ("'a'::ENUM('a', 'b')", "a", "string"),
    "interval": ("INTERVAL '1 month 2 days'", "1 month 2 days", "string"),
    "bit": ("'00101'::BIT", "00101", "string"),
    "timetz": ("'10:00:00+02'::TIMETZ", "10:00:00+02", "string"),
    "timestamptz": ("'2024-03-10 00:00:00-05'::TIMESTAMPTZ", datetime(2024, 3, 10, 5, tzinfo=UTC), "timestamp[us, tz=UTC]"),
    "blob": (r"'\x00\xFF'::BLOB", b"\x00\xff", "binary"),
    "list": ("[1, NULL]::BIGINT[]", [1, None], "list<l: int64>"),
    "list of uuid": ("['00000000-0000-0000-0000-00000000000a'::UUID]", ["00000000-0000-0000-0000-00000000000a"], "list<l: string>"),
    "struct": ("{'a': 1::BIGINT, 'b c': 2.5::DECIMAL(3,1)}", {"a": 1, "b c": Decimal("2.5")}, "struct<a: int64, b c: decimal128(3, 1)>"),
    "map": ("MAP {'a': 1::BIGINT}", [("a", 1)], "map<string, int64>"),
}


@pytest.mark.parametrize("case", sorted(KEPT))
def test_a_type_is_read_exactly_and_written_back(harness: DuckDBHarness, case: str) -> None:
    expression, value, kind = KEPT[case]
    harness.make_file()
    found = read(harness.connector, f"SELECT {expression} AS v")
    assert found["v"].to_pylist() == [value]
    assert str(found["v"].type) == kind
    target = harness.make_target("kept", WriteMode.APPEND)
    harness.publish(found, target, unit())
    assert harness.rows(target)["v"].to_pylist() == [value]


@pytest.mark.parametrize("expression", ["'infinity'::TIMESTAMPTZ", "'-infinity'::DATE", "170141183460469231731687303715884105727::HUGEINT"])
def test_what_has_no_exact_form_is_refused(harness: DuckDBHarness, expression: str) -> None:
    harness.make_file()
    with pytest.raises((ValueRefused, ReadFailed)):
        read(harness.connector, f"SELECT {expression} AS v")


@pytest.mark.parametrize(
    "value", ["it's", "$1 ? %s", 5, None, Decimal("1.50"), datetime(2024, 3, 10, tzinfo=UTC), date(2024, 2, 29), [1, 2]], ids=repr
)
def test_values_reach_the_query_as_values(harness: DuckDBHarness, value: Any) -> None:
    harness.make_file()
    assert read(harness.connector, "SELECT ", Bind(value), " AS v -- end")["v"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("definition", "values", "expected"),
    [
        ("INTEGER", pa.array([5, None]), [5, None]),
        ("DECIMAL(10,2)", pa.array([0.1]), [Decimal("0.10")]),
        ("UUID", pa.array(["00000000-0000-0000-0000-00000000000A"]), ["00000000-0000-0000-0000-00000000000a"]),
        ("HUGEINT", pa.array([5]), [Decimal(5)]),
        ("INTEGER", pa.array([2**40]), None),
        ("BIGINT", pa.array([1.5]), None),
        ("DECIMAL(10,2)", pa.array([Decimal("1.005")]), None),
        ("DOUBLE", pa.array([Decimal("1.5")]), None),
        ("TIMESTAMP", pa.array([datetime(2024, 1, 1, tzinfo=UTC)]), None),
        ("UUID", pa.array(["nonsense"]), None),
    ],
    ids=str,
)
def test_a_column_fits_its_target_or_is_refused(
    harness: DuckDBHarness, definition: str, values: pa.Array, expected: list[Any] | None
) -> None:
    harness.make_file()
    with duckdb.connect(str(harness.path)) as other:
        other.execute(f"CREATE TABLE kept (v {definition})")
    target = harness.make_target("kept", WriteMode.APPEND)
    if expected is None:
        with pytest.raises((ValueRefused, WriteFailed)):
            harness.publish(pa.table({"v": values}), target, unit())
        assert harness.rows(target).num_rows == 0
    else:
        harness.publish(pa.table({"v": values}), target, unit())
        assert harness.rows(target)["v"].to_pylist() == expected


def test_filters_find_the_rows_of_a_first_publish(harness: DuckDBHarness) -> None:
    """With DuckDB 2.0.0 a table created in the transaction that fills it from several row groups answered filters with nothing."""
    table = pa.concat_tables([events(day(0), rows=150_000), events(day(0), rows=150_000)])
    for mode in (WriteMode.REPLACE_WINDOW, WriteMode.APPEND, WriteMode.REPLACE):
        target = harness.make_target(f"big_{mode.value}", mode, window_column="at")
        for attempt in ("first", "second"):
            harness.publish(table, target, day(0), attempt)
            assert read(harness.connector, f"SELECT count(*) AS n FROM big_{mode.value} WHERE id > 0")["n"].to_pylist() == [300_000]


def test_upsert_into_a_table_with_a_primary_key(harness: DuckDBHarness) -> None:
    harness.make_file()
    with duckdb.connect(str(harness.path)) as other:
        other.execute("CREATE TABLE pairs (key BIGINT PRIMARY KEY, value VARCHAR)")
    target = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    for number, value in enumerate("abc"):
        harness.publish(pairs((1, value), (2, value), (1, value * 2)), target, unit(str(number)))
    assert_same_rows(pairs((1, "cc"), (2, "c")), harness.rows(target))


HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'ro'); print('open', flush=True); sys.stdin.readline()"


def hold(path: Path, how: str) -> subprocess.Popen[str]:
    """A process that has the file open until its input ends."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    return child


def test_a_file_open_elsewhere_is_waited_for_and_then_named(tmp_path: Path) -> None:
    harness = DuckDBHarness(tmp_path, _connector=connect(tmp_path, lock_timeout="500ms"))
    target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
    harness.publish(events(day(0)), target, day(0))
    harness.connector.close()
    with hold(harness.path, "rw") as child:
        for attempt in (lambda: harness.publish(events(day(1)), target, day(1)), lambda: harness.rows(target)):
            with pytest.raises(ConnectionFailed, match=r"test\.duckdb stayed busy") as caught:
                attempt()
            assert caught.value.transient
            assert "close the program" in caught.value.hint
        patient = connect(tmp_path, lock_timeout="20s")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(patient.claim, target, day(1), attempt="patient")
            child.communicate("")
            assert waiting.result(20).generation == 1
    harness.connector.close()


def test_a_process_that_only_reads_lets_others_read(tmp_path: Path) -> None:
    harness = DuckDBHarness(tmp_path)
    path = harness.path
    path.parent.mkdir()
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE things AS SELECT range AS id FROM range(1000)")
    with hold(path, "ro") as child:
        assert harness.read("things").num_rows == 1000
        child.communicate("")
    harness.connector.close()


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    connector = Connector(DuckDBConnection(database="file/test.duckdb"), ConnectionContext("local", tmp_path))
    target = Target(connector.target_table(DuckDBEndpoint(table="t")), WriteMode.APPEND, DuckDBEndpoint(table="t"))
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match="cannot be written") as caught:
        connector.claim(target, unit(), attempt="first")
    assert not caught.value.transient
    assert time.monotonic() - started < 30, "it waited for a lock"


def test_what_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    connector, path = connect(tmp_path), DuckDBHarness(tmp_path).path
    path.parent.mkdir()
    path.write_text("id,name\n1,x\n" * 10)
    with pytest.raises(ConnectionFailed, match="local") as caught:
        connector.probe()
    assert not caught.value.transient
    with pytest.raises(ValidationError, match="in memory"):
        DuckDBConnection(database=":memory:")


def test_the_file_is_let_go_soon_after_the_last_use(harness: DuckDBHarness) -> None:
    harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND), day(0))
    time.sleep(0.6)
    child = hold(harness.path, "rw")
    child.communicate("")
    assert child.returncode == 0
