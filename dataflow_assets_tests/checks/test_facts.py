"""What rules are shown of a batch."""

from __future__ import annotations

import gc
import weakref

import pyarrow as pa

from dataflow_assets.checks._facts import Facts


class Odd:
    def of(self, whole):
        return {"odd": pa.array([number.as_py() % 2 == 1 for number in whole.column("n")]), "all": pa.array([True] * whole.rows)}


def test_a_batch_is_let_go_without_looking_for_garbage():
    gc.disable()
    try:
        facts = Facts(pa.record_batch({"n": [1, 2, 3]}), Odd())
        part = facts.limited("odd")
        assert part.column("n").to_pylist() == [1, 3]
        assert part.spread(pa.array([False, True])).to_pylist() == [False, False, True]
        assert facts.limited("all") is facts
        assert facts.limited("") is facts
        assert facts.limited("odd") is part
        gone = [weakref.ref(facts), weakref.ref(part)]
        del facts, part
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
