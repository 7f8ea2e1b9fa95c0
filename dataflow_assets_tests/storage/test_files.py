"""Tests of publishing into files: killed at every place, edited by hand, raced by others, and swept up after."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import DataflowError, Fenced, ValueRefused, WriteFailed
from dataflow_assets.storage import file_ledger, files
from dataflow_assets.storage.file_ledger import Identity, Site
from dataflow_assets.tables import SchemaPolicy, WindowFilter, WriteMode
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.harness import EVENTS, Harness, assert_same_rows, day, events, hour, unit
from dataflow_assets_tests.forked import Child
from dataflow_assets_tests.storage import publish_once
from dataflow_assets_tests.storage.publish_once import harness_of, target_of

PLACES = ["publish.begin", "publish.mid_copy", "publish.before_commit", "publish.after_commit"]
WAYS = [
    ("csv", WriteMode.REPLACE_WINDOW),
    ("ndjson", WriteMode.APPEND),
    ("json", WriteMode.UPSERT),
    ("folder", WriteMode.REPLACE_WINDOW),
]


def publish_in_process(folder: Path, kind: str, mode: WriteMode, number: int, note: str, failpoints: str = "") -> int | None:
    """Publish in a process of its own; its exit code."""
    child = Child(publish_once.main, str(folder), kind, mode.value, str(number), note, failpoints=failpoints)
    child.communicate(timeout=60)
    return child.returncode


def leftovers(folder: Path) -> list[str]:
    """Files that neither hold data nor belong to the ledger."""
    return [path.name for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize(("kind", "mode"), WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_a_kill_leaves_old_or_new_and_the_next_try_ends_it(tmp_path: Path, kind: str, mode: WriteMode, place: str) -> None:
    harness = harness_of(kind, tmp_path)
    target = target_of(harness, mode)
    number = 1 if mode is WriteMode.APPEND else 0
    old = events(day(0), note="old")
    harness.publish(old, target, day(0), "old")
    assert publish_in_process(tmp_path, kind, mode, number, "new", f"{place}=kill") == -signal.SIGKILL

    new = events(day(number), note="new")
    wanted = pa.concat_tables([old, new]) if number else new
    committed = place == "publish.after_commit"
    assert_same_rows(wanted if committed else old, harness.rows(target))
    attempts = [entry.attempt for entry in harness.connector.ledger(target, pipeline="contract", step="write")]
    assert attempts == ((["old", "new"] if number else ["new"]) if committed else ["old"])

    again = harness.publish(new, target, day(number), "again")
    assert again.already == (committed and mode is WriteMode.APPEND)
    assert_same_rows(wanted, harness.rows(target))
    assert leftovers(tmp_path) == []


def test_a_killed_claim_leaves_the_ledger_whole(tmp_path: Path) -> None:
    harness = harness_of("csv", tmp_path)
    target = target_of(harness, WriteMode.REPLACE)
    harness.publish(events(day(0)), target, unit())
    journal = tmp_path / "out" / ".things.csv.dataflow.json"
    journal.with_name(f"{journal.name}.tmp").write_text('{"version": 1, "ser')
    assert harness.connector.claim(target, unit(), attempt="x").generation == 2
    assert leftovers(tmp_path) == []


@pytest.fixture(params=["csv", "json", "ndjson", "parquet"])
def single(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    """A harness of one file."""
    return harness_of(request.param, tmp_path)


def the_file(harness: Harness) -> Path:
    """The one data file."""
    (path,) = [path for path in (harness.scratch / "out").iterdir() if path.name.startswith("things")]
    return path


def ledger(harness: Harness, mode: WriteMode = WriteMode.REPLACE_WINDOW) -> list[str]:
    """The keys of the published units."""
    return [entry.unit.key for entry in harness.connector.ledger(target_of(harness, mode), pipeline="contract", step="write")]


def test_a_deleted_file_makes_its_windows_missing_again(single: Harness) -> None:
    target = target_of(single, WriteMode.APPEND)
    for number in (0, 1):
        single.publish(events(day(number)), target, day(number))
    the_file(single).unlink()
    assert ledger(single) == []
    assert not single.publish(events(day(0)), target, day(0), "second").already
    assert_same_rows(events(day(0)), single.rows(target))
    assert ledger(single) == [day(0).key]


def test_an_emptied_file_makes_its_windows_missing_again(single: Harness) -> None:
    target = target_of(single, WriteMode.APPEND)
    single.publish(events(day(0)), target, day(0))
    the_file(single).write_bytes(b"")
    assert ledger(single) == []
    single.publish(events(day(0)), target, day(0), "second")
    assert_same_rows(events(day(0)), single.rows(target))


def test_a_copied_or_touched_file_is_still_known(single: Harness) -> None:
    target = target_of(single, WriteMode.APPEND)
    single.publish(events(day(0)), target, day(0))
    path = the_file(single)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert single.publish(events(day(0)), target, day(0), "second").already
    assert not single.publish(events(day(1)), target, day(1)).note


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_rows_added_by_hand_stay_and_are_noted(tmp_path: Path, kind: str) -> None:
    harness = harness_of(kind, tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    harness.publish(events(day(0)), target, day(0))
    added = {"csv": '7,2024-01-01T00:00:00Z,"by hand"', "ndjson": '{"id": 7, "note": "by hand", "at": "2024-01-01T00:00:00Z"}'}[kind]
    with the_file(harness).open("a") as file:
        file.write(added)
    assert ledger(harness) == [day(0).key]
    done = harness.publish(events(day(1)), target, day(1))
    assert "somebody else" in done.note
    assert harness.rows(target).num_rows == 49
    assert "by hand" in harness.rows(target)["note"].to_pylist()
    assert not harness.publish(events(day(1)), target, day(1), "again").note


def test_a_file_with_other_columns_put_there_by_hand_is_refused(tmp_path: Path) -> None:
    harness = harness_of("csv", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "things.csv").write_text("id,at,comment\n")
    with pytest.raises(WriteFailed, match="comment"):
        harness.publish(events(day(0)), target_of(harness, WriteMode.APPEND), day(0))
    assert (tmp_path / "out" / "things.csv").read_text() == "id,at,comment\n"


def test_appending_to_a_file_without_a_last_line_end(tmp_path: Path) -> None:
    harness = harness_of("csv", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "things.csv").write_text("note,id,at\nmine,1,2024-01-01T00:00:00Z")
    harness.publish(events(day(0), rows=2), target_of(harness, WriteMode.APPEND), day(0))
    assert (tmp_path / "out" / "things.csv").read_text().splitlines()[:3] == [
        "note,id,at",
        "mine,1,2024-01-01T00:00:00Z",
        "first 0,1710028800,2024-03-10T00:00:00.000000Z",
    ]


def test_auto_create_off_wants_the_file(tmp_path: Path) -> None:
    harness = harness_of("csv", tmp_path)
    with pytest.raises(WriteFailed, match="auto_create"):
        harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND, auto_create=False), day(0))


def test_a_broken_ledger_is_named(single: Harness) -> None:
    single.publish(events(day(0)), target_of(single, WriteMode.APPEND), day(0))
    journal = next(path for path in (single.scratch / "out").iterdir() if path.name.endswith(".dataflow.json"))
    journal.write_text("{")
    with pytest.raises(WriteFailed, match=journal.name):
        ledger(single)


def test_a_change_between_reading_and_commit_is_merged_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writers' lock only saves work: another writer that does not wait must not lose its rows."""
    harness, other = harness_of("csv", tmp_path), harness_of("csv", tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    harness.publish(events(day(0)), target, day(0))
    interrupted = []

    def interrupt(name: str) -> None:
        if name == "publish.mid_copy" and not interrupted:
            interrupted.append(name)
            monkeypatch.setattr(files, "writer_lock", lambda site: file_ledger.writer_lock(site, seconds=0))
            other.publish(events(day(2)), target, day(2), "other")

    monkeypatch.setattr("dataflow_assets.storage.file_writing.failpoint", interrupt)
    harness.publish(events(day(1)), target, day(1))
    assert_same_rows(pa.concat_tables([events(day(number)) for number in range(3)]), harness.rows(target))
    assert ledger(harness) == [day(0).key, day(1).key, day(2).key]


def test_a_claim_during_the_copy_fences_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = harness_of("parquet", tmp_path)
    target = target_of(harness, WriteMode.REPLACE)
    harness.publish(events(day(0)), target, unit())
    monkeypatch.setattr(
        "dataflow_assets.storage.file_writing.failpoint", lambda name: harness.connector.claim(target, unit(), attempt="newer") and None
    )
    with pytest.raises(Fenced):
        harness.publish(events(day(1)), target, unit(), "slow")
    assert_same_rows(events(day(0)), harness.rows(target))
    assert leftovers(tmp_path) == []


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    harness = harness_of("csv", tmp_path)
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(WriteFailed, match="out"):
        harness.publish(events(day(0)), target_of(harness, WriteMode.APPEND), day(0))


def test_declared_columns_shape_the_file(tmp_path: Path) -> None:
    harness = harness_of("parquet", tmp_path)
    target = harness.make_target("things", WriteMode.REPLACE, schema={"note": "text", "id": "decimal(20,2)", "at": "timestamp[UTC]"})
    harness.publish(events(day(0)), target, unit())
    assert harness.rows(target).schema.field("id").type == pa.decimal128(20, 2)
    assert harness.rows(target).column_names == ["note", "id", "at"]
    with pytest.raises(WriteFailed, match="note"):
        harness.publish(
            events(day(0)), harness.make_target("things", WriteMode.REPLACE, schema={"id": "int64", "at": "timestamp[UTC]"}), unit("b")
        )
    with pytest.raises(ValueRefused, match="colour"):
        harness.publish(events(day(0)), harness.make_target("things", WriteMode.REPLACE, schema={"id": "colour"}), unit("c"))


def test_a_column_without_values_takes_the_type_that_comes(single: Harness) -> None:
    target = target_of(single, WriteMode.APPEND)
    single.publish(pa.table({"id": [1], "x": pa.nulls(1)}), target, unit("a"))
    single.publish(pa.table({"id": [2], "x": [5]}), target, unit("b"))
    assert single.rows(target).sort_by("id").to_pydict() == {"id": [1, 2], "x": [None, 5]}


def test_a_value_of_another_type_is_refused(single: Harness) -> None:
    target = target_of(single, WriteMode.APPEND)
    single.publish(pa.table({"id": [1], "x": [5]}), target, unit("a"))
    with pytest.raises(ValueRefused, match="'x'"):
        single.publish(pa.table({"id": [2], "x": [5.5]}), target, unit("b"))
    assert single.rows(target).num_rows == 1


# folders of Parquet


def test_a_folder_has_one_file_per_window_and_its_ledger_in_the_footer(tmp_path: Path) -> None:
    harness = harness_of("folder", tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    for number in (0, 1, 1):
        harness.publish(events(day(number)), target, day(number), f"attempt {number}")
    paths = sorted(path.name for path in (tmp_path / "out" / "things").glob("*.parquet"))
    assert paths == ["20240310T000000Z-20240311T000000Z.parquet", "20240311T000000Z-20240312T000000Z.parquet"]
    assert pq.read_table(tmp_path / "out" / "things").num_rows == 48
    (tmp_path / "out" / "things" / ".dataflow.json").unlink()
    assert ledger(harness) == [day(0).key, day(1).key]
    assert harness.connector.claim(target, day(1), attempt="new").generation == 3


def test_a_lost_file_of_a_folder_is_one_missing_window(tmp_path: Path) -> None:
    harness = harness_of("folder", tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    for number in (0, 1, 2):
        harness.publish(events(day(number)), target, day(number))
    sorted((tmp_path / "out" / "things").glob("*.parquet"))[1].unlink()
    assert ledger(harness) == [day(0).key, day(2).key]


def test_an_hour_goes_into_the_file_of_its_day(tmp_path: Path) -> None:
    harness = harness_of("folder", tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    harness.publish(events(day(0)), target, day(0))
    harness.publish(events(hour(3), rows=5), target, hour(3))
    assert len(list((tmp_path / "out" / "things").glob("*.parquet"))) == 1
    assert harness.rows(target).num_rows == 28


def test_a_day_over_files_of_hours_is_refused(tmp_path: Path) -> None:
    harness = harness_of("folder", tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    for number in (0, 1):
        harness.publish(events(hour(number), rows=2), target, hour(number))
    with pytest.raises(WriteFailed, match="2 files"):
        harness.publish(events(day(0)), target, day(0))
    assert harness.rows(target).num_rows == 4


def test_files_of_others_in_a_folder_are_not_touched(tmp_path: Path) -> None:
    harness = harness_of("folder", tmp_path)
    (tmp_path / "out" / "things").mkdir(parents=True)
    pq.write_table(events(day(0)), tmp_path / "out" / "things" / "mine.parquet")
    for mode in (WriteMode.REPLACE, WriteMode.REPLACE_WINDOW, WriteMode.UPSERT):
        with pytest.raises(DataflowError, match=r"mine\.parquet"):
            harness.publish(events(day(0)), target_of(harness, mode), day(0))
    harness.publish(events(day(1)), target_of(harness, WriteMode.APPEND), day(1))
    assert harness.rows(target_of(harness, WriteMode.APPEND)).num_rows == 48


def test_whole_seconds_are_parted_by_a_window_of_finer_bounds(tmp_path: Path) -> None:
    harness = harness_of("parquet", tmp_path)
    at = pa.array([0, 1, 2], type=pa.timestamp("s"))
    harness.publish(pa.table({"at": at}), harness.make_target("things", WriteMode.APPEND), unit())
    window = Window(datetime(1970, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC))
    assert harness.read("things", window=WindowFilter("at", window))["at"].cast(pa.timestamp("s")).cast(pa.int64()).to_pylist() == [1]


def test_many_rows_by_key(tmp_path: Path) -> None:
    harness = harness_of("parquet", tmp_path)
    target = target_of(harness, WriteMode.UPSERT)
    table = pa.table({"id": list(range(200_000)), "v": ["old"] * 200_000})
    harness.publish(table, target, unit("a"))
    harness.publish(pa.table({"id": list(range(100_000, 300_000)), "v": ["new"] * 200_000}), target, unit("b"))
    found = harness.rows(target).to_pandas()
    assert len(found) == 300_000
    assert (found.loc[found.id < 100_000, "v"] == "old").all()
    assert (found.loc[found.id >= 100_000, "v"] == "new").all()


def test_the_identity_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    content = bytearray(os.urandom(5_000_000))
    path.write_bytes(content)
    first = Identity.of(path)
    for position in (0, 2_000_000 // 79_365 * 79_365, len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert Identity.of(path).digest != first.digest
    path.write_bytes(content)
    assert Identity.of(path).digest == first.digest


def test_two_sites_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    assert Site.of(tmp_path / "a.csv", is_folder=False).journal != Site.of(tmp_path / "b.csv", is_folder=False).journal
    assert str(Site.of(tmp_path / "a", is_folder=True)) == str(tmp_path / "a")


def test_reading_a_window_of_the_target(single: Harness) -> None:
    target = target_of(single, WriteMode.REPLACE_WINDOW)
    for number in (0, 1):
        single.publish(events(day(number)), target, day(number))
    assert_same_rows(events(day(1)), single.rows(target, where(day(1))))


_UNITS = st.tuples(st.sampled_from(["day", "hour"]), st.integers(0, 2), st.integers(0, 5))


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
@settings(max_examples=12, deadline=None)
@given(steps=st.lists(_UNITS, min_size=1, max_size=8))
def test_any_order_of_windows_gives_the_rows_of_the_last_ones(
    tmp_path_factory: pytest.TempPathFactory, kind: str, steps: list[tuple[str, int, int]]
) -> None:
    """Days and hours inside them, published and replaced in any order, against a model that filters a table."""
    harness = harness_of(kind, tmp_path_factory.mktemp("any"))
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    model = EVENTS.empty_table()
    for number, (length, position, rows) in enumerate(steps):
        of = day(position) if length == "day" else hour(position * 20)
        assert of.window is not None
        table = events(of, note=str(number), rows=rows) if rows else EVENTS.empty_table()
        harness.publish(table, target, of, str(number))
        at = model["at"]
        outside = pc.or_(pc.less(at, pa.scalar(of.window.start, at.type)), pc.greater_equal(at, pa.scalar(of.window.end, at.type)))
        model = pa.concat_tables([model.filter(outside), table])
        assert_same_rows(model, harness.rows(target))


def test_windows_beside_the_new_one_are_copied_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = harness_of("csv", tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    for number in range(3):
        harness.publish(events(day(number)), target, day(number))
    monkeypatch.setattr("dataflow_assets.connectors._csv_format.CsvFormat.rows", lambda *_: pytest.fail("the old rows were parsed"))
    harness.publish(events(day(1), note="again"), target, day(1), "again")
    harness.publish(events(day(3)), target, day(3))
    monkeypatch.undo()
    expected = [events(day(number), note="again" if number == 1 else "first") for number in range(4)]
    assert_same_rows(pa.concat_tables(expected), harness.rows(target))


def test_another_window_column_looks_at_the_rows_again(tmp_path: Path) -> None:
    """The pieces of a file were cut by one column; by another they may hold rows of any window."""
    harness = harness_of("csv", tmp_path)
    table = pa.table({"at": events(day(0), rows=2)["at"], "seen": events(day(1), rows=2)["at"]})
    harness.publish(table, harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at"), day(0))
    harness.publish(table.slice(0, 0), harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="seen"), day(1))
    assert harness.rows(harness.make_target("things", WriteMode.REPLACE_WINDOW)).num_rows == 0


def test_a_file_that_is_replaced_as_a_whole_has_the_columns_of_its_rows(single: Harness) -> None:
    """Unless the user says a policy: an export follows its query."""
    target = target_of(single, WriteMode.REPLACE)
    single.publish(pa.table({"id": [1], "x": [5]}), target, unit("a"))
    single.publish(pa.table({"id": [2], "y": ["z"]}), target, unit("a"), "second")
    assert single.rows(target).to_pydict() == {"id": [2], "y": ["z"]}
    versions = single.connector.schemas(target)  # type: ignore[attr-defined]
    assert [version.changes for version in versions] == [(), ("added 'y' string", "removed 'x' int64")]
    with pytest.raises(WriteFailed, match="'x'"):
        single.publish(pa.table({"id": [3], "x": [5]}), replace(target, schema_policy=SchemaPolicy.FREEZE), unit("a"), "third")
    done = single.publish(
        pa.table({"id": [3], "x": [5], "y": ["z"]}), replace(target, schema_policy=SchemaPolicy.DISCARD), unit("a"), "fourth"
    )
    assert [change.column for change in done.schema_changes] == ["x"]
    assert single.rows(target).to_pydict() == {"id": [3], "y": ["z"]}


def test_a_version_counts_only_once_its_file_is_there(single: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal announces the new columns before the rename that makes them true."""
    target = replace(target_of(single, WriteMode.APPEND), schema_policy=SchemaPolicy.EVOLVE)
    single.publish(pa.table({"id": [1]}), target, unit("a"))

    def break_off(place: str) -> None:
        if place == "publish.before_commit":
            raise OSError("broken off")

    with monkeypatch.context() as broken:
        broken.setattr(files, "failpoint", break_off)
        with pytest.raises(WriteFailed):
            single.publish(pa.table({"id": [2], "x": [5]}), target, unit("b"))
    assert [version.version for version in single.connector.schemas(target)] == [1]  # type: ignore[attr-defined]
    assert single.rows(target).column_names == ["id"]
    single.publish(pa.table({"id": [2], "x": [5]}), target, unit("b"), "again")
    assert [version.changes for version in single.connector.schemas(target)] == [(), ("added 'x' int64",)]  # type: ignore[attr-defined]


def test_a_journal_without_versions_gets_them(single: Harness) -> None:
    target = target_of(single, WriteMode.APPEND)
    single.publish(pa.table({"id": [1]}), target, unit("a"))
    (journal,) = (single.scratch / "out").glob(".*dataflow.json")
    text = json.loads(journal.read_text())
    assert text.pop("schemas") == []
    journal.write_text(json.dumps(text))
    single.publish(pa.table({"id": [2]}), target, unit("b"))
    (version,) = single.connector.schemas(target)  # type: ignore[attr-defined]
    assert (version.version, [column.name for column in version.columns]) == (1, ["id"])


def test_a_folder_of_published_files_is_read_as_one_though_columns_came_later(tmp_path: Path) -> None:
    harness = harness_of("folder", tmp_path)
    target = replace(target_of(harness, WriteMode.REPLACE_WINDOW), schema_policy=SchemaPolicy.EVOLVE)
    harness.publish(events(day(0)), target, day(0))
    harness.publish(events(day(1)).append_column("coupon", pa.array(["c"] * 24)), target, day(1))
    found = harness.read("things")
    assert found["coupon"].null_count == 24
    assert found.num_rows == 48
    stranger = pa.table({"id": [1]})
    pq.write_table(stranger, tmp_path / "out" / "things" / "stranger.parquet")
    with pytest.raises(DataflowError, match="do not have the same columns"):
        harness.read("things")
