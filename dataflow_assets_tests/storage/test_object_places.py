"""Tests of publishing into object stores: conditions that hold, late writers, lost replies, hands of others, large objects."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.connectors import _objects_s3
from dataflow_assets.errors import ConnectionFailed, Fenced, WriteFailed
from dataflow_assets.storage import files
from dataflow_assets.storage.objects import Changed, ObjectPath
from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.harness import Harness, assert_same_rows, day, events, unit
from dataflow_assets_tests.connectors.on_objects import at, content, harness_at, names, put
from dataflow_assets_tests.services.object_stores import StoreRoot

KINDS = ["csv", "ndjson", "parquet", "folder"]


def target_of(harness: Harness, mode: WriteMode) -> Any:
    """The target `things`."""
    return harness.make_target("things", mode, keys=("id",) if mode is WriteMode.UPSERT else (), window_column="at")


def ledger(harness: Harness, mode: WriteMode = WriteMode.REPLACE_WINDOW) -> dict[str, str]:
    """Key and attempt of the published units."""
    entries = harness.connector.ledger(target_of(harness, mode), pipeline="contract", step="write")
    return {entry.unit.key: entry.attempt for entry in entries}


def _put(path: ObjectPath, text: bytes, *, expected: str | None) -> None:
    path.store.put(path.key, io.BytesIO(text), len(text), expected=expected, token="t")


def test_a_store_writes_on_conditions(store_root: StoreRoot) -> None:
    path = at(store_root, "x")
    assert path.state() is None
    with pytest.raises(Changed):
        _put(path, b"one", expected=_version_of_another(store_root))
    _put(path, b"one", expected=None)
    with pytest.raises(Changed):
        _put(path, b"two", expected=None)
    first = path.state()
    assert first is not None
    assert (first.size, first.token) == (3, "t")
    _put(path, b"two!", expected=first.version)
    with pytest.raises(Changed):
        _put(path, b"three", expected=first.version)
    with pytest.raises(Changed):
        path.store.read(first, 0, 3)
    second = path.state()
    assert second is not None
    assert second.version != first.version
    assert path.store.read(second, 1, 2) == b"wo"
    assert path.store.get(path.key) == (b"two!", second.version)
    (listed,) = path.store.objects(path.key, deep=False)
    assert (listed.key, listed.size, listed.version) == (path.key, 4, second.version)


def _version_of_another(root: StoreRoot) -> str:
    other = at(root, "other")
    _put(other, b"other", expected=None)
    state = other.state()
    assert state is not None
    return state.version


@pytest.mark.parametrize("size", [0, 300_000])
def test_what_is_written_is_read(store_root: StoreRoot, size: int) -> None:
    path, sent = at(store_root, "x"), bytes(range(256)) * (size // 256) + b"\r\n\r\n--\r\n"[: size and 8]
    _put(path, sent, expected=None)
    with path.open("rb") as file:
        assert file.read() == sent


@pytest.mark.parametrize("mode", list(WriteMode))
@pytest.mark.parametrize("kind", KINDS)
def test_each_mode_in_each_store(store_root: StoreRoot, tmp_path: Path, kind: str, mode: WriteMode) -> None:
    harness = harness_at(kind, store_root, tmp_path)
    target = target_of(harness, mode)
    for attempt, number in (("a", 0), ("b", 1), ("c", 1)):
        harness.publish(events(day(number), note="x"), target, day(number), attempt)
    kept = [1] if mode is WriteMode.REPLACE else [0, 1]
    expected = pa.concat_tables([events(day(number), note="x") for number in kept])
    assert_same_rows(expected, harness.rows(target))
    assert_same_rows(expected, harness.read("things"))
    assert ledger(harness, mode) == {day(0).key: "a", day(1).key: "b" if mode is WriteMode.APPEND else "c"}


def test_a_folder_has_one_object_per_window_and_a_ledger_in_each(store_root: StoreRoot, tmp_path: Path) -> None:
    harness = harness_at("folder", store_root, tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    for number in range(6):
        harness.publish(events(day(number)), target, day(number))
    assert len(names(store_root)) == 7
    journal = next(name for name in names(store_root) if name.endswith(".dataflow.json"))
    _put(at(store_root, journal), b"{", expected=_state(store_root, journal))
    with pytest.raises(WriteFailed, match=r"\.dataflow\.json"):
        ledger(harness)
    _put(
        at(store_root, journal),
        b'{"version": 1, "serial": 0, "claims": [], "files": {}, "pending": null}',
        expected=_state(store_root, journal),
    )
    assert list(ledger(harness)) == [day(number).key for number in range(6)]


def _state(root: StoreRoot, name: str) -> str:
    state = at(root, name).state()
    assert state is not None
    return state.version


def during(monkeypatch: pytest.MonkeyPatch, place: str, act: Callable[[], object]) -> None:
    """Do something once, when a publish comes to this place."""
    done: list[str] = []

    def failpoint(name: str) -> None:
        if name == place and not done:
            done.append(name)
            act()

    monkeypatch.setattr(files, "failpoint", failpoint)


@pytest.mark.parametrize("kind", ["csv", "folder"])
def test_a_writer_that_was_overtaken_before_its_write_is_fenced(
    store_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It had announced its object; a newer attempt wrote before it."""
    harness, other = harness_at(kind, store_root, tmp_path), harness_at(kind, store_root, tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    harness.publish(events(day(0), note="old"), target, day(0), "old")
    monkeypatch.setattr(files, "writer_lock", _no_lock)
    during(monkeypatch, "publish.before_commit", lambda: other.publish(events(day(0), note="quick"), target, day(0), "quick"))
    with pytest.raises(Fenced):
        harness.publish(events(day(0), note="slow"), target, day(0), "slow")
    assert_same_rows(events(day(0), note="quick"), harness.rows(target))
    assert ledger(harness) == {day(0).key: "quick"}


def _no_lock(site: object) -> Any:
    from contextlib import nullcontext

    return nullcontext(True)


@pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.REPLACE_WINDOW])
def test_a_neighbour_that_is_written_meanwhile_stays(
    store_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: WriteMode
) -> None:
    harness, other = harness_at("csv", store_root, tmp_path), harness_at("csv", store_root, tmp_path)
    target = target_of(harness, mode)
    harness.publish(events(day(0)), target, day(0))
    monkeypatch.setattr(files, "writer_lock", _no_lock)
    during(monkeypatch, "publish.before_commit", lambda: other.publish(events(day(1)), target, day(1)))
    harness.publish(events(day(2)), target, day(2))
    assert_same_rows(pa.concat_tables([events(day(number)) for number in range(3)]), harness.rows(target))
    assert set(ledger(harness, mode)) == {day(number).key for number in range(3)}


def test_a_claim_after_the_announcement_ends_in_the_rows_of_the_newer_attempt(
    store_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = harness_at("csv", store_root, tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    claims: list[Any] = []
    during(monkeypatch, "publish.before_commit", lambda: claims.append(harness.connector.claim(target, day(0), attempt="newer")))
    harness.publish(events(day(0), note="older"), target, day(0), "older")
    assert ledger(harness) == {day(0).key: "older"}
    harness.connector.publish(harness.request(events(day(0), note="newer"), target, claims[0]))
    assert_same_rows(events(day(0), note="newer"), harness.rows(target))
    assert ledger(harness) == {day(0).key: "newer"}


def test_a_late_write_over_the_very_same_bytes_makes_its_window_missing(
    s3_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ETag of S3 is a hash of the content: the condition of the late write holds again."""
    harness, other = harness_at("csv", s3_root, tmp_path), harness_at("csv", s3_root, tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    for number in (0, 1):
        harness.publish(events(day(number)), target, day(number))

    def overtake() -> None:
        other.publish(events(day(1), note="other"), target, day(1), "quick")
        other.publish(events(day(1)), target, day(1), "quicker")

    monkeypatch.setattr(files, "writer_lock", _no_lock)
    during(monkeypatch, "publish.before_commit", overtake)
    harness.publish(events(day(1), note="late"), target, day(1), "late")
    assert list(ledger(harness)) == [day(0).key]
    harness.publish(events(day(1), note="again"), target, day(1), "again")
    assert_same_rows(pa.concat_tables([events(day(0)), events(day(1), note="again")]), harness.rows(target))
    assert ledger(harness) == {day(0).key: "first", day(1).key: "again"}


@pytest.mark.parametrize("name", [".things.csv.dataflow.json", "things.csv"])
def test_a_lost_reply_to_a_write_is_a_success(store_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The driver repeats such a write, and is told that its condition no longer holds."""
    harness = harness_at("csv", store_root, tmp_path)
    target = target_of(harness, WriteMode.APPEND)
    store = type(at(store_root).store)
    original: Any = store.put

    def twice(self: Any, key: str, file: Any, size: int, **state: Any) -> None:
        original(self, key, file, size, **state)
        if key.endswith(f"/{name}"):
            file.seek(0)
            original(self, key, file, size, **state)

    monkeypatch.setattr(store, "put", twice)
    for number in (0, 1):
        assert not harness.publish(events(day(number)), target, day(number)).already
    assert_same_rows(pa.concat_tables([events(day(0)), events(day(1))]), harness.rows(target))


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.REPLACE_WINDOW])
def test_a_connection_that_breaks_in_the_commit_ends_right(
    store_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: WriteMode, arrived: bool
) -> None:
    harness = harness_at("csv", store_root, tmp_path)
    target = target_of(harness, mode)
    harness.publish(events(day(0)), target, day(0))
    store = type(at(store_root).store)
    original: Any = store.put

    def broken(self: Any, key: str, file: Any, size: int, **state: Any) -> None:
        if arrived or not key.endswith("/things.csv"):
            original(self, key, file, size, **state)
        if key.endswith("/things.csv"):
            raise ConnectionFailed("the connection broke")

    monkeypatch.setattr(store, "put", broken)
    with pytest.raises(ConnectionFailed):
        harness.publish(events(day(1)), target, day(1), "broken")
    monkeypatch.undo()
    assert ledger(harness, mode) == {day(0).key: "first", **({day(1).key: "broken"} if arrived else {})}
    again = harness.publish(events(day(1)), target, day(1), "again")
    assert again.already == (arrived and mode is WriteMode.APPEND)
    assert_same_rows(pa.concat_tables([events(day(0)), events(day(1))]), harness.rows(target))


def test_an_object_that_somebody_deletes_makes_its_windows_missing(s3_root: StoreRoot, tmp_path: Path) -> None:
    harness = harness_at("csv", s3_root, tmp_path)
    target = target_of(harness, WriteMode.APPEND)
    harness.publish(events(day(0)), target, day(0))
    path: Any = at(s3_root, "out/things.csv")
    path.store.client.delete_object(Bucket=path.store.bucket, Key=path.key)
    assert ledger(harness) == {}
    assert not harness.publish(events(day(0)), target, day(0), "second").already
    assert_same_rows(events(day(0)), harness.rows(target))


def test_rows_added_by_hand_stay_and_are_noted(store_root: StoreRoot, tmp_path: Path) -> None:
    harness = harness_at("csv", store_root, tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    harness.publish(events(day(0)), target, day(0))
    path = at(store_root, "out/things.csv")
    put(path, content(path) + b'7,2024-01-01T00:00:00Z,"by hand"\n')
    assert list(ledger(harness)) == [day(0).key]
    assert "somebody else" in harness.publish(events(day(1)), target, day(1)).note
    assert harness.rows(target).num_rows == 49
    assert not harness.publish(events(day(1)), target, day(1), "again").note


def test_an_object_that_was_copied_back_is_still_known(s3_root: StoreRoot, tmp_path: Path) -> None:
    """Its token is in its metadata, which copies keep."""
    harness = harness_at("csv", s3_root, tmp_path)
    target = target_of(harness, WriteMode.APPEND)
    harness.publish(events(day(0)), target, day(0))
    path: Any = at(s3_root, "out/things.csv")
    where = {"Bucket": path.store.bucket, "Key": path.key}
    path.store.client.copy_object(**where | {"Key": f"{path.key}.bak"}, CopySource=where)
    path.store.client.delete_object(**where)
    path.store.client.copy_object(**where, CopySource=where | {"Key": f"{path.key}.bak"})
    assert harness.publish(events(day(0)), target, day(0), "second").already


@pytest.mark.parametrize("expected", [False, True])
def test_an_object_of_many_parts_is_written_on_a_condition(s3_root: StoreRoot, monkeypatch: pytest.MonkeyPatch, expected: bool) -> None:
    monkeypatch.setattr(_objects_s3, "_PART_BYTES", 5 * 1024 * 1024)
    path: Any = at(s3_root, "large")
    if expected:
        _put(path, b"old", expected=None)
    sent = bytes(range(256)) * 45_000
    state = path.state()
    for attempt in ("first", "second"):
        try:
            path.store.put(path.key, io.BytesIO(sent), len(sent), expected=state and state.version, token=attempt)
        except Changed:
            assert attempt == "second"
    found = path.state()
    assert (found.size, found.token) == (len(sent), "first")
    with path.open() as file:
        assert file.read() == sent
    uploads = path.store.client.list_multipart_uploads(Bucket=path.store.bucket, Prefix=path.key)
    assert not uploads.get("Uploads")


def test_a_target_of_many_parts(s3_root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_objects_s3, "_PART_BYTES", 5 * 1024 * 1024)
    harness = harness_at("csv", s3_root, tmp_path)
    target = target_of(harness, WriteMode.REPLACE_WINDOW)
    for number in (0, 1):
        harness.publish(events(day(number), rows=86_400, note="x" * 60), target, day(number))
    assert len(content(at(s3_root, "out/things.csv"))) > 15_000_000
    assert harness.rows(target).num_rows == 172_800
    assert set(ledger(harness)) == {day(0).key, day(1).key}


def test_a_large_object_on_gcs_is_resumable_and_conditional(gcs_root: StoreRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflow_assets.connectors._objects_gcs._CHUNK_BYTES", 256 * 1024)
    path = at(gcs_root, "large")
    sent = bytes(range(256)) * 4_000
    _put(path, sent, expected=None)
    with pytest.raises(Changed):
        _put(path, sent, expected=None)
    with path.open() as file:
        assert file.read() == sent


def test_auto_create_off_wants_the_object(s3_root: StoreRoot, tmp_path: Path) -> None:
    harness = harness_at("csv", s3_root, tmp_path)
    with pytest.raises(WriteFailed, match="auto_create"):
        harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND, auto_create=False), unit())
