"""One named column per Arrow type, with the values that break a careless connector.

Here: data only. Not here: what a connector must do with it (`contract`).
"""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import product

import pyarrow as pa

EVERY_PLANE = ["plain", "é ü ß", "\u4e2d\u6587", "\U0001d11e", "\U00020000", "\U00030000", "\U000e0001", "\U000f0000", "\U0010fffd"]
AWKWARD = [
    *("", " ", " leading", "trailing ", "a,b;c|d", "tab\there", "line\nbreak", "carriage\rreturn", "both\r\nends"),
    *('say "hi"', "it's", '"', '""', "'", "\\", "\\N", "\\n", "back\\slash", "\ufeffmark", "\u2028separator", "e\u0301"),
    *[
        "null",
        "NULL",
        "None",
        "NA",
        "NaN",
        "true",
        "00123",
        "1e5",
        "-0",
        "2024-01-01",
        "=1+1",
        "#hash",
        "{}",
        "[1]",
        "%s",
        "$1",
        "?",
        ":name",
    ],
]
_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
_MOMENTS = [_FIRST, _LAST, datetime(1969, 12, 31, 23, 59, 59), datetime(1970, 1, 1), datetime(2024, 2, 29, 12, 30, 15)]


def _integers() -> dict[str, pa.Array]:
    columns = {}
    for sign, bits in product(("int", "uint"), (8, 16, 32, 64)):
        top = 2 ** (bits - 1) - 1 if sign == "int" else 2**bits - 1
        low = -top - 1 if sign == "int" else 0
        columns[f"{sign}{bits}"] = pa.array([low, 0, 1, None, top - 1, top], type=pa.type_for_alias(f"{sign}{bits}"))
    return columns


def _decimals() -> dict[str, pa.Array]:
    return {
        "decimal_5_2": pa.array([Decimal("-999.99"), Decimal("0.00"), None, Decimal("1.10"), Decimal("999.99")], type=pa.decimal128(5, 2)),
        "decimal_38_0": pa.array([Decimal(10**38 - 1), Decimal(1 - 10**38), Decimal(0), None], type=pa.decimal128(38, 0)),
        "decimal_38_38": pa.array([Decimal("0." + "9" * 38), Decimal("0." + "0" * 37 + "1"), None], type=pa.decimal128(38, 38)),
        "decimal_76_10": pa.array([Decimal("9" * 66 + ".0123456789"), Decimal("-0.0000000001"), None], type=pa.decimal256(76, 10)),
    }


def _floats() -> dict[str, pa.Array]:
    values = [
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        0.0,
        0.1,
        1 / 3,
        1e22,
        -123456.789,
        5e-324,
        1.7976931348623157e308,
        2.0**53 + 2,
        42.0,
        None,
    ]
    small = [math.nan, math.inf, -math.inf, -0.0, 0.0, 0.1, 1 / 3, 16777216.0, 1e-45, 3.4028234663852886e38, None]
    return {"float64": pa.array(values, type=pa.float64()), "float32": pa.array(small, type=pa.float32())}


def _texts() -> dict[str, pa.Array]:
    return {
        "string": pa.array([*EVERY_PLANE, *AWKWARD, None], type=pa.string()),
        "large_string": pa.array(["a", None, "", "\U0001d11e"], type=pa.large_string()),
        "dictionary": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "string_long": pa.array(["x" * 300_000, None, "\u4e2d" * 70_000], type=pa.string()),
        "string_nul": pa.array(["a\0b", "\0", None], type=pa.string()),
        "binary": pa.array([b"", b"\0", bytes(range(256)), b"\\x00", None], type=pa.binary()),
        "fixed_size_binary": pa.array([b"\0" * 16, bytes(range(16)), None], type=pa.binary(16)),
    }


def _times() -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {
        "date": pa.array(
            [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29), None, date(9999, 12, 31)], type=pa.date32()
        ),
        "time_s": pa.array([time(0), time(23, 59, 59), None], type=pa.time32("s")),
        "time_ms": pa.array([time(0), time(23, 59, 59, 999_000), time(1, 2, 3, 4_000), None], type=pa.time32("ms")),
        "time_us": pa.array([time(0), time(23, 59, 59, 999_999), time(1, 2, 3, 4), None], type=pa.time64("us")),
        "time_ns": pa.array([0, 86_399_999_999_000, 1_000, None], type=pa.time64("ns")),
        "time_ns_fine": pa.array([1, 86_399_999_999_999, None], type=pa.time64("ns")),
    }
    for unit, zone in product(("s", "ms", "us", "ns"), (None, "UTC", "America/New_York")):
        moments = list(_MOMENTS[2:] if unit == "ns" else _MOMENTS)
        if unit != "s":
            moments += [moment + timedelta(milliseconds=123) for moment in moments[-2:]]
        if unit == "us":
            moments += [moment + timedelta(microseconds=7) for moment in moments[-2:]]
        name = {None: f"timestamp_{unit}", "UTC": f"instant_{unit}", "America/New_York": f"instant_new_york_{unit}"}[zone]
        naive = pa.array([*moments, datetime(2013, 11, 3, 5, 30), datetime(2013, 11, 3, 6, 30), None], type=pa.timestamp(unit))
        columns[name] = naive if zone is None else naive.cast(pa.int64()).cast(pa.timestamp(unit, zone))
    fine = pa.array([1, -1, 1_700_000_000_123_456_789, 2**63 - 1, None], type=pa.int64())
    return {**columns, "timestamp_ns_fine": fine.cast(pa.timestamp("ns")), "instant_ns_fine": fine.cast(pa.timestamp("ns", "UTC"))}


COLUMNS: dict[str, pa.Array] = {
    **_integers(),
    **_decimals(),
    **_floats(),
    **_texts(),
    **_times(),
    "bool": pa.array([True, False, None], type=pa.bool_()),
    "null": pa.nulls(3),
    "all_null_int64": pa.nulls(3, type=pa.int64()),
    "all_null_string": pa.nulls(3, type=pa.string()),
}
