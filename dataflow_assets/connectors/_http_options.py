"""What a user may say of an HTTP API: the connection, the source, its pages, its window.

Here: the models and the refusals that they can decide by themselves. Not here: what becomes of them (`_http_pages`, `_http_rows`).
"""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from dataflow_assets.connectors._http_session import Policy
from dataflow_assets.connectors._json_path import JsonPath
from dataflow_assets.spec.base import Model, Names
from dataflow_assets.spec.models import SourceOptions
from dataflow_assets.windows import parse_duration

_RATE = re.compile(r"^\s*(?P<count>\d+)\s*/\s*(?P<unit>s|second|min|minute|h|hour)\s*$")
_UNIT_SECONDS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_PARAMETER = {"page": "page", "offset": "offset", "cursor": "cursor"}
_HEADER = re.compile(r"^header\s+(?P<name>\S+)$")
Place = Literal["query", "body"]


class PoliteConnection(Model):
    """The keys of every connection over HTTP that say how to ask."""

    timeout: str = Field("30s", description="how long the server may stay silent")
    response_timeout: str = Field("10min", description="how long one reply may take in all")
    retries: int = Field(5, ge=0, description="how often a request is tried again after a transient failure")
    retry_budget: str = Field("5min", description="how long one request may wait between tries in all, Retry-After included")
    rate_limit: str | None = Field(None, description="most requests of this process, e.g. 10/s or 100/min")
    verify: bool | str = Field(True, description="false trusts any certificate; a path: the certificates to trust")
    max_response_mb: int = Field(64, ge=1, description="a larger page is refused")

    @field_validator("timeout", "response_timeout", "retry_budget")
    @classmethod
    def _is_a_duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, value: str | None) -> str | None:
        if value is not None and (not (match := _RATE.match(value)) or int(match["count"]) == 0):
            raise ValueError(f"{value!r} is no rate: write 10/s, 100/min or 1000/h")
        return value

    @property
    def policy(self) -> Policy:
        """The same in seconds and bytes."""
        match = _RATE.match(self.rate_limit or "")
        return Policy(
            timeout=parse_duration(self.timeout).total_seconds(),
            response_timeout=parse_duration(self.response_timeout).total_seconds(),
            retries=self.retries,
            budget=parse_duration(self.retry_budget).total_seconds(),
            interval=_UNIT_SECONDS[match["unit"]] / int(match["count"]) if match else 0.0,
            verify=self.verify,
            largest=self.max_response_mb * 1024 * 1024,
        )


def checked_address(value: str) -> str:
    """Raises ValueError for text that is no http(s) URL, or one with a password in it."""
    if not re.match(r"^https?://[^/\s?#]+", value):
        raise ValueError("write a URL that begins with https:// or http://")
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise ValueError("leave user and password out of the URL: they have keys of their own")
    return value


class HttpConnection(PoliteConnection):
    """The keys of an HTTP API. At most one way to log in: a name and password, a token, a key, or an OAuth2 client."""

    base_url: str = Field(description="what every path is below, e.g. https://example.service-now.com/api/now")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="sent with every request")
    username: str | None = Field(None, description="for basic authentication")
    password: SecretStr | None = Field(None, description="for basic authentication")
    token: SecretStr | None = Field(None, description="sent as a bearer token")
    api_key: SecretStr | None = Field(None, description="sent in the header or parameter below")
    key_header: str | None = Field(None, description="the header of api_key; default: X-API-Key")
    key_parameter: str | None = Field(None, description="the query parameter of api_key, in place of a header")
    oauth2_url: str | None = Field(None, description="where tokens are given out, for OAuth2 client credentials")
    client_id: str | None = Field(None, description="the OAuth2 client")
    client_secret: SecretStr | None = Field(None, description="its secret")
    scope: str | None = Field(None, description="the OAuth2 scopes, separated by spaces")
    oauth2_params: dict[str, str] = Field(default_factory=dict, description="further fields of the token request, e.g. audience")
    client_auth: Literal["body", "header"] = Field("body", description="where the token request holds client_id and client_secret")
    probe_path: str = Field("", description="a path that answers quickly, to see whether the API is there; default: base_url itself")

    _base_url_is_an_address = field_validator("base_url")(checked_address)

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        ways = {
            "password": self.password or self.username,
            "token": self.token,
            "api_key": self.api_key,
            "oauth2_url": self.oauth2_url or self.client_id or self.client_secret,
        }
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"there is more than one way to log in: {', '.join(given)}")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")
        if given == ["oauth2_url"] and not (self.oauth2_url and self.client_id and self.client_secret):
            raise ValueError("OAuth2 needs oauth2_url, client_id and client_secret")
        if (self.key_header or self.key_parameter) and (self.api_key is None or (self.key_header and self.key_parameter)):
            raise ValueError("api_key goes into key_header or key_parameter, one of them")
        return self


class Pagination(Model):
    """How the API hands out many rows."""

    type: Literal["none", "link", "next_url", "page", "offset", "cursor"] = Field(
        "none", description="link (header), next_url, page, offset, cursor; none: all rows come in one reply"
    )
    parameter: str = Field("", description="the parameter of the page number, offset or cursor; default: page, offset, cursor")
    size_parameter: str | None = Field(None, description="the parameter of the page's size; needs size")
    size: int | None = Field(None, ge=1, description="rows to ask for at a time")
    first: int | None = Field(None, ge=0, description="the number of the first page (default 1) or the first offset (default 0)")
    next: str | None = Field(None, description="JSON path to the next URL or cursor; null, empty or absent there: the last page")
    total: str | None = Field(None, description="how many rows there are: a JSON path, or header X-Total-Count; pages then end there")
    place: Place = Field("query", description="whether parameters go into the query or into the JSON body")

    @field_validator("next", "total")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and not _HEADER.match(value) and None in JsonPath.parse(value).steps:
            raise ValueError("[*] means several values; one is wanted here")
        return value

    @model_validator(mode="after")
    def _keys_fit_the_type(self) -> Self:
        wants_next = self.type in {"next_url", "cursor"}
        if wants_next and self.next is None:
            raise ValueError(f"pagination by {self.type} needs next: the JSON path to it")
        if self.next is not None and (not wants_next or _HEADER.match(self.next)):
            raise ValueError("next is a JSON path, for next_url and cursor")
        if self.parameter and self.type not in _PARAMETER:
            raise ValueError(f"pagination by {self.type} has no parameter")
        if (self.size_parameter is None) != (self.size is None):
            raise ValueError("size_parameter and size belong together")
        if self.first is not None and self.type not in {"page", "offset"}:
            raise ValueError("first is for page and offset")
        return self

    @property
    def key(self) -> str:
        """The parameter that moves on."""
        return self.parameter or _PARAMETER.get(self.type, "")

    @property
    def total_header(self) -> str | None:
        """The header that tells the total, if it is one."""
        match = _HEADER.match(self.total or "")
        return match["name"] if match else None


class WindowParameters(Model):
    """Which parameters tell the API the window. Rows outside it that come anyway are left out."""

    start: str | None = Field(None, description="the parameter of the window's start")
    end: str | None = Field(None, description="the parameter of the window's end")
    parameter: str | None = Field(None, description="one parameter for both, with text; takes the place of one in params")
    text: str | None = Field(None, description="the value of parameter, with {start} and {end} in it")
    format: str = Field("iso", description="iso, date, epoch, epoch_ms, or a pattern as of strftime")
    timezone: str = Field("UTC", description="whose clock iso, date and pattern show")
    place: Place = Field("query", description="whether they go into the query or into the JSON body")

    @model_validator(mode="after")
    def _start_or_text(self) -> Self:
        if (self.parameter is None) != (self.text is None):
            raise ValueError("parameter and text belong together")
        if self.parameter is None and self.start is None:
            raise ValueError("write start (and end), or parameter and text")
        if self.text is not None and "{start}" not in self.text:
            raise ValueError("text wants {start}, and {end} where the API can take one")
        return self

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, value: str) -> str:
        from dataflow_assets.windows import Cadence

        return Cadence("day", value).timezone


class HttpSource(SourceOptions):
    """What to ask for, and where in the replies the rows are."""

    path: str = Field("", description="below base_url")
    method: Literal["GET", "POST"] = Field("GET", description="POST for APIs that search by it; it must change nothing")
    params: dict[str, Any] = Field(default_factory=dict, description="query parameters; a list repeats the parameter")
    body: dict[str, Any] | None = Field(None, description="the JSON body of a POST")
    format: Literal["json", "ndjson", "csv"] = Field("json", description="what the API answers with; csv only in one reply")
    rows: str = Field("", description="JSON path to the list of rows, e.g. result or data.items; default: the document is the list")
    delimiter: str = Field(",", min_length=1, max_length=1, description="of a csv")
    pagination: Pagination = Field(default_factory=lambda: Pagination(), description="how the API hands out many rows")
    window: WindowParameters | None = Field(None, description="which parameters tell the API the window")
    key: Names = Field(default_factory=list, description="the columns that identify a row: one that comes twice is an error")
    column_types: dict[str, str] = Field(default_factory=dict, description="column -> int64, decimal(12,2), string, timestamp[UTC], ...")
    null_values: Names = Field(default_factory=list, description='texts that mean null, e.g. [""]')
    max_pages: int = Field(10_000, ge=1, description="more pages than these are an error")

    @field_validator("rows")
    @classmethod
    def _rows_is_a_path(cls, value: str) -> str:
        JsonPath.parse(value)
        return value

    @model_validator(mode="after")
    def _format_fits(self) -> Self:
        if self.body is not None and self.method != "POST":
            raise ValueError("a body needs method: POST")
        in_body = [part for part in (self.pagination, self.window) if part is not None and part.place == "body"]
        if in_body and self.method != "POST":
            raise ValueError("parameters in the body need method: POST")
        if self.format != "json" and (self.rows or self.pagination.next or (self.pagination.total and not self.pagination.total_header)):
            raise ValueError(f"a JSON path leads nowhere in {self.format}")
        if self.format == "csv" and (self.pagination.type != "none" or self.key):
            raise ValueError("a csv comes in one reply: leave pagination and key out")
        return self
