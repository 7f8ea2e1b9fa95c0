"""Conditions in SQL over a stream: all of them in one query a batch, in one sandbox that is opened only when there is one.

Here: binding each condition to the columns, evaluating them, and what went wrong with which. Not here: reading the text
(`checks._sql`), DuckDB itself (`storage.sandbox`).
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataflow_assets.checks._dataset import missing_columns
from dataflow_assets.checks._facts import Facts, plain_type
from dataflow_assets.checks._sql import ROWS, Condition, row_condition
from dataflow_assets.errors import DataflowError, TransformFailed
from dataflow_assets.protocols import StagedInput, StepContext
from dataflow_assets.tables import Query

if TYPE_CHECKING:
    from dataflow_assets.storage.sandbox import Sandbox

_PREFIX = re.compile(r"^.*?DuckDB refused the SQL: (?:\w+ Error: )?", re.DOTALL)


class Conditions:
    """The conditions on rows of one stream. One that cannot be evaluated is known by its reason, and then holds nowhere."""

    def __init__(self, texts: Iterable[str], schema: pa.Schema, context: StepContext) -> None:
        self._schema = pa.schema([(item.name, plain_type(item.type)) for item in schema])
        self._context, self._stack = context, ExitStack()
        weakref.finalize(self, self._stack.close)  # a stream that breaks off is never finished
        self._sandbox: Sandbox | None = None
        self._reasons: dict[str, str] = {}
        self._texts: list[str] = []
        for text in dict.fromkeys(texts):
            if reason := self._refusal(text):
                self._reasons[text] = reason
            else:
                self._texts.append(text)
        self.columns = self._used(self._texts)
        """What is needed of a batch to evaluate them."""

    def trouble(self, *texts: str) -> str:
        """Why one of these could not be evaluated, now or in a batch that has passed; empty when all could."""
        return next((self._reasons[text] for text in texts if text in self._reasons), "")

    def close(self) -> None:
        """Close the sandbox; it opens again when a further batch is looked at."""
        self._sandbox = None
        self._stack.close()

    def of(self, facts: Facts) -> dict[str, pa.BooleanArray]:
        """See `_facts.Evaluates`."""
        held = {text: pa.nulls(facts.rows, pa.bool_()) for text in self._reasons}
        if not self._texts:
            return held
        rows = pa.table({name: facts.column(name) for name in self.columns})
        try:
            return held | dict(zip(self._texts, self._evaluated(self._texts, rows), strict=True))
        except DataflowError:
            held |= {text: self._alone(text, rows) for text in self._texts}
            self._texts = [text for text in self._texts if text not in self._reasons]
            return held

    def _alone(self, text: str, rows: pa.Table) -> pa.BooleanArray:
        """One condition, after all of them together have failed on these rows."""
        try:
            return self._evaluated([text], rows)[0]
        except DataflowError as error:
            self._reasons.setdefault(text, reason_of(text, error))
            return pa.nulls(rows.num_rows, pa.bool_())

    def _evaluated(self, texts: Sequence[str], rows: pa.Table) -> list[pa.BooleanArray]:
        self._open().offer(ROWS, rows)
        found = self._select(texts).read_all()
        if found.num_rows != rows.num_rows:
            raise TransformFailed("it does not give one value for each row")
        return [_one_array(column) for column in found.columns]

    def _select(self, texts: Sequence[str], *, where: str = "") -> pa.RecordBatchReader:
        items = ", ".join(f"(\n{text}\n) AS c{number}" for number, text in enumerate(texts))
        limit = f" WHERE (\n{where}\n)" if where else ""
        return self._open().select(Query.of(f"SELECT {items} FROM {ROWS}{limit}"))  # noqa: S608 - it runs locked down

    def _open(self) -> Sandbox:
        from dataflow_assets.storage.sandbox import open_sandbox

        if self._sandbox is None:
            self._sandbox = self._stack.enter_context(open_sandbox({}, scratch=self._context.scratch, step=self._context.step))
        return self._sandbox

    def _refusal(self, text: str) -> str:
        """Why the condition does not suit the columns; empty when it does."""
        if missing := self.missing(row_condition(text)):
            return missing
        try:
            empty = pa.schema([self._schema.field(name) for name in self._used([text])]).empty_table()
            self._open().offer(ROWS, empty)
            found = self._select([text]).read_all()
        except DataflowError as error:
            return reason_of(text, error)
        if found.num_rows:
            return f"{text}: it looks at many rows, not at each row alone"
        kind = found.schema.field(0).type
        return "" if pa.types.is_boolean(kind) else f"{text}: it gives values of type {kind}, not true or false"

    def _used(self, texts: Iterable[str]) -> list[str]:
        return used_columns([row_condition(text) for text in texts], self._schema.names)

    def missing(self, condition: Condition) -> str:
        """The columns of a condition that are not in the data, in words; empty when all are."""
        names = self._schema.names
        return missing_columns([name for name in condition.columns if not _matching(name, names)], names)

    def measured(self, texts: Sequence[str], *, columns: Sequence[str], where: str, stage: StagedInput) -> Mapping[str, Any]:
        """Aggregates over a whole stage, or its rows where `where` is true: text -> value. Raises DataflowError."""
        with stage.open_reader(columns or stage.schema.names[:1]) as reader:
            schema = pa.schema([(item.name, plain_type(item.type)) for item in reader.schema])
            plain_rows = pa.RecordBatchReader.from_batches(
                schema,
                (pa.RecordBatch.from_arrays([Facts(batch).column(name) for name in schema.names], schema=schema) for batch in reader),
            )
            self._open().offer(ROWS, plain_rows)
            found = self._select(texts, where=where).read_all()
        return {text: column[0] for text, column in zip(texts, found.columns, strict=True)}


def used_columns(conditions: Iterable[Condition], names: Sequence[str]) -> list[str]:
    """The columns of the data that conditions use, as the data spells them; the first one where they use none."""
    used = dict.fromkeys(found for condition in conditions for name in condition.columns for found in _matching(name, names))
    return list(used) or list(names[:1])


def _matching(name: str, names: Sequence[str]) -> list[str]:
    """The column that SQL means by a name: it does not tell upper from lower case."""
    return [name] if name in names else [other for other in names if other.casefold() == name.casefold()]


def reason_of(text: str, error: DataflowError) -> str:
    """DuckDB's message about a condition, in one line."""
    message = _PREFIX.sub("", error.message).strip().split("\n\nLINE")[0].split("\nLINE")[0]
    return f"{text}: {' '.join(message.split())}"


def _one_array(column: pa.ChunkedArray) -> pa.BooleanArray:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
