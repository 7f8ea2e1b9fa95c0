"""`dataflow run --idempotency-key`: asked twice, run once, also by two processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dataflow_assets.assets.instance import open_instance
from dataflow_assets.failpoints import VARIABLE
from dataflow_assets.spec.load import load
from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, environment, real

Call = Callable[..., Answer]


def runs(project: ProjectFolder) -> list[str]:
    with open_instance(load(project.root)) as instance:
        return instance.get_run_ids()


def test_the_second_call_gives_the_outcome_of_the_first(call: Call, project: ProjectFolder) -> None:
    words = ("run", "--project", project.root, "--idempotency-key", "night-1")
    first = call(*words, "--json").json
    assert (first["ok"], first["repeated"], first["idempotency_key"]) == (True, False, "night-1")
    project.rows("5,2024-01-03T12:00:00Z,50")
    count = len(runs(project))
    second = call(*words, "--json").json
    assert second["repeated"]
    assert {key: second[key] for key in ("pipelines", "totals", "exit_code")} == {
        key: first[key] for key in ("pipelines", "totals", "exit_code")
    }
    text = call(*words)
    assert text.code == 0
    assert "Nothing is started: the idempotency key night-1 was used at" in text.out
    last = json.loads(call(*words, "--json-lines").out.splitlines()[-1])
    assert (last["event"], last["repeated"]) == ("done", True)
    assert len(runs(project)) == count, "nothing was started"


def test_another_request_with_the_key_is_refused_and_nonsense_too(call: Call, project: ProjectFolder) -> None:
    words = ("run", "--project", project.root, "--idempotency-key", "night-1", "--select", "third")
    assert call(*words).code == 0
    for more in (("--full-refresh",), ("--var", "x=1"), ("--exclude", "first")):
        refused = call(*words, *more)
        assert refused.code == 2
        assert "was used at" in refused.err
        assert "to ask for something else" in refused.err
    assert call("run", "--project", project.root, "--idempotency-key", "").code == 2


def test_a_failure_is_an_outcome_with_its_exit_code(call: Call, project: ProjectFolder) -> None:
    project.rows("9,2024-01-02T12:00:00Z,-1")
    words = ("run", "--project", project.root, "--idempotency-key", "k", "--select", "first")
    assert call(*words).code == 1
    project.rows()
    text = call(*words)
    assert text.code == 1
    assert "first: failed" in text.out
    assert "Next: dataflow retry" in text.out
    assert call("retry", "--project", project.root).code == 0


def test_two_processes_at_once_make_one_run(project: ProjectFolder) -> None:
    command = [str(Path(sys.executable).with_name("dataflow")), "run", "--project", str(project.root)]
    command += ["--select", "first", "--idempotency-key", "same", "--json"]
    variables = environment(**{VARIABLE: "publish.ready=sleep:1"})
    both = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    documents = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert sorted(document["repeated"] for document in documents) == [False, True]
    assert len({document["pipelines"][0]["run_id"] for document in documents}) == 1
    assert all(document["ok"] and document["totals"]["windows"]["published"] == 3 for document in documents)
    assert len(runs(project)) == 1


def test_after_a_death_the_key_goes_on_with_what_is_left(call: Call, project: ProjectFolder) -> None:
    words = ("run", "--project", project.root, "--select", "first", "--idempotency-key", "night-1")
    assert real(*words, env={VARIABLE: "publish.ready=kill@2"}).code == -9
    second = call(*words, "--json").json
    assert (second["ok"], second["repeated"]) == (True, False)
    assert [window["status"] for window in second["pipelines"][0]["windows"]] == ["published", "published"]
    third = call(*words, "--json").json
    assert third["repeated"]
    assert third["pipelines"] == second["pipelines"]
