"""Garbage is looked for once rows move."""

import subprocess
import sys

import pytest

from dataflow_assets_tests.cli.conftest import ProjectFolder, environment, real


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
