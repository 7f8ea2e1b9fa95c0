"""The detector, said in several ways: `python -m benchmarks.quality.detecting <how> <file> <groups> <result>`.

Here: one function per way, over the rows of the first groups, with the default options; each returns how many rows it saw, how many are
anomalies, and the seconds of the work without start and reading. Not here: which are measured. `loop` follows the published description
of DFT's detector row by row; it is not its code.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

WINDOW, LEAST, SIGMA, DECAY, CONSISTENCY = 1440, 10, 3.0, 0.1, 1.4826


@contextmanager
def _stage(file: str, groups: int) -> Iterator[tuple[Any, Any]]:
    """Our own input: the rows of the groups as a stage, and a step's context."""
    import tempfile

    import duckdb
    import pyarrow.parquet as pq

    from dataflow_assets.protocols import StagedInput, StepContext

    with tempfile.TemporaryDirectory(dir=Path(file).parent) as folder:
        path = f"{folder}/rows.parquet"
        duckdb.execute(f"COPY (SELECT hour, value, shop FROM '{file}' WHERE shop < {groups}) TO '{path}' (FORMAT parquet)")
        metadata = pq.read_metadata(path)
        stage = StagedInput("rows", metadata.schema.to_arrow_schema(), metadata.num_rows, (path,))
        yield stage, StepContext(pipeline="bench", step="mad", project_dir=Path(folder), scratch=Path(folder))


def ours(file: str, groups: int, **options: Any) -> tuple[int, int, float]:
    from dataflow_assets.transforms.mad_anomaly_detector import DetectorOptions, Transform

    with _stage(file, groups) as (stage, context):
        started, seen = time.perf_counter(), 0
        options = {"timestamp_column": "hour", "group_column": "shop", **options}
        with Transform(DetectorOptions.model_validate(options)).apply({"rows": stage}, context) as reader:
            for batch in reader:
                seen += batch.num_rows
        return seen, context.metadata["total_anomalies"], time.perf_counter() - started


def ours_equal(file: str, groups: int) -> tuple[int, int, float]:
    return ours(file, groups, use_weighted=False)


def ours_numpy(file: str, groups: int) -> tuple[int, int, float]:
    sys.modules["numba"] = None  # type: ignore[assignment]  # as if it were not installed
    return ours(file, groups)


def _series(file: str, groups: int) -> Any:
    import duckdb

    return duckdb.sql(f"SELECT shop, hour, value FROM '{file}' WHERE shop < {groups} ORDER BY shop, hour").to_arrow_table()


def _score(values: Any, value: float) -> float:
    import numpy as np

    share = np.exp(-DECAY * np.arange(len(values) - 1, -1, -1))
    share /= share.sum()

    def median(numbers: Any) -> float:
        order = np.argsort(numbers)
        return float(numbers[order[np.searchsorted(np.cumsum(share[order]), 0.5)]])

    mean = median(values)
    std = CONSISTENCY * median(np.abs(values - mean))
    return abs(value - mean) / std if std else 0.0


def _loop_over(values: Any) -> int:
    return sum(_score(values[max(row - WINDOW, 0) : row], float(values[row])) > SIGMA for row in range(LEAST, len(values)))


def loop(file: str, groups: int) -> tuple[int, int, float]:
    table = _series(file, groups)
    started, found = time.perf_counter(), 0
    shops, all_values = table["shop"].to_numpy(), table["value"].to_numpy()
    for shop in range(groups):
        found += _loop_over(all_values[shops == shop])
    return table.num_rows, found, time.perf_counter() - started


def pandas(file: str, groups: int) -> tuple[int, int, float]:
    frame = _series(file, groups).to_pandas()
    started = time.perf_counter()
    windows = frame.groupby("shop")["value"].rolling(WINDOW + 1, min_periods=LEAST + 1)
    scores = windows.apply(lambda window: _score(window[:-1], window[-1]), raw=True)
    return len(frame), int((scores > SIGMA).sum()), time.perf_counter() - started


def polars(file: str, groups: int) -> tuple[int, int, float]:
    import polars as pl

    frame = pl.DataFrame(_series(file, groups))
    started = time.perf_counter()

    def median(cells: pl.DataFrame, number: str) -> pl.DataFrame:
        weight = pl.col("w").cum_sum().over("row") >= 0.5 * pl.col("w").sum().over("row")
        return cells.sort("row", number).filter(weight).group_by("row", maintain_order=True).agg(pl.col(number).first().alias("middle"))

    numbered = frame.with_row_index("row")
    past = frame.rolling("hour", period=f"{WINDOW}i", closed="left", group_by="shop").agg(v="value", at=pl.col("hour").alias("at"))
    cells = numbered.hstack(past.select("v", "at")).filter(pl.col("v").list.len() >= LEAST).explode("v", "at")
    cells = cells.select("row", "value", "v", w=((pl.col("at") - pl.col("hour") + 1) * DECAY).exp())
    cells = cells.join(median(cells, "v").rename({"middle": "mean"}), on="row").with_columns(d=(pl.col("v") - pl.col("mean")).abs())
    judged = cells.group_by("row").agg(pl.col("value", "mean").first()).join(median(cells, "d"), on="row")
    found = judged.filter((pl.col("value") - pl.col("mean")).abs() > SIGMA * CONSISTENCY * pl.col("middle")).height
    return frame.height, found, time.perf_counter() - started


_SQL = f"""
WITH pairs AS (
  SELECT a.shop, a.hour, a.value AS own, b.value AS v, exp(-{DECAY} * (a.hour - 1 - b.hour)) AS w
  FROM series AS a JOIN series AS b ON a.shop = b.shop AND b.hour BETWEEN a.hour - {WINDOW} AND a.hour - 1),
running AS (
  SELECT *, sum(w) OVER (PARTITION BY shop, hour ORDER BY v ROWS UNBOUNDED PRECEDING) AS upto,
    sum(w) OVER (PARTITION BY shop, hour) AS total
  FROM pairs),
means AS (SELECT shop, hour, min(v) FILTER (upto >= 0.5 * total) AS mean, count(*) AS n FROM running GROUP BY ALL),
distances AS (SELECT shop, hour, own, mean, n, abs(v - mean) AS d, w, total FROM running JOIN means USING (shop, hour) WHERE n >= {LEAST}),
run_out AS (SELECT *, sum(w) OVER (PARTITION BY shop, hour ORDER BY d ROWS UNBOUNDED PRECEDING) AS upto FROM distances)
SELECT count(*) FROM (
  SELECT shop, hour, any_value(own) AS own, any_value(mean) AS mean, min(d) FILTER (upto >= 0.5 * total) AS spread
  FROM run_out GROUP BY shop, hour)
WHERE abs(own - mean) > {SIGMA * CONSISTENCY} * spread
"""


def duckdb(file: str, groups: int) -> tuple[int, int, float]:
    import duckdb as engine

    series = _series(file, groups)
    connection = engine.connect(config={"temp_directory": str(Path(file).parent / "spill")})
    connection.register("series", series)
    started = time.perf_counter()
    (found,) = connection.execute(_SQL).fetchone() or (0,)
    return series.num_rows, int(found), time.perf_counter() - started


def duckdb_equal(file: str, groups: int) -> tuple[int, int, float]:
    """DuckDB's own mad(): the middle of two values where ours takes the lower one."""
    import duckdb as engine

    series = _series(file, groups)
    connection = engine.connect()
    connection.register("series", series)
    started = time.perf_counter()
    query = f"""
      SELECT count(*) FROM (
        SELECT value, median(value) OVER past AS mean, mad(value) OVER past AS spread, count(*) OVER past AS n FROM series
        WINDOW past AS (PARTITION BY shop ORDER BY hour ROWS BETWEEN {WINDOW} PRECEDING AND 1 PRECEDING))
      WHERE n >= {LEAST} AND abs(value - mean) > {SIGMA * CONSISTENCY} * spread"""
    (found,) = connection.execute(query).fetchone() or (0,)
    return series.num_rows, int(found), time.perf_counter() - started


HOW: dict[str, Callable[[str, int], tuple[int, int, float]]] = {
    "ours": ours,
    "ours-equal": ours_equal,
    "ours-numpy": ours_numpy,
    "loop": loop,
    "pandas": pandas,
    "polars": polars,
    "duckdb": duckdb,
    "duckdb-equal": duckdb_equal,
}


def _detect(settings: Any, centers: Any, values: Any) -> None:
    from dataflow_assets.mad import Detector

    Detector(settings, centers=centers).feed(values)


def compare(rows: int, repeats: int) -> dict[str, float]:
    """Processor seconds for one series, start apart, least of some: the loop's, and ours for each kind of weights."""
    import numpy as np

    from dataflow_assets.mad import Settings, _arrays, _loops

    values = np.random.default_rng(1).normal(100, 5, rows)

    def least(action: Callable[[], object], times: int) -> float:
        found = []
        for _ in range(times):
            started = time.process_time()
            action()
            found.append(time.process_time() - started)
        return min(found)

    seconds = {"loop": least(lambda: _loop_over(values), 2)}
    kinds = {"exponential": Settings(), "linear": Settings(weights_type="linear"), "none": Settings(use_weighted=False)}
    ways = {"numpy": _arrays.centers, "numba": _loops.centers}
    for kind, settings in kinds.items():
        for way, centers in ways.items():
            _detect(settings, centers, values[:2000])
            times = max(repeats // 5, 1) if way == "numpy" and kind != "exponential" else repeats
            seconds[f"{kind}, {way}"] = least(partial(_detect, settings, centers, values), times)
    return seconds


def main(how: str, file: str, groups: str, result: str) -> None:
    """Do it and write down what came of it, with the seconds of the work itself."""
    if how == "compare":
        Path(result).write_text(json.dumps(compare(10_000, 15)))
        return
    rows, found, seconds = HOW[how](file, int(groups))
    Path(result).write_text(json.dumps({"rows": rows, "found": found, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
