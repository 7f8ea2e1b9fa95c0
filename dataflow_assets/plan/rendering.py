"""Templates at plan time: what is wrong with them, and the values that are known before anything runs.

Here: names against the names there will be, and rendering of what variables and the environment alone decide. Not here: rendering
for a run (`spec.templates`, called by `execution`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from dataflow_assets.errors import TemplateError
from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.names import suggest
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.spec.project import Path_, Project
from dataflow_assets.spec.template_context import TemplateContext
from dataflow_assets.spec.templates import has_template, list_names, render

_WINDOW = frozenset({"window", "batch_start", "batch_end", "batch_period"})
_BLOCK = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PLAIN = re.compile(r"""\s*(?:var\(\s*(?P<quote>['"])(?P<variable>\w+)(?P=quote)\s*\)|(?P<name>[A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)*)\s*""")
_NO = frozenset({"", "0", "false", "no", "off", "none"})
_KNOWN_BEFORE = frozenset({"var", "env_var", "event_time_column"})


def is_enabled(project: Project, pipeline: PipelineModel) -> bool:
    """Whether a pipeline is part of the project: its `enabled`, rendered. Raises TemplateError."""
    if isinstance(pipeline.enabled, bool):
        return pipeline.enabled
    value = render(pipeline.enabled, Renderer(project, pipeline).context)
    return value if isinstance(value, bool) else str(value).strip().lower() not in _NO


class Renderer:
    """What the templates of one pipeline can name."""

    def __init__(self, project: Project, pipeline: PipelineModel) -> None:
        self.root = project.root
        self._pipeline = pipeline
        self._variables: Mapping[str, Any] = {**project.model.vars, **pipeline.variables, **project.overrides}
        self.context = TemplateContext(
            project_variables=project.model.vars,
            pipeline_variables=pipeline.variables,
            overrides=project.overrides,
            environment=project.environment,
            now=datetime(2000, 1, 1, tzinfo=UTC),  # never shown: what depends on the clock is not rendered here
            event_time_column=pipeline.event_time_column,
        )

    def refuse_mistakes(self, value: Any, path: Path_, findings: Findings, *, where: str) -> None:
        """Add a problem for each malformed template inside `value` and for each name that will not be there."""
        for inner, text in _texts(value):
            if self._is_plain(text):
                continue
            try:
                names = list_names(text)
            except TemplateError as error:
                findings.add((*path, *inner), f"{where}: {error.message}", hint=error.hint)
                continue
            for name in sorted(names - self._names):
                self._refuse(name, text, (*path, *inner), findings, where=where)

    def _is_plain(self, text: str) -> bool:
        """Whether it holds nothing but names that are there, as `{{ window.start }}`: then jinja need not be imported."""
        blocks = [_PLAIN.fullmatch(block) for block in _BLOCK.findall(text)]
        if "{%" in text or "{#" in text or len(blocks) != text.count("{{"):
            return False
        return all(match and (match["variable"] or match["name"]) in self._own_names for match in blocks)

    def _refuse(self, name: str, text: str, path: Path_, findings: Findings, *, where: str) -> None:
        if name in _WINDOW:
            findings.add(path, f"{where}: {name!r} is known only in a pipeline with windows", hint="add a windows: block to the pipeline")
        elif name == "event_time_column":
            findings.add(path, f"{where}: the pipeline has no event_time_column", hint="add event_time_column: to the pipeline")
        elif not re.search(rf"""\bvar\(\s*(['"]){re.escape(name)}\1\s*,""", text):
            near = suggest(name, self._names)
            hint = near if near.startswith("did") else f"set it under `variables:` or with --vars, or write var({name!r}, a default)"
            findings.add(path, f"{where}: there is no variable or function {name!r}", hint=hint)

    @cached_property
    def _own_names(self) -> frozenset[str]:
        own = frozenset(self.context.names)
        return own | _WINDOW if self._pipeline.windows else own - _WINDOW

    @cached_property
    def _names(self) -> frozenset[str]:
        from dataflow_assets.spec.sandbox import environment

        return self._own_names | frozenset(environment().globals)

    def settled(self, value: Any, *, keep: frozenset[str] = frozenset()) -> Any:
        """`value` with every text rendered that variables and the environment decide alone; others, and the keys `keep`, stay."""
        if isinstance(value, str):
            return self._settled_text(value)
        if isinstance(value, Mapping):
            return {key: item if key in keep else self.settled(item) for key, item in value.items()}
        return [self.settled(item) for item in value] if isinstance(value, list) else value

    def _settled_text(self, text: str) -> Any:
        try:
            return render(text, self.context) if has_template(text) and self._is_settled(text, frozenset()) else text
        except TemplateError:
            return text

    def _is_settled(self, text: str, open_names: frozenset[str]) -> bool:
        return all(self._name_is_settled(name, open_names) for name in list_names(text))

    def _name_is_settled(self, name: str, open_names: frozenset[str]) -> bool:
        if name not in self._variables:
            return name in _KNOWN_BEFORE
        inside = (text for _, text in _texts(self._variables[name]))
        return name not in open_names and all(self._is_settled(text, open_names | {name}) for text in inside)


def _texts(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, str]]:
    """Every text inside `value` that holds a template, with its path."""
    if isinstance(value, str):
        if has_template(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, (*path, number))
