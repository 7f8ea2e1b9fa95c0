"""Pages of an API: every manner, and the guards against rows that are lost or come twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from dataflow_assets.connectors._http_options import HttpSource
from dataflow_assets.errors import ReadFailed
from dataflow_assets_tests.connectors.paged_api import IDS, Api, params, read
from dataflow_assets_tests.services.http_server import served


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with served(api.route) as api.server:
        yield api


def test_pages_by_number(api: Api) -> None:
    assert read(api, "page", {"type": "page"})["id"].to_pylist() == IDS
    assert params(api, "page") == ["1", "2", "3", "4"], "a short page is not the last one: the server may give fewer at a time"


def test_pages_by_number_end_at_the_total(api: Api) -> None:
    assert read(api, "page", {"type": "page", "total": "total"})["id"].to_pylist() == IDS
    assert params(api, "page") == ["1", "2", "3"]


def test_pages_by_offset_when_the_server_gives_fewer_than_asked(api: Api) -> None:
    pagination = {"type": "offset", "size_parameter": "limit", "size": 1000}
    assert read(api, "offset", pagination)["id"].to_pylist() == IDS
    assert params(api, "offset") == ["0", "10", "20", "25"]
    assert set(params(api, "limit")) == {"1000"}


def test_pages_by_offset_end_at_the_total_of_a_header(api: Api) -> None:
    assert read(api, "offset", {"type": "offset", "total": "header X-Total-Count"})["id"].to_pylist() == IDS
    assert params(api, "offset") == ["0", "10", "20"]


def test_pages_by_cursor(api: Api) -> None:
    assert read(api, "cursor", {"type": "cursor", "next": "meta.next"})["id"].to_pylist() == IDS
    assert params(api, "cursor") == ["", "c10", "c20"]


def test_pages_by_cursor_in_the_body(api: Api) -> None:
    pagination = {"type": "cursor", "next": "meta.next", "parameter": "after", "place": "body", "size_parameter": "size", "size": 10}
    assert read(api, "cursor", pagination, method="POST", body={"q": "all"})["id"].to_pylist() == IDS
    assert [asked.json for asked in api.server.log] == [
        {"q": "all", "size": 10},
        {"q": "all", "size": 10, "after": "c10"},
        {"q": "all", "size": 10, "after": "c20"},
    ]


def test_pages_by_link_header(api: Api) -> None:
    keys = {"api_key": "k3y-value", "key_parameter": "key"}
    assert read(api, "link", {"type": "link"}, params={"q": "a,b"}, connection=keys)["id"].to_pylist() == IDS
    assert params(api, "from") == ["", "10", "20"]
    assert params(api, "q") == ["a,b"] * 3
    assert params(api, "key") == ["k3y-value"] * 3


def test_pages_by_url_in_the_body(api: Api) -> None:
    assert read(api, "url", {"type": "next_url", "next": "next"})["id"].to_pylist() == IDS


# -- a cut-off is an error


def test_a_link_to_more_is_not_overlooked(api: Api) -> None:
    with pytest.raises(ReadFailed, match="names a next page") as caught:
        read(api, "link", {"type": "none"})
    assert "type: link" in caught.value.hint


def test_too_many_pages(api: Api) -> None:
    with pytest.raises(ReadFailed, match="more than 2 pages"):
        read(api, "page", {"type": "page"}, max_pages=2)
    assert read(api, "page", {"type": "page"}, max_pages=4).num_rows == 25


def test_an_api_that_knows_no_pages(api: Api) -> None:
    with pytest.raises(ReadFailed, match="page 2 holds the same as the one before") as caught:
        read(api, "ignorant", {"type": "page"})
    assert "'page'" in caught.value.hint


def test_pages_in_a_circle(api: Api) -> None:
    with pytest.raises(ReadFailed, match="leads back"):
        read(api, "circle", {"type": "next_url", "next": "next"})


@pytest.mark.parametrize(
    ("pagination", "culprit"),
    [
        ({"type": "cursor", "next": "mata.next"}, "no key 'mata' in an object with 'items', 'meta'"),
        ({"type": "cursor", "next": "items[0]"}, "leads to no key"),
        ({"type": "cursor", "next": "meta"}, "no single value"),
        ({"type": "cursor", "next": "meta.next", "total": "count"}, "no number at 'count'"),
        ({"type": "cursor", "next": "meta.next", "total": "header X-Nope"}, "no number at 'header X-Nope'"),
    ],
)
def test_a_path_of_pagination_that_leads_nowhere(api: Api, pagination: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ReadFailed, match=culprit):
        read(api, "cursor", pagination)


@pytest.mark.parametrize(
    "pagination",
    [
        {"type": "cursor"},
        {"type": "next_url"},
        {"type": "page", "next": "a"},
        {"type": "link", "parameter": "p"},
        {"type": "page", "size": 1},
        {"type": "cursor", "next": "a[*].b"},
        {"type": "cursor", "next": "a", "first": 1},
        {"type": "offset", "place": "body"},
    ],
)
def test_pagination_that_is_refused(pagination: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpSource.model_validate({"pagination": pagination})


# -- rows that move


def test_a_row_that_comes_twice_is_noticed(api: Api) -> None:
    assert read(api, "shifting", {"type": "offset"})["id"].to_pylist().count(9) == 2, "nothing tells"
    api.steps = 0
    with pytest.raises(ReadFailed, match="id = 9 came twice") as caught:
        read(api, "shifting", {"type": "offset"}, key="id")
    assert caught.value.transient


def test_a_total_that_changes_is_noticed(api: Api) -> None:
    with pytest.raises(ReadFailed, match="25 rows in all, now there are 26") as caught:
        read(api, "shifting", {"type": "offset", "total": "total"})
    assert caught.value.transient


def test_rows_that_are_missing_are_noticed(api: Api) -> None:
    with pytest.raises(ReadFailed, match="25 rows came, of 26"):
        read(api, "shrinking", {"type": "offset", "total": "total"})


def test_a_key_that_is_no_column(api: Api) -> None:
    with pytest.raises(ReadFailed, match="row 1 has no 'nope' of key"):
        read(api, "page", {"type": "page"}, key="nope")
