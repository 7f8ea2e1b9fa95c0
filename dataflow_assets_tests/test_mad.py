"""The detector's numbers against a naive reading of the description, value by value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets import mad
from dataflow_assets.mad import Detector, Scores, Settings


@dataclass
class Naive:
    mean: float = 0.0
    std: float = 0.0
    is_anomaly: bool = False
    score: float = 0.0
    percent_deviation: float = 0.0
    lower_bound: float = 0.0
    upper_bound: float = 0.0
    p_value: float = 0.0


def naive_median(values: list[float], shares: list[float]) -> float:
    reached = 0.0
    for value, share in sorted(zip(values, shares, strict=True), key=lambda pair: pair[0]):
        reached += share
        if reached >= 0.5:
            return value
    return max(values)


@cache
def naive_weights(size: int, how: Settings) -> list[float]:
    if not how.use_weighted:
        return [1.0] * size
    if how.weights_type == "linear":
        return [float(weight) for weight in np.linspace(0.1, 1.0, size)]
    return [math.exp(-how.exp_decay_factor * (size - 1 - place)) for place in range(size)]


def naive(values: list[float], excluded: list[bool], how: Settings) -> list[Naive]:
    """Row by row, in plain Python."""
    found = []
    for row, value in enumerate(values):
        first = max(0, row - how.window_size)
        raw = naive_weights(row - first, how)
        kept = [place for place in range(first, row) if not excluded[place] and math.isfinite(values[place])]
        if row < how.min_window_size or len(kept) < how.min_window_size or not math.isfinite(value):
            found.append(Naive())
            continue
        shown = set(kept)
        total = float(np.sum(np.array([weight if first + place in shown else 0.0 for place, weight in enumerate(raw)])))
        window, shares = [values[place] for place in kept], [raw[place - first] / total for place in kept]
        mean = naive_median(window, shares)
        std = 1.4826 * naive_median([abs(x - mean) for x in window], shares)
        score = abs(value - mean) / std if std > 0 else 0.0
        percent = (value - mean) / abs(mean) if mean else 0.0
        bounds = (mean - how.n_sigma * std, mean + how.n_sigma * std)
        found.append(Naive(mean, std, score > how.n_sigma, score, percent, *bounds, math.exp(-score)))
    return found


def in_pieces(values: list[float], excluded: list[bool], how: Settings, cut: int) -> list[Scores]:
    detector = Detector(how)
    pieces = range(0, len(values), cut)
    return [detector.feed(np.array(values[at : at + cut]), np.array(excluded[at : at + cut])) for at in pieces]


def assert_same(values: list[float], excluded: list[bool], how: Settings, cut: int) -> None:
    expected = naive(values, excluded, how)
    pieces = in_pieces(values, excluded, how, cut)
    for name in Naive.__dataclass_fields__:
        found = np.concatenate([getattr(piece, name) for piece in pieces]) if pieces else np.empty(0)
        wanted = np.array([getattr(row, name) for row in expected])
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9, err_msg=name)


numbers = (
    st.integers(-5, 5).map(float) | st.floats(-1000, 1000, allow_subnormal=False).map(lambda value: round(value, 6)) | st.just(float("nan"))
)
ways = st.builds(
    Settings,
    window_size=st.integers(4, 40),
    n_sigma=st.sampled_from([1.0, 2.5, 3.0]),
    min_window_size=st.integers(1, 4),
    use_weighted=st.booleans(),
    weights_type=st.sampled_from(["exponential", "linear"]),
    exp_decay_factor=st.sampled_from([0.0, 0.01, 0.1, 0.5, 3.0]),
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(numbers, st.booleans() | st.just(False)), max_size=90), how=ways, cut=st.integers(1, 50))
def test_it_agrees_with_the_description(rows: list[tuple[float, bool]], how: Settings, cut: int) -> None:
    assert_same([row[0] for row in rows], [row[1] for row in rows], how, cut)


@pytest.mark.parametrize(
    "how",
    [
        Settings(),
        Settings(window_size=300),
        Settings(exp_decay_factor=0.02),
        Settings(weights_type="linear", window_size=200),
        Settings(use_weighted=False, window_size=200),
    ],
    ids=str,
)
@pytest.mark.parametrize("digits", [0, 12], ids=["ties", "no ties"])
def test_long_series_agree_too(how: Settings, digits: int) -> None:
    """Long enough for the short cut over old values of little weight; whole numbers, so that ties are the rule."""
    generator = np.random.default_rng(3)
    values = [round(float(value), digits) for value in generator.normal(100, 3, 700)]
    assert_same(values, list(generator.random(700) < 0.05), how, 500)


def test_the_special_cases_of_the_description() -> None:
    constant = Detector(Settings(min_window_size=2)).feed(np.array([5.0] * 12 + [500.0]))
    assert not constant.is_anomaly.any(), "a jump after a constant series has no scale"
    assert (constant.score[-1], constant.p_value[-1], constant.p_value[1]) == (0.0, 1.0, 0.0)
    assert constant.percent_deviation[-1] == 99.0
    assert not Detector(Settings(min_window_size=1)).feed(np.array([])).is_anomaly.size


def test_a_score_at_the_limit_is_no_anomaly() -> None:
    history = np.array([1.0, 3.0, 5.0, 3.0, 1.0, 5.0, 3.0])
    probe = Detector(Settings(min_window_size=7, use_weighted=False)).feed(np.append(history, 9.0))
    limit = float(probe.score[-1])
    assert limit > 0
    assert not Detector(Settings(min_window_size=7, use_weighted=False, n_sigma=limit)).feed(np.append(history, 9.0)).is_anomaly[-1]
    assert Detector(Settings(min_window_size=7, use_weighted=False, n_sigma=limit - 1e-9)).feed(np.append(history, 9.0)).is_anomaly[-1]


def test_weights_too_small_for_a_float_do_not_divide_by_zero() -> None:
    how = Settings(min_window_size=1, exp_decay_factor=800.0)
    scores = Detector(how).feed(np.array([1.0, 2.0, 3.0]), np.array([False, True, False]))
    assert scores.mean[2] == 1.0


def test_memory_does_not_grow_with_the_series(monkeypatch: pytest.MonkeyPatch) -> None:
    widest = 0
    whole = mad._centers_of

    def watched(windows: np.ndarray, *rest: object, **more: object) -> object:
        nonlocal widest
        widest = max(widest, windows.size)
        return whole(windows, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(mad, "_centers_of", watched)
    Detector(Settings(use_weighted=False)).feed(np.random.default_rng(1).normal(size=4000))
    assert widest <= mad._CELLS
