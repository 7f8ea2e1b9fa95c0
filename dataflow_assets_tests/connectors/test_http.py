"""The HTTP connector against a real local server: the contract of a source, what it reads, windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets.connectors import _http_rows, _http_session
from dataflow_assets.connectors._http_options import HttpSource
from dataflow_assets.connectors.http import Connector
from dataflow_assets.errors import ReadFailed, ValueRefused
from dataflow_assets.tables import WindowFilter
from dataflow_assets.windows import Window
from dataflow_assets_tests.connectors.arrow_types import BYTES, FLOATS, NESTED
from dataflow_assets_tests.connectors.contract_reading import SourceContract
from dataflow_assets_tests.connectors.harness import Lossy, SourceHarness, column_type
from dataflow_assets_tests.connectors.json_rows import as_json_text, json_rows
from dataflow_assets_tests.connectors.over_http import connect, read
from dataflow_assets_tests.services.http_server import Answer, Asked, Server, served

SECRET = "correct horse battery"
LOSSY = {
    **dict.fromkeys((*BYTES, "duration_us"), Lossy("JSON has no such values: an API sends them as text of its own")),
    **dict.fromkeys(NESTED, Lossy("nested values become their JSON text", as_json_text)),
    **dict.fromkeys(FLOATS, Lossy("JSON has no NaN and no infinity")),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(_http_session, "_FIRST_DELAY", 0.001)


@dataclass
class HttpHarness(SourceHarness):
    """An API that hands out tables in pages, and repeats in its errors what it was sent."""

    secret: str | None = SECRET
    server: Server | None = None
    tables: dict[str, list[str]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    _connector: Connector | None = field(default=None, repr=False)

    def route(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {SECRET}":
            return Answer(f"not {asked.headers}", 401)
        rows = self.tables.get(unquote(asked.path).removeprefix("/api/tables/"))
        if rows is None:
            return Answer(f"no {asked.path} for {asked.headers}", 404)
        offset = int(asked.one("offset", "0"))
        return Answer(f'{{"total": {len(rows)}, "items": [{",".join(rows[offset : offset + 20_000])}]}}')

    @property
    def connector(self) -> Connector:
        assert self.server is not None
        if self._connector is None:
            self._connector = connect(self.server, token=SECRET)
        return self._connector

    def fill(self, name: str, table: pa.Table) -> None:
        self.types = {item.name: column_type(item.type) for item in table.schema if not pa.types.is_nested(item.type)}
        self.tables[name] = json_rows(table)

    def source_options(self, name: str) -> HttpSource:
        return HttpSource(
            path=f"tables/{quote(name)}",
            rows="items",
            pagination={"type": "offset", "total": "total"},
            column_types=self.types,
        )


class TestHttp(SourceContract):
    """JSON in pages by offset, with the types declared."""

    lossy: ClassVar[dict[str, Lossy]] = LOSSY

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[HttpHarness]:
        harness = HttpHarness(tmp_path)
        with served(harness.route) as harness.server:
            yield harness
            harness.connector.close()


# -- what is read


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ([{"a": 1}, {"a": 2}], ""),
        ({"result": [{"a": 1}, {"a": 2}]}, "result"),
        ({"data": {"items": [{"a": 1}, {"a": 2}]}}, "$.data.items"),
        ({"odd.key": [{"a": 1}, {"a": 2}]}, '["odd.key"]'),
        ({"it's": [0, [{"a": 1}, {"a": 2}]]}, '["it\'s"][1]'),
        ([{"rows": [{"a": 1}]}, {"rows": None}, {"rows": [{"a": 2}]}], "[*].rows"),
        ({"groups": [[{"a": 1}], [{"a": 2}]]}, "groups[*]"),
    ],
)
def test_where_rows_are(body: Any, rows: str) -> None:
    assert read(Answer(body), rows=rows).to_pydict() == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("body", "rows", "culprit"),
    [
        ({"result": []}, "results", "no key 'results' in an object with 'result'"),
        ({"result": {}}, "result", "result is an object with no keys, not a list"),
        ({"result": [1]}, "result", "row 1 is no object"),
        ([], "[0]", r"no item \[0\] in a list of 0"),
        ("7", "", "a single value"),
    ],
)
def test_rows_that_are_not_there(body: Any, rows: str, culprit: str) -> None:
    with pytest.raises(ReadFailed, match=culprit) as caught:
        read(Answer(body), rows=rows)
    assert not caught.value.transient


@pytest.mark.parametrize("path", ["a..b", "a.", "[x]", "['a]", "a b", "[-1]", "a[", "."])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="is not a path"):
        HttpSource(rows=path)


def test_types_are_found_as_in_json_files() -> None:
    body = '[{"n": 9007199254740993, "d": 0.12345678901234567890, "t": "2024-01-01T00:00:00Z", "x": {"y": 1.10}, "z": null, "b": true}]'
    found = read(Answer(body))
    assert found["n"].to_pylist() == [9007199254740993]
    assert found["d"].to_pylist() == [Decimal("0.12345678901234567890")]
    assert found["t"].to_pylist() == [datetime(2024, 1, 1, tzinfo=UTC)]
    assert found["x"].to_pylist() == ['{"y":1.10}']
    assert (found["z"].to_pylist(), found["b"].to_pylist()) == ([None], [True])


def test_what_comes_late_and_does_not_fit_is_refused_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http_rows, "_SAMPLE_ROWS", 10)
    rows: list[dict[str, Any]] = [{"v": number} for number in range(30)]
    with pytest.raises(ValueRefused, match=r"row 31: column 'v': 'x' cannot be kept as int64, the type found in the first 10 rows"):
        read(Answer([*rows, {"v": "x"}]))
    with pytest.raises(ValueRefused, match=r"row 31: key 'w' was in none of the first 10 rows"):
        read(Answer([*rows, {"w": 1}]))
    assert read(Answer([*rows, {"v": "x"}]), column_types={"v": "string"})["v"].to_pylist()[-1] == "x"


def test_texts_that_mean_null() -> None:
    body = [{"at": "2024-01-01", "n": ""}, {"at": "", "n": "x"}]
    assert read(Answer(body), null_values=[""]).schema.field("at").type == pa.date32()
    assert read(Answer(body), null_values=[""])["n"].to_pylist() == [None, "x"]


def test_no_rows_have_the_columns_that_are_named() -> None:
    assert read(Answer([]), column_types={"a": "int64", "b": "string"}).schema == pa.schema([("a", pa.int64()), ("b", pa.string())])
    assert read(Answer([]), columns=["b"]).schema.names == ["b"]
    assert read(Answer(status=204), column_types={"a": "int64"}).num_rows == 0
    with pytest.raises(ReadFailed, match="no rows came") as caught:
        read(Answer([]))
    assert "column_types" in caught.value.hint


def test_ndjson() -> None:
    answer = Answer('{"a": 1}\n{"a": 2}\n\n', headers={"Content-Type": "application/x-ndjson"})
    assert read(answer, format="ndjson").to_pydict() == {"a": [1, 2]}


def test_csv() -> None:
    answer = Answer("a;b\n1;\u00e9\n2;\n".encode("cp1252"), headers={"Content-Type": "text/csv; charset=cp1252"})
    found = read(answer, format="csv", delimiter=";", columns=["b", "a"])
    assert found.to_pydict() == {"b": ["\u00e9", None], "a": [1, 2]}
    with pytest.raises(ReadFailed, match="text/html"):
        read(Answer("a", headers={"Content-Type": "text/html"}), format="csv")


def test_parameters_and_body() -> None:
    asked: list[Asked] = []

    def route(request: Asked) -> Answer:
        asked.append(request)
        return Answer([{"a": 1}])

    params = {"q": "a b&c=d", "tag": ["x", "y"], "n": 1, "yes": True, "none": None}
    read(route, path="/search?fixed=1", method="POST", params=params, body={"filter": {"state": "open"}})
    assert asked[0].path == "/api/search"
    assert asked[0].query == {"fixed": ["1"], "q": ["a b&c=d"], "tag": ["x", "y"], "n": ["1"], "yes": ["true"], "none": [""]}
    assert asked[0].json == {"filter": {"state": "open"}}
    assert asked[0].headers["content-type"] == "application/json"


# -- windows

AT = "at"
MARCH_10 = WindowFilter(AT, Window(datetime(2024, 3, 10, tzinfo=UTC), datetime(2024, 3, 11, tzinfo=UTC)))
FIVE = WindowFilter(AT, Window(datetime(2024, 3, 10, 5, tzinfo=UTC), datetime(2024, 3, 10, 6, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({"start": "from", "end": "to"}, {"from": "2024-03-10T00:00:00Z", "to": "2024-03-11T00:00:00Z"}),
        ({"start": "from", "timezone": "Europe/Berlin"}, {"from": "2024-03-10T01:00:00+01:00"}),
        ({"start": "from", "end": "to", "format": "epoch"}, {"from": "1710028800", "to": "1710115200"}),
        ({"start": "from", "end": "to", "format": "epoch_ms"}, {"from": "1710028800000", "to": "1710115200000"}),
        ({"start": "from", "end": "to", "format": "date"}, {"from": "2024-03-10", "to": "2024-03-11"}),
        ({"parameter": "q", "text": "at>={start}^at<{end}", "format": "%Y%m%d %H:%M"}, {"q": "at>=20240310 00:00^at<20240311 00:00"}),
    ],
)
def test_the_window_is_told(options: dict[str, Any], sent: dict[str, str]) -> None:
    asked: list[Asked] = []

    def route(request: Asked) -> Answer:
        asked.append(request)
        return Answer([{"at": "2024-03-09T23:59:59.999Z"}, {"at": "2024-03-10T00:00:00Z"}, {"at": "2024-03-11T00:00:00Z"}])

    found = read(route, within=MARCH_10, params={"q": "all", "x": 1}, window=options)
    assert found[AT].to_pylist() == [datetime(2024, 3, 10, tzinfo=UTC)], "rows outside the window are left out"
    assert {name: values for name, values in asked[0].query.items() if name in sent} == {name: [value] for name, value in sent.items()}
    assert asked[0].query["x"] == ["1"]


def test_without_windows_none_is_told() -> None:
    asked: list[Asked] = []

    def route(request: Asked) -> Answer:
        asked.append(request)
        return Answer([{"at": "2024-03-09T23:59:59Z"}])

    assert read(route, params={"q": "all"}, window={"parameter": "q", "text": "at>{start}"}).num_rows == 1
    assert asked[0].query == {"q": ["all"]}


def test_the_window_in_a_body() -> None:
    asked: list[Asked] = []

    def route(request: Asked) -> Answer:
        asked.append(request)
        return Answer([{"at": "2024-03-10T05:30:00Z"}])

    window = {"start": "from", "end": "to", "place": "body"}
    read(route, within=FIVE, method="POST", body={"q": 1}, window=window)
    assert asked[0].json == {"q": 1, "from": "2024-03-10T05:00:00Z", "to": "2024-03-10T06:00:00Z"}


@pytest.mark.parametrize("options", [{"format": "date"}, {"format": "%Y-%m-%d"}, {"format": "date", "timezone": "Asia/Tokyo"}])
def test_a_format_that_cannot_say_the_end_is_refused(options: dict[str, Any]) -> None:
    """The API would be asked for less than the window."""
    with pytest.raises(ValueRefused, match="cannot be said as"):
        read(Answer([]), within=FIVE, window={"start": "from", "end": "to", **options})
    assert read(Answer([{"at": "2024-03-10T05:30:00Z"}]), within=FIVE, window={"start": "from", **options}).num_rows == 1


def test_a_row_without_a_time_is_refused() -> None:
    with pytest.raises(ValueRefused, match="no value in column 'at'"):
        read(Answer([{"at": "2024-03-10T05:30:00Z"}, {"at": None}]), within=FIVE)


def test_an_empty_window_needs_its_column_declared() -> None:
    with pytest.raises(ReadFailed, match="no rows came"):
        read(Answer([]), within=FIVE, column_types={"a": "int64"})
    assert read(Answer([]), within=FIVE, column_types={"at": "timestamp[UTC]", "a": "int64"}).column_names == ["at", "a"]
