"""One table in every system at once: each pair has equal tallies, and a row that is changed behind one's back is found from any other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.canonical import Tally
from dataflow_assets.execution.bisecting import find_differences
from dataflow_assets.execution.comparing import Side, opened
from dataflow_assets.protocols import Comparable, Reconciles
from dataflow_assets.tables import Target, WriteMode
from dataflow_assets_tests.connectors.harness import Harness, unit
from dataflow_assets_tests.connectors.test_clickhouse import ClickHouseHarness
from dataflow_assets_tests.connectors.test_csv import CsvHarness
from dataflow_assets_tests.connectors.test_duckdb import DuckDBHarness
from dataflow_assets_tests.connectors.test_json import JsonHarness
from dataflow_assets_tests.connectors.test_mysql import MySQLHarness
from dataflow_assets_tests.connectors.test_parquet import ParquetHarness
from dataflow_assets_tests.connectors.test_postgres import PostgresHarness
from dataflow_assets_tests.connectors.test_sqlite import SQLiteHarness

ROWS = 400
TEXTS = ["", "a", "A", "a ", " a", "é", "1,2", "null", "x" * 300, "\U0001d11e", "it's", 'say "hi"', "back\\slash", "line\nbreak"]


def random_table(seed: int) -> pa.Table:
    """Rows of the types that every one of these systems keeps; the same for the same seed."""
    dice = random.Random(seed)

    def column(make: Callable[[], Any], kind: pa.DataType) -> pa.Array:
        return pa.array([None if dice.random() < 0.1 else make() for _ in range(ROWS)], kind)

    start = datetime(1990, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(seconds=dice.randrange(10**9), microseconds=dice.randrange(10**6)) for _ in range(ROWS)]
    return pa.table(
        {
            "id": pa.array(range(ROWS), pa.int64()),
            "whole": column(lambda: dice.choice([0, -1, 2**63 - 1, -(2**63), dice.randrange(10**6)]), pa.int64()),
            "price": column(lambda: Decimal(dice.randrange(-(10**9), 10**9)).scaleb(-2), pa.decimal128(12, 2)),
            "share": column(lambda: dice.choice([0.0, -0.0, 0.1, 1e22, 5e-324, dice.uniform(-1e6, 1e6)]), pa.float64()),
            "paid": column(lambda: dice.random() < 0.5, pa.bool_()),
            "at": pa.array(moments, pa.timestamp("us", "UTC")),
            "day": column(lambda: date(1970, 1, 1) + timedelta(days=dice.randrange(-9000, 30000)), pa.date32()),
            "note": column(lambda: dice.choice(TEXTS), pa.string()),
        }
    )


@dataclass(frozen=True)
class Place:
    """One system with the table in it."""

    harness: Harness
    target: Target

    def side(self) -> Side:
        connector = self.harness.connector

        def inside() -> AbstractContextManager[Comparable]:
            assert isinstance(connector, Reconciles)
            return connector.compare_target(self.target, None)

        return Side(
            "side", connector.kind, lambda: connector.read_target(self.target, None), inside if isinstance(connector, Reconciles) else None
        )


@pytest.fixture
def harnesses(postgres_dsn: str, mysql_user_dsn: str, clickhouse: Any, tmp_path: Path) -> Iterator[dict[str, Harness]]:
    folders = {name: tmp_path / name for name in ("csv", "json", "parquet", "duckdb", "sqlite")}
    for folder in folders.values():
        folder.mkdir()
    made: dict[str, Harness] = {
        "parquet": ParquetHarness(folders["parquet"]),
        "csv": CsvHarness(folders["csv"]),
        "json": JsonHarness(folders["json"]),
        "duckdb": DuckDBHarness(folders["duckdb"]),
        "sqlite": SQLiteHarness(folders["sqlite"]),
        "postgres": PostgresHarness(tmp_path, dsn=postgres_dsn),
        "mysql": MySQLHarness(tmp_path, dsn=mysql_user_dsn),
        "clickhouse": ClickHouseHarness(tmp_path, place=clickhouse.url),
    }
    yield made
    for harness in made.values():
        harness.connector.close()


def test_the_same_rows_have_the_same_tally_in_every_system(harnesses: dict[str, Harness]):
    table = random_table(seed=20240310)
    changed = table.to_pylist()
    changed[123]["note"] = "changed behind its back"
    del changed[321]
    places, others = {}, {}
    for name, harness in harnesses.items():
        for kept, rows, found in ((table, "same", places), (pa.Table.from_pylist(changed, schema=table.schema), "other", others)):
            target = harness.make_target(f"across_{rows}", WriteMode.REPLACE)
            harness.publish(kept, target, unit())
            found[name] = Place(harness, target)
    computed_in: dict[str, str] = {}
    first = places["parquet"]
    for name, place in places.items():
        with opened(first.side(), place.side()) as pair:
            totals = pair.totals()
            assert totals[0] == totals[1], (name, find_differences(pair, totals, keys=["id"], limit=3).rows[:3])
            assert totals[0].rows == ROWS
            assert len(pair.agreed.columns) == 8
            computed_in[name] = pair.made_in[1]
    inside = {"duckdb", "postgres", "clickhouse"}  # MySQL gives no bits of a float
    assert computed_in == {name: name if name in inside else "here" for name in places}
    for one, two in (("postgres", "clickhouse"), ("mysql", "postgres"), ("clickhouse", "csv"), ("sqlite", "duckdb"), ("json", "mysql")):
        with opened(places[one].side(), others[two].side()) as pair:
            totals = pair.totals()
            assert totals[1] == Tally(ROWS - 1, totals[1].checksum)
            found = find_differences(pair, totals, keys=["id"], limit=20)
            assert found.complete
            told = {(row.kind, row.key["id"]): row.cells.get("note") for row in found.rows}
            assert told == {("changed", 123): (table["note"][123].as_py(), "changed behind its back"), ("missing", 321): None}


def test_mysql_compares_inside_where_no_float_is_compared(harnesses: dict[str, Harness]):
    table = random_table(seed=7)
    places = {}
    for name in ("mysql", "postgres"):
        target = harnesses[name].make_target("inside", WriteMode.REPLACE)
        harnesses[name].publish(table, target, unit())
        places[name] = Place(harnesses[name], target)
    with opened(places["postgres"].side(), places["mysql"].side(), ignore=["share"]) as pair:
        totals = pair.totals()
        assert totals[0] == totals[1]
        assert pair.made_in == ("postgres", "mysql")
        assert pair.agreed.left_out == ("share: ignored",)
