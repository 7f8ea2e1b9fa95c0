"""Starting fast: no garbage is looked for until rows move, and pandas stays out of a process that does not use it.

Here: the two tricks. Not here: anything that depends on them; whatever happens, results are the same.

Arrow imports pandas, if it is installed, when it makes its first array: 0.24 s and 45 MB of every `dataflow run` (measured). It asks
once and remembers the answer. So it is asked while pandas cannot be found; and told again as soon as anybody, such as a user's
transform, really imports pandas, because arrays made from pandas objects need Arrow to know them.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def collecting_garbage() -> Iterator[None]:
    """Around the part of a verb that moves rows: garbage is looked for again, what has been imported by then is left out of it."""
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()


def defer_pandas() -> None:
    """Let Arrow do without pandas until something imports it. Does nothing when pandas is there already."""
    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)
    sys.meta_path.insert(0, _TellArrow())


class _Hidden(importlib.abc.MetaPathFinder):
    """Pandas cannot be found."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not wanted yet", name=fullname)


class _TellArrow(importlib.abc.MetaPathFinder):
    """Waits for the import of pandas, lets it happen, and makes Arrow look again."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "pandas":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """The real loader; afterwards Arrow asks for pandas again."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        import pyarrow as pa

        _ = pa.lib._pandas_api.pd
