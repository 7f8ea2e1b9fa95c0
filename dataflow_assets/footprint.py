"""What a process of ours holds before the first row: settings made once, at its start, by `cli` and `definitions`.

Here: which allocator Arrow's C++ code has, and pandas kept out of a process that does not use it. Not here: the allocator of the
arrays themselves and when it gives back (`batches`); anything that results depend on. Who imports the package as a library is left
alone: these settings are for the whole process.

Arrow imports pandas, if it is installed, when it makes its first array: 0.24 s and 35 MB of every run (measured). It asks once and
remembers the answer. So it is asked while pandas cannot be found; and told again as soon as anybody, such as a user's transform,
really imports pandas, because arrays made from pandas objects need Arrow to know them.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

ARROW_ALLOCATOR = "ARROW_DEFAULT_MEMORY_POOL"
ARENAS_VARIABLE = "MALLOC_ARENA_MAX"
_M_ARENA_MAX = -8  # of glibc's malloc.h


def start_lean() -> None:
    """Make the settings. Arrow takes them when it is imported, and is not imported here; what it knows already stays as it is.

    `batches.choose_allocator` reaches what Python asks Arrow for, the variable what Arrow's readers and writers take by themselves.
    Its default, mimalloc, is never asked for what it holds free: 30 MB of a CSV, 60 of Postgres (measured).
    """
    os.environ.setdefault(ARROW_ALLOCATOR, "system")
    _limit_arenas()
    if "pandas" in sys.modules or any(isinstance(finder, _After) for finder in sys.meta_path):
        return
    if "pyarrow" in sys.modules:
        _let_arrow_do_without_pandas()
    else:
        sys.meta_path.insert(0, _After("pyarrow", _let_arrow_do_without_pandas))


def _limit_arenas() -> None:
    """Let the threads share two heaps of the C library: each keeps its own holes otherwise, 10 MB of a run (measured)."""
    if not sys.platform.startswith("linux") or ARENAS_VARIABLE in os.environ:
        return
    with suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _let_arrow_do_without_pandas() -> None:
    """Let Arrow look for pandas in vain, and again once something has imported it."""
    if "pandas" in sys.modules:  # perhaps in the middle of its own import, which has brought Arrow
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)
    sys.meta_path.insert(0, _After("pandas", _tell_arrow_of_pandas))


def _tell_arrow_of_pandas() -> None:
    import pyarrow as pa

    _ = pa.lib._pandas_api.pd


class _Hidden(importlib.abc.MetaPathFinder):
    """Pandas cannot be found by the thread that asks on Arrow's behalf."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("pandas is not wanted yet", name=fullname)


class _After(importlib.abc.MetaPathFinder):
    """Waits for the import of a module, lets it happen, and then calls `then`; to be asked where the module is, as polars asks, is none."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (spec for finder in others if (spec := finder.find_spec(fullname, path, target)) is not None)
        spec = next(found, None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._done)
        return spec

    def _done(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()


class _Loader(importlib.abc.Loader):
    """The real loader, which is in its place again when it has loaded."""

    def __init__(self, loader: Any, done: Callable[[], None]) -> None:
        self._loader, self._done = loader, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._done()
