"""`acknowledged.yml`: reading it with places, adding to it without touching what stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import SpecError
from dataflow_assets.spec.acknowledgements import FILE, Acknowledgement, add_acknowledgement, read_acknowledgements
from dataflow_assets.spec.load import load

ONE = Acknowledgement(pipeline="p", step="s", metric="rows", window="2024-01-31", verdict="expected", note="a: 'b' # \"c\"\n- d", by="Änne")


def test_what_is_added_is_read_again_and_the_rest_stays(tmp_path: Path) -> None:
    assert read_acknowledgements(tmp_path) == ()
    add_acknowledgement(tmp_path, ONE)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text + "  # looked at together\n")
    other = ONE.model_copy(update={"verdict": "level_shift", "window": "2024-02-01T00:00+0100"})
    assert add_acknowledgement(tmp_path, other) == tmp_path / FILE
    assert read_acknowledgements(tmp_path) == (ONE, other)
    assert "# looked at together" in (tmp_path / FILE).read_text()


@pytest.mark.parametrize("before", ["acknowledged: []\n", "acknowledged:\n", "", "# none yet\n", "acknowledged:"])
def test_an_empty_file_is_filled(before: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(before)
    add_acknowledgement(tmp_path, ONE)
    assert read_acknowledgements(tmp_path) == (ONE,)


def test_a_file_that_cannot_be_added_to_is_left_as_it_was(tmp_path: Path) -> None:
    written = "acknowledged: [{pipeline: p, step: s, metric: m, window: 2024-01-31, verdict: expected}]\n"
    (tmp_path / FILE).write_text(written)
    with pytest.raises(SpecError, match="could not be added at its end"):
        add_acknowledgement(tmp_path, ONE)
    assert (tmp_path / FILE).read_text() == written
    assert read_acknowledgements(tmp_path)[0].window == "2024-01-31", "a date is the key of its day"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acknowledged:\n  - {pipeline: p, step: s, metric: m, window: k, verdict: fine}\n", r"acknowledged\.yml:2:\d+.*(\n.*)*expected"),
        ("acknowledged:\n  - {pipeline: p, step: s, metric: m, windw: k, verdict: expected}\n", "windw"),
        ("acknowleged: []\n", "did you mean `?'?acknowledged"),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("acknowledged: [\n", r"acknowledged\.yml:\d"),
    ],
)
def test_mistakes_have_their_place(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SpecError, match=message):
        read_acknowledgements(tmp_path)


def test_a_project_has_it_and_does_not_take_it_for_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "dataflow_project.yml").write_text("project_name: x\npipelines_dir: .\n")
    add_acknowledgement(tmp_path, ONE)
    project = load(tmp_path)
    assert (project.acknowledged, project.pipelines, project.failures) == ((ONE,), (), ())
    (tmp_path / FILE).write_text("acknowledged: 1\n")
    with pytest.raises(SpecError, match=FILE):
        load(tmp_path)


@settings(max_examples=25, deadline=None)
@given(note=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])), by=st.text("abc: #'\"{}[]-&*!|>%@`\\"))
def test_any_note_survives(note: str, by: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("ack")
    item = ONE.model_copy(update={"note": note, "by": by})
    add_acknowledgement(folder, item)
    assert read_acknowledgements(folder) == (item,)
