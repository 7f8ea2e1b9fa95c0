"""The checks of a step: which plugin takes which rule, and the names they make in Dagster.

Here: splitting `checks:` between the validator and the metric check, validating both. Not here: running them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataflow_assets import discovery
from dataflow_assets.errors import DataflowError
from dataflow_assets.plan.findings import Findings, step_path
from dataflow_assets.plan.kinds import Plugin
from dataflow_assets.plan.model import CheckPlan
from dataflow_assets.plan.options import check_options
from dataflow_assets.protocols import CheckPromise, Reference, RefersToDatasets
from dataflow_assets.spec.models import StepModel

RULES, METRIC = "validator", "metric_anomaly"


def rules_of(step: StepModel, index: int, findings: Findings) -> tuple[CheckPlan, ...]:
    """The plans of a step's `checks:` key: at most one for the rules and one for the metrics."""
    groups: dict[str, list[int]] = {RULES: [], METRIC: []}
    for number, rule in enumerate(step.checks):
        groups[METRIC if "anomaly" in rule else RULES].append(number)
    plans = tuple(_plan(kind, step, index, numbers, findings) for kind, numbers in groups.items() if numbers)
    refuse_same_names(plans, step, index, findings)
    return plans


def keeps_history(check: CheckPlan) -> bool:
    """Whether the check compares a metric with its history, alone or as one of the rules of a validator."""
    rules = check.options.get("checks")
    return check.kind == METRIC or (isinstance(rules, list) and any(isinstance(rule, dict) and "anomaly" in rule for rule in rules))


def own_check(step: StepModel, plugin: Plugin, options: Any) -> CheckPlan:
    """The plan of a step of type check."""
    references = [replace(item, path=("config", *item.path)) for item in _references(plugin.implementation, options)]
    return CheckPlan(plugin.kind, step.config, _promises(plugin.implementation, plugin.kind, options), tuple(references))


def added_check(kind: str, options: Mapping[str, Any]) -> CheckPlan:
    """The plan of a check that nobody wrote at the step, such as that of a contract; its options are known to be sound."""
    implementation = discovery.find("checks", kind)
    return CheckPlan(kind, options, _promises(implementation, kind, check_options(implementation.Options, options).model))


def _plan(kind: str, step: StepModel, index: int, numbers: list[int], findings: Findings) -> CheckPlan:
    options: Mapping[str, Any] = {"checks": [step.checks[number] for number in numbers]}
    try:
        implementation = discovery.find("checks", kind)
    except KeyError:
        findings.add(step_path(index, "checks", numbers[0]), f"step {step.id!r}: the check plugin {kind!r} is not installed")
        return CheckPlan(kind, options, ())
    checked = check_options(implementation.Options, options)
    for mistake in checked.mistakes:
        path = mistake.path[1:]
        where = (numbers[path[0]], *path[1:]) if path and isinstance(path[0], int) else path
        findings.add(step_path(index, "checks", *where), f"step {step.id!r}: {mistake.message}", hint=mistake.hint)
    references = [_placed(item, numbers) for item in _references(implementation, checked.model)]
    return CheckPlan(kind, options, _promises(implementation, kind, checked.model), tuple(references))


def _placed(reference: Reference, numbers: list[int]) -> Reference:
    """The reference at its path within the step: its rule is one of several in `checks:`."""
    _, number, *rest = reference.path
    return replace(reference, path=("checks", numbers[int(number)], *rest))


def _references(implementation: Any, options: Any) -> Sequence[Reference]:
    """The other datasets that the check looks at, as far as options without their templates tell."""
    if options is None:
        return ()
    try:
        check = implementation(options)
    except (DataflowError, ValueError, TypeError, AttributeError):
        return ()
    return check.references if isinstance(check, RefersToDatasets) else ()


def _promises(implementation: Any, kind: str, options: Any) -> tuple[CheckPromise, ...]:
    """The checks as the plugin makes them; one of its kind's name when templates hide what it will check."""
    if options is None:
        return (CheckPromise(kind),)
    try:
        return tuple(implementation(options).promises)
    except (DataflowError, ValueError, TypeError, AttributeError):
        return (CheckPromise(kind),)


def refuse_same_names(plans: tuple[CheckPlan, ...], step: StepModel, index: int, findings: Findings) -> None:
    """Add a problem for each name that two checks of a step would have in Dagster."""
    names = [name for plan in plans for name in plan.names]
    for name in sorted({name for name in names if names.count(name) > 1}):
        findings.add(step_path(index, "checks"), f"step {step.id!r} has two checks named {name!r}", hint="give one of them another `name:`")
