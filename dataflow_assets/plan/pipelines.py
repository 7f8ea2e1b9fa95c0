"""One pipeline, resolved on its own: its windows, its steps, and every refusal that needs no other pipeline.

Here: from a pipeline document to a draft. Not here: names and tables shared between pipelines (`plan.build`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dataflow_assets.plan.alerts import alert_plan, refuse_bad_alerts
from dataflow_assets.plan.findings import Findings, merged_connections
from dataflow_assets.plan.fingerprints import fingerprints
from dataflow_assets.plan.late_data import planned_late_data
from dataflow_assets.plan.lineage import Reads, TableRef, read_by, written_by
from dataflow_assets.plan.model import AlertPlan, AssetPath, PoolPlan, RetentionPlan, SchedulePlan, SensorPlan, StepPlan, WindowPlan
from dataflow_assets.plan.names import is_owner, is_pipeline_name, is_tag, legal
from dataflow_assets.plan.pools import pools_of
from dataflow_assets.plan.quarantine import asides, refuse_bad_quarantines
from dataflow_assets.plan.references import looked_up_tables, refuse_bad_references
from dataflow_assets.plan.rendering import Renderer
from dataflow_assets.plan.retention import retention_plan
from dataflow_assets.plan.schedules import schedule_plan
from dataflow_assets.plan.sensors import sensor_plans
from dataflow_assets.plan.steps import Draft, draft_steps, looked_at, refuse_lost_inputs, refuse_metrics_without_home
from dataflow_assets.plan.window_bounds import window_plan
from dataflow_assets.plan.writes import Writer, Writing, endpoint_writing, source_column
from dataflow_assets.spec.late_data import LateDataOptions
from dataflow_assets.spec.models import PipelineModel, QuarantineOptions, StepModel
from dataflow_assets.spec.project import LoadedPipeline, Path_, Project
from dataflow_assets.spec.retries import RetryOptions
from dataflow_assets.tables import SchemaPolicy, WriteMode
from dataflow_assets.windows import parse_duration


@dataclass(frozen=True)
class PipelineDraft:
    """A pipeline with its steps in run order. It may be broken: then `findings` says how."""

    loaded: LoadedPipeline
    findings: Findings
    connections: Mapping[str, Mapping[str, Any]]
    windows: WindowPlan | None
    steps: Mapping[str, Draft]
    writings: Mapping[str, Writing]
    reads: Mapping[str, Reads]
    writes: Mapping[str, TableRef]
    default_policy: SchemaPolicy | None = None
    """The project's."""
    looked_up: Mapping[str, tuple[TableRef, ...]] = field(default_factory=dict)
    """The tables of connections that the checks of each step look at."""
    late_data: LateDataOptions | None = None
    schedule: SchedulePlan | None = None
    pools: tuple[PoolPlan, ...] = ()
    default_retries: RetryOptions | None = None
    """The project's."""
    alerts: AlertPlan = field(default_factory=AlertPlan)
    retention: RetentionPlan = field(default_factory=RetentionPlan)
    sensors: tuple[SensorPlan, ...] = ()
    """Without the pipelines that they wait for."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.loaded.name

    @property
    def model(self) -> PipelineModel:
        """The pipeline as written."""
        return self.loaded.model

    def writers(self) -> list[Writer]:
        """Its endpoints whose target is known, and where the rows that they set aside are kept."""
        found = []
        kept = asides(self.steps, self.writes)
        for name, table in self.writes.items():
            draft, mode = self.steps[name], self.writings[name].mode
            if mode is not None:
                place = self.findings.places.at(("steps", draft.index))
                single = draft.plugin.implementation.capabilities.single_file
                found.append(Writer(self.name, name, place, table, mode, single, self.windows))
                if name in kept:
                    aside = mode if mode is WriteMode.REPLACE else WriteMode.REPLACE_WINDOW
                    found.append(Writer(self.name, name, place, kept[name], aside, single, self.windows, aside=True))
        return found

    def step_plans(self, reads: Mapping[str, tuple[AssetPath, ...]]) -> tuple[StepPlan, ...]:
        """The finished steps; `reads` are the assets outside the pipeline that each one reads."""
        prints = fingerprints(self.model, self.steps, self.writings)
        return tuple(self._step_plan(draft, prints[name], reads.get(name, ())) for name, draft in self.steps.items())

    def _step_plan(self, draft: Draft, fingerprint: str, reads: tuple[AssetPath, ...]) -> StepPlan:
        writing = self.writings.get(draft.id, Writing())
        table = self.writes.get(draft.id) or self.reads.get(draft.id, Reads()).table
        return StepPlan(
            id=draft.id,
            role=draft.plugin.role,
            kind=draft.plugin.kind,
            inputs=tuple(dict.fromkeys(draft.model.depends_on)),
            config=draft.model.config,
            asset_key=asset_key(self.name, draft.model),
            place=self.findings.places.at(("steps", draft.index)),
            connection=draft.link.name if draft.link else None,
            checks=draft.checks,
            mode=writing.mode,
            keys=writing.keys,
            window_column=writing.window_column,
            quarantine=draft.model.quarantine or QuarantineOptions(),
            schema_policy=writing.schema_policy or self.default_policy if draft.plugin.role == "endpoint" else None,
            table=str(table) if table else None,
            reads=reads,
            looks_at=tuple(looked_at(self.steps, draft)),
            description=draft.model.description,
            tags=tuple(draft.model.tags),
            fingerprint=fingerprint,
        )


def asset_key(pipeline: str, step: StepModel) -> AssetPath:
    """`asset_key:` as written (a text may hold slashes), else pipeline and step."""
    written = step.asset_key or []
    parts = [part for text in written for part in text.split("/") if part]
    return tuple(legal(part) for part in parts) if parts else (legal(pipeline), legal(step.id))


def draft_pipeline(project: Project, loaded: LoadedPipeline) -> PipelineDraft:
    """Resolve one pipeline and note everything that is wrong with it."""
    findings = Findings(loaded.places, project.places)
    model = loaded.model
    connections = merged_connections(project, model.connections)
    _refuse_bad_words(model, findings)
    _refuse_bad_times(model, findings)
    windows = window_plan(model, findings)
    schedule = schedule_plan(model, project, windows, findings)
    renderer = Renderer(project, model)
    renderer.refuse_mistakes(model.variables, ("variables",), findings, where="variables")
    steps = draft_steps(model, connections, renderer, findings)
    refuse_lost_inputs(steps, findings)
    refuse_metrics_without_home(steps, findings)
    refuse_bad_quarantines(steps, findings)
    refuse_bad_references(steps, model, connections, findings)
    writings = {name: _writing(model, draft, findings) for name, draft in steps.items()}
    reads = {name: read_by(draft, project.root) for name, draft in steps.items() if draft.plugin.role == "source"}
    targets = {name: written_by(draft, project.root) for name, draft in steps.items() if draft.plugin.role == "endpoint"}
    writes = {name: table for name, table in targets.items() if table is not None}
    looked_up = looked_up_tables(steps, connections, project.root)
    refuse_bad_alerts(model, project.model.alerts, findings)
    return PipelineDraft(
        loaded,
        findings,
        connections,
        windows,
        steps,
        writings,
        reads,
        writes,
        default_policy=project.model.schema_policy,
        looked_up=looked_up,
        default_retries=project.model.retries,
        schedule=schedule,
        alerts=alert_plan(project.model.alerts, model),
        pools=pools_of(steps, connections, findings),
        late_data=planned_late_data(model, steps, writings, findings),
        retention=retention_plan(project, model, windows, steps, writings, connections, findings),
        sensors=sensor_plans(model, steps, writings, findings),
    )


def _writing(model: PipelineModel, draft: Draft, findings: Findings) -> Writing:
    if draft.plugin.role == "endpoint":
        return endpoint_writing(model, draft, findings)
    return Writing(window_column=source_column(model, draft, findings)) if draft.plugin.role == "source" else Writing()


def _refuse_bad_words(model: PipelineModel, findings: Findings) -> None:
    if not is_pipeline_name(model.pipeline_name):
        message = f"{model.pipeline_name!r} is not a pipeline name"
        findings.add(("pipeline_name",), message, hint="use letters, digits, _, - and ., so that selectors can name it")
    tags: list[tuple[Path_, str]] = [(("tags", number), tag) for number, tag in enumerate(model.tags)]
    tags += [(("steps", index, "tags", number), tag) for index, step in enumerate(model.steps) for number, tag in enumerate(step.tags)]
    for path, tag in tags:
        if not is_tag(tag):
            findings.add(path, f"{tag!r} is not a tag", hint="use letters, digits, _, - and ., at most 63 of them")
    for number, owner in enumerate(model.owners):
        if not is_owner(owner):
            findings.add(("owners", number), f"{owner!r} is not an owner", hint="write an email address, or team:name")


def _refuse_bad_times(model: PipelineModel, findings: Findings) -> None:
    durations = {}
    if model.freshness is not None:
        durations = {
            ("freshness", "fail_after"): model.freshness.fail_after,
            ("freshness", "warn_after"): model.freshness.warn_after or "1s",
        }
    for path, text in durations.items():
        try:
            parse_duration(text)
        except ValueError as error:
            findings.add(path, f"{'.'.join(path)}: {error}")
