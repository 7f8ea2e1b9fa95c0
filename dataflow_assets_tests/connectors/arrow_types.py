"""One named column per Arrow type, with the values that break a careless connector.

Here: data only. Not here: what a connector must do with it (`contract`), what each did (`type_results`), the types that no stage can
hold because Parquet has no place for them (unions, run-end encoding, calendar intervals).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
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
        "decimal32_5_2": pa.array([Decimal("-999.99"), Decimal("0.00"), None, Decimal("1.10")], type=pa.decimal32(5, 2)),
        "decimal64_18_6": pa.array([Decimal("-999999999999.999999"), Decimal("0.000001"), None], type=pa.decimal64(18, 6)),
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
    tiny = [math.nan, math.inf, -math.inf, -0.0, 0.0, 0.5, 2.0**-24, 65504.0, 2048.0, None]
    return {
        "float64": pa.array(values, type=pa.float64()),
        "float32": pa.array(small, type=pa.float32()),
        "float16": pa.array(tiny, type=pa.float16()),
    }


def _texts() -> dict[str, pa.Array]:
    return {
        "string": pa.array([*EVERY_PLANE, *AWKWARD, None], type=pa.string()),
        "large_string": pa.array(["a", None, "", "\U0001d11e"], type=pa.large_string()),
        "string_view": pa.array(["a", None, "", "longer than the twelve bytes of a view"], type=pa.string_view()),
        "dictionary": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "string_long": pa.array(["x" * 300_000, None, "\u4e2d" * 70_000], type=pa.string()),
        "string_nul": pa.array(["a\0b", "\0", None], type=pa.string()),
        "binary": pa.array([b"", b"\0", bytes(range(256)), b"\\x00", None], type=pa.binary()),
        "large_binary": pa.array([b"", b"\0\xff", None], type=pa.large_binary()),
        "binary_view": pa.array([b"", b"\0\xff", None, b"longer than the twelve bytes of a view"], type=pa.binary_view()),
        "uuid": pa.array([uuid.UUID(int=0).bytes, uuid.UUID("12345678-9abc-def0-8000-00000000000a").bytes, None], type=pa.uuid()),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"b": 1.50, "a": [null, "\u00e9"]}', "[]", '"text"', None])),
        "fixed_size_binary": pa.array([b"\0" * 16, bytes(range(16)), None], type=pa.binary(16)),
    }


def _times() -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {
        "date": pa.array(
            [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29), None, date(9999, 12, 31)], type=pa.date32()
        ),
        "date64": pa.array([date(1, 1, 1), date(1969, 12, 31), date(2024, 2, 29), None, date(9999, 12, 31)], type=pa.date64()),
        "duration_us": pa.array([timedelta(0), timedelta(days=-1, microseconds=1), timedelta(days=40_000), None], type=pa.duration("us")),
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


def _nested() -> dict[str, pa.Array]:
    whole, pair = pa.int64(), pa.struct([("a", pa.int64()), ("b", pa.string())])
    return {
        "list": pa.array([[1, None, -2], [], None, [None]], type=pa.list_(whole)),
        "list_of_text": pa.array([["", 'a"b', "c,d", None, "NULL", "{}", "back\\slash"], [], None], type=pa.list_(pa.string())),
        "large_list": pa.array([[1], [], None], type=pa.large_list(whole)),
        "list_view": pa.array([[1], [], None], type=pa.list_view(whole)),
        "fixed_size_list": pa.array([[1, 2], [None, 3], None], type=pa.list_(whole, 2)),
        "list_of_lists": pa.array([[[1], []], [], None], type=pa.list_(pa.list_(whole))),
        "struct": pa.array([{"a": 1, "b": "x"}, {"a": None, "b": ""}, None], type=pair),
        "list_of_structs": pa.array([[{"a": 1, "b": "x"}], [], None], type=pa.list_(pair)),
        "map": pa.array([[("a", 1), ("b", None)], [], None], type=pa.map_(pa.string(), whole)),
    }


COLUMNS: dict[str, pa.Array] = {
    **_integers(),
    **_decimals(),
    **_floats(),
    **_texts(),
    **_times(),
    **_nested(),
    "bool": pa.array([True, False, None], type=pa.bool_()),
    "null": pa.nulls(3),
    "all_null_int64": pa.nulls(3, type=pa.int64()),
    "all_null_string": pa.nulls(3, type=pa.string()),
}
"""By name, each with a null."""

BYTES = ("binary", "large_binary", "binary_view", "fixed_size_binary", "uuid")
FLOATS = ("float16", "float32", "float64")
LISTS = ("list", "list_of_text", "large_list", "list_view", "fixed_size_list")
NESTED = (*LISTS, "list_of_lists", "struct", "list_of_structs", "map")

_MOMENT = pa.array([datetime(2024, 2, 29, 12, 30, 15), None], type=pa.timestamp("s"))
_MOMENTS_OF = [name for name, column in COLUMNS.items() if pa.types.is_timestamp(column.type) and not name.endswith("_fine")]


def _moment(kind: pa.DataType) -> pa.Array:
    return _MOMENT.cast(pa.timestamp(kind.unit)).cast(pa.int64()).cast(kind)


ORDINARY: Mapping[str, pa.Array] = {
    **{name: pa.array([0.5, None], type=COLUMNS[name].type) for name in FLOATS},
    **{name: pa.array([date(2024, 2, 29), None], type=COLUMNS[name].type) for name in ("date", "date64")},
    **{name: _moment(COLUMNS[name].type) for name in _MOMENTS_OF},
    **{name: COLUMNS[name].drop_null() for name in NESTED},
}
"""Values that a system may well keep when it refuses those of the column of that name, such as a year in place of the first and last."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "lists, structs and maps": NESTED,
    "bytes": BYTES,
    "floats": FLOATS,
    "timestamps with a zone": tuple(name for name in _MOMENTS_OF if name.startswith("instant")),
    "timestamps without a zone": tuple(name for name in _MOMENTS_OF if name.startswith("timestamp")),
    "times with nanoseconds": ("time_ns_fine", "timestamp_ns_fine", "instant_ns_fine"),
}
"""What several columns together are called."""

SPECIAL: Mapping[str, str] = {
    "string": "of every plane of Unicode, awkward ones",
    "string_long": "of 300,000 bytes",
    "string_nul": "with a zero byte",
    "time_ns_fine": "with nanoseconds",
    "timestamp_ns_fine": "with nanoseconds",
    "instant_ns_fine": "with nanoseconds",
    "all_null_int64": "all null",
    "all_null_string": "all null",
}
"""What is special about the values of a column, where its type does not say it."""
