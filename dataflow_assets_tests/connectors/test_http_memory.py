"""Reading over HTTP takes the memory of a few pages, however many there are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dataflow_assets_tests.services.elasticsearch import stubbed
from dataflow_assets_tests.services.http_server import Answer, Asked, served

_CHILD = """
import resource, sys
from pathlib import Path
from dataflow_assets.connectors import elasticsearch, http
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import ReadRequest

kind, address, key = {"http": http, "elasticsearch": elasticsearch}[sys.argv[1]], *sys.argv[2:]
if kind is http:
    connection = http.HttpConnection(base_url=address)
    options = http.HttpSource(pagination={"type": "page"}, column_types={"text": "string"})
else:
    connection = elasticsearch.ElasticsearchConnection(url=address, api_key=key)
    options = elasticsearch.ElasticsearchSource(index="big", page_size=200)
connector = kind.Connector(connection, ConnectionContext("c", Path()))
rows, before = 0, None
with connector.read(ReadRequest(options)) as reader:
    for batch in reader:
        rows += batch.num_rows
        before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
connector.close()
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
_PAGES, _ROWS, _TEXT = 200, 200, "x" * 10_000


def _grown(kind: str, address: str, key: str = "") -> tuple[int, int]:
    """Rows read by a fresh process, and the MB by which it grew after the first batch."""
    done = subprocess.run([sys.executable, "-c", _CHILD, kind, address, key], capture_output=True, text=True, check=True)
    rows, megabytes = map(int, done.stdout.split())
    return rows, megabytes


def test_pages_of_an_api() -> None:
    """400 MB in pages of 2 MB."""

    def route(asked: Asked) -> Answer:
        page = int(asked.one("page"))
        return Answer([{"id": page * _ROWS + number, "text": _TEXT} for number in range(_ROWS)] if page <= _PAGES else [])

    with served(route) as server:
        rows, megabytes = _grown("http", server.url)
    assert rows == _PAGES * _ROWS
    assert megabytes < 100


@pytest.mark.parametrize("copies", [40])
def test_pages_of_an_index(copies: int) -> None:
    """80 MB in pages of 2 MB; the stub holds all of it."""
    with stubbed() as cluster:
        cluster.put("big", {"properties": {"text": {"type": "text"}}}, [f'{{"text": "{_TEXT}"}}'] * (copies * _ROWS))
        rows, megabytes = _grown("elasticsearch", cluster.url, "c3R1Yi1pZDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk=")
    assert rows == copies * _ROWS
    assert megabytes < 60
