"""A password planted in a project is shown nowhere: not on the terminal, in logs, events, stages and ledgers, nor by the UI."""

from __future__ import annotations

import base64
import gzip
import html
import json
import shlex
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from dataflow_assets import secrets
from dataflow_assets.assets.instance import HOME
from dataflow_assets.assets.names import job_name
from dataflow_assets.assets.shown_errors import errors_masked, masked
from dataflow_assets.cli.app import app
from dataflow_assets.errors import ReadFailed
from dataflow_assets.operations.load import load_project
from dataflow_assets_tests.canary import ui
from dataflow_assets_tests.canary.leaks import PLAIN, SECRET, leaks, leaks_in, leaks_of
from dataflow_assets_tests.canary.scenes import SCENES, Scene, http

VERBS = (
    ("validate",),
    ("plan", "--json"),
    ("doctor", "--json"),
    ("run", "--log-level", "debug"),
    ("status", "--json"),
    ("history", "--json", "--last", "50"),
    ("show", "b_read"),
)
MORE_VERBS = (
    ("doctor",),
    ("history", "--status", "failed"),
    ("run", "--json-lines", "--log-level", "debug", "--var", f"canary_password={SECRET}"),
    ("list", "steps", "--json"),
    ("show", "d_refused", "--json"),
    ("show", "e_by_written_header"),
    ("run", "--no-such-option", SECRET),
)


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are registered by nobody but what is tested."""
    monkeypatch.delenv(HOME, raising=False)
    secrets._registered.clear()


def _write(scene: Scene, root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    monkeypatch.setenv("DATAFLOW_PROJECT", str(root))
    for name, value in scene.environment.items():
        monkeypatch.setenv(name, value)
    return scene.write(root)


def _call(*words: str) -> str:
    """What a verb prints, as a process of its own would: it knows of no secret before."""
    secrets._registered.clear()
    result = CliRunner().invoke(app, [*words], prog_name="dataflow")
    return f"{result.stdout}{result.stderr}{''.join(traceback.format_exception(result.exception)) if result.exc_info is None else ''}"


@pytest.mark.parametrize("system", SCENES)
def test_a_planted_password_is_shown_nowhere(
    system: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with SCENES[system](request.getfixturevalue) as scene:
        written = _write(scene, tmp_path / "project", monkeypatch)
        shown = {" ".join(words[:2]): _call(*words) for words in VERBS}
    shown["what went by the terminal"] = "".join(capfd.readouterr())
    found = leaks_of(shown) + leaks_in([tmp_path / "project"], known=written)
    assert found == [], "\n".join(found)
    assert "Done. OK=" in shown["run --log-level"], "nothing ran"
    assert all(f"{status}=0" not in shown["run --log-level"] for status in ("OK", "FAILED"))


@pytest.mark.parametrize("drive", ["by_keys", "unquoted"], ids=["kept", "away"])
def test_a_drive_keeps_no_password(
    drive: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in its rows, of runs that fail with the password in their errors, nor in what waits to be sent to it."""
    root = tmp_path / "project"
    with SCENES["postgres"](request.getfixturevalue) as scene:
        written = _write(scene, root, monkeypatch)
        file = root / "dataflow_project.yml"
        file.write_text(file.read_text() + f"drive: {{connection: {drive}}}\n")
        select = ("--select", "c_python", "--select", "d_refused", "--select", "e_wrong")
        shown = {word[0]: _call(*word) for word in (("run", "--log-level", "debug", *select), ("history", "--json"), ("doctor", "--json"))}
    shown["what went by the terminal"] = "".join(capfd.readouterr())
    waiting = list((root / ".dataflow" / "drive-spool").glob("*"))
    found = leaks_of(shown) + leaks_in([root], known=written)
    assert found == [], "\n".join(found)
    assert bool(waiting) is (drive == "unquoted")
    assert shown["history"].count('"pipeline_status": "FAILED"') == (3 if drive == "by_keys" else 0)
    assert ("cannot be read" in shown["history"]) is (drive == "unquoted")


def test_the_ui_shows_no_planted_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor does an instance that keeps the output of runs."""
    root, home = tmp_path / "project", tmp_path / "home"
    with http(lambda name: None) as scene:
        written = _write(scene, root, monkeypatch)
        shown: dict[str, Any] = {" ".join(words[:2]): _call(*words) for words in MORE_VERBS}
        secrets._registered.clear()
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            runs = [_run(load_project(root), name, instance) for name in ("b_read", "c_python", "d_refused", "e_by_written_header")]
            secrets._registered.clear()
            with ui.opened(instance) as pages:
                shown |= _told_by(pages, runs)
    shown["what went by the terminal"] = "".join(capfd.readouterr())
    found = leaks_of(shown) + leaks_in([root, home], known=written)
    assert found == [], "\n".join(found)
    assert b"server answered 400" in shown[f"log of {runs[2]}"], "the failed run is there"


def _run(definitions: dg.Definitions, name: str, instance: dg.DagsterInstance) -> str:
    return definitions.resolve_job_def(job_name(name)).execute_in_process(instance=instance, raise_on_error=False).run_id


def _told_by(pages: ui.UI, runs: list[str]) -> dict[str, bytes]:
    shown = {field: pages.ask(field, depth=depth) for field, depth in ui.FIELDS.items()}
    for run in runs:
        shown[f"log of {run}"] = pages.ask("logsForRun", arguments=f'(runId: "{run}")', depth=3 if run == runs[-2] else 2)
        shown[f"debug of {run}"] = pages.get(f"/download_debug/{run}")
    return shown


MISTAKES = {
    "a misspelt key": {"type": "postgres", "host": "h", "passwrod": SECRET},
    "a key of several": {"type": "parquet", "storage_options": {"secrets": SECRET}},
    "a URL where a word belongs": {"type": "postgres", "sslmode": "require", "hosts": f"postgresql://u:{SECRET}@h/d"},
    "a secret of another type": {"type": "mysql", "host": "h", "port": SECRET, "password": [SECRET]},
    "an unknown kind": {"type": "postgers", "password": SECRET},
}


@pytest.mark.parametrize("flow", [False, True], ids=["block", "flow"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_connection_shows_no_password(mistake: str, flow: bool, tmp_path: Path) -> None:
    connections = {"there": MISTAKES[mistake]}
    (tmp_path / "pipelines").mkdir()
    for unicode in (False, True):
        text = yaml.safe_dump({"project_name": "p", "connections": connections}, default_flow_style=flow, allow_unicode=unicode, width=1000)
        (tmp_path / "dataflow_project.yml").write_text(text)
        source = {"id": "a", "type": "source", "connection": "there", "config": {"table": "t", "file_path": "t"}}
        target = {"id": "b", "type": "endpoint", "endpoint_type": "csv", "depends_on": ["a"], "config": {"file_path": "b.csv"}}
        (tmp_path / "pipelines" / "p.yml").write_text(yaml.safe_dump({"steps": [source, target]}))
        for words in (("validate",), ("validate", "--json"), ("run", "--log-level", "debug"), ("show", "p"), ("doctor", "--json")):
            shown = _call(*words, "--project", str(tmp_path))
            assert leaks(shown) == []
            assert "there" in shown or words[0] == "doctor" or mistake == "an unknown kind"


FORMS = {
    "plain": SECRET,
    "in a URL": quote(SECRET, safe=""),
    "in a form": quote_plus(SECRET),
    "by Python": repr({"key": SECRET}),
    "as bytes": repr(SECRET.encode()),
    "in JSON": json.dumps({"key": SECRET}),
    "in JSON in JSON": json.dumps(json.dumps([SECRET], ensure_ascii=False)),
    "in YAML": yaml.safe_dump({"key": SECRET}, width=1000),
    "in quoted YAML": yaml.safe_dump({"key": SECRET}, default_style="'", allow_unicode=True, width=1000),
    "in SQL": SECRET.replace("'", "''"),
    "in HTML": html.escape(SECRET),
    "in a shell": shlex.quote(SECRET),
    "by Python in JSON in a URL": quote(json.dumps(repr([SECRET]))),
    "cut off": f"{SECRET[: len(SECRET) * 2 // 3]}...",
    "cut off before": f"...{SECRET[len(SECRET) // 3 :]}",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_search_finds_every_form_and_the_mask_leaves_none(form: str) -> None:
    text = f"before {FORMS[form]} after"
    assert leaks(text)
    secrets.register_secret(SECRET)
    assert leaks(secrets.mask(text)) == [] or form == "in a shell"


@pytest.mark.parametrize(
    "hidden",
    [base64.b64encode(f"me:{PLAIN}".encode()), PLAIN.encode().hex().encode(), gzip.compress(PLAIN.encode())],
    ids=["base64", "hex", "gzip"],
)
def test_the_search_looks_into_encodings(hidden: bytes, tmp_path: Path) -> None:
    assert leaks(hidden)
    (tmp_path / "kept").write_bytes(hidden)
    assert leaks_in([tmp_path])
    assert leaks_in([tmp_path], known=[tmp_path / "kept"]) == []


def _failed() -> ReadFailed:
    """An error whose causes show the secret, and whose own text does not."""
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise OSError(f"cannot log in with {SECRET}") from error
    except OSError as error:
        failed = ReadFailed(f"reading with {SECRET}")
        failed.__cause__ = error
        return failed


def test_the_causes_of_an_error_are_masked_with_their_names_and_places() -> None:
    secrets.register_secret(SECRET)
    error = _failed()
    assert leaks("".join(traceback.format_exception(error)))
    shown = masked(error)
    text = "".join(traceback.format_exception(shown))
    assert leaks(text) == []
    assert shown is error
    assert "OSError: cannot log in with ****" in text
    assert "KeyError" in text
    assert text.count("in _failed") == 2
    assert masked(shown) is shown


def test_what_is_raised_inside_is_masked() -> None:
    secrets.register_secret(SECRET)
    with pytest.raises(Exception, match=r"\*\*\*\*") as caught, errors_masked():
        raise ValueError(SECRET)
    assert leaks("".join(traceback.format_exception(caught.value))) == []
    with pytest.raises(ReadFailed) as failed, errors_masked():
        raise _failed()
    assert leaks("".join(traceback.format_exception(failed.value))) == []
