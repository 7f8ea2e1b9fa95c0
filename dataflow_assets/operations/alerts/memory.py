"""What was told, and what is still to be told: in the instance, so that a restarted daemon, or another host, tells nothing twice.

Here: the documents and where they are kept. They are values of the instance's storage of cursors, one for each pipeline, for each
channel's outbox, and for the whole: it works on SQLite and Postgres alike. One sweep at a time writes them (`alone`); `mute` has a value
of its own, which sweeps only read. Not here: what is told when (`deciding`), sending (`sending`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dataflow_assets.operations.alerts.messages import Message

if TYPE_CHECKING:
    import dagster as dg

_PREFIX = "dataflow/alerts"
_MOST_SENT = 200
_LONGEST_KEY = 200


@dataclass(frozen=True)
class Known:
    """An incident that is not over, as far as it must be remembered. Instants are aware, in UTC."""

    event: str
    identity: str
    number: int
    """How many incidents of the pipeline came before it."""
    summary: str
    step: str = ""
    windows: tuple[str, ...] = ()
    change: str = ""
    run_id: str = ""
    since: datetime | None = None
    last: datetime | None = None
    times: int = 0
    """How often it was seen."""
    told: int = 0
    """How many messages it has made."""
    told_at: datetime | None = None
    told_change: str = ""


@dataclass(frozen=True)
class Waiting:
    """A message that a channel has not taken yet."""

    message: Message
    since: datetime
    tries: int = 0
    next_try: datetime | None = None
    error: str = ""
    left: tuple[str, ...] = ()
    """Of a mail that some have got: the addresses that have not."""


@dataclass(frozen=True)
class Sent:
    """A message that a channel has taken, or, with an `error`, will never take."""

    id: str
    at: datetime
    channel: str
    event: str
    pipeline: str
    title: str
    error: str = ""


@dataclass
class PipelineMemory:
    """The incidents of one pipeline by identity."""

    known: dict[str, Known] = field(default_factory=dict)
    count: int = 0

    def without(self, identity: str) -> None:
        """Forget one incident."""
        self.known.pop(identity, None)


@dataclass(frozen=True)
class Position:
    """How far the sweeps have come in what they read."""

    runs_after: datetime | None = None
    seen: Mapping[str, str] = field(default_factory=dict)
    """The runs that were read of those that ended after it: run id -> status."""
    reports: str | None = None


class Memory:
    """The documents of one project in one instance. Raises what the instance's storage raises."""

    def __init__(self, instance: dg.DagsterInstance, project: str) -> None:
        self._storage, self._project = instance.run_storage, project

    def pipelines(self, names: Iterable[str]) -> dict[str, PipelineMemory]:
        """What is known of these pipelines; those of which nothing is known have an empty memory."""
        keys = {name: self._key("pipeline", name) for name in names}
        found = self._storage.get_cursor_values(set(keys.values())) if keys else {}
        return {name: _pipeline_memory(_document(found.get(key))) for name, key in keys.items()}

    def keep_pipeline(self, name: str, memory: PipelineMemory) -> None:
        """Write what is known of one pipeline."""
        self._write(self._key("pipeline", name), {"count": memory.count, "known": [asdict(item) for item in memory.known.values()]})

    def position(self) -> Position | None:
        """How far the last sweep came; None before the first."""
        document = self._read(self._key("position"))
        if not document:
            return None
        return Position(_moment(document.get("runs_after")), dict(document.get("seen") or {}), document.get("reports"))

    def keep_position(self, position: Position) -> None:
        """Write how far this sweep came."""
        self._write(self._key("position"), asdict(position))

    def outbox(self, channel: str) -> dict[str, Waiting]:
        """The messages that wait for a channel, by their ids, oldest first."""
        document = self._read(self._key("outbox", channel))
        return {item.message.id: item for item in map(_waiting, document.get("waiting", []))}

    def keep_outbox(self, channel: str, waiting: Mapping[str, Waiting]) -> None:
        """Write what waits for a channel, and that there is something, so that it is found again when nothing new comes."""
        self._write(self._key("outbox", channel), {"waiting": [asdict(item) for item in waiting.values()]})
        channels = set(self.channels())
        if (changed := channels | {channel} if waiting else channels - {channel}) != channels:
            self._write(self._key("channels"), {"channels": sorted(changed)})

    def channels(self) -> list[str]:
        """The channels for which messages wait."""
        return list(self._read(self._key("channels")).get("channels", []))

    def sent(self) -> list[Sent]:
        """The last 200 messages, oldest first."""
        return [Sent(**{**item, "at": _moment(item["at"])}) for item in self._read(self._key("sent")).get("sent", [])]

    def keep_sent(self, messages: Iterable[Sent]) -> None:
        """Add to what was sent."""
        kept = [*self.sent(), *messages][-_MOST_SENT:]
        self._write(self._key("sent"), {"sent": [asdict(item) for item in kept]})

    def muted(self, names: Iterable[str]) -> dict[str, datetime]:
        """Until when each of these pipelines is muted; those that are not are left out. Whether that is past is not looked at."""
        keys = {name: self._key("mute", name) for name in names}
        found = self._storage.get_cursor_values(set(keys.values())) if keys else {}
        until = {name: _moment(_document(found.get(key)).get("until")) for name, key in keys.items()}
        return {name: moment for name, moment in until.items() if moment is not None}

    def mute(self, name: str, until: datetime | None) -> None:
        """Tell nothing of a pipeline until then; None: tell again."""
        self._write(self._key("mute", name), {"until": until})

    def _key(self, *parts: str) -> str:
        key = "/".join((_PREFIX, self._project, *parts))
        if len(key) <= _LONGEST_KEY:
            return key
        return f"{key[:_LONGEST_KEY]}{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def _read(self, key: str) -> dict[str, Any]:
        return _document(self._storage.get_cursor_values({key}).get(key))

    def _write(self, key: str, document: Mapping[str, Any]) -> None:
        # one key at a time: with several, SQLite's storage updates those that exist and drops the others
        self._storage.set_cursor_values({key: json.dumps(document, default=_as_text)})


def _document(text: str | None) -> dict[str, Any]:
    """A document; empty where there is none, or where it is none: what cannot be read must not keep everything else from being told."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _pipeline_memory(document: Mapping[str, Any]) -> PipelineMemory:
    known = [_known(item) for item in document.get("known", [])]
    return PipelineMemory({item.identity: item for item in known}, int(document.get("count", len(known))))


def _known(item: Mapping[str, Any]) -> Known:
    moments = {name: _moment(item.get(name)) for name in ("since", "last", "told_at")}
    return Known(**{**item, **moments, "windows": tuple(item.get("windows", ()))})


def _waiting(item: Mapping[str, Any]) -> Waiting:
    since = _moment(item["since"])
    assert since is not None
    next_try, left = _moment(item.get("next_try")), tuple(item.get("left", ()))
    return Waiting(Message.of(item["message"]), since, item["tries"], next_try, item.get("error", ""), left)


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
