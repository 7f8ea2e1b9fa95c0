"""The promises about reading, and the contract of a connector that only reads.

Here: `ReadingPromises`, which every connector keeps and which need rows in the source, however they came there
(`Harness.fill`); `SourceContract`, which a connector that writes nothing inherits in place of `ConnectorContract`. Not here:
publishing (`contract_writing`), what one system alone promises (its own test file).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

import pyarrow as pa
import pytest
import yaml
from pydantic import BaseModel, SecretStr

from dataflow_assets.batches import BATCH_BYTES
from dataflow_assets.errors import DataflowError, ReadFailed, WriteFailed
from dataflow_assets.spec.models import EndpointOptions, SourceOptions
from dataflow_assets.tables import ReadRequest, TableName, Target, WriteMode
from dataflow_assets_tests.connectors.arrow_types import COLUMNS, NESTED
from dataflow_assets_tests.connectors.contract_base import Promises, where
from dataflow_assets_tests.connectors.harness import EVENTS, Harness, assert_same_rows, day, events, hour


class ReadingPromises(Promises):
    """Columns and windows as asked for, in bounded memory, and a connector that says what it is."""

    def test_reading_some_columns(self, harness: Harness) -> None:
        harness.fill("things", events(day(0)))
        found = harness.read("things", columns=["note", "id"])
        assert found.column_names == ["note", "id"]
        assert_same_rows(events(day(0)).select(["note", "id"]), found)

    def test_reading_an_unknown_column_names_it(self, harness: Harness) -> None:
        harness.fill("things", events(day(0)))
        with pytest.raises(ReadFailed, match="nonesuch"):
            harness.read("things", columns=["id", "nonesuch"])

    def test_reading_a_window_without_its_column(self, harness: Harness) -> None:
        """The column that places a row need not be among those wanted."""
        harness.fill("things", events(day(0)))
        found = harness.read("things", columns=["id"], window=where(hour(5)))
        assert found.column_names == ["id"]
        assert found.num_rows == 1

    def test_reading_streams(self, harness: Harness) -> None:
        harness.fill("things", events(day(0), rows=200_000))
        with harness.connector.read(ReadRequest(harness.source_options("things"), batch_rows=20_000)) as reader:
            sizes = [(batch.num_rows, batch.nbytes) for batch in reader]
        assert sum(rows for rows, _ in sizes) == 200_000
        assert max(rows for rows, _ in sizes) <= 20_000
        assert max(size for _, size in sizes) <= BATCH_BYTES

    def test_an_absent_table_is_named_with_a_hint(self, harness: Harness) -> None:
        with pytest.raises(ReadFailed, match="nowhere") as caught:
            harness.read("nowhere")
        assert caught.value.hint

    def test_exact_types_are_not_claimed_lightly(self, harness: Harness) -> None:
        """Nested values apart, which may become their JSON text."""
        changed = [case for case, lossy in self.lossy.items() if lossy.form is not None and case not in NESTED]
        assert not (harness.connector.capabilities.exact_types and changed), f"exact_types, yet these change form: {changed}"

    def test_the_connector_declares_itself(self, harness: Harness) -> None:
        kind = type(harness.connector)
        assert re.fullmatch(r"[a-z][a-z0-9_]*", kind.kind)
        assert kind.capabilities.modes <= set(WriteMode)
        assert issubclass(kind.Source, SourceOptions)
        assert issubclass(kind.Endpoint, EndpointOptions)
        for model in (kind.Connection, kind.Source, kind.Endpoint):
            assert model.model_config.get("extra") == "forbid"
        assert harness.connector.probe()

    def test_the_example_is_valid(self, harness: Harness) -> None:
        kind = type(harness.connector)
        document = yaml.safe_load(kind.example)
        steps = [step for step in document["steps"] if step.get(f"{step['type']}_type", step.get("kind")) == kind.kind]
        assert steps, "the example shows no step of this kind"
        for step in steps:
            (kind.Source if step["type"] == "source" else kind.Endpoint).model_validate(step.get("config", {}))

    def test_secrets_are_typed_as_such(self, harness: Harness) -> None:
        model: type[BaseModel] = type(harness.connector).Connection
        for name, item in model.model_fields.items():
            if re.search(r"password|secret|token|private_key|credentials|dsn|uri", name):
                assert SecretStr in {item.annotation, *get_args(item.annotation)}, f"{name} is not a SecretStr"


class SourceContract(ReadingPromises):
    """All promises of a connector that only reads; inherit this one, and let the harness `fill` the source."""

    @pytest.mark.parametrize("case", sorted(COLUMNS))
    def test_a_value_is_read_or_refused(self, harness: Harness, case: str) -> None:
        def way(name: str, table: pa.Table) -> Iterator[pa.Table]:
            harness.fill(name, table)
            yield harness.read(name)

        self.send(harness, case, way)

    def test_an_empty_source_is_read(self, harness: Harness) -> None:
        harness.fill("things", EVENTS.empty_table())
        found = harness.read("things")
        assert found.num_rows == 0
        assert set(EVENTS.names) <= set(found.column_names)
        self.came_back_empty(harness)

    def test_hostile_column_names_are_read(self, harness: Harness) -> None:
        names = list(harness.hostile_columns)
        table = pa.table({name: pa.array([number, None], type=pa.int64()) for number, name in enumerate(names)})
        harness.fill("things", table)
        assert_same_rows(table, harness.read("things", columns=names))
        assert harness.read("things", columns=[names[0], names[4]]).column_names == [names[0], names[4]]

    def test_a_hostile_window_column_is_read(self, harness: Harness) -> None:
        harness.fill("things", events(day(0)).rename_columns(["id", "a't %s", "note"]))
        assert harness.read("things", window=where(hour(3), "a't %s")).num_rows == 1

    def test_hostile_names_are_read(self, harness: Harness) -> None:
        for number, name in enumerate(harness.hostile_tables):
            harness.fill(name, events(day(number), rows=number + 1))
        for number, name in enumerate(harness.hostile_tables):
            assert harness.read(name).num_rows == number + 1
            assert isinstance(harness.connector.source_table(harness.source_options(name)), TableName)

    @pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.date32()], ids=str)
    def test_a_window_is_half_open(self, harness: Harness, kind: pa.DataType) -> None:
        table = pa.concat_tables([events(day(number)) for number in (0, 1, 2)])
        at = table["at"] if kind == table["at"].type else table["at"].cast(pa.timestamp("us")).cast(kind, safe=False)
        harness.fill("things", table.set_column(1, "at", at))
        found = harness.read("things", window=where(day(1)))
        assert sorted(found["id"].to_pylist()) == sorted(events(day(1))["id"].to_pylist())

    def test_a_reader_may_be_left_early_and_opened_again(self, harness: Harness) -> None:
        harness.fill("things", events(day(0), rows=20_000))
        for _ in range(3):
            with harness.connector.read(ReadRequest(harness.source_options("things"), batch_rows=1_000)) as reader:
                reader.read_next_batch()
        assert harness.read("things").num_rows == 20_000

    def test_it_can_be_closed_and_opened_again(self, harness: Harness) -> None:
        harness.fill("things", events(day(0)))
        harness.read("things")
        harness.connector.close()
        harness.connector.close()
        assert_same_rows(events(day(0)), harness.read("things", columns=EVENTS.names))

    def test_no_secret_is_shown_by_reading(self, harness: Harness) -> None:
        if harness.secret is None:
            pytest.skip("no secret was planted")
        harness.fill("things", events(day(0)))
        shown = [repr(harness.connector), str(harness.connector), harness.connector.probe(), repr(vars(harness.connector))]
        for name, columns in (("nowhere", None), ("things", ["nonesuch"])):
            with pytest.raises(DataflowError) as caught:
                harness.read(name, columns=columns)
            shown += messages(caught.value)
        assert not [text for text in shown if harness.secret in text]

    def test_it_refuses_to_write(self, harness: Harness) -> None:
        connector = harness.connector
        assert not connector.capabilities.modes
        options = connector.Endpoint(mode=WriteMode.APPEND)
        target = Target(TableName("things"), WriteMode.APPEND, options)
        with pytest.raises(WriteFailed, match=f"{connector.kind} can only be read"):
            connector.claim(target, day(0), attempt="first")
        with pytest.raises(WriteFailed, match=f"{connector.kind} can only be read"):
            connector.target_table(options)


def messages(error: BaseException) -> list[str]:
    """Every text that an error and its causes could show."""
    found: list[str] = []
    while error is not None:
        found += [str(error), repr(error), str(vars(error))]
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return found
