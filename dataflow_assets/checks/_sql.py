"""SQL conditions as users write them in a rule, read with sqlglot before anything runs.

Here: what may stand in `where`, `expression` and `sql`, and which columns it uses. Not here: evaluating it (`checks._conditions`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

ROWS = "input"
"""The name of the dataset inside a condition, where one must be written."""


@dataclass(frozen=True)
class Condition:
    """A readable condition: the columns it uses as written, and the aggregates in it as DuckDB spells them."""

    text: str
    columns: tuple[str, ...] = ()
    aggregates: tuple[str, ...] = ()


@lru_cache(maxsize=1024)
def row_condition(text: str) -> Condition:
    """A condition on each row, such as `price >= cost`. Raises ValueError with the place for anything else."""
    condition = _read(text)
    if condition.aggregates:
        raise ValueError(
            f"{condition.aggregates[0]} looks at many rows, but this is put to each row alone: "
            "write `sql:` for a condition on aggregates, such as sum(paid) = sum(due)"
        )
    return condition


@lru_cache(maxsize=1024)
def aggregate_condition(text: str) -> Condition:
    """A condition on aggregates of the dataset, such as `sum(paid) = sum(due)`. Raises ValueError with the place for anything else."""
    condition = _read(text)
    tree = _tree(text)
    if not condition.aggregates and not any(_may_aggregate(node) for node in tree.walk()):
        raise ValueError(f"{text!r} has no aggregate such as sum(paid): write `expression:` for a condition on each row")
    for column in _columns(tree):
        if not any(_may_aggregate(parent) for parent in _above(column)):
            raise ValueError(f"{column.sql('duckdb')} stands outside of an aggregate: write, for example, max({column.sql('duckdb')})")
    return condition


def _read(text: str) -> Condition:
    tree = _tree(text)
    found = [_whole(node) for node in tree.walk(bfs=False) if _is_aggregate(node)]
    aggregates = [node.sql("duckdb", normalize_functions="lower") for node in found]
    return Condition(text, tuple(dict.fromkeys(_name(column) for column in _columns(tree))), tuple(dict.fromkeys(aggregates)))


def _tree(text: str) -> Any:
    """The only expression of the text."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, SqlglotError

    if not text.strip():
        raise ValueError("the condition is empty: write one such as price >= cost")
    try:
        trees = sqlglot.parse(text, dialect="duckdb")
    except ParseError as error:
        place = error.errors[0] if error.errors else {}
        where = f"line {place['line']}, column {place['col']}: " if place.get("line") else ""
        near = f" near {place['highlight']!r}" if place.get("highlight") else ""
        raise ValueError(f"{text!r} is not a condition in SQL: {where}{place.get('description', error)}{near}") from error
    except (SqlglotError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a condition in SQL: {error}") from error
    tree = trees[0] if len(trees) == 1 else None
    if not isinstance(tree, exp.Condition) or isinstance(tree, exp.Query) or tree.find(exp.Query) is not None:
        raise ValueError(
            f"{text!r} is not one condition: write what would follow WHERE, such as price >= cost, without SELECT and without ;"
        )
    if tree.find(exp.Placeholder, exp.Parameter) is not None:
        raise ValueError(f"{text!r} leaves a value open: write the value, or a template for it")
    if window := tree.find(exp.Window):
        raise ValueError(f"{window.sql('duckdb')} looks at other rows: work it out in a sql step first, and check its column")
    return tree


def _is_aggregate(node: Any) -> bool:
    from sqlglot import exp

    return isinstance(node, exp.AggFunc)


def _may_aggregate(node: Any) -> bool:
    """Whether the node is an aggregate with its filter, or a function that sqlglot does not know and DuckDB may."""
    from sqlglot import exp

    return isinstance(node, exp.AggFunc | exp.Filter | exp.Anonymous)


def _whole(node: Any) -> Any:
    """An aggregate with its FILTER, where it has one."""
    from sqlglot import exp

    return node.parent if isinstance(node.parent, exp.Filter) else node


def _columns(tree: Any) -> Iterator[Any]:
    """The columns in the tree, but for the variables of lambdas."""
    from sqlglot import exp

    for column in tree.find_all(exp.Column, bfs=False):
        names = {argument.name for parent in _above(column) if isinstance(parent, exp.Lambda) for argument in parent.expressions}
        if column.name not in names:
            yield column


def _name(column: Any) -> str:
    """The dataset's column; `a.b` is field b of the column a, unless a is the dataset itself."""
    parts = [part.name for part in column.parts]
    return str(parts[1] if len(parts) > 1 and parts[0].casefold() == ROWS else parts[0])


def _above(node: Any) -> Iterator[Any]:
    while node.parent is not None:
        node = node.parent
        yield node
