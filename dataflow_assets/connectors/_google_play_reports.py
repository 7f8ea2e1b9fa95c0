"""The monthly reports of Google Play: where each lies, what its files are called, its columns and what they hold.

Here: data, as Google documents it, and the names that columns get. Not here: reading files (`_google_play_files`), parsing values
(`_google_play_values`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["date", "instant", "epoch", "integer", "decimal", "float", "text"]


@dataclass(frozen=True)
class Column:
    """A column under its present heading; `also` are headings that files of other times had for it."""

    heading: str
    kind: Kind = "text"
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """A kind of report. `stem` is the beginning of its files' names, `moment` the column whose month a file is for."""

    name: str
    folder: str
    stem: str
    moment: str
    columns: tuple[Column, ...]
    dimensions: tuple[str, ...] = ()
    daily: bool = False
    """A statistic with rows for each day, so that the newest file tells how far the report reaches."""
    app_column: str = ""
    """The column that names the app, where one file holds those of the whole account."""

    @property
    def files(self) -> re.Pattern[str]:
        """What the names of its files are like, with the groups `app` and `month`."""
        stem, month = re.escape(self.stem), r"(?P<month>20\d\d(?:0[1-9]|1[0-2]))"
        if self.app_column:
            return re.compile(rf"{stem}_(?P<app>){month}(?!\d).*\.(?:zip|csv)", re.DOTALL)
        return re.compile(rf"{stem}_(?P<app>.+)_{month}(?P<dimension>(?:_[a-z_]+)?)\.csv", re.DOTALL)


def name_of(heading: str) -> str:
    """A heading as a name that databases take without quotes: `Amount (Merchant Currency)` is `amount_merchant_currency`."""
    return re.sub(r"\W+", "_", heading.casefold()).strip("_") or heading


_DAY = (Column("Date", "date"), Column("Package Name"))
_DIMENSIONS: dict[str, tuple[Column, ...]] = {
    "overview": (),
    "country": (Column("Country"),),
    "device": (Column("Device"),),
    "os_version": (Column("Android OS Version"),),
    "app_version": (Column("App Version Code", "integer"),),
    "carrier": (Column("Carrier"),),
    "language": (Column("Language"),),
    "traffic_source": (Column("Traffic source"), Column("Search term"), Column("UTM source"), Column("UTM campaign")),
}
_INSTALLS = (
    "Daily Device Installs",
    "Daily Device Uninstalls",
    "Daily Device Upgrades",
    "Total User Installs",
    "Daily User Installs",
    "Daily User Uninstalls",
    "Active Device Installs",
    "Install events",
    "Update events",
    "Uninstall events",
)
_EARNINGS = (
    Column("Description"),
    Column("Transaction Date", "date"),
    Column("Transaction Time"),
    Column("Tax Type"),
    Column("Transaction Type"),
    Column("Refund Type"),
    Column("Product Title"),
    Column("Package ID", also=("Product id",)),
    Column("Product Type"),
    Column("Sku Id"),
    Column("Hardware"),
    Column("Buyer Country"),
    Column("Buyer State"),
    Column("Buyer Postal Code", also=("Buyer Postcode",)),
    Column("Buyer Currency"),
    Column("Amount (Buyer Currency)", "decimal"),
    Column("Currency Conversion Rate", "decimal"),
    Column("Merchant Currency"),
    Column("Amount (Merchant Currency)", "decimal"),
)
_SALES = (
    Column("Order Number"),
    Column("Order Charged Date", "date"),
    Column("Order Charged Timestamp", "epoch"),
    Column("Financial Status"),
    Column("Device Model"),
    Column("Product Title"),
    Column("Package ID", also=("Product ID",)),
    Column("Product Type"),
    Column("SKU ID"),
    Column("Currency of Sale"),
    Column("Item Price", "decimal"),
    Column("Taxes Collected", "decimal"),
    Column("Charged Amount", "decimal"),
    Column("City of Buyer"),
    Column("State of Buyer"),
    Column("Postal Code of Buyer", also=("Postcode of Buyer",)),
    Column("Country of Buyer"),
)
_REVIEWS = (
    Column("Package Name"),
    Column("App Version Code", "integer"),
    Column("App Version Name"),
    Column("Reviewer Language"),
    Column("Device"),
    Column("Review Submit Date and Time", "instant"),
    Column("Review Submit Millis Since Epoch", "integer"),
    Column("Review Last Update Date and Time", "instant"),
    Column("Review Last Update Millis Since Epoch", "integer"),
    Column("Star Rating", "integer"),
    Column("Review Title"),
    Column("Review Text"),
    Column("Developer Reply Date and Time", "instant"),
    Column("Developer Reply Millis Since Epoch", "integer"),
    Column("Developer Reply Text"),
    Column("Review Link"),
)
_OF_PHONES = ("overview", "country", "device", "os_version", "app_version", "carrier", "language")


def _statistic(name: str, columns: tuple[Column, ...], dimensions: tuple[str, ...]) -> Report:
    return Report(name, f"stats/{name}", name, "Date", columns, dimensions, daily=True)


REPORTS: dict[str, Report] = {
    report.name: report
    for report in (
        _statistic("installs", tuple(Column(heading, "integer") for heading in _INSTALLS), _OF_PHONES),
        _statistic("ratings", (Column("Daily Average Rating", "float"), Column("Total Average Rating", "float")), _OF_PHONES),
        _statistic(
            "crashes",
            (Column("Daily Crashes", "integer"), Column("Daily ANRs", "integer")),
            ("overview", "device", "os_version", "app_version"),
        ),
        _statistic(
            "store_performance",
            (
                Column("Store listing acquisitions", "integer"),
                Column("Store listing visitors", "integer"),
                Column("Store listing conversion rate", "float"),
            ),
            ("country", "traffic_source"),
        ),
        Report("reviews", "reviews", "reviews", "Review Last Update Date and Time", _REVIEWS),
        Report("earnings", "earnings", "earnings", "Transaction Date", _EARNINGS, app_column="Package ID"),
        Report("sales", "sales", "salesreport", "Order Charged Date", _SALES, app_column="Package ID"),
    )
}
REPORT_NAMES = tuple(REPORTS)


def columns_of(report: Report, dimension: str) -> tuple[Column, ...]:
    """The documented columns of a report's files, in their order."""
    if not report.daily:
        return report.columns
    if report.name == "store_performance" and dimension == "country":
        return (*_DAY, Column("Country / region", also=("Country",)), *report.columns)
    return (*_DAY, *_DIMENSIONS[dimension], *report.columns)
