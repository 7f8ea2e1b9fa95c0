"""Several endpoints append what is new: whatever fails in between, each ends with every row once."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from dataflow_assets import failpoints
from dataflow_assets_tests.execution.workshop import Workshop, days, failures, finished

FRESH = """
pipeline_name: load
event_time_column: ts
retries: false
steps:
  - {{id: source, type: source, source_type: parquet, config: {{file_path: source.parquet}}}}
  - id: fresh
    type: transform
    kind: sql
    depends_on: [source]
    config:
      query: select * from source where ts > cast('{{{{ state.get('last_processed_date', '2023-01-01') }}}}' as timestamptz)
  - {{id: some, type: transform, kind: sql, depends_on: [fresh], config: {{query: "select * from fresh where {some}"}}}}
  - {{id: one, type: endpoint, endpoint_type: parquet, depends_on: [some], config: {{file_path: one/, mode: append}}}}
  - {{id: two, type: endpoint, endpoint_type: parquet, depends_on: [fresh], config: {{file_path: two/, mode: append}}}}
"""


def ids(shop: Workshop, name: str) -> list[int]:
    rows = shop.rows(name) if (shop.folder / name).exists() else []
    assert max(Counter(row["id"] for row in rows).values(), default=1) == 1, f"a row is in {name} twice"
    return [row["id"] for row in rows]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A project with three days of rows."""
    shop = Workshop(tmp_path)
    shop.write("source.parquet", days())
    return shop


@pytest.fixture
def half(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Both endpoints have two days; of the third the first endpoint has the rows, and the second has failed."""
    shop.write("source.parquet", days(count=2))
    shop.pipeline(FRESH.format(some="true"))
    assert failures(shop.run()) == []
    shop.write("source.parquet", days(count=3))
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_visits", {})
        patch.setenv(failpoints.VARIABLE, "publish.ready=error@2")
        (failure,) = failures(shop.run())
    assert (failure.step, ids(shop, "one"), ids(shop, "two")) == ("two", list(range(12)), list(range(8)))
    return shop


def test_the_other_gets_the_batch_from_what_was_staged(half: Workshop) -> None:
    half.write("source.parquet", days(count=3))
    assert failures(half.run()) == []
    assert (ids(half, "one"), ids(half, "two")) == (list(range(12)), list(range(12)))


def test_the_other_gets_the_batch_from_a_source_that_still_holds_it(half: Workshop) -> None:
    shutil.rmtree(half.folder / ".dataflow")
    events = half.run()
    assert failures(events) == []
    (one,) = finished(events, "one")
    assert one.published is not None
    assert one.published.already
    assert (ids(half, "one"), ids(half, "two")) == (list(range(12)), list(range(12)))
    half.write("source.parquet", days(count=4))
    assert failures(half.run()) == []
    assert (ids(half, "one"), ids(half, "two")) == (list(range(16)), list(range(16)))


@pytest.mark.parametrize("batch", ["", "again"])
def test_where_the_rows_cannot_be_told_apart_nothing_is_published_until_each_has_caught_up(half: Workshop, batch: str) -> None:
    shutil.rmtree(half.folder / ".dataflow")
    half.write("source.parquet", days(count=4))
    lacking = half.ledger()["one"][-1].unit.key if batch else ""
    (failure,) = failures(half.run(batch=lacking))
    assert "that load.two did not get" in str(failure.error)
    assert "--select load.two" in str(failure.error)
    assert not failure.error.transient  # type: ignore[union-attr]
    assert (ids(half, "one"), ids(half, "two")) == (list(range(12)), list(range(8)))
    for step in ("two", "one"):
        assert failures(half.run(steps=frozenset({step}))) == []
    assert (ids(half, "one"), ids(half, "two")) == (list(range(16)), list(range(16)))
    half.write("source.parquet", days(count=5))
    assert failures(half.run()) == []
    assert (ids(half, "one"), ids(half, "two")) == (list(range(20)), list(range(20)))


def test_what_one_endpoint_filters_out_does_not_come_to_the_other_again(shop: Workshop) -> None:
    shop.pipeline(FRESH.format(some="id < 6"))
    for count in (2, 3, 4):
        shop.write("source.parquet", days(count=count))
        assert failures(shop.run()) == []
    assert (ids(shop, "one"), ids(shop, "two")) == (list(range(6)), list(range(16)))


def test_an_endpoint_that_is_run_alone_goes_on_from_its_own_state(shop: Workshop) -> None:
    shop.pipeline(FRESH.format(some="true"))
    for count in (2, 3, 4):
        shop.write("source.parquet", days(count=count))
        assert failures(shop.run(steps=frozenset({"two"}))) == []
    assert (ids(shop, "one"), ids(shop, "two")) == ([], list(range(16)))


def test_a_pipeline_that_asks_for_no_state_appends_what_it_reads(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its runs is a batch of its own, as the batches of a files sensor are, whatever another one lacks."""
    text = FRESH.format(some="true")
    shop.pipeline(text.replace(" where ts > cast('{{ state.get('last_processed_date', '2023-01-01') }}' as timestamptz)", ""))
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_visits", {})
        patch.setenv(failpoints.VARIABLE, "publish.ready=error@2")
        assert failures(shop.run())
    shutil.rmtree(shop.folder / ".dataflow")
    shop.write("source.parquet", days(count=1))
    assert failures(shop.run()) == []
    assert (len(shop.rows("one")), len(shop.rows("two"))) == (16, 4)
