"""Starting fast is a promise: what may be imported. How long it takes is measured by the benchmark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from dataflow_assets.cli.app import VERBS, app
from dataflow_assets_tests.cli.conftest import ProjectFolder, environment, real

HEAVY = {"dagster", "pyarrow", "pandas", "polars", "duckdb", "rich", "numpy"}


def _imported(*arguments: object, allow: frozenset[str] = frozenset()) -> set[str]:
    code = (
        "import sys\nfrom dataflow_assets.cli.app import app\n"
        f"try:\n    app.main({[str(item) for item in arguments]!r})\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split()) & (HEAVY - allow)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("run", "--help"), ("plan", "--help"), ("show", "--help"), ("dev", "--help")]
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    # run and plan know windows and events, whose module names Arrow types
    assert _imported(*arguments, allow=frozenset({"pyarrow", "numpy"}) if arguments[0] == "run" else frozenset()) == set()


@pytest.mark.parametrize("verb", ["validate", "list", "deps"])
def test_reading_a_project_imports_no_dagster_and_no_engine(project: ProjectFolder, verb: str) -> None:
    assert _imported(verb, "--project", project.root, allow=frozenset({"pyarrow", "numpy"})) == set()


@pytest.mark.parametrize("name", VERBS)
def test_the_overview_says_what_the_verb_itself_says(name: str) -> None:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    assert command.name == name
    assert command.help
    assert {"--json", "--project", "--log-level", "--no-color"} <= {option for item in command.params for option in item.opts}
    assert VERBS[name].summary.endswith(".")


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself(name: str) -> None:
    answer = real(name, "--help")
    assert answer.code == 0
    assert f"dataflow {name}" in answer.out


def test_the_module_is_found_where_the_table_says() -> None:
    folder = Path(sys.modules["dataflow_assets.cli.app"].__file__ or "").parent
    assert {verb.module for verb in VERBS.values()} <= {path.stem for path in folder.glob("*.py")}
