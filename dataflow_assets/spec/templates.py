"""Templates: rendering into plain values or into SQL with bound parameters.

Here: what `{{ }}` means in a config, a connection, a variable or a query. Not here: the names (`spec.template_context`), what a
template may do (`spec.sandbox`), the SQL around values (`spec.sql_text`). Text without `{{`, `{%` or `{#` never reaches jinja.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataflow_assets.errors import TemplateError
from dataflow_assets.secrets import looks_secret, register_secret
from dataflow_assets.spec.template_context import MISSING, TemplateContext
from dataflow_assets.spec.template_failures import failures_named
from dataflow_assets.spec.template_values import text_of
from dataflow_assets.tables import Query

if TYPE_CHECKING:
    from dataflow_assets.spec.filters import Value

__all__ = [
    "RenderedConfig",
    "TemplateContext",
    "has_template",
    "list_names",
    "render",
    "render_connection",
    "render_query",
    "rendered_config",
]

_MARKS = ("{{", "{%", "{#")
_ENVIRONMENT = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
MAX_DEPTH = 50


@dataclass(frozen=True)
class RenderedConfig:
    """A step's config: `options` with every template rendered, but SQL fields as written, and these as `queries` by field name."""

    options: dict[str, Any]
    queries: dict[str, Query]


def has_template(text: str) -> bool:
    """Whether text holds anything for jinja."""
    return any(mark in text for mark in _MARKS)


def list_names(text: str) -> frozenset[str]:
    """The bare names and `var('...')` names that a template uses. Raises TemplateError for a template that is malformed."""
    if not has_template(text):
        return frozenset()
    from dataflow_assets.spec.sandbox import compiled

    with failures_named(text, None, ()):
        return compiled(text).names


def render(value: Any, context: TemplateContext) -> Any:
    """Render every text inside `value`; text that is exactly one `{{ expression }}` becomes its value, other text stays text.

    Raises TemplateError naming what is unknown or forbidden, and the key it stands under.
    """
    return render_at(value, context, ())


def render_query(text: str, context: TemplateContext, *, quote_identifier: Callable[[str], str]) -> Query:
    """Render SQL: values become bound parameters, `| identifier` names are quoted by `quote_identifier` and pasted.

    `'{{ x }}'` binds the whole value and `'%{{ x }}%'` the whole text; a list binds each item. Raises TemplateError.
    """
    return _render_query(text, context, quote_identifier, ())


def render_connection(block: Mapping[str, Any], context: TemplateContext) -> dict[str, Any]:
    """Render a connection block; `${NAME}` and `${NAME:-default}` read the environment as `env_var` does. Secrets are registered."""
    rendered = {}
    for key, value in block.items():
        rendered[key] = _connection_value(value, context, (key,))
        if looks_secret(key) and isinstance(rendered[key], str):
            register_secret(rendered[key])
    return rendered


def rendered_config(
    config: Mapping[str, Any], context: TemplateContext, *, sql_fields: Collection[str], quote_identifier: Callable[[str], str]
) -> RenderedConfig:
    """Render a step's config, its SQL fields into queries. Raises TemplateError naming the key."""
    options: dict[str, Any] = {}
    queries: dict[str, Query] = {}
    for key, value in config.items():
        if key in sql_fields and isinstance(value, str):
            options[key], queries[key] = value, _render_query(value, context, quote_identifier, (key,))
        else:
            options[key] = render_at(value, context, (key,))
    return RenderedConfig(options, queries)


def _connection_value(value: Any, context: TemplateContext, path: tuple[str, ...]) -> Any:
    """Either a template or `${NAME}` in one text: what the environment holds must not be evaluated."""
    if isinstance(value, Mapping):
        return {key: _connection_value(item, context, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_connection_value(item, context, (*path, str(index))) for index, item in enumerate(value)]
    if not isinstance(value, str) or has_template(value):
        return render_at(value, context, path)
    with failures_named(value, context, path):
        return _ENVIRONMENT.sub(lambda match: _environment_text(match, context), value)


def _environment_text(match: re.Match[str], context: TemplateContext) -> str:
    default = MISSING if match["default"] is None else match["default"]
    return str(context.environment_value(match["name"], default))


def render_at(value: Any, context: TemplateContext, path: tuple[str, ...]) -> Any:
    if len(path) > MAX_DEPTH:
        raise TemplateError(f"{'.'.join(path[:5])} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return _render_text(value, context, path) if has_template(value) else value
    if isinstance(value, Mapping):
        return {key: render_at(item, context, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [render_at(item, context, (*path, str(index))) for index, item in enumerate(value)]
    return value


def _render_text(text: str, context: TemplateContext, path: tuple[str, ...]) -> Any:
    parts, exact = _run(text, context, path)
    with failures_named(text, context, path):
        if exact:
            return next(part for part in parts if not isinstance(part, str)).value
        return "".join(part if isinstance(part, str) else text_of(part.value, label=part.label) for part in parts)


def _render_query(text: str, context: TemplateContext, quote_identifier: Callable[[str], str], path: tuple[str, ...]) -> Query:
    if not has_template(text):
        return Query.of(text)
    from dataflow_assets.spec.sql_text import query_of

    parts, _ = _run(text, context, path)
    with failures_named(text, context, path):
        return query_of(parts, quote_identifier=quote_identifier)


def _run(text: str, context: TemplateContext, path: tuple[str, ...]) -> tuple[list[str | Value], bool]:
    from dataflow_assets.spec.sandbox import compiled

    with failures_named(text, context, path):
        template = compiled(text)
        return template.run(context.lookup, timezone=context.timezone), template.exact
