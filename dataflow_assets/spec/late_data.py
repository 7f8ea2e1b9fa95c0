"""Late and changed data: the section `late_data:` of a pipeline.

Here: the model. Not here: which pipelines can have it (`plan.late_data`), looking at sources (`execution.late_data`), the sensor
(`operations.late_data`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dataflow_assets.spec.base import Duration, Model, Names
from dataflow_assets.windows import parse_duration

DEFAULT_WINDOWS = 7
_SHORTEST = 30.0


class LateDataOptions(Model):
    """How published windows are held against their sources again, and what follows when these have changed."""

    windows: int | None = Field(None, ge=1, description="how many of the newest published windows are looked at; default: 7")
    max_age: Duration | None = Field(None, description="in place of windows: those that ended at most so long ago, such as 30d")
    every: Duration = Field("1h", description="how often the sensor looks at the source; at least 30s")
    compare: Literal["checksum", "count"] = Field(
        "checksum", description="checksum finds every change; count finds only that there are more or fewer rows, and costs less"
    )
    reopen: bool = Field(True, description="whether a window that differs is run again; false reports it and no more")
    downstream: bool = Field(True, description="whether pipelines that read what it publishes follow a reopened window")
    keys: Names = Field(
        default_factory=list,
        description="the columns that identify a row, to tell changed rows from new ones; default: upsert_keys, or a primary key",
    )
    ignore: Names = Field(default_factory=list, description="columns whose changes do not count")
    sources: Names = Field(default_factory=list, description="the source steps to look at; default: those that read a window's rows alone")
    status: Literal["running", "stopped"] = Field("stopped", description="whether its sensor runs without being started by somebody")

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, value: str) -> str:
        if parse_duration(value).total_seconds() < _SHORTEST:
            raise ValueError(f"{value!r} is too often: a sensor looks at most every 30s")
        return value

    @model_validator(mode="after")
    def _windows_or_age(self) -> Self:
        if self.windows is not None and self.max_age is not None:
            raise ValueError("late_data has either windows or max_age, not both")
        return self


def _defaults_when_true(value: Any) -> Any:
    return {} if value is True else None if value is False else value


LateData = Annotated[LateDataOptions | None, BeforeValidator(_defaults_when_true, json_schema_input_type=LateDataOptions | bool | None)]
