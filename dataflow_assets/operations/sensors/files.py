"""Sensors of type files: each file of a source, in each of its contents, is loaded once.

Here: which files are new, whether they are written to their end, and what they concern. Not here: the memory of those seen (`seen`), the
list that a run is given (`assets.manifests`), how a file is listed (each connector's `list_files`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dataflow_assets.assets.manifests import keep_files, kept_files
from dataflow_assets.errors import ReadFailed, TemplateError, ValueRefused
from dataflow_assets.execution.sensing import DUE, FILES, Found, Memory, digest
from dataflow_assets.execution.touching import touched_windows
from dataflow_assets.operations.sensors.seen import Note, Seen, position_of
from dataflow_assets.operations.sensors.tick import Evaluation
from dataflow_assets.plan.windows import WHOLE, expected_windows
from dataflow_assets.protocols import TakesFiles
from dataflow_assets.tables import ReadRequest, SourceFile, WindowFilter
from dataflow_assets.windows import Window, parse_duration

_READ_BYTES = 256 * 1024**2
"""So much is read in one tick to see what times the new files hold; further files come with the next tick."""
_HASHED_BYTES = 256 * 1024**2
_NAMED = 3


def look(evaluation: Evaluation, memory: Memory) -> Found:
    """List the files, leave out those seen and those still being written, and tell what the others concern."""
    connector = evaluation.session.connector(evaluation.step)
    listed = _Listing(evaluation, connector)
    files = list(listed.files())
    seen = evaluation.seen(str(memory.position.get("memory", "")))
    first = not memory.position
    seen.add(str(memory.position.get("noted", "")), there=[file.name for file, _ in files])
    sorting = _Sorting(evaluation, connector, seen)
    if first and evaluation.sensor.options.existing == "ignore":
        notes = [sorting.note(file) for file, _ in files]
        seen.add(str(position_of(seen, notes)["noted"]))
        return Found(position_of(seen, []), f"the first tick leaves alone what is there already: {_count(len(files))}")
    sorting.sort(files)
    said = sorting.said(len(files), listed.where)
    if not evaluation.sensor.exact:
        return Found(position_of(seen, sorting.notes), said, sorting.units)
    renamed, gone = _renamed(evaluation, connector, memory, files)
    return Found(position_of(seen, [*sorting.notes, *gone]), said, _batch(evaluation, sorting.new), renamed)


class _Listing:
    """The files of the source step; with a path that has templates, those of the newest windows, each with its window."""

    def __init__(self, evaluation: Evaluation, connector: Any) -> None:
        self._evaluation, self._connector = evaluation, connector
        self.where = evaluation.step.table or f"{evaluation.pipeline.name}.{evaluation.step.id}"

    def files(self) -> Iterator[tuple[SourceFile, Window | None]]:
        """Every file once, by name."""
        if not self._is_cut():
            yield from ((file, None) for file in self._of(None))
            return
        plan, listed = self._evaluation.pipeline.windows, set[str]()
        assert plan is not None
        for window in expected_windows(plan, self._evaluation.now)[-self._evaluation.sensor.options.reach :]:
            for file in self._of(window):
                if file.name not in listed:
                    listed.add(file.name)
                    yield file, window

    def _is_cut(self) -> bool:
        """Whether the path names the window."""
        if self._evaluation.pipeline.windows is None:
            return False
        try:
            self._options(None)
        except TemplateError:
            return True
        return False

    def _options(self, window: Window | None) -> Any:
        evaluation = self._evaluation
        return evaluation.session.render(evaluation.step, self._connector.Source, evaluation.session.context(window)).options

    def _of(self, window: Window | None) -> list[SourceFile]:
        found: list[SourceFile] = self._connector.list_files(self._options(window), marker=self._evaluation.sensor.options.marker)
        return found


@dataclass
class _Sorting:
    """The listed files, sorted into new ones and others, and what the new ones concern."""

    evaluation: Evaluation
    connector: Any
    seen: Seen
    new: list[SourceFile] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    writing: int = 0
    unmarked: int = 0
    broken: list[str] = field(default_factory=list)
    more: bool = False
    hashed: int = 0
    read: int = 0

    @property
    def by_file(self) -> bool:
        """Whether its connector reads one file apart from the others."""
        return isinstance(self.connector, TakesFiles)

    def sort(self, files: Sequence[tuple[SourceFile, Window | None]]) -> None:
        """Go through the files until there is enough for one tick."""
        settle = parse_duration(self.evaluation.sensor.options.settle)
        for listed, window in files:
            if self.seen.has(Note(listed.name, listed.mark)):
                continue
            if not listed.ready:
                self.unmarked += 1
            elif listed.changed_at is not None and self.evaluation.now - listed.changed_at < settle:
                self.writing += 1
            elif len(self.new) >= self.evaluation.sensor.options.max_files or self.read >= _READ_BYTES:
                self.more = True
                return
            else:
                self._take(listed, window)

    def note(self, file: SourceFile) -> Note:
        """What is remembered of a file; its content as far as that is cheap to tell, and can be."""
        try:
            return Note(file.name, file.mark, self._with_digest(file).digest)
        except ReadFailed:
            return Note(file.name, file.mark)

    def _with_digest(self, file: SourceFile) -> SourceFile:
        if not self.by_file or self.hashed >= _HASHED_BYTES:
            return file
        self.hashed += file.size
        return replace(file, digest=self.connector.content_digest(file))

    def _take(self, listed: SourceFile, window: Window | None) -> None:
        read = self.read
        try:
            file = self._with_digest(listed)
            note = Note(file.name, file.mark, file.digest)
            if not self.seen.has_content(note):
                for key in self._concerned(file, window):
                    self.units[key] = digest([self.units.get(key, ""), file.name, file.digest or file.mark])
                self.new.append(file)
        except (ReadFailed, ValueRefused) as error:
            if error.transient:
                raise
            self.read = read  # it is tried at each tick: were it counted, those after it would never have their turn
            self.broken.append(f"{listed.name} cannot be read ({error.message})")
        else:
            self.notes.append(note)

    def _concerned(self, file: SourceFile, window: Window | None) -> Sequence[str]:
        """The windows that a file has to do with: the one in its path, else those of its rows' times, else the due ones."""
        evaluation = self.evaluation
        plan = evaluation.pipeline.windows
        if plan is None:
            return (WHOLE,)
        if window is not None:
            return (plan.cadence.key(window),)
        column = evaluation.step.window_column
        if column is None or not self.by_file:
            return (DUE,)
        self.read += file.size
        options = evaluation.session.render(evaluation.step, self.connector.Source, evaluation.session.context(None)).options
        with self.connector.read(ReadRequest(options, columns=(column,), files=(file,))) as reader:
            WindowFilter(column, Window(plan.begin, plan.cadence.next(plan.begin)), plan.cadence.timezone).bounds(
                reader.schema.field(0).type
            )
            touched = touched_windows(plan, (batch.column(0) for batch in reader), now=evaluation.now)
        return [plan.cadence.key(item) for item in sorted(touched)]

    def said(self, listed: int, where: str) -> str:
        """What was found, in a sentence."""
        names = ", ".join(file.name for file in self.new[:_NAMED])
        others = f" and {len(self.new) - _NAMED} more" if len(self.new) > _NAMED else ""
        parts = [f"{_count(len(self.new), 'new ')}: {names}{others}" if self.new else f"no new file among {listed} in {where}"]
        parts += [f"{_count(self.writing)} may still be written to"] if self.writing else []
        parts += [f"{_count(self.unmarked)} without {self.evaluation.sensor.options.marker}"] if self.unmarked else []
        parts += ["further ones come with the next tick"] if self.more else []
        return "; ".join([*parts, *self.broken[:_NAMED]])


def _count(number: int, kind: str = "") -> str:
    return f"{number:,} {kind}file" if number == 1 else f"{number:,} {kind}files"


def _batch(evaluation: Evaluation, new: Sequence[SourceFile]) -> dict[str, str]:
    """The unit of a run that takes exactly the new files, with the moment at which they were found."""
    return {f"{FILES}{keep_files(evaluation.kept, evaluation.step.id, new)}": f"{evaluation.now.isoformat()} files"} if new else {}


def _renamed(
    evaluation: Evaluation, connector: Any, memory: Memory, files: Sequence[tuple[SourceFile, Window | None]]
) -> tuple[dict[str, str], list[Note]]:
    """Units that an earlier tick asked for and that hold files which are gone, or were written anew: what is left of them, if anything.

    A file that is gone before any endpoint has published it is noted in a state that it cannot have, so that it is new when it is back.
    """
    there = {file.name: file for file, _ in files}
    renamed: dict[str, str] = {}
    gone: list[Note] = []
    for unit in memory.waiting:
        kept = kept_files(evaluation.kept, unit.removeprefix(FILES)) if unit.startswith(FILES) else None
        if kept is None:
            continue
        left = [file for file in kept[1] if file.name in there and _is_same(file, there[file.name], connector)]
        if len(left) < len(kept[1]):
            renamed[unit] = next(iter(_batch(evaluation, left)), "")
            if not any(evaluation.marks(unit)):
                gone += [Note(file.name, "") for file in kept[1] if file.name not in there]
    return renamed, gone


def _is_same(file: SourceFile, now: SourceFile, connector: Any) -> bool:
    return file.mark == now.mark or (bool(file.digest) and connector.content_digest(now) == file.digest)
