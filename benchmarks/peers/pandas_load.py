"""Moves the events table with pandas, in the environment of the peers: `pandas_load.py <source dsn> <to> <target>`.

Here: the few lines that people write. Not here: how it is started and measured (`peers.pandas`).
"""

import sys

import pandas as pd
from sqlalchemy import create_engine


def main(source: str, to: str, target: str) -> None:
    frame = pd.read_sql("SELECT * FROM events", create_engine(source))
    if to == "csv":
        frame.to_csv(target, index=False)
        return
    import duckdb

    with duckdb.connect(target) as connection:
        connection.execute("CREATE TABLE events AS SELECT * FROM frame")


if __name__ == "__main__":
    main(*sys.argv[1:])
