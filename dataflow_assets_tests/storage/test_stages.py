"""Stages: what the receipt promises, and what it catches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.batches import Checksum
from dataflow_assets.errors import StageCorrupt, ValueRefused
from dataflow_assets.storage.stages import RECEIPT, Stage, load_stage, verify_stage, write_stage

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("text", pa.string())])


def stage_of(folder: Path, table: pa.Table, **keys: str) -> Stage:
    """The table, staged."""
    for _ in write_stage(folder, table.to_reader(), step="step", fingerprint=keys.get("fingerprint", "f")):
        pass
    stage = load_stage(folder)
    assert stage is not None
    return stage


def rows(count: int) -> pa.Table:
    """A table of `count` rows."""
    return pa.table({"id": np.arange(count), "text": [f"row {number}" for number in range(count)]}, schema=SCHEMA)


def test_a_stage_gives_back_its_rows_in_order_with_the_schema(tmp_path: Path) -> None:
    table = rows(200_000)
    stage = stage_of(tmp_path / "s", table)
    assert stage.open_reader().read_all().equals(table)
    assert stage.schema.equals(SCHEMA)
    assert stage.receipt.rows == 200_000
    assert stage.receipt.checksum == str(Checksum().add(table.combine_chunks().to_batches()[0]))
    assert verify_stage(stage)


def test_an_empty_stream_makes_a_stage_without_files(tmp_path: Path) -> None:
    stage = stage_of(tmp_path / "s", rows(0))
    assert stage.paths == ()
    assert stage.open_reader().read_all().schema.equals(SCHEMA)
    assert stage.preview() == ()
    assert verify_stage(stage)


def test_a_stage_without_a_receipt_is_no_stage(tmp_path: Path) -> None:
    stage_of(tmp_path / "s", rows(10))
    (tmp_path / "s" / RECEIPT).unlink()
    assert load_stage(tmp_path / "s") is None


@pytest.mark.parametrize("damage", ["cut", "missing", "receipt"])
def test_a_damaged_stage_is_not_loaded(tmp_path: Path, damage: str) -> None:
    part = Path(stage_of(tmp_path / "s", rows(1000)).paths[0])
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-10])
    elif damage == "missing":
        part.unlink()
    else:
        (tmp_path / "s" / RECEIPT).write_text("{")
    assert load_stage(tmp_path / "s") is None


def test_a_flipped_bit_is_found_on_every_read(tmp_path: Path) -> None:
    stage = stage_of(tmp_path / "s", rows(5000))
    part = Path(stage.paths[0])
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(bytes(data))
    assert not verify_stage(stage)
    with pytest.raises(StageCorrupt, match="cannot be read"):
        stage.open_reader().read_all()


def test_a_receipt_of_other_rows_does_not_verify(tmp_path: Path) -> None:
    stage_of(tmp_path / "s", rows(1000))
    path = tmp_path / "s" / RECEIPT
    receipt = json.loads(path.read_text())
    receipt["checksum"] = receipt["checksum"].replace("1000:", "1000:0", 1)[: len(receipt["checksum"])]
    path.write_text(json.dumps(receipt))
    stage = load_stage(tmp_path / "s")
    assert stage is not None
    assert not verify_stage(stage)


def test_observers_see_every_row_once_when_staged_and_when_verified(tmp_path: Path) -> None:
    class Counter:
        seen = 0

        def update(self, batch: pa.RecordBatch) -> None:
            self.seen += batch.num_rows

    writing, verifying = Counter(), Counter()
    for _ in write_stage(tmp_path / "s", rows(150_000).to_reader(), step="s", fingerprint="f", observers=[writing]):
        pass
    stage = load_stage(tmp_path / "s")
    assert stage is not None
    assert verify_stage(stage, observers=[verifying])
    assert writing.seen == verifying.seen == 150_000


@given(st.lists(st.integers(0, 50), max_size=20))
def test_no_row_is_lost_whatever_the_batches(sizes: list[int]) -> None:
    import tempfile

    table = rows(sum(sizes)).combine_chunks()
    batches, start = [], 0
    whole = table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=SCHEMA)
    for size in sizes:
        batches.append(whole.slice(start, size))
        start += size
    with tempfile.TemporaryDirectory() as folder:
        reader = pa.RecordBatchReader.from_batches(SCHEMA, batches)
        for _ in write_stage(Path(folder) / "s", reader, step="s", fingerprint="f"):
            pass
        stage = load_stage(Path(folder) / "s")
        assert stage is not None
        assert stage.open_reader().read_all().equals(table)


DICTIONARIES = {
    "text": (pa.array(["a", None, "a"]), True),
    "bytes": (pa.array([b"a", None], type=pa.large_binary()), True),
    "numbers": (pa.array([5, None, 5]), False),
    "dates": (pa.array([0, None], type=pa.date32()), False),
    "bytes of one length": (pa.array([b"ab", None], type=pa.binary(2)), False),
}


@pytest.mark.parametrize("case", DICTIONARIES)
def test_dictionaries_come_back_or_as_what_they_stand_for(tmp_path: Path, case: str) -> None:
    values, stays = DICTIONARIES[case]
    table = pa.table({"v": values.dictionary_encode(), "w": values})
    assert list(write_stage(tmp_path / "s", table.to_reader(), step="s", fingerprint="f"))
    stage = load_stage(tmp_path / "s")
    assert stage is not None
    assert verify_stage(stage)
    found = stage.open_reader().read_all()
    assert found.to_pylist() == table.to_pylist()
    assert isinstance(found.schema.field("v").type, pa.DictionaryType) == stays


@pytest.mark.parametrize("kind", ["run_end_encoded", "month_day_nano_interval", "union"])
def test_a_type_that_no_stage_holds_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    column = {
        "run_end_encoded": pa.RunEndEncodedArray.from_arrays([1, 2], ["a", "b"]),
        "month_day_nano_interval": pa.array([(1, 2, 3), None], type=pa.month_day_nano_interval()),
        "union": pa.UnionArray.from_sparse(pa.array([0, 1], type=pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
    }[kind]
    with pytest.raises(ValueRefused, match=kind):
        list(write_stage(tmp_path / "s", pa.table({"id": [1, 2], "v": column}).to_reader(), step="s", fingerprint="f"))
