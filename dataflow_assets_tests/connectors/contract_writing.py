"""The promises about publishing: the four modes, failure and fencing, the ledger.

Here: what holds for every connector that writes. Not here: values, names, reading (`contract`, which inherits this).
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from dataflow_assets.errors import DataflowError, Fenced
from dataflow_assets.tables import LedgerEntry, ReadRequest, Unit, WriteMode, schema_fingerprint
from dataflow_assets_tests.connectors.contract_base import MODES, Promises, checksum, pairs, where
from dataflow_assets_tests.connectors.harness import EVENTS, Harness, assert_same_rows, day, events, failing, hour, unit


class ModePromises(Promises):
    """How rows meet the rows that are there."""

    def test_append_keeps_what_is_there(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        harness.publish(events(day(0)), target, day(0))
        harness.publish(events(day(1)), target, day(1))
        assert_same_rows(pa.concat_tables([events(day(0)), events(day(1))]), harness.rows(target))

    def test_append_of_one_unit_twice_appends_once(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        harness.publish(events(day(0)), target, day(0))
        again = harness.publish(events(day(0)), target, day(0), "second")
        assert again.already
        assert_same_rows(events(day(0)), harness.rows(target))

    def test_append_of_equal_rows_in_two_units_appends_both(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        for key in ("one", "two"):
            assert not harness.publish(events(day(0)), target, unit(key)).already
        assert harness.rows(target).num_rows == 48

    def test_a_changed_append_leaves_the_rows_and_notes_it(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        harness.publish(events(day(0)), target, day(0))
        again = harness.publish(events(day(0), note="changed"), target, day(0), "second")
        assert again.already
        assert again.note
        assert_same_rows(events(day(0)), harness.rows(target))

    def test_replace_leaves_only_the_new_rows(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE)
        harness.publish(events(day(0)), target, unit())
        done = harness.publish(events(day(1), rows=3), target, unit(), "second")
        assert done.rows == 3
        assert_same_rows(events(day(1), rows=3), harness.rows(target))

    def test_replace_with_no_rows_empties(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE)
        harness.publish(events(day(0)), target, unit())
        harness.publish(EVENTS.empty_table(), target, unit(), "second")
        assert harness.rows(target).num_rows == 0

    def test_replace_window_leaves_its_neighbours(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        for number in (0, 1, 2):
            harness.publish(events(day(number)), target, day(number))
        neighbours = [checksum(harness.rows(target, where(day(number)))) for number in (0, 2)]
        harness.publish(events(day(1), note="again", rows=5), target, day(1), "second")
        assert [checksum(harness.rows(target, where(day(number)))) for number in (0, 2)] == neighbours
        assert_same_rows(events(day(1), note="again", rows=5), harness.rows(target, where(day(1))))
        assert harness.rows(target).num_rows == 53

    def test_replace_window_with_no_rows_empties_the_window_only(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        for number in (0, 1):
            harness.publish(events(day(number)), target, day(number))
        harness.publish(EVENTS.empty_table(), target, day(0), "second")
        assert_same_rows(events(day(1)), harness.rows(target))

    def test_an_hour_leaves_the_rest_of_its_day(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        harness.publish(events(day(0)), target, day(0))
        harness.publish(events(hour(5), note="hour", rows=2), target, hour(5))
        rest = events(day(0))
        expected = pa.concat_tables([rest.slice(0, 5), events(hour(5), note="hour", rows=2), rest.slice(6)])
        assert_same_rows(expected, harness.rows(target))

    @pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.timestamp("ms"), pa.date32()], ids=str)
    def test_bounds_are_half_open(self, harness: Harness, kind: pa.DataType) -> None:
        target = self.target(harness, WriteMode.REPLACE_WINDOW)

        def shaped(number: int, note: str) -> pa.Table:
            table = events(day(number), note=note)
            naive = table["at"].cast(pa.timestamp("us"))
            return table.set_column(1, "at", table["at"].cast(kind) if getattr(kind, "tz", None) else naive.cast(kind))

        for number in (0, 1, 2):
            harness.publish(shaped(number, "first"), target, day(number))
        harness.publish(shaped(1, "again"), target, day(1), "second")
        assert_same_rows(pa.concat_tables([shaped(0, "first"), shaped(1, "again"), shaped(2, "first")]), harness.rows(target))
        assert_same_rows(shaped(1, "again"), harness.rows(target, where(day(1))))
        assert_same_rows(shaped(1, "again"), harness.read("things", window=where(day(1))))

    def test_rows_outside_their_window_are_refused(self, harness: Harness) -> None:
        """Such rows would be doubled by the next run of their own window, or survive every rerun of this one."""
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        harness.publish(events(day(0)), target, day(0))
        for strays in (events(day(0)), pa.table([[1], [None], ["no time"]], schema=EVENTS)):
            with pytest.raises(DataflowError, match=r"\bat\b"):
                harness.publish(strays, target, day(1))
        assert_same_rows(events(day(0)), harness.rows(target))

    def test_upsert_lets_the_last_row_of_a_key_win(self, harness: Harness) -> None:
        target = harness.make_target("pairs", self.target(harness, WriteMode.UPSERT).mode, keys=("key",))
        harness.publish(pairs((1, "a"), (2, "b"), (1, "c")), target, unit("one"))
        assert_same_rows(pairs((1, "c"), (2, "b")), harness.rows(target))
        harness.publish(pairs((2, None), (3, "d"), (3, "e")), target, unit("two"))
        assert_same_rows(pairs((1, "c"), (2, None), (3, "e")), harness.rows(target))

    def test_upsert_by_two_keys(self, harness: Harness) -> None:
        target = harness.make_target("twice", self.target(harness, WriteMode.UPSERT).mode, keys=("key", "value"))
        harness.publish(pairs((1, "a"), (1, "b")), target, unit("one"))
        harness.publish(pairs((1, "a"), (2, "a")), target, unit("two"))
        assert_same_rows(pairs((1, "a"), (1, "b"), (2, "a")), harness.rows(target))

    def test_upsert_refuses_a_null_key(self, harness: Harness) -> None:
        target = harness.make_target("pairs", self.target(harness, WriteMode.UPSERT).mode, keys=("key",))
        harness.publish(pairs((1, "a")), target, unit("one"))
        with pytest.raises(DataflowError, match="key"):
            harness.publish(pairs((2, "b"), (None, "x")), target, unit("two"))
        assert_same_rows(pairs((1, "a")), harness.rows(target))

    @pytest.mark.parametrize("mode", MODES)
    def test_publishing_twice_gives_the_same_rows(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, mode)
        for attempt in ("first", "second", "third"):
            harness.publish(events(day(0)), target, day(0), attempt)
        assert_same_rows(events(day(0)), harness.rows(target))
        assert len(harness.connector.ledger(target, pipeline="contract", step="write")) == 1

    @pytest.mark.parametrize("mode", MODES)
    def test_a_lost_reply_is_recognised(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, mode)
        claim = harness.connector.claim(target, day(0), attempt="first")
        request = harness.request(events(day(0)), target, claim)
        assert not harness.connector.publish(request).already
        assert harness.connector.publish(request).already
        assert_same_rows(events(day(0)), harness.rows(target))


class FailurePromises(Promises):
    """What a failure, an older attempt or a second one leaves behind."""

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("after", [0, 3])
    def test_a_failed_publish_leaves_the_old_rows(self, harness: Harness, mode: WriteMode, after: int) -> None:
        target = self.target(harness, mode)
        harness.publish(events(day(0)), target, day(0))
        before = harness.connector.ledger(target, pipeline="contract", step="write")
        broken = day(0) if mode is not WriteMode.APPEND else day(1)
        claim = harness.connector.claim(target, broken, attempt="second")
        with pytest.raises(DataflowError):
            harness.connector.publish(failing(harness.request(events(broken, note="bad"), target, claim), after=after))
        assert_same_rows(events(day(0)), harness.rows(target))
        assert harness.connector.ledger(target, pipeline="contract", step="write") == before
        harness.publish(events(broken, note="good"), target, broken, "third")
        assert harness.rows(target, where(broken) if mode is WriteMode.APPEND else None)["note"].to_pylist().count("good 0") == 1

    @pytest.mark.parametrize("mode", MODES)
    def test_a_stage_that_is_short_of_rows_is_refused(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, mode)
        harness.publish(events(day(0)), target, day(0))
        broken = day(1) if mode in {WriteMode.APPEND, WriteMode.REPLACE_WINDOW} else day(0)
        claim = harness.connector.claim(target, broken, attempt="second")
        short = harness.request(events(broken, note="short"), target, claim)
        with pytest.raises(DataflowError, match="24"):
            harness.connector.publish(replace(short, rows=25))
        assert_same_rows(events(day(0)), harness.rows(target))

    def test_a_failed_first_publish_leaves_nothing(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        claim = harness.connector.claim(target, day(0), attempt="first")
        with pytest.raises(DataflowError):
            harness.connector.publish(failing(harness.request(events(day(0)), target, claim)))
        assert harness.connector.ledger(target, pipeline="contract", step="write") == []
        harness.publish(events(day(0)), target, day(0), "second")
        assert_same_rows(events(day(0)), harness.rows(target))

    @pytest.mark.parametrize("mode", MODES)
    def test_an_older_claim_is_fenced(self, harness: Harness, mode: WriteMode) -> None:
        target = self.target(harness, mode)
        old = harness.connector.claim(target, day(0), attempt="slow")
        new = harness.connector.claim(target, day(0), attempt="quick")
        assert new.generation > old.generation
        with pytest.raises(Fenced) as caught:
            harness.connector.publish(harness.request(events(day(0), note="slow"), target, old))
        assert (caught.value.generation, caught.value.newest) == (old.generation, new.generation)
        harness.connector.publish(harness.request(events(day(0), note="quick"), target, new))
        with pytest.raises(Fenced):
            harness.connector.publish(harness.request(events(day(0), note="slow"), target, old))
        assert_same_rows(events(day(0), note="quick"), harness.rows(target))

    def test_a_claim_of_one_unit_leaves_the_others_alone(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        mine = harness.connector.claim(target, day(0), attempt="a")
        harness.connector.claim(target, day(1), attempt="b")
        harness.connector.claim(target, Unit("other", "write", day(0).key, day(0).window), attempt="c")
        harness.connector.publish(harness.request(events(day(0)), target, mine))
        assert harness.rows(target).num_rows == 24

    def test_concurrent_claims_are_distinct(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        with ThreadPoolExecutor(6) as pool:
            claims = list(pool.map(lambda number: harness.connector.claim(target, day(0), attempt=f"a{number}"), range(12)))
        assert len({claim.generation for claim in claims}) == 12

    def test_concurrent_windows_are_all_published(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        harness.publish(events(day(0)), target, day(0))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: harness.publish(events(day(number)), target, day(number)), range(1, 7)))
        assert_same_rows(pa.concat_tables([events(day(number)) for number in range(7)]), harness.rows(target))
        assert len(harness.connector.ledger(target, pipeline="contract", step="write")) == 7

    def test_an_open_reader_keeps_its_snapshot(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE)
        harness.publish(events(day(0), rows=20_000), target, unit())
        with harness.connector.read(ReadRequest(harness.source_options("things"), batch_rows=1_000)) as reader:
            first = reader.read_next_batch()
            harness.publish(events(day(0), note="new", rows=10), target, unit(), "second")
            found = pa.concat_tables([pa.Table.from_batches([first]), reader.read_all()])
        assert found.num_rows == 20_000
        assert not any(note.startswith("new") for note in found["note"].to_pylist())


class LedgerPromises(Promises):
    """What the ledger tells."""

    def test_the_ledger_tells_everything(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.REPLACE_WINDOW)
        metrics, state = {"rows": 24.0, "sha\u00e9": -1.5e300}, {"last_processed_date": "2024-03-10", 'quote"': "it's \U0001f600"}
        before = datetime.now(UTC)
        harness.connector.claim(target, day(0), attempt="lost")
        harness.publish(events(day(0)), target, day(0), "kept", metrics=metrics, state=state)
        (entry,) = harness.connector.ledger(target, pipeline="contract", step="write")
        assert isinstance(entry, LedgerEntry)
        assert entry.unit == day(0)
        assert (entry.mode, entry.generation, entry.attempt, entry.rows) == (WriteMode.REPLACE_WINDOW, 2, "kept", 24)
        assert entry.checksum == checksum(events(day(0)))
        assert entry.schema_fingerprint == schema_fingerprint(EVENTS)
        assert before <= entry.published_at <= datetime.now(UTC)
        assert (entry.metrics, entry.state) == (metrics, state)
        assert json.loads(json.dumps(entry.metrics)) == metrics

    def test_the_ledger_is_oldest_first_and_per_step(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        for key in ("b", "a", "c"):
            harness.publish(events(day(0), rows=1), target, unit(key))
        harness.publish(events(day(0), rows=1), target, unit("a", step="other"))
        assert [entry.unit.key for entry in harness.connector.ledger(target, pipeline="contract", step="write")] == ["b", "a", "c"]
        assert [entry.unit.key for entry in harness.connector.ledger(target, pipeline="contract", step="other")] == ["a"]
        assert harness.connector.ledger(target, pipeline="contract", step="none") == []

    def test_a_claim_shows_what_was_published(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        assert harness.connector.claim(target, day(0), attempt="first").published is None
        harness.publish(events(day(0)), target, day(0), "second")
        claim = harness.connector.claim(target, day(0), attempt="third")
        assert claim.published is not None
        assert (claim.published.attempt, claim.published.rows, claim.generation) == ("second", 24, 3)

    def test_the_ledger_of_an_absent_target_is_empty(self, harness: Harness) -> None:
        assert harness.connector.ledger(self.target(harness, WriteMode.APPEND, "nowhere"), pipeline="contract", step="write") == []

    def test_a_claim_alone_is_not_in_the_ledger(self, harness: Harness) -> None:
        target = self.target(harness, WriteMode.APPEND)
        harness.connector.claim(target, day(0), attempt="first")
        assert harness.connector.ledger(target, pipeline="contract", step="write") == []
