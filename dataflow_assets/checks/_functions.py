"""Rules in Python: a function of the user that says which rows are good.

Here: finding the function, the form in which it takes the rows, reading what it gives back, its errors with their place. Not here: what
is counted and shown (`checks._rows`), loading a file (`user_code`).

The function takes one batch (of at most some ten thousand rows), or with `whole` the whole dataset, as the annotation of its first
parameter says: `pd.DataFrame` (also without annotation), `pl.DataFrame`, `pa.Table` or `pa.RecordBatch`. Parameters named `context` and
`window` are filled with the step's. It gives back one boolean a row, true for a good one; null passes. Of a whole dataset it may also give
one boolean for all.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import traceback
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.checks._facts import Facts
from dataflow_assets.checks._row_tests import Stateless
from dataflow_assets.checks._rows import SAMPLES, Samples, outcome, sample_rows, share_of, tolerated
from dataflow_assets.protocols import CheckResult, StagedInput, StepContext
from dataflow_assets.secrets import mask
from dataflow_assets.user_code import importable, load_file, top_level_names

if TYPE_CHECKING:
    from dataflow_assets.checks._rules import Rule

_FORMS = {"pd.DataFrame": "pandas", "pandas.DataFrame": "pandas", "pl.DataFrame": "polars", "polars.DataFrame": "polars"}
_FORMS |= {"pa.Table": "table", "pyarrow.Table": "table", "pa.RecordBatch": "batch", "pyarrow.RecordBatch": "batch"}


class Unusable(Exception):
    """The function could not be found, failed, or gave back what is no verdict."""


def refuse_bad_function(name: str) -> str:
    """`name` when it is `module:function` or `file.py:function`. Raises ValueError."""
    source, colon, function = name.rpartition(":")
    module = source.removesuffix(".py") if source.endswith(".py") else source
    fits = source.endswith(".py") or all(part.isidentifier() for part in module.split("."))
    if not (colon and module and function.isidentifier() and fits):
        raise ValueError(f"{name!r} names no function: write module:function, or file.py:function with a file of the project")
    return name


def mistake_in(name: str, project_dir: Path) -> tuple[str, str]:
    """What is wrong with the file that should hold the function, with a hint; empty texts when nothing is. Nothing is imported."""
    source, _, function = name.rpartition(":")
    path = project_dir / (source if source.endswith(".py") else f"{source.replace('.', '/')}.py")
    if not path.is_file():
        return (f"there is no file {source}", f"it is relative to {project_dir}") if source.endswith(".py") else ("", "")
    try:
        names = top_level_names(ast.parse(path.read_bytes(), filename=str(path)))
    except (SyntaxError, ValueError) as error:
        return f"{path}:{getattr(error, 'lineno', None) or 1}: {getattr(error, 'msg', error)}", ""
    if function in names or "*" in names:
        return "", ""
    near = difflib.get_close_matches(function, names, n=1)
    return (
        f"{path.name} has no function {function!r}",
        f"did you mean {near[0]}?" if near else f"it defines {', '.join(names) or 'nothing'}",
    )


class _Call:
    """A found function with its further arguments."""

    def __init__(self, rule: Rule, context: StepContext) -> None:
        self._name, self._context = rule.function, context
        with importable(context.project_dir):
            self._function = self._find()
        parameters = inspect.signature(self._function).parameters
        if not parameters:
            raise Unusable(f"{self._name} takes no rows: give it a parameter, such as rows: pd.DataFrame")
        first = next(iter(parameters.values()))
        self.form = self._form(first)
        self._arguments = {**self._reserved(list(parameters)[1:]), **rule.kwargs}

    def _find(self) -> Callable[..., Any]:
        source, _, function = self._name.rpartition(":")
        try:
            module = load_file(self._context.project_dir / source) if source.endswith(".py") else importlib.import_module(source)
        except FileNotFoundError as error:
            raise Unusable(f"there is no file {source} in {self._context.project_dir}") from error
        except Exception as error:
            raise Unusable(f"{source} cannot be imported: {type(error).__name__}: {error}") from error
        found = getattr(module, function, None)
        if not callable(found):
            raise Unusable(f"{source} has no function {function!r}")
        return typing.cast("Callable[..., Any]", found)

    def _form(self, parameter: inspect.Parameter) -> str:
        try:
            annotation = typing.get_type_hints(self._function).get(parameter.name, parameter.annotation)
        except (NameError, TypeError, AttributeError):  # names that are imported for type checkers only: read as text
            annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            return "pandas"
        shown = annotation if isinstance(annotation, str) else f"{annotation.__module__.partition('.')[0]}.{annotation.__name__}"
        if (form := _FORMS.get(shown.strip("\"' "))) is None:
            raise Unusable(
                f"{self._name} wants {shown}: annotate its first parameter with pd.DataFrame, pl.DataFrame, pa.Table or pa.RecordBatch"
            )
        return form

    def _reserved(self, names: list[str]) -> dict[str, Any]:
        known = {"context": self._context, "window": self._context.window}
        return {name: known[name] for name in names if name in known}

    def __call__(self, rows: pa.Table) -> Any:
        """What the function says of the rows."""
        try:
            with importable(self._context.project_dir):
                return self._function(_in_form(rows, self.form), **self._arguments)
        except Exception as error:
            code = getattr(inspect.unwrap(self._function), "__code__", None)
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.filename == code.co_filename]
            line = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            raise Unusable(f"{self._name} raised {type(error).__name__}{line}: {error}") from error

    def good(self, rows: pa.Table) -> pa.BooleanArray:
        """Which rows the function takes for good."""
        return _mask(self(rows), rows.num_rows, self._name)


def _in_form(rows: pa.Table, form: str) -> Any:
    if form == "pandas":
        import pandas as pd

        return rows.to_pandas(types_mapper=pd.ArrowDtype)
    if form == "polars":
        import polars as pl

        return pl.from_arrow(rows)
    if form == "batch":
        whole = rows.combine_chunks().to_batches()
        return whole[0] if whole else pa.RecordBatch.from_pylist([], schema=rows.schema)
    return rows


def _mask(found: Any, rows: int, name: str) -> pa.BooleanArray:
    """One boolean a row, from whatever holds them."""
    if hasattr(found, "to_arrow"):
        found = found.to_arrow()
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    if not isinstance(found, pa.Array):
        try:
            found = pa.array(found, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise Unusable(f"{name} gave back {type(found).__name__}, not one boolean for each row") from error
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
    if pa.types.is_null(found.type):
        found = found.cast(pa.bool_())
    if not pa.types.is_boolean(found.type):
        raise Unusable(f"{name} gave back values of type {found.type}, not one boolean for each row")
    if len(found) != rows:
        raise Unusable(f"{name} gave back {len(found):,} values for {rows:,} rows")
    return found


class FunctionTest(Stateless):
    """A function that is given each batch."""

    def __init__(self, rule: Rule, context: StepContext) -> None:
        self.rule = rule
        self._trouble = ""
        self._call: _Call | None = None
        try:
            self._call = _Call(rule, context)
        except Unusable as error:
            self._trouble = mask(str(error))

    def failing(self, facts: Facts) -> pa.BooleanArray | None:
        """See RowTest."""
        if self._call is None or self._trouble or not facts.rows:
            return None
        try:
            good = self._call.good(facts.table())
        except Unusable as error:
            self._trouble = mask(str(error))
            return None
        return None if pc.all(good, min_count=0).as_py() else pc.fill_null(pc.invert(good), False)

    def trouble(self) -> str:
        """See RowTest."""
        return self._trouble

    def complaint(self) -> str:
        """See RowTest."""
        return f"are not good, says {self.rule.function}"

    def praise(self) -> str:
        """See RowTest."""
        return "all good"


class WholeFunctionRun:
    """A function that is given the whole dataset at once, in memory."""

    def __init__(self, rule: Rule, context: StepContext) -> None:
        self.rule, self._context = rule, context
        self._failing: pa.BooleanArray | None = None
        self._passed_rows = 0

    def update(self, facts: Facts) -> None:
        """See the next batch."""

    def finish(self, stage: StagedInput) -> CheckResult:
        """The outcome."""
        try:
            with stage.open_reader() as reader:
                rows = reader.read_all()
            call = _Call(self.rule, self._context)
            verdict = call(rows)
            if isinstance(verdict, bool) or type(verdict).__name__ in {"bool", "bool_"}:
                return self._answered(rows.num_rows, good=bool(verdict))
            good = _mask(verdict, rows.num_rows, self.rule.function)
        except Unusable as error:
            return outcome(self.rule, mask(str(error)), passed=False, metadata={"reason": mask(str(error))})
        return self._judged(rows, pc.fill_null(pc.invert(good), False))

    def _answered(self, rows: int, *, good: bool) -> CheckResult:
        sentence = f"{self.rule.function} says that the {rows:,} rows are {'' if good else 'not '}good"
        return outcome(self.rule, sentence, checked=rows, passed=good)

    def _judged(self, rows: pa.Table, failing: pa.BooleanArray) -> CheckResult:
        self._failing, failed = failing, failing.true_count
        if not failed:
            return outcome(self.rule, f"{rows.num_rows:,} rows: all good", checked=rows.num_rows)
        samples: Samples = []
        for batch in rows.filter(failing).slice(0, SAMPLES).to_batches():
            samples += sample_rows(batch, pa.array([True] * batch.num_rows), limit=SAMPLES)
        sentence = f"{share_of(failed, rows.num_rows)} are not good, says {self.rule.function}{tolerated(self.rule)}"
        return outcome(self.rule, sentence, checked=rows.num_rows, failed=failed, samples=samples)

    def pick(self, facts: Facts) -> pa.BooleanArray | None:
        """The rows of a batch that are not good; asked of every batch once more, in order, after `finish`."""
        if self._failing is None:
            return None
        start, self._passed_rows = self._passed_rows, self._passed_rows + facts.rows
        return self._failing.slice(start, facts.rows)
