"""Python of the user: a function or class in a module or in a file of the project.

Here: finding it, and what a file defines without running it. Not here: what it is called with (`transforms.python`, `checks._functions`).
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def top_level_names(module: ast.Module) -> list[str]:
    """What a module defines or imports at its top, inside `if` and `try` too; `*` for names that only running it would tell."""
    names: list[str] = []
    for node in ast.walk(ast.Module([item for item in module.body if not isinstance(item, _SCOPES)], [])):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, _SCOPES):
            names.append(node.name)
    return [item.name for item in module.body if isinstance(item, _SCOPES)] + names


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let the project's own modules be imported for a while."""
    entry = str(folder.absolute())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


class _FromSource(SourceFileLoader):
    """Compiles the text as it stands: bytecode kept beside it is taken for current as long as second and size are the same."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def load_file(path: Path) -> Any:
    """Run the file as a module of a private name, so that it can clash with none; anew each time, so that edits are seen."""
    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"_dataflow_file_{path.stem}_{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]}"
    if path.suffix != ".py":
        raise ImportError(f"{path} is not a Python file")
    loader = _FromSource(name, str(path))
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up here
    loader.exec_module(module)
    return module
