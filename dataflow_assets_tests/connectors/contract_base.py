"""What the promises of the contract suite share.

Here: the base class with the harness fixture, sending one column of a type through a system, and the table of pairs. Not here: any
promise (`contract`, `contract_writing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.batches import Checksum
from dataflow_assets.errors import ValueRefused
from dataflow_assets.tables import Target, Unit, WindowFilter, WriteMode
from dataflow_assets_tests.connectors.arrow_types import COLUMNS, ORDINARY
from dataflow_assets_tests.connectors.harness import Harness, Lossy, assert_same_column
from dataflow_assets_tests.connectors.type_results import EMPTY, Outcome, confirm

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


Way = Callable[[str, pa.Table], Iterable[pa.Table]]
"""Puts a table under a name into the system and gives it back as often as there are ways of reading; the last is a source step's."""


class Promises:
    """Inherit, and provide `harness`. `lossy` maps a name in `arrow_types.COLUMNS` to what happens instead."""

    lossy: ClassVar[dict[str, Lossy]] = {}
    over: ClassVar[str | None] = ""
    """What the system stands on where that decides which types are kept, such as a database; None: results are not kept on file."""

    @pytest.fixture
    def harness(self, tmp_path: Any) -> Harness:
        raise AssertionError("a subclass gives the harness of its connector")

    @staticmethod
    def target(harness: Harness, mode: WriteMode, name: str = "things") -> Target:
        if mode not in harness.connector.capabilities.modes:
            pytest.skip(f"{harness.connector.kind} does not offer {mode}")
        keys = ("id",) if mode is WriteMode.UPSERT else ()
        return harness.make_target(name, mode, keys=keys, window_column="at" if mode is WriteMode.REPLACE_WINDOW else None)

    def send(self, harness: Harness, case: str, way: Way) -> None:
        """Fail unless the column comes back equal, or what `lossy` says happens, and as the results on file have it."""
        lossy = self.lossy.get(case)
        if lossy is None:
            outcome = Outcome("kept", _returned(COLUMNS[case], way, "kept"))
        elif lossy.form is not None:
            outcome = Outcome("changed", _returned(lossy.form(COLUMNS[case]), way, "changed", sent=COLUMNS[case]), lossy.reason)
        else:
            with pytest.raises(ValueRefused, match="v"):
                list(way("refused", _numbered(COLUMNS[case])))
            outcome = Outcome("refused", "", lossy.reason)
            if case in ORDINARY:
                outcome = _without_refused(ORDINARY[case], way, outcome)
        confirm(harness.connector, self.over, case, outcome)

    def came_back_empty(self, harness: Harness) -> None:
        """Confirm with the results on file that a table without rows came back."""
        confirm(harness.connector, self.over, EMPTY, Outcome("kept"))


def _numbered(column: pa.Array) -> pa.Table:
    return pa.table({"id": pa.array(range(len(column)), type=pa.int64()), "v": column})


def _returned(expected: pa.Array, way: Way, name: str, *, sent: pa.Array | None = None) -> str:
    """The type as which a source gives the column back; when it must be as it was sent, its checksum must as well."""
    table, kind = _numbered(expected if sent is None else sent), ""
    for found in way(name, table):
        found = found if found["id"].to_pylist() == list(range(len(found))) else found.sort_by("id")  # views cannot be sorted
        assert_same_column(expected, found["v"])
        assert sent is not None or checksum(found.select(table.column_names)) == checksum(table)
        kind = str(found["v"].type)
    return kind


def _without_refused(column: pa.Array, way: Way, outcome: Outcome) -> Outcome:
    """Whether the type is kept when its values are ordinary ones."""
    try:
        return Outcome("partly", _returned(column, way, "ordinary"), outcome.reason)
    except ValueRefused:
        return outcome
