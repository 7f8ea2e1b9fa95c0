"""From a loaded project to its plan: every pipeline resolved, edges between them, and all refusals in one pass.

Here: what pipelines have to do with each other. Not here: one pipeline on its own (`plan.pipelines`), which windows are due
(`plan.windows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow_assets.errors import PlanError, Problem, TemplateError
from dataflow_assets.plan.automation import automation_plan, refuse_bad_automation
from dataflow_assets.plan.drive import refuse_bad_drive
from dataflow_assets.plan.graph import find_cycles, topological
from dataflow_assets.plan.late_data import follow
from dataflow_assets.plan.lineage import TableRef, mentions, tables_of
from dataflow_assets.plan.model import AssetPath, PipelinePlan, ProjectPlan
from dataflow_assets.plan.names import legal, suggest
from dataflow_assets.plan.pipelines import PipelineDraft, asset_key, draft_pipeline
from dataflow_assets.plan.references import published_by, references_of
from dataflow_assets.plan.rendering import is_enabled
from dataflow_assets.plan.retention import note_losses
from dataflow_assets.plan.retention_clashes import keep_what_is_shared, refuse_shared_archives
from dataflow_assets.plan.sensors import refuse_bad_upstreams, refuse_same_sensors, with_upstream
from dataflow_assets.plan.steps import arrows
from dataflow_assets.plan.writes import clashes
from dataflow_assets.spec.project import Project
from dataflow_assets.spec.retries import joined
from dataflow_assets.windows import parse_duration

if TYPE_CHECKING:
    from dataflow_assets.plan.contracts import Bound


class _Publications:
    """Every table that pipelines publish, with the pipeline and the endpoint's asset key, to be found by its address."""

    def __init__(self, drafts: Sequence[PipelineDraft]) -> None:
        self.all: list[tuple[TableRef, str, AssetPath]] = [
            (table, draft.name, asset_key(draft.name, draft.steps[step].model)) for draft in drafts for step, table in draft.writes.items()
        ]
        self._files = [found for found in self.all if found[0].is_file]
        self._at: dict[tuple[str, str, str], list[tuple[TableRef, str, AssetPath]]] = {}
        for found in self.all:
            self._at.setdefault(found[0].identity, []).append(found)

    def read_by(self, table: TableRef) -> list[tuple[str, AssetPath]]:
        """Who publishes what reading `table` reads; a pattern of files may be published by several."""
        candidates = self._files if table.is_file and self._files else self._at.get(table.identity, ())
        return [(name, key) for target, name, key in candidates if table.is_read_from(target)]


def build_plan(project: Project, *, external: bool = True) -> ProjectPlan:
    """Resolve the whole project. Raises PlanError with every problem, those of files that could not be loaded included.

    `external`: also name the source tables that no pipeline publishes; without it only SQL that mentions a published table is
    parsed, which is enough to order and run pipelines.
    """
    refuse_bad_drive(project)
    drafts = _drafts(project)
    edges = _resolve_together(project, drafts, external=external)
    problems = [problem for failure in project.failures for problem in failure.problems]
    problems += [problem for draft in drafts for problem in draft.findings.problems]
    bound, wrong = _bound(project, drafts)
    problems += [problem for found in wrong.values() for problem in found]
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    return _assemble(project, drafts, edges, bound)


def build_plan_tolerant(project: Project, *, external: bool = True) -> tuple[ProjectPlan, dict[str, list[Problem]]]:
    """Resolve what can be: the plan of the sound pipelines, and the problems of those left out, by pipeline name.

    A pipeline that depends on one left out is left out too, with that as its problem. Files that could not be loaded are in
    `project.failures`, not here. Raises PlanError for what the project file itself says wrong.
    """
    refuse_bad_drive(project)
    drafts = _drafts(project)
    edges = _resolve_together(project, drafts, external=external)
    broken: dict[str, list[Problem]] = {}
    for draft in drafts:
        if draft.findings.problems:
            broken.setdefault(draft.name, []).extend(draft.findings.problems)
    bound, wrong = _bound(project, drafts)
    for name, found in wrong.items():
        broken.setdefault(name, []).extend(found)
    _spread(drafts, edges, broken)
    sound = [draft for draft in drafts if draft.name not in broken]
    return _assemble(project, sound, edges, bound), broken


def planned_drafts(project: Project) -> tuple[list[PipelineDraft], dict[str, tuple[str, ...]]]:
    """The pipelines with what they read and write, sound or not, and the pipelines that come before each."""
    drafts = _drafts(project)
    edges = _resolve_together(project, drafts, external=False)
    return drafts, {name: tuple(found) for name, found in edges.upstream.items()}


class _Edges:
    """What each pipeline and step reads from outside its pipeline."""

    def __init__(self) -> None:
        self.upstream: dict[str, dict[str, None]] = {}
        self.reads: dict[str, dict[str, dict[AssetPath, None]]] = {}
        self.external: dict[AssetPath, None] = {}
        self.looks_at: dict[str, dict[str, None]] = {}

    def reads_of(self, pipeline: str, step: str) -> dict[AssetPath, None]:
        """What a step reads, to be added to."""
        return self.reads.setdefault(pipeline, {}).setdefault(step, {})


def _bound(project: Project, drafts: Sequence[PipelineDraft]) -> tuple[Sequence[Bound], Mapping[str, Sequence[Problem]]]:
    """The contracts at their steps, and what is wrong with them; a project without contracts does not import how that is found."""
    if not project.contracts and not any(failure.datasets for failure in project.failures):
        return (), {}
    from dataflow_assets.plan.contracts import bind_contracts

    binding = bind_contracts(project, drafts)
    return binding.bound, binding.problems


def _drafts(project: Project) -> list[PipelineDraft]:
    """The enabled pipelines. One whose `enabled` cannot be rendered stays, with that as its problem."""
    drafts, resting = [], []
    for loaded in project.pipelines:
        try:
            if is_enabled(project, loaded.model):
                drafts.append(draft_pipeline(project, loaded))
            else:
                resting.append(loaded)
        except TemplateError as error:
            drafts.append(draft_pipeline(project, loaded))
            drafts[-1].findings.add(("enabled",), f"enabled: {error.message}", hint=error.hint)
    if all(draft.retention.target is None for draft in drafts):
        return drafts
    unread = [failure.file for failure in project.failures if not Path(failure.file).is_relative_to(project.contracts_dir)]
    beside = [draft_pipeline(project, loaded) for loaded in resting]
    return keep_what_is_shared(drafts, root=project.root, beside=beside, unread=unread)


def _resolve_together(project: Project, drafts: Sequence[PipelineDraft], *, external: bool) -> _Edges:
    _refuse_same_names(drafts)
    _refuse_same_asset_keys(drafts)
    _refuse_clashes(drafts)
    refuse_shared_archives(drafts, project.root)
    _refuse_unknown_upstream(project, drafts)
    edges = _find_edges(project.root, drafts, external=external)
    _refuse_cycles(drafts, edges)
    for draft in drafts:
        refuse_bad_automation(draft.model, draft.findings, upstream=tuple(edges.upstream[draft.name]))
    _refuse_bad_sensors(drafts, edges)
    return edges


def _refuse_same_names(drafts: Sequence[PipelineDraft]) -> None:
    groups: dict[str, list[PipelineDraft]] = {}
    for draft in drafts:
        groups.setdefault(legal(draft.name), []).append(draft)
    for group in groups.values():
        for draft in group if len(group) > 1 else ():
            others = [str(other.findings.places.at(("pipeline_name",))) for other in group if other is not draft]
            same = len({other.name for other in group}) == 1
            message = f"pipeline name {draft.name!r} is used twice, also at {', '.join(others)}"
            if not same:
                message = f"pipeline name {draft.name!r} is the same as that at {', '.join(others)} once written with letters, digits and _"
            draft.findings.add(("pipeline_name",), message, hint="give one of them another pipeline_name")


def _refuse_same_asset_keys(drafts: Sequence[PipelineDraft]) -> None:
    first: dict[str, tuple[PipelineDraft, str, int]] = {}
    for draft in drafts:
        for index, step in enumerate(draft.model.steps):
            key = "__".join(asset_key(draft.name, step))
            if key not in first:
                first[key] = (draft, step.id, index)
                continue
            other, other_step, other_index = first[key]
            if other_step == step.id and legal(other.name) == legal(draft.name):
                continue  # a duplicate id or pipeline name: already said
            path = ("steps", index, "asset_key" if step.asset_key else "id")
            where = other.findings.places.at(("steps", other_index))
            message = f"step {draft.name}.{step.id} has the asset key {key.replace('__', '/')} of {other.name}.{other_step} ({where})"
            draft.findings.add(path, message, hint="set asset_key: on one of them")


def _refuse_clashes(drafts: Sequence[PipelineDraft]) -> None:
    by_name = {draft.name: draft for draft in drafts}
    for later, first, reason in clashes([writer for draft in drafts for writer in draft.writers()]):
        what = "quarantines into" if later.aside else "writes"
        message = f"{later.pipeline}.{later.step} {what} {later.table}, as {first.pipeline}.{first.step} does ({first.place}): {reason}"
        hint = "add quarantine: {table: ...} to one of them" if later.aside else "write to another table or file, or let both append"
        draft = by_name[later.pipeline]
        if later.step in draft.steps:
            draft.findings.add(("steps", draft.steps[later.step].index), message, hint=hint)


def _refuse_unknown_upstream(project: Project, drafts: Sequence[PipelineDraft]) -> None:
    names = [draft.name for draft in drafts]
    failed = {failure.name: failure.file for failure in project.failures}
    for draft in drafts:
        for number, name in enumerate(draft.model.depends_on):
            if name in names:
                continue
            hint = suggest(name, [item for item in names if item != draft.name], noun="pipelines")
            if name in {loaded.name for loaded in project.pipelines} - set(names):
                hint = f"{name!r} is in the project but not enabled; see its `enabled:`"
            if name in failed:
                hint = f"{failed[name]} could not be loaded: mend it first"
            draft.findings.add(("depends_on", number), f"pipeline {draft.name!r} depends on {name!r}, which does not exist", hint=hint)


def _find_edges(root: Path, drafts: Sequence[PipelineDraft], *, external: bool) -> _Edges:
    edges = _Edges()
    published = _Publications(drafts)
    for draft in drafts:
        edges.upstream[draft.name] = dict.fromkeys(draft.model.depends_on)
        for step, reads in draft.reads.items():
            if not external and reads.sql is not None and not any(mentions(reads.sql, table) for table, *_ in published.all):
                continue
            for table in tables_of(draft.steps[step], reads, root):
                _connect(edges, draft.name, step, table, published, external=external)
        for step, tables in draft.looked_up.items():
            for table in tables:
                _connect(edges, draft.name, step, table, published, external=external)
    _connect_references(drafts, edges)
    return edges


def _connect_references(drafts: Sequence[PipelineDraft], edges: _Edges) -> None:
    """What a pipeline's checks look at in other pipelines comes first; in its own it is last run's state, not an edge."""
    models = {draft.name: draft.model for draft in drafts}
    for draft in drafts:
        for step, reference in references_of(draft.steps):
            name = reference.dataset.pipeline
            if name is None or (endpoint := published_by(reference, step, models, draft.findings)) is None:
                continue
            edges.looks_at.setdefault(draft.name, {})[name] = None
            if name != draft.name:
                edges.upstream[draft.name][name] = None
                model = next(item for item in models[name].steps if item.id == endpoint)
                edges.reads_of(draft.name, step.id)[asset_key(name, model)] = None


def _connect(edges: _Edges, pipeline: str, step: str, table: TableRef, published: _Publications, *, external: bool) -> None:
    writers = published.read_by(table)
    reads = edges.reads_of(pipeline, step)
    for name, key in writers:
        if name != pipeline:  # reading what the pipeline itself publishes is last run's state, not an edge
            edges.upstream[pipeline][name] = None
            reads[key] = None
    if not writers and external:
        reads[table.asset_path] = None
        edges.external[table.asset_path] = None


def _refuse_cycles(drafts: Sequence[PipelineDraft], edges: _Edges) -> None:
    by_name = {draft.name: draft for draft in drafts}
    for cycle in find_cycles({name: list(found) for name, found in edges.upstream.items()}):
        found_in_sql = [f"{a} reads what {b} publishes" for a, b in pairwise(cycle) if b not in by_name[a].model.depends_on]
        because = f" ({'; '.join(found_in_sql)})" if found_in_sql else ""
        for name in cycle[:-1]:
            by_name[name].findings.add(
                ("depends_on",),
                f"pipelines depend on each other in a circle: {arrows(cycle)}{because}",
                hint="remove one of these dependencies, or join the pipelines into one",
            )


def _refuse_bad_sensors(drafts: Sequence[PipelineDraft], edges: _Edges) -> None:
    names = [draft.name for draft in drafts]
    refuse_same_sensors([(draft.sensors, draft.findings) for draft in drafts])
    for draft in drafts:
        if draft.model.sensors:
            before = list(edges.upstream[draft.name])
            refuse_bad_upstreams(draft.model.sensors, pipeline=draft.name, names=names, before=before, findings=draft.findings)


def _spread(drafts: Sequence[PipelineDraft], edges: _Edges, broken: dict[str, list[Problem]]) -> None:
    """Leave out what depends on a pipeline that is left out."""
    by_name = {draft.name: draft for draft in drafts}
    order = topological({name: list(edges.upstream[name]) for name in by_name})
    for name in order:
        causes = [item for item in edges.upstream[name] if item in broken]
        if causes and name not in broken:
            places = by_name[name].findings.places
            message = f"pipeline {name!r} is left out because it depends on {', '.join(causes)}, which cannot be planned"
            broken[name] = [places.problem(("depends_on",), message, hint=f"mend {causes[0]} first")]


def _assemble(project: Project, drafts: Iterable[PipelineDraft], edges: _Edges, bound: Sequence[Bound]) -> ProjectPlan:
    plans = {draft.name: _pipeline_plan(draft, edges, bound) for draft in drafts}
    keys = {step.asset_key: plan.name for plan in plans.values() for step in plan.steps}
    for name, plan in plans.items():
        if plan.sensors:
            plans[name] = replace(plan, sensors=with_upstream(plan.sensors, pipeline=name, before=plan.upstream, keys=keys))
    for name, others in edges.looks_at.items():
        if name in plans:
            plans[name] = replace(plans[name], looks_at={other: plans[other] for other in others if other in plans})
    order = topological({name: plan.upstream for name, plan in plans.items()})
    note_losses(plans)
    follow(plans, order)
    used = {key for plan in plans.values() for step in plan.steps for key in step.reads}
    return ProjectPlan(
        project.model.project_name, tuple(plans[name] for name in order), tuple(key for key in edges.external if key in used)
    )


def _pipeline_plan(draft: PipelineDraft, edges: _Edges, bound: Sequence[Bound]) -> PipelinePlan:
    plan = _plain_plan(draft, edges)
    if not bound:
        return plan
    from dataflow_assets.plan.contracts import with_contracts

    return with_contracts(plan, bound, draft.steps)


def _plain_plan(draft: PipelineDraft, edges: _Edges) -> PipelinePlan:
    model = draft.model
    reads: Mapping[str, tuple[AssetPath, ...]] = {step: tuple(found) for step, found in edges.reads.get(draft.name, {}).items()}
    return PipelinePlan(
        name=draft.name,
        steps=draft.step_plans(reads),
        place=draft.findings.places.at(("pipeline_name",)),
        windows=draft.windows,
        event_time_column=model.event_time_column,
        variables=model.variables,
        connections=draft.connections,
        tags=tuple(model.tags),
        owners=tuple(model.owners),
        group=legal(model.group or draft.name),
        description=model.description,
        schedule=draft.schedule,
        automation=automation_plan(model),
        sensors=draft.sensors,
        freshness=model.freshness,
        retries=joined(model.retries, draft.default_retries),
        expected_seconds={name: parse_duration(phase.expected_run_duration).total_seconds() for name, phase in model.phases.items()},
        upstream=tuple(edges.upstream[draft.name]),
        late_data=draft.late_data,
        pools=draft.pools,
        alerts=draft.alerts,
        retention=draft.retention,
    )
