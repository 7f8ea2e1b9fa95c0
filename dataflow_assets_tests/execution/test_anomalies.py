"""Metric checks in whole runs: flagged windows are remembered with their rows, acknowledged ones learned from, blocked ones pass again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from dataflow_assets.errors import DataflowError
from dataflow_assets.execution.anomalies import anomalies, unknown_acknowledgements, watched_histories, watched_metrics
from dataflow_assets.execution.events import CheckEvaluated, Event
from dataflow_assets.execution.remeasuring import remeasured
from dataflow_assets.spec.acknowledgements import Acknowledgement, add_acknowledgement
from dataflow_assets_tests.execution.workshop import Workshop, failures

PIPELINE = """
pipeline_name: load
event_time_column: ts
windows: {every: day, begin: 2024-01-01, end: 2024-01-17}
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}}
  - id: watched
    type: check
    kind: metric_anomaly
    depends_on: [source]
    config: {anomaly: {name: rows, by: shop, blocking: BLOCKING}}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [watched], config: {file_path: out/}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, now=datetime(2024, 2, 2, tzinfo=UTC))


def rows(*counts: int, north: float = 0.5) -> pa.Table:
    """So many rows on each day of January, shared by two shops."""
    days = [(day, number) for day, count in enumerate(counts) for number in range(count)]
    moments = [datetime(2024, 1, 1, 10, tzinfo=UTC) + timedelta(days=day, seconds=number) for day, number in days]
    shops = ["north" if number < counts[day] * north else "south" for day, number in days]
    return pa.table({"id": list(range(len(days))), "ts": pa.array(moments, pa.timestamp("us", "UTC")), "shop": shops})


def written(shop: Workshop, *, blocking: bool) -> None:
    """The project, with days of 400 rows but for the 13th with 20."""
    counts = [400 + number % 5 for number in range(16)]
    counts[12] = 20
    shop.write("source.parquet", rows(*counts))
    shop.pipeline(PIPELINE.replace("BLOCKING", str(blocking).lower()))


def flagged(events: list[Event]) -> list[str]:
    """The windows whose check did not pass."""
    return [event.key for event in events if isinstance(event, CheckEvaluated) and not event.result.passed]


def say(shop: Workshop, window: str, verdict: str, **other: str) -> None:
    """Acknowledge a window."""
    said = {"pipeline": "load", "step": "watched", "metric": "rows", "window": window, "verdict": verdict, **other}
    add_acknowledgement(shop.folder, Acknowledgement.model_validate(said))


def found(shop: Workshop) -> list[tuple[str, str, tuple[str, ...]]]:
    """The anomalies: window, state, values of the dimension."""
    project, plan = shop.load()
    return [(item.window, item.state, item.parts) for item in anomalies(project, plan, now=shop.now)]


def test_a_flagged_window_is_marked_in_the_ledger_and_not_learned_from(shop: Workshop) -> None:
    written(shop, blocking=False)
    events = shop.run()
    assert (failures(events), flagged(events)) == ([], ["2024-01-13"])
    metrics = {entry.unit.key: entry.metrics for entry in shop.ledger()["target"]}
    assert metrics["2024-01-13"] == {
        "watched.rows": 20.0,
        "watched.rows[north]": 10.0,
        "watched.rows[south]": 10.0,
        **{f"watched.rows{part}!flagged": 1.0 for part in ("", "[north]", "[south]")},
    }
    assert set(metrics["2024-01-14"]) == {"watched.rows", "watched.rows[north]", "watched.rows[south]"}
    last = [event.result for event in events if isinstance(event, CheckEvaluated)][-1]
    assert last.metadata["trained_on"] == 14, "15 windows before it, one of them flagged"
    assert found(shop) == [("2024-01-13", "open", ("north", "south"))]

    say(shop, "2024-01-13", "expected")
    assert found(shop) == [("2024-01-13", "expected", ())]
    again = shop.run(todo=shop.status(keys=["2024-01-16", "2024-01-13"]))
    assert flagged(again) == []
    trained = {event.key: event.result.metadata["trained_on"] for event in again if isinstance(event, CheckEvaluated)}
    assert trained == {"2024-01-13": 12, "2024-01-16": 15}, "a window that is run again learns from those before it alone"
    assert not any("!" in name for entry in shop.ledger()["target"] for name in entry.metrics)


def test_a_blocked_window_is_acknowledged_and_passes_when_it_runs_again(shop: Workshop) -> None:
    written(shop, blocking=True)
    events = shop.run()
    assert [failure.key for failure in failures(events)] == ["2024-01-13"]
    assert len(shop.ledger()["target"]) == 15
    assert found(shop) == [("2024-01-13", "blocked", ())]
    say(shop, "2024-01-13", "expected", note="holiday")
    assert found(shop) == [("2024-01-13", "expected", ())]
    again = shop.run()
    assert [event.key for event in again if isinstance(event, CheckEvaluated)] == ["2024-01-13"]
    assert failures(again) == []
    assert len(shop.ledger()["target"]) == 16
    (result,) = [event.result for event in again if isinstance(event, CheckEvaluated)]
    assert result.description.endswith("; acknowledged as expected")


def test_learning_begins_anew_at_a_level_shift(shop: Workshop) -> None:
    shop.write("source.parquet", rows(*([40, 44, 36, 40] * 2), *([900, 909, 891, 900] * 2)))
    shop.pipeline(PIPELINE.replace("BLOCKING", "true"))
    assert [failure.key for failure in failures(shop.run())] == [f"2024-01-{day:02d}" for day in range(9, 17)]
    say(shop, "2024-01-09", "level_shift")
    again = shop.run()
    assert failures(again) == []
    said = [event.result.description for event in again if isinstance(event, CheckEvaluated)]
    assert said[0] == "rows is 900: learning (0/7)"
    assert said[-1].startswith("rows is 900, as expected (")


def test_what_is_watched_is_known_without_asking_a_target(shop: Workshop) -> None:
    written(shop, blocking=False)
    project, plan = shop.load()
    (item,) = watched_metrics(project, plan, now=shop.now)
    assert (item.name, list(item.history), item.settings.newest) == ("load.watched rows", [], 120)
    assert [(one.name, len(one.history)) for one in watched_histories(project, plan, now=shop.now)] == [("load.watched rows", 0)]
    say(shop, "2024-01-13", "expected", metric="rowz")
    project, plan = shop.load()
    assert [one.metric for one in unknown_acknowledgements(project, [item], ["load"])] == ["rowz"]
    assert unknown_acknowledgements(project, [item], ["other"]) == []


def test_a_new_metric_gets_its_history_from_the_target(shop: Workshop) -> None:
    written(shop, blocking=False)
    shop.pipeline(PIPELINE.replace("config: {anomaly: {name: rows, by: shop, blocking: BLOCKING}}", "config: {anomaly: {name: other}}"))
    shop.run()
    for metric, error in (("max(id)", ""), ("max(nope)", "load.watched new cannot be worked out from out: .*nope")):
        anomaly = f"{{name: new, metric: {metric}, by: shop}}"
        shop.pipeline(PIPELINE.replace("{name: rows, by: shop, blocking: BLOCKING}", anomaly))
        project, plan = shop.load()
        new = watched_histories(project, plan, now=shop.now)
        assert [list(item.history) for item in new] == [[]]
        if error:
            with pytest.raises(DataflowError, match=error):
                remeasured(project, plan, new, now=shop.now)
        else:
            (item,) = remeasured(project, plan, new, now=shop.now)
            assert [(one.key, one.value, one.rows) for one in item.history][:2] == [("2024-01-01", 399, 400), ("2024-01-02", 800, 401)]
            assert {name: (len(part), part[0].value) for name, part in item.parts.items()} == {"north": (16, 199), "south": (16, 399)}


def test_batches_have_a_history_too(shop: Workshop) -> None:
    shop.pipeline("""
pipeline_name: load
steps:
  - {id: source, type: source, source_type: parquet, config: {file_path: source.parquet}, checks: [{anomaly: {min_samples: 3}}]}
  - {id: target, type: endpoint, endpoint_type: parquet, depends_on: [source], config: {file_path: out.parquet, mode: append}}
""")
    said = []
    for count in (100, 101, 99, 100, 5, 102):
        shop.write("source.parquet", rows(count))
        said += [event.result for event in shop.run() if isinstance(event, CheckEvaluated)]
    assert [result.passed for result in said] == [True] * 4 + [False, True]
    assert said[-1].metadata["trained_on"] == 4
    ((window, state, _),) = found(shop)
    assert state == "open"
    assert window.startswith("attempt-")
