"""Which transactions are open in MySQL and MariaDB, so that nobody passes over rows that are committed late.

Here: one question to the server. Not here: what a sensor makes of the answer (`operations.sensors.rows`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dataflow_assets.connectors._mysql_session import Sessions, fetch, translated
from dataflow_assets.errors import ReadFailed
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Horizon

# NOW() is the start of a statement, and InnoDB's transaction begins only after it: a statement that waits for a table's metadata lock
# carries an older time than its transaction. Hence running statements count as well, but not those that read. trx_started is on the
# clock of the server's host; both sources count whole seconds.
_OLDEST = """
SELECT UTC_TIMESTAMP(6), started, session FROM (
  SELECT CONVERT_TZ(trx_started, 'SYSTEM', '+00:00') AS started, trx_mysql_thread_id AS session
  FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> CONNECTION_ID()
  UNION ALL
  SELECT UTC_TIMESTAMP() - INTERVAL (time + 1) SECOND, id
  FROM information_schema.processlist
  WHERE command IN ('Query', 'Execute') AND id <> CONNECTION_ID() AND NOT coalesce(info, '') REGEXP '^[[:space:]]*(select|show)'
  UNION ALL
  SELECT NULL, NULL
) AS others ORDER BY started IS NULL, started LIMIT 1
"""


# InnoDB hands out a copy of its transactions that it makes anew only when nobody has asked for a tenth of a second
_BLIND = timedelta(seconds=1)


def horizon(sessions: Sessions, name: str) -> Horizon:
    """The oldest open transaction of the server. Raises ReadFailed for whoever may not see the transactions of others."""
    with sessions.reading() as connection, translated(f"looking for open transactions in connection {name!r}", ReadFailed):
        ((now, oldest, session),) = fetch(connection, Statement(_OLDEST))
    return Horizon(_aware(now), _aware(oldest) if oldest else None, said=f"session {session}" if oldest else "", blind=_BLIND)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
