"""Tests of the CSV connector: the contract, the types it finds, the text it reads and writes."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.connectors import _csv_reading
from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors._text_types import Unfit, infer, parse
from dataflow_assets.connectors.csv import Connector, CsvEndpoint, CsvSource
from dataflow_assets.errors import ConnectionFailed, DataflowError, ReadFailed, ValueRefused
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import PublishRequest, ReadRequest, Target, WindowFilter, WriteMode
from dataflow_assets_tests.connectors.arrow_types import BYTES, NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import where
from dataflow_assets_tests.connectors.contract_schema import SchemaPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, column_type, day, unit


@dataclass
class CsvHarness(Harness):
    """Files `name.csv`; what was published last says which column types to read it with."""

    types: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._connector = Connector(FileConnection(), ConnectionContext("csv", self.scratch))

    @property
    def connector(self) -> Connector:
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = CsvEndpoint(file_path=f"out/{name}.csv", mode=mode, upsert_keys=list(keys), **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def request(self, table: pa.Table, *args: Any, **kwargs: Any) -> PublishRequest:
        self.types = {item.name: column_type(item.type) for item in table.schema}
        return super().request(table, *args, **kwargs)

    def source_options(self, name: str) -> CsvSource:
        return CsvSource(file_path=f"out/{name}.csv", column_types=self.types)


class TestContract(ConnectorContract):
    """The promises, with column types declared."""

    lossy: ClassVar[dict[str, Lossy]] = {
        **dict.fromkeys((*BYTES, *NESTED, "duration_us"), Lossy("CSV is text, and has no agreed form for these")),
    }

    @pytest.fixture
    def harness(self, tmp_path: Path) -> CsvHarness:
        return CsvHarness(tmp_path)


class TestSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> CsvHarness:
        return CsvHarness(tmp_path)


def connector_in(folder: Path) -> Connector:
    """A connector whose paths are relative to `folder`."""
    return Connector(FileConnection(), ConnectionContext("csv", folder))


def read(folder: Path, text: str | bytes, *, window: WindowFilter | None = None, **options: Any) -> pa.Table:
    """What a source step reads of a file with this text."""
    (folder / "in.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    request = ReadRequest(CsvSource(file_path="in.csv", **options), window=window)
    with connector_in(folder).read(request) as reader:
        return reader.read_all()


FOUND = {
    "whole numbers": (["1", "-2", "", "9223372036854775807"], pa.int64()),
    "leading zeros are text": (["00123", "5"], pa.string()),
    "hexadecimal is text": (["0x1F", "0x20"], pa.string()),
    "a plus sign is text": (["+5", "+6"], pa.string()),
    "beyond 64 bits": (["9223372036854775808", "1"], pa.decimal128(38, 0)),
    "beyond every decimal": (["1" * 39, "1"], pa.string()),
    "floats": (["1.5", "-0.1", "1e300", "NaN", "3"], pa.float64()),
    "minus zero": (["-0", "1"], pa.float64()),
    "a float would lose digits": (["0.12345678901234567890", "1.5"], pa.decimal128(38, 20)),
    "an overflow is text": (["1e999", "1.5"], pa.string()),
    "words for no number": (["nan", "inf"], pa.string()),
    "truth": (["true", "FALSE", ""], pa.bool_()),
    "truth and numbers": (["true", "1"], pa.string()),
    "dates": (["2024-02-29", ""], pa.date32()),
    "no date": (["2024-02-30"], pa.string()),
    "timestamps": (["2024-02-29 12:00:00", "2024-02-29T12:00:00.123456"], pa.timestamp("us")),
    "nanoseconds": (["2024-02-29T12:00:00.123456789"], pa.timestamp("ns")),
    "instants": (["2024-02-29T12:00:00Z", "2024-02-29 12:00:00+02:00"], pa.timestamp("us", "UTC")),
    "naive and zoned": (["2024-02-29T12:00:00Z", "2024-02-29 12:00:00"], pa.string()),
    "dates and timestamps": (["2024-02-29", "2024-02-29 12:00:00"], pa.string()),
    "times": (["12:30:15", "23:59:59.999999"], pa.time64("us")),
    "nothing": (["", ""], pa.null()),
    "NA is text unless told": (["NA", "1"], pa.string()),
}


@pytest.mark.parametrize("case", FOUND)
def test_types_that_are_found_keep_the_text(tmp_path: Path, case: str) -> None:
    texts, kind = FOUND[case]
    found = read(tmp_path, "n,v\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)))
    assert found.schema.field("v").type == kind
    if kind == pa.string():
        assert found["v"].to_pylist() == texts


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("-3334565974020.31360564800763578546370582", pa.decimal128(38, 26)),
        ("3334565974020.31360564800763578546370582", pa.decimal128(38, 26)),
        ("9" * 39, pa.decimal128(38, 0)),
        ("9" * 45, pa.decimal128(38, 0)),
        ("123e38", pa.decimal128(38, 2)),
        ("9" * 78, pa.decimal256(76, 0)),
        ("0." + "1" * 40, pa.decimal128(38, 38)),
    ],
)
def test_a_decimal_with_more_digits_than_its_type_is_refused(text: str, kind: pa.DataType) -> None:
    """Arrow lets some of them wrap around to another number."""
    for strict in (False, True):
        with pytest.raises(Unfit):
            parse(pa.array(["1", text]), kind, strict=strict)
    assert infer(pa.array([text])) == (pa.float64() if "e" in text else pa.string())


@pytest.mark.parametrize("text", ["1_000", " 12 ", "\uff11\uff12", "-0_1", "NaN", "1e1000000", "1e-999999999"])
def test_what_is_no_decimal_is_none_beside_others_either(text: str) -> None:
    for strict in (False, True):
        with pytest.raises(Unfit) as refused:
            parse(pa.array(["1e2", text, "5"]), pa.decimal128(38, 2), strict=strict)
        assert (refused.value.index, refused.value.text) == (1, text)


def test_decimals_of_all_their_digits_are_kept() -> None:
    texts = ["-" + "9" * 12 + "." + "9" * 26, "123456789012.5", "0.5", None]
    values = parse(pa.array(texts), pa.decimal128(38, 26), strict=True).to_pylist()
    assert values == [Decimal(text) if text else None for text in texts]


@given(
    st.lists(
        st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.decimals(allow_nan=False, allow_infinity=False)),
        min_size=1,
    )
)
def test_a_number_is_never_changed(values: list[Any]) -> None:
    texts = [str(value) for value in values]
    kind = infer(pa.array(texts))
    if kind != pa.string():
        parsed = parse(pa.array(texts), kind, strict=True).to_pylist()
        assert [Decimal(repr(value) if isinstance(value, float) else value) for value in parsed] == [Decimal(text) for text in texts]


@given(st.lists(st.text(alphabet="0123456789+-.eExXnaif:TZ ", max_size=24), min_size=1))
def test_text_that_is_no_plain_number_stays(values: list[str]) -> None:
    column = pa.array(values)
    kind = infer(column)
    if pa.types.is_integer(kind):
        assert parse(column, kind, strict=True).cast(pa.string()).to_pylist() == values


@pytest.mark.parametrize("before", [1000, 40_000])
def test_a_late_value_that_does_not_fit_is_refused_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """In the first batch, which is joined from many blocks, and in a later one."""
    monkeypatch.setattr(_csv_reading, "_SAMPLE_BYTES", 1)
    monkeypatch.setattr(_csv_reading, "_BLOCK", 4096)
    rows = "".join(f'{n},"two\nlines"\n' for n in range(before))
    for late in ("00123", "abc", "1.5", "99999999999999999999"):
        with pytest.raises(ValueRefused) as caught:
            read(tmp_path, f"id,note\n{rows}{late},x\n")
        assert f"in.csv:{2 + 2 * before}:" in str(caught.value)
        assert repr(late) in str(caught.value)
        assert "column_types: {id: string}" in caught.value.hint


def test_every_window_sees_the_same_types(tmp_path: Path) -> None:
    text = "at,v\n2024-03-10,1\n2024-03-11,1.5\n2024-03-12,\n"
    tables = [read(tmp_path, text, window=where(day(number))) for number in range(3)]
    assert [table["v"].to_pylist() for table in tables] == [[1.0], [1.5], [None]]
    assert {table.schema.field("v").type for table in tables} == {pa.float64()}


def test_rows_without_a_time_are_refused_where_there_are_windows(tmp_path: Path) -> None:
    with pytest.raises(ValueRefused, match="'at'"):
        read(tmp_path, "at,v\n2024-03-10,1\n,2\n", window=where(day(0)))
    with pytest.raises(ValueRefused, match="'at'"):
        read(tmp_path, "at,v\n2024-03-10,1\nyesterday,2\n", window=where(day(0)))
    with pytest.raises(ReadFailed, match="'at'"):
        read(tmp_path, "v\n1\n", window=where(day(0)))


def test_declared_types_win(tmp_path: Path) -> None:
    types = {"a": "string", "b": "decimal(6,2)", "c": "timestamp[America/New_York]", "d": "int32"}
    found = read(tmp_path, "a,b,c,d\n1,1.5,2013-07-01 00:00:00,007\n", column_types=types)
    assert found.to_pylist()[0]["b"] == Decimal("1.50")
    assert found["a"].to_pylist() == ["1"]
    assert found["c"].cast(pa.timestamp("us", "UTC")).cast(pa.string()).to_pylist() == ["2013-07-01 04:00:00.000000Z"]
    assert found["d"].to_pylist() == [7]


@pytest.mark.parametrize(
    ("types", "culprit"),
    [({"b": "int64"}, "'b'"), ({"a": "integre"}, "integre"), ({"a": "date"}, "'x'"), ({"a": "timestamp[Mars/Phobos]"}, "Mars")],
)
def test_declared_types_that_cannot_be_are_refused(tmp_path: Path, types: dict[str, str], culprit: str) -> None:
    with pytest.raises(DataflowError, match=culprit):
        read(tmp_path, "a\nx\n", column_types=types)


def test_the_autumn_hour_without_an_offset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueRefused, match="01:30"):
        read(tmp_path, "a,b\n2013-11-03 01:30:00,1\n", column_types={"a": "timestamp[America/New_York]"})


def test_null_values_and_empty_text(tmp_path: Path) -> None:
    found = read(tmp_path, 'a,b\n,""\nNA,"NA"\n', null_values=["", "NA"])
    assert found.to_pydict() == {"a": [None, None], "b": ["", "NA"]}


def test_a_single_column_keeps_its_nulls(tmp_path: Path) -> None:
    assert read(tmp_path, "a\n1\n\n3\n")["a"].to_pylist() == [1, None, 3]
    harness = CsvHarness(tmp_path)
    target = harness.make_target("one", WriteMode.APPEND)
    table = pa.table({"a": ["x", None, "", "z"]})
    harness.publish(table, target, unit())
    assert harness.rows(target)["a"].to_pylist() == table["a"].to_pylist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, "ä,b\nü,1\n".encode(encoding), encoding=encoding).to_pydict() == {"ä": ["ü"], "b": [1]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_quotes_are_counted_as_characters(tmp_path: Path, encoding: str, end: str) -> None:
    """In UTF-16 a byte of other characters is that of a quote."""
    assert read(tmp_path, f"a,b\n1,\u2200{end}".encode(encoding), encoding=encoding).to_pydict() == {"a": [1], "b": ["\u2200"]}
    with pytest.raises(ReadFailed, match="breaks off inside a quoted field"):
        read(tmp_path, 'a,b\n1,"\u2200'.encode(encoding), encoding=encoding)


def test_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadFailed) as caught:
        read(tmp_path, "a,b\nü,1\n".encode("cp1252"))
    assert "encoding" in caught.value.hint
    with pytest.raises(ReadFailed, match="klingon"):
        read(tmp_path, "a,b\n", encoding="klingon")


def test_layouts(tmp_path: Path) -> None:
    assert read(tmp_path, "junk\n\na;b\n1;'x;y'\n", delimiter=";", quote_char="'", skip_rows=2).to_pydict() == {"a": [1], "b": ["x;y"]}
    assert read(tmp_path, "1,x\n2,y\n", has_header=False).to_pydict() == {"f0": [1, 2], "f1": ["x", "y"]}
    assert read(tmp_path, "a,b\n1,x\\,y\n", escape_char="\\").to_pydict() == {"a": [1], "b": ["x,y"]}
    assert read(tmp_path, 'a,b\n5",x"\n', quote_char="").to_pydict() == {"a": ['5"'], "b": ['x"']}
    assert read(tmp_path, "a,b\r\n1,x\r\n").to_pydict() == {"a": [1], "b": ["x"]}
    assert read(tmp_path, "a,b\n").to_pydict() == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("text", "culprit"),
    [("", "Empty"), ("a,b\n1\n", "columns"), ("a,a\n1,2\n", "'a'"), ('a,b\n1,"broken off', "quoted"), ("a,b\n1,2,3\n", "columns")],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, culprit: str) -> None:
    with pytest.raises(ReadFailed, match=culprit):
        read(tmp_path, text)


def test_a_row_longer_than_a_block(tmp_path: Path) -> None:
    text = "a,b\n" + "".join(f"{n},{'x' * (3_000_000 if n == 50_000 else 10)}\n" for n in range(60_000))
    found = read(tmp_path, text)
    assert found.num_rows == 60_000
    assert found["a"].to_pylist() == list(range(60_000))


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_compressed_files(tmp_path: Path, ending: str) -> None:
    with pa.CompressedOutputStream(str(tmp_path / f"in.csv.{ending}"), {"zst": "zstd", "gz": "gzip"}.get(ending, ending)) as file:
        file.write(b"a,b\n1,x\n")
    with connector_in(tmp_path).read(ReadRequest(CsvSource(file_path=f"in.csv.{ending}"))) as reader:
        assert reader.read_all().to_pydict() == {"a": [1], "b": ["x"]}


def test_folders_and_globs(tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    for name, text in {"2.csv": "b,a\nx,1\n", "1.csv": "a,b\n2.5,y\n", ".hidden.csv": "q\n", "notes.md": "q\n"}.items():
        (tmp_path / "landing" / name).write_text(text)
    for path in ("landing", "landing/", "landing/*.csv", "*/[12].csv"):
        with connector_in(tmp_path).read(ReadRequest(CsvSource(file_path=path))) as reader:
            assert reader.read_all().to_pydict() == {"a": [2.5, 1.0], "b": ["y", "x"]}
    (tmp_path / "landing" / "3.csv").write_text("a,c\n")
    with pytest.raises(ReadFailed, match=r"'b', 'c'"), connector_in(tmp_path).read(ReadRequest(CsvSource(file_path="landing"))):
        pass
    with pytest.raises(ReadFailed, match="no file matches"), connector_in(tmp_path).read(ReadRequest(CsvSource(file_path="landing/*.tsv"))):
        pass


def test_the_root_of_a_connection(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("a\n1\n")
    connector = Connector(FileConnection(root="data"), ConnectionContext("lake", tmp_path))
    with connector.read(ReadRequest(CsvSource(file_path="a.csv"))) as reader:
        assert reader.read_all().num_rows == 1
    assert str(connector.source_table(CsvSource(file_path="./a.csv"))) == "data/a.csv"
    with pytest.raises(ConnectionFailed, match="nowhere"):
        Connector(FileConnection(root="nowhere"), ConnectionContext("lake", tmp_path)).probe()


def test_the_text_that_is_written(tmp_path: Path) -> None:
    harness = CsvHarness(tmp_path)
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int64()),
            "x": [0.1, 1e22],
            "d": pa.array([Decimal("1.10"), None], pa.decimal128(5, 2)),
            "t": ['say "hi", twice', ""],
            "at": pa.array([datetime(2024, 1, 1), None], pa.timestamp("us", "UTC")),
            "day": [date(2024, 1, 1), None],
            "ok": [True, None],
        }
    )
    harness.publish(table, harness.make_target("x", WriteMode.REPLACE), unit())
    assert (tmp_path / "out" / "x.csv").read_text() == (
        'n,x,d,t,at,day,ok\n1,0.1,1.10,"say ""hi"", twice",2024-01-01T00:00:00.000000Z,2024-01-01,true\n,1e+22,,"",,,\n'
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
def test_writing_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    harness = CsvHarness(tmp_path)
    target = harness.make_target("x", WriteMode.APPEND, encoding=encoding, delimiter=";")
    for number in range(2):
        harness.publish(pa.table({"ä": ["ü;"]}), target, unit(str(number)))
    assert (tmp_path / "out" / "x.csv").read_bytes().decode(encoding) == 'ä\n"ü;"\n"ü;"\n'
    assert harness.rows(target)["ä"].to_pylist() == ["ü;", "ü;"]


def test_text_that_an_encoding_has_not_is_refused(tmp_path: Path) -> None:
    harness = CsvHarness(tmp_path)
    with pytest.raises(ValueRefused, match="cp1252"):
        harness.publish(pa.table({"a": ["中"]}), harness.make_target("x", WriteMode.APPEND, encoding="cp1252"), unit())


def test_a_compressed_endpoint(tmp_path: Path) -> None:
    harness = CsvHarness(tmp_path)
    endpoint = CsvEndpoint(file_path="out/x.csv.gz", mode=WriteMode.APPEND)
    target = Target(harness.connector.target_table(endpoint), WriteMode.APPEND, endpoint)
    for number in range(2):
        harness.publish(pa.table({"a": [number]}), target, unit(str(number)))
    with gzip.open(tmp_path / "out" / "x.csv.gz", "rt") as file:
        assert file.read() == "a\n0\n1\n"
    assert harness.rows(target)["a"].to_pylist() == [0, 1]


def test_years_that_iso_text_has_not_are_refused(tmp_path: Path) -> None:
    harness = CsvHarness(tmp_path)
    far = pa.array([2**62], pa.int64()).cast(pa.timestamp("us"))
    with pytest.raises(ValueRefused, match="'at'"):
        harness.publish(pa.table({"at": far}), harness.make_target("x", WriteMode.APPEND), unit())


def test_a_csv_is_replaced_unless_told(tmp_path: Path) -> None:
    assert CsvEndpoint(file_path="x").mode is WriteMode.REPLACE
    assert "mode" not in CsvEndpoint(file_path="x").model_fields_set


def test_reading_a_large_file_holds_little(tmp_path: Path) -> None:
    """70 MB of text in at most 260 MB, interpreter and libraries included."""
    with (tmp_path / "in.csv").open("w") as file:
        file.write("id,note,at\n")
        row = f"note {'x' * 40},2024-01-01T00:00:00\n"
        for start in range(0, 1_000_000, 10_000):
            file.write("".join(f"{n},{row}" for n in range(start, start + 10_000)))
    program = (
        "import sys\nfrom dataflow_assets.connectors.csv import *\nfrom dataflow_assets.connectors._files import *\n"
        "c = Connector(FileConnection(), ConnectionContext('csv', Path(sys.argv[1])));\n"
        "with c.read(ReadRequest(CsvSource(file_path='in.csv'))) as r: print(sum(b.num_rows for b in r));\n"
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024)"
    )
    out = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True).stdout.split()
    assert int(out[0]) == 1_000_000
    assert int(out[1]) < 260
