"""Punctuality by month and carrier."""

from __future__ import annotations

import polars as pl


def by_month(metrics: pl.DataFrame) -> pl.DataFrame:
    """One row per month and carrier: flights, share cancelled, mean departure delay weighted by flights."""
    return (
        metrics.with_columns(month=pl.col("flight_date").dt.truncate("1mo"), delay=pl.col("mean_departure_delay") * pl.col("flights"))
        .group_by("month", "carrier")
        .agg(
            pl.col("flights").sum(),
            (pl.col("cancelled").sum() / pl.col("flights").sum()).round(4).alias("cancelled_share"),
            (pl.col("delay").sum() / pl.col("flights").sum()).round(2).alias("mean_departure_delay"),
        )
        .sort("month", "carrier")
    )
