"""The ledger in ClickHouse: a log of events, because there is neither a transaction nor a unique key to build one row upon.

Here: claims, turns and outcomes, each one INSERT, and how they are read. What is visible in the target decides: an announced publish
has happened when rows with its load id stand in the table (docs/decisions/0005). Not here: writing rows (`_clickhouse_publish`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE, UNKNOWN_TABLE, Server, code_of, driver_errors, placeholders
from dataflow_assets.errors import WriteFailed
from dataflow_assets.storage import ledger
from dataflow_assets.tables import Claim, LedgerEntry, PublishRequest, TableName, Target, Unit

LOAD = "_dataflow_load"
STAGE = "_dataflow_stage_"
LEASE_SECONDS = 20.0
"""How long a turn may go without a sign of life before others end it: ending one is always safe, it only fails."""
_POLL_SECONDS = (0.02, 0.5)
_TIMES = {"window_start", "window_end", "claimed_at", "published_at"}
_NUMBERS = {"claimed_generation", "published_generation", "row_count"}
_CLAIMS = "event = 'claim' AND pipeline = {dataflow_2:String} AND step = {dataflow_3:String} AND unit_key = {dataflow_4:String}"
_KEY = ("target_table", "pipeline", "step", "unit_key")


@dataclass(frozen=True)
class Turn:
    """The right to change a table, in the order of numbers. `ticket` is one try at a number, `load` marks the rows."""

    number: int
    ticket: int
    load: int
    unit: Unit
    generation: int
    silent: float = 0.0
    """Seconds since its last sign of life."""


def create_ledger(table: TableName) -> str:
    """CREATE TABLE IF NOT EXISTS for the log."""
    kinds = {"event": "LowCardinality(String)", "at": "DateTime64(6, 'UTC') DEFAULT now64(6)"}
    kinds |= dict.fromkeys(("number", "ticket", "load"), "UInt64") | {"fresh": "Bool"}
    for name in ledger.COLUMNS:
        kind = "DateTime64(6, 'UTC')" if name in _TIMES else "Int64" if name in _NUMBERS else "String"
        kinds[name] = kind if name in _KEY else f"Nullable({kind})"
    columns = ", ".join(f"{CLICKHOUSE.quote(name)} {kind}" for name, kind in kinds.items())
    return (
        f"CREATE TABLE IF NOT EXISTS {CLICKHOUSE.table(table)} ({columns}) ENGINE = MergeTree ORDER BY ({', '.join(_KEY)}, event, number)"
    )


class Ledger:
    """The log beside one target table."""

    def __init__(self, server: Server, target: Target) -> None:
        self.server, self.target = server, target
        self.table = ledger.ledger_table(target.table)
        self._name = CLICKHOUSE.table(self.table)

    def _write(self, event: str, **columns: Any) -> None:
        row = {"event": event, "target_table": str(self.target.table), "pipeline": "", "step": "", "unit_key": "", **columns}
        values = tuple(row.values())
        self.server.run(f"INSERT INTO {self._name} ({CLICKHOUSE.names(list(row))}) VALUES ({placeholders(values)})", values)

    def _rows(self, select: str, where: str, values: Sequence[Any], tail: str = "") -> list[tuple[Any, ...]]:
        """Rows of this target; the placeholders of `where` begin at 2."""
        text = f"SELECT {select} FROM {self._name} WHERE target_table = {{dataflow_1:String}} AND {where} {tail}"
        return self.server.rows(text, (str(self.target.table), *values))

    # -- claims

    def claim(self, unit: Unit, *, attempt: str) -> Claim:
        """Take the next generation of the unit."""

        def write(number: int, ticket: int) -> None:
            row = ledger.claim_values(CLICKHOUSE, self.target, unit, attempt=attempt, generation=number)
            self._write("claim", number=number, ticket=ticket, **row)

        number = self._take(_CLAIMS, _of(unit), write)
        row = self.row(unit, self.open_turns())
        return Claim(unit, number, attempt, row.entry if row else None)

    def _take(
        self, where: str, values: Sequence[Any], write: Callable[[int, int], None], *, undo: Callable[[int], None] | None = None
    ) -> int:
        """Take the next number that nobody else takes; the number.

        Each writes its number before it looks. Two who took the same one would each have looked before the other wrote, which
        cannot be: so whoever sees itself alone has the number, and whoever sees another one takes a higher one.
        """
        while True:
            ((newest,),) = self._rows("max(number)", where, values)
            number, ticket = int(newest or 0) + 1, secrets.randbits(63)
            write(number, ticket)
            mine = f"{where} AND number = {{dataflow_{len(values) + 2}:UInt64}}"
            ((found,),) = self._rows("count()", mine, (*values, number))
            if found == 1:
                return number
            if undo is not None:
                undo(ticket)
            time.sleep(random.uniform(0.005, 0.1))  # to part two that collide

    # -- turns

    def take_turn(self, unit: Unit, *, generation: int, load: int) -> Turn:
        """Queue up behind every turn that was taken before."""
        tickets: list[int] = []

        def write(number: int, ticket: int) -> None:
            tickets.append(ticket)
            self._write("turn", number=number, ticket=ticket, load=load, claimed_generation=generation, **_columns(unit))

        number = self._take("event = 'turn'", (), write, undo=lambda ticket: self._write("void", ticket=ticket))
        return Turn(number, tickets[-1], load, unit, generation)

    def wait(self, turn: Turn, end: Callable[[Turn], object], *, seconds: float) -> None:
        """Wait until every earlier turn has its outcome; `end` ends those of older attempts at the unit and those without life."""
        deadline, pause = time.monotonic() + seconds, _POLL_SECONDS[0]
        while earlier := [other for other in self.open_turns() if other.number < turn.number]:
            for other in earlier:
                if older(other, turn.unit, turn.generation) or other.silent > LEASE_SECONDS:
                    end(other)
            if time.monotonic() > deadline:
                names = ", ".join(str(other.unit) for other in earlier)
                raise WriteFailed(f"{self.target.table}: waited {seconds:.0f}s for {names}", hint="raise lock_timeout", transient=True)
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL_SECONDS[1])

    def open_turns(self) -> list[Turn]:
        """The turns without an outcome, oldest first."""
        decided = f"SELECT ticket FROM {self._name} WHERE target_table = {{dataflow_1:String}} AND event IN ('published', 'void')"
        columns = "max(number), ticket, max(load), max(pipeline), max(step), max(unit_key), max(claimed_generation)"
        silent = "dateDiff('millisecond', max(at), now64(6)) / 1000"
        where = f"event IN ('turn', 'beat') AND ticket NOT IN ({decided})"
        found = self._rows(f"{columns}, {silent}", where, (), "GROUP BY ticket HAVING countIf(event = 'turn') > 0")
        turns = [Turn(row[0], row[1], row[2], Unit(row[3], row[4], row[5]), int(row[6]), float(row[7])) for row in found]
        return sorted(turns, key=lambda turn: turn.number)

    @contextmanager
    def alive(self, turn: Turn) -> Iterator[None]:
        """Show signs of life while the turn lasts."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(LEASE_SECONDS / 5):
                with suppress(*driver_errors()):  # whoever misses a beat is ended by others at worst
                    self._write("beat", ticket=turn.ticket)

        thread = threading.Thread(target=beat, name="turn", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def announce(self, turn: Turn, request: PublishRequest, *, fresh: bool) -> None:
        """Say what is about to become visible, and whether the table is new with it."""
        row = ledger.claim_values(CLICKHOUSE, self.target, turn.unit, attempt=request.claim.attempt, generation=request.claim.generation)
        values = {**row, **ledger.published_values(CLICKHOUSE, request)}
        self._write("intent", number=turn.number, ticket=turn.ticket, load=turn.load, fresh=fresh, **values)

    def decide(self, turn: Turn, *, published: bool) -> None:
        """The outcome of a turn. When two judges differ, `published` counts: only who saw the rows says so."""
        self._write("published" if published else "void", number=turn.number, ticket=turn.ticket, load=turn.load)

    # -- what it tells

    def row(self, unit: Unit, turns: Sequence[Turn]) -> ledger.LedgerRow | None:
        """The newest claim of a unit with its newest publish; of `turns`, those count whose rows are seen."""
        return next(iter(self._ledger_rows(turns, unit.pipeline, unit.step, unit.key)), None)

    def entries(self, *, pipeline: str, step: str) -> list[LedgerEntry]:
        """The published units of a step, oldest first."""
        return ledger.ordered(row.entry for row in self._ledger_rows(self.open_turns(), pipeline, step) if row.entry)

    def newest_claim(self, unit: Unit) -> int:
        """The newest generation of a unit."""
        return int(self._rows("max(number)", _CLAIMS, _of(unit))[0][0] or 0)

    def _ledger_rows(self, turns: Sequence[Turn], pipeline: str, step: str, key: str | None = None) -> list[ledger.LedgerRow]:
        where = "pipeline = {dataflow_2:String} AND step = {dataflow_3:String}"
        values: tuple[str, ...] = (pipeline, step) if key is None else (pipeline, step, key)
        if key is not None:
            where += " AND unit_key = {dataflow_4:String}"
        names = CLICKHOUSE.names(ledger.COLUMNS)
        claims = self._rows(names, f"{where} AND event = 'claim'", values, "ORDER BY number DESC LIMIT 1 BY unit_key")
        published = self._published(names, where, values, [turn.ticket for turn in turns if self.seen(turn.load)])
        return [ledger.ledger_row(_joined(row, published.get(row[_UNIT_KEY]))) for row in claims]

    def _published(self, names: str, where: str, values: Sequence[str], visible: Sequence[int]) -> dict[str, tuple[Any, ...]]:
        """The newest publish of each unit; what was published before the table was last made counts for nothing."""
        done = f"(ticket IN (SELECT ticket FROM {self._name} WHERE target_table = {{dataflow_1:String}} AND event = 'published')"
        done += f" OR has({{dataflow_{len(values) + 2}:Array(UInt64)}}, ticket))"
        since = f"SELECT max(number) FROM {self._name} WHERE target_table = {{dataflow_1:String}} AND event = 'intent' AND fresh AND {done}"
        chosen = f"{where} AND event = 'intent' AND {done} AND number >= ({since})"
        rows = self._rows(names, chosen, (*values, visible), "ORDER BY number DESC LIMIT 1 BY unit_key")
        return {row[_UNIT_KEY]: row for row in rows}

    def seen(self, load: int) -> bool:
        """Whether rows of this load stand in the table."""
        text = f"SELECT 1 FROM {CLICKHOUSE.table(self.target.table)} WHERE {CLICKHOUSE.quote(LOAD)} = {{dataflow_1:UInt64}} LIMIT 1"
        try:
            return bool(self.server.rows(text, (load,)))
        except driver_errors() as error:
            if code_of(error) in {UNKNOWN_TABLE, *_NO_COLUMN}:
                return False
            raise


_UNIT_KEY = ledger.COLUMNS.index("unit_key")
_FIRST_PUBLISHED = ledger.COLUMNS.index("published_generation")
_NO_COLUMN = {47, 16}


def _joined(claim: tuple[Any, ...], published: tuple[Any, ...] | None) -> tuple[Any, ...]:
    return claim if published is None else (*claim[:_FIRST_PUBLISHED], *published[_FIRST_PUBLISHED:])


def _of(unit: Unit) -> tuple[str, str, str]:
    return unit.pipeline, unit.step, unit.key


def _columns(unit: Unit) -> dict[str, str]:
    return dict(zip(_KEY[1:], _of(unit), strict=True))


def older(turn: Turn, unit: Unit, generation: int) -> bool:
    """Whether the turn is that of an older attempt at the unit."""
    return _of(turn.unit) == _of(unit) and turn.generation < generation
