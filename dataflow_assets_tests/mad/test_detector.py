"""The detector's numbers against a naive reading of the description, value by value."""

from __future__ import annotations

import importlib.util
import math
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.mad import Detector, Settings, _arrays, _loops
from dataflow_assets.mad.formulas import Centers, Windows
from dataflow_assets_tests.calls import calls

Way = Callable[[Windows, Settings], Centers]


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


def interpreted(windows: Windows, how: Settings) -> Centers:
    """The loops that numba compiles, as plain Python."""
    return _loops.centers_by(_loops._LOOPS, windows, how)


COMPILED = [_loops.centers] if importlib.util.find_spec("numba") else []
WAYS: list[Way] = [_arrays.centers, interpreted, *COMPILED]


def in_pieces(
    values: list[float], excluded: list[bool], how: Settings, cut: int, way: Way, *, series: list[int] | None = None
) -> dict[str, np.ndarray]:
    detector = Detector(how, centers=way)
    numbers = np.zeros(len(values), dtype=np.int64) if series is None else np.array(series, dtype=np.int64)
    parts = [slice(at, at + cut) for at in range(0, len(values), cut)]
    pieces = [detector.feed(np.array(values[part]), np.array(excluded[part], dtype=bool), numbers[part]) for part in parts]
    names = Naive.__dataclass_fields__
    return {name: np.concatenate([getattr(piece, name) for piece in pieces]) if pieces else np.empty(0) for name in names}


def assert_same(values: list[float], excluded: list[bool], how: Settings, cut: int, *, ways: list[Way] | None = None) -> None:
    expected = naive(values, excluded, how)
    for way in WAYS if ways is None else ways:
        assert_is(in_pieces(values, excluded, how, cut, way), expected)


def assert_is(found: dict[str, np.ndarray], expected: list[Naive]) -> None:
    for name in Naive.__dataclass_fields__:
        wanted = np.array([getattr(row, name) for row in expected])
        np.testing.assert_allclose(found[name], wanted, rtol=1e-9, atol=1e-9, err_msg=name)


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


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(numbers, st.booleans() | st.just(False)), max_size=90), how=ways, cut=st.integers(1, 50))
def test_it_agrees_with_the_description(rows: list[tuple[float, bool]], how: Settings, cut: int) -> None:
    assert_same([row[0] for row in rows], [row[1] for row in rows], how, cut)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), numbers, st.booleans()), max_size=120),
    gap=st.sampled_from([0, 0, 30]),
    how=ways,
    cut=st.integers(1, 60),
)
def test_series_that_come_mixed_are_judged_each_on_its_own(rows: list[tuple[int, float, bool]], gap: int, how: Settings, cut: int) -> None:
    """Also when one of them begins with a long run of rows that are left out."""
    rows = [(1, 7.0, True)] * gap + rows
    values, excluded, series = [row[1] for row in rows], [row[2] for row in rows], [row[0] for row in rows]
    expected = [Naive()] * len(rows)
    for number in set(series):
        mine = [place for place, other in enumerate(series) if other == number]
        for place, found in zip(mine, naive([values[at] for at in mine], [excluded[at] for at in mine], how), strict=True):
            expected[place] = found
    for way in WAYS:
        assert_is(in_pieces(values, excluded, how, cut, way, series=series), expected)


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
    values[400] = values[401] = float("inf")
    excluded = generator.random(700) < 0.05
    excluded[450:600] = True  # longer than what is looked at first
    assert_same(values, list(excluded), how, 500)


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


def test_numbers_that_are_far_apart_do_not_disturb() -> None:
    values = [1e308, -1e308, 0.0, 1e-300, 5.0, -5.0, 1e308, 2.0, 1e-300, 1e16, 1e16 + 2]
    for weighted in (True, False):
        how = Settings(min_window_size=2, use_weighted=weighted)
        first, *others = (in_pieces(values, [False] * len(values), how, 20, way) for way in WAYS)
        for other in others:
            np.testing.assert_allclose(other["mean"], first["mean"], rtol=1e-9)
            np.testing.assert_allclose(other["std"], first["std"], rtol=1e-9)


def test_a_series_that_is_at_its_end_is_forgotten() -> None:
    detector = Detector(Settings(min_window_size=2))
    detector.feed(np.array([1.0, 2.0, 3.0, 4.0]), series=np.array([1, 1, 2, 2]))
    detector.forget(before=2)
    assert detector.feed(np.array([1.0, 3.0]), series=np.array([1, 2])).ready.tolist() == [False, True]


@pytest.mark.parametrize(
    "how", [Settings(), Settings(weights_type="linear", window_size=300), Settings(use_weighted=False, window_size=300)], ids=str
)
def test_memory_is_that_of_a_batch_whatever_the_length(how: Settings) -> None:
    """Fifty batches take no more than five do, and a batch no more than its matrices."""
    generator = np.random.default_rng(1)

    def peak(batches: int) -> int:
        detector = Detector(how)
        tracemalloc.start()
        for _ in range(batches):
            detector.feed(generator.normal(size=400))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    few, many = peak(5), peak(50)
    assert many < few * 1.2 + 100_000
    assert many < 40 * max(_arrays.CELLS, how.window_size) * 8


def test_no_work_is_done_per_row() -> None:
    """Ten times the rows are ten times the batches of arrays, not ten times the calls a row would need."""
    values = np.random.default_rng(2).normal(size=20_000)
    detector = Detector(Settings())
    detector.feed(values[:2000])
    assert calls(lambda: detector.feed(values)) < len(values) / 2


def test_the_loops_are_chosen_where_they_pay() -> None:
    assert not _loops.worth_it(Settings(), 10_000), "numba's import takes longer than that"
    assert _loops.worth_it(Settings(), 5_000_000) == bool(COMPILED)
    assert _loops.worth_it(Settings(use_weighted=False), 100_000) == bool(COMPILED)
