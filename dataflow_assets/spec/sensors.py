"""What a pipeline's `sensors:` may say.

Here: one sensor with all keys of all types, and which keys are of which type. Not here: whether its step and its upstreams exist
(`plan.sensors`), what a tick does (`operations.sensors`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dataflow_assets.spec.base import NAME, Duration, Model, Names

SensorType = Literal["files", "rows", "upstream", "freshness"]

KEYS: dict[str, frozenset[SensorType]] = {
    "step": frozenset({"files", "rows"}),
    "settle": frozenset({"files"}),
    "marker": frozenset({"files"}),
    "max_files": frozenset({"files"}),
    "reach": frozenset({"files"}),
    "existing": frozenset({"files"}),
    "cursor": frozenset({"rows"}),
    "delay": frozenset({"rows"}),
    "pipelines": frozenset({"upstream"}),
    "assets": frozenset({"upstream"}),
    "max_age": frozenset({"freshness"}),
}
"""The keys that not every type has, with the types that have them."""


class SensorOptions(Model):
    """One sensor: what it looks for, how often, and whether it runs by itself."""

    type: SensorType = Field(description="what it looks for: new files, new rows, upstream publications, or a dataset that is too old")
    name: str | None = Field(None, description="its name after the pipeline's; default: its type, and its step where several have one type")
    every: Duration = Field("30s", description="least time between two ticks")
    status: Literal["running", "stopped"] = Field("stopped", description="running starts it with the daemon; stopped waits for somebody")
    step: str | None = Field(None, description="files, rows: the source step; default: the only one that it can be about")
    settle: Duration = Field("10s", description="files: how long a local file must have been left alone before it is taken")
    marker: str | None = Field(
        None,
        min_length=1,
        description="files: take a file only when this is there: _SUCCESS in its folder, or with a dot such as .done after its own name",
    )
    max_files: int = Field(1000, ge=1, le=10_000, description="files: most files that one tick takes; the others come with the next")
    reach: int = Field(100, ge=1, description="files: how many of the newest windows a file_path with templates is looked up for")
    existing: Literal["load", "ignore"] = Field("load", description="files: what the first tick does with those that are there already")
    cursor: str | None = Field(
        None, description="rows: a column that grows with each new row: a time, or an id; default: the source's event_time_column"
    )
    delay: Duration = Field("1s", description="rows: how far behind the clock, or the oldest open transaction, rows are taken")
    pipelines: Names = Field(default_factory=list, description="upstream: pipelines of the project; default: all that come before it")
    assets: Names = Field(default_factory=list, description="upstream: further Dagster assets, as key/with/slashes")
    max_age: Duration | None = Field(None, description="freshness: how old the newest publication may get; default: freshness.fail_after")

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not NAME.match(value):
            raise ValueError(f"{value!r} is no name: use letters, digits, _ and -, beginning with a letter")
        return value

    def misplaced(self) -> list[str]:
        """The keys written that its type does not have."""
        return [key for key, types in KEYS.items() if key in self.model_fields_set and self.type not in types]
