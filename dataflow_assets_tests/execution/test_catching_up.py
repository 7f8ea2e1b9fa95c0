"""Several endpoints append what is new: whatever fails in between, each ends with every row once."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

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

THREE = f"""{FRESH}
  - {{{{id: three, type: endpoint, endpoint_type: parquet, depends_on: [fresh], config: {{{{file_path: three/, mode: append}}}}}}}}
"""

APART = """
pipeline_name: load
event_time_column: ts
retries: false
variables:
  since: "{{ state.get('last_processed_date', '2023-01-01') }}"
steps:
""" + "".join(
    f"""
  - {{id: {name}, type: source, source_type: parquet, config: {{file_path: {name}.parquet}}}}
  - {{id: new_{name}, type: transform, kind: sql, depends_on: [{name}], config: {{query: {query}}}}}
  - {{id: {name}_lake, type: endpoint, endpoint_type: parquet, depends_on: [new_{name}], config: {{file_path: {name}_lake/, mode: append}}}}
"""
    for name, query in {
        "a": """ "select * from a where ts > cast('{{ since }}' as timestamptz)" """,
        "b": """ "select * from b where ts > cast('{{ state.get('last_processed_date', '2023-01-01') }}' as timestamptz)" """,
    }.items()
)


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


def stopped_at_two(shop: Workshop, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> None:
    """A run that publishes the first endpoint and fails at the second."""
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_visits", {})
        patch.setenv(failpoints.VARIABLE, "publish.ready=error@2")
        (failure,) = failures(shop.run(**keys))
    assert failure.step == "two"


def half_of(shop: Workshop, text: str, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Every endpoint has two days; of the third the first endpoint has the rows, and the second has failed."""
    shop.write("source.parquet", days(count=2))
    shop.pipeline(text)
    assert failures(shop.run()) == []
    shop.write("source.parquet", days(count=3))
    stopped_at_two(shop, monkeypatch)
    return shop


@pytest.fixture
def half(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """One of two endpoints has the third day, and the other has failed."""
    half_of(shop, FRESH.format(some="true"), monkeypatch)
    assert (ids(shop, "one"), ids(shop, "two")) == (list(range(12)), list(range(8)))
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


@pytest.mark.parametrize("some", ["id < 6", "true"])
def test_endpoints_that_were_run_alone_get_nothing_again_from_a_run_of_all(shop: Workshop, some: str) -> None:
    shop.pipeline(FRESH.format(some=some))
    for step in ("one", "two"):
        assert failures(shop.run(steps=frozenset({step}))) == []
    assert failures(shop.run()) == []
    assert ids(shop, "two") == list(range(12))
    shop.write("source.parquet", days(count=4))
    assert failures(shop.run()) == []
    assert (ids(shop, "one"), ids(shop, "two")) == (list(range(6 if some == "id < 6" else 16)), list(range(16)))


def test_endpoints_whose_filters_leave_different_rows_get_nothing_again_from_a_run_of_all(shop: Workshop) -> None:
    """Run alone they do not come equally far, and each has the batch under a name of its own."""
    text = FRESH.format(some="id < 6").replace("[fresh], config: {file_path: two/", "[others], config: {file_path: two/")
    others = '  - {id: others, type: transform, kind: sql, depends_on: [fresh], config: {query: "select * from fresh where id < 9"}}\n'
    shop.pipeline(text + others)
    for step in ("one", "two"):
        assert failures(shop.run(steps=frozenset({step}))) == []
    assert failures(shop.run()) == []
    assert (ids(shop, "one"), ids(shop, "two")) == (list(range(6)), list(range(9)))


def test_one_that_was_loaded_alone_does_not_get_the_batch_that_a_third_lacks_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    half_of(shop, THREE.format(some="true"), monkeypatch)
    shutil.rmtree(shop.folder / ".dataflow")
    assert failures(shop.run(steps=frozenset({"two"}))) == []
    for count in (3, 4):
        shop.write("source.parquet", days(count=count))
        assert failures(shop.run()) == []
        assert [ids(shop, name) for name in ("one", "two", "three")] == [list(range(4 * count))] * 3


def test_a_full_refresh_that_fails_in_between_is_completed_by_a_plain_run(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.pipeline(FRESH.format(some="true"))
    stopped_at_two(shop, monkeypatch, full_refresh=True)
    for count in (3, 4):
        shop.write("source.parquet", days(count=count))
        assert failures(shop.run()) == []
        assert (ids(shop, "one"), ids(shop, "two")) == (list(range(4 * count)), list(range(4 * count)))


def test_endpoints_of_different_sources_go_on_from_where_each_source_was(shop: Workshop) -> None:
    """The newest row of the one says nothing of what the other has still to come."""
    shop.write("a.parquet", days(count=2))
    shop.write("b.parquet", days(count=3))
    shop.pipeline(APART)
    assert failures(shop.run()) == []
    for rows in (10, 12):
        shop.write("a.parquet", days(count=3).slice(0, rows))
        shop.write("b.parquet", days(count=4))
        assert failures(shop.run()) == []
        assert (ids(shop, "a_lake"), ids(shop, "b_lake")) == (list(range(rows)), list(range(16)))


def test_an_endpoint_of_another_source_that_is_ahead_holds_nobody_up(shop: Workshop) -> None:
    shop.write("a.parquet", days(count=2))
    shop.write("b.parquet", days(count=2))
    shop.pipeline(APART)
    assert failures(shop.run()) == []
    shop.write("b.parquet", days(count=3))
    assert failures(shop.run(steps=frozenset({"b_lake"}))) == []
    shop.write("a.parquet", days(count=4))
    shop.write("b.parquet", days(count=4))
    assert failures(shop.run()) == []
    assert (ids(shop, "a_lake"), ids(shop, "b_lake")) == (list(range(16)), list(range(16)))


def test_what_is_said_names_every_endpoint_and_is_a_way_out_although_one_filters(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    half_of(shop, THREE.format(some="id % 4 < 2"), monkeypatch)
    shutil.rmtree(shop.folder / ".dataflow")
    shop.write("source.parquet", days(count=4))
    (failure,) = failures(shop.run())
    said = re.findall(r"dataflow run --select load\.(\w+)", getattr(failure.error, "hint", ""))
    assert said == ["two", "three", "one"]
    for step in said:
        assert failures(shop.run(steps=frozenset({step}))) == []
    shop.write("source.parquet", days(count=5))
    assert failures(shop.run()) == []
    kept = [number for number in range(20) if number % 4 < 2]
    assert [ids(shop, name) for name in ("one", "two", "three")] == [kept, list(range(20)), list(range(20))]
