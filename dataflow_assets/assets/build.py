"""A project as Dagster definitions.

Here: putting together the assets, jobs and executor of all pipelines, the source tables, and placeholders for what is broken.
Not here: one pipeline (`assets.pipelines`), schedules (`operations.schedules`), finding the project (`definitions`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import dagster as dg

from dataflow_assets.assets.jobs import PipelineJob, pipeline_job
from dataflow_assets.assets.pipelines import Surroundings, pipeline_assets
from dataflow_assets.assets.placeholders import Broken, placeholders
from dataflow_assets.assets.requests import Listener
from dataflow_assets.errors import DataflowError, PlanError, Problem
from dataflow_assets.plan.model import AssetPath, PipelinePlan, ProjectPlan
from dataflow_assets.secrets import mask
from dataflow_assets.spec.project import Project

VALIDATING = "DAGSTER_IS_DEFS_VALIDATION_CLI"
SOURCES_GROUP = "sources"


def build_definitions(
    plan: ProjectPlan, project: Project, *, failures: Sequence[Broken] = (), listen: Listener | None = None
) -> dg.Definitions:
    """The definitions of a planned project; `failures` are files and pipelines that could not be loaded or planned.

    Raises PlanError instead of making placeholders while `dagster definitions validate` or `dg check defs` runs.
    """
    around = Surroundings.of(plan, project)
    broken, assets = list(failures), list[dg.AssetsDefinition]()
    jobs: list[PipelineJob] = []
    for pipeline in plan.pipelines:
        try:
            built = pipeline_assets(pipeline, around, listen=listen)
        except (DataflowError, dg.DagsterError, ValueError) as error:
            broken.append(_failure(pipeline, error))
        else:
            assets.append(built)
            jobs.append(pipeline_job(pipeline))
    if broken and os.environ.get(VALIDATING) == "1":
        raise PlanError([problem for failure in broken for problem in failure.problems])
    stand_ins = placeholders(broken)
    return dg.Definitions(
        assets=[*assets, *_source_tables(plan, project), *(item for item in stand_ins if isinstance(item, dg.AssetSpec))],
        asset_checks=[item for item in stand_ins if isinstance(item, dg.AssetChecksDefinition)],
        jobs=jobs,
        executor=executor_of(project),
    )


def executor_of(project: Project) -> dg.ExecutorDefinition:
    """In-process unless the project says otherwise: a spawned step costs 1.75 s of processor time."""
    if project.model.executor == "celery":
        from dataflow_assets.assets.celery_app import celery_executor

        return celery_executor()
    return dg.multiprocess_executor if project.model.executor == "multiprocess" else dg.in_process_executor


def _source_tables(plan: ProjectPlan, project: Project) -> Iterable[dg.AssetsDefinition]:
    """A definition for each: loose specs become one definition together, and all of it part of every job that reads one of them."""
    for key in plan.external:
        spec = dg.AssetSpec(
            key,
            group_name=SOURCES_GROUP,
            kinds=_kinds(key, project),
            metadata={"dagster/table_name": ".".join(key)},
            description=f"Read by pipelines of {plan.name}; no pipeline publishes it.",
        )
        yield dg.AssetsDefinition(specs=[spec])


def _kinds(key: AssetPath, project: Project) -> set[str]:
    kind = (project.model.connections.get(key[0]) or {}).get("type")
    return {kind.lower()} if isinstance(kind, str) else set()


def _failure(pipeline: PipelinePlan, error: Exception) -> Broken:
    problem = Problem(pipeline.place, mask(f"pipeline {pipeline.name!r} cannot become Dagster assets: {error}"))
    return Broken(pipeline.name, pipeline.place.file, (problem,))
