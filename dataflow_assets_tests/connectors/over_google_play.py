"""Driving the Google Play connector against a bucket that the tests fill.

Here: making one, writing reports in the form that Google documents (UTF-16 with a mark, or a zip of UTF-8), reading a source step.
Not here: the store (`services.object_stores`), tests.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflow_assets.connectors.google_play import Connector, GooglePlayConnection, GooglePlaySource
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest, WindowFilter
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.on_objects import at, put
from dataflow_assets_tests.services.object_stores import StoreRoot

SHOP, TILL = "com.example.shop", "com.example.till"
INSTALLS = (
    "Daily Device Installs,Daily Device Uninstalls,Daily Device Upgrades,Total User Installs,Daily User Installs,"
    "Daily User Uninstalls,Active Device Installs,Install events,Update events,Uninstall events"
)
EARNINGS = (
    "Description,Transaction Date,Transaction Time,Tax Type,Transaction Type,Refund Type,Product Title,Product id,Product Type,Sku Id,"
    "Hardware,Buyer Country,Buyer State,Buyer Postal Code,Buyer Currency,Amount (Buyer Currency),Currency Conversion Rate,"
    "Merchant Currency,Amount (Merchant Currency)"
)
SALES = (
    "Order Number,Order Charged Date,Order Charged Timestamp,Financial Status,Device Model,Product Title,Product ID,Product Type,SKU ID,"
    "Currency of Sale,Item Price,Taxes Collected,Charged Amount,City of Buyer,State of Buyer,Postal Code of Buyer,Country of Buyer"
)
REVIEWS = (
    "Package Name,App Version Code,App Version Name,Reviewer Language,Device,Review Submit Date and Time,"
    "Review Submit Millis Since Epoch,Review Last Update Date and Time,Review Last Update Millis Since Epoch,Star Rating,"
    "Review Title,Review Text,Developer Reply Date and Time,Developer Reply Millis Since Epoch,Developer Reply Text,Review Link"
)


def connection_to(root: StoreRoot, **keys: Any) -> GooglePlayConnection:
    """A connection whose account has its reports below `root`."""
    return GooglePlayConnection.model_validate({"bucket": root.url, **root.options, **keys})


def connect(root: StoreRoot, **keys: Any) -> Connector:
    """A connector for it."""
    return Connector(connection_to(root, **keys), ConnectionContext("play", Path()))


def write(root: StoreRoot, name: str, *lines: str, encoding: str = "utf-16") -> None:
    """A report of these lines, in Google's encoding with a mark."""
    put(at(root, name), "".join(f"{line}\r\n" for line in lines).encode(encoding))


def write_zip(root: StoreRoot, name: str, members: dict[str, Sequence[str]]) -> None:
    """A report in a zip: member -> its lines, in UTF-8."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, lines in members.items():
            archive.writestr(member, "".join(f"{line}\n" for line in lines))
    put(at(root, name), content.getvalue())


def write_installs(root: StoreRoot, app: str, month: str, days: Sequence[int], *, dimension: str = "overview", value: str = "") -> None:
    """An installs report with a row for each of these days of the month; the day is the number of device installs."""
    first = f"Date,Package Name,{'Country,' if dimension == 'country' else ''}"
    rows = [f"{month[:4]}-{month[4:]}-{day:02d},{app},{f'{value},' if value else ''}{day},1,0,100,{day * 2},3,90,5,6,7" for day in days]
    write(root, f"stats/installs/installs_{app}_{month}_{dimension}.csv", f"{first}{INSTALLS}", *rows)


def read(
    root: StoreRoot, *, window: WindowFilter | None = None, columns: Sequence[str] | None = None, keys: Any = None, **options: Any
) -> pa.Table:
    """What a source step with these options reads; `keys` are more of the connection."""
    connector = connect(root, **(keys or {}))
    request = ReadRequest(GooglePlaySource.model_validate(options), columns=tuple(columns) if columns else None, window=window)
    try:
        with connector.read(request) as reader:
            return reader.read_all()
    finally:
        connector.close()


def within(column: str, first: date, last: date | None = None) -> WindowFilter:
    """The window of the days from one to another, both included, in UTC."""
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    end = datetime.combine(last or first, datetime.min.time(), tzinfo=UTC) + timedelta(days=1)
    return WindowFilter(column, Window(start, end))
