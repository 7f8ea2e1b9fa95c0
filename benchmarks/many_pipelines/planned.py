"""What is due of 100,000 hourly windows of which nearly all are published: `python -m benchmarks.many_pipelines.planned`.

Here: the decision, in seconds. Not here: reading a ledger, which is its system's time.
"""

import json
import time
from datetime import UTC, datetime, timedelta

from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.plan.windows import FINGERPRINT, windows_to_run
from dataflow_assets.tables import LedgerEntry, Unit, WriteMode
from dataflow_assets.windows import Cadence

WINDOWS = 100_000


def main() -> None:
    cadence, begin = Cadence("hour", "America/New_York"), datetime(2014, 1, 1, 5, tzinfo=UTC)
    now = begin + timedelta(hours=WINDOWS)
    plan = WindowPlan(cadence, begin=begin, end=None, lookback=3, lag_seconds=0)
    published = list(cadence.between(begin, now))[: WINDOWS - 1000]
    ledger = [
        LedgerEntry(
            "t", Unit("p", "s", cadence.key(window), window), WriteMode.REPLACE_WINDOW, 1, "a", 1, "c", "f", now, {}, {FINGERPRINT: "x"}
        )
        for window in published
    ]
    started = time.perf_counter()
    todos = windows_to_run(plan, ledger=[ledger], now=now, fingerprints={"s": "x"})
    spent = time.perf_counter() - started
    assert (len(todos), sum(todo.run for todo in todos)) == (WINDOWS, 1003)
    print(json.dumps({"plan": spent}))


if __name__ == "__main__":
    main()
