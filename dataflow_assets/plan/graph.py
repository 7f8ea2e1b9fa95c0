"""Orders and cycles of small directed graphs.

Here: what is true of any graph of names, for steps and for pipelines. Not here: what an edge means (`plan.steps`, `plan.lineage`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Parents = Mapping[str, Sequence[str]]


def topological(parents: Parents, *, rank: Callable[[str], Any] | None = None) -> list[str]:
    """Every name after its parents; among those that are ready the lowest `rank` goes first, then the one written first.

    Parents that are not names of the graph are ignored. Names on or behind a cycle are left out (see `find_cycle`).
    """
    position = {name: number for number, name in enumerate(parents)}
    waiting = {name: {parent for parent in found if parent in position} for name, found in parents.items()}
    dependents = children(parents)
    ready = [(rank(name) if rank else 0, position[name], name) for name, missing in waiting.items() if not missing]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        name = heapq.heappop(ready)[2]
        order.append(name)
        for child in dependents[name]:
            waiting[child].discard(name)
            if not waiting[child]:
                heapq.heappush(ready, (rank(child) if rank else 0, position[child], child))
    return order


def children(parents: Parents) -> dict[str, list[str]]:
    """The direct dependents of every name, in the order they were written."""
    found: dict[str, list[str]] = {name: [] for name in parents}
    for name, its_parents in parents.items():
        for parent in dict.fromkeys(its_parents):
            if parent in found:
                found[parent].append(name)
    return found


def find_cycles(parents: Parents) -> list[list[str]]:
    """One cycle for each knot of names that depend on each other, each as `a, b, ..., a`, starting at the name written first."""
    remaining = {name: [parent for parent in found if parent in parents] for name, found in parents.items()}
    cycles: list[list[str]] = []
    while True:
        ordered = set(topological(remaining))
        remaining = {name: [p for p in found if p not in ordered] for name, found in remaining.items() if name not in ordered}
        if not remaining:
            return cycles
        cycle = _walk_back(remaining)
        cycles.append(cycle)
        for name in cycle[:-1]:
            remaining[name] = []


def _walk_back(parents: Parents) -> list[str]:
    """Follow first parents from a name until one repeats; every name here has a parent."""
    name = next(iter(parents))
    seen: list[str] = []
    while name not in seen:
        seen.append(name)
        name = parents[name][0]
    cycle = seen[seen.index(name) :]
    position = {item: number for number, item in enumerate(parents)}
    first = min(range(len(cycle)), key=lambda index: position[cycle[index]])
    turned = cycle[first:] + cycle[:first]
    return [*turned, turned[0]]


def reachable(edges: Mapping[str, Sequence[str]], start: Sequence[str]) -> set[str]:
    """The names that `start` leads to along `edges`, `start` itself not included unless a path leads back to it."""
    found: set[str] = set()
    queue = [target for name in start for target in edges.get(name, ())]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend(edges.get(name, ()))
    return found
