"""Running a test's part of a pipeline: the real steps between given rows and a target of its own, in a temporary folder.

Here: the folder with its rows, what the target holds beforehand, runs one after the other, and what can be seen afterwards. Not here:
the derived plan (`plan.substitution`), what is expected (`testing.judging`).
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from dataflow_assets.execution.events import CheckEvaluated, Event, StepFinished, WindowFailed
from dataflow_assets.execution.run import RunRequest, run
from dataflow_assets.execution.session import Session
from dataflow_assets.plan.model import CheckPlan, PipelinePlan, StepPlan
from dataflow_assets.plan.substitution import RESULT, result_file, substituted
from dataflow_assets.protocols import CheckResult
from dataflow_assets.spec.data_tests import TableModel
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.retries import RetryOptions
from dataflow_assets.storage.stages import checksum_of
from dataflow_assets.tables import LedgerEntry, PublishRequest, Target, Unit, WriteMode
from dataflow_assets.testing.binding import BoundTest
from dataflow_assets.testing.tables import Written, make_table
from dataflow_assets.windows import Cadence, Window

_EXISTING = "existing"


@dataclass(frozen=True)
class Ran:
    """What a run left: the rows of the tested step (of its whole target, for an endpoint), its ledger, its checks, its error."""

    rows: pa.Table
    ledger: tuple[LedgerEntry, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    error: Exception | None = None
    key: str = ""
    """The window that failed."""

    @property
    def failed_checks(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass, warnings included."""
        return tuple(result for result in self.checks if not result.passed)


class Bench:
    """One target with the runs that publish into it. Rows can be changed between the runs."""

    def __init__(self, bound: BoundTest, folder: Path) -> None:
        self.bound = bound
        self._folder = folder
        (folder / "given").mkdir()
        model = bound.test.model
        self.given = {name: self._made(table, name) for name, table in model.given.items()}
        self._files = {name: folder / "given" / f"{number}.parquet" for number, name in enumerate(self.given)}
        stages = bound.project.model.stages.model_copy(update={"dir": str(folder / "stages")})
        self._project: Project = replace(bound.project, model=bound.project.model.model_copy(update={"stages": stages}))

    def _made(self, table_model: TableModel, step: str) -> pa.Table:
        plan = self.bound.pipeline.by_id[step]
        written = Written(self.bound.test, table_model, ("given", step), self.bound.csv_options(plan))
        known, moments = self.bound.known_types(plan), _moments(self.bound, plan)
        table = make_table(written, scratch=self._folder, known=known, moments=moments)
        if not table.column_names:
            raise written.bad("there are no rows that would tell the columns", hint="say them with their types: columns: {id: int64, ...}")
        return table

    def run(
        self,
        given: Mapping[str, pa.Table] | None = None,
        *,
        windows: Sequence[Window | None] | None = None,
        cadence: Cadence | None = None,
        look: bool = True,
    ) -> Ran:
        """Run the windows once more, over other rows or cut in another way when asked; what was published before stays.

        Without `look` the rows and the ledger that come of it are not read.
        """
        for name, table in {**self.given, **(given or {})}.items():
            pq.write_table(table, self._files[name])
        windows = self.bound.windows if windows is None else windows
        request = self._request(self._plan(cadence, windows), windows)
        if self.bound.test.model.existing is not None and not (self._folder / "target.duckdb").exists():
            self._hold(request)
        events = list(run(request))
        failure = next((event for event in events if isinstance(event, WindowFailed)), None)
        checks = tuple(event.result for event in events if isinstance(event, CheckEvaluated))
        rows, ledger = self._outcome(request) if look else (pa.table({}), ())
        return Ran(rows, ledger, checks, failure.error if failure else None, failure.key if failure else "")

    def _plan(self, cadence: Cadence | None, windows: Sequence[Window | None]) -> PipelinePlan:
        plan = substituted(self.bound.pipeline, self.bound.step.id, given=self._files, folder=self._folder)
        if plan.windows is None:
            return plan
        steps = tuple(self._cut(step, several=len(windows) > 1) for step in plan.steps)
        if cadence is not None:
            steps = tuple(replace(step, checks=tuple(filter(_sets_rows_aside, step.checks))) for step in steps)
        return replace(plan, steps=steps, windows=replace(plan.windows, cadence=cadence or plan.windows.cadence))

    def _cut(self, step: StepPlan, *, several: bool) -> StepPlan:
        """Given rows whose own query or step cuts them to the window are cut by the pipeline's event_time_column.

        A transform that gives rows of another window is let do so, to be refused as in earnest, unless there are several windows.
        """
        column, table = self.bound.pipeline.event_time_column, self.given.get(step.id)
        if table is None or step.window_column is not None or "event_time_column" in self.bound.pipeline.by_id[step.id].config:
            return step
        by_itself = self.bound.pipeline.by_id[step.id].role == "source"
        return replace(step, window_column=column) if column in table.column_names and (by_itself or several) else step

    def _request(self, plan: PipelinePlan, windows: Iterable[Window | None]) -> RunRequest:
        once = RetryOptions(max_retries=0)
        return RunRequest(self._project, plan, tuple(windows), uuid.uuid4().hex, self.bound.now, retries=once)

    def _hold(self, request: RunRequest) -> None:
        """Let the target hold the existing rows, in the types that the step will publish."""
        existing = self.bound.test.model.existing
        if existing is None:
            return
        known = self._published_types(request)
        table = make_table(Written(self.bound.test, existing, (_EXISTING,)), scratch=self._folder, known=known)
        if not existing.columns:
            for name, kind in known.items():
                if name not in table.column_names:
                    table = table.append_column(name, pa.nulls(table.num_rows, kind))
        if not table.column_names:
            return
        with _session(request) as session:
            step = session.pipeline.by_id[self.bound.step.id]
            target = replace(session.target(step, request.windows[0]), mode=WriteMode.APPEND)
            self._publish(session, step, target, table)

    def _publish(self, session: Session, step: StepPlan, target: Target, table: pa.Table) -> None:
        connector = session.connector(step)
        claim = connector.claim(target, Unit(session.pipeline.name, step.id, _EXISTING), attempt=_EXISTING)
        checksum = str(checksum_of(table.to_batches()))
        connector.publish(PublishRequest(target, claim, table.schema, table.num_rows, checksum, table.to_reader))

    def _published_types(self, request: RunRequest) -> dict[str, pa.DataType]:
        """The types of the endpoint's rows, found by making them once; none when that fails."""
        plan = request.pipeline
        (producer,) = plan.by_id[self.bound.step.id].inputs[:1]
        rehearsal = replace(request, steps=frozenset({producer}), windows=request.windows[:1], attempt=uuid.uuid4().hex)
        schemas = [event.schema for event in _quietly(run(rehearsal)) if isinstance(event, StepFinished) and event.step == producer]
        return {item.name: item.type for item in schemas[-1]} if schemas else {}

    def _outcome(self, request: RunRequest) -> tuple[pa.Table, tuple[LedgerEntry, ...]]:
        name = self.bound.step.id if self.bound.step.role == "endpoint" else RESULT
        with _session(request) as session:
            step = session.pipeline.by_id[name]
            target = session.target(step, request.windows[0])
            connector = session.connector(step)
            entries = connector.ledger(target, pipeline=session.pipeline.name, step=name)
            ledger = tuple(entry for entry in entries if entry.unit.key != _EXISTING)
            if not entries and (name == RESULT or self.bound.test.model.existing is None):
                return pa.table({}), ()
            if name == RESULT:
                return pq.read_table(result_file(self._folder)), ledger
            with connector.read_target(target, None) as reader:
                return reader.read_all(), ledger


@contextlib.contextmanager
def open_bench(bound: BoundTest) -> Iterator[Bench]:
    """A bench in a folder that is removed afterwards. Raises BadTable and its like for given rows that cannot be made."""
    with TemporaryDirectory(prefix="dataflow-test-", ignore_cleanup_errors=True) as folder:
        yield Bench(bound, Path(folder))


@contextlib.contextmanager
def _session(request: RunRequest) -> Iterator[Session]:
    session = Session(request)
    try:
        yield session
    finally:
        session.close()


def _sets_rows_aside(check: CheckPlan) -> bool:
    """Whether the rows depend on it. Others judge a window, and what they ask of a day need not be so in its hours."""
    return "quarantine" in str(check.options)


def _moments(bound: BoundTest, step: StepPlan) -> frozenset[str]:
    """The columns that place a row in time, whose text is read as dates and times."""
    return frozenset(name for name in (step.window_column, bound.pipeline.event_time_column) if name)


def _quietly(events: Iterator[Event]) -> list[Event]:
    """All events; what the run prints and raises comes again in the run that counts."""
    return list(events)
