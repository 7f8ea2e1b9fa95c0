"""Rules about rows over a stream: counts, the first offending rows, the offending values seen most often.

Here: the run of a row rule, and what its result looks like. Not here: which rows break a rule (`checks._row_tests` and its neighbours),
uniqueness and relationships, which need the whole stream (`checks._unique`, `checks._lookup`), the dataset's own rules
(`checks._dataset`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._literals import jsonable
from dataflow_assets.checks._row_tests import RowTest
from dataflow_assets.checks._rules import Rule
from dataflow_assets.protocols import CheckResult, StagedInput

SAMPLES = 5
FREQUENT = 5
_HELD_VALUES, _KEPT_VALUES = 4_000, 1_000
Samples = list[dict[str, Any]]


class Frequent:
    """The values, of one column or of several together, that were seen most often; beyond some thousand different ones about so."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._names = [str(number) for number in range(len(columns))]
        self._held: pa.Table | None = None

    def add(self, facts: Facts, mask: pa.BooleanArray) -> None:
        """Count the values of the rows where `mask` is true."""
        arrays = [facts.column(name).filter(mask) for name in self.columns]
        if arrays and not any(pa.types.is_nested(array.type) or pa.types.is_null(array.type) for array in arrays):
            self.count(pa.Table.from_arrays([*arrays, pa.repeat(pa.scalar(1, pa.int64()), len(arrays[0]))], names=[*self._names, "n"]))

    def count(self, rows: pa.Table) -> None:
        """Add values with their counts in the last column."""
        rows = rows.rename_columns([*self._names, "n"])
        held = rows if self._held is None else pa.concat_tables([self._held, rows])
        held = held.group_by(self._names, use_threads=False).aggregate([("n", "sum")]).rename_columns([*self._names, "n"])
        self._held = held if held.num_rows <= _HELD_VALUES else self._top(held, _KEPT_VALUES)

    def shown(self) -> list[dict[str, Any]]:
        """The first few, the most frequent first."""
        if self._held is None:
            return []
        top = self._top(self._held, FREQUENT)
        found = []
        for number in range(top.num_rows):
            values = {name: jsonable(top.column(place)[number]) for place, name in enumerate(self.columns)}
            found.append({"value": values if len(values) > 1 else next(iter(values.values())), "rows": top.column("n")[number].as_py()})
        return found

    def _top(self, held: pa.Table, number: int) -> pa.Table:
        places = np.argsort(-held["n"].to_numpy(), kind="stable")[:number]
        return held.take(pa.array(places))


class RowRun:
    """A row rule over one stream. `columns` are those whose values are shown; `subject` begins the sentence."""

    def __init__(self, rule: Rule, test: RowTest, *, columns: Sequence[str] = (), subject: str = "") -> None:
        self.rule, self.test = rule, test
        self.subject = subject or ", ".join(rule.columns)
        self.checked = self.failed = self.nulls = 0
        self.samples: Samples = []
        self.frequent = Frequent(columns)

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        part = facts.limited(self.rule.where)
        self.checked += part.rows
        if len(self.rule.columns) == 1:
            self.nulls += part.column(self.rule.columns[0]).null_count
        mask = self.test.failing(facts)
        if mask is not None and (count := mask.true_count):
            self.failed += count
            self._note(facts, mask)

    def _note(self, facts: Facts, mask: pa.BooleanArray) -> None:
        self.frequent.add(facts, mask)
        if len(self.samples) < SAMPLES:
            self.samples += sample_rows(facts.batch, mask, limit=SAMPLES - len(self.samples))

    def broken(self, facts: Facts) -> pa.BooleanArray | None:
        """Which rows of the batch break the rule; asked of every batch once more, in order, after `finish`."""
        return self.test.failing(facts)

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        self.test.restart()
        if reason := self.test.trouble():
            return outcome(self.rule, reason, checked=self.checked, passed=False, metadata={"reason": reason})
        if self.failed:
            sentence = f"{self.subject}: {share_of(self.failed, self.checked)} {self.test.complaint()}{tolerated(self.rule)}"
        else:
            sentence = f"{self.subject}: {self.test.praise()} in {counted(self.checked, 'row')}"
        one = {"column": self.rule.columns[0], "nulls": self.nulls} if len(self.rule.columns) == 1 else {}
        metadata = {**one, **self.test.observed(), **shown_values(self.frequent)}
        return outcome(self.rule, sentence, checked=self.checked, failed=self.failed, samples=self.samples, metadata=metadata)


def shown_values(frequent: Frequent) -> dict[str, Any]:
    """The entry of the metadata that holds frequent values; none without any."""
    found = frequent.shown()
    return {"frequent_values": found} if found else {}


def sample_rows(batch: pa.RecordBatch, mask: pa.BooleanArray, *, limit: int) -> Samples:
    """The first `limit` rows where `mask` is true, as JSON can hold them."""
    places = np.flatnonzero(mask.to_numpy(zero_copy_only=False))[:limit]
    columns = list(zip(batch.schema.names, batch.columns, strict=True))
    return [{name: jsonable(column[int(place)]) for name, column in columns} for place in places]


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def share_of(failed: int, checked: int) -> str:
    """`3 of 842 rows (0.36 %)`."""
    return f"{failed:,} of {counted(checked, 'row')} ({100 * failed / max(checked, 1):.3g} %)"


def tolerated(rule: Rule) -> str:
    """`, 0.5 % allowed` after a sentence that counts failed rows; empty when none is."""
    said = [f"{rule.max_failed} allowed"] if rule.max_failed else []
    said += [f"a warning above {rule.warn_above}"] if rule.warn_above else []
    return "".join(f", {text}" for text in said)


def outcome(
    rule: Rule,
    sentence: str,
    *,
    checked: int = 0,
    failed: int = 0,
    passed: bool | None = None,
    samples: Samples | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> CheckResult:
    """The result of `rule`; it passed when no more rows failed than it tolerates, unless `passed` says otherwise."""
    permitted, severity = rule.verdict(failed, checked)
    if passed is not None:
        permitted, severity = passed, rule.severity
    return CheckResult(
        name=rule.name,
        passed=permitted,
        description=f"{rule.description}: {sentence}" if rule.description else sentence,
        severity=severity,
        blocking=rule.blocking,
        checked=checked,
        failed=failed,
        samples=tuple(samples or ()),
        metadata={"rule": str(rule.kind), **(metadata or {}), "failed_share": failed / checked if checked else 0.0},
    )
