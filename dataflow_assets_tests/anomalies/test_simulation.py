"""The promise of the recipe, with wide limits: hardly a false alarm where plain MAD flags weekends, and most spoilt values found."""

from __future__ import annotations

from benchmarks.anomaly_simulation import DETECTORS, PATTERNS, simulate, table

NAMED = {pattern.name: pattern for pattern in PATTERNS}


def test_weekly_data_has_hardly_a_false_alarm_where_plain_mad_flags_weekends() -> None:
    rates = simulate(NAMED["working days and weekends"], 28, trials=80, seed=7)
    assert rates["this recipe"].false <= 0.04
    assert rates["this recipe"].found >= 0.85
    assert 0.15 <= rates["plain MAD"].false <= 0.45


def test_every_pattern_is_quiet_and_watched() -> None:
    for pattern in PATTERNS:
        rate = simulate(pattern, 56, trials=15, seed=3)["this recipe"]
        assert rate.false <= 0.12, pattern.name
        assert rate.found >= 0.7, pattern.name


def test_the_table_has_a_line_for_each_pattern_and_detector() -> None:
    lines = table(PATTERNS[:2], trials=1, seed=1).splitlines()
    assert len(lines) == 2 + 2 * len(DETECTORS)
