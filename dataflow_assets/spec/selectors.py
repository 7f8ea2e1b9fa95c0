"""Selectors, with dbt's grammar and meaning, over any graph of named nodes.

Here: `name`, `*` globs, `tag:t`, `path:p`, `+x`, `x+`, `2+x`, `x+3`, `@x`, comma for intersection, space or a further argument for
union, and exclusion. Not here: where the graph comes from (`plan`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from dataflow_assets.errors import SelectionError

_TERM = re.compile(r"(?P<at>@)?(?:(?P<up>\d*)\+)?(?:(?P<method>[a-z_]+):)?(?P<value>[^\s,+@:]+)(?:\+(?P<down>\d*))?\Z")
_GLOB = re.compile(r"[*?\[]")
_METHODS = ("tag", "path", "name")
_GRAMMAR = "write a name, tag:t, path:folder, a * pattern, +x, x+, 2+x, x+3 or @x; a comma intersects, a space unites"


class Selectable(Protocol):
    """What can be selected. Parents that are not among the nodes are ignored."""

    @property
    def name(self) -> str:
        """Unique among the nodes."""
        ...

    @property
    def tags(self) -> Collection[str]:
        """Its tags."""
        ...

    @property
    def parents(self) -> Collection[str]:
        """Names of the nodes that come directly before it."""
        ...

    @property
    def path(self) -> str:
        """The file it is written in, relative to the project; empty when unknown."""
        ...


@dataclass(frozen=True)
class Node:
    """A plain Selectable."""

    name: str
    tags: Collection[str] = ()
    parents: Collection[str] = ()
    path: str = ""


@dataclass(frozen=True)
class _Term:
    text: str
    method: str
    value: str
    at: bool
    up: int | None
    """How far to follow parents: None not at all, -1 to the end."""
    down: int | None


def resolve(nodes: Iterable[Selectable], *, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """The names of the selected nodes, in the order of `nodes`; without `select` all of them.

    Raises SelectionError for a malformed selector, for a word that fits no node, and when nothing is left.
    """
    graph = _Graph(nodes)
    return _resolved(graph.order, graph.term, select=select, exclude=exclude)


def resolve_steps(
    nodes: Iterable[Selectable], steps: Mapping[str, Sequence[Selectable]], *, select: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The selected steps by pipeline. `pipeline.step` and `pipeline/step` name steps, every other term pipelines with all their steps.

    `steps` holds each pipeline's steps, with the ids of steps as names and parents. A first step's parents are the last steps of the
    pipelines above its own. Raises SelectionError as `resolve` does.
    """
    pipelines = _Graph(nodes)
    inner = _Graph(_step_nodes(pipelines, steps))
    owner = {f"{name}.{step.name}": name for name, own in steps.items() for step in own}

    def names_of(term: _Term) -> set[str]:
        if term.method != "tag" and (term.value in pipelines.by_name or not _names_a_step(term.value, steps)):
            chosen = pipelines.term(term)
            return {name for name in inner.order if owner[name] in chosen}
        if term.method == "tag":
            chosen = pipelines.term(term) if pipelines.matching(term) else set()
            tagged = inner.term(term) if inner.matching(term) else set()
            if not chosen and not tagged:
                raise _unmatched(term, pipelines.tags | inner.tags)
            return tagged | {name for name in inner.order if owner[name] in chosen}
        return inner.term(_Term(term.text, term.method, _dotted(term.value, steps), term.at, term.up, term.down))

    found = _resolved(inner.order, names_of, select=select, exclude=exclude)
    grouped: dict[str, list[str]] = {}
    for name in found:
        grouped.setdefault(owner[name], []).append(name.removeprefix(f"{owner[name]}."))
    return {name: tuple(ids) for name, ids in grouped.items()}


def _resolved(order: Sequence[str], names_of: Callable[[_Term], set[str]], *, select: Sequence[str], exclude: Sequence[str]) -> list[str]:
    wanted = _union(names_of, select) if any(text.strip() for text in select) else set(order)
    unwanted = _union(names_of, exclude)
    left = [name for name in order if name in wanted and name not in unwanted]
    if not left and order:
        shown = " ".join([*select, *(f"--exclude {text}" for text in exclude)])
        reason = "everything it selects is excluded" if wanted else "the parts of an intersection have nothing in common"
        raise SelectionError(f"{shown!r} selects nothing: {reason}", hint="dataflow list shows names and tags")
    return left


def _union(names_of: Callable[[_Term], set[str]], texts: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for text in texts:
        for part in text.split():
            sets = [names_of(_parse(term, part)) for term in part.split(",")]
            found |= set.intersection(*sets)
    return found


def _parse(text: str, whole: str) -> _Term:
    match = _TERM.match(text)
    if not match or (match["method"] and match["method"] not in _METHODS):
        shown = f"{text!r} in {whole!r}" if text != whole else f"{text!r}"
        raise SelectionError(f"{shown} is not a selector", hint=_GRAMMAR)
    if match["at"] and (match["up"] is not None or match["down"] is not None):
        raise SelectionError(f"{text!r}: @ already follows parents and children", hint=f"write @{match['value']} without +")
    return _Term(text, match["method"] or "name", match["value"], bool(match["at"]), _distance(match["up"]), _distance(match["down"]))


def _distance(text: str | None) -> int | None:
    return None if text is None else int(text[:9]) if text else -1


class _Graph:
    """Nodes with their edges in both directions."""

    def __init__(self, nodes: Iterable[Selectable]) -> None:
        self.by_name = {node.name: node for node in nodes}
        self.order = list(self.by_name)
        self.parents = {name: [parent for parent in node.parents if parent in self.by_name] for name, node in self.by_name.items()}
        self.children: dict[str, list[str]] = {name: [] for name in self.order}
        for name, parents in self.parents.items():
            for parent in parents:
                self.children[parent].append(name)

    def term(self, term: _Term) -> set[str]:
        """The nodes of one term. Raises SelectionError when its word fits none."""
        found = self.matching(term)
        if not found:
            raise _unmatched(term, self._known(term))
        if term.at:
            below = _reach(found, self.children, -1)
            return _reach(below, self.parents, -1)
        above = _reach(found, self.parents, term.up) if term.up is not None else found
        below = _reach(found, self.children, term.down) if term.down is not None else found
        return above | below

    def matching(self, term: _Term) -> set[str]:
        """The nodes that the word of a term fits, before any operator."""
        value = term.value
        if term.method == "tag":
            return {name for name, node in self.by_name.items() if any(_fits(tag, value) for tag in node.tags)}
        if term.method == "path":
            folder = value.removeprefix("./").rstrip("/")
            return {name for name, node in self.by_name.items() if _fits(node.path, folder) or node.path.startswith(f"{folder}/")}
        return {name for name in self.order if _fits(name, value)}

    @property
    def tags(self) -> set[str]:
        """Every tag of a node."""
        return {tag for node in self.by_name.values() for tag in node.tags}

    def _known(self, term: _Term) -> Iterable[str]:
        if term.method == "tag":
            return self.tags
        return self.order if term.method == "name" else {node.path for node in self.by_name.values() if node.path}


def _unmatched(term: _Term, words: Iterable[str]) -> SelectionError:
    known = list(words) if term.method == "name" else sorted(words)
    near = difflib.get_close_matches(term.value, known, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    elif known:
        hint = f"known: {', '.join(known[:15])}{', ...' if len(known) > 15 else ''}"
    else:
        hint = f"there is no {_noun(term)} at all"
    return SelectionError(f"no {_noun(term)} matches {term.text!r}", hint=hint)


def _noun(term: _Term) -> str:
    return {"tag": "tag", "path": "file"}.get(term.method, "name")


def _fits(text: str, pattern: str) -> bool:
    return text == pattern or (bool(_GLOB.search(pattern)) and fnmatchcase(text, pattern))


def _reach(start: set[str], edges: Mapping[str, Sequence[str]], distance: int) -> set[str]:
    """`start` and what is reachable from it in at most `distance` edges, -1 for any number."""
    reached, edge = set(start), set(start)
    while edge and distance != 0:
        edge = {following for name in edge for following in edges[name]} - reached
        reached |= edge
        distance -= 1
    return reached


def _step_nodes(pipelines: _Graph, steps: Mapping[str, Sequence[Selectable]]) -> list[Node]:
    lasts: dict[str, list[str]] = {}
    for name, own in steps.items():
        inner = {parent for step in own for parent in step.parents}
        lasts[name] = [f"{name}.{step.name}" for step in own if step.name not in inner]
    made = []
    for name, own in steps.items():
        above = [last for parent in pipelines.parents.get(name, ()) for last in lasts.get(parent, ())]
        for step in own:
            parents = [f"{name}.{parent}" for parent in step.parents] or above
            made.append(Node(f"{name}.{step.name}", tuple(step.tags), tuple(parents), step.path))
    return made


def _names_a_step(value: str, steps: Mapping[str, Sequence[Selectable]]) -> bool:
    return any(
        (head := value[:index]) in steps or any(_fits(name, head) for name in steps) for index, char in enumerate(value) if char in "./"
    )


def _dotted(value: str, steps: Mapping[str, Sequence[Selectable]]) -> str:
    """`pipeline/step` in the spelling of the graph; a name that holds the sign itself is left alone."""
    for index, char in enumerate(value):
        if char == "/" and any(_fits(name, value[:index]) for name in steps):
            return f"{value[:index]}.{value[index + 1 :]}"
    return value
