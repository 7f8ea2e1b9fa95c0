"""What will happen, as data: the resolved project that execution and the Dagster edge work from.

Here: frozen results of planning. Not here: how they are worked out (`plan.build`, `plan.windows`), any I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from dataflow_assets.calendars import Calendar
from dataflow_assets.errors import Place
from dataflow_assets.protocols import CheckPromise, Reference
from dataflow_assets.spec.late_data import LateDataOptions
from dataflow_assets.spec.models import FreshnessOptions, QuarantineOptions
from dataflow_assets.spec.retries import RetryOptions
from dataflow_assets.spec.sensors import SensorOptions
from dataflow_assets.tables import SchemaPolicy, TableName, WriteMode
from dataflow_assets.windows import Cadence, Window

AssetPath = tuple[str, ...]
Role = Literal["source", "transform", "check", "endpoint"]


@dataclass(frozen=True)
class CheckPlan:
    """One check plugin at a step: the rules of its `checks:` key (kind `validator`), a metric check, or a step of type check."""

    kind: str
    options: Mapping[str, Any]
    """Raw, templates not yet rendered."""
    code: str = field(default="", kw_only=True)
    """A text that changes with the file that says what is checked; empty where the options say it all."""
    promises: tuple[CheckPromise, ...]
    """The Dagster asset checks it makes."""
    references: tuple[Reference, ...] = ()
    """The other datasets it looks at, each at its path within the step."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of those checks."""
        return tuple(promise.name for promise in self.promises)

    @property
    def quarantines(self) -> bool:
        """Whether it sets rows aside: as it promises, or, of a plugin whose results are not known before it runs, as its options say."""
        return self.options.get("on_failure") == "quarantine" or any(promise.quarantine for promise in self.promises)


@dataclass(frozen=True)
class PromisedColumn:
    """One column of a contract, as it is shown beside the asset."""

    name: str
    type: str
    nullable: bool = True
    unique: bool = False
    description: str = ""
    rules: tuple[str, ...] = ()
    """The names of the asset checks about it, and what they ask."""


@dataclass(frozen=True)
class ContractPlan:
    """The contract that a step's output must keep."""

    name: str
    version: int
    mode: str
    place: Place
    owner: str | None = None
    description: str = ""
    columns: tuple[PromisedColumn, ...] = ()


@dataclass(frozen=True)
class StepPlan:
    """One step, resolved. `config` is raw: templates are rendered when the step runs."""

    id: str
    role: Role
    kind: str
    inputs: tuple[str, ...]
    config: Mapping[str, Any]
    asset_key: AssetPath
    place: Place
    connection: str | None = None
    checks: tuple[CheckPlan, ...] = ()
    mode: WriteMode | None = None
    keys: tuple[str, ...] = ()
    window_column: str | None = None
    schema_policy: SchemaPolicy | None = None
    """The endpoint's own, the pipeline's or the project's; None when nobody says one."""
    quarantine: QuarantineOptions = field(default_factory=QuarantineOptions)
    """The budget for rows that its rules set aside; for an endpoint also where they are kept."""
    table: str | None = None
    """`connection.schema.table` (or path) that a source reads or an endpoint writes, None when unknown before rendering."""
    reads: tuple[AssetPath, ...] = ()
    """Asset keys outside the pipeline that this step reads: other pipelines' endpoints, or external source tables."""
    looks_at: tuple[str, ...] = ()
    """Steps of the same pipeline, made of other rows, that its checks look at and that must be staged before."""
    description: str = ""
    tags: tuple[str, ...] = ()
    contract: ContractPlan | None = None
    fingerprint: str = ""
    """Changes whenever the step, its connection's kind or anything upstream in the pipeline is written differently."""

    @property
    def quarantines(self) -> bool:
        """Whether a rule of this step sets rows aside."""
        return any(check.quarantines for check in self.checks)


@dataclass(frozen=True)
class WindowPlan:
    """The cadence of a pipeline with its bounds resolved; `end` None means until now."""

    cadence: Cadence
    begin: datetime
    end: datetime | None
    lookback: int
    lag_seconds: float
    reach_seconds: float | None = None
    """Windows older than now less this much are not asked for."""
    reach_start: datetime | None = None
    """Windows that start before this edge are not asked for."""
    latest_only: bool = False
    """Only the newest window is asked for (`catch_up: latest`)."""
    newest_first: bool = False
    """A backlog is drained from its newest window."""
    reads_back_seconds: float = 0.0
    """So long before its start a window reads what pipelines before this one publish."""

    def reads(self, window: Window) -> Window:
        """The time of which a window reads what is published upstream."""
        return Window(window.start - timedelta(seconds=self.reads_back_seconds), window.end) if self.reads_back_seconds else window


@dataclass(frozen=True)
class Followed:
    """A pipeline that comes before, and those of its endpoints that matter: the ones that are read, or all where none is."""

    pipeline: PipelinePlan
    endpoints: tuple[StepPlan, ...]


@dataclass(frozen=True)
class SchedulePlan:
    """When a pipeline runs by itself, and what a tick asks for. `text` is the schedule as written."""

    text: str
    crons: tuple[str, ...]
    timezone: str = "UTC"
    slot_minutes: int = 0
    """Above 0: cron cannot say the period; the first tick in each slot of so many minutes acts (`plan.periods`)."""
    after_windows: bool = False
    catch_up: Literal["all", "latest"] = "all"
    paused_until: datetime | None = None
    blackout: tuple[Calendar, ...] = ()
    running: bool = False
    """Whether it ticks before anybody starts it."""
    max_windows: int | None = None
    order: Literal["oldest", "newest"] = "oldest"


@dataclass(frozen=True)
class PoolPlan:
    """A pool of Dagster that runs draw from. `limit` None: nobody says one in the project."""

    name: str
    limit: int | None = None
    connections: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArchivePlan:
    """Where rows go before they are removed: files in `to`, or a table; `connection` is the system of either."""

    to: str | None = None
    connection: str | None = None
    table: str | None = None

    def table_of(self, pipeline: str, step: str) -> TableName:
        """The table of an endpoint, or of its quarantine. A dot in their names, which `pipeline` and `step` are, begins no schema."""
        schema, _, name = (self.table or "").rpartition(".")
        names = {"{pipeline}": pipeline.replace(".", "_"), "{step}": step.replace(".", "__")}
        return TableName(_filled(name, names), _filled(schema, names) or None)

    def folder_of(self, pipeline: str, step: str) -> str:
        """The same in files."""
        return f"{(self.to or '').rstrip('/')}/{pipeline}/{step}/"


def _filled(text: str, names: Mapping[str, str]) -> str:
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return text


@dataclass(frozen=True)
class RetentionPlan:
    """How long a pipeline's things are kept, in seconds; None for ever. `archive` None: removed without a copy."""

    stages: float = 604800.0
    quarantine: float | None = None
    target: float | None = None
    ledger: float | None = None
    history: float | None = None
    restored: float = 2592000.0
    """How long a window that was brought back is left alone."""
    archive: ArchivePlan | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    """Endpoint -> why it cannot let windows go; then the target's windows of the pipeline stay."""
    doubts: tuple[str, ...] = ()
    """What hides whether other pipelines have rows in its tables: until it is mended none of its windows is taken out."""


@dataclass(frozen=True)
class AlertPlan:
    """Who is told what of a pipeline. Times in seconds; `overdue_after` None: windows that are not published in time are not told."""

    channels: tuple[str, ...] = ()
    mail_to: tuple[str, ...] = ()
    """Addresses beside the channels: owners, and `notify_email`."""
    events: frozenset[str] = frozenset()
    duration_multiplier: float = 2.0
    duration_at_least: float = 60.0
    overdue_after: float | None = None
    repeat_after: float = 86400.0


@dataclass(frozen=True)
class AutomationPlan:
    """What makes a pipeline run besides a clock: `on_new_inputs`, `on_missing`."""

    when: tuple[str, ...]
    running: bool = False
    check_every: str = "30s"


@dataclass(frozen=True)
class SensorPlan:
    """One sensor of a pipeline, resolved. `name` is unique in the project."""

    name: str
    options: SensorOptions
    place: Place
    step: str | None = None
    """The source step that it is about."""
    cursor: str | None = None
    """The column that tells new rows."""
    upstream: tuple[str, ...] = ()
    """The pipelines that it waits for."""
    assets: tuple[AssetPath, ...] = ()
    """The assets outside the project that it waits for."""
    exact: bool = False
    """Whether a run takes exactly the files that were found, and not all that its source has."""


@dataclass(frozen=True)
class PipelinePlan:
    """One pipeline, resolved; `steps` are in the order they run, endpoints as late as their dependents allow."""

    name: str
    steps: tuple[StepPlan, ...]
    place: Place
    windows: WindowPlan | None = None
    event_time_column: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    connections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Raw connection blocks by name, project's and pipeline's merged."""
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    group: str = "default"
    description: str = ""
    schedule: SchedulePlan | None = None
    automation: AutomationPlan | None = None
    sensors: tuple[SensorPlan, ...] = ()
    freshness: FreshnessOptions | None = None
    retries: RetryOptions = field(default_factory=RetryOptions)
    expected_seconds: Mapping[str, float] = field(default_factory=dict)
    """How long phases of a window should take, where the pipeline says so."""
    upstream: tuple[str, ...] = ()
    """Pipelines that come first: `depends_on`, those found in the SQL, and those that checks look at."""
    looks_at: Mapping[str, PipelinePlan] = field(default_factory=dict)
    """Pipelines whose published rows its checks look at, by name."""
    late_data: LateDataOptions | None = None
    """With `sources` filled in: the steps that are looked at."""
    follows: tuple[Followed, ...] = ()
    """The pipelines before it whose windows may be reopened for late data, so that its own follow."""
    pools: tuple[PoolPlan, ...] = ()
    """The pools of its connections, first the one that its runs draw from."""
    alerts: AlertPlan = field(default_factory=AlertPlan)
    retention: RetentionPlan = field(default_factory=RetentionPlan)
    loses: tuple[PipelinePlan, ...] = ()
    """The pipelines before it that have windows, which retention may have taken out of what this one reads."""

    @cached_property
    def by_id(self) -> dict[str, StepPlan]:
        """Steps by id."""
        return {step.id: step for step in self.steps}

    @property
    def endpoints(self) -> tuple[StepPlan, ...]:
        """The endpoint steps."""
        return tuple(step for step in self.steps if step.role == "endpoint")


@dataclass(frozen=True)
class ProjectPlan:
    """All pipelines in an order in which upstream ones come first. `external` are the source tables no pipeline publishes."""

    name: str
    pipelines: tuple[PipelinePlan, ...]
    external: tuple[AssetPath, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, PipelinePlan]:
        """Pipelines by name."""
        return {pipeline.name: pipeline for pipeline in self.pipelines}


WindowState = Literal["missing", "published", "stale", "failed", "reopened", "gap", "skipped", "retired"]
"""`gap`: out of reach and never published. `skipped`: left alone on purpose. `retired`: retention took it away, or would as soon as it was
loaded."""


@dataclass(frozen=True)
class WindowTodo:
    """One window and why it is (or is not) to run. `window` is None for a pipeline without windows."""

    window: Window | None
    key: str
    state: WindowState
    run: bool
    reason: str = ""
    hole: bool = False
    """Missing between published windows."""
    held: bool = False
    """Whether a target holds rows that were published as this window."""
