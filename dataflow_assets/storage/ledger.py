"""The ledger: the record, committed in the target together with the rows, of what was published.

Here: the table `_dataflow_ledger`, its statements over a dialect, and a row turned into a `LedgerEntry`. One row per unit says
who has claimed it (generation, attempt) and which of them has published it. Not here: transactions and locks (`connectors`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dataflow_assets.errors import Fenced, WriteFailed
from dataflow_assets.storage.sql import Dialect, Statement, create_table, merge_rows
from dataflow_assets.tables import (
    Claim,
    LedgerEntry,
    Published,
    PublishRequest,
    TableName,
    Target,
    Unit,
    WriteMode,
    schema_fingerprint,
    utc_now,
)
from dataflow_assets.windows import Window

LEDGER = "_dataflow_ledger"
_KEY = ("target_table", "pipeline", "step", "unit_key")
_CLAIM = ("claimed_generation", "claimed_attempt", "claimed_at")
_WINDOW = ("window_start", "window_end")
_PUBLISHED = (
    "published_generation",
    "published_attempt",
    "write_mode",
    "row_count",
    "checksum",
    "schema_fingerprint",
    "published_at",
    "metrics",
    "state",
)
COLUMNS = (*_KEY, *_WINDOW, *_CLAIM, *_PUBLISHED)


@dataclass(frozen=True)
class LedgerRow:
    """One unit in the ledger: the newest claim, and the published entry if there is one."""

    unit: Unit
    generation: int
    attempt: str
    entry: LedgerEntry | None


def ledger_table(target: TableName) -> TableName:
    """The ledger that stands beside `target`, in its schema."""
    return TableName(LEDGER, target.schema)


def create_ledger(dialect: Dialect, table: TableName, *, options: str = "") -> Statement:
    """CREATE TABLE IF NOT EXISTS for the ledger; `options` stand at its end."""
    instants = {"window_start", "window_end", "claimed_at", "published_at"}
    integers = {"claimed_generation", "published_generation", "row_count"}
    kinds = {}
    for name in COLUMNS:
        kind = dialect.instant_type if name in instants else dialect.integer_type if name in integers else dialect.text_type
        kinds[name] = dialect.key_text_type if name in _KEY else kind
    return create_table(dialect, table, kinds, primary_key=_KEY, options=options)


def claim_unit(dialect: Dialect, target: Target, unit: Unit, *, attempt: str) -> Statement:
    """Insert the unit with generation 1, or raise its generation by one: atomic in any database that has the dialect's upsert."""
    table, row = ledger_table(target.table), claim_values(dialect, target, unit, attempt=attempt)
    generation = dialect.quote("claimed_generation")
    assignments = {name: dialect.incoming(dialect.quote(name)) for name in (*_CLAIM[1:], *_WINDOW)}
    assignments["claimed_generation"] = f"{dialect.table(table)}.{generation} + 1"
    marks = ", ".join(dialect.placeholder(position) for position in range(1, len(row) + 1))
    text = f"INSERT INTO {dialect.table(table)} ({dialect.names(list(row))}) VALUES ({marks})"
    return Statement(text + dialect.conflict(dialect, _KEY, assignments), tuple(row.values()))


def merge_claim(dialect: Dialect, target: Target, unit: Unit, *, attempt: str) -> Statement:
    """What `claim_unit` does, for a database with MERGE and without ON CONFLICT."""
    row = claim_values(dialect, target, unit, attempt=attempt)
    marks = ", ".join(f"{dialect.placeholder(at)} AS {dialect.quote(name)}" for at, name in enumerate(row, start=1))
    assignments = {name: f"incoming.{dialect.quote(name)}" for name in (*_CLAIM[1:], *_WINDOW)}
    assignments["claimed_generation"] = f"target.{dialect.quote('claimed_generation')} + 1"
    text = merge_rows(dialect, ledger_table(target.table), list(row), f"(SELECT {marks})", keys=_KEY, assignments=assignments)
    return Statement(text, tuple(row.values()))


def reclaim_unit(dialect: Dialect, target: Target, unit: Unit, *, attempt: str) -> Statement:
    """Raise the generation of a unit that is there; where a dialect has no upsert, `claim_unit` only inserts one that is not."""
    window = (dialect.instant(unit.window.start), dialect.instant(unit.window.end)) if unit.window else (None, None)
    values = (attempt, dialect.instant(utc_now()), *window)
    generation = dialect.quote("claimed_generation")
    sets = [f"{dialect.quote(name)} = {dialect.placeholder(at)}" for at, name in enumerate((*_CLAIM[1:], *_WINDOW), start=1)]
    key = _key_predicate(dialect, target, unit, first=len(values) + 1)
    text = f"UPDATE {dialect.table(ledger_table(target.table))} SET {generation} = {generation} + 1, {', '.join(sets)} WHERE {key.text}"
    return Statement(text, (*values, *key.values))


def lock_units(dialect: Dialect, target: Target, unit: Unit | None) -> Statement:
    """Change nothing, but hold the row of a unit, or the rows of all units of the table, until the transaction ends."""
    generation = dialect.quote("claimed_generation")
    own = f"{dialect.quote(_KEY[0])} = {dialect.placeholder(1)}"
    key = _key_predicate(dialect, target, unit) if unit else Statement(own, (str(target.table),))
    text = f"UPDATE {dialect.table(ledger_table(target.table))} SET {generation} = {generation} WHERE {key.text}"
    return Statement(text, key.values)


def publish_unit(dialect: Dialect, request: PublishRequest) -> Statement:
    """Record the publish unless a newer generation was claimed; read the row back (`fetch_unit`) to see whether it did."""
    claim, target = request.claim, request.target
    values = tuple(published_values(dialect, request).values())
    sets = ", ".join(f"{dialect.quote(name)} = {dialect.placeholder(position)}" for position, name in enumerate(_PUBLISHED, start=1))
    key = _key_predicate(dialect, target, claim.unit, first=len(values) + 1)
    newest = f"{dialect.quote('claimed_generation')} = {dialect.placeholder(len(values) + len(_KEY) + 1)}"
    text = f"UPDATE {dialect.table(ledger_table(target.table))} SET {sets} WHERE {key.text} AND {newest}"
    return Statement(text, (*values, *key.values, claim.generation))


def published_values(dialect: Dialect, request: PublishRequest) -> dict[str, Any]:
    """The columns that a publish fills, with their values."""
    claim = request.claim
    values = (
        *(claim.generation, claim.attempt, request.target.mode.value, request.rows, request.checksum, schema_fingerprint(request.schema)),
        *(dialect.instant(request.published_at or utc_now()), json.dumps(request.metrics), json.dumps(request.state)),
    )
    return dict(zip(_PUBLISHED, values, strict=True))


def claim_values(dialect: Dialect, target: Target, unit: Unit, *, attempt: str, generation: int = 1) -> dict[str, Any]:
    """The columns that a claim fills, with their values: the unit, its window, who claims it."""
    window = (dialect.instant(unit.window.start), dialect.instant(unit.window.end)) if unit.window else (None, None)
    return {
        **dict(zip(_KEY, _key(target, unit), strict=True)),
        **dict(zip(_WINDOW, window, strict=True)),
        **dict(zip(_CLAIM, (generation, attempt, dialect.instant(utc_now())), strict=True)),
    }


def fetch_unit(dialect: Dialect, target: Target, unit: Unit) -> Statement:
    """The ledger row of one unit, for `ledger_row`."""
    key = _key_predicate(dialect, target, unit)
    return Statement(f"SELECT {dialect.names(COLUMNS)} FROM {dialect.table(ledger_table(target.table))} WHERE {key.text}", key.values)


def fetch_step(dialect: Dialect, target: Target, *, pipeline: str, step: str) -> Statement:
    """Every ledger row of one endpoint step, for `published_entries`."""
    conditions = " AND ".join(f"{dialect.quote(name)} = {dialect.placeholder(position)}" for position, name in enumerate(_KEY[:3], start=1))
    text = f"SELECT {dialect.names(COLUMNS)} FROM {dialect.table(ledger_table(target.table))} WHERE {conditions}"
    return Statement(text, (str(target.table), pipeline, step))


def forget_publications(dialect: Dialect, target: TableName) -> Statement:
    """Forget what was published into a table that is gone, by every step; claims stay, so older attempts remain fenced off."""
    sets = ", ".join(f"{dialect.quote(name)} = NULL" for name in _PUBLISHED)
    key = f"{dialect.quote(_KEY[0])} = {dialect.placeholder(1)}"
    return Statement(f"UPDATE {dialect.table(ledger_table(target))} SET {sets} WHERE {key}", (str(target),))


def forget_retired(dialect: Dialect, target: Target, unit: Unit, *, generation: int) -> Statement:
    """Take the row of a unit out of the ledger, unless somebody has claimed it since `generation` was published."""
    key = _key_predicate(dialect, target, unit)
    newest = " AND ".join(
        f"{dialect.quote(name)} = {dialect.placeholder(at)}"
        for at, name in enumerate(("claimed_generation", "published_generation"), start=len(_KEY) + 1)
    )
    text = f"DELETE FROM {dialect.table(ledger_table(target.table))} WHERE {key.text} AND {newest}"
    return Statement(text, (*key.values, generation, generation))


def published_keys(dialect: Dialect, target: TableName) -> Statement:
    """One text for each publication into a table, by which `forget_keys` finds it again."""
    quoted = dialect.quote("published_generation")
    key = f"{dialect.quote(_KEY[0])} = {dialect.placeholder(1)} AND {quoted} IS NOT NULL"
    return Statement(f"SELECT {_publication(dialect)} FROM {dialect.table(ledger_table(target))} WHERE {key}", (str(target),))


def forget_keys(dialect: Dialect, target: TableName, keys: list[str]) -> Statement:
    """`forget_publications`, of these alone, for a database where nothing can be held between looking and forgetting."""
    everything = forget_publications(dialect, target)
    text = f"{everything.text} AND {_publication(dialect)} IN UNNEST({dialect.placeholder(2)})"
    return Statement(text, (*everything.values, keys))


def _publication(dialect: Dialect) -> str:
    names = (*_KEY[1:], *_PUBLISHED[:2])
    return "CONCAT(" + ", '/', ".join(f"CAST({dialect.quote(name)} AS {dialect.text_type})" for name in names) + ")"


def ledger_row(values: Sequence[Any]) -> LedgerRow:
    """A row of `COLUMNS` as data; instants may come as datetimes or ISO text, naive ones are in UTC."""
    row = dict(zip(COLUMNS, values, strict=True))
    start, end = _instant(row["window_start"]), _instant(row["window_end"])
    window = Window(start, end) if start and end else None
    unit = Unit(row["pipeline"], row["step"], row["unit_key"], window)
    return LedgerRow(unit, int(row["claimed_generation"]), row["claimed_attempt"], _entry(row, unit))


def _entry(row: dict[str, Any], unit: Unit) -> LedgerEntry | None:
    published_at = _instant(row["published_at"])
    if row["published_generation"] is None or published_at is None:
        return None
    return LedgerEntry(
        target=row["target_table"],
        unit=unit,
        mode=WriteMode(row["write_mode"]),
        generation=int(row["published_generation"]),
        attempt=row["published_attempt"],
        rows=int(row["row_count"]),
        checksum=row["checksum"],
        schema_fingerprint=row["schema_fingerprint"],
        published_at=published_at,
        metrics=json.loads(row["metrics"]),
        state=json.loads(row["state"]),
    )


def published_entries(rows: Sequence[Sequence[Any]]) -> list[LedgerEntry]:
    """The published units among `rows`, oldest window first, then by the time of publishing."""
    return ordered(entry for entry in (ledger_row(values).entry for values in rows) if entry)


def ordered(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Oldest window first, then by the time of publishing."""
    return sorted(entries, key=lambda entry: (entry.unit.window.start if entry.unit.window else entry.published_at, entry.published_at))


def claimed(row: LedgerRow, unit: Unit) -> Claim:
    """The claim that `row` shows."""
    return Claim(unit, row.generation, row.attempt, row.entry)


def settled(row: LedgerRow | None, request: PublishRequest) -> Published | None:
    """What the ledger already decides: None when the rows must be written, a result when they are there.

    Raises Fenced when a newer generation was claimed, WriteFailed when the unit was never claimed.
    """
    claim, mode = request.claim, request.target.mode
    if row is None:
        raise WriteFailed(
            f"{request.target.table} {claim.unit}: the ledger has no claim for it", hint="claim the unit before publishing it"
        )
    if recorded(row, claim):
        return Published(request.rows, claim.generation, already=True, note="the ledger shows this very attempt as published")
    if row.generation > claim.generation:
        raise Fenced(target=str(request.target.table), unit=str(claim.unit), generation=claim.generation, newest=row.generation)
    if mode is WriteMode.APPEND and row.entry is not None:
        differs = row.entry.checksum != request.checksum
        note = "the rows staged now differ from those published" if differs else ""
        return Published(row.entry.rows, row.entry.generation, already=True, note=note)
    return None


def recorded(row: LedgerRow | None, claim: Claim) -> bool:
    """Whether the ledger shows the publish of exactly this claim."""
    return row is not None and row.entry is not None and (row.entry.generation, row.entry.attempt) == (claim.generation, claim.attempt)


def confirm(row: LedgerRow | None, request: PublishRequest) -> None:
    """Raise Fenced unless the ledger row, read back before the commit, is that of this claim."""
    if not recorded(row, request.claim):
        newest = row.generation if row else 0
        raise Fenced(target=str(request.target.table), unit=str(request.claim.unit), generation=request.claim.generation, newest=newest)


def _key(target: Target, unit: Unit) -> tuple[str, str, str, str]:
    return str(target.table), unit.pipeline, unit.step, unit.key


def _key_predicate(dialect: Dialect, target: Target, unit: Unit, *, first: int = 1) -> Statement:
    parts = [f"{dialect.quote(name)} = {dialect.placeholder(position)}" for position, name in enumerate(_KEY, start=first)]
    return Statement(" AND ".join(parts), _key(target, unit))


def _instant(value: Any) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
