"""Whatever is killed while windows leave their target: every row is in the target or in the archive, and the next time finishes."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.execution.archives import Archive
from dataflow_assets.execution.held import open_session
from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.restoring import restore
from dataflow_assets.execution.session import Session
from dataflow_assets.execution.status import window_status
from dataflow_assets.failpoints import VARIABLE, _visits
from dataflow_assets.operations.retention import find_old, remove_old
from dataflow_assets.plan.build import build_plan
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.spec.load import load
from dataflow_assets_tests.chaos.arena import Arena, source_table
from dataflow_assets_tests.chaos.lookers import Rows, rows_of, target_of
from dataflow_assets_tests.chaos.test_kills import KILLED, arena_of
from dataflow_assets_tests.chaos.victim import NOW, OK

KEPT = "\nretention: {target: 7d}\n"
KINDS = ["postgres", "mysql", "clickhouse", "duckdb", "parquet"]
PLACES = ["publish.before_commit@1", "publish.after_commit@1"]
"""While the archive is written; when the target has let go and nobody knows: the archive needs no second publish then."""
MORE = {"duckdb": ["retention.claimed", "retention.archived", "publish.after_delete@1", "retention.retired@1"]}
ANY = ["retention.claimed", "retention.archived", "retention.retired", "publish.begin", "publish.before_commit", "publish.after_commit"]


def prepared(kind: str, tmp_path: Path, request: pytest.FixtureRequest, *, retention: str = KEPT) -> Arena:
    """Three days are loaded; two of them are older than they are kept."""
    arena = arena_of(kind, "replace_window", tmp_path, request)
    assert arena.run() == OK
    path = arena.folder / "pipelines" / "load.yml"
    path.write_text(path.read_text() + retention)
    return arena


@contextmanager
def opened(arena: Arena) -> Iterator[tuple[PipelinePlan, Session, Archive]]:
    """The pipeline with its archive."""
    project = load(arena.folder)
    (pipeline,) = build_plan(project).pipelines
    session = open_session(project, pipeline, now=NOW, attempt=uuid.uuid4().hex)
    assert pipeline.retention.archive is not None
    archive = Archive(session, pipeline.retention.archive, step="target", column="ts", timezone="UTC")
    yield pipeline, session, archive
    archive.close()
    session.close()


def archived(arena: Arena) -> Rows:
    """What the archive holds."""
    with opened(arena) as (pipeline, _, archive):
        rows: Rows = Counter()
        for entry in archive.entries().values():
            with archive.read(archive.unit(entry.unit), ("id", "note")) as reader:
                table = pa.Table.from_batches(reader, reader.schema)
            rows.update((int(i), str(note)) for i, note in zip(table["id"].to_pylist(), table["note"].to_pylist(), strict=True))
        assert pipeline.name == "load"
        return rows


def states(arena: Arena) -> list[tuple[str, bool]]:
    """The state of each window, and whether it would run."""
    with opened(arena) as (pipeline, session, _):
        return [(todo.state, todo.run) for todo in window_status(session.project, pipeline, now=NOW)]


def moments(arena: Arena) -> list[datetime]:
    """When each window was published, as the ledger says."""
    with opened(arena) as (pipeline, session, _):
        return [entry.published_at for entry in ledger_entries(session.project, pipeline, now=NOW)["target"]]


def require_every_row(arena: Arena) -> None:
    """No row is lost; in the target each stands once, in the archive too."""
    there, away = arena.look(), archived(arena)
    assert there <= arena.expected
    assert away <= arena.expected
    assert there | away == arena.expected, "a row is neither in the target nor in the archive"


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_each_place_in_turn(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = prepared(kind, tmp_path, request)
    before = moments(arena)
    for place in [*PLACES, *MORE.get(kind, [])]:
        name, _, visit = place.partition("@")
        assert arena.retain(failpoints=f"{name}=kill@{visit or 1}") in {KILLED, OK}, place
        require_every_row(arena)
    assert arena.retain() == OK
    require_every_row(arena)
    assert sum(arena.look().values()) == 4_000
    assert sum(archived(arena).values()) == 8_000
    assert states(arena) == [("retired", False), ("retired", False), ("published", False)]
    assert arena.run() == OK, "a tick that has nothing to do"
    assert sum(arena.look().values()) == 4_000
    assert arena.leftovers() == []
    assert moments(arena) == before, "what leaves is no news"
    with opened(arena) as (pipeline, session, archive):
        assert pipeline.windows is not None
        window = pipeline.windows.cadence.window("2024-01-02")
        assert restore(session, pipeline.by_id["target"], window, archive).rows == 4_000
        assert restore(session, pipeline.by_id["target"], window, archive).already
        assert sum(arena.look().values()) == 8_000
        assert not find_old(session.project, [pipeline], now=NOW), "what was just brought back is left alone"
        later = NOW + timedelta(days=31)
        assert moments(arena) == before, "nor is what comes back"
        gone = {old.key: old.rows for old in remove_old(session.project, [pipeline], now=later)}
    assert gone == {"2024-01-02": 4_000, "2024-01-03": 4_000}
    assert archived(arena) == arena.expected
    assert sum(arena.look().values()) == 0


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(failures=st.lists(st.tuples(st.sampled_from(ANY), st.integers(1, 4)), max_size=4))
def test_any_sequence_of_failures_keeps_every_row(
    failures: list[tuple[str, int]], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    if not (tmp_path / "project").exists():
        prepared("parquet", tmp_path, request)
    folder = tmp_path_factory.mktemp("any") / "project"
    shutil.copytree(tmp_path / "project", folder)
    arena = Arena(folder, target_of("parquet", folder, request).look, rows_of(source_table()))
    project = load(arena.folder)
    (pipeline,) = build_plan(project).pipelines
    with pytest.MonkeyPatch.context() as patch:
        for place, visit in failures:
            _visits.clear()
            patch.setenv(VARIABLE, f"{place}=error@{visit}")
            remove_old(project, [pipeline], now=NOW)
        patch.setenv(VARIABLE, "")
        require_every_row(arena)
        assert not [old.error for old in remove_old(project, [pipeline], now=NOW) if old.error]
    require_every_row(arena)
    assert (sum(arena.look().values()), sum(archived(arena).values())) == (4_000, 8_000)
