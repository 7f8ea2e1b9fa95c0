"""Properties hold for sound pipelines, and find the ones that are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dataflow_assets.testing.binding import FINER
from dataflow_assets.windows import Cadence
from dataflow_assets_tests.testing.yard import Yard

ALL = "[run_twice, split_window, permute, late]"
TEST = """
test: sums
pipeline: sums
window: WINDOW
given:
  read:
    sql: |
      select range as id, timestamptz '2024-01-01 00:01:00Z' + interval (range * 7) minute as sold, range * 0.1::double as value
      from range(8)
expect:
  row_count: ROWS
properties: PROPERTIES
"""
PIPELINE = """
event_time_column: sold
windows: {every: hour, begin: 2024-01-01}
steps:
  - {id: read, type: source, connection: db, config: {query: "select * from t where sold >= {{ window.start }}"}}
  - {id: made, type: transform, kind: sql, depends_on: [read], config: {query: "QUERY"}}
  - {id: table, type: endpoint, connection: db, depends_on: [made], config: {table: sums, MODE}}
"""
NUMBERED = "select id, sold, row_number() over () as number from read"


def _sums(
    yard: Yard, query: str, *, mode: str = "mode: replace_window", rows: int = 16, properties: str = ALL, seed: int = 1
) -> dict[str, str]:
    """The outcomes of the pipeline's properties: passed, or the lines."""
    yard.write("dataflow_project.yml", "project_name: yard\nconnections: {db: {type: duckdb, path: nowhere.duckdb}}\n")
    yard.write("pipelines/sums.yml", PIPELINE.replace("QUERY", query).replace("MODE", "mode: replace_window"))
    outcomes = yard.outcomes(TEST.replace("ROWS", "8").replace("WINDOW", "2024-01-01").replace("PROPERTIES", properties), seed=seed)
    assert outcomes.pop("sums").status == "passed"
    return {name[5:-1]: "passed" if outcome.ok else outcome.text for name, outcome in outcomes.items()}


def test_a_sound_pipeline_has_them_all(yard: Yard) -> None:
    assert set(_sums(yard, "select id, sold, value * 2 as value from read").values()) == {"passed"}
    assert not (yard.folder / "nowhere.duckdb").exists()


def test_a_row_number_depends_on_the_order_and_on_the_window(yard: Yard) -> None:
    found = _sums(yard, NUMBERED, properties="[run_twice, split_window, permute]", seed=7)
    assert found["run_twice"] == "passed"
    assert "with 6 windows of 10min in place of 1 of hour" in found["split_window"]
    assert "with the rows in another order (permutation 1)" in found["permute"]
    assert "--seed 7" in found["permute"]
    again = _sums(yard, NUMBERED, properties="[permute]", seed=7)
    assert again["permute"].splitlines()[1:] == found["permute"].splitlines()[1:]


def test_an_append_loses_late_rows(yard: Yard) -> None:
    yard.write("dataflow_project.yml", "project_name: yard\nconnections: {db: {type: duckdb, path: nowhere.duckdb}}\n")
    text = PIPELINE.replace("event_time_column: sold\n", "").replace(
        'config: {query: "select', 'config: {event_time_column: sold, query: "select'
    )
    yard.write("pipelines/sums.yml", text.replace("QUERY", "from read").replace("MODE", "mode: append"))
    outcomes = yard.outcomes(TEST.replace("ROWS", "8").replace("WINDOW", "2024-01-01").replace("PROPERTIES", "[run_twice, late]"), seed=3)
    assert [outcome.status for outcome in outcomes.values()] == ["passed", "passed", "failed"]
    assert "late rows need replace_window or upsert" in outcomes["sums[late]"].text


def test_an_append_without_windows_doubles_and_an_upsert_does_not(yard: Yard) -> None:
    for mode, holds in (("append", False), ("upsert", True)):
        yard.sales(mode=mode, keys="[id]" if mode == "upsert" else "[]", windows=False)
        outcomes = yard.outcomes("""
            test: t
            pipeline: sales
            given: {priced: [{id: 1, amount: 1.5}, {id: 2, amount: 2.5}]}
            expect: {columns: [id], rows: [{id: 1}, {id: 2}]}
            properties: [run_twice, late]
            """)
        assert outcomes["t"].ok, outcomes["t"].text
        assert outcomes["t[run_twice]"].ok is outcomes["t[late]"].ok is holds
        if not holds:
            assert "append without windows adds the rows of every run" in outcomes["t[run_twice]"].text


def test_what_a_window_is_split_into_fits_it() -> None:
    for every, finer in FINER.items():
        whole, parts = Cadence(every, "Europe/Berlin"), Cadence(finer, "Europe/Berlin")
        for moment in (datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 10, 27, tzinfo=UTC), datetime(2024, 2, 29, 11, 59, tzinfo=UTC)):
            (window,) = whole.between(moment, moment + timedelta(microseconds=1))
            cut = list(parts.between(window.start, window.end))
            assert (cut[0].start, cut[-1].end) == (window.start, window.end)
            assert len(cut) > 1
