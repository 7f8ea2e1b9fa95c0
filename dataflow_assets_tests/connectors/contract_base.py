"""What the promises of the contract suite share.

Here: the base class with the harness fixture and the table of pairs. Not here: any promise (`contract`, `contract_writing`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.batches import Checksum
from dataflow_assets.tables import Target, Unit, WindowFilter, WriteMode
from dataflow_assets_tests.connectors.harness import Harness, Lossy

MODES = list(WriteMode)
PAIRS = pa.schema([("key", pa.int64()), ("value", pa.string())])


def pairs(*rows: tuple[int | None, str | None]) -> pa.Table:
    """A table of key and value."""
    return pa.table([[key for key, _ in rows], [value for _, value in rows]], schema=PAIRS)


def checksum(table: pa.Table) -> str:
    """The order-free checksum of all rows."""
    total = Checksum()
    for batch in table.to_batches():
        total = total.add(batch)
    return str(total)


def where(of: Unit, column: str = "at") -> WindowFilter:
    """The filter of a unit's window."""
    assert of.window is not None
    return WindowFilter(column, of.window)


class Promises:
    """Inherit, and provide `harness`. `lossy` maps a name in `arrow_types.COLUMNS` to what happens instead."""

    lossy: ClassVar[dict[str, Lossy]] = {}

    @pytest.fixture
    def harness(self, tmp_path: Any) -> Harness:
        raise AssertionError("a subclass gives the harness of its connector")

    @staticmethod
    def target(harness: Harness, mode: WriteMode, name: str = "things") -> Target:
        if mode not in harness.connector.capabilities.modes:
            pytest.skip(f"{harness.connector.kind} does not offer {mode}")
        keys = ("id",) if mode is WriteMode.UPSERT else ()
        return harness.make_target(name, mode, keys=keys, window_column="at" if mode is WriteMode.REPLACE_WINDOW else None)
