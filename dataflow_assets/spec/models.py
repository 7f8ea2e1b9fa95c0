"""What the user may write: one pydantic model each for the project file, a pipeline document, and their parts.

Here: shapes, aliases of older key names, and refusals that one document can decide by itself. Everything else comes from these
models: the validation, the JSON Schema, the docs. Not here: reading files (`spec.load`), templates (`spec.templates`), what a
plugin wants in `config` (its own model, checked in `plan`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from dataflow_assets.spec.alerts import AlertsOptions, PipelineAlerts
from dataflow_assets.spec.automation import Automation
from dataflow_assets.spec.base import NAME, Duration, Model, Names, Share, SqlText
from dataflow_assets.spec.celery import CeleryOptions
from dataflow_assets.spec.drive import DriveOptions, PhaseName, PhaseOptions
from dataflow_assets.spec.late_data import LateData
from dataflow_assets.spec.query_windows import WindowOptions
from dataflow_assets.spec.retention import ProjectRetention, Retention, RetentionOfProject
from dataflow_assets.spec.retries import RetryChoice
from dataflow_assets.spec.schedules import Calendar, Schedule, known_timezone
from dataflow_assets.spec.sensors import SensorOptions
from dataflow_assets.spec.stale_runs import StaleRunOptions
from dataflow_assets.tables import SchemaPolicy, WriteMode


class QuarantineOptions(Model):
    """How many rows a step's rules may set aside before the window fails; at an endpoint also where such rows are kept."""

    max_rows: int | None = Field(None, ge=0, description="most rows that the step's rules may set aside in one window; default: no limit")
    max_share: Share = Field(0.1, description="largest share of the step's rows that they may set aside in one window, such as 1%")
    table: str | None = Field(
        None, min_length=1, description="at an endpoint: the table, or file, for rows set aside; default: its own name and __quarantine"
    )


StepType = Literal["source", "processor", "endpoint", "transform", "check"]


class StepModel(Model):
    """One step. `type` names its role, `source_type` / `processor_type` / `endpoint_type` (or `kind`) its plugin."""

    id: str = Field(description="its name: letters, digits, _ and -")
    type: StepType = Field(description="its role; transform and check are processors, said more exactly")
    source_type: str | None = Field(None, description="the connector of a source; may be left out when the connection says it")
    processor_type: str | None = Field(None, description="the transform or check")
    endpoint_type: str | None = Field(None, description="the connector of an endpoint; may be left out when the connection says it")
    plugin: str | None = Field(
        None, validation_alias=AliasChoices("kind", "plugin"), description="the plugin, in place of source_type and its siblings"
    )
    connection: str | None = Field(
        None, validation_alias=AliasChoices("connection", "name"), description="a connection of the project; name in older files"
    )
    depends_on: Names = Field(default_factory=list, description="the steps whose rows it takes; needed by every step but a source")
    config: dict[str, Any] = Field(default_factory=dict, description="the plugin's own options")
    checks: list[dict[str, Any]] = Field(default_factory=list, description="rules on this step's output, as under a validator's checks")
    quarantine: QuarantineOptions | None = Field(
        None, description="the budget of its rules with on_failure: quarantine; at an endpoint also where such rows are kept"
    )
    description: str = Field("", description="shown in the UI")
    asset_key: Names | None = Field(None, description="replaces pipeline/step as the Dagster asset key")
    tags: Names = Field(default_factory=list, description="for selectors and the UI")
    pandera: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("schema", "pandera"),
        description="a pandera model that its output must fit: module:Model or file.py:Model, or the options of the check pandera",
    )

    @field_validator("id")
    @classmethod
    def _id_is_a_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(f"{value!r} is not a step id: use letters, digits, _ and -, not starting with a digit")
        return value

    @property
    def role(self) -> Literal["source", "processor", "endpoint"]:
        """The role in the words of the YAML, with `transform` and `check` being processors."""
        return "processor" if self.type in {"transform", "check"} else self.type  # type: ignore[return-value]

    @property
    def kind(self) -> str | None:
        """The plugin's name as written, None when only a connection is given."""
        return self.plugin or getattr(self, f"{self.role}_type")


class FreshnessOptions(Model):
    """When a dataset counts as stale."""

    fail_after: str = Field(description="failed when nothing was published for so long; at least 60s")
    warn_after: str | None = Field(None, description="a warning when nothing was published for so long")


class PipelineModel(Model):
    """One pipeline document."""

    pipeline_name: str = Field(
        "", validation_alias=AliasChoices("pipeline_name", "name", "pipeline"), description="default: the file's stem"
    )
    description: str = Field("", description="for readers; shown in the UI")
    enabled: bool | str = Field(True, description="false, or a template that gives false, leaves the pipeline out of the project")
    tags: Names = Field(default_factory=list, description="for selectors and the UI; word or key:value")
    depends_on: Names = Field(default_factory=list, description="pipelines that run first; edges found in the SQL need no mention")
    variables: dict[str, Any] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("variables", "vars"),
        description="variables of this pipeline; they win over the project's",
    )
    connections: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="further connections, for this pipeline only; they win over the project's"
    )
    windows: WindowOptions | None = Field(None, description="how it is cut into windows; without it the pipeline runs whole")
    event_time_column: str | None = Field(None, description="source filter and target partition column, said once")
    schedule: Schedule = Field(
        None, description="when it runs by itself: cron, a list of cron, @daily, every 10 min, windows, or a mapping"
    )
    automation: Automation = Field(None, description="runs it because of its inputs: on_new_inputs, on_missing, or a mapping")
    sensors: list[SensorOptions] = Field(
        default_factory=list, description="what else asks for runs: new files, new rows, upstream pipelines, a dataset that is too old"
    )
    owners: Names = Field(default_factory=list, description="e-mail addresses or team:name")
    group: str | None = Field(None, description="the asset group in the UI; default: the pipeline's name")
    freshness: FreshnessOptions | None = Field(None, description="when its endpoints count as stale")
    late_data: LateData = Field(
        None, description="look again at the sources of published windows, and reopen those that have changed; true for the defaults"
    )
    retention: Retention = Field(
        None,
        description="how long stages, quarantined rows, windows of the target and history are kept; an age alone: stages and quarantine",
    )
    retries: RetryChoice | None = Field(
        None, description="how a window is tried again after a transient failure; a number is max_retries; default: the project's"
    )
    alerts: PipelineAlerts = Field(
        None, description="who is told of what goes wrong: names of channels, or a block; false: nobody; default: as the project says"
    )
    schema_policy: SchemaPolicy | None = Field(
        None, description="what its endpoints do with columns that their target has not: evolve, freeze or discard; default: the project's"
    )
    phases: dict[PhaseName, PhaseOptions] = Field(
        default_factory=dict, description="phase -> how long it should take, shown beside how long it took; default: as usual"
    )
    steps: list[StepModel] = Field(default_factory=list, description="what it reads, computes, checks and writes")

    @model_validator(mode="before")
    @classmethod
    def _microbatch_becomes_windows(cls, data: Any) -> Any:
        """DFT writes windows as `variables.microbatch`: event_time_column, batch_size, lookback (default 1), begin, end."""
        variables = data.get("variables") if isinstance(data, dict) else None
        if not isinstance(variables, dict) or not isinstance(block := variables.get("microbatch"), dict):
            return data
        if data.get("windows") is not None:
            raise ValueError("a pipeline has either `windows` or `variables.microbatch`, not both")
        rest = {key: value for key, value in block.items() if key != "event_time_column"}
        merged = {**data, "variables": {key: value for key, value in variables.items() if key != "microbatch"}}
        merged["windows"] = {"lookback": 1, **rest}
        if column := block.get("event_time_column"):
            merged.setdefault("event_time_column", column)
            merged["variables"].setdefault("event_time_column", column)
        return merged


class StateOptions(Model):
    """DFT's `state` section."""

    ignore_in_git: bool = Field(True, description="what dataflow update-gitignore does with .dataflow/: true adds it, false removes it")


class LoggingOptions(Model):
    """DFT's `logging` section."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level written to the log file")
    dir: str = Field(".dataflow/logs", description="where log files lie, relative to the project")
    format: Literal["text", "json"] = Field(
        "text", description="json: each line of the log file, and of what Dagster's processes log of runs, is a JSON document"
    )


class StageOptions(Model):
    """Where stages live and how long those of failed windows are kept."""

    dir: str = Field(".dataflow/stages", description="where stages lie, relative to the project")
    keep_failed: Duration = Field("7d", description="how long the stages of a failed window are kept")
    max_age: Duration | None = Field(
        None, description="how old a stage may be to be resumed from, e.g. 12h; default: as long as it is kept"
    )
    publish_early: Literal["auto", "never", "always"] = Field(
        "auto",
        description="whether rows go into the target's open transaction while others are still being read: auto does so with large "
        "windows of fast sources; it is committed when every check has passed",
    )


class ProjectModel(Model):
    """The project file."""

    project_name: str = Field("unknown", validation_alias=AliasChoices("project_name", "name"), description="shown in the UI and in output")
    description: str = Field("", description="for readers")
    version: Any = Field(None, description="accepted, without effect")
    pipelines_dir: str = Field(
        "pipelines", description="where pipeline files lie, relative to the project file; read recursively, .yml and .yaml"
    )
    tests_dir: str = Field("tests", description="where unit tests for data lie, relative to the project file; read recursively")
    contracts_dir: str = Field(
        "contracts", description="where contracts lie, relative to the project file; read recursively, .yml and .yaml; may be missing"
    )
    vars: dict[str, Any] = Field(
        default_factory=dict, validation_alias=AliasChoices("vars", "variables"), description="variables of all pipelines"
    )
    connections: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="name -> type and the keys of that connector; sources is an older name"
    )
    timezone: str = Field("UTC", description="whose clock schedules of pipelines without windows and date functions follow")
    calendars: dict[str, Calendar] = Field(default_factory=dict, description="times in which nothing is to run, named under blackout")
    stages: StageOptions = Field(
        default_factory=StageOptions, description="where stages live and how long those of failed windows are kept"
    )
    state: StateOptions = Field(default_factory=StateOptions, description="what becomes of the folder .dataflow in git")
    logging: LoggingOptions = Field(default_factory=LoggingOptions, description="where the log files lie and what is written to them")
    alerts: AlertsOptions = Field(default_factory=AlertsOptions, description="who is told of what goes wrong: e-mail, Slack, webhooks")
    schema_policy: SchemaPolicy | None = Field(
        None, description="what endpoints do with columns that their target has not: evolve, freeze or discard; default: freeze"
    )
    retries: RetryChoice | None = Field(
        None, description="how windows are tried again after a transient failure, where a pipeline does not say otherwise"
    )
    stale_runs: StaleRunOptions = Field(default_factory=StaleRunOptions, description="when a worker counts as dead, and what follows")
    retention: RetentionOfProject = Field(
        default_factory=ProjectRetention,
        description="how long things are kept, where a pipeline does not say otherwise",
    )
    drive: DriveOptions = Field(default_factory=DriveOptions, description="the table that holds a row for every attempt at a window")
    executor: Literal["in_process", "multiprocess", "celery"] = Field(
        "in_process", description="how Dagster runs a job: in the run's own process, each op in a process of its own, or on Celery workers"
    )
    celery: CeleryOptions = Field(default_factory=CeleryOptions, description="how Celery workers take work")

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        return known_timezone(value)

    @model_validator(mode="before")
    @classmethod
    def _sources_are_connections(cls, data: Any) -> Any:
        """DFT's legacy section `sources` is merged into `connections` and wins over it."""
        if isinstance(data, dict) and "sources" in data:
            data = dict(data)
            data["connections"] = {**(data.get("connections") or {}), **(data.pop("sources") or {})}
        return data


class SourceOptions(Model):
    """What every source step's `config` may say; connectors extend it."""

    event_time_column: str | None = Field(None, description="the column that places a row in a window; default: the pipeline's")
    columns: Names | None = Field(None, description="read only these columns")


class SqlSourceOptions(SourceOptions):
    """What the source of a database may say: a query, or a table."""

    query: SqlText | None = Field(None, description="a SELECT, in place of a table")
    table: str | None = Field(None, description="a table, in place of a query")

    @model_validator(mode="after")
    def _query_or_table(self) -> Self:
        if (self.query is None) == (self.table is None):
            raise ValueError("write either query or table")
        return self


def _per_cent(value: Any) -> Any:
    return value.strip().removesuffix("%").strip() if isinstance(value, str) else value


class ToleranceOptions(Model):
    """How far two counts may be apart."""

    tolerance: Annotated[float, BeforeValidator(_per_cent, json_schema_input_type=float | str)] = Field(
        0.0, ge=0, le=100, description="per cent of the rows that may be lost, such as 0.5 or 0.5%; this many still pass"
    )
    allow_gains: bool = Field(False, description="whether more rows after the step than before it pass")


class ReconcileOptions(Model):
    """How an endpoint's window is compared with what it was made from."""

    source_to_stage: ToleranceOptions = Field(
        default_factory=ToleranceOptions, description="before publishing: the source, counted again, and the stage"
    )
    stage_to_target: ToleranceOptions = Field(default_factory=ToleranceOptions, description="after publishing: the stage and the target")
    checksum: bool = Field(True, description="where the counts are equal, compare checksums of the rows as well")
    keys: Names = Field(
        default_factory=list,
        description="the columns that identify a row, to find those that differ; default: upsert_keys, or a primary key",
    )
    ignore: Names = Field(default_factory=list, description="columns that are not compared")
    severity: Literal["error", "warn"] = Field("error", description="warn reports and goes on")


def _defaults_when_true(value: Any) -> Any:
    return {} if value is True else None if value is False else value


class EndpointOptions(Model):
    """What every endpoint step's `config` may say; connectors extend it."""

    mode: WriteMode | None = Field(
        None, description="append, replace, replace_window or upsert; default: replace_window with windows, else append"
    )
    upsert_keys: Names = Field(default_factory=list, description="the columns that identify a row; needed by upsert")
    event_time_column: str | None = Field(None, description="the column whose rows a window replaces; default: the pipeline's")
    auto_create: bool = Field(True, description="create a missing table, from schema where given, else from the data")
    columns: dict[str, str] = Field(
        default_factory=dict, validation_alias=AliasChoices("schema", "columns"), description="column -> SQL type"
    )
    schema_policy: SchemaPolicy | None = Field(
        None,
        description="columns that the target has not: evolve adds them, freeze refuses, discard leaves them out; default: the pipeline's",
    )
    audit: Literal["count", "checksum"] = Field(
        "count", description="compare counts, or read the target back and compare checksums as well"
    )
    reconcile: Annotated[
        ReconcileOptions | None, BeforeValidator(_defaults_when_true, json_schema_input_type=ReconcileOptions | bool | None)
    ] = Field(None, description="compare source, stage and target of each window, counted in their systems; true for the defaults")

    @field_validator("mode", mode="before")
    @classmethod
    def _insert_is_append(cls, value: Any) -> Any:
        return WriteMode.APPEND if value == "insert" else value
