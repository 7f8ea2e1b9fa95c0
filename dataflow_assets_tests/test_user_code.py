"""Files of the user: what runs is what the file says now."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dataflow_assets.user_code import load_file


def test_an_edit_that_keeps_second_and_size_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own bytecode is current for it: only second and size are compared."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "factor.py"
    for factor in (2, 3):
        path.write_text(f"factor = {factor}\n")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert load_file(path).factor == factor


def test_a_file_knows_where_it_is_and_leaves_no_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "where.py"
    path.write_text("here = __file__\n\ndef fail():\n    raise ValueError('no')\n")
    module = load_file(path)
    assert module.here == str(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["where.py"]
    with pytest.raises(ValueError, match="no") as caught:
        module.fail()
    assert caught.traceback[-1].path == path


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("factor = 2\n")
    with pytest.raises(ImportError, match="not a Python file"):
        load_file(tmp_path / "notes.txt")
