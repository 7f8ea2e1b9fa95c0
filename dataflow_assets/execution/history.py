"""The history of a step's metrics, as the ledgers and the acknowledgements of the project tell it.

Here: from ledger entries to measured windows with what is said of each. Not here: what a check makes of them (`checks`), all windows of
a pipeline at once (`execution.anomalies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from dataflow_assets.anomalies.history import FLAG, ROWS, Measured, Standing, is_mark
from dataflow_assets.execution.session import Rendered
from dataflow_assets.execution.work import Work, step_context
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.protocols import StepContext
from dataflow_assets.spec.acknowledgements import Acknowledgement
from dataflow_assets.tables import LedgerEntry

Said = Mapping[tuple[str, str], Acknowledgement]
"""(metric, window key) -> what was said last of it, at one step."""
_NEWEST, _NAMED = 4000, 60


class History(Mapping[str, Sequence[Measured]]):
    """Metric name -> its value in each earlier published window, oldest first, from the first endpoint whose ledger has it; read when a
    check first asks. Iterating gives the names in the newest windows."""

    def __init__(self, work: Work, step: StepPlan, said: Said) -> None:
        self._work, self._step, self._said = work, step, said
        self._known: dict[str, Sequence[Measured]] = {}
        self._read: dict[str, list[LedgerEntry]] = {}

    def __getitem__(self, name: str) -> Sequence[Measured]:
        if name not in self._known:
            plan, step = self._work.pipeline, self._step.id
            found = (measured(plan, step, name, entries, self._said, until=self._until) for entries in self._entries())
            self._known[name] = next(filter(None, found), ())
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        prefix, names = f"{self._step.id}.", dict[str, None]()
        for entries in self._entries():
            for entry in entries[-_NAMED:]:
                names |= dict.fromkeys(full.removeprefix(prefix) for full in entry.metrics if full.startswith(prefix) and not is_mark(full))
        return iter(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def _until(self) -> datetime | None:
        return self._work.window.start if self._work.window else None

    def _entries(self) -> Iterator[list[LedgerEntry]]:
        """The newest entries before this window, endpoint by endpoint; a further ledger is read only when it is asked for."""
        for endpoint in self._work.pipeline.endpoints:
            if endpoint.id not in self._read:
                self._read[endpoint.id] = self._before(self._work.session.ledger(endpoint, window=self._work.window))
            yield self._read[endpoint.id]

    def _before(self, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
        until = self._until
        if until is not None:
            entries = [entry for entry in entries if entry.unit.window is not None and entry.unit.window.start < until]
        return entries_in_order(entries)[-_NEWEST:]


def check_context(work: Work, step: StepPlan, rendered: Rendered) -> StepContext:
    """What a check at a step may know: with the history of its metrics, and what was said of this window's."""
    cadence = work.pipeline.windows.cadence if work.pipeline.windows else None
    said = acknowledged_at(work.pipeline, work.session.project.acknowledged, step.id)
    return replace(
        step_context(work, step, rendered),
        history=History(work, step, said),
        acknowledged={metric: item.verdict for (metric, key), item in said.items() if key == work.key},
        timezone=cadence.timezone if cadence else work.session.project.model.timezone,
    )


def entries_in_order(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The entries by the start of their windows, batches by when they were published."""
    return sorted(entries, key=start_of)


def start_of(entry: LedgerEntry) -> datetime:
    """The instant that an entry's numbers belong to."""
    return entry.unit.window.start if entry.unit.window is not None else entry.published_at


def acknowledged_at(plan: PipelinePlan, acknowledged: Iterable[Acknowledgement], step: str) -> Said:
    """What was said of the metrics of one step."""
    return {(item.metric, item.window): item for item in acknowledged if (item.pipeline, item.step) == (plan.name, step)}


def measured(
    plan: PipelinePlan, step: str, name: str, entries: Sequence[LedgerEntry], said: Said, *, until: datetime | None = None
) -> list[Measured]:
    """The values of one metric in these entries, in their order, with what is said of each; what an acknowledged level shift `until` an
    instant has made obsolete is left out."""
    full, metric = f"{step}.{name}", base_name(name)
    restart = level_shifts(plan, said, until=until).get(metric)
    return [
        Measured(
            entry.unit.key,
            start_of(entry),
            entry.metrics[full],
            int(entry.metrics[f"{full}{ROWS}"]) if f"{full}{ROWS}" in entry.metrics else None,
            _standing(said.get((metric, entry.unit.key)), flagged=f"{full}{FLAG}" in entry.metrics),
        )
        for entry in entries
        if full in entry.metrics and (restart is None or start_of(entry) >= restart)
    ]


def base_name(name: str) -> str:
    """The metric that a name belongs to: `rows` for `rows[JFK]`."""
    return name.partition("[")[0]


def level_shifts(plan: PipelinePlan, said: Said, *, until: datetime | None = None) -> dict[str, datetime]:
    """Metric -> where its newest acknowledged level begins, as far as its window's key tells; a window need not be published for it."""
    found: dict[str, datetime] = {}
    for (metric, key), item in said.items():
        if item.verdict != "level_shift" or plan.windows is None:
            continue
        try:
            start = plan.windows.cadence.window(key).start
        except ValueError:
            continue
        if until is None or start <= until:
            found[metric] = max(start, found.get(metric, start))
    return found


def _standing(said: Acknowledgement | None, *, flagged: bool) -> Standing:
    if said is not None:
        return Standing(said.verdict)
    return Standing.FLAGGED if flagged else Standing.USUAL
