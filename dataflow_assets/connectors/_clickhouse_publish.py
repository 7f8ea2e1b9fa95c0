"""One window into ClickHouse: fill a staging table, take a turn, arrange the partitions, announce, swap, record.

Here: the order of the statements (docs/decisions/0005 says why each step is safe to be killed at). Not here: the log
(`_clickhouse_ledger`), the tables (`_clickhouse_tables`), how values are converted (`_clickhouse_types`).
"""

# ruff: noqa: S608 - identifiers pass Dialect.quote, values are placeholders

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial

from dataflow_assets.connectors import _clickhouse_registry
from dataflow_assets.connectors._clickhouse_blocks import blocks
from dataflow_assets.connectors._clickhouse_ledger import LOAD, Ledger, Turn, older
from dataflow_assets.connectors._clickhouse_read import window_predicate
from dataflow_assets.connectors._clickhouse_session import CLICKHOUSE, Server, driver_errors, translated
from dataflow_assets.connectors._clickhouse_tables import (
    SYSTEM,
    Table,
    add_load_column,
    create_statement,
    describe,
    drop_quietly,
    drop_stages,
    held_columns,
    mark_inserts,
    require_engine,
    stage_name,
    sweep,
)
from dataflow_assets.connectors._clickhouse_types import ColumnRoute, route
from dataflow_assets.errors import AuditFailed, DataflowError, Fenced, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger
from dataflow_assets.storage.agreement import Agreement, agree
from dataflow_assets.storage.feed import ORDER, Feed, require_replaced, require_target_rows, window_bounds
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Statement
from dataflow_assets.tables import Published, PublishRequest, TableName, WindowFilter, WriteMode

_BATCH_ROWS = 65_536
_TRIES = 3


class _TableChanged(Exception):
    """The target was made or altered while the stage was filled: fill it anew."""


@dataclass(frozen=True)
class _Swap:
    """The one statement that makes the rows visible (None: nothing changes), and how many rows it takes away.

    `scope` are the partitions it was computed from, in which nobody else may have written meanwhile; None means all.
    """

    statement: str | None
    deleted: int | None = None
    scope: tuple[str, ...] | None = ()


def publish(server: Server, request: PublishRequest, *, lock_seconds: float, known: Registry) -> Published:
    """Publish a stage. Raises what the protocol names."""
    doing = f"publishing {request.claim.unit} into {request.target.table}"
    for _ in range(_TRIES):
        try:
            with translated(doing, WriteFailed, port=server.options.port):
                publication = _Publication(server, request, lock_seconds, known)
                done = publication.run()
                return publication.agreement.reported(done) if publication.agreement else done
        except _TableChanged:
            continue
    raise WriteFailed(f"{doing}: the table was altered again and again meanwhile", transient=True)


@dataclass
class _Publication:
    """One publish under way; its methods are called in their order in this file."""

    server: Server
    request: PublishRequest
    seconds: float
    registry: Registry
    load: int = field(default_factory=lambda: secrets.randbits(62) + 1)
    swapping: bool = False
    roles: list[str] = field(default_factory=list)
    agreement: Agreement | None = None

    @cached_property
    def log(self) -> Ledger:
        return Ledger(self.server, self.request.target)

    @property
    def _mode(self) -> WriteMode:
        return self.request.target.mode

    @property
    def _name(self) -> TableName:
        return self.request.target.table

    def _stage(self, role: str) -> TableName:
        claim = self.request.claim
        return stage_name(self.request.target, claim.unit, generation=claim.generation, load=self.load, role=role)

    def run(self) -> Published:
        """All of it."""
        claim = self.request.claim
        open_turns = self.log.open_turns()
        outdated = [turn for turn in open_turns if older(turn, claim.unit, claim.generation)]
        for turn in outdated:
            self.end(turn)
        others = [turn for turn in open_turns if turn not in outdated]
        if (done := self._settled(others)) is not None:
            return done
        sweep(self.server, self.request.target, claim.unit, generation=claim.generation, busy=[turn.load for turn in others])
        failpoint("publish.begin")
        self.table = describe(self.server, self._name)
        try:
            self._prepare()
            self._fill()
            return self._take_turn()
        except Exception as error:
            if isinstance(error, (*driver_errors(), WriteFailed)):
                self._raise_fenced(error)
            raise
        finally:
            drop_quietly(self.server, [self._stage(role) for role in self.roles])

    def _settled(self, turns: Sequence[Turn] = ()) -> Published | None:
        """What the ledger already decides; inside a turn nobody else's can be open that counts."""
        row = self.log.row(self.request.claim.unit, turns)
        if row and row.entry and describe(self.server, self._name) is None:
            row = ledger.LedgerRow(row.unit, row.generation, row.attempt, None)  # a publish into a table that is gone
        return ledger.settled(row, self.request)

    def _raise_fenced(self, error: Exception) -> None:
        """A newer attempt drops the staging tables of an older one, which then fails in whatever it was doing."""
        claim = self.request.claim
        if (newest := self.log.newest_claim(claim.unit)) > claim.generation:
            raise Fenced(target=str(self._name), unit=str(claim.unit), generation=claim.generation, newest=newest) from error

    # -- the staging tables

    def _prepare(self) -> None:
        """Work out the ways of the columns and make the staging tables; they exist before the turn, so that whoever ends it finds them."""
        if self.table is None:
            self._require_auto_create()
        else:
            require_engine(self.table, self._name)
            self._agree(self.table)
            if LOAD not in self.table.columns:
                self.request.require_checked()
                add_load_column(self.server, self._name)
                self.table = describe(self.server, self._name)
        self._make("in")
        if self._mode is not WriteMode.REPLACE and self.table is not None:
            self._make("out")
        self._plan()

    def _agree(self, table: Table) -> None:
        """Change the table where the schema policy says so: in a turn of its own, so that nobody swaps partitions meanwhile.

        The turn publishes nothing. A new column is empty and harmless until the rows come.
        """
        self.agreement = agree(self.request, held_columns(table), SYSTEM)
        self.request = self.agreement.request(self.request)
        if not self.agreement.alters:
            return
        self.request.require_checked()
        claim = self.request.claim
        turn = self.log.take_turn(claim.unit, generation=claim.generation, load=secrets.randbits(62) + 1)
        with self.log.alive(turn):
            try:
                self.log.wait(turn, self.end, seconds=self.seconds)
                for statement in self.agreement.statements(self.request, CLICKHOUSE):
                    self.server.run(statement.text)
                failpoint("publish.after_alter")
            finally:
                self.log.decide(turn, published=False)
        self.table = describe(self.server, self._name)

    def _make(self, role: str) -> None:
        table = self._stage(role)
        self.roles.append(role)
        like = create_statement(self.request, table) if self.table is None else None
        self.server.run(like or f"CREATE TABLE {CLICKHOUSE.table(table)} AS {CLICKHOUSE.table(self._name)}")

    def _require_auto_create(self) -> None:
        if not self.request.target.options.auto_create:
            text = create_statement(self.request, self._name)
            raise WriteFailed(f"table {self._name} does not exist and auto_create is off", hint=f"{text};")

    def _plan(self) -> None:
        staged = describe(self.server, self._stage("in"))
        if staged is None:
            raise WriteFailed(f"{self._name}: the staging table was dropped by another publish", transient=True)
        if self.agreement is None:
            self.agreement = agree(self.request, held_columns(staged), SYSTEM)
        zone = self.server.zone
        self.types = {item.name: staged.columns[item.name].type for item in self.request.schema}
        self.routes: dict[str, ColumnRoute] = {
            item.name: route(item.name, item.type, self.types[item.name], zone=zone) for item in self.request.schema
        }
        self.staged = staged
        self.bounds = window_bounds(self.request, self.routes)

    def _fill(self) -> None:
        """The stage in one INSERT of Arrow blocks, verified by its count."""
        upsert = self._mode is WriteMode.UPSERT
        into = self._stage("raw" if upsert else "in")
        if upsert:
            self.roles.append("raw")
            columns = ", ".join(f"{CLICKHOUSE.quote(name)} {kind}" for name, kind in self.types.items())
            order = f"{CLICKHOUSE.quote(ORDER)} Int64"
            self.server.run(f"CREATE TABLE {CLICKHOUSE.table(into)} ({columns}, {order}) ENGINE = MergeTree ORDER BY tuple()")
        feed = Feed(self.request, self.routes, self.bounds, batch_rows=_BATCH_ROWS, ordered=upsert)
        reader = feed.reader()
        mark_inserts(self.server, self._stage("in"), self.load)
        try:
            self.server.insert(CLICKHOUSE.table(into), reader.schema.names, blocks(reader))
        except Exception as error:
            feed.raise_own(error)
            raise
        feed.require_all()
        if upsert or self.staged.counts:
            require_target_rows(self._count(into), self.request)
        if upsert:
            self._deduplicate(into)
        mark_inserts(self.server, self._stage("in"), 0)

    def _deduplicate(self, raw: TableName) -> None:
        """Of rows with equal keys the last of the stage wins."""
        names = CLICKHOUSE.names(list(self.routes))
        latest = f"ORDER BY {CLICKHOUSE.quote(ORDER)} DESC LIMIT 1 BY {CLICKHOUSE.names(self.request.target.keys)}"
        into = f"INSERT INTO {CLICKHOUSE.table(self._stage('in'))} ({names})"
        self.server.run(f"{into} SELECT {names} FROM {CLICKHOUSE.table(raw)} {latest}")

    def _count(self, table: TableName, predicate: Statement | None = None) -> int:
        where = f" WHERE {predicate.text}" if predicate else ""
        ((found,),) = self.server.rows(f"SELECT count() FROM {CLICKHOUSE.table(table)}{where}", predicate.values if predicate else ())
        return int(found)

    # -- the turn

    def _take_turn(self) -> Published:
        claim = self.request.claim
        turn = self.log.take_turn(claim.unit, generation=claim.generation, load=self.load)
        with self.log.alive(turn):
            try:
                self.log.wait(turn, self.end, seconds=self.seconds)
                return self._publish(turn)
            except BaseException as error:
                published = self._judge_self(turn)
                if published and isinstance(error, driver_errors()):
                    note = "the reply to the swap was lost; the rows show that it happened"
                    return Published(self.request.rows, claim.generation, note=note)
                raise

    def _judge_self(self, turn: Turn) -> bool:
        """The outcome of a turn that broke off. When the server cannot be asked, the next attempt at any unit will ask."""
        published = False
        with suppress(*driver_errors(), DataflowError):
            if self.swapping:
                published = self.end(turn)
            else:
                self.log.decide(turn, published=False)
        return published

    def end(self, turn: Turn) -> bool:
        """End a turn, whoever holds it: first make sure that nothing more can come of it, then look whether something did."""
        if not (seen := self.log.seen(turn.load)):
            drop_stages(self.server, self._name, turn.load, seconds=self.seconds)
            seen = self.log.seen(turn.load)
        self.log.decide(turn, published=seen)
        return seen

    def _publish(self, turn: Turn) -> Published:
        if (done := self._settled()) is not None:
            self.log.decide(turn, published=False)
            return done
        if describe(self.server, self._name) != self.table:
            raise _TableChanged
        swap = self._arrange()
        require_replaced(swap.deleted, self.request)
        self.log.announce(turn, self.request, fresh=self.table is None)
        failpoint("publish.before_commit")
        if swap.statement is not None:
            self.swapping = True  # from here on only the rows tell
            self.server.run(swap.statement)
        failpoint("publish.after_commit")
        read, write = partial(_clickhouse_registry.versions, self.server), partial(_clickhouse_registry.write, self.server)
        columns = held_columns(self.staged)
        self.registry.keep_by(self.request, columns, read=lambda: read(self._name), write=lambda version: write(self._name, version))
        self.log.decide(turn, published=True)
        found = None if self._mode is WriteMode.UPSERT else self.request.rows
        return Published(self.request.rows, self.request.claim.generation, deleted=swap.deleted, target_rows=found)

    # -- the partitions

    def _arrange(self) -> _Swap:
        """Get ready what will be swapped in, from partitions that nobody else changes meanwhile."""
        for _ in range(_TRIES):
            before = self._parts()
            swap = self._build(self._partitions(self._stage("in")))
            failpoint("publish.after_delete")
            after = self._parts()
            if all(before.get(name) == after.get(name) for name in (before.keys() | after.keys() if swap.scope is None else swap.scope)):
                return swap
            self.server.run(f"TRUNCATE TABLE {CLICKHOUSE.table(self._stage('out'))}")  # not made anew: whoever ends this turn drops it
        raise WriteFailed(f"{self._name}: somebody else writes into it all the time", hint="stop other writers", transient=True)

    def _parts(self) -> dict[str, tuple[int, int]]:
        """Each partition's newest block and rows, which merging leaves as they are."""
        text = "SELECT partition_id, max(max_block_number), sum(rows) FROM system.parts WHERE database = {dataflow_1:String}"
        text += " AND table = {dataflow_2:String} AND active GROUP BY partition_id"
        return {name: (block, rows) for name, block, rows in self.server.rows(text, (self._name.schema or "", self._name.name))}

    def _partitions(self, table: TableName, predicate: Statement | None = None) -> dict[str, int]:
        """Rows of each partition, of those that the predicate fits."""
        where, values = (f" WHERE {predicate.text}", predicate.values) if predicate else ("", ())
        text = f"SELECT _partition_id AS partition, count() FROM {CLICKHOUSE.table(table)}{where} GROUP BY partition"
        return {str(name): int(rows) for name, rows in self.server.rows(text, values)}

    def _build(self, incoming: Mapping[str, int]) -> _Swap:
        target, staged = CLICKHOUSE.table(self._name), CLICKHOUSE.table(self._stage("in"))
        if self.table is None:
            return _Swap(f"RENAME TABLE {staged} TO {target}", deleted=self._none_deleted)
        if self._mode is WriteMode.REPLACE:
            return _Swap(f"EXCHANGE TABLES {target} AND {staged}", deleted=self._count(self._name))
        leaving = self._leaving()
        doomed = self._partitions(self._name, leaving) if leaving else {}
        touched = sorted({*incoming, *doomed})
        deleted = sum(doomed.values()) if self._mode is WriteMode.REPLACE_WINDOW else None
        if len(touched) == 1 and not doomed:
            return _Swap(f"ALTER TABLE {target} ATTACH PARTITION ID {_text(touched[0])} FROM {staged}", deleted)
        if len(touched) == 1 and leaving and not self._others_in(touched[0], leaving):
            return _Swap(f"ALTER TABLE {target} REPLACE PARTITION ID {_text(touched[0])} FROM {staged}", deleted, (touched[0],))
        if not touched:
            return _Swap(None, deleted)
        return self._rebuild(touched, list(incoming), leaving, deleted)

    @property
    def _none_deleted(self) -> int | None:
        return 0 if self._mode in {WriteMode.REPLACE, WriteMode.REPLACE_WINDOW} else None

    def _leaving(self) -> Statement | None:
        """Which rows of the target must go."""
        target, window = self.request.target, self.request.claim.unit.window
        if self.bounds is not None and window is not None:
            found = window_predicate(WindowFilter(self.bounds.column, window, target.timezone), self.bounds.start.type)
            return Statement(f"ifNull({found.text}, 0)", found.values)
        if self._mode is WriteMode.UPSERT and self.table is not None and not self.table.replaces(target.keys):
            keys = CLICKHOUSE.names(target.keys)
            return Statement(f"ifNull(({keys}) IN (SELECT {keys} FROM {CLICKHOUSE.table(self._stage('in'))}), 0)")
        return None

    def _others_in(self, partition: str, leaving: Statement) -> bool:
        """Whether the partition holds rows that stay. The rows are asked, not the key's text: that is exact for any key."""
        where = f"_partition_id = {_text(partition)} AND NOT {leaving.text}"
        return bool(self.server.rows(f"SELECT 1 FROM {CLICKHOUSE.table(self._name)} WHERE {where} LIMIT 1", leaving.values))

    def _rebuild(self, touched: Sequence[str], incoming: Sequence[str], leaving: Statement | None, deleted: int | None) -> _Swap:
        """The partitions as they shall be, in a table of their own: the old parts by hard link, less what goes, plus what comes.

        One partition is then swapped by itself. ClickHouse swaps several one after the other, so these go with the whole table.
        """
        target, out = CLICKHOUSE.table(self._name), CLICKHOUSE.table(self._stage("out"))
        whole = len(touched) > 1
        copied = list(self._partitions(self._name)) if whole else touched
        self._attach(copied, self._name)
        if leaving is not None:
            self.server.run(f"ALTER TABLE {out} DELETE WHERE {leaving.text}", leaving.values)
        self._attach(incoming, self._stage("in"))
        if self.bounds is not None and leaving is not None and self.table is not None and self.table.counts:
            self._require(self._count(self._stage("out"), leaving))
        if whole:
            return _Swap(f"EXCHANGE TABLES {target} AND {out}", deleted, None)
        return _Swap(f"ALTER TABLE {target} REPLACE PARTITION ID {_text(touched[0])} FROM {out}", deleted, tuple(touched))

    def _attach(self, partitions: Sequence[str], source: TableName) -> None:
        if partitions:
            parts = ", ".join(f"ATTACH PARTITION ID {_text(name)} FROM {CLICKHOUSE.table(source)}" for name in partitions)
            self.server.run(f"ALTER TABLE {CLICKHOUSE.table(self._stage('out'))} {parts}")

    def _require(self, found: int) -> None:
        if found != self.request.rows:
            raise AuditFailed(
                f"{self._name}: {found} rows of {self.request.claim.unit} where {self.request.rows} were staged; nothing was published"
            )


def _text(partition: str) -> str:
    """A partition's id as text in SQL: the server's own, letters, digits and dashes."""
    return "'" + partition.replace("\\", "\\\\").replace("'", "\\'") + "'"
