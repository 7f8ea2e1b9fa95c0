"""Who is told what of a pipeline."""

from __future__ import annotations

import pytest

from dataflow_assets.plan.alerts import alert_plan
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.spec.alerts import EVENTS, AlertsOptions
from dataflow_assets.spec.models import PipelineModel

CHANNELS = {"chat": {"type": "slack", "url": "https://h/x"}, "pager": {"type": "webhook", "url": "https://h/y"}}


def plan_of(project, alerts=None, owners=()):
    options = AlertsOptions.model_validate({"channels": CHANNELS, "smtp": {"from": "d@example.org"}, **project})
    return alert_plan(options, PipelineModel.model_validate({"pipeline_name": "p", "alerts": alerts, "owners": list(owners)}))


def test_without_a_word_every_channel_hears_everything():
    plan = plan_of({})
    assert (plan.channels, plan.events, plan.mail_to) == (("chat", "pager"), frozenset(EVENTS), ())
    assert (plan.duration_multiplier, plan.duration_at_least, plan.repeat_after, plan.overdue_after) == (2.0, 60.0, 86400.0, None)


def test_the_pipelines_word_wins_over_the_projects():
    project = {"default": "chat", "events": ["gap"], "owners": True, "duration_multiplier": 3, "repeat_after": "1h", "overdue_after": "2h"}
    assert plan_of(project).channels == ("chat",)
    assert plan_of(project, owners=["ann@example.org", "team:data"]).mail_to == ("ann@example.org",)
    own = {"channels": ["pager"], "owners": False, "duration_multiplier_threshold": 4, "notify_email": "bob@example.org"}
    plan = plan_of(project, own, owners=["ann@example.org"])
    assert (plan.channels, plan.mail_to, plan.duration_multiplier) == (("pager",), ("bob@example.org",), 4.0)
    assert (plan.events, plan.repeat_after, plan.overdue_after) == ({"gap"}, 3600.0, 7200.0)
    assert plan_of(project, False, owners=["ann@example.org"]).channels == ()
    assert plan_of(project, False, owners=["ann@example.org"]).mail_to == ()


@pytest.mark.parametrize("where", ["project", "pipeline"])
def test_drives_words_switch_events_off(where):
    words = {"alert_on_failure": False, "alert_on_duration_exceed": False}
    plan = plan_of(words) if where == "project" else plan_of({}, words)
    assert frozenset(EVENTS) - plan.events == {"failure", "stale_run", "duration"}
    assert "duration" in plan_of(words, {"alert_on_duration_exceed": True}).events


def test_unknown_channels_and_letters_from_nobody_are_refused(bench):
    steps = "steps: [{id: a, type: source, connection: raw, config: {table: t}}]\n"
    project = bench.project(
        p=f"pipeline_name: p\nalerts: [chat, pagr]\n{steps}", q=f"pipeline_name: q\nalerts: {{notify_email: a@b.org}}\n{steps}"
    )
    object.__setattr__(project.model, "alerts", AlertsOptions.model_validate({"channels": CHANNELS}))
    _, problems = build_plan_tolerant(project)
    (unknown,) = problems["p"]
    assert "p.yml:2:16: the project has no channel 'pagr'" in str(unknown)
    assert "did you mean 'pager'?" in str(unknown)
    (nobody,) = problems["q"]
    assert "q.yml:2:24: alerts of 'q' go to a@b.org, but the project file does not say whom they are from" in str(nobody)
