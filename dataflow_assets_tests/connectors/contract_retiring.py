"""The promise about rows that leave for good: exactly those that were counted, with the ledger, or nothing.

Here: what holds for every connector that has `protocols.Retires`. Not here: what is archived before (`execution.retention`).
"""

from __future__ import annotations

import pyarrow as pa
import pytest

from dataflow_assets.errors import AuditFailed, Fenced
from dataflow_assets.protocols import Retires
from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.contract_base import Promises, where
from dataflow_assets_tests.connectors.harness import EVENTS, Harness, assert_same_rows, day, events


class RetirePromises(Promises):
    """Taking a window out of a target."""

    def test_a_window_leaves_with_exactly_the_rows_that_were_counted(self, harness: Harness) -> None:
        connector = harness.connector
        if not isinstance(connector, Retires):
            pytest.skip(f"{connector.kind} cannot retire windows")
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        for number in (0, 1, 2):
            harness.publish(events(day(number)), target, day(number), state={"n": str(number)})
        both = pa.concat_tables([events(day(0)), events(day(2))])
        old = connector.claim(target, day(1), attempt="slow")
        claim = connector.claim(target, day(1), attempt="retention")
        assert claim.published is not None
        request = harness.request(EVENTS.empty_table(), target, claim, state={"retired": "yes"})
        for wrong in (0, 23, 25):
            with pytest.raises(AuditFailed):
                connector.retire(request, rows=wrong)
        assert_same_rows(events(day(1)), harness.rows(target, where(day(1))))
        ledger = connector.ledger(target, pipeline="contract", step="write")
        assert [(entry.rows, entry.state["n"]) for entry in ledger] == [(24, "0"), (24, "1"), (24, "2")]
        done = connector.retire(request, rows=24)
        assert (done.rows, done.already) == (0, False)
        assert_same_rows(both, harness.rows(target))
        _, entry, _ = connector.ledger(target, pipeline="contract", step="write")
        assert (entry.rows, entry.state) == (0, {"retired": "yes"})
        with pytest.raises(Fenced):
            connector.publish(harness.request(events(day(1), note="slow"), target, old))
        again = connector.claim(target, day(1), attempt="again")
        connector.retire(harness.request(EVENTS.empty_table(), target, again), rows=0)
        assert_same_rows(both, harness.rows(target))
