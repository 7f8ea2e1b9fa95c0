"""Transformation files that carry their own test: `run`, `expected_inputs`, `expected_output`, and perhaps `stream`.

Here: finding such files, and validating one by the rules of the Dataflow system that they come from. Not here: tests in YAML
(`testing.cases`), how a pipeline calls a function (`transforms.python`).

The rules: `expected_inputs` is a list of rows, a list of such lists, a DataFrame or a list of DataFrames; the function gets copies, as many
as it has parameters. It runs once, or once for each entry of `stream`, its output being the first frame of the next run. It fails when
it raises, returns None, gives no rows where some are expected, gives others (order counts, NaN equals NaN, 1 is not 1.0), or when
the expected output is the input, which a function that does nothing would give as well.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataflow_assets.errors import DataflowError, Place
from dataflow_assets.plan.options import has_template
from dataflow_assets.spec.project import Project
from dataflow_assets.testing.cases import Case
from dataflow_assets.testing.comparing import SHOWN, shown, value_text
from dataflow_assets.testing.values import kind_in_words
from dataflow_assets.user_code import importable, load_file, top_level_names

_NAMES = ("expected_inputs", "expected_output")
Rows = list[dict[str, Any]]


class BadTransformation(DataflowError):
    """A transformation file cannot be validated."""


def transformation_files(project: Project) -> list[Path]:
    """The Python files below the pipelines folder, and those of python transforms, that say what they expect."""
    folder = project.root / project.model.pipelines_dir
    found = [path for path in folder.rglob("*.py") if not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)]
    steps = [step for pipeline in project.pipelines for step in pipeline.model.steps]
    named = [step.config["file"] for step in steps if isinstance(step.config.get("file"), str) and not has_template(step.config["file"])]
    found += [project.root / name for name in named if name.endswith(".py")]
    return [path for path in sorted({item.resolve() for item in found}) if path.is_file() and set(_NAMES) & _defined(path).keys()]


def transformation_case(path: Path, root: Path) -> Case:
    """The case of one file; `root` is the folder whose modules it may import."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    return Case(name, path.parent.name, Place(str(path), _defined(path).get("run", 1), 1), lambda: validate(path, root))


def _defined(path: Path) -> dict[str, int]:
    """The names at the top of a module with their lines; none for a file that is no Python."""
    try:
        module = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, OSError):
        return dict.fromkeys(_NAMES, 1) if path.is_file() and any(name in path.read_text(errors="replace") for name in _NAMES) else {}
    lines = {node.name: node.lineno for node in module.body if isinstance(node, ast.FunctionDef)}
    return {**dict.fromkeys(top_level_names(module), 1), **lines}


def validate(path: Path, root: Path) -> list[str]:
    """What is wrong, numbered; none when the file does what it says. Raises BadTransformation when it cannot be asked."""
    with importable(root), importable(path.parent), _forgetting(path.parent):
        module = _loaded(path)
        run, stream = _function(module, path), getattr(module, "stream", None)
        frames = _frames(module.expected_inputs)
        expected = _rows(module.expected_output, "expected_output")
        entries = _entries(run, stream, path)
        try:
            output = _run(run, frames, entries)
        except BadTransformation:
            raise
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything
            return _numbered([f"run raised {type(error).__name__}{_line(error, path)}: {error}"])
    return _numbered(_mistakes(output, expected, frames))


@contextlib.contextmanager
def _forgetting(folder: Path) -> Iterator[None]:
    """Forget the modules of `folder` afterwards: another folder may have others of the same names."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(f"{folder}/"):
                del sys.modules[name]


def _loaded(path: Path) -> Any:
    try:
        module = load_file(path)
    except Exception as error:
        raise BadTransformation(f"{path.name} cannot be imported: {type(error).__name__}{_line(error, path)}: {error}") from error
    missing = [name for name in ("run", *_NAMES) if not hasattr(module, name)]
    if missing:
        raise BadTransformation(
            f"{path.name} does not define {', '.join(missing)}",
            hint="a tested transformation has run(df), expected_inputs (rows or frames) and expected_output (rows)",
        )
    return module


def _function(module: Any, path: Path) -> Callable[..., Any]:
    if not callable(module.run):
        raise BadTransformation(f"{path.name}: run is {type(module.run).__name__}, not a function")
    names = list(inspect.signature(module.run).parameters)
    if "stream" in names[:-1]:
        raise BadTransformation(f"{path.name}: stream must be the last parameter of run", hint=f"it has {', '.join(names)}")
    return module.run  # type: ignore[no-any-return]


def _entries(run: Callable[..., Any], stream: Any, path: Path) -> Sequence[Any] | None:
    """The entries of `stream`, None when the function runs once without."""
    parameter = inspect.signature(run).parameters.get("stream")
    if stream is None or stream == []:
        if parameter is not None and parameter.default is parameter.empty:
            raise BadTransformation(f"{path.name}: run needs stream, and the file has no list of that name", hint="add stream = [...]")
        return None
    if parameter is None:
        raise BadTransformation(
            f"{path.name} has a list stream, but run has no parameter of that name", hint="add stream=None as the last one"
        )
    if not isinstance(stream, Sequence) or isinstance(stream, str):
        raise BadTransformation(f"{path.name}: stream must be a list, it is {kind_in_words(stream)}")
    return stream


def _run(run: Callable[..., Any], frames: list[Any], entries: Sequence[Any] | None) -> Any:
    """The output of the last run; every run gets copies, and its output is the first frame of the next one."""
    frames = copy.deepcopy(frames)
    output = None
    for entry in [None] if entries is None else entries:
        arguments = copy.deepcopy(_fitting(run, frames))
        output = run(*arguments) if entries is None else run(*arguments, stream=copy.deepcopy(entry))
        if output is None:
            return None
        frames = [output, *frames[1:]]
    return output


def _fitting(run: Callable[..., Any], frames: list[Any]) -> list[Any]:
    """As many frames as the function has parameters."""
    parameters = inspect.signature(run).parameters.values()
    if any(item.kind is item.VAR_POSITIONAL for item in parameters):
        return frames
    places = [item for item in parameters if item.name != "stream" and item.kind in {item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD}]
    return frames[: len(places)]


def _frames(inputs: Any) -> list[Any]:
    """The inputs, in any of their four forms, as DataFrames."""
    import pandas as pd

    if isinstance(inputs, pd.DataFrame):
        return [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str):
        raise BadTransformation(
            f"expected_inputs is {kind_in_words(inputs)}", hint="write a list of rows, a list of such lists, or DataFrames"
        )
    if all(isinstance(item, Mapping) for item in inputs):
        return [pd.DataFrame(list(inputs))]
    found = []
    for number, item in enumerate(inputs):
        rows = isinstance(item, Sequence) and not isinstance(item, str) and all(isinstance(row, Mapping) for row in item)
        if not rows and not isinstance(item, pd.DataFrame):
            raise BadTransformation(f"expected_inputs[{number}] is {kind_in_words(item)}, neither rows nor a DataFrame")
        found.append(item if isinstance(item, pd.DataFrame) else pd.DataFrame(list(item)))
    return found


def _rows(table: Any, what: str) -> Rows:
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return [{str(name): value for name, value in row.items()} for row in table.to_dict(orient="records")]
    if isinstance(table, Sequence) and not isinstance(table, str):
        items = list(table[0]) if len(table) == 1 and isinstance(table[0], list) else list(table)
        if all(isinstance(item, Mapping) for item in items):
            return [dict(item) for item in items]
    raise BadTransformation(f"{what} is {kind_in_words(table)}", hint="it must be a list of rows, each a dictionary, or a DataFrame")


def _mistakes(output: Any, expected: Rows, frames: list[Any]) -> Iterator[str]:
    if output is None:
        yield "run returned None, not a table"
        return
    try:
        found = _rows(output, "what run returned")
    except BadTransformation as error:
        yield error.message
        return
    if not found and expected:
        yield f"run gave no rows, {len(expected):,} were expected"
    elif lines := list(_differing(expected, found)):
        yield "run gave other rows than expected_output:" + "".join(f"\n  {line}" for line in lines)
    if frames and not list(_differing(expected, _rows(frames[0], "expected_inputs"))):
        yield "expected_output is the same as the input: a run that does nothing would pass"


def _differing(expected: Rows, found: Rows) -> Iterator[str]:
    """Rows in their order; columns in any."""
    lines = []
    for number, (want, got) in enumerate(zip(expected, found, strict=False), 1):
        for name in dict.fromkeys([*want, *got]):
            if name not in got or name not in want:
                lines.append(f"row {number}: column {name!r} is {'missing' if name not in got else 'not expected'}")
            elif not _alike(want[name], got[name]):
                lines.append(f"row {number}, {name}: expected {_said(want[name], got[name])}, found {_said(got[name], want[name])}")
    lines += [f"row {len(found) + number}: missing {shown(row)}" for number, row in enumerate(expected[len(found) :], 1)]
    lines += [f"row {len(expected) + number}: not expected {shown(row)}" for number, row in enumerate(found[len(expected) :], 1)]
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"... and {len(lines) - SHOWN:,} more"


def _alike(expected: Any, found: Any) -> bool:
    """Whether two values are the same and of one type; NaN, in whatever way it is written, is the same as NaN."""
    if _is_nan(expected) and _is_nan(found):
        return True
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        return len(expected) == len(found) and all(map(_alike, expected, found))
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return expected.keys() == found.keys() and all(_alike(value, found[key]) for key, value in expected.items())
    kinds = kind_in_words(_plain(expected)), kind_in_words(_plain(found))
    return kinds[0] == kinds[1] and bool(_plain(expected) == _plain(found))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's own value."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _said(value: Any, other: Any) -> str:
    value, other = _plain(value), _plain(other)
    kinds = f" ({kind_in_words(value)})" if kind_in_words(value) != kind_in_words(other) else ""
    return f"{value_text(value)}{kinds}"


def _line(error: Exception, path: Path) -> str:
    mine = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" at line {mine[-1]}" if mine else ""


def _numbered(mistakes: Iterator[str] | list[str]) -> list[str]:
    return [f"{number}. {text}" for number, text in enumerate(mistakes, 1)]
