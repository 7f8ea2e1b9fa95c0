"""Orders and cycles of random graphs."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets.plan.graph import children, find_cycles, reachable, topological

NAMES = [f"n{number}" for number in range(9)]
GRAPHS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=25)


def parents_of(edges: list[tuple[str, str]], *, acyclic: bool) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {name: [] for name in NAMES}
    for parent, child in edges:
        if not acyclic or parent < child:
            parents[child].append(parent)
    return parents


@settings(deadline=None)
@given(GRAPHS, st.permutations(NAMES))
def test_every_name_comes_after_its_parents(edges: list[tuple[str, str]], order: list[str]) -> None:
    parents = parents_of(edges, acyclic=True)
    shuffled = {name: parents[name] for name in order}
    found = topological(shuffled)
    assert sorted(found) == NAMES
    assert all(found.index(parent) < found.index(name) for name in NAMES for parent in parents[name])
    assert find_cycles(shuffled) == []


@settings(deadline=None)
@given(GRAPHS)
def test_each_cycle_is_one_and_without_them_all_is_in_order(edges: list[tuple[str, str]]) -> None:
    parents = parents_of(edges, acyclic=False)
    cycles = find_cycles(parents)
    for cycle in cycles:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(later in parents[name] for name, later in pairwise(cycle))
    if not cycles:
        assert len(topological(parents)) == len(NAMES)
    else:
        assert len(topological(parents)) < len(NAMES)


@settings(deadline=None)
@given(GRAPHS)
def test_reachable_follows_edges(edges: list[tuple[str, str]]) -> None:
    parents = parents_of(edges, acyclic=True)
    below = children(parents)
    for name in NAMES:
        found = reachable(below, [name])
        assert found == {child for direct in below[name] for child in {direct, *reachable(below, [direct])}}


def test_without_edges_the_order_is_the_one_written() -> None:
    assert topological({"b": [], "a": ["zz"], "c": []}) == ["b", "a", "c"]


def test_rank_decides_between_names_that_are_ready() -> None:
    assert topological({"late": [], "a": [], "b": ["late"]}, rank=lambda name: name == "late") == ["a", "late", "b"]
