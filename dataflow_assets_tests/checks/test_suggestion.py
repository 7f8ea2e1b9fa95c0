"""Rules from data: they hold for the very data that they were made from, in each of their forms, and for nothing that differs much."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dataflow_assets.checks._profile import ColumnProfile, Profiler
from dataflow_assets.checks._suggested_model import arrow_text, class_name, model_text
from dataflow_assets.checks._suggested_rules import rule_items, rules_text
from dataflow_assets.checks._suggestion import Suggestion, suggest
from dataflow_assets.checks.pandera import Check, PanderaOptions
from dataflow_assets_tests.staged import context_in, staged, verdicts

KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "count": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "big": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "amount": (pa.float64(), st.floats()),
    "half": (pa.float32(), st.floats(width=32)),
    "money": (pa.decimal128(12, 2), st.decimals(-(10**9), 10**9, places=2)),
    "code": (pa.string(), st.sampled_from(["EWR", "JFK", 'L"G', "a\\b", "é'"])),
    "text": (pa.string(), st.text(max_size=12)),
    "day": (pa.date32(), st.dates()),
    "at": (pa.timestamp("us", "UTC"), st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))),
    "local": (pa.timestamp("ms"), st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(lambda at: at.replace(microsecond=0))),
    "flag": (pa.bool_(), st.booleans()),
    "a weird-name": (pa.binary(), st.binary(max_size=5)),
    "class": (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=3)),
    "took": (pa.duration("us"), st.timedeltas(timedelta(days=-9), timedelta(days=9))),
}


NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5, unique=True))
    rows = draw(st.integers(0, 30))
    columns = []
    for name in names:
        kind, values = KINDS[name]
        values = values | st.none() if draw(st.booleans()) else values
        columns.append(pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind))
    return pa.table(columns, names=names)


def suggestions_of(table: pa.Table, folder: Path, *, cut: int = 7, margin: float = 0.0) -> list[Suggestion]:
    profiler = Profiler(table.schema, context_in(folder).scratch)
    for batch in table.to_batches(max_chunksize=cut):
        profiler.update(batch)
    return [suggest(column, margin=margin) for column in profiler.finish()]


def broken_by(table: pa.Table, folder: Path) -> list[str]:
    check = Check(PanderaOptions(schema="made.py:Made"))
    run = check.begin(table.schema, context_in(folder))
    for batch in table.to_batches(max_chunksize=11):
        run.update(batch)
    return [f"{result.name}: {result.description}" for result in run.finish(staged(table, folder)) if not result.passed]


def write(table: pa.Table, folder: Path, backend: Any, **more: Any) -> list[Suggestion]:
    suggestions = suggestions_of(table, folder, **more)
    (folder / "made.py").write_text(model_text(suggestions, name="Made", told='From "here"\\there.\n', backend=backend))
    return suggestions


def unlike(suggestion: Suggestion) -> list[Any]:
    """Values that the suggestion forbids."""
    found: list[Any] = [] if suggestion.nullable else [None]
    kind = suggestion.type
    if suggestion.values or suggestion.shape:
        found.append("~" * (suggestion.longest or 1))
    if suggestion.longest is not None:
        found.append("x" * (suggestion.longest + 1))
    for limit, step in ((suggestion.low, -1), (suggestion.high, 1)):
        if isinstance(limit, float):
            beyond: Any = math.nextafter(limit, math.inf * step) if kind == pa.float64() else limit + step * (abs(limit) + 1)
            found += [beyond] if not math.isinf(beyond) and abs(beyond) < 3e38 else []
        elif isinstance(limit, date):
            found += [limit - timedelta(days=1)] if limit.year > 1 else []
        elif isinstance(limit, Decimal):
            found.append(limit + step * Decimal("1.01"))
        elif limit is not None:
            found.append(limit + step)
    return [value for value in found if fits(value, kind)]


def fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowInvalid, OverflowError):
        return False
    return True


@pytest.mark.parametrize("backend", ["pandas", "polars"])
@settings(max_examples=10, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables(), margin=st.sampled_from([0.0, 0.1, 2.5]))
def test_a_model_accepts_its_data_and_refuses_other(backend: str, table: pa.Table, margin: float, tmp_path: Path) -> None:
    suggestions = write(table, tmp_path, backend, margin=margin)
    assert broken_by(table, tmp_path) == []
    for place, suggestion in enumerate(suggestions):
        for value in unlike(suggestion):
            row = [
                pa.array([value], suggestion.type) if other == place else column.slice(0, 1).combine_chunks()
                for other, column in enumerate(table.columns)
            ]
            assert broken_by(pa.Table.from_arrays(row, schema=table.schema), tmp_path), (suggestion, value)
        other = pa.string() if suggestion.type != pa.string() else pa.int64()
        changed = table.schema.set(place, pa.field(suggestion.name, other))
        assert broken_by(changed.empty_table(), tmp_path), suggestion
    assert broken_by(table.append_column("one more", pa.nulls(table.num_rows, pa.int8())), tmp_path)
    if table.num_columns > 1:
        assert broken_by(table.drop_columns(table.column_names[:1]), tmp_path)


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_a_limit_beyond_64_bits_with_a_sign_is_none(backend: str, tmp_path: Path) -> None:
    table = pa.table({"big": pa.array([10147362310539026432, 96489], pa.uint64())})
    (suggestion,) = write(table, tmp_path, backend)
    assert (suggestion.low, suggestion.high) == (0, None)
    assert broken_by(table, tmp_path) == []


@settings(max_examples=10, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables())
def test_rules_accept_their_data_and_refuse_other(table: pa.Table, tmp_path: Path) -> None:
    suggestions = suggestions_of(table, tmp_path)
    checks = yaml.safe_load(rules_text(suggestions, told="from here"))["checks"]
    assert len(checks) == len(rule_items(suggestions))
    found = verdicts({"checks": checks}, staged(table, tmp_path), context_in(tmp_path))
    assert [result.description for result in found.values() if not result.passed] == []
    for suggestion in suggestions:
        for value in unlike(suggestion):
            other = pa.table({suggestion.name: pa.array([value], suggestion.type)})
            own = [item for item in checks if item["column"] == suggestion.name]
            assert any(not result.passed for result in verdicts({"checks": own}, staged(other, tmp_path), context_in(tmp_path)).values()), (
                suggestion,
                value,
            )


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_repeats_in_what_was_unique_are_refused(backend: str, tmp_path: Path) -> None:
    table = pa.table({"id": list(range(40)), "code": [f"c{number}" for number in range(40)], "n": [1, 2] * 20})
    suggestions = write(table, tmp_path, backend)
    assert [suggestion.unique for suggestion in suggestions] == [True, True, False]
    twice = pa.concat_tables([table, table.slice(3, 1)])
    assert [text.partition(":")[0] for text in broken_by(twice, tmp_path)] == ["schema_id_unique", "schema_code_unique"]
    found = verdicts({"checks": rule_items(suggestions)}, staged(twice, tmp_path), context_in(tmp_path))
    assert [name for name, result in found.items() if not result.passed] == ["id_unique", "code_unique"]


EDGES = [
    ((17, 4983), pa.int64(), (0, 5000)),
    ((-1, 99), pa.int64(), (-10, 100)),
    ((0, 0), pa.int64(), (0, 0)),
    ((2013, 2013), pa.int64(), (2000, 2100)),
    ((-128, 127), pa.int8(), (None, None)),
    ((1, 250), pa.uint8(), (0, 250)),
    ((0.13, 9.87), pa.float64(), (0.1, 9.9)),
    ((Decimal("1.01"), Decimal("7.77")), pa.decimal128(5, 2), (Decimal("1.00"), Decimal("7.80"))),
    ((Decimal("1.01"), Decimal("999.77")), pa.decimal128(5, 2), (Decimal("0.00"), None)),
]


@pytest.mark.parametrize(("seen", "kind", "limits"), EDGES)
def test_limits_are_round_and_lie_outside(seen: tuple[Any, Any], kind: pa.DataType, limits: tuple[Any, Any]) -> None:
    found = suggest(ColumnProfile("x", kind, rows=100, nulls=0, low=seen[0], high=seen[1]))
    assert (found.low, found.high) == limits


def test_decimal_limits_are_numbers_in_yaml() -> None:
    seen = [("-12000.00", "-11000.00"), ("0.10", "9.90"), ("123456789012345678.10", "123456789012345678.90")]
    made = [Suggestion("x", pa.decimal128(20, 2), True, low=Decimal(low), high=Decimal(high)) for low, high in seen]
    assert [(item["min_value"], item["max_value"]) for item in rule_items(made)] == [
        (-12000, -11000),
        (0.1, 9.9),
        (123456789012345678, 123456789012345679),
    ]


def test_a_margin_widens_and_never_makes_what_is_positive_negative() -> None:
    column = ColumnProfile("x", pa.int64(), rows=100, nulls=0, low=10, high=110)
    assert [(found.low, found.high) for found in (suggest(column, margin=margin) for margin in (0, 0.05, 0.5))] == [
        (10, 110),
        (0, 120),
        (0, 160),
    ]


def test_what_may_grow_has_no_upper_end(tmp_path: Path) -> None:
    start = datetime(2024, 1, 1, 5, tzinfo=UTC)
    columns = {
        "id": list(range(1, 41)),
        "at": pa.array([start + timedelta(hours=number) for number in range(40)], pa.timestamp("us", "UTC")),
        "day": pa.array([date(2024, 1, 1 + number // 2) for number in range(40)]),
        "nan": [math.nan, *[1.0] * 39],
        "inf": [math.inf, *[1.0] * 39],
        "nothing": pa.nulls(40, pa.int64()),
    }
    found = {item.name: item for item in suggestions_of(pa.table(columns), tmp_path)}
    assert [(item.low, item.high) for item in found.values()] == [
        (1, None),
        (datetime(2024, 1, 1, tzinfo=UTC), None),
        (date(2024, 1, 1), None),
        (None, None),
        (None, None),
        (None, None),
    ]
    assert [name for name, item in found.items() if item.nullable] == ["nan", "nothing"]


def test_text_has_a_list_a_shape_or_lengths(tmp_path: Path) -> None:
    rows = 300
    columns = {
        "few": ["b", "a", "c"] * 100,
        "many": [f"word {number}" for number in range(rows)],
        "digits": [f"{number:05d}" for number in range(rows)],
        "tail": [f"N{number}" for number in range(100, 100 + rows)],
        "uuid": [f"{number:08x}-0000-4000-8000-000000000000" for number in range(rows)],
        "maybe": [None, "", *["abc" * (number % 30 + 1) for number in range(rows - 2)]],
    }
    found = {item.name: item for item in suggestions_of(pa.table(columns), tmp_path, cut=50)}
    assert found["few"].values == ("a", "b", "c")
    assert (found["many"].shape, found["many"].shortest, found["many"].longest) == ("", 1, 8)
    assert (found["digits"].shape, found["digits"].shortest, found["digits"].longest) == ("^[0-9]+$", 5, 5)
    assert found["tail"].shape == "^[A-Z0-9]+$"
    assert found["uuid"].shape.startswith("^[0-9a-f]{8}-")
    assert (found["maybe"].nullable, found["maybe"].shortest, found["maybe"].longest) == (True, None, 90)


def test_the_file_is_as_a_formatter_leaves_it(tmp_path: Path) -> None:
    rows = 400
    columns: dict[str, Any] = {name: pa.nulls(rows, kind) for name, (kind, _) in KINDS.items()}
    columns |= {
        "long list": [f"a value of some length {number % 12}" for number in range(rows)],
        "short": ["x", "y"] * (rows // 2),
        "a_column_with_a_long_name_indeed": [Decimal(number) / 7 for number in range(1)] * rows,
        "id": list(range(rows)),
        "nested": [{"a": 1, "b": [1.5]}] * rows,
        "stamp": pa.array([datetime(2024, 1, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", "UTC")),
        "day": pa.array([date(2024, 1, 1)] * rows),
        "uuid": [f"{number:08x}-0000-4000-8000-000000000000" for number in range(rows)],
    }
    table = pa.table(columns)
    for backend in ("pandas", "polars"):
        write(table, tmp_path, backend)
        assert broken_by(table, tmp_path) == []
        for verb in (["format", "--check", "--diff"], ["check", "--select", "E4,E7,E9,F,I"]):
            done = subprocess.run(
                [str(Path(sys.executable).with_name("ruff")), *verb, "--isolated", "made.py"], cwd=tmp_path, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS.values()], ids=str)
def test_an_arrow_type_is_written_as_itself(kind: pa.DataType) -> None:
    assert eval(str(arrow_text(kind)), {"pyarrow": pa}) == kind


@pytest.mark.parametrize(
    ("table", "name"),
    [("main.nyc_flights", "NycFlights"), ("output/orders.parquet", "Orders"), ("2024", "Table2024"), ("class", "Class"), ("", "Table")],
)
def test_a_model_is_named_after_its_table(table: str, name: str) -> None:
    assert class_name(table) == name
