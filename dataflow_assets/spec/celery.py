"""How Celery workers take runs and steps: the section `celery:` of the project file.

Here: the model. Not here: the addresses of broker and result backend, which are secrets and come from the environment
(`assets.instance_settings`), the worker itself (`assets.celery_worker`).
"""

from __future__ import annotations

from pydantic import Field, field_validator

from dataflow_assets.spec.base import Model
from dataflow_assets.windows import parse_duration


class CeleryOptions(Model):
    """How `dataflow worker start` takes work from the broker."""

    concurrency: int = Field(1, ge=1, description="runs or steps at once in one worker; each takes up to 400 MB")
    visibility_timeout: str = Field(
        "2min",
        description="on Redis: when work that a worker took and did not finish is given to another; one that still lives keeps it; "
        "at least twice stale_runs.after",
    )
    max_resumes: int = Field(3, ge=0, description="how often a run whose worker died is taken up again before it counts as failed")

    @field_validator("visibility_timeout")
    @classmethod
    def _timeout_is_a_duration(cls, value: str) -> str:
        if parse_duration(value).total_seconds() < 1:
            raise ValueError("visibility_timeout must be at least 1s")
        return value
