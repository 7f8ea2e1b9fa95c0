"""A server that crashes in the middle of a publish and comes back.

Here: the test that a server database's test class inherits. Not here: starting and stopping it (`services`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pytest

from dataflow_assets.errors import ConnectionFailed
from dataflow_assets.tables import WriteMode
from dataflow_assets_tests.connectors.harness import Harness, assert_same_rows, day, events


@dataclass
class Crashing:
    """A harness on a server of its own, which `crash` ends without a word and `start` brings back with its data."""

    harness: Harness
    crash: Callable[[], None]
    start: Callable[[], None]


class RestartPromises:
    """Inherit, and provide `crashing`."""

    @pytest.fixture
    def crashing(self) -> Crashing:
        raise AssertionError("a subclass says what crashes")

    def test_a_server_that_crashes(self, crashing: Crashing) -> None:
        """The old rows are there when it is back, and the same connector goes on."""
        harness = crashing.harness
        target = harness.make_target("things", WriteMode.REPLACE_WINDOW, window_column="at")
        harness.publish(events(day(0), note="old"), target, day(0))
        request = harness.request(events(day(0), note="new"), target, harness.connector.claim(target, day(0), attempt="second"))

        def interrupted() -> pa.RecordBatchReader:
            def batches() -> Iterator[pa.RecordBatch]:
                yield from request.open_reader()
                crashing.crash()

            return pa.RecordBatchReader.from_batches(request.schema, batches())

        with pytest.raises(ConnectionFailed) as caught:
            harness.connector.publish(replace(request, open_reader=interrupted))
        assert caught.value.transient
        with pytest.raises(ConnectionFailed):
            harness.connector.probe()
        crashing.start()
        assert_same_rows(events(day(0), note="old"), harness.rows(target))
        harness.connector.publish(request)
        assert_same_rows(events(day(0), note="new"), harness.rows(target))
        entries = harness.connector.ledger(target, pipeline="contract", step="write")
        assert [entry.attempt for entry in entries] == ["second"]
