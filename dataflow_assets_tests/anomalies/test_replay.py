"""Replaying a history: what would have alerted, what acknowledgements change, and settings for a budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataflow_assets.anomalies.history import Standing
from dataflow_assets.anomalies.replay import backtest, replay, within_budget
from dataflow_assets.anomalies.scales import Transform
from dataflow_assets.anomalies.settings import Settings
from dataflow_assets_tests.anomalies.test_verdict import series

CHOSEN = Settings(transform=Transform.LOG1P)
STEADY = 1000 * np.exp(np.random.default_rng(1).normal(0, 0.03, 60))


def test_a_replay_is_what_would_have_happened() -> None:
    values = STEADY.copy()
    values[[20, 21, 40]] = 200, 210, 5000
    played = replay(series(values), CHOSEN)
    assert [number for number, (_, verdict) in enumerate(played) if verdict.flagged] == [20, 21, 40]
    assert played[22][1].trained == 20, "flagged windows leave the training"
    found = backtest(series(values), CHOSEN)
    assert (found.judged, len(found.alerts)) == (53, 3)
    assert 20 < found.per_year < 21


def test_a_level_shift_alerts_until_it_is_acknowledged() -> None:
    history = series([*STEADY[:30], *(STEADY[30:] * 2)])
    assert len(backtest(history, CHOSEN).alerts) == 30
    history[30] = replace(history[30], standing=Standing.LEVEL_SHIFT)
    assert backtest(history, CHOSEN).alerts == ()


def test_the_values_of_a_dimension_alert_too() -> None:
    broken = STEADY.copy()
    broken[50] = 100
    found = backtest(series(STEADY * 20), CHOSEN, parts={"a": series(STEADY), "b": series(broken)})
    assert [(alert.verdict, [name for name, _ in alert.parts]) for alert in found.alerts] == [(None, ["b"])]


def test_settings_for_a_budget_change_as_little_as_needed() -> None:
    values = STEADY.copy()
    values[[20, 30, 40]] = 850, 1190, 100
    history = series(values)
    assert len(backtest(history, CHOSEN).alerts) == 3
    same = within_budget(history, CHOSEN, budget=21)
    assert same is not None
    assert same.settings == CHOSEN
    fewer = within_budget(history, CHOSEN, budget=10)
    assert fewer is not None
    assert [alert.key[:10] for alert in fewer.alerts] == ["2024-02-10"]
    assert (fewer.settings.sensitivity > 3.5, fewer.settings.ignore_small_changes) == (True, 0.05)
    assert within_budget(history, CHOSEN, budget=1) is None
