"""Loading projects: what is found, what is refused, and how the refusals read."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from dataflow_assets.errors import SpecError
from dataflow_assets.secrets import mask
from dataflow_assets.spec.load import find_project_file, load

STEP = "{id: a, type: source, source_type: csv}"


def names(project):
    return [pipeline.name for pipeline in project.pipelines]


def messages(folder):
    return [str(problem) for failure in load(folder.root).failures for problem in failure.problems]


def test_the_project_file_is_found_from_below(folder):
    file = folder.root / "dataflow_project.yml"
    assert find_project_file(folder.root) == file
    assert find_project_file(folder.root / "pipelines") == file
    assert find_project_file(file) == file


@pytest.mark.parametrize("name", ["dft_project.yml", "dft_project.yaml", "dataflow_project.yaml"])
def test_other_names_of_the_project_file(tmp_path, name):
    (tmp_path / name).touch()
    assert find_project_file(tmp_path).name == name


def test_no_project_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(SpecError, match=r"no project here: .*dataflow_project\.yml"):
        find_project_file(tmp_path)
    with pytest.raises(SpecError, match="does not exist"):
        find_project_file(tmp_path / "nowhere")


def test_a_project_loads_relative_to_its_file(folder, monkeypatch):
    folder.write("dataflow_project.yml", "name: shop\npipelines_dir: flows\nvariables: {a: 1}\nconnections: {w: {type: duckdb}}\n")
    folder.write("flows/b.yml", f"tags:\nsteps: [{STEP}]\n")
    folder.write("flows/deep/a.yaml", f"pipeline_name: x\ndescription: d\n---\nname: y\nsteps: [{STEP}]\n")
    folder.write("flows/.hidden.yml", "broken: [")
    folder.write("flows/note.txt", "broken: [")
    folder.write("flows/comment.yml", "# nothing here\n")
    monkeypatch.chdir("/")
    project = load(folder.root / "dataflow_project.yml", overrides={"v": 1})
    assert names(project) == ["b", "x", "y"]
    assert project.failures == ()
    assert project.model.project_name == "shop"
    assert project.model.vars == {"a": 1}
    assert project.root == folder.root
    assert project.overrides == {"v": 1}
    assert project.pipelines[0].places.at(("steps", 0, "id")).line == 2


def test_a_dft_project_is_a_project(tmp_path):
    (tmp_path / "dft_project.yml").write_text(
        "project_name: old\nversion: 1.0\nvars: {x: 1}\nsources: {pg: {type: postgresql, port: 1}}\nconnections: {pg: {type: mysql}}\n"
        "state: {ignore_in_git: true}\nlogging: {level: INFO, dir: .dft/logs}\n"
    )
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "m.yml").write_text(
        "pipeline_name: m\nvariables:\n  microbatch:\n    event_time_column: ts\n    batch_size: hour\n    begin: 2024-01-01\n"
        "steps:\n  - {id: a, type: source, source_type: csv, name: pg, config: {file_path: x.csv}}\n"
    )
    project = load(tmp_path)
    assert project.model.connections == {"pg": {"type": "postgresql", "port": 1}}
    model = project.pipelines[0].model
    assert (model.windows.every, model.windows.lookback, model.windows.begin) == ("hour", 1, date(2024, 1, 1))
    assert model.event_time_column == "ts"
    assert model.steps[0].connection == "pg"


def test_the_process_environment_wins_over_dotenv(folder, monkeypatch):
    folder.write(".env", "SPEC_A=file\nSPEC_B=file\nSPEC_PASSWORD='p w d 1'\n# comment\nSPEC_EMPTY\n")
    monkeypatch.setenv("SPEC_B", "process")
    project = load(folder.root)
    assert project.environment["SPEC_A"] == "file"
    assert project.environment["SPEC_B"] == "process"
    assert "SPEC_EMPTY" not in project.environment
    assert "SPEC_A" not in os.environ
    assert "p w d 1" not in mask("it was p w d 1")


def test_a_dotenv_that_is_no_text_is_refused(folder):
    folder.write(".env", b"A=\xff\n")
    with pytest.raises(SpecError, match=r"\.env: cannot be read"):
        load(folder.root)


def test_a_broken_file_does_not_take_the_others_down(folder):
    folder.write("pipelines/good.yml", f"steps: [{STEP}]\n")
    folder.write("pipelines/bad.yml", "steps: [\n")
    folder.write("pipelines/latin.yml", b"name: caf\xe9\n")
    project = load(folder.root)
    assert names(project) == ["good"]
    assert [Path(failure.file).name for failure in project.failures] == ["bad.yml", "latin.yml"]


def test_project_file_problems_are_errors(folder):
    folder.write("dataflow_project.yml", "project_nam: x\nexecutor: threads\nstages: {keep_failed: 3 fortnights}\nvars: 3\n")
    with pytest.raises(SpecError) as caught:
        load(folder.root)
    assert str(caught.value) == (
        "dataflow_project.yml:1:1: unknown key 'project_nam' in the project file\n  | project_nam: x\n  | ^\n"
        "  -> did you mean 'project_name'?\n"
        "dataflow_project.yml:2:11: 'threads' is none of 'in_process', 'multiprocess' or 'celery'\n  | executor: threads\n  |           ^\n"
        "dataflow_project.yml:3:23: '3 fortnights' is not a duration: "
        "write a number and one of ms, s, min, h, d, w, as in '15 min' or '2h'\n"
        "  | stages: {keep_failed: 3 fortnights}\n  |                       ^\n"
        "dataflow_project.yml:4:7: 'vars' must be a mapping of key: value, found 3\n  | vars: 3\n  |       ^"
    )


def test_a_project_file_with_two_documents_or_a_missing_folder(folder):
    folder.write("dataflow_project.yml", "a: 1\n---\nb: 1\n")
    with pytest.raises(SpecError, match="holds one document"):
        load(folder.root)
    folder.write("dataflow_project.yml", "pipelines_dir: nowhere\n")
    with pytest.raises(SpecError, match=r"dataflow_project.yml:1:16: the pipelines folder .*nowhere does not exist"):
        load(folder.root)


def test_all_mistakes_of_a_file_in_one_pass(folder):
    folder.write(
        "pipelines/bad.yml",
        "pipeline_name: bad\n"
        "taggs: [x]\n"
        'windows: {every: dya, lookback: "{{ 3 }}"}\n'
        "tags: [x]\n"
        "tags: [y]\n"
        "steps:\n"
        "  - id: a\n"
        "    type: sauce\n"
        "    query: select 1\n"
        "    depends_on: 3\n"
        "  - id: 1b\n"
        "    type: source\n"
        "    config: 3\n"
        "    soruce_type: csv\n"
        "  - type: endpoint\n"
        "    name: x\n"
        "    connection: y\n",
    )
    assert messages(folder) == [
        "pipelines/bad.yml:2:1: unknown key 'taggs' in a pipeline\n  | taggs: [x]\n  | ^\n  -> did you mean 'tags'?",
        "pipelines/bad.yml:3:18: 'dya' is not a cadence: use 10min, hour, day, week, month, year or a five-field cron expression\n"
        '  | windows: {every: dya, lookback: "{{ 3 }}"}\n  |                  ^',
        "pipelines/bad.yml:3:33: 'lookback' must be a whole number, found '{{ 3 }}'\n"
        '  | windows: {every: dya, lookback: "{{ 3 }}"}\n  |                                 ^\n'
        "  -> templates are rendered in `config`, `connections`, `checks` and `variables` only; write the value here",
        "pipelines/bad.yml:5:1: the key 'tags' stands here a second time, first in line 4\n  | tags: [y]\n  | ^\n  -> keep one of the two",
        "pipelines/bad.yml:8:11: 'sauce' is none of 'source', 'processor', 'endpoint', 'transform' or 'check'\n"
        "  |     type: sauce\n  |           ^\n  -> did you mean 'source'?",
        "pipelines/bad.yml:9:5: unknown key 'query' in a step\n  |     query: select 1\n  |     ^\n"
        "  -> indent it under the step's `config:`",
        "pipelines/bad.yml:10:17: 'depends_on' must be a list, found 3\n  |     depends_on: 3\n  |                 ^\n"
        "  -> put each item on a line of its own after '- ', or write [a, b]",
        "pipelines/bad.yml:11:9: '1b' is not a step id: use letters, digits, _ and -, not starting with a digit\n"
        "  |   - id: 1b\n  |         ^",
        "pipelines/bad.yml:13:13: 'config' must be a mapping of key: value, found 3\n  |     config: 3\n  |             ^",
        "pipelines/bad.yml:14:5: unknown key 'soruce_type' in a step\n  |     soruce_type: csv\n  |     ^\n"
        "  -> did you mean 'source_type'?",
        "pipelines/bad.yml:15:5: a step needs the key 'id'\n  |   - type: endpoint\n  |     ^\n  -> add `id:`",
        "pipelines/bad.yml:16:5: 'name' says the same as another key of a step\n  |     name: x\n  |     ^\n"
        "  -> keep one of connection, name",
    ]


def test_a_step_must_say_its_plugin(folder):
    folder.write(
        "pipelines/p.yml",
        "steps:\n  - {id: q, type: source}\n  - {id: w, type: source, endpoint_type: csv}\n  - {id: t, type: processor, connection: c}\n"
        "  - {id: ok, type: source, connection: c}\n  - {id: k, type: check, kind: validator}\n",
    )
    assert messages(folder) == [
        "pipelines/p.yml:2:5: step 'q' does not say which source it is\n  |   - {id: q, type: source}\n  |     ^\n"
        "  -> add `source_type`, for example source_type: csv, or `connection:` with a connection of the project",
        "pipelines/p.yml:3:27: step 'w' is of type source but has endpoint_type\n  |   - {id: w, type: source, endpoint_type: csv}\n"
        "  |                           ^\n  -> write source_type: csv, or change `type`",
        "pipelines/p.yml:4:5: step 't' does not say which processor it is\n  |   - {id: t, type: processor, connection: c}\n  |     ^\n"
        "  -> add `processor_type`, for example processor_type: sql",
    ]


def test_mistakes_in_a_microbatch_block_stand_where_they_were_written(folder):
    folder.write("pipelines/p.yml", "variables:\n  microbatch:\n    batch_size: dya\n    event_time_column: 3\n    foo: 1\n")
    assert [line.split("\n")[0] for line in messages(folder)] == [
        "pipelines/p.yml:3:17: 'dya' is not a cadence: use 10min, hour, day, week, month, year or a five-field cron expression",
        "pipelines/p.yml:4:24: 'event_time_column' must be text, found 3",
        "pipelines/p.yml:5:5: unknown key 'foo' in `windows`",
    ]


def test_duplicate_names_name_both_places_and_neither_loads(folder):
    folder.write("pipelines/a.yml", "name: two\n---\nname: other\n")
    folder.write("pipelines/b.yml", "description: x\npipeline_name: two\n")
    project = load(folder.root)
    assert names(project) == ["other"]
    assert messages(folder) == [
        "pipelines/a.yml:1:7: the pipeline name 'two' is also used at pipelines/b.yml:2:16\n  | name: two\n  |       ^\n"
        "  -> rename one of them",
        "pipelines/b.yml:2:16: the pipeline name 'two' is also used at pipelines/a.yml:1:7\n  | pipeline_name: two\n  |                ^\n"
        "  -> rename one of them",
    ]


def test_a_document_among_several_needs_a_name(folder):
    folder.write("pipelines/a.yml", "name: one\n---\ndescription: none\n")
    assert messages(folder)[0].startswith("pipelines/a.yml:3:1: a pipeline in a file of several needs a name")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "3\n"])
def test_a_document_that_is_no_mapping(folder, text):
    folder.write("pipelines/a.yml", text)
    assert "must be a mapping of key: value" in messages(folder)[0] or "valid dictionary" in messages(folder)[0]


def test_templates_in_connections_are_not_rendered_at_load(folder):
    folder.write(
        "dataflow_project.yml",
        "connections:\n  w: {type: postgres, password: \"{{ env_var('NOT_SET_ANYWHERE') }}\", host: '${ALSO_NOT}'}\n",
    )
    project = load(folder.root)
    assert project.model.connections["w"]["host"] == "${ALSO_NOT}"


def test_places_are_absolute_and_shown_from_the_current_folder(folder, monkeypatch):
    folder.write("pipelines/a.yml", f"steps: [{STEP}]\n")
    place = load(folder.root).pipelines[0].places.at(())
    assert Path(place.file).is_absolute()
    assert str(place) == "pipelines/a.yml:1:1"
    monkeypatch.chdir("/")
    assert str(place).endswith("/pipelines/a.yml:1:1") or str(place).startswith(str(folder.root).lstrip("/"))


def test_no_secret_in_a_shown_line(folder):
    folder.write("dataflow_project.yml", "connections:\n  w: {type: postgres, password: hunter22, password: b}\n")
    with pytest.raises(SpecError) as caught:
        load(folder.root)
    assert "hunter22" not in str(caught.value)
