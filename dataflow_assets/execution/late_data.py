"""Looking again at the sources of published windows: which rows came late, changed or vanished since.

Here: which windows, one look at each source for all of them, the comparison with what was published, and the record of it. Not here: how a
source is asked (`execution.looking`), which rows differ (`execution.late_rows`), what is due (`execution.reopening`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Literal

from dataflow_assets.errors import ReadFailed
from dataflow_assets.execution.fingerprints import Fingerprint, fingerprints_of
from dataflow_assets.execution.late_rows import Changes, changes_of, sentence_of
from dataflow_assets.execution.ledgers import endpoint_entries
from dataflow_assets.execution.looking import Asked, look
from dataflow_assets.execution.losses import Losses
from dataflow_assets.execution.reopening import newest_of_each, published_rows
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.execution.sightings import Sighting, Sightings, read_sightings, write_sightings
from dataflow_assets.execution.work import upstream_of
from dataflow_assets.failpoints import failpoint
from dataflow_assets.plan.model import PipelinePlan
from dataflow_assets.plan.retention import reads_what_left
from dataflow_assets.plan.windows import WHOLE
from dataflow_assets.secrets import mask
from dataflow_assets.spec.late_data import DEFAULT_WINDOWS, LateDataOptions
from dataflow_assets.spec.project import Project
from dataflow_assets.tables import LedgerEntry, utc_now
from dataflow_assets.windows import Window, parse_duration

Finding = Literal["late", "same", "baseline", "unknown"]


@dataclass(frozen=True)
class LateWindow:
    """What a look at one window found. `finding`: `late` differs from what was published, `baseline` is looked at for the first time and
    was published without a fingerprint, `unknown` could not be asked."""

    pipeline: str
    key: str
    window: Window | None
    finding: Finding
    sentence: str
    published_at: datetime
    seen_at: datetime
    rows_published: int | None = None
    rows_now: int | None = None
    changes: Changes | None = None
    """How many rows came, changed and vanished, as far as that can be told."""
    is_news: bool = False
    """Whether no look before this one has seen the same; of `same`: whether the one before found something."""
    steps: tuple[str, ...] = ()
    """The endpoints that hold the window."""


def look_for_late_data(
    project: Project,
    pipeline: PipelinePlan,
    *,
    now: datetime,
    windows: int | None = None,
    tell: Callable[[Sequence[LateWindow]], None] | None = None,
) -> list[LateWindow]:
    """Look at the newest published windows, oldest first; `windows`: how many, in place of what `late_data:` says.

    What is seen is kept, so that windows that differ are due; `tell` hears it before it is kept, so that what is news is told once more
    rather than never. Nothing is looked at without `late_data:`. Raises ConnectionFailed, ReadFailed, WriteFailed.
    """
    options = pipeline.late_data
    if options is None:
        return []
    session = Session(RunRequest(project, pipeline, (), attempt="late", now=now))
    with closing(session):
        there = {step.id: [entry for entry in endpoint_entries(session, step) if not entry.retired] for step in pipeline.endpoints}
        entries = {name: newest_of_each(found) for name, found in there.items()}
        losses = Losses(project, pipeline, now=now)
        units = published_units(pipeline, entries, options, now=now, windows=windows, why_not=losses.why_left_alone)
        known = read_sightings(project, pipeline.name)
        search = _Search(session, options, entries, known)
        found = [search.judge(key, window) for key, window in search.looked_at(units)]
        if tell is not None:
            tell(found)
        failpoint("late.seen")
        write_sightings(project, pipeline.name, search.fresh, replacing=search.replaced())
        return found


def published_units(
    pipeline: PipelinePlan,
    entries: Mapping[str, Mapping[str, LedgerEntry]],
    options: LateDataOptions,
    *,
    now: datetime,
    windows: int | None = None,
    why_not: Callable[[Window], str] = lambda window: "",
) -> list[tuple[str, Window | None]]:
    """The newest windows that every endpoint has published and still holds, and that could be made again, oldest first.

    `why_not` says why one could not, whatever the plan says.
    """
    held = [{key for key, entry in found.items() if not entry.retired} for found in entries.values()]
    shared = set.intersection(*held) if held else set()
    if pipeline.windows is None:
        return [(WHOLE, None)] if shared else []
    newest = next(iter(entries.values()))
    units = sorted(((key, window) for key in shared if (window := newest[key].unit.window)), key=lambda unit: unit[1])
    count = windows or options.windows or DEFAULT_WINDOWS
    if windows is None and options.max_age is not None:
        oldest = now - parse_duration(options.max_age)
        units = [unit for unit in units if unit[1].end > oldest]
        count = len(units)
    found = list(islice((unit for unit in reversed(units) if _can_be_made_again(pipeline, unit[1], now) and not why_not(unit[1])), count))
    return [*reversed(found)]


def _can_be_made_again(pipeline: PipelinePlan, window: Window, now: datetime) -> bool:
    """Not one that was cut otherwise than the pipeline does now, nor one that was made of rows which retention has taken."""
    assert pipeline.windows is not None
    cadence = pipeline.windows.cadence
    is_cut = cadence.floor(window.start) == window.start and cadence.next(window.start) == window.end
    return is_cut and not reads_what_left(pipeline, window, now=now)


class _Search:
    """One look at the windows of a pipeline."""

    def __init__(
        self,
        session: Session,
        options: LateDataOptions,
        entries: Mapping[str, Mapping[str, LedgerEntry]],
        known: Sightings,
    ) -> None:
        self._session, self._options, self._entries, self._known = session, options, entries, known
        self._now = utc_now()  # by the clock that says when rows were read, which may not be the caller's
        self._pipeline = session.pipeline
        self._seen: dict[tuple[str, str], Fingerprint | ReadFailed] = {}
        self.fresh: list[Sighting] = []

    def looked_at(self, units: Sequence[tuple[str, Window | None]]) -> Sequence[tuple[str, Window | None]]:
        """Ask every source for all units at once."""
        for name in self._options.sources:
            source = self._pipeline.by_id[name]
            asked = [Asked(key, window, self._expected(name, key), self._before(name, key)) for key, window in units]
            for key, found in look(self._session, source, asked, options=self._options, now=self._now).items():
                self._seen[name, key] = found
        return units

    def judge(self, key: str, window: Window | None) -> LateWindow:
        """Compare what was seen of a window with what was published, and keep it where that is news."""
        entries = {name: found[key] for name, found in self._entries.items()}
        published_at = max(entry.published_at for entry in entries.values())
        found = LateWindow(self._pipeline.name, key, window, "same", "", published_at, self._now, steps=tuple(entries))
        for (source, unit), seen in self._seen.items():
            if unit == key:
                found = _worse(found, self._judge_source(found, source, seen, entries))
        return found

    def _judge_source(
        self, window: LateWindow, source: str, seen: Fingerprint | ReadFailed, entries: Mapping[str, LedgerEntry]
    ) -> LateWindow:
        if isinstance(seen, ReadFailed):
            return replace(window, finding="unknown", sentence=self._named(source, mask(str(seen))))
        mine = {name: entry for name, entry in entries.items() if source in upstream_of(self._pipeline, self._pipeline.by_id[name])}
        before = self._known.get((window.key, source))
        told = {name: published_rows(before, name, entry) or fingerprints_of(entry).get(source) for name, entry in mine.items()}
        published = [rows for rows in told.values() if rows is not None]
        sighting = Sighting(window.key, source, self._now, seen, {name: entry.generation for name, entry in mine.items()})
        if not published:
            self.fresh.append(replace(sighting, baseline=seen))
            words = f"published before there were fingerprints: {seen.tally.rows:,} rows at its source are the baseline from now on"
            return replace(window, finding="baseline", sentence=self._named(source, words), rows_now=seen.tally.rows, is_news=True)
        sighting = replace(sighting, baseline=before.baseline if before and before.compared == sighting.compared else None)
        if all(rows.same_rows(seen) for rows in published):
            moved = any(rows.version != seen.version for rows in published)
            news = self._keep_if_news(sighting, before, needed=moved) and before is not None and bool(before.sentence)
            return replace(window, rows_published=published[0].tally.rows, rows_now=seen.tally.rows, is_news=news)
        return self._late(window, sighting, before, published[0], mine)

    def _late(
        self, window: LateWindow, sighting: Sighting, before: Sighting | None, published: Fingerprint, mine: Mapping[str, LedgerEntry]
    ) -> LateWindow:
        if before is not None and before.sentence and _says_the_same(before, sighting):
            kept = replace(sighting, sentence=before.sentence, changes=before.changes)
        else:
            steps, source = [self._pipeline.by_id[name] for name in mine], self._pipeline.by_id[sighting.step]
            changes = changes_of(self._session, source, steps, window.window, self._options, published=published, seen=sighting.seen)
            sentence = self._named(sighting.step, sentence_of(changes, published_at=window.published_at))
            kept = replace(sighting, sentence=sentence, changes=asdict(changes))
        news = self._keep_if_news(kept, before, needed=True)
        return replace(
            window,
            finding="late",
            sentence=kept.sentence,
            rows_published=published.tally.rows,
            rows_now=sighting.seen.tally.rows,
            changes=Changes(**kept.changes) if kept.changes else None,
            is_news=news,
        )

    def _keep_if_news(self, sighting: Sighting, before: Sighting | None, *, needed: bool) -> bool:
        """Keep a sighting unless the last one says the same of the same publish; one that is not needed only in place of another."""
        same = before is not None and _says_the_same(before, sighting)
        if same and before is not None and before.seen.version == sighting.seen.version:
            return False
        if needed or before is not None:
            self.fresh.append(sighting)
        return not same

    def _expected(self, source: str, key: str) -> Fingerprint | None:
        """What was published, of the newest publish that tells."""
        before = self._known.get((key, source))
        entries = {name: found[key] for name, found in self._entries.items()}
        told = (published_rows(before, name, entry) or fingerprints_of(entry).get(source) for name, entry in entries.items())
        return next((rows for rows in told if rows is not None), None)

    def _before(self, source: str, key: str) -> Fingerprint | None:
        """What the last look at this publish saw."""
        before = self._known.get((key, source))
        current = {name: found[key].generation for name, found in self._entries.items()}
        is_current = before is not None and all(current.get(name) == generation for name, generation in before.compared.items())
        return before.seen if before is not None and is_current else None

    def _named(self, source: str, words: str) -> str:
        return f"{source}: {words}" if len(self._options.sources) > 1 else words

    def replaced(self) -> Iterator[Sighting]:
        """The sightings that fresh ones take the place of."""
        for sighting in self.fresh:
            if before := self._known.get((sighting.key, sighting.step)):
                yield before


def _says_the_same(one: Sighting, two: Sighting) -> bool:
    """Whether two sightings saw the same rows and held them against the same publish."""
    return one.compared == two.compared and one.seen.same_rows(two.seen)


_ORDER: Mapping[Finding, int] = {"same": 0, "baseline": 1, "unknown": 2, "late": 3}


def _worse(one: LateWindow, two: LateWindow) -> LateWindow:
    """Of what two sources say of a window, what matters more, with both sentences where both do."""
    if _ORDER[one.finding] > _ORDER[two.finding]:
        one, two = two, one
    if one.finding == two.finding and one.sentence and one.sentence != two.sentence:
        return replace(two, sentence=f"{one.sentence}; {two.sentence}", is_news=one.is_news or two.is_news)
    return two
