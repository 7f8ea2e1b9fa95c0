"""Whatever is killed, whenever: after the next run the target holds exactly the rows of the source, once."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dataflow_assets_tests.chaos.arena import Arena, build
from dataflow_assets_tests.chaos.lookers import target_of
from dataflow_assets_tests.chaos.victim import FENCED, OK

KILLED = -signal.SIGKILL
BEFORE = ["window.claimed", "extract.begin", "extract.batch", "stage.before_receipt", "stage.after_receipt", "publish.ready"]
"""Places of the run itself, which no connector knows: on a database that keeps the claims, and on files that do."""
PUBLISH = [
    "publish.begin",
    "publish.after_delete",
    "publish.mid_copy",
    "publish.before_commit",
    "publish.after_commit",
    "publish.done",
    "window.before_sweep",
]
AROUND_COMMIT = ["publish.mid_copy", "publish.before_commit", "publish.after_commit", "publish.done", "window.before_sweep"]
KINDS = ["postgres", "duckdb", "csv", "json", "parquet"]
OTHERS = ["mysql", "clickhouse", "snowflake", "bigquery", "sqlite"]
"""Their connectors' own tests kill in every mode; here, what a whole run makes of it."""
MODES = {
    "postgres": ["append", "upsert", "replace"],
    "duckdb": ["append", "upsert", "replace"],
    "csv": ["append", "replace"],
    "json": ["append"],
    "parquet": ["append", "replace"],
}
CASES = [(kind, "replace_window", place) for kind in ("postgres", "csv") for place in BEFORE]
CASES += [(kind, "replace_window", place) for kind in KINDS if kind != "json" for place in PUBLISH]  # json writes as csv does
CASES += [(kind, "replace_window", place) for kind in OTHERS for place in AROUND_COMMIT]
CASES += [(kind, mode, place) for kind in KINDS for mode in MODES[kind] for place in AROUND_COMMIT]
WHILE_STAGING = ["extract.batch", "publish.mid_copy", "stage.before_receipt", "publish.ready", "publish.before_commit"]
EARLY = [("postgres", place) for place in [*WHILE_STAGING, "publish.after_delete", "publish.after_commit"]]
EARLY += [(kind, place) for kind in ("csv", "clickhouse") for place in WHILE_STAGING[1:4]]


def arena_of(kind: str, mode: str, tmp_path: Path, request: pytest.FixtureRequest, *, early: str = "auto") -> Arena:
    """The arena of a kind; a server brings a fresh database."""
    folder = tmp_path / "project"
    return build(folder, kind=kind, mode=mode, target=target_of(kind, folder, request), early=early)


@pytest.mark.parametrize(("kind", "mode", "place"), CASES)
def test_killed_at_a_phase_boundary(kind: str, mode: str, place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of(kind, mode, tmp_path, request)
    second_window = "" if mode == "replace" else "@2"
    code = arena.run(failpoints=f"{place}=kill{second_window}", batch="one-batch")
    seen = arena.look()
    assert seen <= arena.expected, "a row is there twice, or one that never was"
    assert all(count in (0, 4_000) for count in by_day(seen)), "a window is there in part"
    if code == OK:  # a place that this kind of target does not pass
        assert place in {"publish.after_delete", "publish.mid_copy", "publish.begin"}
    else:
        assert code == KILLED
    assert arena.run(batch="one-batch") == OK
    assert arena.look() == arena.expected
    assert arena.leftovers() == []


@pytest.mark.parametrize(("kind", "place"), EARLY)
def test_killed_while_rows_go_into_the_target_before_their_checks(
    kind: str, place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    arena = arena_of(kind, "replace_window", tmp_path, request, early="always")
    assert arena.run(failpoints=f"{place}=kill@2", batch="one-batch") == KILLED
    seen = arena.look()
    assert seen <= arena.expected, "a row is there twice, or one that never was"
    assert by_day(seen) in ([4_000, 0, 0], [4_000, 4_000, 0] if place == "publish.after_commit" else None)
    assert arena.run(batch="one-batch") == OK
    assert arena.look() == arena.expected
    assert arena.leftovers() == []


def by_day(rows: Any) -> list[int]:
    """Rows of each day."""
    days = [0, 0, 0]
    for (number, _), count in rows.items():
        days[number // 4_000] += count
    return days


@pytest.mark.parametrize("kind", [*KINDS, "mysql", "clickhouse"])
def test_killed_at_random_again_and_again(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of(kind, "replace_window", tmp_path, request)
    chance = random.Random(20240110)
    kills = 0
    for _ in range(8):
        process = arena.start()
        time.sleep(chance.uniform(0.02, 0.5))
        process.kill()
        process.join()
        kills += process.exitcode == KILLED
        seen = arena.look()
        assert seen <= arena.expected
        assert all(count in (0, 4_000) for count in by_day(seen))
    assert kills
    assert arena.run() == OK
    assert arena.look() == arena.expected


@pytest.mark.parametrize("kind", ["postgres", "mysql", "clickhouse", "snowflake", "sqlite", "duckdb", "csv", "parquet"])
def test_concurrent_duplicates_end_in_the_same_rows(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of(kind, "replace_window", tmp_path, request)
    victims = [arena.start() for _ in range(3)]
    for process in victims:
        process.join(120)
    assert {process.exitcode for process in victims} <= {OK, FENCED}
    assert arena.run() == OK
    assert arena.look() == arena.expected


@pytest.mark.parametrize("kind", ["postgres", "mysql", "clickhouse", "snowflake", "sqlite", "duckdb", "csv", "parquet"])
def test_a_zombie_that_wakes_up_late_is_fenced_off(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of(kind, "replace_window", tmp_path, request)
    zombie = arena.start(failpoints="publish.ready=sleep:4")
    time.sleep(1.5)
    assert arena.run() == OK
    zombie.join(60)
    assert zombie.exitcode == FENCED
    assert arena.look() == arena.expected


def test_the_same_test_catches_a_naive_writer_that_tears_a_window(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of("postgres", "replace_window", tmp_path, request)
    assert arena.run() == OK
    assert arena.run(naive=arena.dsn, failpoints="publish.after_delete=kill@1", again=True) == KILLED
    assert any(count not in (0, 4_000) for count in by_day(arena.look())) or arena.look() != arena.expected


def test_the_same_test_catches_a_naive_writer_that_appends_twice(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of("postgres", "append", tmp_path, request)
    assert arena.run(naive=arena.dsn, failpoints="publish.after_commit=kill@2") == KILLED
    arena.run(naive=arena.dsn)
    assert not arena.look() <= arena.expected
