"""One pipeline as one subsettable multi-asset: an asset for each step, an asset check for each rule, one op that runs them.

Here: the static side, from a plan to Dagster's specs. Not here: what the op does (`assets.recording`), the whole project
(`assets.build`).
"""

# no `from __future__ import annotations`: Dagster reads the annotation of the op's `context`
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dataflow_assets.assets.automation import Condition, Input, condition_of
from dataflow_assets.assets.contracts import contract_tags, promised
from dataflow_assets.assets.metadata import code_reference
from dataflow_assets.assets.names import PIPELINE_TAG, group_name, op_name, owner, tag_value, tags_of
from dataflow_assets.assets.partitions import mapping_between, partitions_of
from dataflow_assets.assets.recording import record
from dataflow_assets.assets.requests import Listener, PipelineOp
from dataflow_assets.plan.model import AssetPath, PipelinePlan, ProjectPlan, StepPlan
from dataflow_assets.spec.project import Project
from dataflow_assets.windows import parse_duration

Partitions = dg.TimeWindowPartitionsDefinition

_SHORTEST_FRESHNESS = 60.0


@dataclass(frozen=True)
class Surroundings:
    """What a pipeline's assets must know of the rest of the project: who publishes an asset key, and with which windows."""

    project: Project
    publishers: Mapping[AssetPath, PipelinePlan] = field(default_factory=dict)
    by_name: Mapping[str, PipelinePlan] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: ProjectPlan, project: Project) -> "Surroundings":
        """The surroundings in a whole project."""
        publishers = {step.asset_key: pipeline for pipeline in plan.pipelines for step in pipeline.steps}
        return cls(project, publishers, plan.by_name)


def pipeline_assets(pipeline: PipelinePlan, around: Surroundings, *, listen: Listener | None = None) -> dg.AssetsDefinition:
    """The multi-asset of a pipeline. Raises dagster's definition errors when a name or number is not to its liking."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        partitions = partitions_of(pipeline.windows) if pipeline.windows else None
        outputs: dict[dg.AssetKey | dg.AssetCheckKey, str] = {}
        op = PipelineOp(around.project, pipeline, outputs, listen)
        condition = condition_of(pipeline, around.project, _inputs(pipeline, around)) if pipeline.automation else None

        @dg.multi_asset(
            name=op_name(pipeline.name),
            description=pipeline.description or None,
            specs=[_asset_spec(pipeline, step, around, partitions, condition) for step in pipeline.steps],
            check_specs=list(_check_specs(pipeline, partitions)),
            can_subset=True,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
            op_tags={PIPELINE_TAG: tag_value(pipeline.name)},
            pool=pool_of(pipeline),
        )
        def steps(context: dg.AssetExecutionContext) -> Iterator[Any]:  # Dagster looks into what is said of each pipeline's yields
            yield from record(context, op)

    outputs.update(steps.output_names_by_entity_key)
    return steps


def pool_of(pipeline: PipelinePlan) -> str | None:
    """The pool that a pipeline's runs draw from."""
    return pipeline.pools[0].name if pipeline.pools else None


def _inputs(pipeline: PipelinePlan, around: Surroundings) -> dict[dg.AssetKey, list[Input]]:
    """What each step reads of other pipelines."""
    found: dict[dg.AssetKey, list[Input]] = {}
    for step in pipeline.steps:
        for dep in _deps(pipeline, step, around):
            publisher = around.publishers.get(tuple(dep.asset_key.path))
            if publisher is not None and publisher is not pipeline:
                by_window = pipeline.windows is None or isinstance(dep.partition_mapping, dg.TimeWindowPartitionMapping)
                found.setdefault(dg.AssetKey(step.asset_key), []).append(Input(dep.asset_key, by_window, publisher.windows is None))
    return found


def _asset_spec(
    pipeline: PipelinePlan, step: StepPlan, around: Surroundings, partitions: Partitions | None, condition: Condition | None
) -> dg.AssetSpec:
    return dg.AssetSpec(
        step.asset_key,
        deps=list(_deps(pipeline, step, around)),
        description=step.description or (step.contract.description if step.contract else "") or pipeline.description or None,
        metadata=_static_metadata(pipeline, step, around.project),
        code_version=step.fingerprint or None,
        group_name=group_name(pipeline.group),
        owners=_owners(pipeline, step),
        tags={PIPELINE_TAG: tag_value(pipeline.name), **contract_tags(step.contract), **tags_of((*pipeline.tags, *step.tags))},
        kinds={step.kind.lower(), step.role} if step.kind else {step.role},
        freshness_policy=_freshness(pipeline) if step.role == "endpoint" else None,
        partitions_def=partitions,
        automation_condition=condition,
    )


def _owners(pipeline: PipelinePlan, step: StepPlan) -> list[str]:
    """The pipeline's owners, and before them whoever answers for the contract of the dataset."""
    answerable = [step.contract.owner] if step.contract and step.contract.owner else []
    return list(dict.fromkeys(owner(name) for name in (*answerable, *pipeline.owners)))


def _static_metadata(pipeline: PipelinePlan, step: StepPlan, project: Project) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        **code_reference(step.place, project.root, f"{pipeline.name}.{step.id}"),
        "step": step.id,
        "role": step.role,
    }
    if step.table:
        metadata["dagster/table_name"] = step.table
    if step.role == "endpoint":
        said = {"connection": step.connection, "mode": step.mode.value if step.mode else None, "window_column": step.window_column}
        metadata |= {name: value for name, value in said.items() if value}
    return metadata | promised(step.contract)


def _deps(pipeline: PipelinePlan, step: StepPlan, around: Surroundings) -> Iterator[dg.AssetDep]:
    keys: dict[AssetPath, None] = dict.fromkeys(pipeline.by_id[name].asset_key for name in (*step.inputs, *step.looks_at))
    own = set(keys)
    keys |= dict.fromkeys(step.reads)
    if not step.inputs:
        keys |= dict.fromkeys(_said_upstream(pipeline, around))
    for key in keys:
        publisher = around.publishers.get(key)
        if key in own or publisher is None or publisher is pipeline:
            yield dg.AssetDep(dg.AssetKey(key))
        else:
            yield dg.AssetDep(dg.AssetKey(key), partition_mapping=mapping_between(publisher.windows, pipeline.windows))


def _said_upstream(pipeline: PipelinePlan, around: Surroundings) -> Iterator[AssetPath]:
    """The endpoints of pipelines that `depends_on` names and no step reads."""
    read = {around.publishers[key].name for step in pipeline.steps for key in step.reads if key in around.publishers}
    for name in pipeline.upstream:
        if name not in read and name in around.by_name:
            yield from (endpoint.asset_key for endpoint in around.by_name[name].endpoints)


def _check_specs(pipeline: PipelinePlan, partitions: Partitions | None) -> Iterator[dg.AssetCheckSpec]:
    for step in pipeline.steps:
        for check in step.checks:
            for promise in check.promises:
                yield dg.AssetCheckSpec(
                    promise.name,
                    asset=dg.AssetKey(step.asset_key),
                    description=promise.description or None,
                    blocking=promise.blocking,
                    partitions_def=partitions,
                    metadata={"kind": check.kind},
                )


def _freshness(pipeline: PipelinePlan) -> dg.FreshnessPolicy | None:
    options = pipeline.freshness
    if options is None:
        return None
    fail = parse_duration(options.fail_after)
    warn = parse_duration(options.warn_after) if options.warn_after else None
    if fail.total_seconds() < _SHORTEST_FRESHNESS or (warn and not _SHORTEST_FRESHNESS <= warn.total_seconds() < fail.total_seconds()):
        raise ValueError("freshness: fail_after must be at least 60s, and warn_after between 60s and fail_after")
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
