"""Properties: what must make no difference to the rows in the end, tried on the rows of a test.

Here: running twice, splitting windows, permuting rows, rows that arrive late. Each compares a run that differs with the plain one. Not
here: the runs (`testing.bench`), what the rows should be (`testing.judging`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping

import pyarrow as pa

from dataflow_assets.spec.data_tests import Property
from dataflow_assets.tables import LedgerEntry, WriteMode
from dataflow_assets.testing.bench import Bench, Ran, open_bench
from dataflow_assets.testing.binding import FINER, BoundTest
from dataflow_assets.testing.comparing import compare
from dataflow_assets.windows import Cadence, Window

TRIES = 3
_APPROX = 1e-9
"""Sums of floats depend on the order of their rows in the last digits."""


def try_property(name: Property, bound: BoundTest, plain: Ran, *, seed: int) -> list[str]:
    """What differs from the plain run, a few lines; none when the property holds."""
    tries: Mapping[Property, Callable[[BoundTest, Ran, random.Random], list[str]]] = {
        "run_twice": _run_twice,
        "split_window": _split_window,
        "permute": _permute,
        "late": _late,
    }
    lines = tries[name](bound, plain, random.Random(seed))
    seeded = lines and name in {"permute", "late"}
    return [*lines, f"seed {seed}: repeat it with --seed {seed}"] if seeded else lines


def _run_twice(bound: BoundTest, plain: Ran, _random: random.Random) -> list[str]:
    with open_bench(bound) as bench:
        if bound.step.role == "endpoint":  # elsewhere nothing is left that a second run could meet
            bench.run(look=False)
        second = bench.run()
    lines = _unequal(bound, plain, second, "after a second run")
    if lines and _appends_runs(bound):
        lines.append("append without windows adds the rows of every run: use upsert or replace, or give the pipeline windows")
    if bound.step.role == "endpoint" and not lines:
        lines = _other_ledger(plain.ledger, second.ledger)
    return lines


def _appends_runs(bound: BoundTest) -> bool:
    return bound.step.mode is WriteMode.APPEND and bound.pipeline.windows is None


def _other_ledger(first: tuple[LedgerEntry, ...], second: tuple[LedgerEntry, ...]) -> list[str]:
    """The ledgers say the same of the same windows; generations count on, and the batches of two runs have names of their own."""
    said = [Counter((str(entry.unit.window), entry.rows, entry.checksum) for entry in entries) for entries in (first, second)]
    if said[0] == said[1] or any(entry.unit.window is None and entry.unit.key != "all" for entry in second):
        return []
    return [
        "the ledger says something else after a second run:",
        *(f"  before: {window}, {rows} rows, {checksum}" for window, rows, checksum in (said[0] - said[1])),
        *(f"  after:  {window}, {rows} rows, {checksum}" for window, rows, checksum in (said[1] - said[0])),
    ]


def _split_window(bound: BoundTest, plain: Ran, _random: random.Random) -> list[str]:
    windows = bound.pipeline.windows
    if windows is None:
        return []
    finer = Cadence(FINER[windows.cadence.every], windows.cadence.timezone)
    parts: list[Window | None] = [part for window in bound.windows if window for part in finer.between(window.start, window.end)]
    with open_bench(bound) as bench:
        split = bench.run(windows=parts, cadence=finer)
    return _unequal(
        bound, plain, split, f"with {len(parts)} windows of {finer.every} in place of {len(bound.windows)} of {windows.cadence.every}"
    )


def _permute(bound: BoundTest, plain: Ran, chance: random.Random) -> list[str]:
    for number in range(1, TRIES + 1):
        with open_bench(bound) as bench:
            shuffled = {name: table.take(_shuffled(table.num_rows, chance)) for name, table in bench.given.items()}
            ran = bench.run(shuffled)
        if lines := _unequal(bound, plain, ran, f"with the rows in another order (permutation {number})"):
            return lines
    return []


def _shuffled(count: int, chance: random.Random) -> pa.Array:
    return pa.array(chance.sample(range(count), count), pa.int64())


def _late(bound: BoundTest, plain: Ran, chance: random.Random) -> list[str]:
    for number in range(1, TRIES):
        with open_bench(bound) as bench:
            early, held = _hold_back(bench, chance)
            bench.run(early, look=False)
            ran = bench.run()
        if lines := _unequal(bound, plain, ran, f"when {held} of the rows come late (try {number})"):
            mode = bound.step.mode
            if mode is WriteMode.APPEND:
                lines.append("append leaves a published window alone: late rows need replace_window or upsert")
            return lines
    return []


def _hold_back(bench: Bench, chance: random.Random) -> tuple[dict[str, pa.Table], int]:
    """The given rows without some of them, at least one and at most half of each step's, and how many these are."""
    early: dict[str, pa.Table] = {}
    held = 0
    for name, table in bench.given.items():
        count = chance.randint(1, max(table.num_rows // 2, 1)) if table.num_rows else 0
        late = set(chance.sample(range(table.num_rows), count))
        early[name] = table.take(pa.array([row for row in range(table.num_rows) if row not in late], pa.int64()))
        held += count
    return early, held


def _unequal(bound: BoundTest, plain: Ran, other: Ran, when: str) -> list[str]:
    if other.error is not None:
        return [f"{when} the run failed: {other.error}"]
    expect = bound.test.model.expect
    difference = compare(
        other.rows,
        plain.rows.to_pylist(),
        columns=[name for name in expect.columns if name in plain.rows.column_names] or plain.rows.column_names,
        keys=bound.keys,
        ordered=expect.ordered,
        approx=expect.approx or _APPROX,
        from_text=True,
    )
    return [] if difference.same else [f"other rows {when}:", *difference.lines()]
