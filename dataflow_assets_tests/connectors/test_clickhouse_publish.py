"""Publishing into ClickHouse: every kind of partition, and everything that can go wrong between two statements."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.connectors import _clickhouse_ledger, _clickhouse_publish, _clickhouse_tables
from dataflow_assets.errors import AuditFailed, ConnectionFailed, DataflowError, WriteFailed
from dataflow_assets.tables import TableName, Target, Unit, WriteMode
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.harness import MIDNIGHT, assert_same_rows, day, events, hour, unit
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.connectors.test_clickhouse import ClickHouseHarness
from dataflow_assets_tests.services.clickhouse import ClickHouseServer
from dataflow_assets_tests.services.proxy import Proxy, proxy_to

BY_HOUR, BY_DAY, BY_MONTH = "toHour(at)", "toYYYYMMDD(at)", "toYYYYMM(at)"
SWAPS = {None: "REPLACE PARTITION", BY_DAY: "REPLACE PARTITION", BY_MONTH: "REPLACE PARTITION", BY_HOUR: "EXCHANGE TABLES"}


@pytest.fixture
def harness(clickhouse: ClickHouseServer, tmp_path: Path) -> Iterator[ClickHouseHarness]:
    made = ClickHouseHarness(tmp_path, place=clickhouse.url)
    yield made
    made.connector.close()


def by_hand(server: ClickHouseServer, text: str) -> Any:
    """What a statement gives, run by the driver alone."""
    client = server.client()
    try:
        return client.command(text)
    finally:
        client.close()


def make_things(server: ClickHouseServer, partition: str | None, order: str = "tuple()") -> None:
    parted = f"PARTITION BY {partition}" if partition else ""
    columns = "id Int64, at DateTime64(6, 'UTC'), note Nullable(String)"
    by_hand(server, f"CREATE TABLE things ({columns}) ENGINE = MergeTree {parted} ORDER BY {order}")


def windowed(harness: ClickHouseHarness, **options: Any) -> Target:
    return harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at", **options)


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was run meanwhile."""
    seen: list[str] = []
    run = _clickhouse_publish.Server.run

    def noted(self: Any, text: str, *rest: Any) -> None:
        seen.append(text)
        run(self, text, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(_clickhouse_publish.Server, "run", noted)
        yield seen


@pytest.mark.parametrize("partition", [None, BY_HOUR, BY_DAY, BY_MONTH, "(toYear(at), id % 3)", "cityHash64(id) % 4"])
def test_a_window_is_replaced_whatever_the_partitions(harness: ClickHouseHarness, clickhouse: ClickHouseServer, partition: str) -> None:
    """Rows that somebody put there by hand, in and outside of the window, included."""
    make_things(clickhouse, partition)
    rows = "(1, '2024-03-10 12:00:00', 'hand'), (2, '2024-03-11 00:00:00', 'hand'), (3, '2024-03-09 23:59:59.999999', NULL)"
    by_hand(clickhouse, f"INSERT INTO things VALUES {rows}")
    target = windowed(harness)
    assert harness.publish(events(day(0)), target, day(0)).deleted == 1
    assert harness.publish(events(day(0), note="again", rows=7), target, day(0), "second").deleted == 24
    found = harness.rows(target)
    kept = found.filter(pa.compute.field("id") < 10)
    assert sorted(kept["id"].to_pylist()) == [2, 3]
    assert_same_rows(events(day(0), note="again", rows=7), found.filter(pa.compute.field("id") > 10))
    harness.publish(events(day(0)).slice(0, 0), target, day(0), "third")
    assert sorted(harness.rows(target)["id"].to_pylist()) == [2, 3]


@pytest.mark.parametrize("partition", [BY_DAY, BY_MONTH, BY_HOUR, None])
def test_a_window_that_covers_its_partition_is_not_rebuilt(
    harness: ClickHouseHarness, clickhouse: ClickHouseServer, partition: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_things(clickhouse, partition)
    target = windowed(harness)
    for number in (0, 1):
        harness.publish(events(day(number)), target, day(number))
    with statements(monkeypatch) as seen:
        harness.publish(events(day(0), note="new"), target, day(0), "second")
    swaps = [text for text in seen if SWAPS[partition] in text]
    rebuilt = [text for text in seen if " DELETE WHERE " in text]
    assert len(swaps) == 1
    assert len(rebuilt) == (0 if partition == BY_DAY else 1)
    assert_same_rows(pa.concat_tables([events(day(0), note="new"), events(day(1))]), harness.rows(target))


def test_a_window_in_a_timezone_does_not_cover_the_utc_day(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    """The window of a day in Berlin shares its partition of a UTC day with its neighbour."""
    make_things(clickhouse, BY_DAY)
    target = windowed(harness)
    shifted = [
        Unit("contract", "write", str(n), Window(MIDNIGHT + timedelta(hours=24 * n - 1), MIDNIGHT + timedelta(hours=24 * n + 23)))
        for n in range(3)
    ]
    for of in shifted:
        harness.publish(events(of), target, of)
    harness.publish(events(shifted[1], note="again"), target, shifted[1], "second")
    assert_same_rows(pa.concat_tables([events(shifted[0]), events(shifted[1], note="again"), events(shifted[2])]), harness.rows(target))


def test_an_append_into_many_partitions_appears_at_once(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    make_things(clickhouse, BY_HOUR)
    target = harness.make_target("things", WriteMode.APPEND)
    seen = watched(clickhouse, "SELECT count() FROM things", lambda: [harness.publish(events(day(n)), target, day(n)) for n in range(4)])
    assert set(seen) <= {"0", "24", "48", "72", "96"}
    assert harness.rows(target).num_rows == 96


@pytest.mark.parametrize("partition", [None, BY_HOUR, BY_DAY])
def test_readers_see_old_or_new_never_between(harness: ClickHouseHarness, clickhouse: ClickHouseServer, partition: str | None) -> None:
    make_things(clickhouse, partition)
    target = windowed(harness)
    harness.publish(events(day(0), note="0", rows=480), target, day(0))
    query = "SELECT concat(toString(count()), ' ', toString(uniqExact(splitByChar(' ', assumeNotNull(note))[1]))) FROM things"
    seen = watched(
        clickhouse, query, lambda: [harness.publish(events(day(0), note=str(n), rows=480), target, day(0), str(n)) for n in range(1, 6)]
    )
    assert len(seen) > 5
    assert set(seen) == {"480 1"}


def watched(server: ClickHouseServer, query: str, work: Any) -> list[str]:
    """What a reader sees again and again while `work` goes on."""
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        client = server.client()
        while not stop.is_set():
            seen.append(client.raw_query(query, fmt="TSVRaw").decode().strip())
        client.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        stop.set()
        watcher.join()
    return seen


@pytest.mark.parametrize("partition", [None, "key % 3"])
def test_an_upsert_finds_its_keys_in_every_partition(
    harness: ClickHouseHarness, clickhouse: ClickHouseServer, partition: str | None
) -> None:
    parted = f"PARTITION BY {partition}" if partition else ""
    by_hand(clickhouse, f"CREATE TABLE pairs (key Int64, value Nullable(String)) ENGINE = MergeTree {parted} ORDER BY key")
    target = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    harness.publish(pairs(*((n, "old") for n in range(10))), target, unit("one"))
    harness.publish(pairs((3, "new"), (7, "first"), (7, "last"), (20, None)), target, unit("two"))
    expected = {**dict.fromkeys(range(10), "old"), 3: "new", 7: "last", 20: None}
    assert_same_rows(pairs(*expected.items()), harness.rows(target))


def test_an_upsert_may_be_left_to_the_engine(harness: ClickHouseHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    target = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"], engine="ReplacingMergeTree()")
    harness.publish(pairs((1, "a"), (2, "b")), target, unit("one"))
    with statements(monkeypatch) as seen:
        harness.publish(pairs((2, "c"), (3, "d"), (3, "e")), target, unit("two"))
    assert not [text for text in seen if " DELETE WHERE " in text]
    assert_same_rows(pairs((1, "a"), (2, "c"), (3, "e")), harness.rows(target))


def test_a_version_of_the_engine_does_not_decide_an_upsert(harness: ClickHouseHarness) -> None:
    """With a version column the older row could win; the last staged one counts, so the keys are rewritten."""
    target = harness.make_target(
        "pairs", WriteMode.UPSERT, keys=["key"], engine="ReplacingMergeTree(value)", columns={"value": "UInt32"}, order_by=["key"]
    )
    rows = pa.table({"key": [1], "value": [9]})
    harness.publish(rows, target, unit("one"))
    harness.publish(pa.table({"key": [1], "value": [5]}), target, unit("two"))
    assert harness.rows(target).to_pylist() == [{"key": 1, "value": 5}]


def test_a_table_is_made_as_told(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    options = {
        "engine": "MergeTree()",
        "order_by": ["note", "at"],
        "partition_by": BY_MONTH,
        "columns": {"note": "LowCardinality(String)", "made": "DateTime DEFAULT now()"},
    }
    target = windowed(harness, table_database=f"{clickhouse.database}_mart", **options)
    harness.publish(events(day(0)), target, day(0))
    told = by_hand(clickhouse, f"SHOW CREATE TABLE {clickhouse.database}_mart.things")
    by_hand(clickhouse, f"DROP DATABASE {clickhouse.database}_mart")
    for part in ("`note` LowCardinality(String)", "`made` DateTime DEFAULT now()", "`id` Nullable(Int64)", "`at` DateTime64(6, \\'UTC\\')"):
        assert part in told
    assert "PARTITION BY toYYYYMM(at)\\nORDER BY (note, at)" in told


def test_auto_create_off_says_what_to_type(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    target = harness.make_target("things", WriteMode.APPEND, auto_create=False)
    with pytest.raises(WriteFailed, match="does not exist") as caught:
        harness.publish(events(day(0)), target, day(0))
    by_hand(clickhouse, caught.value.hint)
    harness.publish(events(day(0)), target, day(0))
    assert_same_rows(events(day(0)), harness.rows(target))


@pytest.mark.parametrize(
    "definition",
    [
        "(id Int64, at DateTime64(6, 'UTC'), note String) ENGINE = SummingMergeTree ORDER BY id",
        "(id Int64, at DateTime64(6, 'UTC'), note String) ENGINE = Log",
    ],
)
def test_an_engine_that_cannot_be_swapped_is_refused(harness: ClickHouseHarness, clickhouse: ClickHouseServer, definition: str) -> None:
    by_hand(clickhouse, f"CREATE TABLE things {definition}")
    with pytest.raises(WriteFailed, match="engine"):
        harness.publish(events(day(0)), windowed(harness), day(0))
    assert harness.connector.ledger(windowed(harness), pipeline="contract", step="write") == []


def leftovers(server: ClickHouseServer) -> list[str]:
    """The staging tables that are there."""
    client = server.client()
    names = [row[0] for row in client.query(f"SELECT name FROM system.tables WHERE database = '{server.database}'").result_rows]
    client.close()
    return [name for name in names if name.startswith(_clickhouse_ledger.STAGE)]


def test_nothing_is_left_over(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    for mode in WriteMode:
        target = harness.make_target(f"t_{mode.value}", mode, keys=["id"] if mode is WriteMode.UPSERT else [], window_column="at")
        for attempt in ("first", "second"):
            harness.publish(events(day(0)), target, day(0), attempt)
        with pytest.raises(DataflowError):
            harness.publish(events(day(0)).rename_columns(["id", "at", "other"]), target, day(1))
    assert leftovers(clickhouse) == []


# -- what a kill, a cut line or a pause may leave


def staged(harness: ClickHouseHarness, server: ClickHouseServer, load: int) -> tuple[Any, Target, str]:
    """A connection of the connector, a target, and a staging table of the load."""
    target = windowed(harness)
    harness.publish(events(day(0)), target, day(0))
    name = _clickhouse_tables.stage_name(target, day(0), generation=1, load=load, role="in").name
    by_hand(server, f"CREATE TABLE {name} (id Int64) ENGINE = MergeTree ORDER BY id")
    by_hand(server, f"INSERT INTO {name} SELECT number FROM numbers(8)")
    return harness.connector._server, target, name


def test_a_table_that_is_dropped_while_it_is_described_is_none(
    harness: ClickHouseHarness, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer attempt drops the staging tables of an older one at any moment."""
    server, target, name = staged(harness, clickhouse, load=76)
    rows = type(server).rows

    def meanwhile(self: Any, text: str, *rest: Any) -> Any:
        found = rows(self, text, *rest)
        if "FROM system.tables" in text:
            by_hand(clickhouse, f"DROP TABLE IF EXISTS {name}")
        return found

    monkeypatch.setattr(type(server), "rows", meanwhile)
    assert _clickhouse_tables.describe(server, TableName(name, target.table.schema)) is None


def test_tables_that_their_owner_dropped_hold_nobody_up(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    """The server keeps a dropped table for eight minutes, whoever uses it or not."""
    server, target, name = staged(harness, clickhouse, load=77)
    by_hand(clickhouse, f"DROP TABLE {name}")
    _clickhouse_tables.drop_stages(server, target.table, 77, seconds=0)


def test_a_statement_that_uses_a_dropped_table_is_waited_for(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    server, target, name = staged(harness, clickhouse, load=78)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(by_hand, clickhouse, f"SELECT sum(sleepEachRow(0.25)) FROM {name}")
        while not server.rows("SELECT 1 FROM system.processes WHERE query LIKE '%sleepEachRow(0.25)%' AND query_id != queryID()"):
            assert not running.done()
        with pytest.raises(WriteFailed, match="still running") as caught:
            _clickhouse_tables.drop_stages(server, target.table, 78, seconds=0)
        assert caught.value.transient
        _clickhouse_tables.drop_stages(server, target.table, 78, seconds=60)
        running.result()


class TestClickHouseKilledInPartitions(KillPromises):
    """Processes, with a table made by hand whose day windows cover many partitions: the whole table is exchanged."""

    kind = "clickhouse"

    @pytest.fixture
    def place(self, clickhouse: ClickHouseServer) -> str:
        make_things(clickhouse, BY_HOUR, order="id")
        return clickhouse.url


@contextmanager
def through_proxy(server: ClickHouseServer, tmp_path: Path) -> Iterator[tuple[Proxy, ClickHouseHarness]]:
    """A harness whose line can be cut."""
    with proxy_to(server.host, server.port) as proxy:
        harness = ClickHouseHarness(tmp_path, place=replace(server, port=proxy.port).url)
        yield proxy, harness
        harness.connector.close()


@pytest.mark.parametrize("partition", [None, BY_HOUR])
@pytest.mark.parametrize("mode", list(WriteMode))
def test_a_lost_reply_to_the_swap_is_looked_up_in_the_rows(
    clickhouse: ClickHouseServer, tmp_path: Path, mode: WriteMode, partition: str | None
) -> None:
    make_things(clickhouse, partition)
    with through_proxy(clickhouse, tmp_path) as (proxy, harness):
        target = harness.make_target("things", mode, keys=["id"] if mode is WriteMode.UPSERT else [], window_column="at")
        harness.publish(events(day(0), note="old"), target, day(0) if mode is not WriteMode.APPEND else day(1))
        request = harness.request(events(day(0)), target, harness.connector.claim(target, day(0), attempt="only"))
        if mode is WriteMode.REPLACE or partition:
            word = b"EXCHANGE TABLES"
        else:
            word = b"things` ATTACH PARTITION" if mode is WriteMode.APPEND else b"REPLACE PARTITION"
        proxy.trigger(word)
        done = harness.connector.publish(request)
        assert proxy.cut == 1
        assert "reply" in done.note
        kept = [events(day(0), note="old")] if mode is WriteMode.APPEND else []
        assert_same_rows(pa.concat_tables([*kept, events(day(0))]), harness.rows(target))
        assert harness.connector.publish(request).already
        assert day(0).key in {entry.unit.key for entry in harness.connector.ledger(target, pipeline="contract", step="write")}


def test_a_line_cut_before_the_swap_is_transient(clickhouse: ClickHouseServer, tmp_path: Path) -> None:
    with through_proxy(clickhouse, tmp_path) as (proxy, harness):
        target = windowed(harness)
        harness.publish(events(day(0), note="old"), target, day(0))
        harness.publish(events(day(1), note="old"), target, day(1))
        cut = {b"CREATE TABLE": True, b"ArrowStream&": True, b"DELETE WHERE": True, b"dataflow_1=turn": True, b"dataflow_1=intent": True}
        cut |= {b"system.parts": False, b"event IN": False}  # a query that only reads is asked again by the driver
        for word, breaks in cut.items():
            request = harness.request(events(day(0), note="new"), target, harness.connector.claim(target, day(0), attempt=str(word)))
            before = proxy.cut
            proxy.trigger(word)
            if breaks:
                with pytest.raises(ConnectionFailed) as caught:
                    harness.connector.publish(request)
                assert caught.value.transient
            else:
                harness.connector.publish(request)
                harness.publish(events(day(0), note="old"), target, day(0), "restored")
            assert proxy.cut == before + 1, word
            assert_same_rows(pa.concat_tables([events(day(0), note="old"), events(day(1), note="old")]), harness.rows(target))
        harness.publish(events(day(0), note="new"), target, day(0), "last")
        assert_same_rows(pa.concat_tables([events(day(0), note="new"), events(day(1), note="old")]), harness.rows(target))


class _Pause:
    """A publish that stops at a point inside its turn until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

        def stop(point: str) -> None:
            if point == name and not self.reached.is_set():
                self.reached.set()
                assert self.go.wait(60)

        monkeypatch.setattr(_clickhouse_publish, "failpoint", stop)


@pytest.mark.parametrize("point", ["publish.after_delete", "publish.before_commit"])
@pytest.mark.parametrize("partition", [None, BY_HOUR])
@pytest.mark.parametrize("rows", [24, 0])
def test_a_zombie_in_its_turn_is_ended_and_publishes_no_more(
    harness: ClickHouseHarness, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch, point: str, partition: str | None, rows: int
) -> None:
    """It sleeps one statement before its swap while a newer attempt publishes; waking up, it must find its tables gone."""
    make_things(clickhouse, partition)
    target = windowed(harness)
    harness.publish(events(day(0), note="old"), target, day(0))
    harness.publish(events(day(1), note="next"), target, day(1))
    pause = _Pause(monkeypatch, point)
    claim = harness.connector.claim(target, day(0), attempt="zombie")
    with ThreadPoolExecutor(1) as pool:
        zombie = pool.submit(harness.connector.publish, harness.request(events(day(0), note="zombie").slice(0, rows), target, claim))
        assert pause.reached.wait(60)
        harness.publish(events(day(0), note="quick"), target, day(0), "quick")
        pause.go.set()
        with pytest.raises(DataflowError, match="fenced"):
            zombie.result()
    assert_same_rows(pa.concat_tables([events(day(0), note="quick"), events(day(1), note="next")]), harness.rows(target))
    entries = harness.connector.ledger(target, pipeline="contract", step="write")
    assert {entry.unit.key: entry.attempt for entry in entries} == {day(0).key: "quick", day(1).key: "first"}
    assert leftovers(clickhouse) == []


@pytest.mark.parametrize("point", ["publish.after_delete", "publish.before_commit", "publish.after_commit"])
def test_a_neighbour_without_a_sign_of_life_holds_nobody_up(
    harness: ClickHouseHarness, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Another unit waits for it as long as the lease lasts, ends its turn, and both outcomes are right."""
    target = windowed(harness)
    harness.publish(events(day(0), note="old"), target, day(0))
    monkeypatch.setattr(_clickhouse_ledger, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(_clickhouse_ledger.Ledger, "alive", _without_signs)
    pause = _Pause(monkeypatch, point)
    claim = harness.connector.claim(target, day(0), attempt="silent")
    with ThreadPoolExecutor(1) as pool:
        silent = pool.submit(harness.connector.publish, harness.request(events(day(0), note="silent"), target, claim))
        assert pause.reached.wait(60)
        harness.publish(events(day(1)), target, day(1))
        pause.go.set()
        if point == "publish.after_commit":
            silent.result()
        else:
            with pytest.raises(WriteFailed):
                silent.result()
    note = "silent" if point == "publish.after_commit" else "old"
    assert_same_rows(pa.concat_tables([events(day(0), note=note), events(day(1))]), harness.rows(target))
    entries = harness.connector.ledger(target, pipeline="contract", step="write")
    assert {entry.unit.key: entry.attempt for entry in entries} == {
        day(0).key: "silent" if note == "silent" else "first",
        day(1).key: "first",
    }


@contextmanager
def _without_signs(self: Any, turn: Any) -> Iterator[None]:
    yield


def test_signs_of_life_keep_a_turn(harness: ClickHouseHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    target = windowed(harness)
    harness.publish(events(day(0), note="old"), target, day(0))
    monkeypatch.setattr(_clickhouse_ledger, "LEASE_SECONDS", 2.0)
    pause = _Pause(monkeypatch, "publish.before_commit")
    claim = harness.connector.claim(target, day(0), attempt="slow")
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(harness.connector.publish, harness.request(events(day(0), note="slow"), target, claim))
        assert pause.reached.wait(60)
        other = pool.submit(harness.publish, events(day(1)), target, day(1))
        with pytest.raises(TimeoutError):
            other.result(timeout=5)
        pause.go.set()
        slow.result()
        other.result()
    assert_same_rows(pa.concat_tables([events(day(0), note="slow"), events(day(1))]), harness.rows(target))


def test_what_others_write_meanwhile_is_kept(
    harness: ClickHouseHarness, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An INSERT by hand between the copy of a partition and its swap: the copy is made again."""
    make_things(clickhouse, None)
    target = windowed(harness)
    harness.publish(events(day(0)), target, day(0))
    harness.publish(events(day(1)), target, day(1))
    once = iter([True])

    def write(point: str) -> None:
        if point == "publish.after_delete" and next(once, False):
            by_hand(clickhouse, "INSERT INTO things VALUES (1, '2024-04-01 00:00:00', 'meanwhile')")

    monkeypatch.setattr(_clickhouse_publish, "failpoint", write)
    harness.publish(events(day(0), note="new"), target, day(0), "second")
    found = harness.rows(target)
    assert found.num_rows == 49
    assert found["note"].to_pylist().count("meanwhile") == 1


def test_windows_beside_each_other_in_one_partition(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    make_things(clickhouse, BY_MONTH)
    target = windowed(harness)

    def publish(of: tuple[str, int]) -> None:
        harness.publish(events(hour(of[1]), note=of[0], rows=5), target, hour(of[1]), of[0])

    for attempt in ("first", "second"):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(publish, [(attempt, number) for number in range(8)]))
    assert_same_rows(pa.concat_tables([events(hour(n), note="second", rows=5) for n in range(8)]), harness.rows(target))
    assert len(harness.connector.ledger(target, pipeline="contract", step="write")) == 8
    assert leftovers(clickhouse) == []


def test_rows_that_the_server_drops_are_noticed(harness: ClickHouseHarness, clickhouse: ClickHouseServer) -> None:
    make_things(clickhouse, None)
    target = windowed(harness)
    request = harness.request(events(day(0)), target, harness.connector.claim(target, day(0), attempt="first"))
    with pytest.raises(AuditFailed, match="25"):
        harness.connector.publish(replace(request, rows=25))
    assert harness.rows(target).num_rows == 0


def test_moments_of_the_ledger_are_the_servers(harness: ClickHouseHarness) -> None:
    target = windowed(harness)
    harness.publish(events(day(0)), target, day(0))
    (entry,) = harness.connector.ledger(target, pipeline="contract", step="write")
    assert abs(entry.published_at - datetime.now(UTC)) < timedelta(minutes=5)
