"""One window into a database of any dialect, in one transaction; a missing table is made in a transaction before it.

Here: what SQLAlchemy tells of the table, the lock, a COMMIT whose reply was lost. Not here: the order of the statements
(`_row_publish`), types (`_sqlalchemy_types`), connections (`_sqlalchemy_session`).

The table is made first because some dialects commit at each CREATE. Whoever writes a unit holds its row of the ledger by an
UPDATE that changes nothing, which every dialect has; upsert and replace hold the rows of all units of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataflow_assets.connectors import _sqlite_times as times
from dataflow_assets.connectors._row_publish import Row, RowPublication, TargetColumn
from dataflow_assets.connectors._sqlalchemy_read import reflect
from dataflow_assets.connectors._sqlalchemy_session import Session, Sessions, failure, no_upsert, translated
from dataflow_assets.connectors._sqlalchemy_types import FLOATS_FOR_DECIMALS, has_zones, new_type, route, widened_kind
from dataflow_assets.connectors._sqlite_types import decimals_as_floats, refuse_nan
from dataflow_assets.errors import ConnectionFailed, ValueRefused, WriteFailed
from dataflow_assets.failpoints import failpoint
from dataflow_assets.storage import ledger, sql
from dataflow_assets.storage.agreement import Agreement
from dataflow_assets.storage.feed import Route, WindowBounds
from dataflow_assets.storage.registry import Registry
from dataflow_assets.storage.sql import Dialect, Statement, on_duplicate_key
from dataflow_assets.tables import Published, PublishRequest, Target, WriteMode

_LOST_REPLY = "the reply to COMMIT was lost; the ledger shows that it happened"


def require_mode(target: Target, dialect: Dialect) -> None:
    """Raise WriteFailed for an upsert that the dialect has no statement for."""
    if target.mode is WriteMode.UPSERT and dialect.conflict is no_upsert:
        raise WriteFailed(
            f"{target.table}: upsert is known for sqlite, postgresql and mysql, not for dialect {dialect.name}",
            hint="use mode: replace_window, replace or append",
        )


def publish(sessions: Sessions, request: PublishRequest, registry: Registry) -> Published:
    """Publish, and look into the ledger when it is not known whether the COMMIT happened."""
    import sqlalchemy as sa

    doing = f"publishing {request.claim.unit} into {request.target.table}"
    with translated(doing, WriteFailed):
        require_mode(request.target, sessions.dialect)
        agreement = _require_table(sessions, request, registry)
        with sessions.writing() as session:
            publication = _Publication(session, agreement.request(request), registry)
            publication.agreement = agreement
            publication.lock()
            if (done := ledger.settled(publication.ledger_row(), request)) is not None:
                return done
            failpoint("publish.begin")
            result = publication.write()
            publication.record()
            failpoint("publish.before_commit")
            try:
                session.commit()
            except sa.exc.SQLAlchemyError as error:
                cause = failure(error, doing, WriteFailed)
                if not isinstance(cause, ConnectionFailed) or not _committed(sessions, request):
                    raise cause from error
                return Published(request.rows, request.claim.generation, note=_LOST_REPLY)
    failpoint("publish.after_commit")
    return result


def _require_table(sessions: Sessions, request: PublishRequest, registry: Registry) -> Agreement:
    """Make the table unless it is there, and change it where the schema policy says so; somebody else may be quicker with either."""
    import sqlalchemy as sa

    with sessions.writing() as session:
        publication = _Publication(session, request, registry)
        if not publication.columns():
            try:
                publication.create()
                session.commit()
            except sa.exc.DBAPIError:
                session.rollback()
                if not publication.columns():
                    raise
        try:
            return _agreed(publication)
        except sa.exc.DBAPIError:
            session.rollback()
            return _agreed(_Publication(session, request, registry))


def _agreed(publication: _Publication) -> Agreement:
    """What was agreed, with the change committed; nothing, where the ledger has decided already that there is nothing to write."""
    try:
        publication.agree()
    except WriteFailed:
        if ledger.settled(publication.ledger_row(), publication.request) is None:
            raise
        return Agreement(publication.request.schema, {}, {})
    publication.commit()
    return publication.agreement


def _committed(sessions: Sessions, request: PublishRequest) -> bool:
    """Whether the ledger shows the publish, asked once the broken session has let go of the unit's row."""
    with sessions.writing() as session:
        publication = _Publication(session, request, Registry())
        publication.lock()
        return ledger.recorded(publication.ledger_row(), request.claim)


class _Publication(RowPublication):
    """SQLAlchemy's side of a publish."""

    rows_at_once = 500

    def __init__(self, session: Session, request: PublishRequest, registry: Registry) -> None:
        super().__init__(session.dialect, request, registry)
        self._session, self._sa = session, session.connection.dialect
        self.parameters = self._sa.insertmanyvalues_max_parameters

    def lock(self) -> None:
        """Wait for the publishes that may not run beside this one."""
        alone = self.request.target.mode in {WriteMode.UPSERT, WriteMode.REPLACE}
        unit = None if alone else self.request.claim.unit
        self._session.affected(ledger.lock_units(self.dialect, self.request.target, unit))

    def commit(self) -> None:
        """Commit what was done so far."""
        self._session.commit()

    def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return self._session.fetch(statement)

    def affected(self, statement: Statement) -> int:
        return self._session.affected(statement)

    def take(self, rows: Sequence[Row]) -> int:
        """Rows of one statement where the dialect has that, else of one call of the driver."""
        if self._sa.supports_multivalues_insert:
            return super().take(rows)
        self._session.run_many(self.insert_text(1), rows)
        return len(rows)

    def columns(self) -> dict[str, TargetColumn]:
        found = {}
        for name, item in reflect(self._session.connection, self.table).items():
            identity = item.get("identity") or {}
            filled = item.get("default") is not None or identity or item.get("autoincrement") is True
            computed = bool(item.get("computed")) or bool(identity.get("always"))
            found[name] = TargetColumn(
                name,
                item["type"],
                required=not filled,
                writable=not computed,
                nullable=bool(item.get("nullable", True)),
                shown=str(item["type"]),
                kind=widened_kind(item["type"], self._sa, name=name),
            )
        return found

    def sql_type(self, kind: pa.DataType, *, name: str) -> str:
        return new_type(kind, self._sa, name=name, is_key=name in self.request.target.keys)

    def route(self, kind: pa.DataType, column: TargetColumn) -> Route:
        return route(column.name, kind, column.declared, self._sa)

    def values(self, fitted: pa.Array, column: TargetColumn) -> list[Any]:
        kind = fitted.type
        if pa.types.is_timestamp(kind) and kind.tz and not has_zones(self._sa):
            fitted = fitted.cast(pa.int64()).cast(pa.timestamp(kind.unit))
        if self._sa.name == "sqlite" and pa.types.is_temporal(kind):
            fitted = times.as_text(fitted)
        if self._sa.name == "sqlite" and pa.types.is_floating(kind):
            refuse_nan(fitted, name=column.name, system="SQLite")
        if self._sa.name in {"mysql", "mariadb"} and pa.types.is_floating(kind) and not pc.all(pc.is_finite(fitted), min_count=0).as_py():
            raise ValueRefused(f"column {column.name!r} holds NaN or infinity, which MySQL has not", hint="make it null in the query")
        if pa.types.is_decimal(kind) and self._sa.name in FLOATS_FOR_DECIMALS:
            fitted = decimals_as_floats(fitted, str(column.declared), name=column.name)
        return list(fitted.to_pylist())

    def unique_keys(self) -> list[set[str]]:
        import sqlalchemy as sa

        inspector, schema = sa.inspect(self._session.connection), self.table.schema
        found: list[Sequence[Any]] = [item["column_names"] for item in inspector.get_unique_constraints(self.table.name, schema=schema)]
        found.append(inspector.get_pk_constraint(self.table.name, schema=schema)["constrained_columns"])
        for index in inspector.get_indexes(self.table.name, schema=schema):
            partial = any(name.endswith("_where") for name in index.get("dialect_options", {}))
            if index["unique"] and not partial and not index.get("expressions"):
                found.append(index["column_names"])
        keys = [set(names) for names in found if names]
        others = [key for key in keys if key != set(self.request.target.keys)]
        if self.dialect.conflict is on_duplicate_key and others:
            columns = ", ".join(sorted(map(str, others[0])))
            raise WriteFailed(
                f"table {self.table} has a unique index on {columns}, by which MySQL would replace rows as well",
                hint="upsert into a table whose only unique index is that of the upsert keys",
            )
        return keys

    def window(self, bounds: WindowBounds) -> Statement:
        pair = (bounds.start.as_py(), bounds.end.as_py())
        if pa.types.is_timestamp(bounds.start.type) and not has_zones(self._sa):
            pair = (pair[0].replace(tzinfo=None), pair[1].replace(tzinfo=None))
        if self._sa.name == "sqlite":
            return times.target_window(self.fetch, self.dialect, self.table, bounds.column, pair)
        return sql.window_predicate(self.dialect, bounds.column, pair)
