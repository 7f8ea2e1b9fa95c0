"""The check `pandera`: models of both backends against pandera's own verdict on the whole data, whatever the batches."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.checks.pandera import Check, PanderaOptions
from dataflow_assets.errors import CheckFailed
from dataflow_assets.protocols import BrokenRows, CheckResult, PicksRows, PromisesFromFiles, Severity
from dataflow_assets_tests.staged import context_in, staged

ORDERS = {
    "pandas": """
        import pandera.pandas as pa

        class Base(pa.DataFrameModel):
            id: int = pa.Field(ge=0, unique=True)

        class Orders(Base):
            state: str = pa.Field(isin=["open", "closed"], nullable=True)
            price: float = pa.Field(gt=0, le=100, nullable=True)
            note: str = pa.Field(nullable=True, str_length={"max_value": 3}, alias="the note")

            @pa.check("price", name="whole")
            def _whole(cls, price):
                return price % 1 == 0

            @pa.dataframe_check
            def id_below_price(cls, rows):
                return rows["id"] < rows["price"]
        """,
    "polars": """
        import pandera.polars as pa
        import polars as pl

        class Base(pa.DataFrameModel):
            id: int = pa.Field(ge=0, unique=True)

        class Orders(Base):
            state: str = pa.Field(isin=["open", "closed"], nullable=True)
            price: float = pa.Field(gt=0, le=100, nullable=True)
            note: str = pa.Field(nullable=True, str_length={"max_value": 3}, alias="the note")

            @pa.check("price", name="whole")
            def _whole(cls, data):
                return data.lazyframe.select(pl.col(data.key) % 1 == 0)

            @pa.dataframe_check
            def id_below_price(cls, data):
                return data.lazyframe.select(pl.col("id") < pl.col("price"))
        """,
}
NAMES = [
    "schema",
    "schema_id_not_null",
    "schema_id_unique",
    "schema_id_ge",
    "schema_state_isin",
    "schema_price_gt",
    "schema_price_le",
    "schema_the_note_str_length",
    "schema_price_whole",
    "schema_id_below_price",
]
BACKENDS = pytest.mark.parametrize("backend", ["pandas", "polars"])


def write(folder: Path, code: str, name: str = "models.py") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(textwrap.dedent(code))
    return folder


def begin(table: pa.Table, folder: Path, *, model: str = "models.py:Orders", **options: Any) -> Any:
    return Check(PanderaOptions(schema=model, **options)).begin(table.schema, context_in(folder))


def verdicts(
    table: pa.Table, folder: Path, *, model: str = "models.py:Orders", cut: int = 65_536, **options: Any
) -> dict[str, CheckResult]:
    check = Check(PanderaOptions(schema=model, **options))
    run = begin(table, folder, model=model, **options)
    for batch in table.to_batches(max_chunksize=cut):
        run.update(batch)
    results = run.finish(staged(table, folder))
    assert [result.name for result in results] == [promise.name for promise in check.promises_in(folder)]
    return {result.name: result for result in results}


def orders(rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = {"id": pa.int64(), "state": pa.string(), "price": pa.float64(), "the note": pa.string()}
    return pa.table({name: pa.array([row[place] for row in rows], kind) for place, (name, kind) in enumerate(kinds.items())})


GOOD = (1, "open", 2.0, "abc")
BAD = [GOOD, (2, "lost", 3.0, None), (1, None, 150.5, "long text"), (-1, "open", None, "")]


@BACKENDS
def test_each_check_of_a_column_is_a_result_with_counts_rows_and_values(backend: str, tmp_path: Path) -> None:
    found = verdicts(orders(BAD), write(tmp_path, ORDERS[backend]))
    assert list(found) == NAMES
    failed = {name: result.failed for name, result in found.items() if not result.passed}
    assert failed == {
        "schema_id_unique": 1,
        "schema_id_ge": 1,
        "schema_state_isin": 1,
        "schema_price_le": 1,
        "schema_the_note_str_length": 1,
        "schema_price_whole": 1,
        **({"schema_id_below_price": 1} if backend == "pandas" else {}),  # NaN is below nothing
    }
    result = found["schema_price_le"]
    assert result.samples == ({"id": 1, "state": None, "price": 150.5, "the note": "long text"},)
    assert result.metadata["failure_values"] == [150.5]
    assert result.checked == 4
    assert result.description == "price: 1 of 4 rows (25 %) break less_than_or_equal_to(100)"
    assert found["schema"].passed
    assert not any("nothing of the sort" in result.description for result in found.values())


@BACKENDS
def test_rows_that_fit_pass(backend: str, tmp_path: Path) -> None:
    found = verdicts(orders([GOOD, (2, None, 3.0, None)]), write(tmp_path, ORDERS[backend]))
    assert all(result.passed and not result.failed for result in found.values())
    assert all(result.passed for result in verdicts(orders([]), tmp_path).values())


def _pandera_says(backend: str, table: pa.Table, folder: Path) -> dict[tuple[str, str], int]:
    """Failing rows by column and check, from pandera's own validation of the whole data at once."""
    from dataflow_assets.user_code import load_file

    schema = load_file(folder / "models.py").Orders.to_schema()
    if backend == "pandas":
        import pandas as pd
        from pandera.errors import SchemaErrors

        frame: Any = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        frame = frame.astype({"id": "int64"}) if not frame["id"].hasnans else frame
    else:
        import polars as pl
        from pandera.errors import SchemaErrors

        frame = pl.from_arrow(table)
    schema.checks = []  # pandas' own comparison with a missing value raises inside pandera
    schema.columns["id"].unique = False
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases if backend == "pandas" else error.failure_cases.to_pandas()
        cases = cases[cases["index"].notna()]
        return {key: int(count) for key, count in cases.groupby(["column", "check"]).size().items()}
    return {}


CHECKED = {
    "schema_id_ge": ("id", "greater_than_or_equal_to"),
    "schema_state_isin": ("state", "isin"),
    "schema_price_gt": ("price", "greater_than"),
    "schema_price_le": ("price", "less_than_or_equal_to"),
    "schema_price_whole": ("price", "whole"),
    "schema_the_note_str_length": ("the note", "str_length"),
}


@pytest.mark.parametrize("backend", ["pandas", "polars"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-2, 30),
            st.none() | st.sampled_from(["open", "closed", "lost"]),
            st.none() | st.integers(-4, 220).map(lambda number: number / 2),
            st.none() | st.text("äb", max_size=5),
        ),
        min_size=1,
        max_size=25,
    ),
    cut=st.integers(1, 9),
)
def test_it_counts_as_pandera_does_whatever_the_batches(backend: str, rows: list[tuple[Any, ...]], cut: int, tmp_path: Path) -> None:
    write(tmp_path, ORDERS[backend])
    table = orders(rows)
    found, wanted = verdicts(table, tmp_path, cut=cut), _pandera_says(backend, table, tmp_path)
    for name, (column, check) in CHECKED.items():
        asked = found[name].metadata["asks"].partition(": ")[2]
        counts = [count for (where, what), count in wanted.items() if where == column and (what == asked or what.startswith(check))]
        assert found[name].failed == sum(counts)
    ids = [row[0] for row in rows]
    assert found["schema_id_unique"].failed == len(ids) - len(set(ids))
    assert found["schema_id_below_price"].failed == sum(backend == "pandas" if row[2] is None else row[0] >= row[2] for row in rows)


TYPES: list[tuple[str, pa.DataType, str, bool]] = [
    ("pandas", pa.int64(), "int", True),
    ("pandas", pa.int32(), "int", False),
    ("pandas", pa.int32(), "pd.Int32Dtype", True),
    ("pandas", pa.int64(), "pd.Int64Dtype", True),
    ("pandas", pa.int64(), "Annotated[pd.ArrowDtype, pyarrow.int64()]", True),
    ("pandas", pa.int64(), "float", False),
    ("pandas", pa.float64(), "float", True),
    ("pandas", pa.bool_(), "bool", True),
    ("pandas", pa.string(), "str", True),
    ("pandas", pa.string(), "pd.StringDtype", True),
    ("pandas", pa.string(), "int", False),
    ("pandas", pa.timestamp("us"), "pd.Timestamp", True),
    ("pandas", pa.timestamp("us", "UTC"), 'Annotated[pd.DatetimeTZDtype, "ns", "UTC"]', True),
    ("pandas", pa.timestamp("us", "UTC"), "pd.Timestamp", False),
    ("pandas", pa.decimal128(10, 2), "Annotated[pd.ArrowDtype, pyarrow.decimal128(10, 2)]", True),
    ("pandas", pa.decimal128(10, 2), "Annotated[pd.ArrowDtype, pyarrow.decimal128(12, 2)]", False),
    ("pandas", pa.date32(), "Annotated[pd.ArrowDtype, pyarrow.date32()]", True),
    ("pandas", pa.dictionary(pa.int32(), pa.string()), "pd.CategoricalDtype", True),
    ("pandas", pa.dictionary(pa.int32(), pa.string()), "str", True),
    ("pandas", pa.dictionary(pa.int32(), pa.string()), "Annotated[pd.ArrowDtype, pyarrow.string()]", True),
    ("polars", pa.dictionary(pa.int32(), pa.string()), "str", True),
    ("polars", pa.dictionary(pa.int32(), pa.string()), "pl.Categorical", True),
    ("polars", pa.int64(), "int", True),
    ("polars", pa.int32(), "int", False),
    ("polars", pa.string(), "str", True),
    ("polars", pa.timestamp("us", "UTC"), "pl.Datetime('us', 'UTC')", True),
    ("polars", pa.timestamp("us"), "pl.Datetime('us', 'UTC')", False),
    ("polars", pa.decimal128(10, 2), "pl.Decimal(10, 2)", True),
    ("polars", pa.date32(), "pl.Date", True),
]


@pytest.mark.parametrize("nulls", [False, True])
def test_a_type_fits_exactly_and_nulls_do_not_change_it(nulls: bool, tmp_path: Path) -> None:
    for number, (backend, kind, written, fits) in enumerate(TYPES):
        imports = f"import pandera.{backend} as pa, pandas as pd, polars as pl, pyarrow\nfrom typing import Annotated\n"
        field = f'M = pa.DataFrameSchema({{"x": pa.Column({written}, nullable=True)}})'
        if written.startswith("Annotated"):
            field = f"class M(pa.DataFrameModel):\n    x: {written} = pa.Field(nullable=True)"
        (tmp_path / f"m{number}.py").write_text(imports + field)
        table = pa.table({"x": pa.nulls(3, kind) if nulls else pa.array([], kind)})
        found = verdicts(table, tmp_path, model=f"m{number}.py:M")["schema"]
        assert found.passed == fits, (backend, kind, written, found.description)
        assert fits or "the model wants" in found.description


def test_a_type_that_only_a_value_tells_is_told_by_the_first(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import pandera.pandas as pa
        Orders = pa.DataFrameSchema({"id": pa.Column(str, nullable=True)})
        """,
    )
    assert verdicts(pa.table({"id": pa.nulls(2, pa.int64())}), tmp_path)["schema"].passed
    for options in ({}, {"at_once": True}):
        found = verdicts(pa.table({"id": pa.array([None, 1], pa.int64())}), tmp_path, **options)["schema"]
        assert found.description.startswith("column 'id': the model wants str"), options
    beyond = verdicts(pa.table({"id": ["a", "b"]}), tmp_path, at_once=True, row_limit=1)["schema"]
    assert beyond.description == "needs all 2 rows in one frame, more than row_limit (1)"


def test_exact_values_reach_the_checks(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa, pandas as pd, pyarrow
        from datetime import date, datetime, timezone
        from decimal import Decimal
        from typing import Annotated

        class M(pa.DataFrameModel):
            big: int = pa.Field(eq=9007199254740993, nullable=True)
            money: Annotated[pd.ArrowDtype, pyarrow.decimal128(20, 2)] = pa.Field(isin=[Decimal("90071992547409.93")])
            day: Annotated[pd.ArrowDtype, pyarrow.date32()] = pa.Field(ge=date(2024, 1, 1))
            at: Annotated[pd.DatetimeTZDtype, "us", "UTC"] = pa.Field(lt=datetime(2024, 1, 1, tzinfo=timezone.utc))
        """
    kinds = [pa.int64(), pa.decimal128(20, 2), pa.date32(), pa.timestamp("us", "UTC")]
    good = [9007199254740993, Decimal("90071992547409.93"), date(2024, 1, 1), datetime(2023, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
    off = [9007199254740992, Decimal("90071992547409.92"), date(2023, 12, 31), datetime(2024, 1, 1, tzinfo=UTC)]
    null = [None, good[1], good[2], good[3]]
    columns = [pa.array(values, kind) for kind, *values in zip(kinds, good, off, null, strict=True)]
    found = verdicts(pa.table(columns, names=["big", "money", "day", "at"]), write(tmp_path, code), model="models.py:M")
    assert {name: result.failed for name, result in found.items() if result.failed} == {
        "schema_big_eq": 1,
        "schema_money_isin": 1,
        "schema_day_ge": 1,
        "schema_at_lt": 1,
    }


@BACKENDS
def test_columns_are_judged_without_a_row(backend: str, tmp_path: Path) -> None:
    code = f"""
        import pandera.{backend} as pa

        class Orders(pa.DataFrameModel):
            id: int = pa.Field(ge=0)
            price: float = pa.Field(gt=0)
            class Config:
                strict = True
        """
    found = verdicts(pa.table({"id": ["1"], "extra": [1]}), write(tmp_path, code))
    said = found["schema"].description
    for part in (
        "column 'extra' is not in the model, which is strict",
        "column 'price' is not in the data",
        "column 'id': the model wants",
    ):
        assert part in said
    assert found["schema_price_gt"].description == "price: not in the data"
    assert not found["schema_price_not_null"].passed
    assert found["schema_id_not_null"].passed


def test_an_optional_column_may_be_missing_and_order_may_matter(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa
        from typing import Optional

        class Orders(pa.DataFrameModel):
            id: int
            price: Optional[float] = pa.Field(gt=0)
            class Config:
                ordered = True
        """
    write(tmp_path, code)
    found = verdicts(pa.table({"id": [1]}), tmp_path)
    assert all(result.passed for result in found.values())
    assert found["schema_price_gt"].description.endswith("the column is not in the data, which the model allows")
    assert "is not where the model has it" in verdicts(pa.table({"price": [1.0], "id": [1]}), tmp_path)["schema"].description


@BACKENDS
def test_a_check_of_all_rows_sees_them_all_up_to_the_limit(backend: str, tmp_path: Path) -> None:
    mean = {"pandas": "data.mean() == 50.0", "polars": "data.lazyframe.select(pl.col(data.key).mean() == 50.0)"}[backend]
    size = {"pandas": "len(data) == 101", "polars": "bool(data.lazyframe.collect().height == 101)"}[backend]
    code = f"""
        import pandera.{backend} as pa
        import polars as pl

        class Orders(pa.DataFrameModel):
            id: int = pa.Field(ge=0)

            @pa.check("id")
            def centred(cls, data):
                return {mean}

            @pa.dataframe_check
            def complete(cls, data):
                return {size}
        """
    write(tmp_path, code)
    table = pa.table({"id": list(range(101))})
    for cut in (1, 7, 200):
        assert all(result.passed for result in verdicts(table, tmp_path, cut=cut).values())
    found = verdicts(table.slice(1), tmp_path, cut=7)
    assert [name for name, result in found.items() if not result.passed] == ["schema_id_centred", "schema_complete"]
    assert found["schema_id_centred"].description == "id: centred does not hold for the data as a whole"
    beyond = verdicts(table, tmp_path, cut=7, row_limit=100)["schema_complete"]
    assert not beyond.passed
    assert beyond.description == "complete needs all 101 rows in one frame, more than row_limit (100)"


def test_at_once_shows_the_rows_to_each_other(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa

        class Orders(pa.DataFrameModel):
            id: int

            @pa.check("id")
            def rises(cls, ids):
                return ids.diff().fillna(1) > 0
        """
    write(tmp_path, code)
    table = pa.table({"id": [1, 2, 5, 4, 6]})
    assert verdicts(table, tmp_path, cut=3)["schema_id_rises"].passed, "the fall lies between two batches"
    found = verdicts(table, tmp_path, cut=3, at_once=True)["schema_id_rises"]
    assert found.failed == 1
    assert found.samples == ({"id": 4},)


@BACKENDS
def test_coerced_columns_are_judged_as_coerced(backend: str, tmp_path: Path) -> None:
    code = f"""
        import pandera.{backend} as pa

        Orders = pa.DataFrameSchema(
            {{"id": pa.Column(int, pa.Check.ge(2)), "price": pa.Column(float, pa.Check(lambda x: False, name="never") if False else None)}},
            coerce=True,
            unique=["id", "price"],
        )
        """
    table = pa.table({"id": ["3", "x", "1", "y", "3"], "price": ["1.5", "2", "z", "zz", "1.5"]})
    found = verdicts(table, write(tmp_path, code), on_failure="quarantine", cut=2)
    assert list(found) == ["schema", "schema_id_not_null", "schema_id_ge", "schema_price_not_null", "schema_id_price_unique"]
    assert found["schema"].failed in {3, 4}  # of a row with two such columns polars names the first, pandas both
    assert found["schema"].quarantine
    assert "coercion to the model's type" in found["schema"].description
    assert found["schema_id_price_unique"].failed == 1
    run = begin(table, tmp_path, on_failure="quarantine")
    for batch in table.to_batches():
        run.update(batch)
    run.finish(staged(table, tmp_path))
    broken = {(item.column): item.rows.to_pylist() for item in run.pick(table.to_batches()[0]) if item.rule == "schema"}
    assert broken["id"] == [False, True, False, True, False]
    assert broken["price"][:3] == [False, False, True]


def test_a_model_can_neither_switch_itself_off_nor_drop_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pandera.config import CONFIG

    monkeypatch.setattr(CONFIG, "validation_enabled", False)
    code = """
        import pandera.pandas as pa

        class Orders(pa.DataFrameModel):
            id: int = pa.Field(ge=0, default=7)
            gone: int = pa.Field(default=0)
            class Config:
                drop_invalid_rows = True
                add_missing_columns = True
                strict = "filter"
        """
    found = verdicts(pa.table({"id": pa.array([-1, None], pa.int64()), "more": [1, 2]}), write(tmp_path, code))
    assert found["schema_id_ge"].failed == 1
    assert found["schema_id_not_null"].failed == 1
    assert found["schema"].description == "column 'gone' is not in the data"


def test_a_parser_only_changes_what_the_checks_see(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa

        class Orders(pa.DataFrameModel):
            state: str = pa.Field(isin=["open"])

            @pa.parser("state")
            def lower(cls, values):
                return values.str.lower()
        """
    found = verdicts(pa.table({"state": ["OPEN", "Lost"]}), write(tmp_path, code))["schema_state_isin"]
    assert found.failed == 1
    assert found.samples == ({"state": "Lost"},)


def test_warnings_of_the_model_warn(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa

        class Orders(pa.DataFrameModel):
            id: int = pa.Field(ge=0, raise_warning=True)
        """
    found = verdicts(pa.table({"id": [-1]}), write(tmp_path, code))["schema_id_ge"]
    assert (found.passed, found.severity) == (False, Severity.WARN)
    (promise,) = [item for item in Check(PanderaOptions(schema="models.py:Orders")).promises_in(tmp_path) if item.name == found.name]
    assert not promise.blocking


def test_rows_may_break_a_check_up_to_a_number_or_a_share(tmp_path: Path) -> None:
    write(tmp_path, ORDERS["pandas"])
    table = orders([*[GOOD] * 9, (1, "lost", 2.0, None)])
    passes = {given: verdicts(table, tmp_path, max_failed=given)["schema_state_isin"] for given in (0, 1, "9 %", "10%")}
    assert [result.passed for result in passes.values()] == [False, True, False, True]
    assert passes[1].failed == 1
    for wrong in (-1, "many", "101 %", "5"):
        with pytest.raises(ValueError, match="no number of rows"):
            PanderaOptions(schema="a:B", max_failed=wrong)


@BACKENDS
def test_offending_rows_are_picked_for_quarantine(backend: str, tmp_path: Path) -> None:
    write(tmp_path, ORDERS[backend])
    rows = [(number, "lost" if number % 3 == 0 else "open", 1000.0 if number % 5 == 0 else 50.0, None) for number in range(40)]
    table = orders(rows)
    run = begin(table, tmp_path, on_failure="quarantine")
    assert isinstance(run, PicksRows)
    for batch in table.to_batches(max_chunksize=7):
        run.update(batch)
    results = {result.name: result for result in run.finish(staged(table, tmp_path))}
    assert {name for name, result in results.items() if result.quarantine} == {"schema_state_isin", "schema_price_le"}
    picked: dict[str, list[bool]] = {"schema_state_isin": [], "schema_price_le": []}
    for batch in table.to_batches(max_chunksize=7):
        found: dict[str, BrokenRows] = {item.rule: item for item in run.pick(batch)}
        for name, masks in picked.items():
            masks += found[name].rows.to_pylist() if name in found else [False] * batch.num_rows
    assert picked["schema_state_isin"] == [row[1] == "lost" for row in rows]
    assert picked["schema_price_le"] == [row[2] > 100 for row in rows]
    assert not any(result.quarantine for result in verdicts(table, tmp_path).values())


def test_repeats_are_picked_but_the_first(tmp_path: Path) -> None:
    write(tmp_path, ORDERS["polars"])
    table = orders([(number % 3, "open", 50.0, None) for number in range(7)])
    run = begin(table, tmp_path, on_failure="quarantine")
    for batch in table.to_batches(max_chunksize=2):
        run.update(batch)
    result = {result.name: result for result in run.finish(staged(table, tmp_path))}["schema_id_unique"]
    assert (result.failed, result.quarantine, result.severity) == (4, True, Severity.WARN)
    picked = [item for batch in table.to_batches(max_chunksize=2) for item in run.pick(batch)]
    assert {(item.rule, item.column) for item in picked} == {("schema_id_unique", "id")}
    assert sum(item.rows.true_count for item in picked) == result.failed


def test_a_check_that_raises_says_so(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa

        class Orders(pa.DataFrameModel):
            id: int

            @pa.dataframe_check
            def broken(cls, rows):
                return rows["nowhere"] > 0
        """
    found = verdicts(pa.table({"id": [1, 2]}), write(tmp_path, code), on_failure="quarantine")["schema_broken"]
    assert not found.passed
    assert not found.quarantine
    assert found.description == "broken raised KeyError: 'nowhere'"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('no')", "cannot be imported: ValueError: no"),
        ("Orders = 3", "is a int of builtins"),
        ("x = 1", "has no model 'Orders'"),
        ("import pandera.pandas as pa\nOrders = pa.SeriesSchema(int)", "is a SeriesSchema"),
    ],
)
def test_what_is_no_model_is_refused(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=message):
        begin(pa.table({"id": [1]}), write(tmp_path, code))


def test_a_model_of_an_index_is_refused(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa
        Orders = pa.DataFrameSchema({"id": pa.Column(int)}, index=pa.Index(int))
        """
    assert "an index" in verdicts(pa.table({"id": [1]}), write(tmp_path, code))["schema"].description


def test_a_schema_object_and_a_module_of_the_project(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa

        def small(values):
            return values < 5

        Orders = pa.DataFrameSchema(
            {
                "id": pa.Column(int, [pa.Check.ge(0), pa.Check(small), pa.Check(lambda v: v != 2, name="not two")], unique=True),
                "n_.*": pa.Column(float, pa.Check.lt(1), regex=True, nullable=True),
            },
            checks=pa.Check(lambda rows: rows["id"] != 3),
        )
        """
    write(tmp_path, code, "shop_models/orders.py")
    (tmp_path / "shop_models/__init__.py").write_text("")
    table = pa.table({"id": [1, 2, 3, 7, 7], "n_a": [0.5, 1.5, None, 0, 0], "n_b": [0.0] * 5})
    found = verdicts(table, tmp_path, model="shop_models.orders:Orders", name="orders")
    assert {name: result.failed for name, result in found.items()} == {
        "orders": 2,  # of n_a, and of the check without a name
        "orders_id_not_null": 0,
        "orders_id_unique": 1,
        "orders_id_ge": 0,
        "orders_id_small": 2,
        "orders_id_not_two": 1,
    }
    assert "n_a: less_than(1)" in found["orders"].description


def test_names_are_read_and_nothing_is_imported(tmp_path: Path) -> None:
    check = Check(PanderaOptions(schema="models.py:Orders"))
    assert isinstance(check, PromisesFromFiles)
    assert [promise.name for promise in check.promises_in(tmp_path)] == ["schema"], "no file"
    write(tmp_path, "raise SystemExit\n" + textwrap.dedent(ORDERS["pandas"]))
    assert [promise.name for promise in check.promises_in(tmp_path)] == NAMES
    before = check.code_version(tmp_path)
    for code in ("def broken(", "from elsewhere import Orders", "class Orders(Unknown): x: int"):
        write(tmp_path, code)
        assert [promise.name for promise in check.promises_in(tmp_path)] == ["schema"], code
    assert check.code_version(tmp_path) != before


def test_what_the_source_does_not_show_is_asked_all_the_same(tmp_path: Path) -> None:
    code = """
        import pandera.pandas as pa

        def made():
            return pa.DataFrameSchema({"id": pa.Column(int, pa.Check.ge(0))})

        Orders = made()
        """
    found = verdicts(pa.table({"id": [1, -1]}), write(tmp_path, code))
    assert list(found) == ["schema"]
    assert found["schema"].failed == 1


def test_mistakes_are_seen_without_running(tmp_path: Path) -> None:
    def messages(model: str) -> list[tuple[str, str]]:
        return [(item.message, item.hint) for item in Check(PanderaOptions(schema=model)).mistakes(tmp_path, [])]

    assert messages("models.py:Orders") == [("there is no file models.py", f"it is relative to {tmp_path}")]
    write(tmp_path, "raise SystemExit\n" + textwrap.dedent(ORDERS["pandas"]))
    assert messages("models.py:Orders") == []
    assert messages("models:Ordres") == [("models.py has no model 'Ordres'", "did you mean Orders?")]
    write(tmp_path, "x = (")
    assert "models.py:1:" in messages("models.py:Orders")[0][0]
    assert messages("installed.elsewhere:Model") == []
    for wrong in ("models.py", "models:", "a b:C", "models.py:a-b", ":Model"):
        with pytest.raises(ValueError, match="names no model"):
            PanderaOptions(schema=wrong)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import tracemalloc

    code = """
        import pandera.pandas as pa

        class Orders(pa.DataFrameModel):
            id: int = pa.Field(ge=0)
            text: str = pa.Field(str_length={"max_value": 4})
        """
    write(tmp_path, code)
    rows = 8_000
    batch = pa.record_batch({"id": pa.array(range(-rows // 2, rows // 2)), "text": pa.array(["much too long"] * rows)})

    def stream(times: int) -> Iterator[int]:
        run = begin(pa.Table.from_batches([batch]), tmp_path)
        tracemalloc.start()
        for _ in range(times):
            run.update(batch)
        yield tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        yield next(tally.failed for tally in run.tallies if tally.promise.name == "schema_text_str_length")

    few, many = list(stream(2)), list(stream(20))
    assert many[1] == 10 * few[1] == 20 * rows
    assert many[0] < 1.3 * few[0]
