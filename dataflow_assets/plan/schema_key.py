"""The key `schema:` of a step, and checks whose promises stand in a file of the project.

Here: from `schema: models.py:Model` to the plan of a check `pandera`, the promises that are read from its file. Not here: the other checks
of a step (`plan.checks`), the model (`checks.pandera`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.plan.findings import Findings, step_path
from dataflow_assets.plan.model import CheckPlan
from dataflow_assets.plan.options import check_options
from dataflow_assets.plan.rendering import Renderer
from dataflow_assets.protocols import CheckPromise, PromisesFromFiles, TellsCodeVersion
from dataflow_assets.spec.models import StepModel

KIND = "pandera"


def schema_options(step: StepModel) -> Mapping[str, Any]:
    """The options of the check that a step's `schema:` key stands for: a model's name, or all of them."""
    return {"schema": step.pandera} if isinstance(step.pandera, str) else step.pandera or {}


def schema_path(step: StepModel, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where the option at `path` of that check stands within the step."""
    return ("schema", *path) if isinstance(step.pandera, dict) else ("schema",)


def schema_check(step: StepModel, index: int, findings: Findings, *, renderer: Renderer) -> Iterator[CheckPlan]:
    """The plan of a step's `schema:` key, if it has one."""
    if step.pandera is None:
        return
    implementation, options = discovery.find("checks", KIND), schema_options(step)
    checked = check_options(implementation.Options, renderer.settled(options))
    for mistake in checked.mistakes:
        findings.add(step_path(index, *schema_path(step, mistake.path)), f"step {step.id!r}: {mistake.message}", hint=mistake.hint)
    plan = CheckPlan(KIND, options, (CheckPromise(KIND),))
    yield with_file_promises(plan, implementation, checked.model, root=renderer.root)


def with_file_promises(plan: CheckPlan, implementation: Any, options: Any, *, root: Path) -> CheckPlan:
    """The plan with the promises that the check reads from a file of the project, and that file's version; as it is for any other check."""
    if options is None or not issubclass(implementation, PromisesFromFiles):
        return plan
    check = implementation(options)
    code = check.code_version(root) if isinstance(check, TellsCodeVersion) else ""
    return replace(plan, promises=tuple(check.promises_in(root)), code=code)
