"""Windows as Dagster partitions.

Here: the partitions definition of a pipeline's windows, the mapping between pipelines of different cadence, and the way from a
run's partition keys back to windows. Not here: which windows are due (`plan.windows`, `execution.status`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise

import dagster as dg

from dataflow_assets.assets.names import WINDOWS_TAG
from dataflow_assets.plan.model import WindowPlan
from dataflow_assets.windows import Window

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"


@lru_cache(maxsize=512)
def partitions_of(windows: WindowPlan) -> dg.TimeWindowPartitionsDefinition:
    """One partition for each window, with the window's key; equal windows share one definition.

    A lag of whole windows holds back as many partitions; what is left of the lag is kept by schedules and by `dataflow run`.
    """
    cadence = windows.cadence
    return dg.TimeWindowPartitionsDefinition(
        start=_local(windows, cadence.floor(windows.begin)),
        end=_local(windows, _last_edge(windows)) if windows.end else None,
        fmt=cadence.key_format,
        cron_schedule=cadence.cron,
        timezone=cadence.timezone,
        end_offset=-_lag_in_windows(windows),
    )


def _local(windows: WindowPlan, edge: datetime) -> datetime:
    return edge.astimezone(windows.cadence.zone).replace(tzinfo=None)


def _last_edge(windows: WindowPlan) -> datetime:
    """The end of the last window that starts before `windows.end`."""
    assert windows.end is not None
    edge = windows.cadence.floor(windows.end)
    return edge if edge == windows.end.astimezone(UTC) else windows.cadence.next(edge)


def _lag_in_windows(windows: WindowPlan) -> int:
    edge = windows.cadence.floor(windows.begin)
    width = (windows.cadence.next(edge) - edge).total_seconds()
    return int(windows.lag_seconds // width)


def mapping_between(upstream: WindowPlan | None, downstream: WindowPlan | None) -> dg.PartitionMapping | None:
    """How windows of `downstream` hang on windows of `upstream`; None where Dagster's own rule is right.

    Overlap in time where both are cut in one timezone; every upstream window where timezones differ, since Dagster compares
    windows of one timezone only; Dagster's own rule (all, or the whole) where one side has no windows.
    """
    if upstream is None or downstream is None:
        return None
    if upstream.cadence.timezone != downstream.cadence.timezone:
        return dg.AllPartitionMapping()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def pieces(chosen: Sequence[Window]) -> list[list[Window]]:
    """The windows in runs without a gap, oldest first: Dagster plans checks for a whole range, and shows those of a gap as skipped."""
    found: list[list[Window]] = []
    for window in sorted(chosen):
        if found and found[-1][-1].end == window.start:
            found[-1].append(window)
        else:
            found.append([window])
    return found


def range_tags(windows: WindowPlan, chosen: Sequence[Window]) -> Mapping[str, str]:
    """The run tags that ask for these windows in one run; a gap between them is kept in a tag of our own (better: one run a piece)."""
    ordered = sorted(chosen)
    keys = [windows.cadence.key(window) for window in ordered]
    if len(keys) == 1:
        return {PARTITION_TAG: keys[0]}
    tags = {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]}
    if any(before.end != after.start for before, after in pairwise(ordered)):
        tags[WINDOWS_TAG] = json.dumps(keys)
    return tags


def windows_of_run(windows: WindowPlan, tags: Mapping[str, str]) -> tuple[Window, ...]:
    """The windows that a run asks for by its tags, oldest first; empty when it asks for none."""
    cadence = windows.cadence
    if key := tags.get(PARTITION_TAG):
        return (cadence.window(key),)
    if chosen := tags.get(WINDOWS_TAG):
        return tuple(sorted(cadence.window(key) for key in json.loads(chosen)))
    if RANGE_START_TAG not in tags:
        return ()
    first, last = cadence.window(tags[RANGE_START_TAG]), cadence.window(tags[RANGE_END_TAG])
    return tuple(cadence.between(first.start, last.end))
