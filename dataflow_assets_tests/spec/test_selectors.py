"""Selectors: dbt's meaning, held against a naive implementation on random graphs."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_assets.errors import SelectionError
from dataflow_assets.spec.selectors import Node, resolve, resolve_steps

#  raw -> clean -> daily -> report
#           \-> hourly -/         other
GRAPH = [
    Node("raw", {"land"}, (), "pipelines/raw.yml"),
    Node("clean", {"core"}, {"raw"}, "pipelines/core/clean.yml"),
    Node("daily", {"core", "nightly"}, {"clean", "weather"}, "pipelines/core/daily.yml"),
    Node("hourly", set(), {"clean"}, "pipelines/hourly.yml"),
    Node("report", {"nightly"}, {"daily", "hourly"}, "pipelines/report.yml"),
    Node("weather", {"land"}, (), "pipelines/weather.yml"),
    Node("other", set(), {"not_a_node"}, ""),
]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("", "raw clean daily hourly report weather other"),
        ("clean", "clean"),
        ("+clean", "raw clean"),
        ("clean+", "clean daily hourly report"),
        ("+clean+", "raw clean daily hourly report"),
        ("1+daily", "clean daily weather"),
        ("2+daily", "raw clean daily weather"),
        ("clean+1", "clean daily hourly"),
        ("1+clean+1", "raw clean daily hourly"),
        ("0+clean", "clean"),
        ("@clean", "raw clean daily hourly report weather"),
        ("@weather", "raw clean daily hourly report weather"),
        ("@other", "other"),
        ("tag:core", "clean daily"),
        ("+tag:core", "raw clean daily weather"),
        ("tag:n*", "daily report"),
        ("*r*", "raw hourly report weather other"),
        ("*ly", "daily hourly"),
        ("path:pipelines/core", "clean daily"),
        ("path:pipelines/core/clean.yml+1", "clean daily hourly"),
        ("path:./pipelines/*.yml", "raw clean daily hourly report weather"),
        ("name:raw", "raw"),
        ("raw other", "raw other"),
        ("other raw", "raw other"),
        ("tag:core,tag:nightly", "daily"),
        ("clean+,tag:nightly", "daily report"),
        ("clean+,+report raw", "raw clean daily hourly report"),
    ],
)
def test_meaning(select, expected):
    assert resolve(GRAPH, select=[select]) == expected.split()


def test_several_arguments_are_a_union():
    assert resolve(GRAPH, select=["raw", "other"]) == ["raw", "other"]


@pytest.mark.parametrize(
    ("select", "exclude", "expected"),
    [
        ([], ["tag:land"], "clean daily hourly report other"),
        (["clean+"], ["report"], "clean daily hourly"),
        (["clean+"], ["daily+ hourly"], "clean"),
        (["+report"], ["tag:core,tag:nightly"], "raw clean hourly report weather"),
        ([], ["@clean"], "other"),
    ],
)
def test_exclude(select, exclude, expected):
    assert resolve(GRAPH, select=select, exclude=exclude) == expected.split()


@pytest.mark.parametrize(
    ("select", "exclude", "message"),
    [
        (["dialy"], [], "no name matches 'dialy'\n  -> did you mean 'daily'?"),
        (["raw dialy+"], [], "no name matches 'dialy+'\n  -> did you mean 'daily'?"),
        (["zzz"], [], "no name matches 'zzz'\n  -> known: raw, clean, daily, hourly, report, weather, other"),
        (["tag:cor"], [], "no tag matches 'tag:cor'\n  -> did you mean 'core'?"),
        (["path:pipelines/cor"], [], "no file matches 'path:pipelines/cor'"),
        (["x*z"], [], "no name matches 'x*z'"),
        (["raw,other"], [], "'raw,other' selects nothing: the parts of an intersection have nothing in common"),
        (["raw"], ["raw"], "'raw --exclude raw' selects nothing: everything it selects is excluded"),
        ([], ["rwa"], "no name matches 'rwa'\n  -> did you mean 'raw'?"),
        (["raw,,x"], [], "'' in 'raw,,x' is not a selector"),
        (["++raw"], [], "'++raw' is not a selector\n  -> write a name, tag:t,"),
        (["raw+x"], [], "'raw+x' is not a selector"),
        (["kind:postgres"], [], "'kind:postgres' is not a selector"),
        (["tag:"], [], "'tag:' is not a selector"),
        (["@raw+"], [], "'@raw+': @ already follows parents and children\n  -> write @raw without +"),
    ],
)
def test_refusals(select, exclude, message):
    with pytest.raises(SelectionError) as caught:
        resolve(GRAPH, select=select, exclude=exclude)
    assert message in str(caught.value)


def test_an_empty_graph_selects_nothing_quietly():
    assert resolve([]) == []
    with pytest.raises(SelectionError, match="no name matches"):
        resolve([], select=["x"])


def test_cycles_end():
    assert resolve([Node("a", (), ("b",)), Node("b", (), ("a",))], select=["+a"]) == ["a", "b"]


def test_a_huge_distance_is_a_long_way():
    assert resolve(GRAPH, select=["99999999999999999999+report"]) == ["raw", "clean", "daily", "hourly", "report", "weather"]


STEPS = {
    "raw": [Node("read"), Node("check", (), ("read",)), Node("write", ("slow",), ("check",))],
    "clean": [Node("read"), Node("write", (), ("read",))],
    "daily": [Node("one")],
    "hourly": [],
    "report": [Node("read"), Node("csv", (), ("read",)), Node("json", (), ("read",))],
    "weather": [Node("get")],
    "other": [Node("x")],
}


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("raw", {"raw": ("read", "check", "write")}),
        ("raw.check", {"raw": ("check",)}),
        ("raw/check", {"raw": ("check",)}),
        ("+raw.check", {"raw": ("read", "check")}),
        ("+clean.read", {"raw": ("read", "check", "write"), "clean": ("read",)}),
        ("1+clean.read", {"raw": ("write",), "clean": ("read",)}),
        ("report.read+", {"report": ("read", "csv", "json")}),
        ("raw.*", {"raw": ("read", "check", "write")}),
        ("*.read", {"raw": ("read",), "clean": ("read",), "report": ("read",)}),
        ("tag:slow", {"raw": ("write",)}),
        ("tag:slow,raw", {"raw": ("write",)}),
        ("+tag:slow", {"raw": ("read", "check", "write")}),
        ("tag:land", {"raw": ("read", "check", "write"), "weather": ("get",)}),
        ("clean+", {"clean": ("read", "write"), "daily": ("one",), "report": ("read", "csv", "json")}),
        ("weather raw.read", {"raw": ("read",), "weather": ("get",)}),
    ],
)
def test_steps(select, expected):
    assert resolve_steps(GRAPH, STEPS, select=[select]) == expected


def test_steps_exclude_and_refuse():
    assert resolve_steps(GRAPH, STEPS, select=["raw"], exclude=["raw.write"]) == {"raw": ("read", "check")}
    with pytest.raises(SelectionError, match=r"no name matches 'raw\.chek'\n  -> did you mean 'raw\.check'"):
        resolve_steps(GRAPH, STEPS, select=["raw.chek"])
    with pytest.raises(SelectionError, match=r"no tag matches 'tag:zzz'\n  -> known: .*land.*slow"):
        resolve_steps(GRAPH, STEPS, select=["tag:zzz"])
    with pytest.raises(SelectionError, match="did you mean 'land'"):
        resolve_steps(GRAPH, STEPS, select=["tag:lnd"])


NAMES = [f"n{number}" for number in range(8)]


@st.composite
def graphs(draw):
    nodes = []
    for index, name in enumerate(NAMES[: draw(st.integers(1, 8))]):
        parents = draw(st.sets(st.sampled_from(NAMES[:index]))) if index else set()
        nodes.append(Node(name, draw(st.sets(st.sampled_from(["t", "u"]))), parents))
    return draw(st.permutations(nodes))


TERMS = st.builds(
    "".join,
    st.one_of(
        st.tuples(st.just("@"), st.sampled_from([*NAMES, "n*", "tag:t"])),
        st.tuples(
            st.sampled_from(["", "+", "1+", "2+"]),
            st.sampled_from([*NAMES, "n[0-3]", "tag:t", "tag:u"]),
            st.sampled_from(["", "+", "+1", "+2"]),
        ),
    ),
)


def naive_term(nodes, text):
    """The same meaning in the plainest way: one edge at a time, sets of names."""
    by_name = {node.name: node for node in nodes}

    def parents(names):
        return {parent for name in names for parent in by_name[name].parents}

    def children(names):
        return {node.name for node in nodes if set(node.parents) & names}

    def walk(names, edges, steps):
        for _ in range(steps):
            names = names | edges(names)
        return names

    word = text.removeprefix("@")
    head, _, rest = word.partition("+") if word[:1] in "+12" else ("", "", word)
    up = (len(nodes) if head == "" else int(head)) if rest != word else 0
    value, plus, tail = rest.partition("+")
    down = (int(tail) if tail else len(nodes)) if plus else 0
    if value.startswith("tag:"):
        base = {node.name for node in nodes if value[4:] in node.tags}
    else:
        base = {name for name in by_name if fnmatch.fnmatchcase(name, value)}
    if not base:
        return None
    if text.startswith("@"):
        return walk(walk(base, children, len(nodes)), parents, len(nodes))
    return walk(base, parents, up) | walk(base, children, down)


def naive(nodes, texts):
    found = set()
    for part in " ".join(texts).split():
        sets = [naive_term(nodes, term) for term in part.split(",")]
        if None in sets:
            return None
        found |= set.intersection(*sets)
    return found


@given(
    graphs(),
    st.lists(st.lists(st.lists(TERMS, min_size=1, max_size=2).map(",".join), min_size=1, max_size=2).map(" ".join), max_size=2),
    st.lists(TERMS, max_size=2),
)
def test_selection_is_what_sets_say(nodes, select, exclude):
    wanted = naive(nodes, select) if select else {node.name for node in nodes}
    unwanted = naive(nodes, exclude)
    if wanted is None or unwanted is None or not wanted - unwanted:
        with pytest.raises(SelectionError):
            resolve(nodes, select=select, exclude=exclude)
    else:
        assert resolve(nodes, select=select, exclude=exclude) == [node.name for node in nodes if node.name in wanted - unwanted]


@given(st.text(max_size=20))
def test_any_text_selects_or_is_refused(text):
    try:
        found = resolve(GRAPH, select=[text])
    except SelectionError:
        return
    assert found
