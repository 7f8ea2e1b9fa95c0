"""What a pandera model asks for, read from its source without running it: importing pandera costs a second, reading a file a millisecond.

Here: from `models.py:Orders` to the names of its checks, and to what is plainly wrong with the reference. Not here: the model itself
(`checks._pandera_model`). The reading is a naming aid: what it does not see is asked all the same, and reported under the model's
one result for everything else.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

from dataflow_assets.checks._metric import slug
from dataflow_assets.protocols import CheckPromise, Mistake, Scope
from dataflow_assets.user_code import top_level_names

NOT_NULLABLE, UNIQUE = "not_nullable", "unique"
SHORT = {
    "equal_to": "eq",
    "not_equal_to": "ne",
    "greater_than": "gt",
    "greater_than_or_equal_to": "ge",
    "less_than": "lt",
    "less_than_or_equal_to": "le",
}
"""pandera's name of a check -> the shorter one under which a field asks for it."""
_LONG = {short: name for name, short in SHORT.items()}
_SETTINGS = frozenset(
    [
        *("nullable", "required", "unique", "coerce", "regex", "ignore_na", "raise_warning", "n_failure_cases", "alias", "check_name"),
        *("dtype_kwargs", "title", "description", "default", "metadata", "on_missing"),
    ]
)
"""Keywords of a field that ask nothing of its values."""
_MODELS = ("DataFrameModel", "SchemaModel")


@dataclass(frozen=True)
class Asked:
    """One thing that the model asks: pandera's name of the check, of a column or (column empty) of the rows as a whole."""

    column: str
    check: str
    warns: bool = False


@dataclass(frozen=True)
class Reference:
    """`module:Model` or `file.py:Model`."""

    where: str
    name: str

    @classmethod
    def of(cls, text: str) -> Reference:
        """Raises ValueError for text of another form."""
        where, colon, name = text.rpartition(":")
        module = where if not where.endswith(".py") else "x"
        if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"{text!r} names no model: write 'module:Model', or 'file.py:Model' with the file relative to the project")
        return cls(where, name)

    @property
    def is_file(self) -> bool:
        """Whether it names a file rather than a module."""
        return self.where.endswith(".py")

    def path(self, project_dir: Path) -> Path:
        """Where the model stands, if it is the project's own."""
        if self.is_file:
            return project_dir / self.where
        module = project_dir / self.where.replace(".", "/")
        return module / "__init__.py" if module.is_dir() else module.with_suffix(".py")

    def mistakes(self, project_dir: Path, *, key: str) -> list[Mistake]:
        """A file that is not there or is no Python, a model that it does not define. Of an installed module nothing is said."""
        path = self.path(project_dir)
        if not path.is_file():
            return [Mistake((key,), f"there is no file {self.where}", f"it is relative to {project_dir}")] if self.is_file else []
        try:
            names = top_level_names(ast.parse(path.read_bytes(), filename=str(path)))
        except (SyntaxError, ValueError) as error:
            return [Mistake((key,), f"{path}:{getattr(error, 'lineno', None) or 1}: {getattr(error, 'msg', error)}")]
        if self.name in names or "*" in names:
            return []
        near = difflib.get_close_matches(self.name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it defines {', '.join(names) or 'nothing'}"
        return [Mistake((key,), f"{path.name} has no model {self.name!r}", hint)]

    def asked(self, project_dir: Path) -> tuple[Asked, ...]:
        """What the model is seen to ask, in the order written; nothing when its source is not at hand."""
        path = self.path(project_dir)
        try:
            status = path.stat()
        except OSError:
            return ()
        return _asked(path, self.name, status.st_mtime_ns, status.st_size)


def promised(prefix: str, asked: Sequence[Asked], *, reference: str, blocking: bool, aside: bool) -> list[CheckPromise]:
    """The promises of a model: `prefix` for the model as a whole, then one for each thing seen to be asked."""
    promises = [CheckPromise(prefix, f"columns, types and everything else that {reference} asks", blocking, aside)]
    taken = {prefix}
    for item in asked:
        end = {NOT_NULLABLE: "not_null", UNIQUE: "unique"}.get(item.check) or SHORT.get(item.check) or slug(item.check)
        plain = "_".join(filter(None, (prefix, slug(item.column) if item.column else "", end)))
        name = next(name for number in count(1) if (name := plain if number == 1 else f"{plain}_{number}") not in taken)
        taken.add(name)
        words = item.check.replace("_", " ")
        scope = Scope.ROWS if item.check == UNIQUE else Scope.ROW
        told = f"{item.column}: {words}" if item.column else words
        promises.append(CheckPromise(name, told, blocking and not item.warns, aside, scope))
    return promises


@lru_cache(maxsize=256)
def _asked(path: Path, name: str, _modified: int, _size: int) -> tuple[Asked, ...]:
    try:
        module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return ()
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    if name in classes:
        return tuple(dict.fromkeys(_of_class(name, classes)))
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        call = getattr(node, "value", None)
        if any(isinstance(target, ast.Name) and target.id == name for target in targets) and _called(call) == "DataFrameSchema":
            return tuple(dict.fromkeys(_of_schema(call)))  # type: ignore[arg-type]
    return ()


def _of_class(name: str, classes: dict[str, ast.ClassDef]) -> Iterator[Asked]:
    lineage = _lineage(name, classes)
    if not lineage:
        return
    fields: dict[str, ast.AnnAssign] = {}
    for one in lineage:
        fields.update({node.target.id: node for node in one.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)})
    columns = {attribute: _column(attribute, node) for attribute, node in fields.items() if _is_column(attribute, node)}
    for attribute, column in columns.items():
        yield from _of_field(column, fields[attribute].value)
    methods = {node.name: node for one in lineage for node in one.body if isinstance(node, ast.FunctionDef)}
    for method in methods.values():
        yield from _of_method(method, columns)
    for one in lineage:
        for node in one.body:
            if isinstance(node, ast.ClassDef) and node.name == "Config":
                yield from _of_config(node)


def _lineage(name: str, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """The class and those of the file it is made from, the farthest first; empty when it is no model for all that can be seen."""
    found: list[ast.ClassDef] = []
    waiting, model = [name], False
    while waiting:
        node = classes.get(waiting.pop())
        if node is None or node in found:
            continue
        found.insert(0, node)
        bases = [_last(base) for base in node.bases]
        model = model or any(base in _MODELS for base in bases)
        waiting += bases
    return found if model else []


def _is_column(attribute: str, node: ast.AnnAssign) -> bool:
    annotation = ast.unparse(node.annotation)
    return not attribute.startswith("_") and "ClassVar" not in annotation and not annotation.rpartition(".")[2].startswith("Index[")


def _column(attribute: str, node: ast.AnnAssign) -> str:
    alias = _constant(_keywords(node.value).get("alias"))
    return alias if isinstance(alias, str) else attribute


def _of_field(column: str, value: ast.expr | None) -> Iterator[Asked]:
    words = _keywords(value) if _called(value) == "Field" else {}
    if _constant(words.get("regex")) is True:
        return
    if _constant(words.get("nullable")) is not True:
        yield Asked(column, NOT_NULLABLE)
    if _constant(words.get("unique")) is True:
        yield Asked(column, UNIQUE)
    warns = _constant(words.get("raise_warning")) is True
    for word in words:
        if word not in _SETTINGS:
            yield Asked(column, _LONG.get(word, word), warns)


def _of_method(method: ast.FunctionDef, columns: dict[str, str]) -> Iterator[Asked]:
    for decorator in method.decorator_list:
        kind = _called(decorator) or _last(decorator)
        words = _keywords(decorator)
        given = _constant(words.get("name"))
        name, warns = given if isinstance(given, str) else method.name, _constant(words.get("raise_warning")) is True
        if kind == "dataframe_check":
            yield Asked("", name, warns)
        elif kind == "check" and isinstance(decorator, ast.Call) and _constant(words.get("regex")) is not True:
            for argument in decorator.args:
                if isinstance(column := _constant(argument), str):
                    yield Asked(columns.get(column, column), name, warns)


def _of_config(node: ast.ClassDef) -> Iterator[Asked]:
    for item in node.body:
        if isinstance(item, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "unique" for target in item.targets):
            yield from _together(item.value)


def _together(value: ast.expr | None) -> Iterator[Asked]:
    columns = _constant(value)
    columns = [columns] if isinstance(columns, str) else columns
    if isinstance(columns, list | tuple) and columns and all(isinstance(column, str) for column in columns):
        yield Asked(",".join(columns), UNIQUE)


def _of_schema(call: ast.Call) -> Iterator[Asked]:
    words = _keywords(call)
    columns = call.args[0] if call.args else words.get("columns")
    if isinstance(columns, ast.Dict):
        for key, value in zip(columns.keys, columns.values, strict=True):
            name = _constant(key)
            if isinstance(name, str) and isinstance(value, ast.Call) and _called(value) == "Column":
                yield from _of_column(name, value)
    yield from _of_checks("", words.get("checks"))
    yield from _together(words.get("unique"))


def _of_column(name: str, call: ast.Call) -> Iterator[Asked]:
    words = _keywords(call)
    if _constant(words.get("regex")) is True:
        return
    if _constant(words.get("nullable")) is not True:
        yield Asked(name, NOT_NULLABLE)
    if _constant(words.get("unique")) is True:
        yield Asked(name, UNIQUE)
    yield from _of_checks(name, call.args[1] if len(call.args) > 1 else words.get("checks"))


def _of_checks(column: str, value: ast.expr | None) -> Iterator[Asked]:
    for item in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
        if not isinstance(item, ast.Call):
            continue
        words = _keywords(item)
        given, warns = _constant(words.get("name")), _constant(words.get("raise_warning")) is True
        if isinstance(given, str):
            yield Asked(column, given, warns)
        elif isinstance(item.func, ast.Attribute) and _last(item.func.value) == "Check":
            yield Asked(column, _LONG.get(item.func.attr, item.func.attr), warns)
        elif _last(item.func) == "Check" and item.args and isinstance(item.args[0], ast.Name):
            yield Asked(column, item.args[0].id, warns)


def _called(node: ast.AST | None) -> str:
    return _last(node.func) if isinstance(node, ast.Call) else ""


def _last(node: ast.AST) -> str:
    """The last name of `a.b.c`, whatever it is subscripted with."""
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _keywords(node: ast.AST | None) -> dict[str, ast.expr]:
    return {word.arg: word.value for word in node.keywords if word.arg} if isinstance(node, ast.Call) else {}


def _constant(node: ast.AST | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
