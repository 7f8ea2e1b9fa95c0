"""One window in progress, as the data that its phases hand to each other.

Here: what is known so far of a window's targets, claims, stages, check results. Not here: what is done with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dataflow_assets.errors import CheckFailed
from dataflow_assets.execution.attempts import Attempt
from dataflow_assets.execution.phases import Phases
from dataflow_assets.execution.session import Rendered, Session
from dataflow_assets.plan.model import PipelinePlan, StepPlan
from dataflow_assets.protocols import CheckResult, StepContext
from dataflow_assets.spec.templates import TemplateContext
from dataflow_assets.storage.stages import Stage
from dataflow_assets.tables import Claim, LedgerEntry, Published, Target
from dataflow_assets.windows import Window

if TYPE_CHECKING:
    from dataflow_assets.execution.early import EarlyPublish


def producer_of(pipeline: PipelinePlan, step: StepPlan) -> StepPlan:
    """The source or transform whose stage this step passes on: itself, or its first input's producer."""
    while step.role in {"check", "endpoint"}:
        step = pipeline.by_id[step.inputs[0]]
    return step


def with_ancestors(pipeline: PipelinePlan, chosen: frozenset[str]) -> frozenset[str]:
    """The chosen steps, every step they need, and those that the checks of any of these look at."""
    needed: set[str] = set()
    waiting = list(chosen)
    while waiting:
        step = waiting.pop()
        if step not in needed:
            needed.add(step)
            waiting.extend((*pipeline.by_id[step].inputs, *pipeline.by_id[step].looks_at))
    return frozenset(needed)


def upstream_of(pipeline: PipelinePlan, step: StepPlan) -> frozenset[str]:
    """The step and every step whose rows reach it."""
    found: set[str] = set()
    waiting = [step.id]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(pipeline.by_id[name].inputs)
    return frozenset(found)


def sources_of(pipeline: PipelinePlan, step: StepPlan) -> frozenset[str]:
    """The sources upstream of the step."""
    return frozenset(name for name in upstream_of(pipeline, step) if pipeline.by_id[name].role == "source")


def looked_at(pipeline: PipelinePlan, chosen: frozenset[str]) -> frozenset[str]:
    """The steps that the checks of the chosen ones look at."""
    return frozenset(name for step in chosen for name in pipeline.by_id[step].looks_at)


@dataclass
class Work:
    """One window in progress. `chosen` steps are reported, checked and published; `needed` ones are run for their sake."""

    session: Session
    window: Window | None
    key: str
    attempt: Attempt
    chosen: frozenset[str]
    needed: frozenset[str]
    targets: dict[str, Target] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    resumed: set[str] = field(default_factory=set)
    made_anew: dict[str, str] = field(default_factory=dict)
    """Steps whose stage of an earlier attempt was not used, and why."""
    results: dict[str, list[CheckResult]] = field(default_factory=dict)
    broken: list[CheckResult] = field(default_factory=list)
    """Failed blocking checks of a run of checks alone, which goes on to the others."""
    metrics: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    aside: dict[str, Stage] = field(default_factory=dict)
    """The rows that each step's rules have set aside, as rows of a quarantine."""
    extracted: dict[str, Stage] = field(default_factory=dict)
    """What each source gave, before any row was set aside."""
    asides: dict[str, Claim] = field(default_factory=dict)
    """The claim of each endpoint on its quarantine."""
    refused: dict[str, CheckFailed] = field(default_factory=dict)
    """Steps whose rules would set more rows aside than their budget allows."""
    reconciled: set[str] = field(default_factory=set)
    """Endpoints whose sources were compared with their stages."""
    published: dict[str, Published] = field(default_factory=dict)
    """What each endpoint's connector said of its publish."""
    early: dict[str, EarlyPublish] = field(default_factory=dict)
    """The publish of an endpoint that has begun before its checks have passed."""
    phases: Phases = field(default_factory=Phases)
    fingerprints: dict[str, Any] = field(default_factory=dict)
    """What each source held, as far as it was asked for."""
    ahead: dict[tuple[str, ...], Mapping[str, tuple[LedgerEntry, ...]]] = field(default_factory=dict)
    """Endpoints that share a source -> what some of them have published that others lack, once that was asked."""
    upstream: Mapping[str, str] | None = None
    """What was rewritten of the pipelines that this one follows, before its rows were read; None where that was not asked."""

    @property
    def pipeline(self) -> PipelinePlan:
        """The pipeline's plan."""
        return self.session.pipeline

    @cached_property
    def steps(self) -> tuple[StepPlan, ...]:
        """The steps to run, in order."""
        return tuple(step for step in self.pipeline.steps if step.id in self.needed)

    def step_results(self) -> Mapping[str, Any]:
        """What templates see as `steps.<id>`."""
        return {name: {"row_count": stage.receipt.rows} for name, stage in self.stages.items()}

    def stage_of(self, step: StepPlan) -> Stage:
        """The stage that this step made or passes on; of a step that has set rows aside, the others."""
        while step.id not in self.stages and step.role in {"check", "endpoint"}:
            step = self.pipeline.by_id[step.inputs[0]]
        return self.stages[step.id]


class _Variables(Mapping[str, Any]):
    """The variables, each rendered when it is asked for: one that cannot be is no matter to a step that does not use it."""

    def __init__(self, context: TemplateContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> Any:
        return self._context.variable(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._context.variable_names)

    def __len__(self) -> int:
        return len(self._context.variable_names)


def step_context(work: Work, step: StepPlan, rendered: Rendered | None = None) -> StepContext:
    """What a transform or check at this step may know."""
    return StepContext(
        pipeline=work.pipeline.name,
        step=step.id,
        project_dir=work.session.project.root,
        scratch=work.attempt.scratch,
        window=work.window,
        window_key=work.key,
        variables=_Variables(work.session.context(work.window, step=step)),
        queries=rendered.queries if rendered else {},
        published=work.session.request.checks_only and step.role == "endpoint",
        now=work.session.request.now,
    )
