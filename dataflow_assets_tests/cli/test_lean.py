"""Pandas stays out of a run until somebody imports it, then Arrow knows it again; garbage is looked for once rows move."""

import subprocess
import sys

import pytest

from dataflow_assets_tests.cli.conftest import ProjectFolder, environment, real

START = "import sys; from dataflow_assets.cli.lean import defer_pandas; defer_pandas(); import pyarrow as pa; "


def said(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=True).stdout.strip()


def test_arrays_do_not_import_pandas() -> None:
    assert said("pa.array([1, 2]); pa.scalar('x'); pa.table({'a': [1]}).to_pylist(); print('pandas' in sys.modules)") == "False"


@pytest.mark.parametrize(
    "code",
    [
        "import pandas as pd; print(pa.array(pd.Series([1.0, float('nan')])).null_count)",
        "from pandas import Series; print(pa.array(Series([1.0, float('nan')])).null_count)",
        "import pandas as pd; print(pa.Table.from_pandas(pd.DataFrame({'a': [1.0, None]}))['a'].null_count)",
    ],
)
def test_arrow_treats_pandas_objects_as_ever(code: str) -> None:
    assert said(code) == "1"


def test_arrow_may_make_pandas_objects_without_anybody_importing_it_first() -> None:
    assert said("frame = pa.table({'a': [1, 2]}).to_pandas(); print(type(frame).__module__.split('.')[0], len(frame))") == "pandas 2"


def test_it_does_nothing_when_pandas_is_there() -> None:
    code = "import pandas, sys; from dataflow_assets.cli.lean import defer_pandas; before = len(sys.meta_path); defer_pandas(); "
    found = subprocess.run([sys.executable, "-c", code + "print(len(sys.meta_path) - before)"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--full-refresh", "--select", "first"),
        ("check", "--select", "first"),
        ("reconcile", "first"),
        ("schema", "infer", "first.publish"),
        ("quarantine", "replay", "first"),
    ],
)
def test_verbs_that_move_rows_look_for_garbage(project: ProjectFolder, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command begins without, to start fast; with cycles among batches a long one would grow for ever."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert real("run", "--project", project.root).code == 0
    code = (
        "import atexit, gc, sys\nfrom dataflow_assets.cli import main\nfrom dataflow_assets.execution import session\n"
        "seen = []\nasked = session.Session.__init__\n"
        "session.Session.__init__ = lambda self, request: (seen.append(gc.isenabled()), asked(self, request))[1]\n"
        "atexit.register(lambda: print('SEEN', seen and seen[-1]))\n"
        f"sys.argv = ['dataflow', *{[*arguments, '--project', str(project.root)]!r}]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=120, check=False)
    assert "SEEN True" in done.stdout, done
