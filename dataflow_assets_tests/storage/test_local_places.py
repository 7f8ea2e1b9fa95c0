"""Files that are being written in a folder, and those that a dead writer has left."""

from __future__ import annotations

from pathlib import Path

from dataflow_assets.storage.places import LocalPlace


def test_only_files_of_dead_writers_are_swept(tmp_path: Path) -> None:
    """A writer that has gone on without the folder's lock must find its file again."""
    place = LocalPlace(tmp_path)
    left = tmp_path / ".out.dataflow.data-1-abcdabcd.tmp"
    left.write_bytes(b"half")
    with place.new_file(".out") as new:
        new.file.write(b"whole")
        place.sweep(".out")
        assert not left.exists()
        assert place.seal(new).size == 5
        place.publish(new, "out", expected=None)
        place.sweep(".out")
    assert (tmp_path / "out").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
