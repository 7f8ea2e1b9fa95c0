"""Sensors of type upstream: what other pipelines, or any Dagster assets, have published is loaded on.

Truth about the project's own pipelines is their ledgers, about other assets Dagster's event log. A window is asked for when all of the
windows below it are published in all upstreams, and again when one of them is published anew.

Here: the state of the upstreams as one text for each window of ours. Not here: the memory of these texts (`seen`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg

from dataflow_assets.execution.ledgers import ledger_entries
from dataflow_assets.execution.sensing import DUE, Found, Memory, digest
from dataflow_assets.operations.sensors.seen import Note, position_of
from dataflow_assets.operations.sensors.tick import Evaluation
from dataflow_assets.operations.waiting import unfinished_run
from dataflow_assets.plan.model import AssetPath, PipelinePlan, WindowPlan
from dataflow_assets.plan.windows import WHOLE, expected_windows
from dataflow_assets.tables import LedgerEntry
from dataflow_assets.windows import Cadence, Window

_MOST_NOTES = 1000
"""So many windows are asked for at once; further ones come with the next tick, so that the cursor stays small."""


@dataclass(frozen=True)
class _Upstream:
    """What one upstream has published. `states`: window -> a text that changes with each publication, and when that was.

    Without windows (`plan` is None), `whole` is the same for all of it; None: nothing yet.
    """

    name: str
    plan: WindowPlan | None
    states: Mapping[Window, tuple[str, datetime]] = field(default_factory=dict)
    whole: tuple[str, datetime] | None = None
    exact: bool = False
    """Whether its windows are ours: an asset outside the project, whose partitions have the keys of our windows."""

    def below(self, window: Window, *, now: datetime) -> list[Window]:
        """Its windows that lie in a window of ours; not those before its first one or from its end on, which it never publishes."""
        if self.exact or self.plan is None:
            return [window]
        plan = self.plan
        found = plan.cadence.between(max(window.start, plan.begin), window.end) if window.end > plan.begin else ()
        return [item for item in found if plan.end is None or item.start < plan.end]


def look(evaluation: Evaluation, memory: Memory) -> Found:
    """Compare the state of the upstreams with what was seen of it."""
    upstreams = [*_pipelines(evaluation), *_assets(evaluation)]
    names = ", ".join(item.name for item in upstreams)
    if nothing := [item.name for item in upstreams if item.whole is None and not item.states]:
        return Found(memory.position, f"{', '.join(nothing)} has published nothing yet")
    seen = evaluation.seen(str(memory.position.get("memory", "")))
    first = not memory.position.get("begun")
    seen.add(str(memory.position.get("noted", "")))
    if evaluation.pipeline.windows is None:
        states = _whole_state(evaluation, upstreams)
        if isinstance(states, str):
            return Found(memory.position, states)
    else:
        states = dict(_window_states(evaluation, evaluation.pipeline.windows, upstreams))
    new = [(unit, state, at) for unit, (state, at) in states.items() if not seen.has(Note(unit, state))]
    more, new = len(new) > _MOST_NOTES, new[:_MOST_NOTES]
    known = _published_after(evaluation, new) if first else set()
    notes = [Note(unit, state) for unit, state, _ in new]
    units = {unit: state for unit, state, _ in new if unit not in known}
    if evaluation.pipeline.windows is not None and all(item.plan is None and not item.exact for item in upstreams):
        # no upstream has windows, so none tells which of ours it concerns
        units = {DUE: units[WHOLE]} if WHOLE in units else {}
    position = position_of(seen, notes, begun=not (first and more))
    return Found(position, f"{names} published {_for_whom(evaluation, units)}", units)


def _for_whom(evaluation: Evaluation, units: Mapping[str, str]) -> str:
    if not units:
        return "nothing new"
    if evaluation.pipeline.windows is None or DUE in units:
        return "anew"
    whose = f"{len(units)} windows of {evaluation.pipeline.name} are" if len(units) > 1 else f"{next(iter(units))} is"
    return f"what {whose} made of"


def _pipelines(evaluation: Evaluation) -> Iterator[_Upstream]:
    for name in evaluation.sensor.upstream:
        pipeline = evaluation.plan.by_name[name]
        ledgers = list(ledger_entries(evaluation.project, pipeline, now=evaluation.now).values())
        if pipeline.windows is None:
            yield _Upstream(name, None, whole=_newest(ledgers))
        else:
            yield _Upstream(name, pipeline.windows, states=_by_window(pipeline, ledgers))


def _newest(ledgers: Sequence[Sequence[LedgerEntry]]) -> tuple[str, datetime] | None:
    """The state of a pipeline without windows, once every endpoint has published."""
    if not ledgers or not all(ledgers):
        return None
    last = [max(entries, key=lambda entry: entry.published_at) for entries in ledgers]
    return digest(f"{entry.unit.key} {entry.generation}" for entry in last), max(entry.published_at for entry in last)


def _by_window(pipeline: PipelinePlan, ledgers: Sequence[Sequence[LedgerEntry]]) -> dict[Window, tuple[str, datetime]]:
    """Window -> its state, of windows that every endpoint has published."""
    found: dict[Window, list[LedgerEntry]] = {}
    for entries in ledgers:
        for entry in entries:
            if entry.unit.window is not None and not (entry.retired or entry.restored):
                found.setdefault(entry.unit.window, []).append(entry)
    return {
        window: (digest(f"{entry.unit.step} {entry.generation}" for entry in entries), max(entry.published_at for entry in entries))
        for window, entries in found.items()
        if len({entry.unit.step for entry in entries}) == len(pipeline.endpoints)
    }


def _assets(evaluation: Evaluation) -> Iterator[_Upstream]:
    for key in evaluation.sensor.assets:
        yield _asset(evaluation, key)


def _asset(evaluation: Evaluation, path: AssetPath) -> _Upstream:
    """What the event log says of an asset: its partitions where they have the keys of our windows, else its last materialization."""
    key, name = dg.AssetKey(path), "/".join(path)
    storage = evaluation.instance.event_log_storage
    event = evaluation.instance.get_latest_materialization_event(key)
    whole = (str(event.run_id) + str(event.timestamp), evaluation.now) if event else None
    plan = evaluation.pipeline.windows
    if plan is None:
        return _Upstream(name, None, whole=whole)
    newest = storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    windows = ((window, number) for text, number in newest.items() if text and (window := _window(plan.cadence, text)))
    states = {window: (str(number), evaluation.now) for window, number in windows}
    return _Upstream(name, None, states=states, exact=True) if states else _Upstream(name, None, whole=whole)


def _window(cadence: Cadence, key: str) -> Window | None:
    try:
        return cadence.window(key)
    except ValueError:
        return None


def _window_states(evaluation: Evaluation, plan: WindowPlan, upstreams: Sequence[_Upstream]) -> Iterator[tuple[str, tuple[str, datetime]]]:
    """The state of each window of ours that is complete in all upstreams; where none of them has windows, of the whole."""
    cut = [item for item in upstreams if item.plan is not None or item.exact]
    whole = [item.whole for item in upstreams if item.whole is not None]
    if not cut:
        yield WHOLE, (digest(text for text, _ in whole), max(at for _, at in whole))
        return
    for window in expected_windows(plan, evaluation.now):
        states = list(_states_below(cut, window, now=evaluation.now))
        if states and None not in states:
            known = [state for state in states if state is not None] + _states_before(cut, plan, window, now=evaluation.now)
            yield plan.cadence.key(window), (digest(text for text, _ in known), max(at for _, at in known))


def _states_below(upstreams: Iterable[_Upstream], window: Window, *, now: datetime) -> Iterator[tuple[str, datetime] | None]:
    for upstream in upstreams:
        yield from (upstream.states.get(item) for item in upstream.below(window, now=now))


def _states_before(upstreams: Iterable[_Upstream], plan: WindowPlan, window: Window, *, now: datetime) -> list[tuple[str, datetime]]:
    """What is published of the time before a window that it reads as well (`reads_back`); nothing is waited for there."""
    read = plan.reads(window)
    if read.start == window.start:
        return []
    before = Window(read.start, window.start)
    return [item.states[found] for item in upstreams if item.plan for found in item.below(before, now=now) if found in item.states]


def _whole_state(evaluation: Evaluation, upstreams: Sequence[_Upstream]) -> dict[str, tuple[str, datetime]] | str:
    """The state of all upstreams together; while one of them is being loaded, a sentence that says so: it publishes window by window."""
    for name in evaluation.sensor.upstream:
        if run := unfinished_run(evaluation.instance, name):
            return f"run {run} of {name} has not ended"
    texts = [text for item in upstreams for text, _ in ([item.whole] if item.whole else [])]
    texts += [f"{window.start} {text}" for item in upstreams for window, (text, _) in sorted(item.states.items())]
    moments = [at for item in upstreams for _, at in [*item.states.values(), *([item.whole] if item.whole else [])]]
    return {WHOLE: (digest(texts), max(moments))}


def _published_after(evaluation: Evaluation, new: Sequence[tuple[str, str, datetime]]) -> set[str]:
    """At the first tick: the units that this pipeline has published since their upstreams did."""
    newest: dict[str, datetime] = {}
    for entries in evaluation.ledgers.values():
        last: dict[str, datetime] = {}
        for entry in entries:
            key = entry.unit.key if evaluation.pipeline.windows else WHOLE
            last[key] = max(last.get(key, entry.published_at), entry.published_at)
        newest = last if not newest else {key: min(at, last[key]) for key, at in newest.items() if key in last}
    return {unit for unit, _, at in new if unit in newest and newest[unit] > at}
