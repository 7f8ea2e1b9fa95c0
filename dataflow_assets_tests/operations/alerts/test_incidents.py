"""Handing incidents over through the instance's event log."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from dataflow_assets.operations.alerts import Incident, report
from dataflow_assets.operations.alerts.incidents import asset_key, reported
from dataflow_assets.secrets import register_secret


def test_what_is_reported_is_read_once_and_whole(instance: dg.DagsterInstance):
    since = datetime(2024, 3, 1, 6, tzinfo=UTC)
    late = Incident(
        "late_window",
        "orders",
        "12 rows came late",
        cause="2024-03-01",
        step="read",
        windows=("2024-03-01",),
        facts={"rows": 12},
        unaffected="ümlaut",
        next_step=("dataflow run",),
        since=since,
    )
    gap = Incident("gap", "orders", "a gap of 3 windows", windows=("a", "b", "c"))
    assert reported(instance, "shop", cursor=None) == ([], None)
    report(instance, "shop", [late])
    report(instance, "another project", [gap])
    found, cursor = reported(instance, "shop", cursor=None)
    assert found == [late]
    report(instance, "shop", [gap, late])
    assert reported(instance, "shop", cursor=cursor)[0] == [gap, late]


def test_secrets_are_masked_and_what_is_not_understood_is_left_out(instance: dg.DagsterInstance):
    register_secret("planted-secret-1")
    report(instance, "shop", [Incident("failure", "orders", "cannot log in with planted-secret-1")])
    for text in ("{}", "no json", '{"event": "unheard of", "pipeline": "p", "summary": "s", "windows": [], "next_step": []}'):
        instance.report_runless_asset_event(dg.AssetObservation(asset_key("shop"), metadata={"incident": text}))
    instance.report_runless_asset_event(dg.AssetObservation(asset_key("shop")))
    facts = {"tokens": 3, "api_key": "k"}
    quoted = Incident("gap", "orders", 'set "token": "x"', detail="password = 'half a quote", facts=facts, next_step=("it's",))
    report(instance, "shop", [quoted])
    found, _ = reported(instance, "shop", cursor=None)
    assert [item.summary for item in found] == ["cannot log in with ****", 'set "token": ****']
    assert (found[1].facts["tokens"], found[1].next_step) == (3, ("it's",))
    (record,) = instance.fetch_observations(asset_key("shop"), limit=1, ascending=True).records
    assert "planted-secret-1" not in str(record)
