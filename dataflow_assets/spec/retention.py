"""How long things are kept: `retention:` of a pipeline, and of the project for all of them.

Here: the options, also in the words of Drive's `stage_cleaning`, and how two of them are joined. Not here: which endpoints can let windows
go (`plan.retention`), removing anything (`execution.retention`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dataflow_assets.cron import parse_cron
from dataflow_assets.spec.base import Model, duration

_Duration = Annotated[str, duration("retention")]
FOLDER = ".dataflow/archive"
USUAL = "0 3 * * *"
NICKNAMES = {USUAL: USUAL, "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 1", "@monthly": "0 0 1 * *"}
"""Schedules that are surely sound, told without the import of a cron parser, as cron expressions."""
_DRIVE_WORDS = {"archive_before_delete", "archive_location", "delete_after_days"}


class ArchiveOptions(Model):
    """Where rows go before they are removed: files, or a table."""

    to: str | None = Field(
        None,
        min_length=1,
        description="a folder, or s3://..., gs://..., az://...; in it a folder for each endpoint, a file for each window",
    )
    connection: str | None = Field(None, description="where the table lies; or, of type parquet, how the files are reached")
    table: str | None = Field(
        None, min_length=1, description="the table, in place of files; {pipeline} and {step} stand for the names of the endpoint"
    )

    @model_validator(mode="after")
    def _files_or_a_table(self) -> Self:
        if (self.to is None) == (self.table is None):
            raise ValueError("an archive has either `to` (files) or `connection` and `table`")
        if self.table is not None and self.connection is None:
            raise ValueError("an archive table needs `connection`, the system that it lies in")
        return self


def _place_alone(value: Any) -> Any:
    """`archive: s3://bucket/old`."""
    return {"to": value} if isinstance(value, str) else value


Archive = Annotated[
    ArchiveOptions | Literal[False] | None,
    BeforeValidator(_place_alone, json_schema_input_type=ArchiveOptions | str | Literal[False] | None),
]


class RetentionOptions(Model):
    """How long things are kept, and what becomes of rows before they are removed."""

    stages: _Duration | None = Field(None, description="stages of failed windows; default: stages.keep_failed of the project, 7d")
    quarantine: _Duration | None = Field(None, description="rows set aside by checks, by when they were set aside; default: for ever")
    target: _Duration | None = Field(
        None,
        description="windows of the endpoints, by when they ended: the rows go, the ledger keeps them as retired; default: for ever",
    )
    ledger: _Duration | None = Field(
        None, description="what the ledgers say of windows that have left, by when these ended; needs target; default: for ever"
    )
    history: _Duration | None = Field(None, description="Dagster's runs and the drive table's rows; default: for ever")
    archive: Archive = Field(
        None, description="where rows go before they are removed; false: nowhere; default: Parquet files in .dataflow/archive"
    )
    restored: _Duration = Field("30d", description="how long a window that was brought back from the archive is left alone")

    @model_validator(mode="before")
    @classmethod
    def _words_of_drive(cls, data: Any) -> Any:
        """Drive's `stage_cleaning`: archive_before_delete, archive_location, delete_after_days."""
        if not isinstance(data, dict) or not _DRIVE_WORDS & data.keys():
            return data
        rest = {name: value for name, value in data.items() if name not in _DRIVE_WORDS}
        if "delete_after_days" in data:
            rest.setdefault("stages", f"{data['delete_after_days']}d")
        if data.get("archive_before_delete") is False:
            rest.setdefault("archive", False)
        elif data.get("archive_location"):
            rest.setdefault("archive", data["archive_location"])
        return rest


class ProjectRetention(RetentionOptions):
    """The same for all pipelines, and when it is done in production."""

    schedule: str = Field(USUAL, min_length=1, description="when the job dataflow_retention runs: cron, or @daily and the like")
    status: Literal["running", "stopped"] = Field("stopped", description="whether that schedule runs without being started by somebody")

    @field_validator("schedule")
    @classmethod
    def _is_a_schedule(cls, value: str) -> str:
        if value not in NICKNAMES:
            try:
                parse_cron(value)
            except ValueError as error:
                raise ValueError(f"retention.schedule: {error}; write five cron fields like '0 3 * * *', or @daily and the like") from None
        return value


def _age_alone(value: Any) -> Any:
    """`retention: 400d`: what nobody misses, stages and quarantined rows; the target's windows only where `target` says so."""
    return {"stages": value, "quarantine": value} if isinstance(value, str) else value


Retention = Annotated[RetentionOptions | None, BeforeValidator(_age_alone, json_schema_input_type=RetentionOptions | str | None)]
RetentionOfProject = Annotated[ProjectRetention, BeforeValidator(_age_alone, json_schema_input_type=ProjectRetention | str)]


def joined(pipeline: RetentionOptions | None, project: RetentionOptions) -> RetentionOptions:
    """What a pipeline says, and for the keys that it does not write, what the project says."""
    if pipeline is None and not project.model_fields_set:
        return project
    names = RetentionOptions.model_fields
    written = {name: getattr(project, name) for name in project.model_fields_set if name in names}
    written |= {name: getattr(pipeline, name) for name in pipeline.model_fields_set} if pipeline else {}
    return RetentionOptions.model_validate(written)
