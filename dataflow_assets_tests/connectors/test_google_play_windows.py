"""Which months and days of Google Play's reports a window asks for, and what it is when they are not there yet."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.tables import WindowFilter
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.on_objects import at, put
from dataflow_assets_tests.connectors.over_google_play import (
    INSTALLS,
    REVIEWS,
    SALES,
    SHOP,
    TILL,
    read,
    within,
    write,
    write_installs,
    write_zip,
)
from dataflow_assets_tests.services.object_stores import StoreRoot

SHOP_PRO = f"{SHOP}_pro"
JANUARY = date(2024, 1, 1), date(2024, 1, 31)


def test_a_window_reads_the_months_that_it_touches(gcs_root: StoreRoot) -> None:
    for month, days in (("202401", range(1, 32)), ("202402", range(1, 30)), ("202403", range(1, 4))):
        write_installs(gcs_root, SHOP, month, list(days))
    put(at(gcs_root, f"stats/installs/installs_{SHOP}_202312_overview.csv"), b"no report at all")
    found = read(gcs_root, report="installs", window=within("date", date(2024, 1, 30), date(2024, 2, 2)), columns=["date"])
    assert found.to_pydict() == {"date": [date(2024, 1, 30), date(2024, 1, 31), date(2024, 2, 1), date(2024, 2, 2)]}
    year = WindowFilter("date", Window(datetime(2024, 1, 31, 23, tzinfo=UTC), datetime(2024, 3, 3, 23, tzinfo=UTC)), "Europe/Berlin")
    assert read(gcs_root, report="installs", window=year).num_rows == 29 + 3
    hour = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueRefused, match="does not begin and end at midnight"):
        read(gcs_root, report="installs", window=WindowFilter("date", hour))


def test_months_without_windows(gcs_root: StoreRoot) -> None:
    for month in ("202401", "202402", "202403"):
        write_installs(gcs_root, SHOP, month, [1])

    def months(**options: Any) -> list[int]:
        return [day.month for day in read(gcs_root, report="installs", **options)["date"].to_pylist()]

    assert months() == [1, 2, 3]
    assert months(start_date=202402) == [2, 3]
    assert months(end_date="202402") == [1, 2]
    assert months(start_date="202402", end_date="202402") == [2]
    with pytest.raises(ReadFailed, match=r"for 202404 in .*; the newest is for 202403"):
        months(start_date="202403", end_date="202404")
    with pytest.raises(ReadFailed, match="for reads without windows"):
        months(start_date="202403", window=within("date", *JANUARY))


def test_a_month_that_is_not_there_yet(gcs_root: StoreRoot) -> None:
    write_installs(gcs_root, SHOP, "202401", list(range(1, 32)))
    write_installs(gcs_root, SHOP, "202403", [1, 2, 3])

    def rows(first: date, last: date | None = None, **options: Any) -> int:
        options = {"package_name": SHOP, **options}
        return read(gcs_root, report="installs", window=within("date", first, last), **options).num_rows

    for first, month in ((date(2024, 2, 1), "202402"), (date(2024, 4, 1), "202404")):
        for apps in (SHOP, []):
            with pytest.raises(ReadFailed, match=f"for {month} in .*; the newest is for 202403") as caught:
                rows(first, package_name=apps)
            assert caught.value.transient
            assert "lag:" in caught.value.hint
        assert rows(first, missing="empty") == 0
    assert rows(date(2023, 12, 1), date(2023, 12, 31)) == 0, "before its first report an app has nothing to report"
    assert rows(date(2023, 12, 31), date(2024, 1, 1)) == 1


def test_a_day_that_the_newest_report_does_not_reach(gcs_root: StoreRoot) -> None:
    """A window of a day that Google has not written yet is no empty window."""
    write_installs(gcs_root, SHOP, "202401", [1, 2, 3])
    write_installs(gcs_root, TILL, "202401", [1, 2, 3, 4])

    def rows(day: int, **options: Any) -> int:
        return read(gcs_root, report="installs", window=within("date", date(2024, 1, day)), **options).num_rows

    assert rows(3) == 2
    assert rows(4) == 1, "of apps that are not named nobody knows which still report"
    assert rows(4, package_name=TILL) == 1
    with pytest.raises(ReadFailed, match=rf"overview of {SHOP} in gs://.* ends with 2024-01-03, and the window with 2024-01-04") as caught:
        rows(4, package_name=[TILL, SHOP])
    assert caught.value.transient
    assert rows(4, package_name=[TILL, SHOP], missing="empty") == 1
    with pytest.raises(ReadFailed, match="ends with 2024-01-04, and the window with 2024-01-05"):
        rows(5)
    write_installs(gcs_root, SHOP, "202402", [1])
    assert rows(4, package_name=SHOP) == 0, "a month that others followed is complete"


def test_an_empty_newest_report_reaches_no_day(gcs_root: StoreRoot) -> None:
    write(gcs_root, f"stats/installs/installs_{SHOP}_202401_overview.csv", f"Date,Package Name,{INSTALLS}")
    with pytest.raises(ReadFailed, match="ends with no day"):
        read(gcs_root, report="installs", window=within("date", date(2024, 1, 1)))
    assert read(gcs_root, report="installs").num_rows == 0


def test_apps_whose_names_begin_alike(gcs_root: StoreRoot) -> None:
    for number, app in enumerate((SHOP, SHOP_PRO, TILL), 1):
        write_installs(gcs_root, app, "202401", [number])
    write_installs(gcs_root, SHOP, "202402", [1])

    def apps(**options: Any) -> list[str]:
        return read(gcs_root, report="installs", columns=["package_name"], **options)["package_name"].to_pylist()

    assert apps() == [SHOP, SHOP, SHOP_PRO, TILL]
    assert apps(package_name=SHOP) == [SHOP, SHOP]
    assert apps(package_name=[TILL, SHOP_PRO]) == [SHOP_PRO, TILL]
    assert apps(keys={"package_name": [TILL]}) == [TILL]
    assert apps(package_name=SHOP_PRO, keys={"package_name": [TILL]}) == [SHOP_PRO]


def test_events_by_the_edge_of_a_month_are_looked_for_beyond_it(gcs_root: StoreRoot) -> None:
    """A sale of the last evening may stand in either month's file; each is in one window."""
    sale = f"GPA.{{}},{{}},{{}},Charged,d2x,Gold,{SHOP},inapp,gold,EUR,1,0,1,,,,DE"
    write_zip(
        gcs_root, "sales/salesreport_202401.zip", {"s.csv": [SALES, sale.format(1, "2024-01-31", 0), sale.format(2, "2024-02-01", 0)]}
    )
    write_zip(
        gcs_root, "sales/salesreport_202402.zip", {"s.csv": [SALES, sale.format(3, "2024-01-31", 0), sale.format(4, "2024-02-01", 0)]}
    )
    put(at(gcs_root, "sales/salesreport_202403.zip"), b"not written to its end")
    for day, orders in ((date(2024, 1, 31), ["GPA.1", "GPA.3"]), (date(2024, 2, 1), ["GPA.2", "GPA.4"]), (date(2024, 2, 2), [])):
        found = read(gcs_root, report="sales", window=within("order_charged_date", day))
        assert found["order_number"].to_pylist() == orders
    with pytest.raises(ReadFailed, match=r"salesreport_202403\.zip cannot be unpacked"):
        read(gcs_root, report="sales", window=within("order_charged_date", date(2024, 3, 5)))
    with pytest.raises(ReadFailed, match="no sales report for 202405"):
        read(gcs_root, report="sales", window=within("order_charged_date", date(2024, 5, 5)))


def test_reviews_by_the_time_of_their_last_update(gcs_root: StoreRoot) -> None:
    row = f"{SHOP},,,de,,{{}},,{{}},,{{}},,,,,,"
    january, february = "2024-01-05T10:00:00Z", "2024-02-05T10:00:00Z"
    write(gcs_root, f"reviews/reviews_{SHOP}_202401.csv", REVIEWS, row.format(january, january, 5))
    write(gcs_root, f"reviews/reviews_{SHOP}_202402.csv", REVIEWS, row.format(january, february, 1), row.format("", "", 2))
    updated, submitted = "review_last_update_date_and_time", "review_submit_date_and_time"
    assert read(gcs_root, report="reviews", window=within(updated, date(2024, 1, 5)))["star_rating"].to_pylist() == [5]
    with pytest.raises(ValueRefused, match=f"1 rows have no value in column '{updated}'"):
        read(gcs_root, report="reviews", window=within(updated, date(2024, 2, 5)))
    write(gcs_root, f"reviews/reviews_{SHOP}_202402.csv", REVIEWS, row.format(january, february, 1))
    assert read(gcs_root, report="reviews", window=within(updated, date(2024, 2, 5)))["star_rating"].to_pylist() == [1]
    assert read(gcs_root, report="reviews", window=within(submitted, *JANUARY))["star_rating"].to_pylist() == [5, 1]
