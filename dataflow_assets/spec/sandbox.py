"""Jinja, made safe: what a template may say and how much work it may cause.

Here: the environment, its filters and its limits; this module imports jinja2, so `spec.templates` imports it late. Not here:
the names a template can use (`spec.templates`), SQL (`spec.sql_text`).

A template is data from a user: attributes and callables are allowed by list and not forbidden by list, loops and literals draw on a
budget, and nothing is folded at compile time, when no budget is running.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.filters import FILTERS
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import Context, LoopContext, missing
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import pass_context

from dataflow_assets.spec import template_values as values

MAX_TEMPLATE = 200_000
MAX_TEXT = 1_000_000
MAX_STEPS = 200_000
MAX_BITS = 4_096
NAMES = "\0names"
BUDGET = "\0budget"

_TIME = "year month day isoformat strftime replace weekday isoweekday isocalendar toordinal"
_ATTRIBUTES: dict[type, frozenset[str]] = {
    kind: frozenset(names.split())
    for kind, names in {
        str: "lower upper strip lstrip rstrip startswith endswith split rsplit partition rpartition title capitalize isdigit isalpha "
        "isalnum removeprefix removesuffix find",
        datetime: f"{_TIME} hour minute second microsecond date time timestamp astimezone utcoffset tzinfo",
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
_FILTERS = (
    "abs attr_free capitalize count d default dictsort first float int items last length list lower map max min reject rejectattr reverse "
    "select selectattr sort title trim truncate unique upper"
)


class UndefinedName(UndefinedError):
    """A name, or a part of something, that does not exist."""

    def __init__(self, message: str, *, name: Any, owner: Any) -> None:
        super().__init__(message)
        self.missing_name, self.owner = name, owner


class _Missing(StrictUndefined):
    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = UndefinedError) -> None:
        super().__init__(hint, obj, name, exc if exc is SecurityError else partial(UndefinedName, name=name, owner=obj))


@dataclass(frozen=True)
class Value:
    """What one `{{ label }}` of a template stands for."""

    value: Any
    label: str


@dataclass
class Budget:
    """How much a rendering may still do; characters count a hundredth of a step."""

    steps: float = MAX_STEPS

    def charge(self, steps: float) -> None:
        """Take `steps` off. Raises SecurityError when none is left."""
        self.steps -= steps
        if self.steps < 0:
            raise SecurityError("the template does too much work")


class _Names(Context):
    """Looks a name up only when the template asks for it, so that variables nobody uses are never rendered."""

    def resolve_or_missing(self, key: str) -> Any:
        """The value of a name, or jinja's `missing`."""
        found = super().resolve_or_missing(key)
        return self.parent[NAMES](key, missing) if found is missing and not key.startswith("_") else found


class _Environment(SandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    code_generator_class = NativeCodeGenerator
    context_class = _Names

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what the list above names."""
        return _is_listed(obj, attr)

    def is_safe_callable(self, obj: Any) -> bool:
        """Listed methods of listed types, and the functions that templates are given."""
        if isinstance(obj, (types.BuiltinMethodType, types.MethodType)) and not isinstance(obj.__self__, types.ModuleType):
            return _is_listed(obj.__self__, obj.__name__)
        return getattr(obj, "is_template_function", False) is True and isinstance(obj, types.FunctionType)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """In a mapping the user's own keys come before its methods."""
        return obj[attribute] if isinstance(obj, Mapping) and attribute in obj else super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic whose result is bounded before it is computed."""
        _check_operands(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, (str, list, tuple)):
            _charge(context.parent[BUDGET], result)
        return result


def _is_listed(obj: Any, name: str) -> bool:
    allowed = next((_ATTRIBUTES[kind] for kind in type(obj).__mro__ if kind in _ATTRIBUTES), frozenset())
    return name in allowed


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, (str, bytes)):
        raise SecurityError("% does not format text here; join with ~")
    if operator == "*" and any(isinstance(side, (str, bytes, list, tuple)) for side in (left, right)):
        text, times = (left, right) if isinstance(right, int) else (right, left)
        if isinstance(times, int) and len(text) * max(times, 0) > MAX_STEPS:
            raise SecurityError("the product is too long")
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length() if operator == "*" else 0
        if bits > MAX_BITS:
            raise SecurityError("the number is too large")


def _charge(budget: Budget, value: Any) -> None:
    """Take the size of `value`, with everything inside written out, off the budget, and refuse text that is too long."""
    stack = [value]
    while stack:
        item = stack.pop()
        budget.charge(1)
        if isinstance(item, str):
            budget.charge(len(item) / 100)
            if len(item) > MAX_TEXT:
                raise SecurityError(f"the text is longer than {MAX_TEXT:,} characters")
        elif isinstance(item, Mapping):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack += item


def _checked(value: Any) -> Any:
    if isinstance(value, Undefined):
        value._fail_with_undefined_error()
    return value


@pass_context
def _output(context: Context, value: Any, label: str) -> Value:
    value = list(value) if isinstance(value, (Iterator, types.GeneratorType)) or type(value).__name__.startswith("dict_") else _checked(value)
    _charge(context.parent[BUDGET], value)
    if callable(value) and not isinstance(value, type(missing)):
        raise SecurityError(f"{label} is a function: write {label}()")
    return Value(value, label)


@pass_context
def _bounded(context: Context, value: Any) -> Iterator[Any]:
    items: Iterable[Any] = _checked(value)
    for item in items:
        context.parent[BUDGET].charge(1)
        yield item


@pass_context
def _measured(context: Context, value: Any) -> Any:
    _charge(context.parent[BUDGET], value)
    return value


@pass_context
def _joined(context: Context, value: Any, separator: Any = "", attribute: Any = None) -> str:
    items = [_checked(item) for item in _bounded(context, value)]
    if attribute is not None:
        items = [_checked(context.environment.getitem(item, attribute)) for item in items]
    _charge(context.parent[BUDGET], items)
    texts = [values.text_of(item, label="item") for item in items]
    length = sum(map(len, texts)) + len(str(separator)) * len(texts)
    context.parent[BUDGET].charge(length / 100)
    if length > MAX_TEXT:
        raise SecurityError(f"the text is longer than {MAX_TEXT:,} characters")
    return str(separator).join(texts)


@pass_context
def _replaced(context: Context, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = (values.text_of(_checked(item), label="value") for item in (value, old, new))
    length = len(text) + text.count(old) * max(len(new) - len(old), 0)
    context.parent[BUDGET].charge(length / 100)
    if length > MAX_TEXT:
        raise SecurityError(f"the text is longer than {MAX_TEXT:,} characters")
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def _string(context: Context, value: Any) -> str:
    _charge(context.parent[BUDGET], _checked(value))
    return values.text_of(value, label="value")


@pass_context
def _summed(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    total = start
    for item in _bounded(context, value):
        number = item if attribute is None else context.environment.getitem(item, attribute)
        if not isinstance(number, (int, float, timedelta)) or not isinstance(total, (int, float, timedelta)):
            raise TypeError("sum adds numbers")
        total = total + number  # type: ignore[operator]
    return total


def _rounded(value: float, precision: int = 0) -> float:
    return round(_checked(value), max(-300, min(precision, 300)))


@pass_context
def _as_day(context: Context, value: Any) -> values.Day:
    return values.as_day(_checked(value), timezone=context.parent[NAMES]("timezone\0"))


@pass_context
def _as_moment(context: Context, value: Any) -> datetime:
    return values.as_moment(_checked(value), timezone=context.parent[NAMES]("timezone\0"))


def _as_identifier(value: Any) -> values.Identifier:
    return values.as_identifier(_checked(value))


@lru_cache(maxsize=1)
def environment() -> _Environment:
    """The one environment; it keeps no state of any rendering."""
    made = _Environment(undefined=_Missing, optimized=False, autoescape=False, keep_trailing_newline=True, cache_size=0)
    made.globals.clear()
    kept = {name: FILTERS[name] for name in _FILTERS.split() if name in FILTERS}
    own: dict[str, Callable[..., Any]] = {
        "as_date": _as_day,
        "as_datetime": _as_moment,
        "identifier": _as_identifier,
        "join": _joined,
        "replace": _replaced,
        "string": _string,
        "sum": _summed,
        "round": _rounded,
    }
    made.filters.clear()
    made.filters.update(kept | own | {"output\0": _output, "bounded\0": _bounded, "measured\0": _measured, "joined\0": _joined})
    return made


@dataclass(frozen=True)
class Compiled:
    """A template ready to run. `exact`: the whole text is one `{{ expression }}`, so its value keeps its type."""

    template: Template
    exact: bool
    names: frozenset[str]

    def run(self, lookup: Callable[..., Any]) -> list[str | Value]:
        """The text and the values, in order."""
        context = self.template.new_context({NAMES: lookup, BUDGET: Budget()})
        return list(self.template.root_render_func(context))  # type: ignore[arg-type]


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
        if isinstance(node, nodes.For) and node.recursive:
            raise SecurityError("a recursive loop is not offered here")
        for name, child in list(node.iter_fields()):
            if isinstance(child, list):
                setattr(node, name, [self.visit(item) if isinstance(item, nodes.Node) else item for item in child])
            elif isinstance(child, nodes.Node):
                setattr(node, name, self.visit(child))
        if isinstance(node, nodes.For):
            node.iter = _filtered(node.iter, "bounded\0")
        return self._measured(node)

    def _output(self, child: nodes.Expr) -> nodes.Expr:
        if isinstance(child, nodes.TemplateData):
            return child
        label = next(self._labels, "")
        visited = self.visit(child)
        return _filtered(visited, "output\0", nodes.Const(label, lineno=child.lineno))

    @staticmethod
    def _measured(node: nodes.Node) -> nodes.Node:
        if isinstance(node, nodes.Concat):
            return _filtered(nodes.List(node.nodes, lineno=node.lineno), "joined\0")
        if isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
            return _filtered(node, "measured\0")
        return node


def _filtered(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    made = nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
    made.set_environment(environment())
    return made
