"""Guarded YAML: hostile documents are refused fast, and every finding has its place."""

from __future__ import annotations

import time
from datetime import date

import pytest
import yaml as pyyaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_assets.errors import Place
from dataflow_assets.spec import yaml
from dataflow_assets.spec.yaml import parse


def problems(text):
    return [str(problem) for problem in parse(text, "p.yml").problems]


def data(text):
    parsed = parse(text, "p.yml")
    assert not parsed.problems, parsed.problems
    return [document.data for document in parsed.documents]


def aliases_of_aliases(levels):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines)


def merges_of_merges(levels):
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{level}: &a{level}\n  <<: [{', '.join([f'*a{level - 1}'] * 9)}]\n  k{level}: 1" for level in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "brackets": "[" * 900_000,
    "braces": "{" * 100_000,
    "dashes": "- " * 300_000,
    "question marks": "? " * 100_000,
    "indentation": "\n".join(" " * level + f"k{level}:" for level in range(1_200)),
    "billion laughs": aliases_of_aliases(30),
    "merge keys": merges_of_merges(60),
    "many aliases": "a: &a 1\nb: [" + "*a, " * 2_000 + "]",
    "many nodes": "[" + "a," * 400_000 + "]",
    "many keys": "".join(f"k{number}: 1\n" for number in range(90_000)),
    "many documents": "---\n" * 240_000,
    "unclosed quote": "'" * 999_999,
    "escapes": '"\\' * 400_000,
    "too large": "a" * (yaml.MAX_BYTES + 1),
    "duplicate keys": "k: 1\n" * 5_000,
    "tags": "- !<" * 100_000,
    "directives": "%TAG ! x\n" * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_are_refused_in_bounds(name):
    start = time.process_time()
    parsed = parse(HOSTILE[name], "p.yml")
    assert time.process_time() - start < 20
    assert parsed.problems
    assert len(parsed.problems) <= yaml.MAX_PROBLEMS
    assert all(len(str(problem)) < 1_000 for problem in parsed.problems)


def test_laughs_are_counted_written_out():
    assert "more than 100,000 values, aliases and merge keys written out" in problems(aliases_of_aliases(30))[0]


def test_modest_anchors_and_merges_work():
    text = "base: &b {q: 1, r: 2}\nmore: &m {s: 5, q: 9}\nc:\n  <<: [*b, *m]\n  r: 3\nd: *b\n"
    assert data(text) == [
        {"base": {"q": 1, "r": 2}, "more": {"s": 5, "q": 9}, "c": {"r": 3, "q": 1, "s": 5}, "d": {"q": 1, "r": 2}},
    ]


def test_places_of_keys_and_values():
    parsed = parse("# c\nsteps:\n  - id: a\n    config:\n      query: |\n        select 1\n", "p.yml")
    places = parsed.documents[0].places
    assert places.at(("steps", 0, "id")) == Place("p.yml", 3, 9)
    assert places.key_at(("steps", 0, "config", "query")) == Place("p.yml", 5, 7)
    assert places.at(("steps", 0, "config", "query")) == Place("p.yml", 5, 14)
    assert places.at(("steps", 0, "nothing", "below")) == Place("p.yml", 3, 5)
    assert places.at(()) == Place("p.yml", 2, 1)


def test_places_count_characters_and_every_kind_of_line_break():
    parsed = parse("\ufeffé: 1\r\nü: ['ß', x]\rz: 3\n", "p.yml")
    places = parsed.documents[0].places
    assert places.at(("ü", 1)) == Place("p.yml", 2, 10)
    assert places.at(("z",)) == Place("p.yml", 3, 4)


def test_documents():
    assert data("---\n---\na: 1\n---\nb: 2\n...\n# end\n") == [{"a": 1}, {"b": 2}]
    assert data("") == []
    assert data("# nothing\n") == []


def test_keys_are_text_as_written():
    assert data("on: 1\n1: 2\n2024-01-01: 3\nd: 2024-01-01") == [{"on": 1, "1": 2, "2024-01-01": 3, "d": date(2024, 1, 1)}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            "p.yml:3:1: the key 'a' stands here a second time, first in line 1\n  | a: 3\n  | ^\n  -> keep one of the two",
        ),
        (
            "a: {{ x }}\n",
            "p.yml:1:4: an unquoted template is read as a mapping\n  | a: {{ x }}\n  |    ^\n"
            "  -> put quotes around a value that holds a template, as in key: \"{{ var('name') }}\"",
        ),
        (
            "a: {% if x %}\n",
            "p.yml:1:5: an unquoted template is not YAML\n  | a: {% if x %}\n  |     ^\n"
            "  -> put quotes around a value that holds a template, as in key: \"{{ var('name') }}\"",
        ),
        ("a:\n\tb: 1\n", "p.yml:2:1: a tab cannot indent YAML\n  |  b: 1\n  | ^\n  -> use spaces"),
        ("a: 'x\nb: 1\n", "p.yml:1:4: what begins here with ' is never closed\n  | a: 'x\n  |    ^\n  -> add the missing '"),
        ("a: [1, 2\n", "p.yml:1:4: what begins here with [ is never closed\n  | a: [1, 2\n  |    ^\n  -> add the missing ]"),
        (
            "a: b: c\n",
            "p.yml:1:5: a second ': ' in one line\n  | a: b: c\n  |     ^\n"
            "  -> put quotes around a value that holds ': ', or check the indentation",
        ),
        ("a: @x\n", "p.yml:1:4: an unquoted value cannot begin with @\n  | a: @x\n  |    ^\n  -> put quotes around the value"),
        (
            "a: *b\n",
            "p.yml:1:4: no anchor &b stands above this alias\n  | a: *b\n  |    ^\n  -> quote a value that begins with *",
        ),
        ("base: &base 1\na: *bse\n", "p.yml:2:4: no anchor &bse stands above this alias\n  | a: *bse\n  |    ^\n  -> did you mean *base?"),
        (
            "a: &a [*a]\n",
            "p.yml:1:8: the alias *a stands inside what it stands for\n  | a: &a [*a]\n  |        ^\n  -> repeat the part that is meant",
        ),
        (
            "c: [NO, SE]\n",
            'p.yml:1:5: unquoted NO would be read as false\n  | c: [NO, SE]\n  |     ^\n  -> write "NO" for the text, or true or false',
        ),
        (
            "d: 2024-13-01\n",
            "p.yml:1:4: '2024-13-01' cannot be read: month must be in 1..12\n  | d: 2024-13-01\n  |    ^\n"
            "  -> put quotes around it if text is meant",
        ),
        (
            "d: !!python/object:os.system x\n",
            "p.yml:1:4: 'x' cannot be read: the tag !!python/object:os.system is not supported\n"
            "  | d: !!python/object:os.system x\n  |    ^\n  -> put quotes around it if text is meant",
        ),
        ("[1]: 2\n", "p.yml:1:1: a key must be text\n  | [1]: 2\n  | ^\n  -> write key: value, with a word as the key"),
        (
            "<<: 3\n",
            "p.yml:1:5: << merges mappings, and this is none\n  | <<: 3\n  |     ^\n"
            "  -> write <<: *anchor, where &anchor stands at a mapping",
        ),
        ("a: !!set {b}\n", "p.yml:1:4: the tag !!set is not supported\n  | a: !!set {b}\n  |    ^\n  -> remove it"),
        ("a: \x07b\n", "p.yml:1:4: the character U+0007 may not stand in YAML\n  | a:  b\n  |    ^\n  -> remove it"),
        (b"a: 1\nb: \xff\xfe\n", "p.yml:2:4: byte 0xff is not UTF-8 text\n  | b: \ufffd\ufffd\n  |    ^\n  -> save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "p.yml:1:1: is UTF-16 text\n  -> save it as UTF-8"),
    ],
)
def test_messages(text, expected):
    assert problems(text)[0] == expected


def test_all_problems_in_one_pass():
    found = problems("a: 1\na: 2\nc: NO\nd: 2024-02-30\ne: *x\n")
    assert [line.split(": ")[0] for line in found] == ["p.yml:2:1", "p.yml:3:4", "p.yml:4:4", "p.yml:5:4"]


def test_a_long_line_is_shown_around_the_caret():
    shown = problems("a: [" + "x, " * 200 + "NO]\n")[0].splitlines()
    assert len(shown[1]) < 140
    assert shown[1][shown[2].index("^") :].startswith("NO]")


def test_reading_files(tmp_path):
    file = tmp_path / "a.yml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yaml.read(file).documents[0].data == {"a": 1}
    assert "cannot be read" in str(yaml.read(tmp_path).problems[0])
    assert "cannot be read" in str(yaml.read(tmp_path / "none.yml").problems[0])


def test_the_pure_python_parser_gives_the_same(monkeypatch):
    text = "a: &x [1, {b: 'q'}]\nb: *x\nc: |\n  t\n---\nd: 2\nd: 3\n"
    with_c = parse(text, "p.yml")
    monkeypatch.setattr(yaml, "_Parser", pyyaml.SafeLoader)
    assert parse(text, "p.yml") == with_c


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(), st.binary(), st.text(alphabet="[]{}:,-?&*!|>'\"%@`#\n\t ab1<~=", max_size=80)))
def test_any_text_is_parsed_or_refused(text):
    parsed = parse(text, "p.yml")
    for problem in parsed.problems:
        assert problem.place.file == "p.yml"
        assert str(problem)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, min_size=1, max_size=5))
def test_what_pyyaml_writes_is_read_back(value):
    text = pyyaml.safe_dump(value)
    parsed = parse(text, "p.yml")
    assert not parsed.problems
    assert parsed.documents[0].data == value
