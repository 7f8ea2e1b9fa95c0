"""Moves the events table with pandas, in the environment of the peers: `pandas_load.py <source dsn or CSV file> <to> <target>`.

Here: the few lines that people write. Not here: how it is started and measured (`peers.pandas`).
"""

import sys

import pandas as pd
from sqlalchemy import create_engine


def main(source: str, to: str, target: str) -> None:
    if "://" not in source:
        frame = pd.read_csv(source, parse_dates=["ts", "day"])
        frame.to_sql("events", create_engine(target), index=False, chunksize=100_000)
        return
    # not read_sql, which asks ClickHouse whether the query is a table and believes the answer
    frame = pd.read_sql_query("SELECT * FROM events", create_engine(source))
    if to == "csv":
        frame.to_csv(target, index=False)
        return
    import duckdb

    with duckdb.connect(target) as connection:
        connection.execute("CREATE TABLE events AS SELECT * FROM frame")


if __name__ == "__main__":
    main(*sys.argv[1:])
