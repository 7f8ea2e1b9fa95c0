"""The part of a project that a few pipelines have to do with: it must tell of them what the whole project tells."""

import random

import pytest

from dataflow_assets.plan import near
from dataflow_assets.plan.build import build_plan_tolerant
from dataflow_assets.plan.near import load_near
from dataflow_assets.spec.load import load

PROJECT = "project_name: many\nconnections:\n  lake: {type: duckdb, database: lake.duckdb}\n"


def pipeline(number, chance):
    """A pipeline that may have to do with any other one, in each of the ways there are."""
    other = chance.randrange(COUNT)
    depends = f"depends_on: [p-{other}]\n" if chance.random() < 0.2 and other < number else ""
    table = f"t{chance.choice([number, number, number, other])}"
    source = chance.choice(
        [
            f"source_type: csv\n    config: {{file_path: landing/p{number}.csv}}",
            f"source_type: csv\n    config: {{file_path: out/t{other}.csv}}",
            f"source_type: duckdb\n    connection: lake\n    config: {{table: t{other}}}",
            f'source_type: duckdb\n    connection: lake\n    config:\n      query: |\n        SELECT * FROM main."T{other}" WHERE id > 1',
        ]
    )
    endpoint = chance.choice(
        [
            f"endpoint_type: duckdb\n    connection: lake\n    config: {{table: {table}, mode: replace}}",
            f"endpoint_type: csv\n    config: {{file_path: ./out/{table}.csv, mode: replace}}",
        ]
    )
    lookup = f"\n    checks:\n      - {{column: id, to: {{pipeline: p-{other}, column: id}}}}" if chance.random() < 0.2 else ""
    key = f"\n    asset_key: [p_{other}, write]" if chance.random() < 0.1 else ""
    return (
        f"pipeline_name: p-{number}\n{depends}steps:\n  - id: read\n    type: source\n    {source}\n"
        f"  - id: write\n    type: endpoint\n    depends_on: [read]{lookup}{key}\n    {endpoint}\n"
    )


COUNT = 14


def write_project(folder, texts):
    (folder / "pipelines").mkdir(parents=True)
    (folder / "dataflow_project.yml").write_text(PROJECT)
    for number, text in enumerate(texts):
        (folder / "pipelines" / f"file{number:02}.yml").write_text(text)
    return folder


@pytest.fixture
def no_project_is_small(monkeypatch):
    monkeypatch.setattr(near, "FEW", 0)


@pytest.mark.parametrize("seed", range(8))
def test_a_part_tells_of_a_pipeline_what_the_whole_tells(tmp_path, no_project_is_small, seed):
    chance = random.Random(seed)
    folder = write_project(tmp_path / "p", [pipeline(number, chance) for number in range(COUNT)])
    whole, problems = build_plan_tolerant(load(folder), external=False)
    parts = 0
    for number in range(COUNT):
        name = f"p-{number}"
        project = load_near(folder, [name])
        plan, wrong = build_plan_tolerant(project, external=False)
        parts += project.partial
        assert bool(wrong.get(name)) == bool(problems.get(name)), (name, wrong.get(name), problems.get(name))
        if name in whole.by_name:
            for found in (name, *whole.by_name[name].upstream):
                assert plan.by_name[found] == whole.by_name[found]
    assert parts, "no part was ever enough"


def test_what_comes_before_is_there_and_what_is_far_is_not(tmp_path, no_project_is_small):
    source = "source_type: duckdb\n    connection: lake\n    config: {table: %s}"
    text = (
        "pipeline_name: {name}\nsteps:\n  - id: read\n    type: source\n    {source}\n  - id: write\n    type: endpoint\n"
        "    endpoint_type: duckdb\n    connection: lake\n    depends_on: [read]\n    config: {{table: {name}_rows, mode: replace}}\n"
    )
    chain = [text.format(name=f"n{number}", source=source % (f"n{number - 1}_rows" if number else "outside")) for number in range(9)]
    folder = write_project(tmp_path / "p", chain)
    assert [item.name for item in load_near(folder, ["n4"]).pipelines] == ["n0", "n1", "n2", "n3", "n4", "n5"]
    assert [item.name for item in load_near(folder, ["n0"]).pipelines] == ["n0", "n1"]  # who names its table might write it, too
    assert not load_near(folder, ["unknown"]).partial


TEXT = (
    "pipeline_name: {name}\n{more}steps:\n  - id: read\n    type: source\n    source_type: csv\n    config: {{file_path: {source}}}\n"
    "  - id: write\n    type: endpoint\n    endpoint_type: csv\n    depends_on: [read]\n{key}"
    "    config: {{file_path: {target}, mode: replace}}\n"
)


def text_of(name, *, source=None, target=None, more="", key=""):
    return TEXT.format(name=name, source=source or f"landing/{name}.csv", target=target or f"out/{name}.csv", more=more, key=key)


def told_of(folder, name):
    """What the whole project tells of a pipeline and what a part of it does; None for a plan that is refused."""
    found = []
    for project in (load(folder), load_near(folder, [name])):
        plan, wrong = build_plan_tolerant(project, external=False)
        assert (name in wrong) == (name not in plan.by_name)
        found.append(plan.by_name.get(name))
    return found


NEEDED = {
    "a name made of a variable": (
        text_of("first", target="'{{ var(\"what\") }}s.csv'", more="variables: {what: order}\n"),
        text_of("last", source="orders.csv"),
    ),
    "a pipeline that a sensor waits for": (
        text_of("first"),
        text_of("last", more="sensors:\n  - {type: upstream, pipelines: [first]}\n"),
    ),
    "an asset key with a slash": (text_of("first", key="    asset_key: last/write\n"), text_of("last")),
}


@pytest.mark.parametrize("texts", NEEDED.values(), ids=NEEDED)
def test_what_no_plain_word_tells_is_found_too(tmp_path, monkeypatch, texts):
    monkeypatch.setattr(near, "FEW", 1)
    folder = write_project(tmp_path / "p", [*texts, text_of("far")])
    whole, part = told_of(folder, "last")
    assert part == whole
    assert {item.name for item in load_near(folder, ["last"]).pipelines} == {"first", "last"}


def test_a_broken_file_that_has_nothing_to_do_with_it_is_not_even_read(tmp_path, no_project_is_small):
    chance = random.Random(1)
    good = pipeline(0, chance).replace("p-0", "alone").replace("t0", "alone_rows")
    folder = write_project(tmp_path / "p", [good, "steps: [", "pipeline_name: other\nsteps: nonsense"])
    assert [item.name for item in load_near(folder, ["alone"]).pipelines] == ["alone"]


def test_a_small_project_is_read_whole(tmp_path):
    chance = random.Random(2)
    folder = write_project(tmp_path / "p", [pipeline(number, chance) for number in range(3)])
    assert not load_near(folder, ["p-0"]).partial
    assert len(load_near(folder, ["p-0"]).pipelines) == 3
