"""Rows that break a rule are kept and the others published: who sees which, the budget, reruns, and that no row is lost or doubled."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dataflow_assets import discovery, failpoints
from dataflow_assets.errors import CheckFailed, ReadFailed
from dataflow_assets.execution.events import CheckEvaluated, StepFinished
from dataflow_assets.protocols import BrokenRows, CheckPromise, CheckResult, Severity, StepContext
from dataflow_assets.spec.base import Model
from dataflow_assets.storage.row_text import rows_from_text, schema_from_text
from dataflow_assets_tests.execution.workshop import Workshop, checks, days, failures, finished

RULE = "{column: value, max_value: 1000, not_null: true, on_failure: quarantine}"
WINDOWED = """
pipeline_name: load
event_time_column: ts
windows: {every: day, begin: 2024-01-01, end: 2024-01-04}
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - id: target
    type: endpoint
    endpoint_type: parquet
    depends_on: [source]
    quarantine: {max_share: 60%}
    checks: [RULE]
    config: {file_path: out/}
""".replace("RULE", RULE)
WHOLE = """
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - id: target
    type: endpoint
    endpoint_type: parquet
    depends_on: [source]
    quarantine: {max_share: 60%}
    checks: [RULE]
    config: {file_path: out.parquet, mode: MODE}
""".replace("RULE", RULE)
APPENDED = (
    WINDOWED.replace("event_time_column: ts\n", "")
    .replace("{file_path: source.parquet}", "{file_path: source.parquet, event_time_column: ts}")
    .replace("out/}", "out/, mode: append}")
)
PLACES = [
    "quarantine.split",
    "quarantine.ready",
    "quarantine.published",
    "publish.ready",
    "publish.before_commit",
    "publish.after_commit",
    "publish.done",
]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    shop = Workshop(tmp_path)
    shop.pipeline(WINDOWED)
    source(shop, {5: 5000, 6: None, 9: 7000})
    return shop


def source(shop: Workshop, values: dict[int, int | None]) -> pa.Table:
    """Three days of four rows, some of them with another value."""
    rows = days().to_pylist()
    for number, value in values.items():
        rows[number]["value"] = value
    table = pa.Table.from_pylist(rows, schema=days().schema)
    shop.write("source.parquet", table)
    return table


def held(shop: Workshop, name: str = "out__quarantine.parquet") -> list[dict[str, Any]]:
    """The rows set aside, each as it is kept and, under `row`, as it was; by id."""
    path = shop.folder / name
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    for row in rows:
        schema = schema_from_text(row["row_schema"])
        (row["row"],) = rows_from_text(pa.array([row["row_json"]]), schema).to_pylist()
    return sorted(rows, key=lambda row: row["row"]["id"])


def published(shop: Workshop, name: str = "out") -> list[int]:
    return [row["id"] for row in shop.rows(name)] if (shop.folder / name).exists() else []


def test_the_good_rows_are_published_and_the_bad_ones_kept(shop: Workshop) -> None:
    events = shop.run()
    assert failures(events) == []
    assert published(shop) == [0, 1, 2, 3, 4, 7, 8, 10, 11]
    rows = held(shop)
    assert [row["row"] for row in rows] == [
        row for row in pq.read_table(shop.folder / "source.parquet").to_pylist() if row["id"] in (5, 6, 9)
    ]
    first = rows[0]
    assert (first["pipeline"], first["step"], first["window_key"]) == ("load", "target", "2024-01-02")
    assert (first["rules"], first["column_name"], first["value"]) == ("value_range", "value", "5000")
    assert first["reason"] == "value: range at most 1000"
    assert str(first["window_start"])[:10] == "2024-01-02"
    assert first["attempt"] == shop.ledger()["target"][1].attempt
    assert [(row["rules"], row["value"]) for row in rows[1:]] == [("value_not_null", None), ("value_range", "7000")]


def test_a_run_says_how_many_and_where(shop: Workshop) -> None:
    events = shop.run()
    reports = finished(events, "target")
    assert [(report.rows, report.quarantined, report.quarantine) for report in reports] == [
        (4, 0, ""),
        (2, 2, "out__quarantine.parquet"),
        (3, 1, "out__quarantine.parquet"),
    ]
    results = [event.result for event in events if isinstance(event, CheckEvaluated) and not event.result.passed]
    assert {(result.name, result.severity.value, result.blocking, result.quarantine, result.failed) for result in results} == {
        ("value_range", "warn", False, True, 1),
        ("value_not_null", "warn", False, True, 1),
    }
    states = [entry.state for entry in shop.ledger()["target"]]
    assert [(state.get("quarantined"), state["rows_read"]) for state in states] == [(None, "4"), ("2", "4"), ("1", "4")]


def test_a_row_that_breaks_several_rules_is_kept_once(shop: Workshop) -> None:
    shop.pipeline(WINDOWED.replace(RULE, RULE + ", {column: id, max_value: 10, on_failure: quarantine, name: small}"))
    source(shop, {11: 7000})
    shop.run()
    (row,) = (row for row in held(shop) if row["row"]["id"] == 11)
    assert (row["rules"], row["column_name"], row["value"]) == ("value_range, small", "value", "7000")
    assert row["reason"] == "value: range at most 1000; id: range at most 10"
    assert len(held(shop)) + len(published(shop)) == 12


def test_a_rerun_replaces_what_the_window_had_set_aside_and_a_clean_one_empties_it(shop: Workshop) -> None:
    shop.run()
    source(shop, {4: 9000, 9: 7000})
    todo = [item for item in shop.status(keys=["2024-01-02"]) if item.run]
    assert failures(shop.run(todo=todo)) == []
    assert [row["row"]["id"] for row in held(shop)] == [4, 9]
    assert published(shop) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
    source(shop, {})
    shop.run(todo=shop.status(full_refresh=True))
    assert held(shop) == []
    assert published(shop) == list(range(12))


def test_beyond_its_budget_a_window_fails_with_everything_as_it_was(shop: Workshop) -> None:
    shop.pipeline(WINDOWED.replace("max_share: 60%", "max_share: 40%"))
    events = shop.run()
    (failure,) = failures(events)
    assert isinstance(failure.error, CheckFailed)
    assert failure.key == "2024-01-02"
    text = str(failure.error)
    assert "load.target: 2 of 4 rows (50 %) would be quarantined, beyond the budget of max_share 40 %" in text
    assert "value_not_null (1), value_range (1)" in text
    assert "dataflow run --select load --window 2024-01-02" in text
    assert published(shop) == [0, 1, 2, 3, 8, 10, 11]
    assert [row["row"]["id"] for row in held(shop)] == [9]
    over = [event.result for event in events if isinstance(event, CheckEvaluated) and event.key == "2024-01-02"]
    assert [(result.severity.value, result.blocking) for result in over if not result.passed] == [("error", True)] * 2


@pytest.mark.parametrize(
    ("budget", "fails"), [("{max_rows: 1, max_share: 100%}", True), ("{max_rows: 2, max_share: 1.0}", False), ("{}", True)]
)
def test_the_budget_is_rows_or_a_share_and_a_tenth_by_default(shop: Workshop, budget: str, fails: bool) -> None:
    shop.pipeline(WINDOWED.replace("{max_share: 60%}", budget))
    assert bool(failures(shop.run())) is fails


def test_what_lies_below_the_rule_sees_the_rows_that_are_left(shop: Workshop) -> None:
    shop.pipeline(
        """
pipeline_name: load
steps:
  - id: source
    type: source
    source_type: parquet
    config: {file_path: source.parquet}
    quarantine: {max_share: 50%}
    checks: [RULE, {check: row_count, min_rows: 12, name: all_came}]
  - {id: strict, type: check, kind: validator, depends_on: [source], config: {checks: [{column: value, max_value: 1000, not_null: true}]}}
  - {id: sums, type: transform, kind: sql, depends_on: [strict], config: {query: "select 1 as id, sum(value) as total from strict"}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [sums], config: {file_path: out.parquet, mode: replace}}
  - {id: copy, type: endpoint, endpoint_type: parquet, depends_on: [strict], config: {file_path: copy.parquet, mode: replace}}
""".replace("RULE", RULE)
    )
    events = shop.run()
    assert failures(events) == []
    assert checks(events)["all_came"]
    total = sum(number * 10 for number in range(12) if number not in (5, 6, 9))
    assert [row["total"] for row in shop.rows("out.parquet")] == [total]
    assert published(shop, "copy.parquet") == [0, 1, 2, 3, 4, 7, 8, 10, 11]
    for name in ("out__quarantine.parquet", "copy__quarantine.parquet"):
        assert [(row["step"], row["row"]["id"]) for row in held(shop, name)] == [("source", 5), ("source", 6), ("source", 9)]
    (report,) = finished(events, "source")
    assert (report.rows, report.quarantined) == (9, 3)


def test_only_the_branch_below_the_rule_loses_the_rows(shop: Workshop) -> None:
    shop.pipeline("""
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - id: first
    type: check
    kind: validator
    depends_on: [source]
    quarantine: {max_share: 50%}
    config: {checks: [{column: value, max_value: 6000, on_failure: quarantine}]}
  - id: second
    type: check
    kind: validator
    depends_on: [first]
    quarantine: {max_share: 50%}
    config: {checks: [{column: value, not_null: true, max_value: 4000, on_failure: quarantine}]}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [second], config: {file_path: out.parquet, mode: replace}}
  - {id: raw, type: endpoint, endpoint_type: parquet, depends_on: [source], config: {file_path: raw.parquet, mode: replace}}
""")
    assert failures(shop.run()) == []
    assert published(shop, "raw.parquet") == list(range(12))
    assert published(shop, "out.parquet") == [0, 1, 2, 3, 4, 7, 8, 10, 11]
    assert [(row["step"], row["row"]["id"]) for row in held(shop)] == [("second", 5), ("second", 6), ("first", 9)]
    assert not (shop.folder / "raw__quarantine.parquet").exists()


def test_later_copies_are_set_aside_whatever_batch_they_are_in(shop: Workshop) -> None:
    count = 36_000
    keys = [number % 33_000 if number % 7 else None for number in range(count)]
    shop.write("source.parquet", pa.table({"id": list(range(count)), "key": keys}))
    rule = "{column: key, unique: true, on_failure: quarantine}"
    shop.pipeline(WHOLE.replace(RULE, rule).replace("MODE", "replace"))
    assert failures(shop.run()) == []
    kept = pq.read_table(shop.folder / "out.parquet")
    seen: set[int] = set()
    expected = [number for number, key in enumerate(keys) if key is None or not (key in seen or seen.add(key))]  # type: ignore[func-returns-value]
    assert sorted(kept["id"].to_pylist()) == expected
    aside = pq.read_table(shop.folder / "out__quarantine.parquet")
    assert kept.num_rows + aside.num_rows == count
    assert aside["rules"].unique().to_pylist() == ["key_unique"]


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_batches_keep_their_own_rows(shop: Workshop, mode: str) -> None:
    config = "upsert, upsert_keys: [id]" if mode == "upsert" else mode
    shop.pipeline(WHOLE.replace("MODE", config))
    assert failures(shop.run(batch="one")) == []
    assert len(held(shop)) == 3
    assert failures(shop.run(batch="one")) == []  # a retry of the same batch
    assert len(held(shop)) == 3
    source(shop, {0: None})
    assert failures(shop.run(batch="two")) == []
    ids = [row["row"]["id"] for row in held(shop)]
    assert ids == ([0] if mode == "replace" else [0, 5, 6, 9])
    assert len(published(shop, "out.parquet")) == {"append": 20, "upsert": 12, "replace": 11}[mode]
    if mode == "append":
        assert failures(shop.run(full_refresh=True, batch="three")) == []
        assert ([row["row"]["id"] for row in held(shop)], len(published(shop, "out.parquet"))) == ([0], 11)


def test_an_appended_window_that_runs_again_leaves_both_sides(shop: Workshop) -> None:
    shop.pipeline(APPENDED)
    shop.run()
    source(shop, {4: 9000})
    assert failures(shop.run(todo=shop.status(keys=["2024-01-02"]))) == []
    assert published(shop) == [0, 1, 2, 3, 4, 7, 8, 10, 11]
    assert [row["row"]["id"] for row in held(shop)] == [5, 6, 9]


def test_a_replay_of_a_source_that_has_lost_rows_is_refused(shop: Workshop) -> None:
    shop.run()
    before = published(shop), held(shop)
    table = pq.read_table(shop.folder / "source.parquet")
    shop.write("source.parquet", table.slice(0, 6))
    (first, *_) = failures(shop.run(todo=shop.status(keys=["2024-01-02"]), replay=True))
    assert isinstance(first.error, ReadFailed)
    assert "the sources hold 2 rows, and held 4 when it was published" in str(first.error)
    assert (published(shop), held(shop)) == before


@pytest.mark.parametrize("text", [WINDOWED, APPENDED, WHOLE.replace("MODE", "append")])
def test_wherever_it_stops_the_next_attempt_ends_with_every_row_once(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bad rows, a stop at every place, and rules that change in between: target and quarantine are the source."""
    chance = random.Random(20240131)
    for number, place in enumerate(PLACES if "windows" not in text else PLACES[1:6:2]):
        shop = Workshop(tmp_path / str(number))
        shop.pipeline(text)
        source(shop, {row: chance.choice([None, 2000, 5000]) for row in chance.sample(range(12), 4)})
        shop.pipeline(text.replace("60%", "100%"))
        monkeypatch.setattr(failpoints, "_visits", {})
        monkeypatch.setenv(failpoints.VARIABLE, f"{place}=error@{chance.choice([1, 2]) if 'windows' in text else 1}")
        shop.run(batch="one")
        monkeypatch.delenv(failpoints.VARIABLE)
        seen = sorted(published(shop, "out") or published(shop, "out.parquet"))
        assert len(set(seen)) == len(seen)
        shop.pipeline(text.replace("60%", "100%").replace("max_value: 1000", f"max_value: {chance.choice([1000, 3000])}"))
        assert failures(shop.run(batch="one")) == [], place
        there = published(shop, "out") or published(shop, "out.parquet")
        aside = [row["row"]["id"] for row in held(shop)]
        assert sorted(there + aside) == list(range(12)), place
        rows = {row["id"]: row for row in pq.read_table(shop.folder / "source.parquet").to_pylist()}
        assert all(row["row"] == rows[row["row"]["id"]] for row in held(shop))


def test_the_stage_of_a_dead_attempt_is_taken_over_and_split_anew(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.pipeline(WHOLE.replace("MODE", "replace"))
    monkeypatch.setattr(failpoints, "_visits", {})
    monkeypatch.setenv(failpoints.VARIABLE, "quarantine.ready=error")
    assert len(failures(shop.run())) == 1
    monkeypatch.delenv(failpoints.VARIABLE)
    events = shop.run()
    assert [report.resumed for report in finished(events, "source")] == [True]
    assert (len(published(shop, "out.parquet")), len(held(shop))) == (9, 3)
    assert list((shop.folder / ".dataflow" / "stages").rglob("*.parquet")) == []


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_text_files_keep_them_in_a_file_beside(shop: Workshop, kind: str) -> None:
    ending = {"csv": "csv", "json": "ndjson"}[kind]
    text = WHOLE.replace("endpoint_type: parquet", f"endpoint_type: {kind}").replace("out.parquet, mode: MODE", f"deep/out.{ending}")
    shop.pipeline(text)
    assert failures(shop.run()) == []
    lines = (shop.folder / "deep" / f"out__quarantine.{ending}").read_text().splitlines()
    rows = lines[1:] if kind == "csv" else [json.loads(line)["row_json"] for line in lines]
    assert len(rows) == 3
    assert all("5000" in rows[0] for _ in rows)


def test_the_table_may_have_another_name(shop: Workshop) -> None:
    shop.pipeline(WINDOWED.replace("{max_share: 60%}", "{max_share: 60%, table: rejects/bad.parquet}"))
    assert failures(shop.run()) == []
    assert len(held(shop, "rejects/bad.parquet")) == 3


def test_a_rule_that_is_gone_empties_the_quarantine_with_its_next_run(shop: Workshop) -> None:
    shop.run()
    shop.pipeline(WINDOWED.replace(f"    checks: [{RULE}]\n", "").replace("    quarantine: {max_share: 60%}\n", ""))
    assert failures(shop.run(todo=shop.status(full_refresh=True))) == []
    assert (held(shop), published(shop)) == ([], list(range(12)))


def test_reports_name_only_published_steps(shop: Workshop) -> None:
    reports = [event for event in shop.run() if isinstance(event, StepFinished) and event.step == "source"]
    assert {(report.quarantined, report.quarantine) for report in reports} == {(0, "")}


class _Odd:
    """A check that says only when it is finished that rows are to leave: those with an odd id."""

    kind = "odd"
    Options = type("Options", (Model,), {"__annotations__": {"on_failure": str}, "on_failure": "fail"})
    promises = (CheckPromise("odd"),)

    def __init__(self, options: Any) -> None:
        self.failed = 0

    def begin(self, schema: pa.Schema, context: StepContext) -> _Odd:
        return self

    def _mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        return pc.equal(pc.bit_wise_and(batch.column("id"), 1), 1)

    def update(self, batch: pa.RecordBatch) -> None:
        self.failed += self._mask(batch).true_count

    def finish(self, stage: Any) -> list[CheckResult]:
        return [CheckResult("odd", passed=False, severity=Severity.WARN, blocking=False, failed=self.failed, quarantine=True)]

    def pick(self, batch: pa.RecordBatch) -> list[BrokenRows]:
        return [BrokenRows("odd", "id", self._mask(batch))]


def test_a_plugin_that_does_not_promise_it_may_set_rows_aside(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    find, kinds = discovery.find, discovery.kinds
    monkeypatch.setattr(discovery, "find", lambda family, kind: _Odd if kind == "odd" else find(family, kind))
    monkeypatch.setattr(discovery, "kinds", lambda family: {**kinds(family), **({"odd": "odd"} if family == "checks" else {})})
    shop.pipeline("""
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - {id: even, type: check, kind: odd, depends_on: [source], quarantine: {max_share: 60%}, config: {on_failure: quarantine}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [even], config: {file_path: out.parquet, mode: replace}}
""")
    assert failures(shop.run()) == []
    assert published(shop, "out.parquet") == [0, 2, 4, 6, 8, 10]
    assert [row["row"]["id"] for row in held(shop)] == [1, 3, 5, 7, 9, 11]
