"""What a sensor has seen: many names with their contents, in a few bytes each, beside its cursor.

A cursor is text that is copied into the record of every tick, so only what the last tick found stands in it. The next tick, which is
handed the cursor that was saved, adds that to the table of keys and values of the instance: nothing is remembered there for which no
run was asked, whenever a process dies.

Here: the table's layout. Not here: what is a name and what a content (`files`, `upstream`).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from dataflow_assets.assets.values import Values, set_values

_ENTRY = struct.Struct(">8s6s8sH")
_FORGET_DAYS = 90
_SHARDS = 256
_EPOCH = date(2000, 1, 1)
_NONE = bytes(8)


@dataclass(frozen=True)
class Note:
    """One thing seen: `mark` is its state, `content` what stays where only the mark changes (empty: not known)."""

    name: str
    mark: str
    content: str = ""


@dataclass(frozen=True)
class _Known:
    mark: bytes
    content: bytes
    gone: int = 0
    """The day since when it is no longer there; 0 while it is."""


class Seen:
    """The memory of one sensor, in 256 shards by the hash of the name. `identity` changes when the sensor's cursor is reset."""

    def __init__(self, store: Values, prefix: str, identity: str, *, now: datetime) -> None:
        self._store, self._prefix, self.identity = store, prefix, identity or secrets.token_hex(4)
        self._day = (now.date() - _EPOCH).days
        self._shards: list[dict[bytes, _Known]] = [{} for _ in range(_SHARDS)]
        if identity:
            for text in store.get_cursor_values({self._key(shard) for shard in range(_SHARDS)}).values():
                for name, known in _unpacked(base64.b64decode(text)):
                    self._shards[name[0]][name] = known

    def _key(self, shard: int) -> str:
        return f"{self._prefix}/{self.identity}/{shard:02x}"

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def _known(self, name: str) -> _Known | None:
        hashed = _hash(name, 8)
        return self._shards[hashed[0]].get(hashed)

    def has(self, note: Note) -> bool:
        """Whether the thing was seen in this state."""
        known = self._known(note.name)
        return known is not None and known.mark == _hash(note.mark, 6)

    def has_content(self, note: Note) -> bool:
        """Whether it was seen with this content, in whatever state."""
        known = self._known(note.name)
        return known is not None and bool(note.content) and known.content == _hash(note.content, 8)

    def add(self, packed: str, *, there: Collection[str] | None = None) -> None:
        """Take over what the cursor of the last tick holds. `there` are the names that are there now: others are forgotten in 90 days."""
        changed: set[int] = set()
        for name, known in _unpacked(base64.b64decode(packed)):
            if self._shards[name[0]].get(name) != known:
                self._shards[name[0]][name] = known
                changed.add(name[0])
        if there is not None:
            changed |= self._age({_hash(name, 8) for name in there})
        if changed:
            set_values(self._store, self._forsaken() | {self._key(shard): self._packed(shard) for shard in changed})

    def _forsaken(self) -> dict[str, str]:
        """Whose memory this is from now on; what a cursor that was reset has left is emptied."""
        before = self._store.get_cursor_values({self._prefix}).get(self._prefix, "")
        if before == self.identity:
            return {}
        old = self._store.get_cursor_values({f"{self._prefix}/{before}/{shard:02x}" for shard in range(_SHARDS)}) if before else {}
        return {self._prefix: self.identity, **dict.fromkeys(old, "")}

    def _age(self, there: Collection[bytes]) -> set[int]:
        """Note which things have gone and which are back; forget those gone for long."""
        changed: set[int] = set()
        for number, shard in enumerate(self._shards):
            moved = {name: known for name, known in shard.items() if (name in there) != (known.gone == 0)}
            late = [name for name, known in shard.items() if known.gone and name not in there and self._day - known.gone >= _FORGET_DAYS]
            for name, known in moved.items():
                shard[name] = _Known(known.mark, known.content, 0 if known.gone else self._day)
            for name in late:
                del shard[name]
            if moved or late:
                changed.add(number)
        return changed

    def _packed(self, shard: int) -> str:
        return _text(sorted(self._shards[shard].items()))


def packed(notes: Iterable[Note]) -> str:
    """Notes as text for a cursor."""
    return _text((_hash(note.name, 8), _Known(_hash(note.mark, 6), _hash(note.content, 8) if note.content else _NONE)) for note in notes)


def _text(entries: Iterable[tuple[bytes, _Known]]) -> str:
    return base64.b64encode(b"".join(_ENTRY.pack(name, known.mark, known.content, known.gone) for name, known in entries)).decode()


def _unpacked(data: bytes) -> Iterator[tuple[bytes, _Known]]:
    for name, mark, content, gone in _ENTRY.iter_unpack(data):
        yield name, _Known(mark, content, gone)


def _hash(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=size).digest()


def position_of(seen: Seen, notes: Iterable[Note], **more: Any) -> Mapping[str, Any]:
    """What stands in the cursor: whose memory, and what this tick adds to it."""
    return {"memory": seen.identity, "noted": packed(notes), **more}
