"""Elasticsearch or OpenSearch for tests: a real one where TEST_ELASTICSEARCH_URL names it, else a stub that speaks its protocol.

Here: the ladder; the stub, which knows the calls that a reader makes and a few queries; and what fills an index over the same HTTP
calls on both. The stub is canned behaviour after the documentation: it proves paging, retries and clean-up, not what a cluster
makes of mappings, analyzers or shards. What it does not know it answers with 400, so that no test passes by accident.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import pytest

from dataflow_assets.connectors._json_reading import Number, as_json, parse_json
from dataflow_assets_tests.services.http_server import Answer, Asked, Server, served
from dataflow_assets_tests.services.ladder import note_rung

API_KEY = "stub-id:correct horse battery"
_HEADER = "ApiKey c3R1Yi1pZDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk="
Document = dict[str, Any]


class Refused(Exception):
    """An error reply: status, type, reason."""


@dataclass
class Index:
    """Documents in the order they came, and the mapping."""

    mapping: dict[str, Any]
    documents: dict[str, Document] = field(default_factory=dict)


@dataclass
class Snapshot:
    """A point in time: what was there, and the searches already sorted."""

    hits: list[Document]
    mappings: list[Mapping[str, Any]]
    searches: dict[str, list[Document]] = field(default_factory=dict)


@dataclass
class Stub:
    """One cluster. `points` are the points in time that are open; `searched` the bodies of all searches."""

    system: str = "elasticsearch"
    login: str | None = _HEADER
    server: Server = field(default_factory=lambda: Server(lambda _: Answer()))
    indices: dict[str, Index] = field(default_factory=dict)
    points: dict[str, Snapshot] = field(default_factory=dict)
    searched: list[dict[str, Any]] = field(default_factory=list)
    meddle: Callable[[int, dict[str, Any]], None] = field(default=lambda number, reply: None)
    """Called with the number of a search and its reply, before that goes out."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def route(self, asked: Asked) -> Answer:
        parts = [unquote(part) for part in asked.path.split("/") if part]
        try:
            if self.login is not None and asked.headers.get("authorization") != self.login:
                raise Refused(401, "security_exception", f"unable to authenticate with {dict(asked.headers)}")
            found = self._answer(asked, parts)
        except Refused as error:
            status, kind, reason = error.args
            cause = {"type": kind, "reason": reason}
            return Answer({"error": {"root_cause": [cause], **cause}, "status": status}, status)
        return Answer(as_json(found))

    def _answer(self, asked: Asked, parts: list[str]) -> Any:
        match [asked.method, *parts]:
            case ["GET"]:
                about = {"number": "9.5.0"} if self.system == "elasticsearch" else {"distribution": "opensearch", "number": "2.19.0"}
                return {"name": "stub", "version": about, "tagline": "canned"}
            case ["PUT", name]:
                self.indices[name] = Index(_expanded(parse_json(asked.body.decode()).get("mappings", {})))
                return {"acknowledged": True}
            case ["POST", "_bulk"]:
                return self._bulk(asked.body.decode())
            case ["GET", names, "_mapping"]:
                return {name: {"mappings": self.indices[name].mapping} for name in self._named(names)}
            case ["GET", "_cat", "indices"]:
                return [{"index": name} for name in self.indices]
            case ["GET", "_cat", "aliases"]:
                return []
            case ["POST", names, "_pit"] if self.system == "elasticsearch":
                return {"id": self._open(names), "_shards": {"failed": 0}}
            case ["POST", names, "_search", "point_in_time"] if self.system == "opensearch":
                return {"pit_id": self._open(names), "_shards": {"failed": 0}}
            case ["DELETE", "_pit"] if self.system == "elasticsearch":
                return self._close([asked.json["id"]])
            case ["DELETE", "_search", "point_in_time"] if self.system == "opensearch":
                return self._close(asked.json["pit_id"])
            case ["POST", "_search"]:
                return self._search(parse_json(asked.body.decode()))
        raise Refused(400, "illegal_argument_exception", f"the stub does not know {asked.method} {asked.path}")

    def _bulk(self, body: str) -> Any:
        lines = iter(body.split("\n")[:-1])
        for line in lines:
            action = json.loads(line)["index"]
            documents = self.indices[action["_index"]].documents
            name = action.get("_id") or f"id-{len(documents)}"
            text = next(lines)
            documents[name] = {"_index": action["_index"], "_id": name, "_source": parse_json(text), "_text": text}
        return {"errors": False}

    def _named(self, names: str) -> list[str]:
        found: list[str] = []
        for name in names.split(","):
            fitting = [item for item in self.indices if re.fullmatch(re.escape(name).replace(r"\*", ".*"), item)]
            if not fitting and "*" not in name:
                raise Refused(404, "index_not_found_exception", f"no such index [{name}]")
            found += fitting
        return found

    def _open(self, names: str) -> str:
        indices = [self.indices[name] for name in self._named(names)]
        point = f"point-{next(self._numbers)}"
        self.points[point] = Snapshot(
            [dict(hit, _at=number) for number, hit in enumerate(hit for index in indices for hit in index.documents.values())],
            [index.mapping for index in indices],
        )
        return f"{point}.0"

    def _close(self, names: Sequence[str]) -> Any:
        gone = [self.points.pop(name.partition(".")[0], None) for name in names]
        if None in gone:
            raise Refused(404, "search_context_missing_exception", "No search context found")
        return {"succeeded": True, "num_freed": len(gone)}

    def _search(self, body: dict[str, Any]) -> Any:
        self.searched.append(body)
        point, _, number = str(body["pit"]["id"]).partition(".")
        if point not in self.points:
            raise Refused(404, "search_context_missing_exception", f"No search context found for id [{point}]")
        snapshot = self.points[point]
        (order,) = body["sort"]
        ((by, direction),) = order.items()
        if direction != "asc" or (by == "_shard_doc" and self.system != "elasticsearch"):
            raise Refused(400, "query_shard_exception", f"No mapping found for [{by}] in order to sort on")
        found = self._sorted(snapshot, body, by)
        after, size = body.get("search_after"), int(str(body["size"]))
        start = 0 if after is None else _after(found, _comparable(after[0], by), by)
        hits = [
            {
                "_index": hit["_index"],
                "_id": hit["_id"],
                **({} if body["_source"] is False else {"_source": _sent(hit, body["_source"])}),
                "sort": [hit["_at"] if by == "_shard_doc" else _at(hit, by)],
            }
            for hit in found[start : start + size]
        ]
        total = {"total": {"value": len(found), "relation": "eq"}} if body.get("track_total_hits") is True else {}
        reply = {
            "pit_id": f"{point}.{int(number) + 1}",
            "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "failed": 0},
            "hits": {**total, "hits": hits},
        }
        self.meddle(len(self.searched), reply)
        return reply

    def _sorted(self, snapshot: Snapshot, body: Mapping[str, Any], by: str) -> list[Document]:
        part = body.get("slice", {"id": 0, "max": 1})
        key = as_json([body["query"], by, part])
        if key not in snapshot.searches:
            dates = {name: entry for mapping in snapshot.mappings for name, entry in _leaves(mapping.get("properties", {}))}
            own, most = int(str(part["id"])), int(str(part["max"]))
            found = [hit for hit in snapshot.hits if hit["_at"] % most == own and _matches(body["query"], hit, dates)]
            snapshot.searches[key] = found if by == "_shard_doc" else sorted(found, key=lambda hit: _comparable(_at(hit, by), by))
        return snapshot.searches[key]


def _expanded(mapping: dict[str, Any]) -> dict[str, Any]:
    """A mapping as a cluster gives it back: names with dots are objects."""
    properties: dict[str, Any] = {}
    for name, entry in mapping.get("properties", {}).items():
        head, dot, rest = name.partition(".")
        if dot:
            properties.setdefault(head, {"properties": {}})["properties"] |= _expanded({"properties": {rest: entry}})["properties"]
        else:
            properties[name] = _expanded(entry) if "properties" in entry else entry
    return {**mapping, "properties": properties}


def _leaves(properties: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, entry in properties.items():
        yield above + name, entry
        yield from _leaves(entry.get("properties", {}), f"{above}{name}.")


def _after(found: list[Document], last: Any, by: str) -> int:
    for number, hit in enumerate(found):
        if (hit["_at"] if by == "_shard_doc" else _comparable(_at(hit, by), by)) > last:
            return number
    return len(found)


def _comparable(value: Any, by: str) -> Any:
    return int(str(value)) if by == "_shard_doc" else str(value)


def _at(hit: Document, name: str) -> Any:
    return hit[name] if name in {"_id", "_index"} else _value(hit["_source"], name)


def _value(source: Any, name: str) -> Any:
    """The value at a path; dots in keys and objects in objects mean the same."""
    if not isinstance(source, dict):
        return None
    if name in source:
        return source[name]
    parts = name.split(".")
    for size in range(1, len(parts)):
        found = _value(source.get(".".join(parts[:size])), ".".join(parts[size:]))
        if found is not None:
            return found
    return None


def _sent(hit: Document, names: Sequence[str]) -> Any:
    """The document as it was written, where all of it is asked for; a number is what goes out as it stands."""
    return Number(hit["_text"]) if hit["_source"].keys() <= set(names) else _filtered(hit["_source"], names)


def _filtered(source: Document, names: Sequence[str]) -> Document:
    """The parts of a document under these paths."""

    def kept(value: Any, path: str) -> Any:
        if any(path == name or path.startswith(f"{name}.") for name in names):
            return value
        if isinstance(value, dict):
            inner = {key: found for key, item in value.items() if (found := kept(item, f"{path}.{key}")) is not None}
            return inner or None
        if isinstance(value, list):
            return [found for item in value if (found := kept(item, path)) is not None] or None
        return None

    return {key: found for key, value in source.items() if (found := kept(value, key)) is not None}


def _matches(query: Mapping[str, Any], hit: Document, fields: Mapping[str, Mapping[str, Any]]) -> bool:
    ((kind, body),) = query.items()
    if kind == "match_all":
        return True
    if kind == "bool" and body.keys() <= {"filter", "must", "must_not"}:
        needed = [clause for key in ("filter", "must") for clause in _listed(body.get(key))]
        return all(_matches(clause, hit, fields) for clause in needed) and not any(
            _matches(clause, hit, fields) for clause in _listed(body.get("must_not"))
        )
    if kind == "exists":
        return _at(hit, body["field"]) is not None
    ((name, wanted),) = body.items()
    values = _listed(_at(hit, name))
    if kind == "term":
        return any(str(value) == str(wanted) for value in values)
    if kind == "range" and wanted.keys() <= {"gte", "lt", "format"} and fields.get(name, {}).get("type", "").startswith("date"):
        if wanted.get("format") != "strict_date_optional_time":
            raise Refused(400, "parsing_exception", "the stub wants a range with its format")
        start, end = _instant(wanted["gte"]), _instant(wanted["lt"])
        return any(start <= _instant(value) < end for value in values)
    raise Refused(400, "parsing_exception", f"unknown query [{kind}]")


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _instant(value: Any) -> datetime:
    """ISO text, `yyyy-MM-dd HH:mm:ss`, or milliseconds since 1970; cut to milliseconds, as a date field is."""
    if isinstance(value, Number) or str(value).isdigit():
        return datetime.fromtimestamp(int(value) / 1000, UTC)
    moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(value)))
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


# -- the ladder


@dataclass
class Cluster:
    """A cluster to read from: `url`, how to log in, and the stub where it is one."""

    url: str
    keys: dict[str, Any]
    stub: Stub | None = None
    prefix: str = ""

    def put(self, name: str, mappings: Mapping[str, Any], documents: Sequence[str | tuple[str, str]]) -> str:
        """Make an index anew with these documents, JSON text each, some with their id; returns its name."""
        index = f"{self.prefix}{name}"
        if self.stub is None:
            self._send("DELETE", f"/{quote(index, safe='')}?ignore_unavailable=true", b"")
        self._send("PUT", f"/{quote(index, safe='')}", json.dumps({"mappings": mappings}).encode())
        self.add(index, documents)
        return index

    def add(self, index: str, documents: Sequence[str | tuple[str, str]]) -> None:
        """Add documents to an index."""
        named = [document if isinstance(document, tuple) else (None, document) for document in documents]
        for start in range(0, len(named), 20_000):
            lines = [
                line
                for name, source in named[start : start + 20_000]
                for line in (json.dumps({"index": {"_index": index, **({"_id": name} if name else {})}}), source)
            ]
            self._send("POST", "/_bulk?refresh=true", "\n".join([*lines, ""]).encode())

    def _send(self, method: str, path: str, body: bytes) -> None:
        import httpx

        headers = {"content-type": "application/x-ndjson" if path.startswith("/_bulk") else "application/json"}
        headers |= {"authorization": _HEADER} if self.stub else {}
        login = (self.keys["username"], self.keys["password"]) if "username" in self.keys else None
        reply = httpx.request(method, f"{self.url}{path}", content=body, headers=headers, auth=login, timeout=60, verify=self.stub is None)
        if reply.status_code >= 300 and method != "DELETE":
            raise AssertionError(f"{method} {path}: {reply.status_code} {reply.text[:300]}")
        assert not path.startswith("/_bulk") or reply.json()["errors"] is False


@contextmanager
def stubbed(system: str = "elasticsearch") -> Iterator[Cluster]:
    """A stub of one of the two systems."""
    stub = Stub(system)
    with served(stub.route) as stub.server:
        yield Cluster(stub.server.url, {"api_key": API_KEY}, stub)


@pytest.fixture
def elasticsearch(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The cluster of TEST_ELASTICSEARCH_URL (which may hold user and password), else a stub for this test alone."""
    if url := os.environ.get("TEST_ELASTICSEARCH_URL"):
        from urllib.parse import urlsplit

        note_rung(pytestconfig, "elasticsearch", "TEST_ELASTICSEARCH_URL")
        parts = urlsplit(url)
        keys = {"username": unquote(parts.username), "password": unquote(parts.password)} if parts.username and parts.password else {}
        yield Cluster(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", keys, prefix=f"dataflow-{os.getpid()}-")
        return
    note_rung(pytestconfig, "elasticsearch", "stub (canned replies, no cluster)")
    with stubbed() as cluster:
        yield cluster
