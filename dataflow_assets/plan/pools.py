"""Pools: which one the runs of a pipeline draw from, so that a backfill does not crush a system.

Here: the choice among the connections of a pipeline, refusals of the two keys. Not here: the limits in the Dagster instance
(`assets.instance`).

A pipeline is one op, and an op of Dagster draws from one pool. Of the connections that it uses, sources included, it is the one with
the smallest limit, since that is the one that is crushed first; where several have the same, the one that it publishes to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_assets.plan.findings import Findings
from dataflow_assets.plan.model import PipelinePlan, PoolPlan, ProjectPlan
from dataflow_assets.plan.options import check_options, has_template
from dataflow_assets.plan.steps import Draft
from dataflow_assets.spec.pools import POOL_KEYS, PoolOptions

UNSAID = 1
"""The limit of the pool of a connection that is published to and says none, until somebody sets another one in Dagster."""

_NOT_POOL = re.compile(r"[^A-Za-z0-9_.-]+")

Blocks = Mapping[str, Mapping[str, Any]]


def pools_of(drafts: Mapping[str, Draft], connections: Blocks, findings: Findings) -> tuple[PoolPlan, ...]:
    """The pools of a pipeline's connections, the one that it draws from first; adds what is wrong with their keys."""
    published = dict.fromkeys(draft.link.name for draft in drafts.values() if draft.plugin.role == "endpoint" and draft.link)
    read = dict.fromkeys(draft.link.name for draft in drafts.values() if draft.plugin.role == "source" and draft.link)
    found: dict[str, PoolPlan] = {}
    for name in (*published, *read):
        if name is None or (options := _options(name, connections[name], findings)) is None:
            continue
        if name in published or options.max_concurrent is not None or options.pool is not None:
            pool = PoolPlan(options.pool or f"connection/{_NOT_POOL.sub('_', name)}", options.max_concurrent, (name,))
            found[pool.name] = joined(found[pool.name], pool) if pool.name in found else pool
    return tuple(sorted(found.values(), key=lambda pool: pool.limit or UNSAID))


def _options(name: str, block: Mapping[str, Any], findings: Findings) -> PoolOptions | None:
    raw = {key: block[key] for key in POOL_KEYS & block.keys()}
    if not raw:
        return PoolOptions()
    for key in raw:
        if has_template(raw[key]):
            findings.add_at_connection(name, (key,), f"connection {name!r}: {key} takes no template", hint="write the value here")
            return None
    checked = check_options(PoolOptions, raw)
    for mistake in checked.mistakes:
        findings.add_at_connection(name, mistake.path, f"connection {name!r}: {mistake.message}", hint=mistake.hint)
    return checked.model if not checked.mistakes else None


def joined(one: PoolPlan, other: PoolPlan) -> PoolPlan:
    """The same pool as two connections describe it: of two limits the smaller counts."""
    limits = [limit for limit in (one.limit, other.limit) if limit is not None]
    connections = tuple(dict.fromkeys((*one.connections, *other.connections)))
    return PoolPlan(one.name, min(limits, default=None), connections)


def project_pools(plan: ProjectPlan) -> dict[str, PoolPlan]:
    """Every pool of a project by name."""
    found: dict[str, PoolPlan] = {}
    for pool in (pool for pipeline in plan.pipelines for pool in pipeline.pools):
        found[pool.name] = joined(found[pool.name], pool) if pool.name in found else pool
    return dict(sorted(found.items()))


def undrawn(plan: ProjectPlan) -> Iterator[tuple[PipelinePlan, PoolPlan]]:
    """Pipelines with the pools that they use and do not draw from: these limits can be exceeded by so much."""
    for pipeline in plan.pipelines:
        yield from ((pipeline, pool) for pool in pipeline.pools[1:] if pool.limit is not None)
