"""A cluster over HTTP: what it is, its errors, mappings, points in time and searches.

Here: the calls in which Elasticsearch and OpenSearch differ, and what their errors mean. Not here: columns
(`_elasticsearch_fields`), the read (`_elasticsearch_read`), sending (`_http_session`).
"""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from dataflow_assets.connectors._http_errors import Reply, judge_status
from dataflow_assets.connectors._http_pages import decoded
from dataflow_assets.connectors._http_session import Call, Session
from dataflow_assets.connectors._json_reading import as_json
from dataflow_assets.errors import ConnectionFailed, DataflowError, ReadFailed

System = Literal["elasticsearch", "opensearch"]
_EXPIRED = frozenset({"search_context_missing_exception", "index_closed_exception"})


class IndexMissing(ReadFailed):
    """There is no such index."""


@dataclass
class PointInTime:
    """A snapshot that searches look at; its id changes as it is used."""

    id: str
    keep_alive: str


class Cluster:
    """The calls of one connection, called `name`."""

    def __init__(self, session: Session, name: str, system: System | None) -> None:
        self._session, self._name, self._system = session, name, system

    def ask(self, method: str, path: str, body: Any = None, *, doing: str, stop: threading.Event | None = None) -> Any:
        """The JSON of a reply; numbers stay as written."""
        headers = {"accept": "application/json"}
        content = None if body is None else as_json(body).encode()
        if content is not None:
            headers["content-type"] = "application/json"
        call = Call(self._session.address(path), f"{doing} of connection {self._name!r}", method, body=content, headers=headers)
        return self._session.fetch(call, lambda reply: complete(decoded(reply.content, call.doing), call.doing), stop=stop)

    def version(self) -> str:
        """Name and version."""
        found = self.ask("GET", "/", doing="asking for the version")
        about = found.get("version", {}) if isinstance(found, dict) else {}
        name = "OpenSearch" if about.get("distribution") == "opensearch" else "Elasticsearch"
        if "number" not in about:
            raise ConnectionFailed(
                f"connection {self._name!r} is neither Elasticsearch nor OpenSearch", hint="correct its url", transient=False
            )
        return f"{name} {about['number']}"

    @property
    def system(self) -> System:
        """Which of the two it is; asked once."""
        if self._system is None:
            try:
                self._system = "opensearch" if self.version().startswith("OpenSearch") else "elasticsearch"
            except ConnectionFailed as error:
                hint = f"{error.hint}; or say in the connection which it is, system: elasticsearch or opensearch"
                raise ConnectionFailed(error.message, hint=hint, transient=error.transient) from error
        return self._system

    def mappings(self, index: str) -> dict[str, Any]:
        """Index -> mapping of every index that `index` means. Raises IndexMissing when it means none."""
        found = self.ask("GET", f"/{_path(index)}/_mapping", doing=f"reading the mapping of {index!r}")
        if not found:
            raise IndexMissing(f"no index matches {index!r} in connection {self._name!r}")
        return {name: entry.get("mappings", {}) for name, entry in found.items()}

    @contextmanager
    def point_in_time(self, index: str, keep_alive: str) -> Iterator[PointInTime]:
        """Open a snapshot and close it whatever happens; raises ReadFailed with near names when there is no such index."""
        point = PointInTime(self._open(index, keep_alive), keep_alive)
        try:
            yield point
        finally:
            with suppress(DataflowError):  # it ends by itself after keep_alive
                self._close(point)

    def _open(self, index: str, keep_alive: str) -> str:
        path, key = ("/_search/point_in_time", "pit_id") if self.system == "opensearch" else ("/_pit", "id")
        try:
            found = self.ask("POST", f"/{_path(index)}{path}?keep_alive={keep_alive}", doing=f"opening a point in time on {index!r}")
        except IndexMissing as error:
            raise self.missing(index) from error
        return str(found[key])

    def _close(self, point: PointInTime) -> None:
        gone = threading.Event()
        gone.set()  # one try: whoever leaves does not wait
        if self.system == "opensearch":
            self.ask("DELETE", "/_search/point_in_time", {"pit_id": [point.id]}, doing="closing a point in time", stop=gone)
        else:
            self.ask("DELETE", "/_pit", {"id": point.id}, doing="closing a point in time", stop=gone)

    def missing(self, index: str) -> ReadFailed:
        """The error for an index that is not there, with near names where these may be asked for."""
        known: set[str] = set()
        with suppress(DataflowError):
            for what, key in (("indices", "index"), ("aliases", "alias")):
                rows = self.ask("GET", f"/_cat/{what}?format=json&h={key}", doing=f"listing {what}")
                known |= {str(row[key]) for row in rows if not str(row[key]).startswith(".")}
        near = difflib.get_close_matches(index, sorted(known), n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "correct index: of the source"
        if known and not near:
            hint += f"; there are {', '.join(sorted(known)[:10])}{', ...' if len(known) > 10 else ''}"
        return ReadFailed(f"there is no index {index!r} in connection {self._name!r}", hint=hint, kind="configuration")

    def search(self, point: PointInTime, body: Mapping[str, Any], *, doing: str, stop: threading.Event) -> Mapping[str, Any]:
        """One page of a search in a point in time. Raises ReadFailed, transient when the point in time has expired."""
        asked = {**body, "pit": {"id": point.id, "keep_alive": point.keep_alive}}
        found: Mapping[str, Any] = self.ask("POST", "/_search?allow_partial_search_results=false", asked, doing=doing, stop=stop)
        point.id = str(found.get("pit_id") or point.id)
        return found


def complete(found: Any, doing: str) -> Any:
    """The reply of a search, if every shard has answered. Raises ReadFailed, transient: the rest would be missing silently."""
    shards = found.get("_shards", {}) if isinstance(found, dict) else {}
    if isinstance(found, dict) and (found.get("timed_out") is True or str(shards.get("failed", "0")) != "0"):
        failures = as_json(shards.get("failures", []))[:300]
        raise ReadFailed(f"{doing}: not every shard has answered: {failures}", hint="see the health of the cluster", transient=True)
    return found


def judge(reply: Reply, doing: str) -> DataflowError:
    """The error that a reply stands for, by the type that the cluster gives it."""
    kinds, reason = _reason(reply)
    if not kinds:
        return judge_status(reply, doing)
    text = f"{doing}: {reply.status} {kinds[0]}: {reason}"
    if reply.status == 404 and "index_not_found_exception" in kinds:
        return IndexMissing(text)
    if reply.status == 404 and _EXPIRED & set(kinds):
        return ReadFailed(f"{doing}: the point in time is gone: {reason}", hint="raise keep_alive of the source", transient=True)
    plain = judge_status(reply, doing)
    found = type(plain)(text, hint=plain.hint, kind=plain.kind)
    found.retry_after = plain.retry_after
    return found


def _reason(reply: Reply) -> tuple[list[str], str]:
    """The types of an error and of its causes, and what it says; no types when the reply is no error of a cluster."""
    try:
        error = json.loads(reply.content)["error"]
        causes = [error, *error.get("root_cause", [])]
        return [str(cause["type"]) for cause in causes if "type" in cause], str(causes[-1].get("reason"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], ""


def _path(index: str) -> str:
    return quote(index, safe=",*")
