"""A pandera model over one stream: counts, offending rows and values, results.

Here: which demand of the model belongs to which promised result, and the results. Not here: how a demand is put to rows
(`checks._pandera_model`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._literals import jsonable
from dataflow_assets.checks._pandera_model import Demand, Model, Verdict, load_schema
from dataflow_assets.checks._pandera_outline import UNIQUE, Asked
from dataflow_assets.checks._rows import SAMPLES, Samples, counted, sample_rows, share_of
from dataflow_assets.checks._rules import Rule, RuleKind
from dataflow_assets.checks._unique import UniqueRun
from dataflow_assets.protocols import BrokenRows, CheckPromise, CheckResult, Severity, StagedInput, StepContext

if TYPE_CHECKING:
    from dataflow_assets.checks.pandera import PanderaOptions

SHOWN_VALUES = 10


@dataclass
class Tally:
    """What was found of one promised result."""

    promise: CheckPromise
    demands: list[Demand] = field(default_factory=list)
    failed: int = 0
    samples: Samples = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)
    complaints: dict[str, None] = field(default_factory=dict)
    """Sentences about what no row can be blamed for."""
    broken: dict[Demand, None] = field(default_factory=dict)
    """What the failed rows broke."""
    unique: CheckResult | None = None

    def note(self, batch: pa.RecordBatch, verdict: Verdict) -> None:
        """Count a verdict."""
        demand = verdict.demand
        if isinstance(verdict.answer, str):
            self.complaints[verdict.answer] = None
        elif isinstance(verdict.answer, bool):
            if not verdict.answer:
                self.complaints[_subject(demand, "does not hold for the data as a whole")] = None
        elif verdict.answer.any():
            mask = pa.array(verdict.answer)
            self.failed += mask.true_count
            self.broken[demand] = None
            self.samples += sample_rows(batch, mask, limit=SAMPLES - len(self.samples))
            if demand.column:
                self._keep_values(batch, demand.column, mask)

    def _keep_values(self, batch: pa.RecordBatch, column: str, mask: pa.BooleanArray) -> None:
        held = self.values.setdefault(column, [])
        if len(held) < SHOWN_VALUES:
            few = batch.column(column).filter(mask).slice(0, 1000)
            held += [value for value in dict.fromkeys(map(_key, few)) if value not in held][: SHOWN_VALUES - len(held)]


def _key(scalar: pa.Scalar) -> Any:
    value = jsonable(scalar)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _subject(demand: Demand, end: str) -> str:
    return " ".join(part for part in (f"{demand.column}:" if demand.column else "", demand.sentence, end) if part)


class PanderaRun:
    """See `protocols.CheckRun` and `protocols.PicksRows`."""

    def __init__(self, options: PanderaOptions, promises: Sequence[CheckPromise], asked: Sequence[Asked], *, schema: pa.Schema) -> None:
        self._options, self._schema = options, schema
        self.rows = 0
        self._alone: pa.RecordBatch | None = None
        self.tallies = [Tally(promise) for promise in promises]
        self._by_asked = dict(zip(asked, self.tallies[1:], strict=True))
        self._names = {(item.column, item.check): tally for item, tally in self._by_asked.items()}
        self._results: dict[str, CheckResult] = {}

    def begin(self, context: StepContext) -> PanderaRun:
        """Import the model and start. Raises CheckFailed, MissingDriver."""
        self.model = Model(load_schema(self._options.reference, context), self._schema)
        self._uniques: list[tuple[Tally, UniqueRun]] = []
        for demand in self.model.demands:
            tally = self._tally(demand)
            tally.demands.append(demand)
            if demand.missing:
                continue
            if demand.check is None and demand.name == UNIQUE:
                rule = Rule(RuleKind.UNIQUE, tally.promise.name, demand.columns)
                self._uniques.append((tally, UniqueRun(rule, context.scratch)))
        return self

    def _tally(self, demand: Demand) -> Tally:
        """The promised result that a demand belongs to; the first, which is about the model as a whole, where none was promised."""
        return self._names.get((demand.column, demand.name), self.tallies[0])

    def update(self, batch: pa.RecordBatch) -> None:
        """See the next batch."""
        if self._alone is None and self.rows == 0 and batch.num_rows == 1:
            self._alone = batch  # one answer for one row may be an answer for the row or for all rows
            return
        batches = [batch] if self._alone is None else [self._alone, batch]
        self._alone = None
        self._see(batch if len(batches) == 1 else pa.concat_batches(batches))

    def _see(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        facts = Facts(batch)
        for _, run in self._uniques:
            run.update(facts)
        if not self._options.at_once:
            for verdict in self.model.look(batch):
                self._tally(verdict.demand).note(batch, verdict)
            gc.collect(1)  # pandas' frames and their columns hold on to each other, megabytes in few objects

    def finish(self, stage: StagedInput) -> list[CheckResult]:
        """One result per promise, in order."""
        if self._alone is not None:
            self._see(self._alone)
        together = self.model.demands if self._options.at_once else self.model.undecided
        together = [demand for demand in together if not demand.missing and not (demand.check is None and demand.name == UNIQUE)]
        if together or self._options.at_once:
            self._look_at_all(stage, together)
        self.tallies[0].complaints = dict.fromkeys(self.model.problems) | self.tallies[0].complaints
        for tally, run in self._uniques:
            self._note_unique(tally, run.finish(stage))
        results = [self._result(tally) for tally in self.tallies]
        self._results = {result.name: result for result in results}
        return results

    def _look_at_all(self, stage: StagedInput, demands: list[Demand]) -> None:
        limit = self._options.row_limit
        if stage.rows > limit:
            for demand in demands or [self.model.as_a_whole]:
                reason = f"needs all {stage.rows:,} rows in one frame, more than row_limit ({limit:,})"
                self._tally(demand).complaints[_subject(demand, reason)] = None
            return
        with stage.open_reader() as reader:
            table = reader.read_all()
        batch = table.combine_chunks()
        for verdict in self.model.look_at_all(batch, demands):
            self._tally(verdict.demand).note(batch, verdict)

    def _note_unique(self, tally: Tally, found: CheckResult) -> None:
        tally.unique = found
        tally.failed += found.failed
        if found.failed:
            if not self._options.quarantines or "counted" in found.metadata:  # not every repeat could be found again
                tally.complaints[found.description] = None
            tally.samples += [dict(row) for row in found.samples][: SAMPLES - len(tally.samples)]

    def pick(self, batch: pa.RecordBatch) -> list[BrokenRows]:
        """Where the batch breaks the demands whose result says `quarantine`."""
        return list(self._pick(batch)) if any(result.quarantine for result in self._results.values()) else []

    def _pick(self, batch: pa.RecordBatch) -> Iterator[BrokenRows]:
        facts = Facts(batch)
        for tally, run in self._uniques:
            if self._results[tally.promise.name].quarantine and (mask := run.pick(facts)) is not None:
                yield BrokenRows(tally.promise.name, run.rule.columns[0] if len(run.rule.columns) == 1 else "", mask)
        for verdict in self.model.look(batch):
            name = self._tally(verdict.demand).promise.name
            if self._results[name].quarantine and not isinstance(verdict.answer, bool | str) and verdict.answer.any():
                yield BrokenRows(name, verdict.demand.column, pa.array(verdict.answer))

    def _result(self, tally: Tally) -> CheckResult:
        first = tally is self.tallies[0]
        absent = [demand for demand in tally.demands if demand.missing]
        if any(not demand.optional for demand in absent) and not first:
            tally.complaints[f"{absent[0].column}: not in the data"] = None
        only_rows = not tally.complaints
        passed = only_rows and tally.failed <= self._options.tolerated(self.rows)
        warns = self._options.severity is Severity.WARN or (bool(tally.demands) and all(demand.warns for demand in tally.demands))
        aside = self._options.quarantines and only_rows and not passed
        metadata: dict[str, Any] = {"rule": "pandera", "model": self._options.model, "asks": self._asks(tally)}
        if tally.values:
            metadata["failure_values"] = next(iter(tally.values.values())) if len(tally.values) == 1 else tally.values
        return CheckResult(
            name=tally.promise.name,
            passed=passed,
            description=self._sentence(tally, absent=bool(absent)),
            severity=Severity.WARN if warns or aside else Severity.ERROR,
            blocking=self._options.blocking and not aside,
            checked=self.rows,
            failed=tally.failed,
            samples=tuple(tally.samples),
            metadata={**metadata, "failed_share": tally.failed / self.rows if self.rows else 0.0},
            quarantine=aside,
        )

    def _asks(self, tally: Tally) -> str:
        return "; ".join(dict.fromkeys(_subject(demand, "") for demand in tally.demands))

    def _sentence(self, tally: Tally, *, absent: bool) -> str:
        said = list(tally.complaints)
        if tally.unique is None and tally.failed:
            columns = {demand.column for demand in tally.broken}
            subject = f"{columns.pop()}: " if len(columns) == 1 and "" not in columns else ""
            what = ", ".join(dict.fromkeys(demand.sentence if subject else _subject(demand, "") for demand in tally.broken))
            said.append(f"{subject}{share_of(tally.failed, self.rows)} break {what}")
        if said:
            return "; ".join(said[:SHOWN_VALUES])
        if tally.unique is not None:
            return tally.unique.description
        if tally is self.tallies[0]:
            return f"columns and types as in {self._options.reference.name}, in {counted(self.rows, 'row')}"
        if not tally.demands:
            return "the model asks nothing of the sort"
        return f"{self._asks(tally)}: " + ("the column is not in the data, which the model allows" if absent else counted(self.rows, "row"))
