"""What is said and drawn: seasons, trends, shares, and pictures of hostile names and flat histories."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dataflow_assets.anomalies.picture import MOST_POINTS, band_plot
from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.seasons import Calendar, Clock, Season
from dataflow_assets.anomalies.sentences import sentence, shown
from dataflow_assets.anomalies.settings import Direction, Settings
from dataflow_assets.anomalies.verdict import judge
from dataflow_assets.assets.metadata import picture
from dataflow_assets.protocols import Picture
from dataflow_assets_tests.anomalies.test_verdict import COUNTS, MONDAY, after, series, weeks


@pytest.mark.parametrize(
    ("value", "transform", "text"),
    [
        (1234567.0, Transform.LOG1P, "1,234,567"),
        (1234.56, Transform.NONE, "1,234.6"),
        (0.000123456, Transform.NONE, "0.0001235"),
        (0.0213, Transform.LOGIT, "2.13 %"),
        (float("inf"), Transform.NONE, "inf"),
    ],
)
def test_numbers_are_for_people(value: float, transform: Transform, text: str) -> None:
    assert shown(value, transform) == text


def test_the_sentence_names_season_and_trend() -> None:
    history = series([value * 1.01**day for day, value in enumerate(weeks(8))])
    verdict = judge(after(history, 9000.0), history, COUNTS)
    said = sentence("rows", verdict, COUNTS)
    assert said.startswith("rows is 9,000, unusually far above the expected ")
    assert "learned from 40 working days among 56 windows, working days and weekends apart, trend +0.97 % a day)" in said
    drop = sentence("rows", verdict, replace(COUNTS, direction=Direction.DOWN))
    assert "limit 3.5" in drop


@pytest.mark.parametrize(
    ("season", "words"),
    [
        (Season.NONE, "windows"),
        (Season.WEEKDAY, "working days"),
        (Season.DAY_OF_WEEK, "Wednesdays"),
        (Season.HOUR_OF_DAY, "windows at 01:30"),
        (Season.HOUR_OF_WEEK, "Wednesdays at 01:30"),
        (Season.DAY_OF_MONTH, "3rds of the month"),
    ],
)
def test_alike_windows_are_named_on_the_clock_of_the_pipeline(season: Season, words: str) -> None:
    moment = datetime(2024, 1, 2, 20, tzinfo=UTC)
    assert Clock("Asia/Kolkata").describe(moment, season) == words
    calendar = Calendar(yearly={(1, 3): "fair"})
    assert Clock("Asia/Kolkata", calendar).describe(moment, season) == "days of 'fair'"


@pytest.mark.parametrize("values", [[0.0] * 90, [5.0] * 90, [-1e9, 1e9] * 45, [1e-12, 2e-12] * 45])
def test_a_picture_is_well_formed_and_small(values: list[float]) -> None:
    history = series(values, every=timedelta(hours=6))
    chosen = Settings(length=timedelta(hours=6))
    tested = after(history, 3.0, every=timedelta(hours=6))
    svg = band_plot('<script>"a" & b</script>', tested, history, judge(tested, history, chosen))
    root = ET.fromstring(svg)
    assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}
    line = next(element for element in root.iter() if element.get("stroke-width") == "1.5" and element.get("fill") == "none")
    assert line.get("d", "").count("L") == MOST_POINTS - 1
    assert len(svg) < 8000
    value = picture(Picture(svg, "a | b"))
    assert value.value is not None
    assert base64.b64decode(value.value.partition("base64,")[2].rstrip(")")).decode() == svg


def test_there_is_no_picture_before_there_is_a_fit() -> None:
    history = series([1.0, 2.0], first=MONDAY)
    tested = after(history, 3.0)
    with pytest.raises(ValueError, match="no picture"):
        band_plot("x", tested, history, judge(tested, history, COUNTS))
