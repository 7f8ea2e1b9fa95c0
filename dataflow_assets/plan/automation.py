"""`automation:` of a pipeline, resolved, and what is refused about it.

Here: from what is written to an `AutomationPlan`. Not here: Dagster's conditions (`assets.automation`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import AutomationPlan
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.windows import parse_duration


def automation_plan(model: PipelineModel) -> AutomationPlan | None:
    """The automation of a pipeline; None where it has none."""
    options = model.automation
    if options is None:
        return None
    return AutomationPlan(tuple(dict.fromkeys(options.when)), options.status == "running", options.check_every)


def refuse_bad_automation(model: PipelineModel, findings: Findings, *, upstream: Sequence[str]) -> None:
    """New inputs are those that other pipelines publish: without any there would never be one."""
    options = model.automation
    if options is None:
        return
    try:
        parse_duration(options.check_every)
    except ValueError as error:
        findings.add(("automation", "check_every"), f"automation.check_every: {error}")
    if "on_new_inputs" in options.when and not upstream:
        message = f"automation: on_new_inputs: {model.pipeline_name!r} reads nothing that another pipeline publishes"
        findings.add(("automation", "when"), message, hint="use a schedule or a sensor, or name a pipeline under depends_on")
