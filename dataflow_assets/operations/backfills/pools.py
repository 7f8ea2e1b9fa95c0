"""Room in a pool: how many runs may publish to a connection at once, and how many do.

Here: the limits of the instance and the runs that count against them. Not here: Dagster's own queue, which keeps the same limits by
itself.
"""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

_RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class Pools:
    """The pools of an instance. `alive` says of a run that has not ended whether its process still runs."""

    def __init__(self, instance: dg.DagsterInstance, *, alive: Callable[[dg.DagsterRun], bool]) -> None:
        self._instance, self._alive = instance, alive

    def limit(self, pool: str | None) -> int | None:
        """How many runs may hold the pool at once; None for any number."""
        storage = self._instance.event_log_storage
        if pool is None or not storage.supports_global_concurrency_limits:
            return None
        limits = {item.name: item.limit for item in storage.get_pool_limits()}
        return limits.get(pool, self._instance.get_concurrency_config().pool_config.default_pool_limit)

    def holders(self, pool: str | None) -> list[dg.DagsterRun]:
        """The living runs that hold the pool."""
        if pool is None:
            return []
        runs = self._instance.get_runs(dg.RunsFilter(statuses=_RUNNING))
        return [run for run in runs if _draws_from(run, pool) and self._alive(run)]


def _draws_from(run: dg.DagsterRun, pool: str) -> bool:
    known = run.run_op_concurrency
    return known is not None and pool in (known.all_pools or set())
