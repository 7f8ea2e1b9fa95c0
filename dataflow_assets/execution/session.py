"""What the windows of one run share: open connectors, ledgers read once, and the values that templates see.

Here: caches that live as long as a run. Not here: anything of a single window (`execution.window`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel

from dataflow_assets import discovery
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.connections import mark_of, open_connector, validated
from dataflow_assets.execution.shared_state import Shared, shared
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.plan.shared_sources import tied_to
from dataflow_assets.protocols import Connector
from dataflow_assets.spec.base import sql_fields
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.retries import RetryOptions
from dataflow_assets.spec.templates import RenderedConfig, TemplateContext, rendered_config
from dataflow_assets.tables import LedgerEntry, Query, SourceFile, Target, WriteMode
from dataflow_assets.windows import Window

T = TypeVar("T")


@dataclass(frozen=True)
class RunRequest:
    """What to run: windows of one pipeline. `steps` None means all; `attempt` is unique to this try, `batch` to the run and its retries."""

    project: Project
    pipeline: PipelinePlan
    windows: tuple[Window | None, ...]
    attempt: str
    now: datetime
    steps: frozenset[str] | None = None
    checks_only: bool = False
    full_refresh: bool = False
    batch: str = ""
    run_id: str = ""
    """The Dagster run that it is part of."""
    correlation: str = ""
    """What a scheduler outside, or the first of the runs that belong together, calls this in logs; default: `batch`."""
    replay: bool = False
    """Whether it is for the sake of quarantined rows: then a source that holds fewer rows than it did is refused."""
    retries: RetryOptions | None = None
    """How windows are tried again; default: as the pipeline says."""
    files: Mapping[str, tuple[SourceFile, ...]] = field(default_factory=dict)
    """Source step -> the files that it takes in place of all that it has."""


@dataclass(frozen=True)
class Rendered:
    """A step's options with every template rendered: the validated model, and its SQL with values kept apart."""

    options: Any
    queries: Mapping[str, Query]
    raw: RenderedConfig


class LedgerState(Mapping[str, str]):
    """`state` of the newest batch that each of these `endpoints` has, as far as they are loaded; read when a template first asks."""

    def __init__(self, session: Session, endpoints: tuple[StepPlan, ...]) -> None:
        self._session, self.endpoints = session, endpoints

    @property
    def ahead(self) -> Mapping[str, tuple[LedgerEntry, ...]]:
        """Endpoint -> what it has published beyond that batch; nothing as long as nobody has asked for the state."""
        return self._shared.ahead if "_shared" in self.__dict__ else {}

    @cached_property
    def _shared(self) -> Shared:
        request = self._session.request
        if request.full_refresh:
            return Shared()
        chosen = [step for step in self.endpoints if request.steps is None or step.id in request.steps]
        return shared({step.id: self._session.ledger(step, window=None) for step in chosen or self.endpoints})

    @property
    def _values(self) -> Mapping[str, str]:
        return self._shared.state

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Session:
    """The shared part of a run; `close` it at the end."""

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.project, self.pipeline = request.project, request.pipeline
        self._connectors: dict[tuple[str | None, str], Connector] = {}
        self._ledgers: dict[tuple[str, str], list[LedgerEntry]] = {}
        self._marks: dict[str | None, str] = {}
        self._shared: dict[str, Any] = {}
        self._states: dict[tuple[str, ...], LedgerState] = {}

    def close(self) -> None:
        """Close every connector, and what else was opened for the run."""
        for opened in [*self._connectors.values(), *self._shared.values()]:
            if hasattr(opened, "close"):
                opened.close()
        self._connectors.clear()
        self._shared.clear()

    def renew(self) -> None:
        """Forget what was opened and read before a failure: a connection may be broken, and a publish may have been recorded."""
        with suppress(Exception):
            self.close()
        self._connectors.clear()
        self._shared.clear()
        self._ledgers.clear()
        self._states.clear()

    def state_of(self, step: StepPlan | None) -> LedgerState:
        """What a step's templates see as state: of the endpoints that share a source with it; of all where there is none, or no step."""
        tied = tied_to(self.pipeline, step) if step else frozenset()
        endpoints = tuple(item for item in self.pipeline.endpoints if item.id in tied) or self.pipeline.endpoints
        return self._states.setdefault(tuple(item.id for item in endpoints), LedgerState(self, endpoints))

    def context(self, window: Window | None, *, steps: Mapping[str, Any] | None = None, step: StepPlan | None = None) -> TemplateContext:
        """The values that the templates of a step see in one window; `render` sees to the step by itself."""
        plan, cadence = self.pipeline, self.pipeline.windows.cadence if self.pipeline.windows else None
        return TemplateContext(
            project_variables=self.project.model.vars,
            pipeline_variables=plan.variables,
            overrides=self.project.overrides,
            environment=self.project.environment,
            now=self.request.now,
            timezone=cadence.timezone if cadence else self.project.model.timezone,
            window=window,
            window_key=cadence.key(window) if cadence and window else None,
            batch_period=cadence.every if cadence else None,
            event_time_column=plan.event_time_column,
            state=self.state_of(step),
            steps=steps or {},
        )

    def connector(self, step: StepPlan) -> Connector:
        """The connector of a source or endpoint step, opened once for the run."""
        return self._opened(step.connection, step.kind)

    def connection_mark(self, step: StepPlan) -> str:
        """A text that differs when the connection of a step leads elsewhere, without its secrets."""
        if step.connection not in self._marks:
            block = self.pipeline.connections[step.connection or ""]
            self._marks[step.connection] = mark_of(block, kind=step.kind, name=step.connection, context=self.context(None))
        return self._marks[step.connection]

    def connector_to(self, connection: str) -> Connector:
        """The connector of a connection that no step need use."""
        return self._opened(connection, str(self.pipeline.connections[connection].get("type", "")))

    def _opened(self, connection: str | None, kind: str) -> Connector:
        name = (connection, kind)
        if name not in self._connectors:
            self._connectors[name] = open_connector(self.project, self.pipeline, connection, kind=kind, context=self.context(None))
        return self._connectors[name]

    def render(
        self, step: StepPlan, model: type[BaseModel], context: TemplateContext, *, config: Mapping[str, Any] | None = None
    ) -> Rendered:
        """The step's options for one window. Raises TemplateError or DataflowError."""
        context, given = replace(context, state=self.state_of(step)), step.config if config is None else config
        raw = rendered_config(given, context, sql_fields=sql_fields(model), quote_identifier=_quote)
        where = f"{step.place} step {self.pipeline.name}.{step.id}"
        return Rendered(validated(model, raw.options, where=where), raw.queries, raw)

    def target(self, step: StepPlan, window: Window | None, *, context: TemplateContext | None = None) -> Target:
        """Where an endpoint step writes in this window."""
        connector = self.connector(step)
        options = self.render(step, connector.Endpoint, context or self.context(window)).options
        mode = step.mode or WriteMode.APPEND
        if self.request.full_refresh and mode is WriteMode.APPEND:
            mode = self._refreshed_mode(step)
        timezone = self.pipeline.windows.cadence.timezone if self.pipeline.windows else self.project.model.timezone
        table = connector.target_table(options)
        return Target(table, mode, options, step.keys, step.window_column, timezone, step.schema_policy)

    def _refreshed_mode(self, step: StepPlan) -> WriteMode:
        if self.pipeline.windows is None:
            return WriteMode.REPLACE
        raise DataflowError(
            f"{self.pipeline.name}.{step.id} appends windows, and appended windows cannot be rewritten by --full-refresh",
            hint="give the endpoint an event_time_column (mode replace_window), or empty the table and its rows in _dataflow_ledger",
        )

    def ledger(self, step: StepPlan, *, window: Window | None) -> list[LedgerEntry]:
        """What the ledger of an endpoint holds, oldest first; read once per target and kept up to date by `remember`."""
        target = self.target(step, window)
        name = (step.id, str(target.table))
        if name not in self._ledgers:
            self._ledgers[name] = self.connector(step).ledger(target, pipeline=self.pipeline.name, step=step.id)
        return self._ledgers[name]

    def remember(self, step: StepPlan, target: Target, entry: LedgerEntry) -> None:
        """Note a publish of this run in the cached ledger."""
        entries = self._ledgers.get((step.id, str(target.table)))
        if entries is not None:
            entries[:] = [known for known in entries if known.unit.key != entry.unit.key] + [entry]

    def shared(self, name: str, find: Callable[[], T]) -> T:
        """What `find` answers, asked once in a run."""
        if name not in self._shared:
            self._shared[name] = find()
        return self._shared[name]  # type: ignore[no-any-return]

    def plugin(self, family: discovery.Family, kind: str) -> Any:
        """The class that implements a kind."""
        return discovery.find(family, kind)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
