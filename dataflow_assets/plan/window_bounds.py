"""The windows of a pipeline with their bounds on window edges, and what is refused about them.

Here: from `windows:` to a `WindowPlan`. Not here: which windows are due (`plan.windows`), which are out of reach (`plan.gaps`).
"""

from __future__ import annotations

from datetime import datetime

from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.spec.models import PipelineModel
from dataflow_assets.spec.project import Path_
from dataflow_assets.spec.query_windows import WindowOptions
from dataflow_assets.windows import Cadence, as_utc, parse_duration


def window_plan(model: PipelineModel, findings: Findings) -> WindowPlan | None:
    """The windows, `begin` moved back to an edge and `end` forward; None without windows, or with findings that say what is wrong."""
    options = model.windows
    if options is None:
        return None
    section = ("windows",) if ("windows",) in findings.places.known else ("variables", "microbatch")
    cadence = options.cadence
    begin = _begin(options, cadence, model, findings, section)
    if begin is None:
        return None
    end = _end(options, cadence)
    if end is not None and end <= begin:
        said = options.end if options.end is not None else options.acceptable_end
        findings.add(
            (*section, "end" if options.end is not None else "acceptable_end"),
            f"windows of {model.pipeline_name!r} end ({said}) before they begin ({options.begin or options.acceptable_start})",
            hint="end must lie after begin",
        )
        return None
    reach = parse_duration(options.x_days_back).total_seconds() if options.x_days_back else 0.0
    lag = parse_duration(options.lag).total_seconds()
    width = (cadence.next(begin) - begin).total_seconds()
    if reach and reach < width + lag:
        late = " and its lag" if lag else ""
        message = f"x_days_back ({options.x_days_back}) is shorter than a window{late}: no complete window would be in reach"
        findings.add((*section, "x_days_back"), message, hint="write a longer one, or leave it out")
        return None
    schedule = model.schedule
    return WindowPlan(
        cadence,
        begin,
        end,
        options.lookback,
        lag,
        reach_seconds=reach or None,
        reach_start=_first_from(cadence, as_utc(options.acceptable_start, options.timezone)) if options.acceptable_start else None,
        latest_only=schedule is not None and schedule.catch_up == "latest",
        reads_back_seconds=parse_duration(options.reads_back).total_seconds(),
        newest_first=schedule is not None and schedule.order == "newest",
    )


def _begin(options: WindowOptions, cadence: Cadence, model: PipelineModel, findings: Findings, section: Path_) -> datetime | None:
    if options.begin is not None:
        return cadence.floor(as_utc(options.begin, options.timezone))
    if options.acceptable_start is not None:
        return _first_from(cadence, as_utc(options.acceptable_start, options.timezone))
    because = ": x_days_back moves with the clock, and does not say where they start" if options.x_days_back else ""
    findings.add(
        section,
        f"the windows of {model.pipeline_name!r} have no begin{because}",
        hint="add begin: with the date of the first rows, e.g. begin: 2024-01-01",
    )
    return None


def _end(options: WindowOptions, cadence: Cadence) -> datetime | None:
    ends = []
    if options.end is not None:
        ends.append(_first_from(cadence, as_utc(options.end, options.timezone)))
    if options.acceptable_end is not None:
        ends.append(cadence.floor(as_utc(options.acceptable_end, options.timezone)))
    return min(ends, default=None)


def _first_from(cadence: Cadence, moment: datetime) -> datetime:
    """The first edge at or after `moment`."""
    edge = cadence.floor(moment)
    return edge if edge == moment else cadence.next(edge)
