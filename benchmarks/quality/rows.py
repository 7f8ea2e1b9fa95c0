"""The rows that are checked, as a Parquet file: `python -m benchmarks.quality.rows <file> <rows> <groups>`.

Here: their columns as functions of their number, the same on every machine. Not here: who checks them. One amount in 100,000 is
negative; one value in 1,000 lies far from the others of its shop.
"""

import sys

_ROWS = """
COPY (
  SELECT i AS id,
    TIMESTAMP '2024-01-01' + to_seconds(i / 2) AS ts,
    (i % {groups})::INTEGER AS shop,
    (i // {groups})::INTEGER AS hour,
    100 + (hash(i) % 1000003 + hash(i + 1000000007) % 1000003 + hash(i * 7919) % 1000003) / 100000.0
      + CASE WHEN hash(i * 31) % 1000 = 0 THEN 60 ELSE 0 END AS value,
    md5((i // 7)::VARCHAR)::UUID::VARCHAR AS session,
    ['view', 'click', 'cart', 'buy', 'refund', 'login', 'logout', 'search'][1 + (i * 31) % 8] AS kind,
    CASE WHEN i % 20 <> 0 THEN 'https://shop.example/' || (i * 7919 % 9973) || '/item/' || (i * 104729 % 999983) END AS url,
    CASE WHEN i % 33 <> 0 OR i % 100000 = 99999
      THEN CASE WHEN i % 100000 = 99999 THEN -1 ELSE (i * 48271 % 10000000) / 100.0 END END::DECIMAL(12, 2) AS amount,
    CASE WHEN i % 41 <> 0 THEN (i * 16807 % 2147483647) / 2147483647.0 END::DOUBLE AS ratio,
    CASE WHEN i % 29 <> 0 THEN i % 3 = 0 END AS flag,
    DATE '2024-01-01' + (i // 172800)::INTEGER AS day,
    CASE WHEN i % 50 <> 0 THEN (i * 2654435761 % 1000003)::INTEGER END AS user_id
  FROM range({rows}) AS r(i)
) TO '{file}' (FORMAT parquet, ROW_GROUP_SIZE 122880)
"""


def main(file: str, rows: str, groups: str) -> None:
    """Write the file."""
    import duckdb

    duckdb.execute(_ROWS.format(file=file, rows=int(rows), groups=int(groups)))


if __name__ == "__main__":
    main(*sys.argv[1:])
