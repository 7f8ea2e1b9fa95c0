"""What a sensor has seen: once and for all, in few bytes, never before a cursor says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.operations.sensors.seen import Note, Seen, packed

NOW = datetime(2024, 3, 1, tzinfo=UTC)


class Values:
    """The table of keys and values of an instance."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def get_cursor_values(self, keys: set[str]) -> Mapping[str, str]:
        return {key: value for key, value in self.kept.items() if key in keys}

    def set_cursor_values(self, pairs: Mapping[str, str]) -> None:
        """As Dagster's SQLite storage does it: new keys among known ones are dropped."""
        known = pairs.keys() & self.kept.keys()
        self.kept |= {key: value for key, value in pairs.items() if not known or key in known}


def test_a_hundred_thousand_files_are_remembered_in_small_values() -> None:
    values = Values()
    first = Seen(values, "p", "", now=NOW)
    notes = [Note(f"landing/{number}.csv", f"{number}:1", "c") for number in range(100_000)]
    for start in range(0, len(notes), 1000):
        text = packed(notes[start : start + 1000])
        assert len(text) < 33_000, "what a cursor holds of one tick"
        if start in {0, 99_000}:
            first.add(text)
    first.add(packed(notes))
    again = Seen(values, "p", first.identity, now=NOW)
    assert len(again) == 100_000
    assert all(again.has(note) for note in notes[::997])
    assert not again.has(Note("landing/1.csv", "other"))
    assert again.has_content(Note("landing/1.csv", "other", "c"))
    assert max(map(len, values.kept.values())) < 20_000


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("12")), max_size=5), max_size=8), st.booleans())
def test_a_note_is_had_once_it_is_added_and_not_before(ticks: list[list[tuple[str, str]]], twice: bool) -> None:
    values, identity = Values(), ""
    expected: dict[str, str] = {}
    for tick in ticks:
        seen = Seen(values, "p", identity, now=NOW)
        assert all(seen.has(Note(name, mark)) for name, mark in expected.items())
        text = packed(Note(name, mark) for name, mark in tick)
        for _ in range(1 + twice):
            seen.add(text)
        expected |= dict(tick)
        identity = seen.identity
    assert len(Seen(values, "p", identity, now=NOW)) == len(expected) if identity else not expected


def test_what_is_gone_for_long_is_forgotten_and_a_reset_begins_anew() -> None:
    values = Values()
    seen = Seen(values, "p", "", now=NOW)
    seen.add(packed([Note("a", "1"), Note("b", "1")]), there=["a"])
    for days, there in ((30, ["a", "b"]), (60, ["a"]), (149, ["a"])):
        seen = Seen(values, "p", seen.identity, now=NOW + timedelta(days=days))
        seen.add("", there=there)
        assert seen.has(Note("b", "1")), "it was back after 30 days, and is gone since the 60th"
    seen = Seen(values, "p", seen.identity, now=NOW + timedelta(days=150))
    seen.add("", there=["a"])
    assert not seen.has(Note("b", "1"))
    assert seen.has(Note("a", "1"))
    anew = Seen(values, "p", "", now=NOW)
    assert not anew.has(Note("a", "1"))
    anew.add(packed([Note("c", "1")]))
    assert sum(map(bool, values.kept.values())) == 2, "the old shards are emptied: one shard, and whose it is"
