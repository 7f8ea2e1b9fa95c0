"""Whoever works on a backfill is heard of, however long one window takes."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import dagster as dg

from dataflow_assets.assets.drivers import this_driver
from dataflow_assets.operations.backfills.records import Backfill, Records, Request
from dataflow_assets.operations.backfills.work import Watch

BEGAN = datetime(2024, 1, 1, tzinfo=UTC)


def test_a_long_window_is_no_silence(instance: dg.DagsterInstance) -> None:
    """Other hosts take a process for dead that says nothing for minutes, and would mark its runs as failed."""
    records, backfill = Records(instance), Backfill("b1", "shop", BEGAN, "me", "here", Request(), {}, {})
    records.add(backfill)
    watch = Watch(records, backfill, this_driver(now=BEGAN), beat_seconds=0.01)
    watch.begin()
    for _ in range(1000):
        driver = records.driver(backfill)
        if driver is not None and driver.at > BEGAN:
            break
        time.sleep(0.01)
    else:
        raise AssertionError("nobody was heard of")
    watch.end(interrupted=False)
    assert records.driver(backfill) is None
