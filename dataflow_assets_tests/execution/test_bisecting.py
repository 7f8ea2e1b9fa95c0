"""Finding the rows that differ: every one and no other, in few queries, whatever the keys are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from dataflow_assets.canonical import Tally, agree
from dataflow_assets.connectors.duckdb import Connector, DuckDBConnection, DuckDBSource
from dataflow_assets.execution import bisecting
from dataflow_assets.execution.bisecting import Differences, find_differences
from dataflow_assets.execution.comparing import Pair, Side, opened
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.storage import local_digests
from dataflow_assets.storage.local_digests import open_local
from dataflow_assets.tables import ReadRequest

KINDS = pa.schema([("id", pa.int64()), ("day", pa.date32()), ("name", pa.string()), ("price", pa.decimal128(9, 2))])
DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(3)]
Rows = list[tuple[Any, ...]]
ROW = st.tuples(
    st.one_of(st.none(), st.integers(0, 6)),
    st.sampled_from(DAYS),
    st.one_of(st.none(), st.sampled_from(["", "a", "A", "a ", "~", "1:a", "a,1:b", "é"])),
    st.one_of(st.none(), st.decimals(-2, 2, places=2)),
)


def table(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)] if rows else [[]] * len(KINDS), schema=KINDS)


def side(name: str, rows: pa.Table) -> Side:
    class Opened:
        def __enter__(self) -> pa.RecordBatchReader:
            return rows.to_reader(max_chunksize=max(rows.num_rows // 4, 5))

        def __exit__(self, *_: object) -> None:
            return None

    return Side(name, "memory", Opened)


def search(left: Rows, right: Rows, *, keys: Sequence[str] = (), limit: int = 1000) -> Differences:
    with opened(side("source", table(left)), side("target", table(right))) as pair:
        return find_differences(pair, pair.totals(), keys=keys, limit=limit)


@settings(max_examples=15, deadline=None)
@given(common=st.lists(ROW, max_size=12), gone=st.lists(ROW, max_size=4), come=st.lists(ROW, max_size=4), data=st.data())
def test_every_row_that_differs_is_found_and_no_other(common: Rows, gone: Rows, come: Rows, data: st.DataObject):
    left, right = data.draw(st.permutations(common + gone)), data.draw(st.permutations(common + come))
    expected_left, expected_right = Counter(left) - Counter(right), Counter(right) - Counter(left)
    with pytest.MonkeyPatch.context() as patch, opened(side("source", table(left)), side("target", table(right))) as pair:
        patch.setattr(bisecting, "SEGMENT_ROWS", 2)
        patch.setattr(bisecting, "_DIGITS", 1)
        totals = pair.totals()
        assert (totals[0] == totals[1]) == (Counter(left) == Counter(right))
        whole = find_differences(pair, totals, limit=1000)
        keyed = find_differences(pair, totals, keys=["id", "day"], limit=1000)
    assert whole.complete
    assert keyed.complete
    rows = {kind: Counter(tuple(row.row.values()) for row in whole.rows if row.kind == kind) for kind in ("missing", "extra")}
    assert rows == {"missing": expected_left, "extra": expected_right}
    changed = keyed.count("changed")
    assert keyed.count("missing") + changed == expected_left.total()
    assert keyed.count("extra") + changed == expected_right.total()
    by_key_left, by_key_right = (Counter(row[:2] for row in rows.elements()) for rows in (expected_left, expected_right))
    assert changed == (by_key_left & by_key_right).total()


def test_what_changed_is_told_cell_by_cell_with_both_values():
    rows = [(number, DAYS[number % 3], f"name {number}", Decimal(number)) for number in range(50)]
    other = [*rows]
    other[7] = (7, DAYS[1], "Name 7", Decimal("7.50"))
    other[8] = (8, DAYS[2], None, Decimal(8))
    (first, second) = search(rows, other, keys=["id"]).rows
    assert (first.kind, first.key) == ("changed", {"id": 7})
    assert first.cells == {"name": ("name 7", "Name 7"), "price": (Decimal(7), Decimal("7.5"))}
    assert second.cells == {"name": ("name 8", None)}


def test_equal_pairs_do_not_cancel():
    rows = [(1, DAYS[0], "a", Decimal(1))]
    found = search(rows * 2, rows * 4, keys=["id"])
    assert [row.kind for row in found.rows] == ["extra", "extra"]


def test_a_key_that_is_not_compared_is_refused():
    with pytest.raises(KeyError):
        search([], [(1, DAYS[0], "a", None)], keys=["no_such"])


def test_values_that_two_systems_store_differently_are_equal_and_what_cannot_be_read_is_not():
    """Decimals in text, booleans as numbers, milliseconds, instants in other zones, a day as its midnight."""
    moment = datetime(2024, 3, 10, 7, 30, tzinfo=UTC)
    left = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "price": pa.array([Decimal("1.50"), None, Decimal("-0.01")], pa.decimal128(12, 2)),
            "paid": pa.array([True, False, None]),
            "at": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
            "day": pa.array([date(2024, 3, 10)] * 3, pa.date32()),
            "share": pa.array([0.1, float("nan"), -0.0]),
            "raw": pa.array([b"\0\xff", b"", None], pa.binary()),
        }
    )
    right = pa.table(
        {
            "id": pa.array(["1", "2", "3"]),
            "price": pa.array(["1.5", None, "-0.0100"]),
            "paid": pa.array([1, 0, None], pa.int8()),
            "at": pa.array([moment, None, moment], pa.timestamp("ms", "America/New_York")),
            "day": pa.array([datetime(2024, 3, 10)] * 3, pa.timestamp("s")),
            "share": pa.array([0.1, float("nan"), 0.0]),
            "raw": pa.array([b"\0\xff", b"", None], pa.large_binary()),
            "more": pa.array([1, 2, 3]),
        }
    )
    with opened(side("source", left), side("target", right)) as pair:
        assert pair.agreed.left_out == ("more: only in target",)
        assert len(pair.agreed.columns) == 7
        totals = pair.totals()
        assert totals[0] == totals[1]
        assert totals[0].rows == 3
    broken = right.set_column(1, "price", pa.array(["1.5", "much", "-0.0100"]))
    with opened(side("source", left), side("target", broken)) as pair:
        (found,) = find_differences(pair, pair.totals(), keys=["id"], limit=9).rows
    assert found.cells == {"price": (None, "?much")}
    assert found.key == {"id": 2}


class Counted:
    """A `Comparable` that counts its queries and the rows it hands out."""

    def __init__(self, inside: Any) -> None:
        self._inside, self.schema = inside, inside.schema
        self.queries = self.handed_out = 0

    def tallies(self, *columns: Any, **asked: Any) -> dict[str, Tally]:
        self.queries += 1
        found: dict[str, Tally] = self._inside.tallies(*columns, **asked)
        assert len(found) <= 4096
        return found

    def rows(self, *columns: Any, **asked: Any) -> list[Any]:
        self.queries += 1
        found: list[Any] = self._inside.rows(*columns, **asked)
        self.handed_out += len(found)
        return found


def test_one_row_of_a_million_is_found_with_few_queries_and_few_rows(tmp_path: Path):
    with duckdb.connect(str(tmp_path / "large.duckdb")) as connection:
        connection.execute("CREATE TABLE a AS SELECT range AS id, 'name ' || range AS name FROM range(1000000)")
        connection.execute("CREATE TABLE b AS SELECT id, CASE WHEN id = 654321 THEN 'Name 654321' ELSE name END AS name FROM a")
    connector = Connector(DuckDBConnection(database="large.duckdb"), ConnectionContext("large", tmp_path))
    with ExitStack() as stack:
        sides = [Counted(stack.enter_context(connector.compare_source(ReadRequest(DuckDBSource(table=name))))) for name in ("a", "b")]
        agreed = agree(sides[0].schema, sides[1].schema, names=("a", "b"))
        pair = Pair(sides[0], sides[1], agreed, ("a", "b"), ("duckdb", "duckdb"))  # type: ignore[arg-type]
        totals = pair.totals()
        found = find_differences(pair, totals, keys=["id"], limit=20)
    assert totals[0].rows == totals[1].rows == 1_000_000
    (row,) = found.rows
    assert (row.key, row.cells) == ({"id": 654321}, {"name": ("name 654321", "Name 654321")})
    assert found.complete
    assert [side.queries for side in sides] == [3, 3]
    assert sides[0].handed_out + sides[1].handed_out == found.fetched < 1_000
    connector.close()


def test_thousands_of_differences_end_at_the_limit_and_say_so():
    rows = [(number, DAYS[0], "a", None) for number in range(20_000)]
    other = [(number, DAYS[0], "b", None) for number in range(20_000)]
    found = search(rows, other, keys=["id"], limit=10)
    assert not found.complete
    assert len(found.rows) >= 10
    assert found.fetched <= 4 * bisecting.FETCH_ROWS
    assert found.queries == 4


def test_more_equal_keys_than_are_fetched_are_left_and_said():
    rows = [(1, DAYS[0], "a", None)] * 20_000
    found = search(rows, rows[1:], keys=["id"])
    assert found.rows == ()
    assert not found.complete


def test_rows_that_are_streamed_need_no_memory_of_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stream of twice the memory that comparing may have is summed up, and searched from disk."""
    monkeypatch.setattr(local_digests, "MEMORY_LIMIT", "32MB")
    batch = pa.record_batch({"id": pa.array(range(5_000), pa.int64()), "text": pa.array([f"{number:>1000}" for number in range(5_000)])})

    def stream() -> Any:
        return side("source", pa.Table.from_batches([batch] * 12)).open_rows()

    with open_local(stream, scratch=tmp_path) as rows:
        columns = agree(batch.schema, batch.schema, names=("a", "b")).columns
        whole = rows.tallies(columns)[""]
        parts = rows.tallies(columns, keys=(0,), depth=1)
    assert whole.rows == 60_000
    assert whole == Tally(sum(part.rows for part in parts.values()), sum(part.checksum for part in parts.values()) % 2**64)
    assert list(tmp_path.iterdir()) == []
