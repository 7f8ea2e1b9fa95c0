"""Rows are set aside and replayed, and the process is killed: target and quarantine together hold every row of the source, once."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataflow_assets_tests.chaos.arena import Arena, build, source_table
from dataflow_assets_tests.chaos.lookers import Rows, target_of
from dataflow_assets_tests.chaos.victim import OK

KILLED = -signal.SIGKILL
RULE = "{column: note, not_null: true, on_failure: quarantine}"
RUNS = [("postgres", "quarantine.ready@2"), ("postgres", "publish.after_commit@3"), ("parquet", "publish.before_commit@3")]
REPLAYS = [("postgres", "publish.after_commit@2"), ("duckdb", "quarantine.marked")]


def arena_of(kind: str, mode: str, tmp_path: Path, request: pytest.FixtureRequest) -> Arena:
    """Three days; every seventh row has no note, which is against the rule."""
    arena = build(tmp_path / "project", kind=kind, mode=mode, target=target_of(kind, tmp_path / "project", request))
    put_rule(arena, RULE)
    return arena


def put_rule(arena: Arena, rule: str) -> None:
    """Another rule for the check in the pipeline."""
    path = arena.folder / "pipelines" / "load.yml"
    text = path.read_text()
    (line,) = (line for line in text.splitlines() if "checks:" in line)
    path.write_text(
        text.replace(line, f"    quarantine: {{max_share: 20%}}\n    config: {{checks: [{rule}]}}").replace(
            "20%}\n    quarantine: {max_share: 20%}", "20%}"
        )
    )


def aside(arena: Arena, kind: str) -> Rows:
    """The quarantined rows as (id, note), read with the system's own driver."""
    if kind == "postgres":
        import psycopg

        with psycopg.connect(arena.dsn) as connection:
            if connection.execute("SELECT to_regclass('events__quarantine')").fetchone() == (None,):
                return Counter()
            texts = [text for (text,) in connection.execute("SELECT row_json FROM events__quarantine")]
    elif kind == "duckdb":
        import duckdb

        with duckdb.connect(str(arena.folder / "target.duckdb")) as connection:
            texts = [text for (text,) in connection.execute("SELECT row_json FROM events__quarantine").fetchall()]
    else:
        texts = pq.read_table(arena.folder / "out" / "events__quarantine.parquet")["row_json"].to_pylist()
    return Counter((row["id"], str(row["note"])) for row in map(json.loads, texts))


@pytest.mark.parametrize(("kind", "place"), RUNS)
def test_a_run_killed_while_it_sets_rows_aside(kind: str, place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of(kind, "replace_window", tmp_path, request)
    name, _, visit = place.partition("@")
    assert arena.run(failpoints=f"{name}=kill@{visit}") == KILLED
    assert arena.look() <= arena.expected
    assert arena.run() == OK
    held = aside(arena, kind)
    assert arena.look() + held == arena.expected
    assert {note for _, note in held} == {"None"}
    assert arena.leftovers() == []


@pytest.mark.parametrize(("kind", "place"), REPLAYS)
def test_a_replay_killed_on_its_way(kind: str, place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arena = arena_of(kind, "append", tmp_path, request)
    assert arena.run() == OK
    before = len(source_table()) // 7
    assert before <= sum(aside(arena, kind).values()) <= before + 1
    put_rule(arena, "{column: id, max_value: 9000, on_failure: quarantine}, {column: note, max_length: 99, on_failure: quarantine}")
    name, _, visit = place.partition("@")
    assert arena.replay(failpoints=f"{name}=kill@{visit or 1}") == KILLED
    assert arena.look() <= arena.expected
    assert arena.replay() == 0
    held = aside(arena, kind)
    assert arena.look() + held == arena.expected
    assert held
    assert min(number for number, _ in held) > 9000
