"""What a sensor remembers between two ticks, and what the next one asks for.

Here: pure decisions; the caller brings what was found, the ledgers' generations and the time. Not here: looking at files, tables and
pipelines (`operations.sensors`), Dagster.

A unit is what a run is asked for: the key of a window, `all` for a pipeline without windows, `due` for whatever windows are due, or
`files:<digest>` for exactly those files. A unit that was asked for stays until the ledgers show that it was published after that; if its
run failed, it is asked for again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dataflow_assets.errors import DataflowError
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.tables import LedgerEntry

DUE = "due"
FILES = "files:"
_VERSION = 1
_PLAIN_BYTES = 4096
"""A longer cursor is compressed."""
_NAMED = 3
_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=1)

Marks = tuple[int, ...]


@dataclass(frozen=True)
class Waiting:
    """A unit that was found, and perhaps asked for. `what` changes with each thing that it is asked for the sake of.

    `tries`: how often it was asked for; `asked_at` the last time, when each endpoint's ledger stood at `marks`.
    """

    what: str
    tries: int = 0
    asked_at: datetime | None = None
    marks: Marks = ()

    def is_due(self, now: datetime) -> bool:
        """Whether it is to be asked for: at once, then after one minute, two, four, at most an hour."""
        if self.asked_at is None:
            return True
        wait = min(_FIRST_WAIT * float(2 ** min(self.tries - 1, 16)), _LONGEST_WAIT)
        return now >= self.asked_at + wait


@dataclass(frozen=True)
class Memory:
    """All that a sensor knows of its past: where it is (`position`, of its type's own making) and what waits."""

    position: Mapping[str, Any] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    away_since: datetime | None = None
    """Since when no tick could look, for a reason that may pass by itself."""

    @classmethod
    def read(cls, text: str | None, *, sensor: str) -> Memory:
        """The memory that a cursor holds, an empty one for none. Raises DataflowError for text that is no cursor of ours."""
        if not text:
            return cls()
        try:
            plain = zlib.decompress(base64.b85decode(text[1:])).decode() if text.startswith("~") else text
            said = json.loads(plain)
            if said["v"] != _VERSION:
                raise ValueError(f"version {said['v']}")
            waiting = {key: _waiting(item) for key, item in said["waiting"].items()}
            return cls(said["position"], waiting, _moment(said.get("away")))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error) as error:
            hint = "reset the cursor of the sensor in the UI: it then begins anew"
            raise DataflowError(f"the cursor of sensor {sensor} cannot be read: {error}", hint=hint) from error

    def text(self) -> str:
        """The memory as a cursor."""
        waiting = {key: [item.what, item.tries, _seconds(item.asked_at), list(item.marks)] for key, item in self.waiting.items()}
        document = {"v": _VERSION, "position": self.position, "waiting": waiting}
        document |= {"away": _seconds(self.away_since)} if self.away_since else {}
        plain = json.dumps(document, separators=(",", ":"), sort_keys=True)
        return plain if len(plain) <= _PLAIN_BYTES else "~" + base64.b85encode(zlib.compress(plain.encode(), 9)).decode()


def _waiting(item: Sequence[Any]) -> Waiting:
    what, tries, seconds, marks = item
    return Waiting(str(what), int(tries), _moment(seconds), tuple(map(int, marks)))


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


@dataclass(frozen=True)
class Found:
    """What a tick found. `units`: what is to be run, with a text that names for the sake of what.

    `said` tells it in a sentence, whether anything was found or not.
    """

    position: Mapping[str, Any]
    said: str
    units: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Units that wait and cannot be had as they were: what is asked for in their place, empty for nothing."""


@dataclass(frozen=True)
class Decision:
    """What a tick asks for: `asked` are units, oldest first, none for a skip; `run_key` names what they are for."""

    memory: Memory
    asked: tuple[str, ...]
    reason: str
    run_key: str = ""


def decide(
    memory: Memory,
    found: Found,
    *,
    now: datetime,
    is_complete: Callable[[str], bool],
    marks: Callable[[str], Marks],
    due: Callable[[], Sequence[str]],
    is_final: Callable[[str], bool] = lambda unit: unit.startswith(FILES),
    why_not: Callable[[str], str] = lambda unit: "",
    at_once: Callable[[Sequence[str]], Sequence[str]] = lambda units: units,
    in_order: bool = False,
    began: Callable[[str], str] = lambda unit: unit,
    retry: str = "dataflow retry",
) -> Decision:
    """What is asked for now: what was found, and what waits from earlier ticks for its window to end or after a failed run.

    `is_complete` says whether a window is over, `marks` how far the ledgers are with a unit, `due` which windows are due, `is_final`
    whether a unit that is published stays as it is, whatever is asked for: exactly some files, and windows that are appended. `why_not`
    says why a unit is not to be asked for, whatever came for it; `at_once` which of several go first. `in_order`: newer rows replace older
    ones, so that nothing is asked for while something older waits after a failed run. `began`: by what units are ordered, since the keys of
    an autumn hour are not in the order of time. `retry`: what to type for a run that failed.
    """
    waiting = {key: item for key, item in memory.waiting.items() if not _is_done(item, marks(key) if item.tries else (), is_final(key))}
    for key, instead in found.renamed.items():
        if (item := waiting.pop(key, None)) is not None and instead:
            waiting[instead] = item
    for key, what in found.units.items():
        waiting[key] = Waiting(digest([waiting[key].what, what]) if key in waiting else what)
    due_for = waiting.pop(DUE, None)
    if due_for is not None:
        keys = due()
        for key in keys:
            waiting.setdefault(key, Waiting(due_for.what))
        if not keys:
            waiting[DUE] = due_for
    left = [key for key in waiting if key != DUE and is_final(key) and _is_done(waiting[key], marks(key), True)]
    for key in left:
        del waiting[key]
    ready = sorted((key for key, item in waiting.items() if key != DUE and item.is_due(now) and is_complete(key)), key=began)
    refused = {key: why for key in ready if (why := why_not(key))}
    for key in refused:
        del waiting[key]
    wanted = [key for key in ready if key not in refused]
    oldest, held = _held(waiting, wanted, is_complete, began) if in_order else ("", [])
    wanted = [key for key in wanted if key not in held]
    asked = at_once(wanted)
    again = sum(waiting[key].tries > 0 for key in asked)
    for key in asked:
        waiting[key] = replace(waiting[key], tries=waiting[key].tries + 1, asked_at=now, marks=marks(key))
    run_key = digest(f"{key} {waiting[key].what} {waiting[key].tries} {waiting[key].marks}" for key in asked) if asked else ""
    said = [found.said, f"{', '.join(left[:_NAMED])} is published, and is not appended to again" if left else "", _what_is_left(refused)]
    named = f" ({oldest}; if its run failed: {retry})" if oldest else ""
    said += [f"{len(held)} newer wait until what is older is published{named}, since their rows may replace one another"] if held else []
    others = {key: item for key, item in waiting.items() if key not in held}
    reason = "; ".join(filter(None, [*said, _what_waits(others, asked, again, set(wanted) - set(asked))]))
    return Decision(Memory(found.position, waiting), tuple(asked), reason, run_key)


def _held(
    waiting: Mapping[str, Waiting], wanted: Sequence[str], is_complete: Callable[[str], bool], began: Callable[[str], str]
) -> tuple[str, list[str]]:
    """Those of some units that must not be asked for yet, and the window before them that was asked for and waits; empty for a set of
    files, whose name says nothing. Of sets of files only one goes at a time."""

    def age(key: str) -> tuple[bool, str]:
        item = waiting[key]
        return (item.asked_at is None, item.what) if key.startswith(FILES) else (False, began(key))

    failed = [key for key in waiting if key != DUE and key not in wanted and waiting[key].tries and is_complete(key)]
    first = min(failed, default=None, key=age)
    ahead = sorted((key for key in wanted if first is None or age(key) < age(first)), key=age)
    ahead = ahead[:1] if ahead and ahead[0].startswith(FILES) else ahead
    return "" if first is None or first.startswith(FILES) else first, [key for key in wanted if key not in ahead]


def _is_done(item: Waiting, now: Marks, final: bool) -> bool:
    """Whether every endpoint has published since the unit was asked for; of one that is final, whether each ever has."""
    before = (0,) * len(now) if final or not item.marks else item.marks
    if len(before) != len(now):  # the pipeline has other endpoints than when it was asked for: it is asked for again
        return False
    return bool(now) and all(later > then for later, then in zip(now, before, strict=True))


def _what_is_left(refused: Mapping[str, str]) -> str:
    """What is not asked for, and why."""
    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    return f"left alone: {', '.join(list(refused)[:_NAMED])}{more} ({next(iter(refused.values()))})" if refused else ""


def _what_waits(waiting: Mapping[str, Waiting], asked: Sequence[str], again: int, put_off: Collection[str]) -> str:
    others = {*asked, *put_off}
    left = [item for key, item in waiting.items() if key not in others]
    failed = sum(item.tries > 0 for item in left)
    said = [f"{again} asked for again, since no run has published it"] if again else []
    said += [f"{len(put_off)} more come with the next ticks"] if put_off else []
    said += [f"{failed} wait to be asked for again" if failed > 1 else "1 waits to be asked for again"] if failed else []
    said += ["the rest waits for a window to end" if asked else "waits for a window to end"] if len(left) > failed else []
    return ", ".join(said)


def digest(parts: Iterable[str]) -> str:
    """A short text that differs for other parts."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(part.encode(errors="surrogatepass") + b"\0")
    return hashed.hexdigest()


def ledger_marks(pipeline: PipelinePlan, ledgers: Mapping[str, Sequence[LedgerEntry]]) -> Callable[[str], Marks]:
    """How far the ledgers are with a unit: for each endpoint the generations that it has published, summed up; each publish adds."""
    sums: list[dict[str, int]] = []
    for step in pipeline.endpoints:
        own: dict[str, int] = {}
        for entry in ledgers.get(step.id, ()):
            own[entry.unit.key] = own.get(entry.unit.key, 0) + entry.generation
        own[WHOLE] = sum(own.values()) if pipeline.windows is None else own.get(WHOLE, 0)
        sums.append(own)
    return lambda unit: tuple(own.get(unit.removeprefix(FILES), 0) for own in sums)
