"""The rows that are moved: one events table of ten columns, made by Postgres itself, the same on every machine.

Here: its DDL, its rows as a function of their number, the CSV file of it. Not here: who moves it (`ways`).
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.server import Server

TABLE = "events"
COLUMNS = """id bigint, ts timestamptz, user_id integer, session text, kind text, url text,
amount numeric(12, 2), ratio double precision, flag boolean, day date"""
KINDS = ("view", "click", "cart", "buy", "refund", "login", "logout", "search")

# About 160 bytes a row as CSV; 2 % to 5 % nulls in five columns; sessions of seven events, as UUIDs in text.
_ROWS = """
SELECT i,
  timestamptz '2024-01-01 00:00:00+00' + i * interval '0.5 second' + (i * 7919 % 1000) * interval '1 microsecond',
  CASE WHEN i % 50 <> 0 THEN (i * 2654435761 % 1000003)::integer END,
  md5((i / 7)::text)::uuid::text,
  ({kinds})[1 + (i * 31 % {count})],
  CASE WHEN i % 20 <> 0 THEN 'https://shop.example/' || (i * 7919 % 9973) || '/item/' || (i * 104729 % 999983) END,
  CASE WHEN i % 33 <> 0 THEN ((i * 48271 % 10000000) / 100.0)::numeric(12, 2) END,
  CASE WHEN i % 41 <> 0 THEN (i * 16807 % 2147483647) / 2147483647.0::double precision END,
  CASE WHEN i % 29 <> 0 THEN i % 3 = 0 END,
  date '2024-01-01' + (i / 172800)::integer
FROM generate_series(1, {rows}::bigint) AS i
"""


def make_events(server: Server, *, rows: int) -> None:
    """Make and freeze the table, so that no contender pays for the first reading of fresh rows."""
    kinds = "ARRAY[" + ", ".join(f"'{kind}'" for kind in KINDS) + "]"
    server.sql(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} ({COLUMNS})")
    server.sql(f"INSERT INTO {TABLE} {_ROWS.format(kinds=kinds, count=len(KINDS), rows=rows)}")
    server.sql(f"VACUUM (FREEZE, ANALYZE) {TABLE}")


def write_csv(server: Server, path: Path) -> None:
    """The table as a CSV file with a header, as psql writes it but for true and false, which every reader takes for booleans."""
    flag = "CASE WHEN flag THEN 'true' WHEN NOT flag THEN 'false' END AS flag"
    query = f"SELECT id, ts, user_id, session, kind, url, amount, ratio, {flag}, day FROM {TABLE}"
    server.sql(f"\\copy ({query}) TO '{path}' WITH (FORMAT csv, HEADER)")
