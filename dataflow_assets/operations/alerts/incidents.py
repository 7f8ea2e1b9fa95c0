"""Something that people may want to be told, and the way to hand it over.

Here: the record, writing it into the instance's event log, reading it from there. Whoever finds something calls `report`; whether, when
and to whom it is told is decided later, by the sensor of alerts, so that reporting is cheap, never fails for a mail server's sake, and
may be done twice. Not here: what is told of runs, which is read from their own events (`operations.alerts.watching`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dataflow_assets.secrets import mask, mask_values
from dataflow_assets.spec.alerts import EVENTS, AlertEvent

if TYPE_CHECKING:
    import dagster as dg

GROUP = "_alerts"
_METADATA = "incident"
_PAGE = 500
Fact = str | int | float


@dataclass(frozen=True)
class Incident:
    """One thing that happened to a pipeline, or that is over again.

    `event`, `pipeline` and `cause` say what it is: reported again with the same three it is the same incident, however the other fields
    differ, and is told once until `change` differs. `over` ends it, and is told as recovery.
    """

    event: AlertEvent
    pipeline: str
    summary: str
    """One sentence: what happened, without the pipeline's name."""
    cause: str = ""
    """What tells it from others of the same event; short, without numbers that differ each time. Default: the step."""
    change: str = ""
    """Told again when this text differs from what was told."""
    step: str = ""
    windows: tuple[str, ...] = ()
    """The keys of the windows that it is about."""
    place: str = ""
    """`file:line`; default: where the pipeline, or its step, is written."""
    detail: str = ""
    """The error, or more of the circumstances; may have several lines."""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """How many rows, which value: a name and a number or a short text each."""
    unaffected: str = ""
    """What is as it was."""
    next_step: tuple[str, ...] = ()
    """Commands to type."""
    run_id: str = ""
    since: datetime | None = None
    """When it began; default: when it was reported."""
    over: bool = False

    @property
    def identity(self) -> str:
        """What two reports of one incident have in common."""
        return f"{self.event}/{self.cause or self.step}"


def report(instance: dg.DagsterInstance, project: str, incidents: Iterable[Incident]) -> None:
    """Hand incidents over to whoever tells people; `project` is the project's name.

    Each becomes an observation of the asset `_alerts/<project>` in the instance's event log, where the UI shows them too. Secrets are
    masked. Raises what the instance's storage raises.
    """
    import dagster as dg

    for incident in incidents:
        said = json.dumps(mask_values(asdict(incident)), default=_as_text)
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key(project),
                description=mask(f"{incident.pipeline}: {incident.summary}"),
                metadata={"event": incident.event, "pipeline": incident.pipeline, _METADATA: said},
            )
        )


def reported(instance: dg.DagsterInstance, project: str, *, cursor: str | None) -> tuple[list[Incident], str | None]:
    """What was reported after `cursor`, oldest first, and the new cursor."""
    found: list[Incident] = []
    while True:
        page = instance.fetch_observations(asset_key(project), limit=_PAGE, cursor=cursor, ascending=True)
        for record in page.records:
            observation = record.asset_observation
            value = observation.metadata.get(_METADATA) if observation else None
            incident = _read(value.value if value is not None else None)
            if incident is not None:
                found.append(incident)
        cursor = page.cursor if page.records else cursor
        if not page.has_more:
            return found, cursor


def asset_key(project: str) -> dg.AssetKey:
    """The asset whose observations are the reports."""
    import dagster as dg

    from dataflow_assets.assets.names import plain_name

    return dg.AssetKey([GROUP, plain_name(project)])


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _read(text: Any) -> Incident | None:
    """An incident as `report` wrote it; None for what another version of this package has written otherwise."""
    try:
        values = json.loads(text)
        since = datetime.fromisoformat(values["since"]) if values.get("since") else None
        incident = Incident(**{**values, "since": since, "windows": _texts(values["windows"]), "next_step": _texts(values["next_step"])})
    except (TypeError, ValueError, KeyError):
        return None
    return incident if incident.event in EVENTS else None


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
