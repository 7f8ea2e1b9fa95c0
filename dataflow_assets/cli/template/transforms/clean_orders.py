"""A transform is a function: a table in, a table out. The annotation says which kind: pandas, polars or pyarrow."""

import polars as pl


def clean(orders: pl.DataFrame) -> pl.DataFrame:
    """Drop orders without a product and add what each one is worth."""
    kept = orders.filter(pl.col("product").is_not_null())
    return kept.with_columns((pl.col("quantity") * pl.col("unit_price")).round(2).alias("amount"))
