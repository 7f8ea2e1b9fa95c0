"""Who is told what of a pipeline: the project's word, the pipeline's over it, and refusals of what cannot be told.

Here: pure decisions. Not here: what the options are (`spec.alerts`), what happened and telling it (`operations.alerts`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import AlertPlan
from dataflow_assets.plan.names import suggest
from dataflow_assets.spec.alerts import EVENTS, AlertsOptions, MailOptions, PipelineAlertOptions, sender_of
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.windows import parse_duration

MULTIPLIER = 2.0
AT_LEAST = "1min"
REPEAT_AFTER = "24h"


def alert_plan(project: AlertsOptions, model: PipelineModel) -> AlertPlan:
    """Who is told what of this pipeline."""
    own = model.alerts or PipelineAlertOptions()
    channels = own.channels if own.channels is not None else project.default if project.default is not None else list(project.channels)
    owners = own.owners if own.owners is not None else bool(project.owners)
    mail = [*own.notify_email, *(name for name in model.owners if owners and "@" in name)]
    overdue = own.overdue_after or project.overdue_after
    return AlertPlan(
        channels=tuple(dict.fromkeys(channels)),
        mail_to=tuple(dict.fromkeys(mail)),
        events=_events(project, own),
        duration_multiplier=own.duration_multiplier or project.duration_multiplier or MULTIPLIER,
        duration_at_least=_seconds(own.duration_at_least or project.duration_at_least or AT_LEAST),
        overdue_after=_seconds(overdue) if overdue else None,
        repeat_after=_seconds(own.repeat_after or project.repeat_after or REPEAT_AFTER),
    )


def _events(project: AlertsOptions, own: PipelineAlertOptions) -> frozenset[str]:
    """The pipeline's list, else the project's, else all; the words that switch single events off are obeyed wherever they stand."""
    wanted: set[str] = set(own.events if own.events is not None else project.events if project.events is not None else EVENTS)
    for event, words in (("failure", "alert_on_failure"), ("stale_run", "alert_on_failure"), ("duration", "alert_on_duration_exceed")):
        said = getattr(own, words) if getattr(own, words) is not None else getattr(project, words)
        if said is False:
            wanted.discard(event)
        elif said is True:
            wanted.add(event)
    return frozenset(wanted)


def _seconds(duration: str) -> float:
    return parse_duration(duration).total_seconds()


def refuse_bad_alerts(model: PipelineModel, project: AlertsOptions, findings: Findings) -> None:
    """A channel must be in the project file, and who writes to people must say from whom."""
    own = model.alerts
    if own is not None:
        _refuse_unknown(own.channels or [], project, findings)
    plan = alert_plan(project, model)
    server = project.smtp or MailOptions()
    if plan.mail_to and sender_of(server, server) is None:
        path = ("alerts", "notify_email") if own is not None and own.notify_email else ("alerts",)
        message = f"alerts of {model.pipeline_name!r} go to {plan.mail_to[0]}, but the project file does not say whom they are from"
        findings.add(path, message, hint="add alerts: {smtp: {host: ..., from: ...}} to the project file")


def _refuse_unknown(names: Sequence[str], project: AlertsOptions, findings: Findings) -> None:
    for number, name in enumerate(names):
        if name not in project.channels:
            paths = (("alerts", "channels", number), ("alerts", number), ("alerts",))
            path = next((path for path in paths if path in findings.places.known), paths[-1])
            hint = suggest(name, project.channels, noun="channels") or "add it to the project file under alerts: channels:"
            findings.add(path, f"the project has no channel {name!r} for alerts", hint=hint)
