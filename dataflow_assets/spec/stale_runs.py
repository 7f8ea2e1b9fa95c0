"""Workers that die: the section `stale_runs:` of the project file.

Here: the model. Not here: heartbeats (`execution.heartbeat`), who is taken for dead (`execution.liveness`), the sensor
(`operations.stale_runs`).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from dataflow_assets.spec.base import Duration, Model
from dataflow_assets.windows import parse_duration


class StaleRunOptions(Model):
    """How often a worker says that it is alive, and what becomes of its runs when it does not."""

    heartbeat: Duration = Field("10s", description="how often a worker notes in the drive table that it is alive; at least 1s")
    after: Duration = Field("25s", description="a worker that was not heard of for so long is taken for dead; at least twice the heartbeat")
    retry: bool = Field(True, description="whether the windows of a run that Dagster launched are asked for again")
    max_retries: int = Field(2, ge=0, description="how often in a row a run whose worker died is asked for again")
    status: Literal["running", "stopped"] = Field(
        "running", description="whether the sensor that looks after runs works without being started by somebody"
    )

    @model_validator(mode="after")
    def _two_beats_may_be_missed(self) -> Self:
        if self.heartbeat_seconds < 1:
            raise ValueError(f"heartbeat: {self.heartbeat!r} is too often: write at least 1s")
        if self.after_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"after: {self.after!r} is less than two heartbeats of {self.heartbeat!r}: a worker that is busy would count as dead"
            )
        return self

    @property
    def heartbeat_seconds(self) -> float:
        """Seconds between two heartbeats."""
        return parse_duration(self.heartbeat).total_seconds()

    @property
    def after_seconds(self) -> float:
        """Seconds of silence after which a worker is taken for dead."""
        return parse_duration(self.after).total_seconds()
