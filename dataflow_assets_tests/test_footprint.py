"""Settings of a whole process: pandas stays out until somebody imports it, then Arrow knows it again; allocators give back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from dataflow_assets.batches import choose_allocator, release

START = "import sys; from dataflow_assets.footprint import start_lean; start_lean(); import pyarrow as pa; "


def said(code: str, *, start: str = START) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=True).stdout.strip()


def test_arrays_do_not_import_pandas() -> None:
    assert said("pa.array([1, 2]); pa.scalar('x'); pa.table({'a': [1]}).to_pylist(); print('pandas' in sys.modules)") == "False"


@pytest.mark.parametrize("before", ["", "import pyarrow; ", "from importlib.util import find_spec; "])
@pytest.mark.parametrize(
    "code",
    [
        "import pandas as pd; print(pa.array(pd.Series([1.0, float('nan')])).null_count)",
        "from pandas import Series; print(pa.array(Series([1.0, float('nan')])).null_count)",
        "import pandas as pd; print(pa.Table.from_pandas(pd.DataFrame({'a': [1.0, None]}))['a'].null_count)",
    ],
)
def test_arrow_treats_pandas_objects_as_ever(before: str, code: str) -> None:
    """Also where Arrow was there first, and where somebody has only asked whether there is a pandas."""
    asked = "assert find_spec('pandas') and 'pandas' not in sys.modules; " if "find_spec" in before else ""
    assert said(asked + code, start=before + START) == "1"


@pytest.mark.parametrize("module", ["pandas", "pandera", "snowflake.connector"])
def test_pandas_may_come_before_arrow(module: str) -> None:
    """Such as in a plugin that begins with it: it brings Arrow while it is itself half imported."""
    start = f"from dataflow_assets.footprint import start_lean; start_lean(); import {module}; import pandas as pd, pyarrow as pa; "
    assert said("print(pa.array(pd.Series([1.0, float('nan')])).null_count)", start=start) == "1"


def test_nanoseconds_are_what_they_are_with_pandas() -> None:
    """Nested values are hashed as Python writes them; a preview shows them."""
    code = (
        "from dataflow_assets.batches import hash_column, know_nanoseconds; kind = pa.timestamp('ns'); "
        "nested = lambda: str(hash_column(pa.array([[1_700_000_000_000_000_001]], pa.list_(kind)))); "
        "first = nested(); know_nanoseconds(kind); pa.array([1_700_000_000_000_000_001], kind).to_pylist(); print(first == nested())"
    )
    assert said(code) == "True"


def test_polars_and_pandas_may_both_come_later() -> None:
    code = "import polars as pl; frame = pl.DataFrame({'a': [1, None]}).to_pandas(); print(pa.array(frame['a']).null_count)"
    assert said(code) == "1"


def test_arrow_may_make_pandas_objects_without_anybody_importing_it_first() -> None:
    assert said("frame = pa.table({'a': [1, 2]}).to_pandas(); print(type(frame).__module__.split('.')[0], len(frame))") == "pandas 2"


@pytest.mark.parametrize("first", ["", "import pandas; ", "import pyarrow; "])
def test_starting_twice_changes_nothing(first: str) -> None:
    code = "before = len(sys.meta_path); start_lean(); print(len(sys.meta_path) - before)"
    assert said(code, start=first + START) == "0"


def test_modules_have_their_own_loaders_again() -> None:
    code = "import pandas; print({type(module.__loader__).__name__ for module in (pa, pandas)})"
    assert said(code) == "{'SourceFileLoader'}"


@pytest.mark.parametrize(("given", "backend"), [("", "system"), ("mimalloc", "mimalloc")])
def test_arrow_begins_with_the_allocator_of_the_c_library_unless_told(given: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    if given:
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", given)
    assert said("print(pa.default_memory_pool().backend_name)") == backend


@pytest.mark.parametrize("lacks", ["", "jemalloc"])
def test_the_allocator_of_arrays_gives_back(lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = pa.default_memory_pool()
    if lacks:
        monkeypatch.setattr(pa, "jemalloc_memory_pool", _absent)
    try:
        choose_allocator()
        assert pa.default_memory_pool().backend_name in ({"system"} if lacks else {"jemalloc", "system"})
        assert pa.array(range(100_000)).nbytes > 0
        release()
    finally:
        pa.set_memory_pool(known)


def _absent() -> None:
    raise NotImplementedError("Arrow was built without it")


PIPELINE = """\
pipeline_name: plain
steps:
  - {id: read, type: source, source_type: csv, config: {file_path: rows.csv}}
  - id: rules
    type: processor
    processor_type: validator
    depends_on: [read]
    config:
      required_columns: [id, name]
      checks:
        - {column: id, not_null: true, unique: true, min_value: 0}
        - {column: name, regex: "^n", max_length: 9, allowed_values: [n1, n2]}
  - {id: write, type: endpoint, endpoint_type: sqlite, connection: till, depends_on: [rules], config: {table: t, mode: replace}}
"""
UNUSED = ["pandas", "polars", "duckdb", "numba", "sqlglot", "pyarrow.dataset", "psycopg", "adbc_driver_manager", "httpx", "notebook"]


def test_a_run_imports_what_it_uses_and_no_more(tmp_path: Path) -> None:
    """Each of these is 10 to 40 MB and a tenth of a second or more."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "rows.csv").write_text("id,name\n1,n1\n2,n2\n")
    (tmp_path / "dataflow_project.yml").write_text("project_name: p\nconnections: {till: {type: sqlite, database: t.sqlite}}\n")
    (tmp_path / "pipelines" / "plain.yml").write_text(PIPELINE)
    code = (
        "import atexit, sys; from dataflow_assets.cli import main\n"
        f"atexit.register(lambda: print('LOADED', [name for name in {UNUSED!r} if name in sys.modules]))\n"
        f"sys.argv = ['dataflow', 'run', '--project', {str(tmp_path)!r}]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done
    assert "LOADED []" in done.stdout, done
