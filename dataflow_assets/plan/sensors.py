"""The sensors of a pipeline, resolved: which step, which column, which upstreams; and every refusal of one that could not work.

Here: from `sensors:` to plans. Not here: what a tick does (`operations.sensors`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import SensorPlan
from dataflow_assets.plan.names import legal, suggest
from dataflow_assets.plan.steps import Draft
from dataflow_assets.plan.writes import Writing
from dataflow_assets.protocols import ListsFiles, TakesFiles, TellsHorizon
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.spec.project import Path_
from dataflow_assets.spec.sensors import KEYS, SensorOptions
from dataflow_assets.tables import WriteMode

_NOT_NAME = re.compile(r"[^A-Za-z0-9_]+")
_CUTS_WINDOW = ("window.", "batch_start", "batch_end")


def sensor_plans(
    model: PipelineModel, drafts: Mapping[str, Draft], writings: Mapping[str, Writing], findings: Findings
) -> tuple[SensorPlan, ...]:
    """The sensors of one pipeline, without what other pipelines decide; adds a problem for each that could not work."""
    drafted = (_Sensor(model, options, ("sensors", index), drafts, writings, findings) for index, options in enumerate(model.sensors))
    return tuple(plan for draft in drafted if (plan := draft.plan()))


class _Sensor:
    """One sensor while it is resolved."""

    def __init__(
        self,
        model: PipelineModel,
        options: SensorOptions,
        path: Path_,
        drafts: Mapping[str, Draft],
        writings: Mapping[str, Writing],
        findings: Findings,
    ) -> None:
        self.model, self.options, self.path = model, options, path
        self.drafts, self.writings, self.findings = drafts, writings, findings

    def plan(self) -> SensorPlan | None:
        for key in self.options.misplaced():
            types = " and ".join(sorted(KEYS[key]))
            self._add(key, f"{key!r} is for sensors of type {types}, this one is of type {self.options.type}", hint="remove the key")
        plan = SensorPlan(self._name(), self.options, self.findings.places.at(self.path))
        if self.options.type == "files":
            return self._files(plan)
        if self.options.type == "rows":
            return self._rows(plan)
        if self.options.type == "upstream":
            return replace(plan, assets=tuple(tuple(filter(None, text.split("/"))) for text in self.options.assets))
        if self.options.max_age is None and self.model.freshness is None:
            self._add("type", "a freshness sensor needs to know how old is too old", hint="add max_age:, or freshness: to the pipeline")
        return plan

    @property
    def _appends(self) -> bool:
        """Whether an endpoint appends."""
        return any(self.writings[name].mode is WriteMode.APPEND for name, item in self.drafts.items() if item.plugin.role == "endpoint")

    def _add(self, key: str, message: str, *, hint: str) -> None:
        self.findings.add((*self.path, key), message, hint=hint)

    def _name(self) -> str:
        options = self.options
        several = sum(item.type == options.type for item in self.model.sensors) > 1
        own = options.name or (f"{options.type}_{options.step}" if several and options.step else options.type)
        return _NOT_NAME.sub("_", f"{self.model.pipeline_name}_{own}_sensor")

    def _files(self, plan: SensorPlan) -> SensorPlan | None:
        draft = self._source(files=True)
        if draft is None:
            return None
        exact = self.model.windows is None and self._appends
        if exact and not issubclass(draft.plugin.implementation, TakesFiles):
            self._add(
                "type",
                f"{draft.plugin.kind} cannot be read file by file, and an endpoint appends without windows: rows would come twice",
                hint="give the pipeline windows, or let its endpoints replace or upsert",
            )
        self._refuse_appended_windows(draft)
        if self.options.marker and not issubclass(draft.plugin.implementation, TakesFiles):
            self._add("marker", f"files of {draft.plugin.kind} appear whole and have no markers", hint="remove the key")
        if exact and len([item for item in self.drafts.values() if item.plugin.role == "source"]) > 1:
            self._add(
                "type",
                "an endpoint appends without windows, and there are several sources: which rows a new file adds cannot be told",
                hint="give the pipeline windows, or let its endpoints replace or upsert",
            )
        return replace(plan, step=draft.id, exact=exact)

    def _rows(self, plan: SensorPlan) -> SensorPlan | None:
        draft = self._source(files=False)
        if draft is None or draft.options is None:
            return None
        query = str(getattr(draft.options, "query", None) or "")
        if any(word in query for word in _CUTS_WINDOW):
            hint = "leave the window out of the query: event_time_column filters it"
            self._add("step", f"the query of {draft.id!r} cuts its window out by itself, so it cannot be asked for new rows", hint=hint)
        cursor = self.options.cursor or self.writings[draft.id].window_column or self.model.event_time_column
        if cursor is None:
            hint = "add cursor: with the column that grows with each new row, or event_time_column: to the pipeline"
            self._add("type", "a rows sensor needs to know which column tells new rows", hint=hint)
        self._refuse_appended_windows(draft)
        if not issubclass(draft.plugin.implementation, TellsHorizon) and "delay" not in self.options.model_fields_set:
            message = f"{draft.plugin.kind} cannot tell which transactions are open, so rows that come late could be passed over"
            self._add("type", message, hint="add delay: with how late a row may appear after the time it carries, e.g. delay: 10min")
        return replace(plan, step=draft.id, cursor=cursor)

    def _refuse_appended_windows(self, draft: Draft) -> None:
        """What comes for a window that was appended would be lost; unless the path names the window, so that each has files of its own."""
        path = str(draft.model.config.get("file_path", ""))
        if self.model.windows is not None and self._appends and not any(word in path for word in _CUTS_WINDOW):
            message = (
                "an endpoint appends windows, which are never rewritten: what comes for a window that is published would not be loaded"
            )
            self._add("type", message, hint="add event_time_column: to the pipeline, so that windows are replaced; or let it upsert")

    def _source(self, *, files: bool) -> Draft | None:
        """The source step that the sensor is about; adds a problem when there is none."""
        sources = {name: draft for name, draft in self.drafts.items() if draft.plugin.role == "source"}
        fitting = [name for name, draft in sources.items() if issubclass(draft.plugin.implementation, ListsFiles) == files]
        named = self.options.step
        if named is not None and named not in sources:
            what = "is not a source" if named in self.drafts else "does not exist"
            self._add("step", f"step {named!r} {what}", hint=suggest(named, fitting, noun="sources"))
            return None
        if named is None and len(fitting) == 1:
            named = fitting[0]
        if named is None:
            noun = "files" if files else "rows of a table"
            which = f"has several sources of {noun}" if fitting else f"has no source of {noun}"
            hint = f"add step: one of {', '.join(fitting)}" if fitting else f"a {self.options.type} sensor looks at a source step"
            self._add("type", f"pipeline {self.model.pipeline_name!r} {which}", hint=hint)
            return None
        if named not in fitting:
            kind, other = sources[named].plugin.kind, "rows" if files else "files"
            is_what = "has no files to look at" if files else "consists of files"
            message = f"step {named!r} reads from {kind}, which {is_what}"
            self._add("step" if self.options.step else "type", message, hint=f"write type: {other}, or name another step")
            return None
        return sources[named]


def refuse_same_sensors(pipelines: Iterable[tuple[Sequence[SensorPlan], Findings]]) -> None:
    """Add a problem for each sensor whose name another one of the project has already."""
    seen: dict[str, SensorPlan] = {}
    for sensors, findings in pipelines:
        for plan in sensors:
            if plan.name in seen:
                message = f"the sensor name {plan.name!r} is used twice, first at {seen[plan.name].place}"
                findings.problems.append(findings.places.problem_at(plan.place, message, hint="give one of them a name:"))
            seen.setdefault(plan.name, plan)


def with_upstream(
    sensors: Iterable[SensorPlan], *, pipeline: str, before: Iterable[str], keys: Mapping[tuple[str, ...], str]
) -> tuple[SensorPlan, ...]:
    """The sensors with the pipelines that they wait for: those named, else all that come `before`; an asset of the project (`keys`:
    asset key -> pipeline) is its pipeline."""
    return tuple(_upstream(plan, pipeline, before, keys) if plan.options.type == "upstream" else plan for plan in sensors)


def _upstream(plan: SensorPlan, pipeline: str, before: Iterable[str], keys: Mapping[tuple[str, ...], str]) -> SensorPlan:
    assets = {tuple(legal(part) for part in key): key for key in plan.assets}
    ours = [keys[key] for key in assets if key in keys and keys[key] != pipeline]
    outside = tuple(key for legalized, key in assets.items() if legalized not in keys)
    named = [*plan.options.pipelines, *ours]
    if not named and not outside:
        named = list(before)
    return replace(plan, upstream=tuple(dict.fromkeys(named)), assets=outside)


def refuse_bad_upstreams(
    sensors: Sequence[SensorOptions], *, pipeline: str, names: Sequence[str], before: Sequence[str], findings: Findings
) -> None:
    """Add a problem for each upstream sensor that names an unknown pipeline, itself, or nothing where nothing comes before it."""
    for index, options in enumerate(sensors):
        if options.type != "upstream":
            continue
        for number, name in enumerate(options.pipelines):
            if name == pipeline:
                findings.add(("sensors", index, "pipelines", number), f"pipeline {name!r} cannot wait for itself", hint="name another one")
            elif name not in names:
                hint = suggest(name, [item for item in names if item != pipeline], noun="pipelines")
                findings.add(("sensors", index, "pipelines", number), f"there is no pipeline {name!r} to wait for", hint=hint)
        if not options.pipelines and not options.assets and not before:
            message = f"no pipeline comes before {pipeline!r}, so its upstream sensor would wait for ever"
            findings.add(("sensors", index, "type"), message, hint="add pipelines: or assets: to the sensor")
