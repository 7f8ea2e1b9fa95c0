"""How many runs may use a connection at once: the keys of any connection that say so.

Here: `max_concurrent` and `pool`, which every kind of connection takes. Not here: which pool a pipeline draws from (`plan.pools`), the
limits in the Dagster instance (`assets.instance`).
"""

from __future__ import annotations

from pydantic import Field

from dataflow_assets.spec.base import Model


class PoolOptions(Model):
    """How much a system may be asked for at once. These keys belong to any connection, beside those of its connector."""

    max_concurrent: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="most runs at once that may draw from its pool, of those that Dagster's daemon launches",
    )
    pool: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$",
        description="the Dagster pool; connections to one server may share one. Default: connection/ and the connection's name",
    )


POOL_KEYS = frozenset(PoolOptions.model_fields)
