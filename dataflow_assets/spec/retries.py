"""What the user may write about trying again: `retries:` of a pipeline, and of the project for all of them.

Here: the options and how two of them are joined. Not here: which errors are worth another try (`error_kinds`, the connectors), the
waiting (`execution.retrying`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from dataflow_assets.spec.base import Model, duration

_Duration = Annotated[str, duration("retries")]


class RetryOptions(Model):
    """How a window is tried again after a transient failure, within the same run."""

    max_retries: int = Field(2, ge=0, description="how often a window is tried again after a transient failure; 0 for never")
    delay: _Duration = Field("5s", description="wait before the first retry; it grows as backoff says, spread by up to a half")
    max_delay: _Duration = Field("5min", description="longest wait, unless the system asks for a longer one")
    budget: _Duration = Field("30min", description="the time that a run may spend on trying again, waits included")
    backoff: Literal["exponential", "linear", "none"] = Field(
        "exponential",
        validation_alias=AliasChoices("backoff", "backoff_strategy"),
        description="exponential doubles the wait each time, linear adds delay each time, none does not wait",
    )


def _count_alone(value: Any) -> Any:
    """`retries: 3` and `retries: false`."""
    if value is False:
        return {"max_retries": 0}
    return {"max_retries": value} if isinstance(value, int) and value is not True else value


RetryChoice = Annotated[RetryOptions, BeforeValidator(_count_alone, json_schema_input_type=RetryOptions | int | Literal[False])]


def joined(pipeline: RetryOptions | None, project: RetryOptions | None) -> RetryOptions:
    """What a pipeline says, and for the keys that it does not write, what the project says."""
    written = {**_written(project), **_written(pipeline)}
    return RetryOptions.model_validate(written)


def _written(options: RetryOptions | None) -> dict[str, Any]:
    return options.model_dump(include=options.model_fields_set) if options else {}
