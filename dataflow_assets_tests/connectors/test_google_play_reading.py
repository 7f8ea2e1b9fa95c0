"""What the Google Play connector reads: reports in their documented form, months that differ, types, the columns of DFT's source.

Here: what becomes of the files. Not here: which of them a window asks for (`test_google_play_windows`).
"""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from dataflow_assets.connectors._google_play_files import listed
from dataflow_assets.connectors._google_play_reports import REPORTS, columns_of, name_of
from dataflow_assets.connectors._google_play_values import Kind, values
from dataflow_assets.connectors._text_types import Unfit
from dataflow_assets.errors import DataflowError, ReadFailed, ValueRefused
from dataflow_assets_tests.connectors.on_objects import at, content, put
from dataflow_assets_tests.connectors.over_google_play import (
    EARNINGS,
    INSTALLS,
    REVIEWS,
    SALES,
    SHOP,
    TILL,
    connect,
    read,
    within,
    write,
    write_installs,
    write_zip,
)
from dataflow_assets_tests.services.object_stores import StoreRoot

JANUARY = date(2024, 1, 1), date(2024, 1, 31)


# -- reports in their form


def test_an_overview_has_its_documented_columns_and_types(gcs_root: StoreRoot) -> None:
    write_installs(gcs_root, SHOP, "202401", [1, 2])
    assert content(at(gcs_root, f"stats/installs/installs_{SHOP}_202401_overview.csv"))[:2] == b"\xff\xfe"
    found = read(gcs_root, report="installs")
    assert found.schema == pa.schema(
        [("date", pa.date32()), ("package_name", pa.string()), *((name_of(heading), pa.int64()) for heading in INSTALLS.split(","))]
    )
    assert found.slice(1).to_pylist() == [
        {
            "date": date(2024, 1, 2),
            "package_name": SHOP,
            "daily_device_installs": 2,
            "daily_device_uninstalls": 1,
            "daily_device_upgrades": 0,
            "total_user_installs": 100,
            "daily_user_installs": 4,
            "daily_user_uninstalls": 3,
            "active_device_installs": 90,
            "install_events": 5,
            "update_events": 6,
            "uninstall_events": 7,
        }
    ]
    assert read(gcs_root, report="installs", column_names="report").column_names == ["Date", "Package Name", *INSTALLS.split(",")]


DIMENSIONS = [(name, by) for name, report in REPORTS.items() for by in report.dimensions]


@pytest.mark.parametrize(("report", "dimension"), DIMENSIONS, ids="-".join)
def test_each_statistic_has_its_dimensions(gcs_root: StoreRoot, report: str, dimension: str) -> None:
    columns = columns_of(REPORTS[report], dimension)
    samples: dict[Kind, str] = {"date": "2024-01-01", "integer": "7", "float": "0.5", "text": "NA"}
    row = ",".join(samples[column.kind] for column in columns)
    write(gcs_root, f"stats/{report}/{report}_{SHOP}_202401_{dimension}.csv", ",".join(column.heading for column in columns), row)
    for other in set(REPORTS[report].dimensions) - {dimension}:
        write(gcs_root, f"stats/{report}/{report}_{SHOP}_202401_{other}.csv", "Date,Package Name,Wrong", f"2024-01-01,{SHOP},1")
    (found,) = read(gcs_root, report=report, dimension=dimension).to_pylist()
    expected = {"date": date(2024, 1, 1), "integer": 7, "float": 0.5, "text": "NA"}
    assert found == {name_of(column.heading): expected[column.kind] for column in columns}


def test_reviews(gcs_root: StoreRoot) -> None:
    text = 'Sch\u00f6n, \U0001f600 ""gut""\nund \u2200 billig'
    first = f'{SHOP},21,2.1,de,pixel,2024-01-05T10:00:00Z,1704448800000,2024-01-06T10:00:00Z,1704535200000,5,,"{text}",,,,https://play'
    write(gcs_root, f"reviews/reviews_{SHOP}_202401.csv", REVIEWS, first, f"{SHOP},,,de,,,,2024-01-07T00:00:00Z,,1,NA,,,,,")
    found = read(gcs_root, report="reviews").to_pylist()
    assert found[0]["review_text"] == 'Schön, 😀 "gut"\nund ∀ billig'
    assert found[0]["review_submit_date_and_time"] == datetime(2024, 1, 5, 10, tzinfo=UTC)
    assert (found[0]["star_rating"], found[0]["app_version_code"], found[0]["review_submit_millis_since_epoch"]) == (5, 21, 1704448800000)
    assert (found[1]["review_title"], found[1]["app_version_code"], found[1]["review_text"]) == ("NA", None, None)


def earning(day: str, kind: str, amount: str, *, app: str = SHOP, currency: str = "USD", sku: str = "gold") -> str:
    """A line of an earnings report."""
    return f'GPA.1,"{day}",10:01:02 AM PST,,{kind},,Gold,{app},inapp,{sku},pixel,DE,,10115,EUR,3.99,1.084500000,{currency},{amount}'


def test_earnings_in_zips(gcs_root: StoreRoot) -> None:
    """A month may have several files, and a zip several tables."""
    write_zip(gcs_root, "earnings/earnings_202401_123-1.zip", {"PlayApps_202401.csv": [EARNINGS, earning("Jan 3, 2024", "Charge", "3.32")]})
    write_zip(
        gcs_root,
        "earnings/earnings_202401_123-2.zip",
        {
            "a/PlayApps_202401.csv": [EARNINGS, earning("Jan 31, 2024", "Google fee", "-0.50")],
            "readme.txt": ["no table"],
            "b.csv": [EARNINGS, earning("Jan 31, 2024", "Charge refund", "-3.320000001", app=TILL)],
        },
    )
    found = read(gcs_root, report="earnings")
    assert found["transaction_date"].to_pylist() == [date(2024, 1, 3), date(2024, 1, 31), date(2024, 1, 31)]
    assert found["amount_merchant_currency"].to_pylist() == [Decimal("3.32"), Decimal("-0.5"), Decimal("-3.320000001")]
    assert found["currency_conversion_rate"].to_pylist() == [Decimal("1.0845")] * 3
    assert found["package_id"].to_pylist() == [SHOP, SHOP, TILL]
    assert read(gcs_root, report="earnings", package_name=TILL, columns=["transaction_type"]).to_pydict() == {
        "transaction_type": ["Charge refund"]
    }
    assert read(gcs_root, report="earnings", keys={"package_name": SHOP}).num_rows == 2
    assert read(gcs_root, report="earnings", package_name="com.other").num_rows == 0


def test_sales_with_thousands_in_a_zip_or_not(gcs_root: StoreRoot) -> None:
    sale = f'GPA.1,2024-01-05,1704450000,Charged,d2x,Gold,{SHOP},inapp,gold,KRW,"1,290,000.50",0,"-1,290",,,,KR'
    write_zip(gcs_root, "sales/salesreport_202401.zip", {"salesreport_202401.csv": [SALES, sale]})
    write(
        gcs_root, "sales/salesreport_202402.csv", SALES.replace("Product ID", "Package ID").replace("Postal Code of", "Postcode of"), sale
    )
    found = read(gcs_root, report="sales").to_pylist()
    assert found[0] == found[1]
    assert (found[0]["item_price"], found[0]["charged_amount"]) == (Decimal("1290000.5"), Decimal(-1290))
    assert found[0]["order_charged_timestamp"] == datetime(2024, 1, 5, 10, 20, tzinfo=UTC)
    assert (found[0]["package_id"], found[0]["postal_code_of_buyer"]) == (SHOP, None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8", "utf-8-sig"])
def test_encodings_are_told_by_the_first_bytes(gcs_root: StoreRoot, encoding: str) -> None:
    put(
        at(gcs_root, f"stats/ratings/ratings_{SHOP}_202401_country.csv"),
        f"Date,Package Name,Country,Daily Average Rating,Total Average Rating\n2024-01-01,{SHOP},\u00c5land,,4.25".encode(encoding),
    )
    (found,) = read(gcs_root, report="ratings", dimension="country").to_pylist()
    assert (found["country"], found["daily_average_rating"], found["total_average_rating"]) == ("Åland", None, 4.25)


# -- months that differ


def test_a_column_that_google_added_or_took_away(gcs_root: StoreRoot) -> None:
    name = f"stats/crashes/crashes_{SHOP}_2024{{}}_overview.csv"
    write(gcs_root, name.format("01"), "Date,Package name,Daily Crashes", f"2024-01-01,{SHOP},3")
    write(gcs_root, name.format("02"), "Daily ANRs,Package Name,New Metric,Date", f"1,{SHOP},007,2024-02-01")
    found = read(gcs_root, report="crashes")
    assert found.to_pydict() == {
        "date": [date(2024, 1, 1), date(2024, 2, 1)],
        "package_name": [SHOP, SHOP],
        "daily_crashes": [3, None],
        "daily_anrs": [None, 1],
        "new_metric": [None, "007"],
    }
    assert read(gcs_root, report="crashes", column_types={"new_metric": "int64"})["new_metric"].to_pylist() == [None, 7]
    only = read(gcs_root, report="crashes", columns=["new_metric"])
    assert only.to_pydict() == {"new_metric": [None, "007"]}
    january = read(gcs_root, report="crashes", window=within("date", *JANUARY), missing="empty")
    assert january.column_names == ["date", "package_name", "daily_crashes", "daily_anrs"]


@pytest.mark.parametrize(
    ("lines", "culprit"),
    [
        ((), "is empty"),
        (("Date,Date", "2024-01-01,1"), "two columns named 'Date'"),
        (("Date,Daily Crashes,daily crashes", "2024-01-01,1,2"), "another column has the name of"),
        (("Date,Daily Crashes", "2024-01-01,1,2"), "cannot be read as CSV"),
        (("Date,Daily Crashes", '2024-01-01,"1'), "breaks off inside a quoted field"),
    ],
)
def test_what_is_no_report(gcs_root: StoreRoot, lines: tuple[str, ...], culprit: str) -> None:
    name = f"stats/crashes/crashes_{SHOP}_202401_overview.csv"
    put(at(gcs_root, name), "\n".join(lines).encode("utf-16"))
    with pytest.raises(ReadFailed, match=culprit) as caught:
        read(gcs_root, report="crashes")
    assert name in caught.value.message


def test_a_declared_column_that_is_nowhere(gcs_root: StoreRoot) -> None:
    write_installs(gcs_root, SHOP, "202401", [1])
    with pytest.raises(ReadFailed, match="no column 'instals'"):
        read(gcs_root, report="installs", column_types={"instals": "int64"})


def test_rubbish_is_named_with_file_and_line(gcs_root: StoreRoot) -> None:
    name = f"stats/crashes/crashes_{SHOP}_202401_overview.csv"
    rows = [f"2024-01-{1 + number % 28:02d},{SHOP},{number},0" for number in range(5000)]
    for bad, culprit in (
        (f"2024-02-30,{SHOP},1,0", "column 'date': '2024-02-30' is not a date"),
        (f"2024-01-01,{SHOP},many,0", "column 'daily_crashes': 'many' is not a whole number"),
        (f"2024-01-01,{SHOP},0,1.5", "column 'daily_anrs': '1.5' is not a whole number"),
    ):
        write(gcs_root, name, "Date,Package Name,Daily Crashes,Daily ANRs", *rows, bad)
        with pytest.raises(ValueRefused) as caught:
            read(gcs_root, report="crashes")
        assert f"{name}:5002: {culprit}" in caught.value.message
        assert "column_types: {" in caught.value.hint
    write(gcs_root, name, "Date,Package Name,Daily Crashes,Daily ANRs", f"2024-01-01,{SHOP},many,0")
    assert read(gcs_root, report="crashes", column_types={"daily_crashes": "string"})["daily_crashes"].to_pylist() == ["many"]
    with pytest.raises(ValueRefused, match="'many' is not int32, as column_types says"):
        read(gcs_root, report="crashes", column_types={"daily_crashes": "int32"})


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("integer", text) for text in ("1.0", "1,2", "12,34", "1234,567", "0x1F", "1e3", "9" * 19, " 1", "+1", "")),
        *(("decimal", text) for text in ("1.2.3", "1,23.4", "0.0000000001", "9" * 40, "1e5", "NaN", "inf", "(1)", "1.", "$1")),
        *(("float", text) for text in ("nan", "inf", "1,5", "n/a")),
        *(("date", text) for text in ("2024-13-01", "31.01.2024", "Foo 1, 2024", "Feb 30, 2024", "2024-1-1", "20240101", "today")),
        *(("instant", text) for text in ("2024-01-01T25:00:00Z", "yesterday")),
        *(("epoch", text) for text in ("1704450000.5", "now", "9" * 18)),
    ],
)
def test_what_is_no_value(kind: Kind, text: str) -> None:
    with pytest.raises(Unfit) as caught:
        values(pa.array([None, "NA", text]), kind)
    assert (caught.value.index, caught.value.text) == (2, text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("integer", "1,234,567", 1234567),
        ("integer", "-0", 0),
        ("decimal", "-1,234.500", Decimal("-1234.5")),
        ("decimal", "4.3E-5", Decimal("0.000043")),
        ("float", "0.5777244444444445", 0.5777244444444445),
        ("float", "1,204.5", 1204.5),
        ("date", "Sep 9, 2024", date(2024, 9, 9)),
        ("date", "Feb 29, 2024", date(2024, 2, 29)),
        ("epoch", "0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("text", "NA", "NA"),
    ],
)
def test_what_is_a_value(kind: Kind, text: str, value: Any) -> None:
    assert values(pa.array([text, None]), kind).to_pylist() == [value, None]


def test_a_report_that_is_replaced_while_it_is_read(gcs_root: StoreRoot) -> None:
    name = f"stats/installs/installs_{SHOP}_202401_overview.csv"
    write_installs(gcs_root, SHOP, "202401", [1, 2])
    connector = connect(gcs_root)
    (file,) = listed(connector._root, REPORTS["installs"], "overview", [SHOP])
    write_installs(gcs_root, SHOP, "202401", [1, 2, 3])
    with pytest.raises(ReadFailed, match="was replaced while it was read") as caught:
        file.layout()
    assert caught.value.transient
    assert name in caught.value.message
    connector.close()


# -- zips that are none


def test_a_zip_whose_content_does_not_fit_its_checksum(gcs_root: StoreRoot) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("s.csv", f"{SALES}\nGPA.1,2024-01-05,0,Charged,d2x,Gold,{SHOP},inapp,gold,EUR,1,0,1,,,,DE\n")
    put(at(gcs_root, "sales/salesreport_202401.zip"), file.getvalue().replace(b"GPA.1", b"GPA.2"))
    with pytest.raises(ReadFailed, match=r"salesreport_202401\.zip cannot be unpacked: Bad CRC-32"):
        read(gcs_root, report="sales")


def test_a_zip_without_a_table(gcs_root: StoreRoot) -> None:
    write_zip(gcs_root, "sales/salesreport_202401.zip", {"readme.txt": ["nothing"]})
    with pytest.raises(ReadFailed, match="has no CSV file in it"):
        read(gcs_root, report="sales")


# -- the columns of DFT's source


def test_the_installs_of_dft(gcs_root: StoreRoot) -> None:
    write_installs(gcs_root, SHOP, "202401", [1, 2], dimension="country", value="DE")
    found = read(gcs_root, report_type="installs")
    assert found.to_pydict() == {
        "date": [date(2024, 1, 1), date(2024, 1, 2)],
        "installs": [2, 4],
        "uninstalls": [3, 3],
        "net_installs": [-1, 1],
        "country": ["DE", "DE"],
        "source": ["google_play", "google_play"],
    }
    second = read(gcs_root, report_type="installs", window=within("date", date(2024, 1, 2)), columns=["net_installs", "country"])
    assert second.to_pydict() == {"net_installs": [1], "country": ["DE"]}
    with pytest.raises(ReadFailed, match="ends with 2024-01-02"):
        read(gcs_root, report_type="installs", window=within("date", date(2024, 1, 3)))


def test_the_financial_report_of_dft(gcs_root: StoreRoot) -> None:
    lines = [earning("Jan 3, 2024", "Charge", "3.32"), earning("Jan 3, 2024", "Google fee", "-0.50"), earning("Jan 4, 2024", "Charge", "1")]
    write_zip(gcs_root, "earnings/earnings_202401_1-1.zip", {"PlayApps_202401.csv": [EARNINGS, *lines]})
    found = read(gcs_root, window=within("date", date(2024, 1, 3)))
    assert found.to_pydict() == {
        "date": [date(2024, 1, 3)] * 2,
        "revenue_usd": [Decimal("3.32"), Decimal("-0.5")],
        "transactions": [1, 0],
        "currency": ["EUR", "EUR"],
        "country": ["DE", "DE"],
        "product_id": ["gold", "gold"],
    }
    assert read(gcs_root, package_name=[TILL]).num_rows == 0
    write_zip(gcs_root, "earnings/earnings_202402_1-1.zip", {"e.csv": [EARNINGS, earning("Feb 3, 2024", "Charge", "1", currency="EUR")]})
    with pytest.raises(DataflowError, match="paid in EUR, not in USD") as caught:
        read(gcs_root, start_date="202402")
    assert "report: earnings" in caught.value.hint
