"""Rows leave a quarantine once: appended ones by themselves, whatever stops in between and however the rules change."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataflow_assets import failpoints
from dataflow_assets.errors import CheckFailed, Fenced, WriteFailed
from dataflow_assets.execution import replaying
from dataflow_assets.execution.discarding import discard_rows
from dataflow_assets.execution.held import held_counts, held_units, open_session
from dataflow_assets.execution.replaying import Replayed, replay_rows, replays_rows
from dataflow_assets.execution.rewriting import HeldRows
from dataflow_assets.tables import Claim
from dataflow_assets_tests.execution.test_quarantine import APPENDED, RULE, WHOLE, WINDOWED, held, published, source
from dataflow_assets_tests.execution.workshop import Workshop, failures

PLACES = [
    "quarantine.marked",
    "publish.before_commit",
    "publish.after_commit",
    "quarantine.released",
    "quarantine.replayed",
]


def replay(shop: Workshop, *, attempt: str = "", rule: str | None = None) -> list[Replayed]:
    """Replay every unit of the only endpoint."""
    project, plan = shop.load()
    (step,) = plan.endpoints
    done = []
    with_session = open_session(project, plan, now=shop.now)
    units = held_units(with_session, step)
    with_session.close()
    for number, unit in enumerate(units):
        session = open_session(project, plan, now=shop.now, attempt=f"{attempt or random.random()}-{number}")
        try:
            done.append(replay_rows(session, step, unit, rule=rule))
        finally:
            session.close()
    return done


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    shop = Workshop(tmp_path)
    shop.pipeline(APPENDED)
    source(shop, {5: 5000, 6: None, 9: 7000})
    assert failures(shop.run()) == []
    return shop


def relaxed(shop: Workshop, limit: int, text: str = APPENDED) -> None:
    """The same pipeline with another limit."""
    shop.pipeline(text.replace("max_value: 1000", f"max_value: {limit}"))


def test_rows_that_pass_todays_rules_are_appended_and_leave(shop: Workshop) -> None:
    assert replay(shop) == [Replayed("2024-01-02", 0, 2), Replayed("2024-01-03", 0, 1)]
    relaxed(shop, 6000)
    assert replay(shop) == [Replayed("2024-01-02", 1, 1), Replayed("2024-01-03", 0, 1)]
    assert published(shop) == [0, 1, 2, 3, 4, 5, 7, 8, 10, 11]
    assert [row["row"]["id"] for row in held(shop)] == [6, 9]
    assert replay(shop) == [Replayed("2024-01-02", 0, 1), Replayed("2024-01-03", 0, 1)]
    assert {row["id"]: row for row in shop.rows("out")}[5] == {
        row["id"]: row for row in pq.read_table(shop.folder / "source.parquet").to_pylist()
    }[5]
    project, plan = shop.load()
    assert held_counts(project, plan, now=shop.now) == {"target": 2}
    assert [todo.state for todo in shop.status()] == ["published"] * 3
    newest = max(shop.ledger()["target"], key=lambda entry: entry.published_at)
    assert (newest.state["released"], newest.state["replay_of"], newest.rows) == ("1", "2024-01-02", 1)
    assert newest.state["last_processed_date"] == "2024-01-03"


def test_one_rule_alone_may_be_replayed(shop: Workshop) -> None:
    shop.pipeline(APPENDED.replace(RULE, "{column: value, max_value: 100000, on_failure: quarantine}"))
    assert replay(shop, rule="value_not_null") == [Replayed("2024-01-02", 1, 1), Replayed("2024-01-03", 0, 1)]
    assert [row["row"]["id"] for row in held(shop)] == [5, 9]


@pytest.mark.parametrize("mode", ["append", "upsert, upsert_keys: [id]"])
def test_batches_are_replayed_by_their_rows(tmp_path: Path, mode: str) -> None:
    shop, text = Workshop(tmp_path), WHOLE.replace("MODE", mode)
    shop.pipeline(text)
    source(shop, {5: 5000, 6: None})
    shop.run(batch="one")
    source(shop, {1: 2000, 5: 5000})
    shop.run(batch="two")
    relaxed(shop, 4000, text)
    assert sorted((done.released, done.left) for done in replay(shop)) == [(0, 2), (1, 1)]
    assert published(shop, "out.parquet").count(1) == (2 if mode == "append" else 1)
    assert [row["row"]["id"] for row in held(shop)] == [5, 5, 6]
    _, plan = shop.load()
    assert replays_rows(plan, plan.by_id["target"])


def test_wherever_a_replay_stops_every_row_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(20240201)
    stops = [(place, visit) for place in PLACES for visit in ((1, 2) if "publish" in place else (1,))]
    for number, (place, visit) in enumerate(stops):
        shop = Workshop(tmp_path / str(number))
        text = WHOLE.replace("MODE", "append").replace("60%", "100%")
        shop.pipeline(text)
        bad_rows = zip(chance.sample(range(12), 5), [2000, None, 5000, 7000, 5000], strict=True)
        source(shop, dict(bad_rows))
        assert failures(shop.run()) == []
        relaxed(shop, 6000, text)
        monkeypatch.setattr(failpoints, "_visits", {})
        monkeypatch.setenv(failpoints.VARIABLE, f"{place}=error@{visit}")
        with pytest.raises((OSError, WriteFailed), match="failpoint"):
            replay(shop)
        monkeypatch.delenv(failpoints.VARIABLE)
        assert len(set(published(shop, "out.parquet"))) == len(published(shop, "out.parquet"))
        relaxed(shop, chance.choice([1000, 3000, 6000]), text)
        replay(shop)
        relaxed(shop, 6000, text)
        replay(shop)
        rows = pq.read_table(shop.folder / "source.parquet").to_pylist()
        bad = [row["id"] for row in rows if row["value"] is None or row["value"] > 6000]
        assert [row["row"]["id"] for row in held(shop)] == bad, (place, visit)
        assert sorted(published(shop, "out.parquet") + bad) == list(range(12)), (place, visit)
        assert {row["released_as"] for row in held(shop)} <= {None}


def test_a_replay_that_was_overtaken_cannot_publish(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    relaxed(shop, 6000)

    def overtake(name: str) -> None:
        if name == "quarantine.marked":
            monkeypatch.setattr(replaying, "failpoint", failpoints.failpoint)
            assert [done.released for done in replay(shop, attempt="second")] == [1, 0]

    monkeypatch.setattr(replaying, "failpoint", overtake)
    with pytest.raises(Fenced):
        replay(shop, attempt="first")
    assert sorted(published(shop) + [row["row"]["id"] for row in held(shop)]) == list(range(12))


def test_rows_that_a_transform_lies_before_are_not_replayed_alone(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.pipeline(
        """
pipeline_name: load
steps:
  - id: source
    type: source
    source_type: parquet
    config: {file_path: source.parquet}
    quarantine: {max_share: 60%}
    checks: [RULE]
  - {id: sums, type: transform, kind: sql, depends_on: [source], config: {query: "select 1 as id, sum(value) as total from source"}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [sums], config: {file_path: out.parquet, mode: append}}
""".replace("RULE", RULE)
    )
    source(shop, {5: 5000})
    assert failures(shop.run()) == []
    with pytest.raises(CheckFailed, match="cannot be replayed alone: 'sums' makes other rows of them"):
        replay(shop)
    assert len(held(shop)) == 1


def test_rows_cannot_be_compared_with_published_ones(shop: Workshop) -> None:
    shop.pipeline(APPENDED.replace(RULE, RULE + ", {column: id, unique: true}"))
    with pytest.raises(CheckFailed, match="id_unique may compare rows with others"):
        replay(shop)


def test_rules_about_the_window_are_not_put_to_its_rows_again(shop: Workshop) -> None:
    shop.pipeline(APPENDED.replace(RULE, "{check: row_count, min_rows: 4}").replace("    quarantine: {max_share: 60%}\n", ""))
    assert sum(done.released for done in replay(shop)) == 3  # a row count is about the window, which was published


def test_a_rule_that_fails_without_setting_aside_refuses(shop: Workshop) -> None:
    shop.pipeline(APPENDED.replace(RULE, "{column: value, max_value: 1000}").replace("    quarantine: {max_share: 60%}\n", ""))
    with pytest.raises(CheckFailed, match="the rows cannot be replayed: value: 1 of 2 rows"):
        replay(shop)
    assert len(held(shop)) == 3


def test_a_window_that_replaces_itself_is_no_matter_of_rows(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.pipeline(WINDOWED)
    source(shop, {})
    _, plan = shop.load()
    assert not replays_rows(plan, plan.by_id["target"])


def test_an_unfinished_unit_waits_for_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, text = Workshop(tmp_path), WHOLE.replace("MODE", "append")
    shop.pipeline(text)
    source(shop, {5: 5000})
    monkeypatch.setattr(failpoints, "_visits", {})
    monkeypatch.setenv(failpoints.VARIABLE, "quarantine.published=error")
    assert len(failures(shop.run(batch="one"))) == 1
    monkeypatch.delenv(failpoints.VARIABLE)
    relaxed(shop, 9000, text)
    with pytest.raises(CheckFailed, match="an attempt died between"):
        replay(shop)
    assert failures(shop.run(batch="one")) == []
    assert (published(shop, "out.parquet"), held(shop)) == (list(range(12)), [])


def test_the_rows_keep_their_types_on_the_way(tmp_path: Path) -> None:
    shop, text = Workshop(tmp_path), WHOLE.replace("MODE", "append").replace("out.parquet", "out/")
    shop.pipeline(text)
    table = source(shop, {5: 5000})
    shop.run()
    relaxed(shop, 9000, text)
    replay(shop)
    parts = [pq.read_table(path).schema.remove_metadata() for path in (tmp_path / "out").glob("*.parquet")]
    assert len(parts) == 2
    assert all(part.equals(table.schema.remove_metadata()) for part in parts)
    assert pa.concat_tables([pq.read_table(path) for path in (tmp_path / "out").glob("*.parquet")]).num_rows == 12


def test_rows_that_are_given_up_leave_with_who_and_why(shop: Workshop) -> None:
    project, plan = shop.load()
    (step,) = plan.endpoints
    for unit in held_units(open_session(project, plan, now=shop.now), step):
        session = open_session(project, plan, now=shop.now, attempt=f"discard-{unit.key}")
        assert discard_rows(session, step, unit, by="ann", why="test rows", rule="value_range") == 1
    assert [row["row"]["id"] for row in held(shop)] == [6]
    relaxed(shop, 9000)
    assert replay(shop) == [Replayed("2024-01-02", 0, 1), Replayed("2024-01-03", 0, 0)]
    notes = [unit.discarded for unit in held_units(open_session(project, plan, now=shop.now), step)]
    assert [[(note["by"], note["why"], note["rule"], note["rows"]) for note in found] for found in notes] == [
        [("ann", "test rows", "value_range", 1)]
    ] * 2
    assert len(published(shop)) == 9


def test_a_mark_that_appears_while_another_is_settled_stays_its_owners(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay dies after marking; of the two that follow one settles the old mark while the other has marked the row anew."""
    relaxed(shop, 6000)
    monkeypatch.setattr(failpoints, "_visits", {})
    monkeypatch.setenv(failpoints.VARIABLE, "quarantine.marked=error")
    with pytest.raises(OSError, match="failpoint"):
        replay(shop, attempt="first")
    monkeypatch.delenv(failpoints.VARIABLE)
    marked, resume = threading.Event(), threading.Event()
    others: list[threading.Thread] = []

    def pause(name: str) -> None:
        if name == "quarantine.marked" and threading.current_thread() in others:
            marked.set()
            assert resume.wait(60)

    claim = HeldRows.claim

    def overtaken(self: HeldRows, key: str) -> Claim:
        if not others:
            others.append(threading.Thread(target=replay, args=(shop,), kwargs={"attempt": "third"}))
            others[0].start()
            assert marked.wait(60)
        return claim(self, key)

    monkeypatch.setattr(replaying, "failpoint", pause)
    monkeypatch.setattr(HeldRows, "claim", overtaken)
    assert sum(done.released for done in replay(shop, attempt="second")) == 0
    resume.set()
    others[0].join()
    assert published(shop) == [0, 1, 2, 3, 4, 5, 7, 8, 10, 11]
    assert [row["row"]["id"] for row in held(shop)] == [6, 9]
