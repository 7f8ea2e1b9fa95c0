"""A publish that begins while rows are still being staged: the same rows and errors as a strict one, and nothing before the checks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from dataflow_assets.batches import cut
from dataflow_assets.connectors import _postgres_publish
from dataflow_assets.errors import DataflowError
from dataflow_assets.execution import early
from dataflow_assets.execution.early import EarlyPublish
from dataflow_assets.storage import stages
from dataflow_assets_tests.chaos.arena import Arena, build
from dataflow_assets_tests.chaos.lookers import Rows, target_of
from dataflow_assets_tests.execution.workshop import Workshop, days, failures

KINDS = ["postgres", "clickhouse", "csv", "json", "parquet"]


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of each early publish."""
    found: list[str] = []
    conclude, abandon = EarlyPublish.conclude, EarlyPublish.abandon

    def concluded(self: EarlyPublish, request: Any) -> Any:
        published = conclude(self, request)
        found.append("nothing" if published is None else "published")
        return published

    def abandoned(self: EarlyPublish) -> None:
        abandon(self)
        found.append("abandoned")

    monkeypatch.setattr(EarlyPublish, "conclude", concluded)
    monkeypatch.setattr(EarlyPublish, "abandon", abandoned)
    return found


def workshop_of(arena: Arena, *, wish: str = "always") -> Workshop:
    """The arena's project, published early."""
    path = arena.folder / "dataflow_project.yml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "stages": {"publish_early": wish}}))
    return Workshop(arena.folder)


def arena_of(kind: str, tmp_path: Path, request: pytest.FixtureRequest, *, mode: str = "replace_window") -> Arena:
    folder = tmp_path / "project"
    return build(folder, kind=kind, mode=mode, target=target_of(kind, folder, request))


def change(arena: Arena, old: str, new: str) -> None:
    path = arena.folder / "pipelines" / "load.yml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def recorded(shop: Workshop) -> list[Any]:
    """What the ledger says, but for what names the run."""
    entries = shop.ledger()["target"]
    return [(entry.unit, entry.rows, entry.checksum, {**entry.state, "batch": ""}) for entry in entries]


@pytest.mark.parametrize(("kind", "mode"), [*((kind, "replace_window") for kind in KINDS), ("postgres", "replace"), ("csv", "replace")])
def test_the_same_rows_as_a_strict_publish(
    kind: str, mode: str, tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str]
) -> None:
    arena = arena_of(kind, tmp_path, request, mode=mode)
    shop = workshop_of(arena)
    windows = 1 if mode == "replace" else 3
    for _ in range(2):  # into nothing, then over what is there
        assert failures(shop.run(todo=shop.status(full_refresh=True))) == []
        assert arena.look() == arena.expected
    made_after_its_checks = kind == "postgres" and mode == "replace_window"
    assert outcomes == ["nothing" if made_after_its_checks else "published", *["published"] * (2 * windows - 1)]
    early_ledger = recorded(shop)
    assert failures((strict := workshop_of(arena, wish="never")).run(todo=strict.status(full_refresh=True))) == []
    assert recorded(strict) == early_ledger
    assert len(outcomes) == 2 * windows


@pytest.mark.parametrize("kind", ["postgres", "clickhouse", "csv"])
def test_a_failed_check_leaves_the_target_as_it_was(kind: str, tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str]) -> None:
    arena = arena_of(kind, tmp_path, request)
    change(arena, "unique: true", "unique: true, max_value: 3999")
    shop = workshop_of(arena)
    assert len(failures(shop.run())) == 2
    first_day: Rows = Rows({row: count for row, count in arena.expected.items() if row[0] < 4_000})
    assert arena.look() == first_day
    assert outcomes == ["nothing" if kind == "postgres" else "published", "abandoned", "abandoned"]
    change(arena, ", max_value: 3999", "")
    assert failures(shop.run()) == []
    assert arena.look() == arena.expected


def test_a_failed_check_leaves_no_table_and_no_column(tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str]) -> None:
    arena = arena_of("postgres", tmp_path, request, mode="replace")
    change(arena, "unique: true", "unique: true, max_value: 3999")
    shop = workshop_of(arena)
    assert len(failures(shop.run())) == 1
    with psycopg.connect(arena.dsn) as connection:
        assert connection.execute("SELECT to_regclass('events')").fetchone() == (None,)
        connection.execute("CREATE TABLE events (id bigint, ts timestamptz, amount numeric(12, 2))")
    change(arena, '"mode"', '"schema_policy": "evolve", "mode"')
    assert len(failures(shop.run())) == 1
    with psycopg.connect(arena.dsn) as connection:
        names = connection.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'events'::regclass AND attnum > 0").fetchall()
    assert sorted(name for (name,) in names) == ["amount", "id", "ts"]
    change(arena, ", max_value: 3999", "")
    assert failures(shop.run()) == []
    assert arena.look() == arena.expected


def test_a_refused_value_is_told_as_by_a_strict_publish(tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str]) -> None:
    arena = arena_of("postgres", tmp_path, request, mode="replace")
    with psycopg.connect(arena.dsn) as connection:
        connection.execute("CREATE TABLE events (id bigint CHECK (id < 100), ts timestamptz, amount numeric(12, 2), note text)")
    told = {}
    for wish in ("always", "never"):
        (failed,) = failures(workshop_of(arena, wish=wish).run())
        told[wish] = (type(failed.error), str(failed.error), failed.step)
    assert told["always"] == told["never"]
    assert outcomes == ["nothing"]
    assert not arena.look()


def test_a_target_that_is_locked_does_not_keep_the_source_waiting(
    tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staging goes on past what may be held in memory; once the lock is gone, the strict publish does it."""
    monkeypatch.setattr(early, "AHEAD_BYTES", 1)
    monkeypatch.setattr(_postgres_publish, "EARLY_LOCK_SECONDS", 0.05)
    arena = arena_of("postgres", tmp_path, request, mode="replace")
    shop = workshop_of(arena)
    assert failures(shop.run()) == []
    outcomes.clear()
    with psycopg.connect(arena.dsn) as blocker:
        blocker.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        written = stages._write_receipt

        def let_go(*given: Any) -> None:
            written(*given)
            blocker.rollback()

        monkeypatch.setattr(stages, "_write_receipt", let_go)
        monkeypatch.setattr(stages, "resize", partial(cut, rows=1000))
        assert failures(shop.run(todo=shop.status(full_refresh=True))) == []
    assert outcomes == ["nothing"]
    assert arena.look() == arena.expected


def test_a_source_that_breaks_off_rolls_back(
    tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = arena_of("postgres", tmp_path, request, mode="replace")
    shop = workshop_of(arena)
    monkeypatch.setattr(stages, "resize", partial(cut, rows=1000))
    monkeypatch.setenv("DATAFLOW_FAILPOINTS", "extract.batch=error@3")
    assert len(failures(shop.run())) == 1
    assert outcomes == ["abandoned"]
    with psycopg.connect(arena.dsn) as connection:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
        assert connection.execute(others).fetchone() == (0,)
    monkeypatch.delenv("DATAFLOW_FAILPOINTS")
    assert failures(shop.run()) == []
    assert arena.look() == arena.expected


def test_small_windows_and_slow_sources_are_published_after_their_checks(
    tmp_path: Path, outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(tmp_path)
    shop.write("in.parquet", days())
    shop.pipeline(PIPELINE)
    assert failures(shop.run()) == []
    assert outcomes == ["nothing"]
    shop.write("dataflow_project.yml", "project_name: test\nstages: {publish_early: always}\n")
    monkeypatch.setattr(early, "SLOW_SECONDS", 1e-9)
    assert failures(shop.run()) == []
    assert outcomes == ["nothing", "nothing"]
    assert [row["id"] for row in shop.rows("out.parquet")] == list(range(12))


def test_rows_that_a_trigger_hands_on_wait_for_their_checks(tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str]) -> None:
    """A rollback does not take back what a trigger did outside of its transaction, such as to draw from a sequence."""
    arena = arena_of("postgres", tmp_path, request, mode="replace")
    with psycopg.connect(arena.dsn) as connection:
        connection.execute("CREATE TABLE events (id bigint, ts timestamptz, amount numeric(12, 2), note text); CREATE SEQUENCE drawn")
        connection.execute("CREATE FUNCTION draw() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''drawn''); RETURN NEW; END'")
        connection.execute("CREATE TRIGGER draws BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION draw()")
    change(arena, "unique: true", "unique: true, max_value: 3999")
    assert len(failures(workshop_of(arena).run())) == 1
    with psycopg.connect(arena.dsn) as connection:
        assert connection.execute("SELECT is_called FROM drawn").fetchone() == (False,)
    assert outcomes == ["abandoned"]


def test_an_interrupt_while_it_commits_finds_it_and_ends_it(tmp_path: Path, outcomes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop(tmp_path)
    shop.write("in.parquet", days())
    shop.write("dataflow_project.yml", "project_name: test\nstages: {publish_early: always}\n")
    shop.pipeline(PIPELINE)

    def interrupted(self: EarlyPublish, request: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EarlyPublish, "conclude", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shop.run()
    assert outcomes == ["abandoned"]
    assert not (tmp_path / "out.parquet").exists()


def test_checks_that_take_long_do_not_hold_the_targets_locks(tmp_path: Path, outcomes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "VERDICT_SECONDS", 0.05)
    monkeypatch.setenv("DATAFLOW_FAILPOINTS", "publish.ready=sleep:0.5")
    shop = Workshop(tmp_path)
    shop.write("in.parquet", days())
    shop.write("dataflow_project.yml", "project_name: test\nstages: {publish_early: always}\n")
    shop.pipeline(PIPELINE)
    assert failures(shop.run()) == []
    assert outcomes == ["nothing"]
    assert len(shop.rows("out.parquet")) == 12


def test_a_source_that_stands_still_does_not_hold_the_targets_locks(
    tmp_path: Path, request: pytest.FixtureRequest, outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = arena_of("postgres", tmp_path, request, mode="replace")
    monkeypatch.setattr(early, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(stages, "resize", partial(cut, rows=1000))
    monkeypatch.setenv("DATAFLOW_FAILPOINTS", "extract.batch=sleep:1@5")
    assert failures(workshop_of(arena).run()) == []
    assert outcomes == ["nothing"]
    assert arena.look() == arena.expected


PIPELINE = """
pipeline_name: p
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: in.parquet}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: out.parquet, mode: replace}}
"""
QUARANTINED = """
pipeline_name: p
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: in.parquet}}
  - id: rules
    type: check
    kind: validator
    depends_on: [read]
    config: {checks: [{column: id, max_value: 10, on_failure: quarantine}]}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [rules], config: {file_path: out.parquet, mode: replace}}
"""
TWO_SOURCES = """
pipeline_name: p
steps:
  - {id: read, type: source, source_type: parquet, config: {file_path: in.parquet}}
  - {id: other, type: source, source_type: parquet, config: {file_path: in.parquet}}
  - {id: write, type: endpoint, endpoint_type: parquet, depends_on: [read], config: {file_path: out.parquet, mode: replace}}
  - {id: more, type: endpoint, endpoint_type: parquet, depends_on: [other], config: {file_path: more.parquet, mode: replace}}
"""
UPSERT = PIPELINE.replace("mode: replace", "mode: upsert, upsert_keys: [id]")


@pytest.mark.parametrize("text", [QUARANTINED, TWO_SOURCES, UPSERT], ids=["rows set aside", "a second source", "upsert"])
def test_what_is_not_published_early(text: str, tmp_path: Path, outcomes: list[str]) -> None:
    shop = Workshop(tmp_path)
    shop.write("in.parquet", days())
    shop.write("dataflow_project.yml", "project_name: test\nstages: {publish_early: always}\n")
    shop.pipeline(text)
    assert failures(shop.run()) == []
    assert outcomes == []
    assert len(shop.rows("out.parquet")) == (11 if text is QUARANTINED else 12)


def test_an_unknown_wish_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.write("dataflow_project.yml", "project_name: test\nstages: {publish_early: sometimes}\n")
    shop.pipeline(PIPELINE)
    with pytest.raises(DataflowError, match="'auto', 'never' or 'always'"):
        shop.load()


def test_the_rows_are_those_of_the_stage_to_the_last_bit(tmp_path: Path, outcomes: list[str]) -> None:
    shop = Workshop(tmp_path)
    table = pa.table({"id": list(range(70_000)), "text": [f"{number}" * (number % 9) or None for number in range(70_000)]})
    shop.write("in.parquet", table)
    shop.write("dataflow_project.yml", "project_name: test\nstages: {publish_early: always}\n")
    shop.pipeline(PIPELINE)
    assert failures(shop.run()) == []
    assert outcomes == ["published"]
    assert shop.rows("out.parquet") == table.to_pylist()
