"""How fast the data paths are, beside the limit of the engines themselves and beside other tools, in one run.

Here: `python -m benchmarks`, one file per way (`ways`), per system (`server` for Postgres, `mysql`, `clickhouse`, `sqlite`) and per peer
(`peers`). Not here: tests of correctness; a contender is only held to have moved every row.
"""
