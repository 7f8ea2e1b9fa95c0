"""Relationships: every value of one or several columns is found in another dataset, of any size, in bounded memory.

Here: an anti join by 64-bit hashes, gathered on both sides in sorted runs; rows without a partner are found again in a second pass.
Not here: gathering the hashes (`checks._hash_runs`), opening the other dataset (execution).

Rows with a null in one of the columns are left out, as foreign keys do. Numbers meet by value, whatever their width or scale, and
timestamps by their instant. A value that is not there is overlooked only if its hash equals that of another one that is: once in 2^64.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dataflow_assets.byte_hashes import Hashes
from dataflow_assets.checks._conditions import Conditions
from dataflow_assets.checks._dataset import missing_columns
from dataflow_assets.checks._facts import Facts, plain, plain_type
from dataflow_assets.checks._frequent import Frequent
from dataflow_assets.checks._hash_runs import RUN_HASHES, HashRuns
from dataflow_assets.checks._rows import SAMPLES, Samples, outcome, sample_rows, share_of, tolerated
from dataflow_assets.checks._rules import Rule
from dataflow_assets.checks._unique import among, key_hashes, read_again
from dataflow_assets.errors import DataflowError
from dataflow_assets.protocols import CheckResult, StagedInput, StepContext

_KEPT = 100_000


class RelationRun:
    """A `relationships` rule over one stream."""

    def __init__(
        self, rule: Rule, schema: pa.Schema, context: StepContext, conditions: Conditions | None = None, *, run_hashes: int = RUN_HASHES
    ) -> None:
        self.rule, self._context, self._conditions = rule, context, conditions
        self._kinds = [plain_type(schema.field(name).type) for name in rule.columns]
        self._run_hashes = run_hashes
        self._own = HashRuns(context.scratch, run_hashes=run_hashes)
        self._missing: Hashes = np.empty(0, dtype=np.uint64)
        self._dropped = False
        self.checked = self.nulls = self.found_in = 0

    def update(self, facts: Facts) -> None:
        """See the next batch."""
        part = facts.limited(self.rule.where)
        hashes, _ = key_hashes([part.column(name) for name in self.rule.columns])
        self.checked += part.rows
        self.nulls += part.rows - len(hashes)
        self._own.add(hashes)

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome; reads the other dataset, and the stage again when values are missing there. Raises what opening it raises."""
        failed = missing = 0
        samples: Samples = []
        frequent = Frequent(self.rule.columns)
        if self.checked > self.nulls:
            others = HashRuns(self._context.scratch, run_hashes=self._run_hashes)
            if unfit := self._read_other(others):
                return outcome(self.rule, unfit, checked=self.checked, passed=False, metadata={"reason": unfit})
            failed, missing = self._compare(others)
            samples = self._gather(stage, frequent) if failed else []
        return self._result(failed, missing, samples, frequent)

    def _result(self, failed: int, missing: int, samples: Samples, frequent: Frequent) -> CheckResult:
        columns = ", ".join(self.rule.columns)
        if failed:
            sentence = f"{columns}: {share_of(failed, self.checked)} are not found in {self._other}{tolerated(self.rule)}"
        else:
            sentence = f"{columns}: every value is found in {self._other}, in {self.checked:,} rows"
        metadata = {
            "columns": list(self.rule.columns),
            "to": self._other,
            "rows_with_null": self.nulls,
            "missing_values": missing,
            "rows_of_other": self.found_in,
            **frequent.shown(),
        }
        return outcome(self.rule, sentence, checked=self.checked, failed=failed, samples=samples, metadata=metadata)

    @property
    def _other(self) -> str:
        assert self.rule.to is not None
        return f"{self.rule.to}.{', '.join(self.rule.to.columns)}"

    def _read_other(self, others: HashRuns) -> str:
        """Gather the values of the other dataset; why they cannot be compared, empty when they can."""
        to = self.rule.to
        if to is None or self._context.open_dataset is None:
            raise DataflowError("this check was started where no other dataset can be opened")
        with self._context.open_dataset(to) as reader:
            if missing := missing_columns(to.columns, reader.schema.names):
                return f"{to}: {missing}"
            for name, kind, other in zip(self.rule.columns, self._kinds, to.columns, strict=True):
                if _family(kind) != _family(found := plain_type(reader.schema.field(other).type)):
                    return f"{name} is {kind}, but {other} of {to} is {found}: cast one of them so that they can be compared"
            for batch in reader:
                self.found_in += batch.num_rows
                others.add(key_hashes([plain(batch.column(name)) for name in to.columns])[0])
        return ""

    def _compare(self, others: HashRuns) -> tuple[int, int]:
        """Rows and distinct values without a partner; keeps the hashes of those values, as far as there is room."""
        failed = distinct = kept = 0
        held = [self._missing]
        for (hashes, counts), (known, _) in zip(self._own.partitions(), others.partitions(), strict=True):
            lost = ~np.isin(hashes, known, assume_unique=True)
            found = hashes[lost]
            failed += len(found) if counts is None else int(counts[lost].sum())
            distinct += len(found)
            held.append(found[: _KEPT - kept])
            kept += len(held[-1])
        self._missing, self._dropped = np.concatenate(held), distinct > kept
        return failed, distinct

    def _gather(self, stage: StagedInput, frequent: Frequent) -> Samples:
        """Find the rows without a partner in the stage: values in one pass over the key columns, rows until there are enough."""
        with read_again(stage, self.rule, self._conditions) as reader:
            for batch in reader:
                facts = Facts(batch, self._conditions)
                if (mask := self._mask(facts)) is not None:
                    frequent.add(facts, mask)
        samples: Samples = []
        with stage.open_reader() as reader:
            for batch in reader:
                if (mask := self._mask(Facts(batch, self._conditions))) is not None:
                    samples += sample_rows(batch, mask, limit=SAMPLES - len(samples))
                if len(samples) >= SAMPLES:
                    break
        return samples

    def _mask(self, facts: Facts) -> pa.BooleanArray | None:
        part = facts.limited(self.rule.where)
        mask, hashes = among([part.column(name) for name in self.rule.columns], self._missing)
        return part.spread(pa.array(mask)) if len(hashes) else None

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
        """The rows of a batch without a partner; asked after `finish`. Raises DataflowError when too many values are missing to tell."""
        if self._dropped:
            raise DataflowError(
                f"{', '.join(self.rule.columns)}: more than {_KEPT:,} different values are not found in {self._other}, too many to set "
                "their rows aside",
                hint="is it the right dataset, and is it complete?",
            )
        return self._mask(facts)


_FAMILIES = (
    ("number", lambda kind: pa.types.is_integer(kind) or pa.types.is_decimal(kind)),
    ("float", pa.types.is_floating),
    ("text", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    ("boolean", pa.types.is_boolean),
    ("timestamp", pa.types.is_timestamp),
    ("date", pa.types.is_date),
    ("time", pa.types.is_time),
    ("binary", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)),
)


def _family(kind: pa.DataType) -> str:
    """What decides whether two columns hash equal values equally."""
    return next((name for name, test in _FAMILIES if test(kind)), str(kind))
