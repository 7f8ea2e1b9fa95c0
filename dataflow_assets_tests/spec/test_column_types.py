"""Types of contracts: words of many systems, and which type satisfies which."""

from __future__ import annotations

import importlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.checks.contract import arrow_column_type
from dataflow_assets.errors import DataflowError
from dataflow_assets.spec.column_types import ColumnType, holds, is_narrower, is_wider, parse_type, satisfies, spoken_type

WORDS = {
    "bigint": ("int64", "BIGINT", " Bigint "),
    "int": ("integer", "int32", "INT", "int4", "serial"),
    "double": ("float", "double precision", "float64"),
    "text": ("string", "str", "varchar", "uuid", "jsonb", "LowCardinality(Nullable(String))"),
    "varchar(50)": ("character varying(50)", "VARCHAR(50)", "char(50)"),
    "boolean": ("bool", "tinyint(1)"),
    "timestamptz": ("timestamp with time zone", "timestamp(6) with time zone", "timestamp[us, tz=UTC]", "DateTime64(6, 'UTC')"),
    "timestamp": ("timestamp without time zone", "timestamp_ntz(9)", "timestamp[us]"),
    "decimal(18,2)": ("numeric(18, 2)", "decimal128(18, 2)"),
    "decimal": ("numeric", "number"),
    "uint64": ("bigint unsigned", "bigint(20) unsigned", "ubigint"),
    "list": ("bigint[]", "Array(String)", "list<item: int32>"),
    "struct": ("STRUCT(a INTEGER)", "struct<a: int32>"),
    "any": ("ANY",),
}


def test_words_of_many_systems_mean_the_same():
    for word, others in WORDS.items():
        kind = parse_type(word)
        assert str(kind) == word
        for other in others:
            assert parse_type(other) == kind, other


@pytest.mark.parametrize(
    ("word", "hint"),
    [("strng", "did you mean 'string'?"), ("decimal(2,5)", "write bigint"), ("", "write bigint"), ("{{ var('x') }}", "write bigint")],
)
def test_a_word_that_is_no_type_is_refused(word, hint):
    with pytest.raises(ValueError, match="is not a column type") as refused:
        parse_type(word)
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    ("actual", "wanted", "fits"),
    [
        ("int", "bigint", True),
        ("bigint", "int", False),
        ("uint32", "bigint", True),
        ("uint64", "bigint", False),
        ("int", "uint64", False),
        ("real", "double", True),
        ("double", "real", False),
        ("int", "double", False),
        ("decimal(10,2)", "decimal(18,2)", True),
        ("decimal(18,2)", "decimal(18,4)", False),
        ("decimal(18,2)", "decimal", True),
        ("varchar(10)", "varchar(50)", True),
        ("varchar(60)", "varchar(50)", False),
        ("date", "timestamp", False),
        ("timestamptz", "timestamp", False),
        ("timestamptz", "datetime", True),
        ("bigint", "any", True),
        ("text", "int", False),
    ],
)
def test_what_satisfies_what(actual, wanted, fits):
    assert satisfies(parse_type(actual), parse_type(wanted)) is fits


def test_what_a_system_leaves_open_is_not_held_against_it():
    for word, promised in [("FLOAT", "real"), ("FLOAT", "double"), ("INTEGER", "bigint"), ("TIMESTAMP", "timestamptz")]:
        assert satisfies(spoken_type(word), parse_type(promised)), word
    assert holds(spoken_type("NUMBER(38,0)"), parse_type("bigint"))
    assert not holds(spoken_type("NUMBER(18,2)"), parse_type("bigint"))
    assert satisfies(spoken_type("inet"), parse_type("text"))
    assert str(spoken_type("inet")) == "other"


def test_arrow_types_are_exact():
    kinds = {
        pa.float32(): "real",
        pa.float64(): "double",
        pa.timestamp("us"): "timestamp",
        pa.timestamp("ns", "+01:00"): "timestamptz",
        pa.dictionary(pa.int32(), pa.string()): "text",
        pa.list_(pa.int32(), 3): "list",
        pa.binary(4): "binary",
        pa.binary_view(): "binary",
        pa.uint8(): "uint8",
        pa.date64(): "date",
    }
    assert {kind: str(arrow_column_type(kind)) for kind in kinds} == kinds


kinds = st.one_of(
    st.sampled_from([parse_type(word) for words in WORDS.values() for word in words] + [ColumnType("integer"), ColumnType("float")]),
    st.builds(ColumnType, st.just("integer"), st.sampled_from([8, 16, 32, 64]), st.none(), st.booleans()),
    st.builds(ColumnType, st.just("text"), st.integers(1, 9)),
    st.builds(ColumnType, st.just("decimal"), st.integers(5, 9), st.integers(0, 5)),
)


@given(kinds, kinds, kinds)
def test_order_of_types(one, two, three):
    assert satisfies(one, one)
    assert not (is_narrower(one, two) and is_wider(one, two))
    assert is_narrower(one, two) == is_wider(two, one)
    if is_wider(three, two) and is_wider(two, one):
        assert is_wider(three, one)
    if is_wider(two, one):
        assert satisfies(one, two)


ARROW = [
    *(pa.type_for_alias(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(pa.float32(), pa.float64(), pa.decimal128(18, 2), pa.decimal128(5, 0), pa.decimal128(38, 9), pa.string(), pa.large_string()),
    *(pa.bool_(), pa.date32(), pa.time64("us"), pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.binary()),
    *(pa.list_(pa.int32()), pa.struct([("a", pa.int32())])),
]


@pytest.mark.parametrize("system", ["postgres", "mysql", "clickhouse", "snowflake", "bigquery", "duckdb", "sqlite"])
def test_a_table_made_from_the_data_has_room_for_what_is_promised(system):
    """A contract inferred from the words of the table holds for the rows, and one of the rows finds room in the table."""
    types, tried = importlib.import_module(f"dataflow_assets.connectors._{system}_types"), 0
    for kind in ARROW:
        try:
            word = types.sql_type(kind, name="c")
        except DataflowError:
            continue
        rows, table = arrow_column_type(kind), spoken_type(word)
        assert satisfies(table, rows) or holds(table, rows), (kind, word, table)
        inferred = "any" if table.family == "other" else str(table)
        assert satisfies(rows, parse_type(inferred)), (kind, word, inferred)
        tried += 1
    assert tried > 15
