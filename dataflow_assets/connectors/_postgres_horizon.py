"""Which transactions are open in Postgres, so that nobody passes over rows that are committed late.

Here: one question to the server. Not here: what a sensor makes of the answer (`operations.sensors.rows`).
"""

from __future__ import annotations

from typing import Any

from dataflow_assets.connectors._postgres_session import Sessions, fetch, translated
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Horizon

# Autovacuum, replication and the server's own processes write no rows of users. Of a session that may not be seen nothing is told but
# its database and user: not even that it is a client.
_OTHERS = """
SELECT pid, application_name, xact_start, backend_type IS NULL AS hidden
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND (backend_type IS NOT NULL OR usesysid IS NOT NULL)
  AND coalesce(backend_type, '') NOT IN ('autovacuum launcher', 'autovacuum worker', 'walsender', 'walreceiver', 'startup')
"""
_OLDEST = f"""
SELECT clock_timestamp(), pg_is_in_recovery(), min(xact_start), count(*) FILTER (WHERE hidden),
  (array_agg(pid::text || coalesce(' (' || nullif(application_name, '') || ')', '') ORDER BY xact_start NULLS LAST))[1],
  (SELECT min(gid) FROM pg_prepared_xacts WHERE database = current_database())
FROM ({_OTHERS}) AS others
"""  # noqa: S608 - two constants
_GRANT = "GRANT pg_read_all_stats TO the user; or say delay: of the sensor, if no transaction stays open for longer"


def horizon(sessions: Sessions, name: str) -> Horizon:
    """The oldest open transaction of the connection's database. Raises ReadFailed for whoever may not see the sessions of others."""
    doing = f"looking for open transactions in connection {name!r}"
    with sessions.sql() as connection, translated(doing, ReadFailed):
        ((now, replica, oldest, hidden, who, prepared),) = fetch(connection, Statement(_OLDEST))
    if replica:
        hint = "read from the primary; or say delay: of the sensor, longer than any transaction and than the replica lags behind"
        raise ReadFailed(f"{doing}: it is a replica, which does not know the transactions of its primary", hint=hint)
    if hidden:
        raise ReadFailed(f"{doing}: the user may not see {_sessions(hidden)} of others", hint=_GRANT)
    held = f"transaction {prepared!r} is prepared, and nobody knows since when it is open" if prepared else ""
    return Horizon(now, oldest, held=held, said=f"session {who}" if oldest else "")


def _sessions(number: Any) -> str:
    return f"{number} session" if number == 1 else f"{number} sessions"
