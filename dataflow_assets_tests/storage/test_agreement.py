"""Columns of data and target brought to agree: what each policy decides, for any columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import ValueRefused, WriteFailed
from dataflow_assets.spec.models import EndpointOptions
from dataflow_assets.storage.agreement import Agreement, HeldColumn, System, agree
from dataflow_assets.storage.casts import cast_exactly
from dataflow_assets.storage.sql import Dialect
from dataflow_assets.storage.widening import widened
from dataflow_assets.tables import Claim, PublishRequest, SchemaPolicy, TableName, Target, Unit, WriteMode

EVOLVE, FREEZE, DISCARD = SchemaPolicy.EVOLVE, SchemaPolicy.FREEZE, SchemaPolicy.DISCARD
INTEGERS = [pa.type_for_alias(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
DECIMALS = st.integers(1, 76).flatmap(
    lambda digits: st.integers(0, digits).map(lambda scale: pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale))
)
NUMBERS = st.one_of(st.sampled_from([*INTEGERS, pa.float16(), pa.float32(), pa.float64()]), DECIMALS)
OTHERS = st.sampled_from([pa.string(), pa.binary(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.null()])
KINDS = st.one_of(NUMBERS, OTHERS)
NAMES = st.sampled_from(["id", "at", "amount", "note", "select", "Order", "\U0001f600"])
SYSTEM = System(Dialect("test"), lambda kind, column: str(kind))


def extremes(kind: pa.DataType) -> list[Any]:
    """The least and the greatest value of a type of exact numbers."""
    if pa.types.is_decimal(kind):
        return [Decimal((sign, (9,) * kind.precision, -kind.scale)) for sign in (1, 0)]
    bits = kind.bit_width
    return [0, 2**bits - 1] if pa.types.is_unsigned_integer(kind) else [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_a_wider_type_holds_every_old_and_every_new_value(held: pa.DataType, incoming: pa.DataType) -> None:
    kind = widened(held, incoming)
    if kind is None:
        return
    assert kind != held
    assert widened(kind, incoming) is None
    assert widened(kind, held) is None
    if not pa.types.is_floating(held):
        for old in (held, incoming):
            column = pa.array(extremes(old), type=old)
            assert cast_exactly(column, kind, name="n").cast(old).equals(column)


@settings(deadline=None)
@given(KINDS, OTHERS)
def test_meanings_are_never_widened(held: pa.DataType, incoming: pa.DataType) -> None:
    assert widened(held, incoming) is None
    assert widened(incoming, held) is None


def test_what_becomes_of_integers_with_and_without_sign() -> None:
    assert widened(pa.uint8(), pa.int8()) == pa.int16()
    assert widened(pa.int16(), pa.uint16()) == pa.int32()
    assert widened(pa.uint16(), pa.uint32()) == pa.uint32()
    assert widened(pa.int64(), pa.uint64()) is None
    assert widened(pa.int64(), pa.int8()) is None
    assert widened(pa.int64(), pa.float64()) is None
    assert widened(pa.decimal128(10, 0), pa.int64()) == pa.decimal128(19, 0)
    assert widened(pa.decimal128(10, 2), pa.int64()) is None
    assert widened(pa.decimal128(10, 2), pa.decimal128(10, 4)) == pa.decimal128(12, 4)


@st.composite
def schemas(draw: st.DrawFn) -> pa.Schema:
    return pa.schema([(name, draw(KINDS)) for name in draw(st.lists(NAMES, min_size=1, unique=True))])


@st.composite
def tables(draw: st.DrawFn) -> list[HeldColumn]:
    names = draw(st.lists(NAMES, min_size=1, unique=True))
    made = []
    for name in names:
        kind = draw(st.one_of(st.none(), KINDS))
        made.append(HeldColumn(name, str(kind), filled=draw(st.booleans()), nullable=draw(st.booleans()), kind=kind))
    return made


def request(schema: pa.Schema, policy: SchemaPolicy | None, *, keys: Sequence[str] = (), given: Mapping[str, str] | None = None) -> Any:
    options, mode = EndpointOptions(columns=dict(given or {})), WriteMode.UPSERT if keys else WriteMode.APPEND
    target = Target(TableName("things", "mart"), mode, options, tuple(keys), schema_policy=policy)
    claim = Claim(Unit("p", "s", "u"), 1, "a")
    return PublishRequest(target, claim, schema, 0, "", lambda: pa.RecordBatchReader.from_batches(schema, []))


def tried(schema: pa.Schema, columns: Sequence[HeldColumn], policy: SchemaPolicy | None, **more: Any) -> Agreement | WriteFailed:
    try:
        return agree(request(schema, policy, **more), columns, SYSTEM)
    except WriteFailed as error:
        return error


@settings(deadline=None)
@given(schemas(), tables(), st.sampled_from([None, *SchemaPolicy]))
def test_any_agreement_is_sound(schema: pa.Schema, columns: list[HeldColumn], policy: SchemaPolicy | None) -> None:
    """Every column that goes in is there after it, and every one that does not is accounted for."""
    found, there = tried(schema, columns, policy), {column.name: column for column in columns}
    new = set(schema.names) - set(there)
    lacking = {column.name for column in columns if column.name not in schema.names and not column.filled}
    if isinstance(found, WriteFailed):
        assert new or lacking
        assert all(repr(name) in str(found) for name in (new | lacking) if policy in {None, FREEZE})
        return
    assert set(found.schema.names) <= set(there) | set(found.added)
    assert {change.column for change in found.changes if change.left_out} == set(schema.names) - set(found.schema.names)
    assert {change.column for change in found.changes if change.action == "added"} == set(found.added)
    assert {change.column for change in found.changes if change.action == "absent"} == lacking
    if policy is not EVOLVE:
        assert not found.alters
        assert not lacking
    if policy in {None, FREEZE}:
        assert not found.changes


@settings(deadline=None)
@given(schemas(), tables())
def test_evolving_twice_changes_nothing_the_second_time(schema: pa.Schema, columns: list[HeldColumn]) -> None:
    found = tried(schema, columns, EVOLVE)
    if isinstance(found, WriteFailed):
        return
    kinds = {str(item.type): item.type for item in schema} | {str(column.kind): column.kind for column in columns}
    after = [
        HeldColumn(
            column.name,
            found.widened.get(column.name, column.declared),
            column.filled,
            column.nullable,
            kind=widened(column.kind, schema.field(column.name).type) or column.kind if column.name in found.widened else column.kind,
        )
        for column in columns
    ]
    after += [HeldColumn(name, kind, kind=kinds[kind]) for name, kind in found.added.items()]
    again = tried(schema, after, EVOLVE)
    assert isinstance(again, Agreement)
    assert not again.alters


def test_the_difference_reads_well() -> None:
    schema = pa.schema([("id", pa.int64()), ("coupon", pa.string())])
    columns = [HeldColumn("id", "bigint"), HeldColumn("remark", "text")]
    with pytest.raises(WriteFailed) as caught:
        agree(request(schema, None), columns, SYSTEM)
    assert str(caught.value) == (
        "table mart.things has no column 'coupon', has column 'remark' without a default, which the data lacks\n"
        "  + coupon  string  only in the data\n"
        "  - remark  text    only in the table\n"
        '  -> make the columns agree: in the query, or with ALTER TABLE "mart"."things"; '
        "schema_policy: evolve adds what is new and leaves null what is not in the data"
    )


def test_a_required_column_is_never_left_null() -> None:
    with pytest.raises(WriteFailed, match="remark"):
        agree(request(pa.schema([("id", pa.int64())]), EVOLVE), [HeldColumn("id"), HeldColumn("remark", nullable=False)], SYSTEM)


def test_an_upsert_leaves_no_column_null_for_it_meets_rows_that_have_a_value() -> None:
    for policy in SchemaPolicy:
        with pytest.raises(WriteFailed, match="remark") as caught:
            agree(request(pa.schema([("id", pa.int64())]), policy, keys=["id"]), [HeldColumn("id"), HeldColumn("remark")], SYSTEM)
        assert "evolve" not in str(caught.value)


def test_a_computed_column_takes_no_values_under_any_policy() -> None:
    for policy in SchemaPolicy:
        with pytest.raises(WriteFailed, match="computes column 'id' itself"):
            agree(request(pa.schema([("id", pa.int64())]), policy), [HeldColumn("id", writable=False)], SYSTEM)


def test_a_key_may_not_be_discarded() -> None:
    with pytest.raises(WriteFailed, match="upsert key 'code'"):
        agree(request(pa.schema([("id", pa.int64()), ("code", pa.string())]), DISCARD, keys=["code"]), [HeldColumn("id")], SYSTEM)


def test_declared_types_are_nobody_elses_to_choose() -> None:
    schema = pa.schema([("id", pa.int64()), ("n", pa.int64())])
    found = agree(request(schema, EVOLVE, given={"id": "INTEGER", "n": "NUMERIC(30)"}), [HeldColumn("id", kind=pa.int32())], SYSTEM)
    assert dict(found.added) == {"n": "NUMERIC(30)"}
    assert not found.widened


def test_names_that_differ_in_capitals_are_refused_where_they_are_the_same() -> None:
    folding = System(Dialect("test", folds_case=True), SYSTEM.sql_type)
    with pytest.raises(WriteFailed, match="capitals"):
        agree(request(pa.schema([("ID", pa.int64())]), EVOLVE), [HeldColumn("id", filled=True)], folding)
    assert agree(request(pa.schema([("ID", pa.int64())]), EVOLVE), [HeldColumn("id", filled=True)], SYSTEM).added


def test_text_is_given_room_only_when_a_value_needs_it() -> None:
    schema, columns = pa.schema([("note", pa.string())]), [HeldColumn("note", "varchar(5)", longest=5)]
    assert not agree(request(schema, EVOLVE), columns, SYSTEM, lengths=lambda *_: {"note": 5}).alters
    found = agree(request(schema, EVOLVE), columns, SYSTEM, lengths=lambda *_: {"note": 6})
    assert dict(found.widened) == {"note": "string"}


def test_a_type_that_the_system_has_not_is_left_to_the_values() -> None:
    def refuse(kind: pa.DataType, column: HeldColumn) -> str:
        raise ValueRefused("too many digits")

    found = agree(
        request(pa.schema([("n", pa.decimal256(60, 2))]), EVOLVE),
        [HeldColumn("n", kind=pa.decimal128(38, 2))],
        System(Dialect("test"), refuse),
    )
    assert not found.alters
