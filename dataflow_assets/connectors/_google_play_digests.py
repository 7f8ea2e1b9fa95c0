"""The six columns that DFT's `google_play` source had for each of its report types, made from the reports that Google writes.

Here: which column stands for which. Not here: reading the reports (`_google_play_read`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors._google_play_values import MONEY
from dataflow_assets.errors import ValueRefused


@dataclass(frozen=True)
class Digest:
    """Columns made from others: `needs` are those of the report, `make` gives those of `schema`."""

    schema: pa.Schema
    needs: tuple[str, ...]
    make: Callable[[pa.RecordBatch], list[pa.Array]]

    def made(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the columns of `schema`."""
        return pa.RecordBatch.from_arrays(self.make(batch), schema=self.schema)


def _installs(batch: pa.RecordBatch) -> list[pa.Array]:
    installs, uninstalls = batch.column("daily_user_installs"), batch.column("daily_user_uninstalls")
    source = pa.array(["google_play"] * batch.num_rows, pa.string())
    return [batch.column("date"), installs, uninstalls, pc.subtract(installs, uninstalls), batch.column("country"), source]


def _financial(batch: pa.RecordBatch) -> list[pa.Array]:
    """A line of the earnings each: summed up, they are what is paid out. Raises ValueRefused for an account that is not paid in USD."""
    paid = batch.column("merchant_currency")
    if not pc.all(pc.equal(paid, "USD"), min_count=0).as_py():
        other = paid.filter(pc.not_equal(paid, "USD"))[0]
        raise ValueRefused(
            f"column 'revenue_usd': the earnings are paid in {other}, not in USD",
            hint="write report: earnings in place of report_type: financial; it has amount_merchant_currency and merchant_currency",
        )
    charges = pc.fill_null(pc.equal(batch.column("transaction_type"), "Charge"), False).cast(pa.int64())
    amount, day = batch.column("amount_merchant_currency"), batch.column("transaction_date")
    return [day, amount, charges, batch.column("buyer_currency"), batch.column("buyer_country"), batch.column("sku_id")]


DIGESTS: dict[str, Digest] = {
    "installs": Digest(
        pa.schema(
            [
                ("date", pa.date32()),
                ("installs", pa.int64()),
                ("uninstalls", pa.int64()),
                ("net_installs", pa.int64()),
                ("country", pa.string()),
                ("source", pa.string()),
            ]
        ),
        ("date", "country", "daily_user_installs", "daily_user_uninstalls"),
        _installs,
    ),
    "financial": Digest(
        pa.schema(
            [
                ("date", pa.date32()),
                ("revenue_usd", MONEY),
                ("transactions", pa.int64()),
                ("currency", pa.string()),
                ("country", pa.string()),
                ("product_id", pa.string()),
            ]
        ),
        (
            *("transaction_date", "transaction_type", "sku_id", "buyer_country", "buyer_currency"),
            *("merchant_currency", "amount_merchant_currency"),
        ),
        _financial,
    ),
}
