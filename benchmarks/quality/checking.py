"""The ten rules of the benchmark, said in several ways: `python -m benchmarks.quality.checking <how> <file> <groups> <result>`.

Here: one function per way over the whole file; each returns how many rows it saw and how many values break a rule. Not here: which are
measured. Ours are the rules of the copied pipelines, in their YAML.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.events import KINDS
from benchmarks.project import RULES

NAMES = ["id", "ts", "user_id", "session", "kind", "url", "amount", "ratio", "flag", "day"]
URL = "^https?://[a-z.]+/"


def ours(file: str) -> tuple[int, int]:
    import tempfile

    import pyarrow.parquet as pq
    import yaml

    from dataflow_assets import discovery
    from dataflow_assets.protocols import StagedInput, StepContext

    check_class = discovery.find("checks", "validator")
    (step,) = yaml.safe_load(RULES)
    metadata = pq.read_metadata(file)
    stage = StagedInput("rows", metadata.schema.to_arrow_schema(), metadata.num_rows, (file,))
    with tempfile.TemporaryDirectory(dir=Path(file).parent) as scratch:
        context = StepContext(pipeline="bench", step="rules", project_dir=Path(scratch), scratch=Path(scratch))
        run = check_class(check_class.Options.model_validate(step["config"])).begin(stage.schema, context)
        with stage.open_reader() as reader:
            for batch in reader:
                run.update(batch)
        return stage.rows, sum(result.failed for result in run.finish(stage))


def pandas(file: str) -> tuple[int, int]:
    import pandas as pd

    frame = pd.read_parquet(file, dtype_backend="pyarrow")
    broken = [
        len(set(NAMES) - set(frame.columns)),
        int(len(frame) < 1),
        frame["id"].isna().sum(),
        frame["id"].duplicated().sum(),
        frame["ts"].isna().sum(),
        (~frame["kind"].isin(KINDS) & frame["kind"].notna()).sum(),
        (~frame["amount"].astype("float64").between(0, 100_000) & frame["amount"].notna()).sum(),
        (~frame["ratio"].between(0, 1) & frame["ratio"].notna()).sum(),
        (~frame["url"].str.match(URL).fillna(True).astype(bool)).sum(),
        (frame["session"].str.len() != 36).fillna(False).sum(),
    ]
    return len(frame), int(sum(broken))


def polars(file: str) -> tuple[int, int]:
    import polars as pl

    frame = pl.scan_parquet(file)
    missing = len(set(NAMES) - set(frame.collect_schema().names()))
    broken = frame.select(
        rows=pl.len(),
        id=pl.col("id").is_null().sum(),
        unique=pl.len() - pl.col("id").n_unique(),
        ts=pl.col("ts").is_null().sum(),
        kind=(~pl.col("kind").is_in(KINDS)).sum(),
        amount=(~pl.col("amount").is_between(0, 100_000)).sum(),
        ratio=(~pl.col("ratio").is_between(0, 1)).sum(),
        url=(~pl.col("url").str.contains(URL)).sum(),
        session=(pl.col("session").str.len_chars() != 36).sum(),
    )
    (found,) = broken.collect(engine="streaming").to_dicts()
    rows = found.pop("rows")
    return rows, missing + int(rows < 1) + sum(found.values())


def duckdb(file: str) -> tuple[int, int]:
    import duckdb as engine

    kinds = ", ".join(f"'{kind}'" for kind in KINDS)
    names = [row[0] for row in engine.execute(f"DESCRIBE SELECT * FROM '{file}'").fetchall()]
    found = engine.execute(f"""
      SELECT count(*), count(*) - count(id), count(id) - count(DISTINCT id), count(*) - count(ts),
        count(*) FILTER (kind NOT IN ({kinds})), count(*) FILTER (amount NOT BETWEEN 0 AND 100000),
        count(*) FILTER (ratio NOT BETWEEN 0 AND 1), count(*) FILTER (NOT regexp_matches(url, '{URL}')),
        count(*) FILTER (length(session) <> 36)
      FROM '{file}'""").fetchone()
    rows, *broken = found or (0,)
    return rows, len(set(NAMES) - set(names)) + int(rows < 1) + sum(broken)


def _pandera(module: Any, frame: Any) -> tuple[int, int]:
    from pandera.errors import SchemaErrors

    check = module.Check
    rules = {
        **{name: module.Column(nullable=True, required=True) for name in NAMES},
        "id": module.Column(nullable=False, unique=True),
        "ts": module.Column(nullable=False),
        "kind": module.Column(checks=check.isin(KINDS), nullable=True),
        "amount": module.Column(checks=check.in_range(0, 100_000), nullable=True),
        "ratio": module.Column(checks=check.in_range(0, 1), nullable=True),
        "url": module.Column(checks=check.str_matches(URL), nullable=True),
        "session": module.Column(checks=check.str_length(36, 36), nullable=True),
    }
    try:
        module.DataFrameSchema(rules, checks=check(_has_rows)).validate(frame, lazy=True)
    except SchemaErrors as errors:
        return len(frame), len(errors.failure_cases)
    return len(frame), 0


def _has_rows(data: Any) -> bool:
    """For pandas a frame, for polars what holds one."""
    return len(data) > 0 if hasattr(data, "columns") else data.lazyframe.limit(1).collect().height > 0


def pandera_pandas(file: str) -> tuple[int, int]:
    import pandas as pd
    import pandera.pandas as pa

    frame = pd.read_parquet(file)
    frame["amount"] = frame["amount"].astype("float64")
    return _pandera(pa, frame)


def pandera_polars(file: str) -> tuple[int, int]:
    import pandera.polars as pa
    import polars as pl

    return _pandera(pa, pl.read_parquet(file).with_columns(pl.col("amount").cast(pl.Float64)))


HOW: dict[str, Callable[[str], tuple[int, int]]] = {
    "ours": ours,
    "pandas": pandas,
    "polars": polars,
    "duckdb": duckdb,
    "pandera-pandas": pandera_pandas,
    "pandera-polars": pandera_polars,
}


def main(how: str, file: str, _: str, result: str) -> None:
    """Do it and write down what came of it."""
    started = time.perf_counter()
    rows, found = HOW[how](file)
    Path(result).write_text(json.dumps({"rows": rows, "found": found, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
