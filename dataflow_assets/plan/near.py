"""The part of a project that a few pipelines have to do with: what a run of one pipeline loads of a thousand.

Here: which files hold the pipelines asked for, what comes before them, and whoever else might write what they write, found by the
words in the files before any of them is read as YAML. Not here: reading (`spec.load`), the refusals themselves (`plan.build`), which
find in this part what they would find in the whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataflow_assets.errors import SpecError
from dataflow_assets.plan.lineage import TableRef, tables_of
from dataflow_assets.plan.names import legal
from dataflow_assets.plan.pipelines import PipelineDraft, draft_pipeline
from dataflow_assets.plan.references import references_of
from dataflow_assets.spec.load import load, read_pipeline_file
from dataflow_assets.spec.project import LoadedPipeline, Project

_WORD = re.compile(r"[^\s\"'`,{}\[\]();:=]+")
_PATTERN = re.compile(r"[*?\[]")
_ASSET_KEY = re.compile(r"""asset_key["']?\s*:([^\n]*)""")
_SIGNS = ("{{", "{%", "${")
_HIDDEN = re.compile(
    r"""(?:table|table_schema|schema|database|dataset|index|path|asset_key)["']?\s*:\s*(?:[>|][-+]?\s*)?[^\n]*?"""
    r"""(?:\{\{(?!\s*(?:window|batch_start|batch_end)\b)|\{%|\$\{)"""
)
"""A name that a template makes, of variables perhaps that only the plan knows: no word of the file need tell it."""
FEW = 50
"""A project of at most so many files is read whole: looking for a part of it would cost as much."""


def load_near(path: Path, names: Sequence[str], *, overrides: Mapping[str, Any] | None = None) -> Project:
    """The project at `path` with the pipelines `names`, all that come before them, and those that share a name or a table with them.

    The whole project where a part cannot stand for it: it is small, a name is not found, a file is broken, or there are contracts.
    Raises SpecError when the project file itself is wrong.
    """
    files: list[Path] = []

    def leave_for_later(found: Sequence[Path]) -> Sequence[Path]:
        files.extend(found)
        return found if len(found) <= FEW else ()

    project = load(path, overrides=overrides, choose=leave_for_later)
    if len(files) <= FEW:
        return project
    part = None
    if not project.contracts and not project.failures:
        with suppress(SpecError, OSError, UnicodeDecodeError):
            part = _Part(project, files).around(names)
    return load(path, overrides=overrides) if part is None else replace(project, pipelines=tuple(part), partial=True)


class _Part:
    """The files of a project as sets of words, and those of them that were read."""

    def __init__(self, project: Project, files: Sequence[Path]) -> None:
        self.project, self.files = project, files
        texts = {file: file.read_text(encoding="utf-8") for file in files}
        self._words = {file: _words(f"{file.stem} {text}") for file, text in texts.items()}
        self._hidden = {file for file, text in texts.items() if any(sign in text for sign in _SIGNS) and _HIDDEN.search(text)}
        self._read: dict[Path, list[LoadedPipeline]] = {}

    def around(self, names: Sequence[str]) -> list[LoadedPipeline] | None:
        """The pipelines, in the order of their files; None when one of `names` is not there, or not sound, or there twice, or when so
        many files hide their names that a part would be no gain."""
        if len(self._hidden) > FEW:
            return None
        wanted, kept = list(dict.fromkeys(names)), dict[str, LoadedPipeline]()
        for name in wanted:  # grows while it is gone through
            found = [item for item in self._naming(_clues_of(name)) if item.name == name]
            if len(found) != 1:
                return None
            kept[name] = found[0]
            draft = draft_pipeline(self.project, found[0])
            tables = _tables_read(draft, self.project.root)
            if draft.findings.problems or (clues := _clues(draft, tables)) is None:
                return None
            for other in self._naming(clues):
                if other.name not in wanted and self._comes_before(other, draft, tables):
                    wanted.append(other.name)
                kept.setdefault(other.name, other)
            wanted += [item for item in draft.model.depends_on if item not in wanted]
        return [item for file in self.files for item in self._read.get(file, ()) if item.name in kept]

    def _naming(self, words: set[str]) -> list[LoadedPipeline]:
        """The pipelines of every file that has one of these words, or may have."""
        found = [file for file in self.files if file in self._hidden or not words.isdisjoint(self._words[file])]
        for file in found:
            if file not in self._read:
                self._read[file] = read_pipeline_file(file)
        return [item for file in found for item in self._read[file]]

    def _comes_before(self, other: LoadedPipeline, draft: PipelineDraft, tables: Sequence[TableRef]) -> bool:
        if other.name in draft.model.depends_on or other.name in _looked_at(draft):
            return True
        published = draft_pipeline(self.project, other).writes.values()
        return any(table.is_read_from(target) for table in tables for target in published)


def _words(text: str) -> set[str]:
    """The words of a file; of a path or a name with dots its last part too, of an asset key all parts."""
    folded = _folded(text)
    found = {word.strip("/") for word in _WORD.findall(folded)}
    lasts = {word.rpartition(sign)[2] for word in found for sign in "/."}
    keys = {part for line in _ASSET_KEY.findall(folded) for word in _WORD.findall(line) for part in word.split("/")}
    return found | lasts | keys | {word.replace(".", "_") for word in found}


def _folded(text: str) -> str:
    """Text in which names that mean one table or asset are one word."""
    return text.casefold().replace("-", "_")


def _clues(draft: PipelineDraft, tables: Sequence[TableRef]) -> set[str] | None:
    """The words of which a file has one if it has to do with this pipeline; None where no word tells."""
    keys = [key for step in draft.model.steps for key in step.asset_key or ()]
    keys += [key for sensor in draft.model.sensors for key in sensor.assets]
    names = {draft.name, *_looked_at(draft), *_waited_for(draft), *(part for key in keys for part in key.split("/") if part)}
    found = {word for name in names for word in _clues_of(name)}
    for table in (*tables, *(writer.table for writer in draft.writers())):
        if _PATTERN.search(table.name):
            return None
        found |= _clues_of_table(table)
    return found


def _clues_of(name: str) -> set[str]:
    words = sorted(_WORD.findall(_folded(name)), key=len)
    return {legal(name.casefold()), *words[-1:]}


def _clues_of_table(table: TableRef) -> set[str]:
    """Its name, of a file without its folder; and every folder that a file lies in, of which another may write the whole."""
    if not table.is_file:
        return _clues_of(table.name)
    parts = _folded(table.name).strip("/").split("/")
    folders = {"/".join(parts[first:last]) for first in range(len(parts)) for last in range(first + 1, len(parts))}
    return folders | _clues_of(parts[-1])


def _looked_at(draft: PipelineDraft) -> set[str]:
    """The other pipelines that the checks of this one look at."""
    return {item.dataset.pipeline for _, item in references_of(draft.steps) if item.dataset.pipeline}


def _waited_for(draft: PipelineDraft) -> set[str]:
    """The other pipelines that its sensors name."""
    return {name for sensor in draft.model.sensors for name in sensor.pipelines}


def _tables_read(draft: PipelineDraft, root: Path) -> list[TableRef]:
    read = [table for step, reads in draft.reads.items() for table in tables_of(draft.steps[step], reads, root)]
    return [*read, *(table for tables in draft.looked_up.values() for table in tables)]
