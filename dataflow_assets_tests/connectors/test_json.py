"""Tests of the JSON connector: the contract for documents and lines, exact numbers, where rows are found."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from dataflow_assets.connectors import _json_reading
from dataflow_assets.connectors._files import FileConnection
from dataflow_assets.connectors.json import Connector, JsonEndpoint, JsonSource
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import PublishRequest, ReadRequest, Target, WriteMode
from dataflow_assets_tests.connectors.arrow_types import BYTES, FLOATS, NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_schema import SchemaPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, column_type, unit


@dataclass
class JsonHarness(Harness):
    """Files of one ending; what was published last says which column types to read it with."""

    ending: str = ".json"
    types: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._connector = Connector(FileConnection(), ConnectionContext("json", self.scratch))

    @property
    def connector(self) -> Connector:
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = JsonEndpoint(file_path=f"out/{name}{self.ending}", mode=mode, upsert_keys=list(keys), **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def request(self, table: pa.Table, *args: Any, **kwargs: Any) -> PublishRequest:
        self.types = {item.name: column_type(item.type) for item in table.schema}
        return super().request(table, *args, **kwargs)

    def source_options(self, name: str) -> JsonSource:
        return JsonSource(file_path=f"out/{name}{self.ending}", column_types=self.types)


LOSSY = {
    **dict.fromkeys((*BYTES, "duration_us"), Lossy("JSON has no bytes and no durations")),
    **dict.fromkeys(NESTED, Lossy("nested values are not written; others' files are read with their JSON text")),
    **dict.fromkeys(FLOATS, Lossy("JSON has no NaN and no infinity")),
}


class TestDocument(ConnectorContract):
    """An array of objects."""

    lossy: ClassVar[dict[str, Lossy]] = LOSSY

    @pytest.fixture
    def harness(self, tmp_path: Path) -> JsonHarness:
        return JsonHarness(tmp_path)


class TestLines(ConnectorContract):
    """One object per line."""

    lossy: ClassVar[dict[str, Lossy]] = LOSSY

    @pytest.fixture
    def harness(self, tmp_path: Path) -> JsonHarness:
        return JsonHarness(tmp_path, ending=".ndjson")


class TestDocumentSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> JsonHarness:
        return JsonHarness(tmp_path)


class TestLinesSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> JsonHarness:
        return JsonHarness(tmp_path, ending=".ndjson")


def read(folder: Path, text: str, *, name: str = "in.json", columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
    """What a source step reads of a file with this text."""
    (folder / name).write_text(text)
    connector = Connector(FileConnection(), ConnectionContext("json", folder))
    request = ReadRequest(JsonSource(file_path=name, **options), columns=tuple(columns) if columns else None)
    with connector.read(request) as reader:
        return reader.read_all()


FOUND: dict[str, tuple[str, pa.DataType, list[Any]]] = {
    "whole numbers": ("[1, null, -9223372036854775808]", pa.int64(), [1, None, -(2**63)]),
    "beyond what a float holds": ("[9007199254740993]", pa.int64(), [9007199254740993]),
    "beyond 64 bits": ("[9223372036854775808]", pa.decimal128(38, 0), [Decimal(2**63)]),
    "floats": ("[0.1, 1, 1e300]", pa.float64(), [0.1, 1.0, 1e300]),
    "long decimals": ("[0.12345678901234567890]", pa.decimal128(38, 20), [Decimal("0.12345678901234567890")]),
    "numbers in text stay text": ('["1", "00123"]', pa.string(), ["1", "00123"]),
    "dates": ('["2024-02-29"]', pa.date32(), [date(2024, 2, 29)]),
    "instants": ('["2024-02-29T00:00:00Z"]', pa.timestamp("us", "UTC"), [datetime(2024, 2, 29, tzinfo=UTC)]),
    "nearly dates": ('["2024-02-29", "soon"]', pa.string(), ["2024-02-29", "soon"]),
    "truth": ("[true, false, null]", pa.bool_(), [True, False, None]),
    "nothing": ("[null, null]", pa.null(), [None, None]),
    "nested": ('[{"a": 1.10, "b": [true, "\u00e9"]}, [1]]', pa.string(), ['{"a":1.10,"b":[true,"\u00e9"]}', "[1]"]),
}


@pytest.mark.parametrize("case", FOUND)
def test_values_are_kept(tmp_path: Path, case: str) -> None:
    text, kind, values = FOUND[case]
    items = json.loads(text, parse_float=str)
    assert len(items) == len(values)
    rows = text[1:-1].split(", ") if "nested" not in case else ['{"a": 1.10, "b": [true, "\u00e9"]}', "[1]"]
    found = read(tmp_path, "[" + ",".join(f'{{"v": {row}}}' for row in rows) + "]")
    assert found.schema.field("v").type == kind
    assert found["v"].to_pylist() == values


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('[{"a": 1}, {"b": 2}]', {}),
        ('\ufeff  [{"a":1},\n{"b":2}]\n', {}),
        ('{"meta": {"n": [1]}, "data": {"rows": [{"a": 1}, {"b": 2}], "more": 5}}', {"records_path": "data.rows"}),
        ('{"data": [{"a": 1}, {"b": 2}]}', {"json_path": "$.data"}),
        ('{"a": 1}\n\n{"b": 2}', {"format": "ndjson"}),
        ('{"a": 1}\r\n{"b": 2}\r\n', {"format": "ndjson"}),
    ],
)
def test_where_rows_are(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    assert read(tmp_path, text, **options).to_pydict() == {"a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize(
    ("text", "options", "culprit"),
    [
        ('[{"a": 1}, {"a": 2', {}, "in.json"),
        ('[{"a": 1}] [{"a": 2}]', {}, "goes on"),
        ('{"a": 1}', {}, "no array"),
        ("[1, 2]", {}, "row 1"),
        ('{"rows": []}', {"records_path": "data"}, "'data'.*'rows'"),
        ('{"a": 1}\n{"a": }\n', {"format": "ndjson"}, "in.json:2"),
        ('[{"a": 1}]\n', {"format": "ndjson"}, "line 1"),
        ("", {}, "no array"),
        ("[" * 100_000, {}, "in.json"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, options: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ReadFailed, match=culprit):
        read(tmp_path, text, **options)


def test_mixed_kinds_are_refused_unless_declared(tmp_path: Path) -> None:
    text = '[{"v": 1}, {"v": "x"}, {"v": true}]'
    with pytest.raises(ValueRefused, match="'v'") as caught:
        read(tmp_path, text)
    assert "column_types: {v: string}" in caught.value.hint
    assert read(tmp_path, text, column_types={"v": "string"})["v"].to_pylist() == ["1", "x", "true"]


@pytest.mark.parametrize("late", ['{"v": 1.5}', '{"v": "1"}', '{"v": true}', '{"v": 1, "w": 1}'])
def test_what_comes_late_and_does_not_fit_is_refused_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    monkeypatch.setattr(_json_reading, "_SAMPLE_ROWS", 1000)
    text = '{"v": 1}\n' * 20_000 + late + "\n"
    with pytest.raises(ValueRefused, match="row 20001"):
        read(tmp_path, text, name="in.ndjson")


def test_a_document_is_streamed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_json_reading, "_CHUNK", 7)
    rows = [{"n": number, "t": f"text {number} \u00e9", "x": [number]} for number in range(300)]
    found = read(tmp_path, json.dumps({"skip": {"a": [1, 2]}, "rows": rows}, indent=1), records_path="rows", columns=["t", "n"])
    assert found.to_pylist() == [{"t": row["t"], "n": row["n"]} for row in rows]


def test_the_text_that_is_written(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([2**63 - 1, None], pa.int64()),
            "x": [0.1, 100.0],
            "d": pa.array([Decimal("1.10"), None], pa.decimal128(5, 2)),
            "t": ['say "hi" \\ \n\x01', ""],
            "at": pa.array([datetime(2024, 1, 1), None], pa.timestamp("us", "UTC")),
            "ok": [True, None],
        }
    )
    first = '{"n":9223372036854775807,"x":0.1,"d":1.10,"t":"say \\"hi\\" \\\\ \\n\\u0001","at":"2024-01-01T00:00:00.000000Z","ok":true}'
    second = '{"n":null,"x":100.0,"d":null,"t":"","at":null,"ok":null}'
    for ending, text in {".ndjson": f"{first}\n{second}\n", ".json": f"[\n{first},\n{second}\n]\n"}.items():
        harness = JsonHarness(tmp_path, ending=ending)
        harness.publish(table, harness.make_target("x", WriteMode.REPLACE), unit())
        assert (tmp_path / "out" / f"x{ending}").read_text() == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_not_is_refused(tmp_path: Path, value: float) -> None:
    harness = JsonHarness(tmp_path)
    with pytest.raises(ValueRefused, match="'x'"):
        harness.publish(pa.table({"x": [value]}), harness.make_target("x", WriteMode.REPLACE), unit())


def test_floats_come_back(tmp_path: Path) -> None:
    harness = JsonHarness(tmp_path)
    table = pa.table({"x": [0.1, 1 / 3, -0.0, 5e-324, 1e22, 100.0, 1.7976931348623157e308, None]})
    harness.publish(table, harness.make_target("x", WriteMode.REPLACE), unit())
    harness.types = {}
    found = harness.read("x")
    assert [repr(value) for value in found["x"].to_pylist()] == [repr(value) for value in table["x"].to_pylist()]
