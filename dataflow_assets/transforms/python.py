"""The transform `python`: a function of the user, from a module or a file of the project.

Here: the options, filling its parameters, its errors with the place they came from. Not here: the forms that tables
take (`transforms._frames`), loading a file (`user_code`).

A parameter is filled, in this order: from `kwargs`; `context` with the StepContext and `window` with the window; by the name of an
input step (`-` written `_`); the rest by position in `depends_on` order. The annotation says the form; without one it is pandas.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field, model_validator

from dataflow_assets.error_kinds import kind_of
from dataflow_assets.errors import DataflowError, TransformFailed
from dataflow_assets.protocols import Mistake, StagedInput, StepContext
from dataflow_assets.spec.base import Model
from dataflow_assets.user_code import importable, load_file, top_level_names

_RESERVED = ("context", "window")


class PythonOptions(Model):
    """Which function to call, and with what."""

    function: str = Field("transform", description="module:function, or with file the function's name")
    file: str | None = Field(None, description="a Python file, relative to the project")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="further arguments, by name")

    @model_validator(mode="after")
    def _function_can_be_found(self) -> Self:
        module, colon, name = self.function.rpartition(":")
        if self.file is None and not (colon and module):
            raise ValueError(f"function {self.function!r} names no module: write 'module:function', or add `file: path.py`")
        if self.file is not None and colon:
            raise ValueError(f"function {self.function!r} names a module beside `file`: write the function's name alone")
        if not all(part.isidentifier() for part in (*module.split("."), name) if part or colon):
            raise ValueError(f"function {self.function!r} is not 'module:function'")
        return self


class Transform:
    """See `protocols.Transform`."""

    kind: ClassVar[str] = "python"
    Options: ClassVar[type[PythonOptions]] = PythonOptions
    example: ClassVar[str] = """\
pipeline_name: cleaned_flights
steps:
  - id: flights
    type: source
    source_type: csv
    config:
      file_path: data/flights.csv
  - id: cleaned
    type: processor
    processor_type: python
    depends_on: [flights]
    config:
      file: transforms/clean.py
      function: clean
      kwargs: {longest_delay: 600}
  - id: kept
    type: endpoint
    endpoint_type: parquet
    depends_on: [cleaned]
    config: {file_path: output/cleaned_flights.parquet}
"""

    def __init__(self, options: PythonOptions) -> None:
        self._options = options

    @contextmanager
    def apply(self, inputs: Mapping[str, StagedInput], context: StepContext) -> Iterator[pa.RecordBatchReader]:
        """Call the function and stream its result. Raises TransformFailed, with the function's own error as its cause."""
        from dataflow_assets.transforms._frames import stream

        with importable(context.project_dir):
            function = self._find(context)
            call = _Call(function, step=context.step)
            with call.reporting():
                result = stream(function(**call.arguments(inputs, self._options.kwargs, context)))
            yield pa.RecordBatchReader.from_batches(result.schema, call.batches(result))

    def mistakes(self, project_dir: Path, inputs: Sequence[str]) -> list[Mistake]:
        """A file that is not there or is no Python, and a function that it does not define. Nothing is imported."""
        path, name = self._path(project_dir), self._options.function.rpartition(":")[2]
        if not path.is_file():
            hint = f"`file` is relative to {project_dir}"
            return [Mistake(("file",), f"there is no file {self._options.file}", hint)] if self._options.file else []
        try:
            names = top_level_names(ast.parse(path.read_bytes(), filename=str(path)))
        except (SyntaxError, ValueError) as error:
            key = "file" if self._options.file else "function"
            return [Mistake((key,), f"{path}:{getattr(error, 'lineno', None) or 1}: {getattr(error, 'msg', error)}")]
        if name in names or "*" in names:
            return []
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it defines {', '.join(names) or 'nothing'}"
        return [Mistake(("function",), f"{path.name} has no function {name!r}", hint)]

    def _path(self, project_dir: Path) -> Path:
        """Where the function stands, if it is the project's own."""
        return project_dir / (self._options.file or f"{self._options.function.rpartition(':')[0].replace('.', '/')}.py")

    def code_version(self, project_dir: Path) -> str:
        """A hash of the file that holds the function; what it imports in turn is not looked at."""
        path = self._path(project_dir)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _find(self, context: StepContext) -> Callable[..., Any]:
        options = self._options
        module_name, _, name = options.function.rpartition(":")
        shown = options.file or module_name
        try:
            module = importlib.import_module(module_name) if options.file is None else load_file(context.project_dir / options.file)
        except FileNotFoundError as error:
            raise TransformFailed(
                f"step {context.step}: there is no file {shown}", hint=f"`file` is relative to {context.project_dir}"
            ) from error
        except Exception as error:
            raise TransformFailed(f"step {context.step}: {shown} cannot be imported: {type(error).__name__}: {error}") from error
        function = getattr(module, name, None)
        if not callable(function):
            known = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
            raise TransformFailed(
                f"step {context.step}: {shown} has no function {name!r}", hint=f"it has {', '.join(known) or 'no functions'}"
            )
        return typing.cast("Callable[..., Any]", function)


class _Call:
    """One call of a user's function: its arguments, and its errors with their place."""

    def __init__(self, function: Callable[..., Any], *, step: str) -> None:
        self._function, self._step = function, step
        self._code = getattr(inspect.unwrap(function), "__code__", None)

    @property
    def place(self) -> str:
        """file:line and name of the function."""
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return f"{name} ({self._code.co_filename}:{self._code.co_firstlineno})" if self._code else name

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn errors into TransformFailed."""
        try:
            yield
        except TransformFailed:
            raise
        except DataflowError as error:
            raise TransformFailed(f"step {self._step}: {self.place} {error.message}", hint=error.hint, kind=error.kind) from error
        except Exception as error:
            text = f"step {self._step}: {self.place} raised {type(error).__name__}{self._line(error)}: {error}"
            raise TransformFailed(text, kind=kind_of(error)) from error

    def _line(self, error: Exception) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        mine = [frame for frame in frames if self._code and frame.filename == self._code.co_filename]
        return f" at line {mine[-1].lineno}" if mine else ""

    def batches(self, result: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The result's batches; a generator's errors come while it is read."""
        with self.reporting():
            yield from result

    def arguments(self, inputs: Mapping[str, StagedInput], kwargs: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        """What to call the function with. Raises TransformFailed when a parameter has nothing to fill it."""
        from dataflow_assets.transforms._frames import Form, form_of, load

        parameters = inspect.signature(self._function).parameters
        hints = self._hints()
        by_name = {name.replace("-", "_"): stage for name, stage in inputs.items()}
        waiting = [stage for name, stage in by_name.items() if name not in parameters or name in kwargs]
        given = dict(kwargs)
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if unknown := [name for name in kwargs if name not in parameters and not takes_any]:
            raise TransformFailed(
                f"step {self._step}: {self.place} has no parameter {unknown[0]!r}", hint=f"it has {', '.join(parameters)}"
            )
        for name, parameter in parameters.items():
            if name in given or parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
                continue
            form = form_of(hints.get(name, parameter.annotation))
            if name in by_name:
                given[name] = load(by_name[name], form or Form.PANDAS)
            elif name in _RESERVED and form is None:
                given[name] = context if name == "context" else context.window
            elif waiting and (form is not None or parameter.default is parameter.empty):
                given[name] = load(waiting.pop(0), form or Form.PANDAS)
            elif parameter.default is parameter.empty:
                raise self._unfilled(name, by_name, kwargs)
        return given

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function)
        except (NameError, TypeError, AttributeError):  # annotations of names that are imported for type checkers only: read as text
            return {}

    def _unfilled(self, name: str, inputs: Mapping[str, StagedInput], kwargs: Mapping[str, Any]) -> TransformFailed:
        return TransformFailed(
            f"step {self._step}: nothing fills parameter {name!r} of {self.place}",
            hint=f"its inputs are {', '.join(inputs)}; kwargs {', '.join(kwargs) or 'are empty'}; give it a default or add it to `kwargs`",
        )
