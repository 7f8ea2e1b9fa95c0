"""`automation:` of a pipeline: what makes it run besides a clock.

Here: the keys and their short forms. Not here: Dagster's conditions (`assets.automation`), schedules (`spec.schedules`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dataflow_assets.spec.base import Model


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _written_short(value: Any) -> Any:
    """`automation: on_new_inputs`, or a list of such words."""
    return {"when": value} if isinstance(value, str | list) else value


Trigger = Literal["on_new_inputs", "on_missing"]
Triggers = Annotated[list[Trigger], BeforeValidator(_as_list, json_schema_input_type=list[Trigger] | Trigger), Field(min_length=1)]


class AutomationOptions(Model):
    """When a pipeline is asked for by what happens to its inputs."""

    when: Triggers = Field(description="on_new_inputs: an input was published anew; on_missing: a window is missing, its inputs are there")
    status: Literal["stopped", "running"] = Field("stopped", description="whether its sensor works before somebody starts it in the UI")
    check_every: str = Field("30s", description="how often its sensor looks")


_SHAPES = AutomationOptions | list[Trigger] | Trigger | None
Automation = Annotated[AutomationOptions | None, BeforeValidator(_written_short, json_schema_input_type=_SHAPES)]
