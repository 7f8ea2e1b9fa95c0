"""Jinja, made safe: what a template may say and how much work it may cause.

Here: the environment, what is rewritten in a parsed template, what a value lets a template see. It imports jinja2, so
`spec.templates` imports it late. Not here: the filters (`spec.filters`), the limits (`spec.budget`), the names (`spec.template_context`).

A template is data from a user: attributes and callables are allowed by list and not forbidden by list, loops and literals draw on a
budget, and nothing is folded at compile time, when no budget is running.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import missing

from dataflow_assets.spec import filters
from dataflow_assets.spec import template_values as values
from dataflow_assets.spec.budget import Budget, charge_value, check_operands, limit_text
from dataflow_assets.spec.filters import Value

MAX_TEMPLATE = 200_000
_LOOKUP = "\0lookup"

_TIME = "year month day isoformat strftime replace weekday isoweekday isocalendar toordinal"
_ATTRIBUTES: dict[type, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        str: "lower upper strip lstrip rstrip startswith endswith split rsplit partition rpartition title capitalize isdigit isalpha "
        "isalnum removeprefix removesuffix find",
        datetime: f"{_TIME} hour minute second microsecond date time timestamp astimezone utcoffset",
        date: _TIME,
        timedelta: "days seconds microseconds total_seconds",
        dict: "items keys values get",
        list: "index count",
        tuple: "index count start end",
        values.WindowNames: "start end key",
        values.StateNames: "get",
        values.IncrementalNames: "get_date_range_to_process",
        LoopContext: "index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle changed",
    }.items()
}
_STATEMENTS = (nodes.Template, nodes.Output, nodes.If, nodes.For, nodes.Assign, nodes.AssignBlock)


class UndefinedName(UndefinedError):
    """A name, or a part of something, that does not exist."""

    def __init__(self, message: str, *, name: Any, owner: Any) -> None:
        super().__init__(message)
        self.missing_name, self.owner = name, owner


class _Missing(StrictUndefined):
    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = UndefinedError) -> None:
        failure: Any = exc if exc is SecurityError else partial(UndefinedName, name=name, owner=obj)
        super().__init__(hint, obj, name, failure)


class _Names(Context):
    """Looks a name up only when the template asks for it, so that variables nobody uses are never rendered."""

    def resolve_or_missing(self, key: str) -> Any:
        """The value of a name, or jinja's `missing`."""
        found = super().resolve_or_missing(key)
        return self.parent[_LOOKUP](key, missing) if found is missing and not key.startswith("_") else found


def offered_by(obj: Any) -> frozenset[str]:
    """The attributes and methods of a value that templates may use."""
    return next((_ATTRIBUTES[kind] for kind in type(obj).__mro__ if kind in _ATTRIBUTES), frozenset())


class _Environment(SandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    code_generator_class = NativeCodeGenerator
    context_class = _Names
    concat = staticmethod(filters.concatenated)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what the list above names."""
        return attr in offered_by(obj)

    def is_safe_callable(self, obj: Any) -> bool:
        """Listed methods of listed types, and the functions that templates are given."""
        if isinstance(obj, (types.BuiltinMethodType, types.MethodType)) and not isinstance(obj.__self__, types.ModuleType):
            return obj.__name__ in offered_by(obj.__self__)
        return getattr(obj, "is_template_function", False) is True and isinstance(obj, types.FunctionType)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """In a mapping the user's own keys come before its methods."""
        return obj[attribute] if isinstance(obj, Mapping) and attribute in obj else super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic whose result is bounded before it is computed."""
        check_operands(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, (str, list, tuple)):
            charge_value(context.parent[filters.BUDGET], result)
        return result


@lru_cache(maxsize=1)
def environment() -> _Environment:
    """The one environment; it keeps no state of any rendering."""
    made = _Environment(undefined=_Missing, optimized=False, autoescape=False, keep_trailing_newline=True, cache_size=0)
    made.globals.clear()
    made.filters.clear()
    made.filters.update(filters.offered())
    return made


@dataclass(frozen=True)
class Compiled:
    """A template ready to run. `exact`: the whole text is one `{{ expression }}`, so its value keeps its type."""

    template: Template
    exact: bool
    names: frozenset[str]

    def run(self, lookup: Callable[..., Any], *, timezone: str) -> list[str | Value]:
        """The text and the values, in order; `lookup(name, default)` is asked for each name the template reaches."""
        context = self.template.new_context({_LOOKUP: lookup, filters.BUDGET: Budget(), filters.TIMEZONE: timezone})
        parts: list[str | Value] = list(self.template.root_render_func(context))
        limit_text(sum(len(part) for part in parts if isinstance(part, str)))
        return parts


@lru_cache(maxsize=512)
def compiled(text: str) -> Compiled:
    """Parse and compile a template. Raises jinja2's errors, and SecurityError for statements that are not offered."""
    from jinja2.meta import find_undeclared_variables

    if len(text) > MAX_TEMPLATE:
        raise SecurityError(f"the template is longer than {MAX_TEMPLATE:,} characters")
    env = environment()
    tree = env.parse(text)
    names = frozenset(find_undeclared_variables(tree)) | frozenset(_names_by_function(tree))
    outputs = [child for node in tree.body for child in (node.nodes if isinstance(node, nodes.Output) else [node])]
    if len(outputs) == 2 and isinstance(outputs[1], nodes.TemplateData) and outputs[1].data == "\n":
        outputs.pop()
    exact = len(outputs) == 1 and isinstance(outputs[0], nodes.Expr) and not isinstance(outputs[0], nodes.TemplateData)
    _Guard(_labels(env, text)).visit(tree)
    code = env.compile(tree)
    return Compiled(Template.from_code(env, code, {}), exact, names)


def _names_by_function(tree: nodes.Template) -> Iterator[str]:
    """The names in `var('name')`."""
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "var" and call.args and isinstance(call.args[0], nodes.Const):
            yield str(call.args[0].value)


def _labels(env: _Environment, text: str) -> list[str]:
    """The source of every `{{ }}`, in order."""
    labels: list[str] = []
    inside = False
    for _, token, source in env.lex(text):
        if token == "variable_begin":
            labels.append("")
            inside = True
        elif token == "variable_end":
            inside = False
        elif inside:
            labels[-1] += source
    return [" ".join(label.split())[:80] for label in labels]


class _Guard:
    """Rewrites a parsed template so that outputs are kept apart and loops, literals and joins draw on the budget."""

    def __init__(self, labels: list[str]) -> None:
        self._labels = iter(labels)

    def visit(self, node: nodes.Node) -> nodes.Node:
        """Refuse or rewrite `node` and everything below it."""
        if isinstance(node, nodes.Stmt | nodes.Template) and not isinstance(node, _STATEMENTS):
            raise SecurityError(f"{{% {type(node).__name__.lower()} %}} is not offered here; if, for and set are")
        if isinstance(node, nodes.Output):
            node.nodes = [self._output(child) for child in node.nodes]
            return node
        if isinstance(node, nodes.Name) and node.name in {"self", "super"}:
            raise SecurityError(f"{node.name} is not offered here")
        if isinstance(node, nodes.For) and node.recursive:
            raise SecurityError("a recursive loop is not offered here")
        for name, child in list(node.iter_fields()):
            if isinstance(child, list):
                setattr(node, name, [self.visit(item) if isinstance(item, nodes.Node) else item for item in child])
            elif isinstance(child, nodes.Node):
                setattr(node, name, self.visit(child))
        if isinstance(node, nodes.For):
            node.iter = _filtered(node.iter, filters.BOUNDED)
        return self._measured(node)

    def _output(self, child: nodes.Expr) -> nodes.Expr:
        if isinstance(child, nodes.TemplateData):
            return child
        label = next(self._labels, "")
        visited = self.visit(child)
        return _filtered(visited, filters.OUTPUT, nodes.Const(label, lineno=child.lineno))

    @staticmethod
    def _measured(node: nodes.Node) -> nodes.Node:
        if isinstance(node, nodes.Concat):
            return _filtered(nodes.List(node.nodes, lineno=node.lineno), filters.JOINED)
        if isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
            return _filtered(node, filters.MEASURED)
        return node


def _filtered(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    made = nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
    made.set_environment(environment())
    return made
