"""Rules about rows over a stream: counts, the first offending rows.

Here: the run of a row rule, and what its result looks like. Not here: which rows break a rule (`checks._row_tests` and its neighbours),
the values seen most often (`checks._frequent`), rules that need the whole stream (`checks._unique`, `checks._lookup`), the dataset's own
rules (`checks._dataset`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._frequent import Frequent
from dataflow_assets.checks._literals import jsonable
from dataflow_assets.checks._row_tests import RowTest
from dataflow_assets.checks._rules import Rule
from dataflow_assets.protocols import CheckResult, Severity, StagedInput

SAMPLES = 5
Samples = list[dict[str, Any]]


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

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
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
        metadata = {**one, **self.test.observed(), **self.frequent.shown()}
        return outcome(self.rule, sentence, checked=self.checked, failed=self.failed, samples=self.samples, metadata=metadata)


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
    """The result of `rule`; it passed when no more rows failed than it tolerates, unless `passed` says otherwise.

    Where `passed` says it, no rows can be set aside.
    """
    permitted, severity = rule.verdict(failed, checked)
    quarantine = rule.quarantines and passed is None
    if passed is not None:
        permitted, severity = passed, rule.severity
    return CheckResult(
        name=rule.name,
        passed=permitted,
        description=f"{rule.description}: {sentence}" if rule.description else sentence,
        severity=Severity.WARN if quarantine else severity,
        blocking=rule.blocking and not quarantine,
        checked=checked,
        failed=failed,
        samples=tuple(samples or ()),
        metadata={"rule": str(rule.kind), **(metadata or {}), "failed_share": failed / checked if checked else 0.0},
        quarantine=quarantine,
    )
