"""Rows that are summed up here: the form itself, spelled out, and what becomes of a stream that breaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.canonical import CanonicalColumn, Tally, agree
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.storage.digests import read_tallies
from dataflow_assets.storage.local_digests import open_local
from dataflow_assets_tests.connectors.arrow_types import COLUMNS, NESTED
from dataflow_assets_tests.connectors.comparing import locally, table_of


def columns_of(table: pa.Table) -> tuple[CanonicalColumn, ...]:
    return agree(table.schema, table.schema, names=("a", "b")).columns


def digest(text: str) -> int:
    """The first 64 bits of the MD5 of a row as it is written in the documentation."""
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:16], 16)


def test_the_form_is_the_one_that_is_documented():
    table = pa.table(
        {
            "id": pa.array([1, None], pa.int32()),
            "price": pa.array([Decimal("1.50"), Decimal("-0.10")], pa.decimal128(9, 2)),
            "tiny": pa.array([Decimal("0.5"), Decimal("0.0")], pa.decimal128(3, 3)),
            "wide": pa.array([Decimal("1E-9"), Decimal(100)], pa.decimal256(50, 10)),
            "name": pa.array(["é,~", ""]),
            "paid": pa.array([True, False]),
            "raw": pa.array([b"\xff", None], pa.binary()),
        }
    )
    rows = ["1,1.5,0.5,0.000000001,4:é,~,1,ff", "~,-0.1,0,100,0:,0,~"]
    with locally(table) as here:
        assert here.tallies(columns_of(table)) == {"": Tally(2, sum(map(digest, rows)) % 2**64)}
        assert here.rows(columns_of(table))[1] == (None, "-0.1", "0", "100", "", "0", None)


def test_a_segment_is_named_by_the_hash_of_its_keys():
    table = pa.table({"id": [1, 2], "name": ["a", None]})
    with locally(table) as here:
        found = here.tallies(columns_of(table), keys=(1, 0), depth=4)
    keys = ["1:a,1", "~,2"]
    assert set(found) == {hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:4] for text in keys}


def test_nested_values_are_compared_by_their_json():
    nested = {name: column for name, column in COLUMNS.items() if name in NESTED and name != "list_view"}
    table = table_of(nested)
    with locally(table) as here, locally(table.take(list(reversed(range(len(table)))))) as other:
        assert here.tallies(columns_of(table)) == other.tallies(columns_of(table))
        with locally(table.slice(1)) as less:
            assert less.tallies(columns_of(table)) != here.tallies(columns_of(table))


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_of_the_stream_comes_through_as_it_is(depth: int, tmp_path: Path):
    batch = pa.record_batch({"id": [1, 2]})

    def broken() -> Iterator[pa.RecordBatch]:
        yield batch
        raise ValueRefused("a value of the source cannot be kept")

    def open_rows() -> Any:
        return nullcontext(pa.RecordBatchReader.from_batches(batch.schema, broken()))

    with open_local(open_rows, scratch=tmp_path) as here, pytest.raises(ValueRefused, match="cannot be kept"):
        here.tallies(columns_of(pa.Table.from_batches([batch])), depth=depth)
    assert list(tmp_path.iterdir()) == []


def test_a_row_without_a_digest_is_refused_and_not_left_out_of_the_sum():
    with pytest.raises(ReadFailed, match="2 rows have no checksum"):
        read_tallies([("", 5, 3, 17)])
    assert read_tallies([("", 0, 0, None)]) == {}
    assert read_tallies([("a", 1, 1, -1)]) == {"a": Tally(1, 2**64 - 1)}
