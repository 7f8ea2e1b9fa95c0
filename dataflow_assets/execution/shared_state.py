"""What the endpoints of one pipeline have published in common, and who is ahead of the others.

Here: pure decisions about ledgers: the batch that every endpoint has, its state, and the batches that only some have. Not here: reading
ledgers (`execution.session`), what is done about an endpoint that is ahead (`execution.catching_up`).

Endpoints commit one after the other, so a failure in between leaves a batch with some of them. Its rows must reach the others without being
read into those a second time: the next run starts from the batch that all have, and not from the oldest or the newest word of any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.tables import LedgerEntry

BATCH, REPLAY_OF = "batch", "replay_of"
"""Keys of an entry's `state`: what its batch is called by all endpoints that have it; the unit that it is a replay of."""
_POSITION = ("last_processed_date", "last_microbatch_timestamp")


@dataclass(frozen=True)
class Shared:
    """`state` is what templates see. `ahead`: endpoint -> what it has published beyond the newest batch that all have."""

    state: Mapping[str, str] = field(default_factory=dict)
    ahead: Mapping[str, tuple[LedgerEntry, ...]] = field(default_factory=dict)


def shared(ledgers: Mapping[str, Sequence[LedgerEntry]]) -> Shared:
    """What these endpoints (step id -> ledger) have in common; no state where they have nothing.

    Two endpoints that were each run alone, and have come equally far, go on together from there.
    """
    found = _batches(ledgers)
    if not found:
        return Shared()
    common = set.intersection(*(set(batches) for batches in found.values()))
    newest = max(common, key=lambda batch: max(batches[batch].published_at for batches in found.values()), default=None)
    ahead = {}
    for step, batches in found.items():
        since = batches[newest].published_at if newest is not None else None
        later = tuple(entry for entry in batches.values() if since is None or entry.published_at > since)
        if later:
            ahead[step] = later
    if len(found) > 1 and ahead.keys() == found.keys():
        ends = [max(entries, key=lambda entry: entry.published_at) for entries in ahead.values()]
        if len({tuple(map(entry.state.get, _POSITION)) for entry in ends}) == 1:
            return Shared(ends[0].state)
    # where one of them got the batch in a later run, that one says how far its rows go
    state = max((batches[newest] for batches in found.values()), key=lambda entry: entry.published_at).state if newest is not None else {}
    return Shared(state, ahead)


def batch_of(entry: LedgerEntry) -> str:
    """The name of the batch, or of the window, that an entry records."""
    return entry.state.get(BATCH, entry.unit.key)


def _batches(ledgers: Mapping[str, Sequence[LedgerEntry]]) -> dict[str, dict[str, LedgerEntry]]:
    """Endpoint -> batch -> entry. One that replaces its target keeps only the last; an older version did not note which that was."""
    found = {step: {batch_of(entry): entry for entry in entries if REPLAY_OF not in entry.state} for step, entries in ledgers.items()}
    told = {step: batches for step, batches in found.items() if batches.keys() != {WHOLE}}
    return told or found
