"""`dataflow anomalies`: what is listed, said and replayed, over a real target."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dataflow_assets_tests.cli.conftest import Answer, ProjectFolder, windowed

Call = Callable[..., Answer]
WATCH = "  - id: watch\n    type: check\n    kind: metric_anomaly\n    depends_on: [check]\n    config: {anomaly: {name: rows}}\n"
OLD = "{pipeline: first, step: watch, metric: old, window: w, verdict: expected}"


@pytest.fixture
def watched(project: ProjectFolder) -> ProjectFolder:
    """Twelve days with ten rows, but for the 11th with one."""
    text = windowed("first", table="facts").replace("end: 2024-01-04", "end: 2024-01-13")
    project.pipeline("first", text.replace("depends_on: [check]", "depends_on: [watch]") + WATCH)
    for name in ("second", "third"):
        (project.root / "pipelines" / f"{name}.yml").unlink()
    lines = ["id,at,value", *(f"{day * 10 + n},2024-01-{day:02d}T10:00:0{n}Z,{n}" for day in range(1, 13) for n in range(10) if day != 11)]
    project.rows("999,2024-01-11T10:00:00Z,1", lines=lines)
    return project


def test_an_anomaly_is_listed_acknowledged_and_replayed(watched: ProjectFolder, call: Call) -> None:
    at = ("--project", watched.root)
    assert call("run", *at).code == 0
    listed = call("anomalies", "list", *at)
    assert listed.code == 0
    assert "first.watch rows  2024-01-11  open   1      2 to 50" in listed.out
    assert "1 open anomaly, 0 acknowledged." in listed.out
    (item,) = call("anomalies", "list", "first.watch", "--json", *at).json["anomalies"]
    assert (item["state"], item["window"], item["verdict"]["value"], item["acknowledged"]) == ("open", "2024-01-11", 1.0, None)
    assert call("anomalies", "list", "first.read", *at).out.startswith("\n0 open anomalies")

    replayed = call("anomalies", "backtest", "first", "--json", *at).json
    (metric,) = replayed["metrics"]
    assert (metric["windows"], metric["judged"], metric["alerted"], metric["sensitivity"]) == (12, 5, 1, 3.5)
    assert [alert["window"] for alert in metric["alerts"]] == ["2024-01-11"]
    text = call("anomalies", "backtest", "--budget", "0", *at)
    assert text.code == 0
    assert "5 of 12 windows judged, all windows alike; 1 would have alerted, 73.0 a year" in text.out
    assert "for 0 a year: sensitivity: " in text.out

    said = call("anomalies", "ack", "first.watch", "rows", "--window", "2024-01-11", "--expected", "--note", "snow", "--by", "me", *at)
    assert (said.code, "first.watch rows 2024-01-11: expected, in acknowledged.yml" in said.out) == (0, True)
    after = call("anomalies", "list", "--json", *at).json["anomalies"]
    assert [(one["state"], one["acknowledged"]["note"], one["acknowledged"]["by"]) for one in after] == [("expected", "snow", "me")]
    assert call("anomalies", "list", "--open", "--json", *at).json["anomalies"] == []
    assert call("anomalies", "backtest", "--json", *at).json["metrics"][0]["alerted"] == 0
    assert call("validate", *at).code == 0


def test_what_cannot_be_meant_is_refused_with_a_suggestion(watched: ProjectFolder, call: Call) -> None:
    at = ("--project", watched.root)

    def refused(*words: str) -> str:
        answer = call("anomalies", *words, *at)
        assert answer.code == 2, answer
        return answer.err

    window = ("--window", "2024-01-11", "--expected")
    assert "did you mean 'rows'" in refused("ack", "first.watch", "row", *window)
    assert "first.read watches no metric" in refused("ack", "first.read", "rows", *window)
    assert "write first. and one of watch" in refused("ack", "first", "rows", *window)
    assert "did you mean 'first'" in refused("ack", "frst.watch", "rows", *window)
    assert "first has no window '2024-13-01'" in refused("ack", "first.watch", "rows", "--window", "2024-13-01", "--expected")
    assert "--expected or a --level-shift" in refused("ack", "first.watch", "rows", "--window", "2024-01-11")
    assert "did you mean 'rows'" in refused("backtest", "--metric", "rowz")
    assert not (watched.root / "acknowledged.yml").exists()
    (watched.root / "acknowledged.yml").write_text(f"acknowledged: [{OLD}]\n")
    listed = call("anomalies", "list", *at)
    assert "no such metric: first.watch old w" in listed.out
    (watched.root / "acknowledged.yml").write_text("acknowledged: [{verdict: fine}]\n")
    assert "acknowledged.yml:1:" in refused("list")
