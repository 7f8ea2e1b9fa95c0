"""What the user may write: one pydantic model each for the project file, a pipeline document, and their parts.

Here: shapes, aliases of older key names, and refusals that one document can decide by itself. Everything else comes from these
models: the validation, the JSON Schema, the docs. Not here: reading files (`spec.load`), templates (`spec.templates`), what a
plugin wants in `config` (its own model, checked in `plan`).
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from dataflow_assets.tables import WriteMode
from dataflow_assets.windows import Cadence, parse_duration

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*\Z")


class SqlMarker:
    """Marks a `str` field whose `{{ }}` values are bound as parameters, never pasted."""


SqlText = Annotated[str, SqlMarker()]


def sql_fields(model: type[BaseModel]) -> frozenset[str]:
    """The names (and aliases) of a model's `SqlText` fields, also optional ones."""
    found: set[str] = set()
    for name, item in model.model_fields.items():
        if any(isinstance(mark, SqlMarker) for mark in item.metadata) or "SqlMarker" in repr(item.annotation):
            aliases = item.validation_alias
            found |= {name, *(map(str, aliases.choices) if isinstance(aliases, AliasChoices) else filter(None, [item.alias]))}
    return frozenset(found)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=list[str] | str)]


class Model(BaseModel):
    """Frozen and strict: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)


class WindowOptions(Model):
    """How a pipeline is cut into windows. DFT's `variables.microbatch` block becomes this."""

    every: str = Field(
        validation_alias=AliasChoices("every", "batch_size"), description="10min, hour, day, week, month, year or a cron expression"
    )
    timezone: str = Field("UTC", description="whose wall clock the window edges follow, e.g. America/New_York")
    begin: datetime | date | None = Field(
        None, description="the first window holds this moment; on the wall clock of `timezone` when it has no offset"
    )
    end: datetime | date | None = Field(None, description="no window starts at or after this moment; default: now")
    lookback: int = Field(0, ge=0, description="how many already published windows to run again, for rows that arrive late")
    lag: str = Field("0s", description="wait this long after a window's end before it runs, e.g. 2h")

    @field_validator("lag")
    @classmethod
    def _lag_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @field_validator("every")
    @classmethod
    def _cadence_is_known(cls, value: str) -> str:
        Cadence(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        Cadence("day", value)
        return value

    @property
    def cadence(self) -> Cadence:
        """The validated cadence."""
        return Cadence(self.every, self.timezone)


StepType = Literal["source", "processor", "endpoint", "transform", "check"]


class StepModel(Model):
    """One step. `type` names its role, `source_type` / `processor_type` / `endpoint_type` (or `kind`) its plugin."""

    id: str
    type: StepType
    source_type: str | None = None
    processor_type: str | None = None
    endpoint_type: str | None = None
    plugin: str | None = Field(
        None, validation_alias=AliasChoices("kind", "plugin"), description="the plugin, in place of source_type and its siblings"
    )
    connection: str | None = Field(
        None, validation_alias=AliasChoices("connection", "name"), description="a connection of the project; `name` in older files"
    )
    depends_on: Names = Field(default_factory=list)
    config: dict[str, Any] = Field(default_factory=dict, description="the plugin's own options")
    checks: list[dict[str, Any]] = Field(default_factory=list, description="rules on this step's output, as under a validator's `checks`")
    description: str = ""
    asset_key: Names | None = Field(None, description="replaces pipeline/step as the Dagster asset key")
    tags: Names = Field(default_factory=list)

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

    fail_after: str
    warn_after: str | None = None


class RetryOptions(Model):
    """How often a pipeline tries again after a transient failure; exponential backoff with jitter."""

    max_retries: int = Field(2, ge=0)
    delay: str = "5s"
    max_delay: str = "5min"


class PipelineModel(Model):
    """One pipeline document."""

    pipeline_name: str = Field(
        "", validation_alias=AliasChoices("pipeline_name", "name", "pipeline"), description="default: the file's stem"
    )
    description: str = ""
    enabled: bool | str = Field(True, description="false, or a template that gives false, leaves the pipeline out of the project")
    tags: Names = Field(default_factory=list)
    depends_on: Names = Field(default_factory=list, description="pipelines that run first; edges found in the SQL need no mention")
    variables: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("variables", "vars"))
    connections: dict[str, dict[str, Any]] = Field(default_factory=dict)
    windows: WindowOptions | None = None
    event_time_column: str | None = Field(None, description="source filter and target partition column, said once")
    schedule: str | None = Field(None, description="a cron expression, @hourly, @daily, @weekly, @monthly, or `windows`")
    owners: Names = Field(default_factory=list)
    group: str | None = None
    freshness: FreshnessOptions | None = None
    retries: RetryOptions = Field(default_factory=RetryOptions)
    steps: list[StepModel] = Field(default_factory=list)

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

    ignore_in_git: bool = True


class LoggingOptions(Model):
    """DFT's `logging` section."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    dir: str = ".dataflow/logs"


class StageOptions(Model):
    """Where stages live and how long those of failed windows are kept."""

    dir: str = ".dataflow/stages"
    keep_failed: str = "7d"

    @field_validator("keep_failed")
    @classmethod
    def _keep_failed_is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value


class ProjectModel(Model):
    """The project file."""

    project_name: str = Field("unknown", validation_alias=AliasChoices("project_name", "name"))
    description: str = ""
    version: Any = None
    pipelines_dir: str = "pipelines"
    vars: dict[str, Any] = Field(default_factory=dict, validation_alias=AliasChoices("vars", "variables"))
    connections: dict[str, dict[str, Any]] = Field(default_factory=dict)
    timezone: str = "UTC"
    stages: StageOptions = Field(default_factory=StageOptions)
    state: StateOptions = Field(default_factory=StateOptions)
    logging: LoggingOptions = Field(default_factory=LoggingOptions)
    executor: Literal["in_process", "multiprocess"] = "in_process"

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


class EndpointOptions(Model):
    """What every endpoint step's `config` may say; connectors extend it."""

    mode: WriteMode | None = Field(
        None, description="append, replace, replace_window or upsert; default: replace_window with windows, else append"
    )
    upsert_keys: Names = Field(default_factory=list)
    event_time_column: str | None = Field(None, description="the column whose rows a window replaces; default: the pipeline's")
    auto_create: bool = Field(True, description="create a missing table, from `schema` where given, else from the data")
    columns: dict[str, str] = Field(
        default_factory=dict, validation_alias=AliasChoices("schema", "columns"), description="column -> SQL type"
    )
    audit: Literal["count", "checksum"] = Field(
        "count", description="compare counts, or read the target back and compare checksums as well"
    )

    @field_validator("mode", mode="before")
    @classmethod
    def _insert_is_append(cls, value: Any) -> Any:
        return WriteMode.APPEND if value == "insert" else value
