"""Templates that try to get out, or to take the machine's time or memory."""

from __future__ import annotations

import resource
import time

import pytest

from dataflow_assets.errors import TemplateError
from dataflow_assets.spec.templates import TemplateContext, render


class Opened:
    """A Python object among the variables, as a builder may hand one in."""

    secret = "hunter22"

    def __call__(self):
        return "called"

    def method(self):
        return "called"


def doubled(first, operation):
    return (
        f"{{% set a0 = {first} %}}"
        + "".join(f"{{% set a{n} = {operation.replace('a', f'a{n - 1}')} %}}" for n in range(1, 80))
        + "{{ a79 }}"
    )


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ().__class__.__base__ }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ today.__globals__ }}",
    "{{ today.is_template_function }}",
    "{{ env_var.__closure__ }}",
    "{{ env_var.__self__ }}",
    "{{ state.values }}",
    "{{ state._values }}",
    "{{ now().__reduce__() }}",
    "{{ 'x' | attr('__class__') }}",
    "{{ xs | map(attribute='__class__') | list }}",
    "{{ xs | sort(attribute='__class__') }}",
    "{{ xs | selectattr('__class__') | list }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__}' | format(1) }}",
    "{{ xs.append(4) }}",
    "{{ d.pop('k') }}",
    "{{ d.update({'k': 1}) }}",
    "{{ d.clear() }}",
    "{{ opened.secret }}",
    "{{ opened.method() }}",
    "{{ opened() }}",
    "{{ opened }}",
    "{{ builtin('ls') }}",
    "{{ namespace() }}",
    "{{ dict() }}",
    "{{ joiner() }}",
    "{{ context }}",
    "{{ loop }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% include 'x' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% extends 'a' %}",
    "{% block a %}{% endblock %}",
    "{% filter upper %}a{% endfilter %}",
    "{% call x() %}{% endcall %}",
    "{% with a=1 %}{% endwith %}",
    "{% autoescape true %}{% endautoescape %}",
    "{% for x in xs recursive %}{{ loop(xs) }}{% endfor %}",
    "{% do xs.append(1) %}",
    "{{ 'ab'.upper }}",
]

BOMBS = {
    "range": "{{ range(10 ** 9) }}",
    "string": "{{ 'a' * 10 ** 9 }}",
    "list": "{{ [1] * 10 ** 9 }}",
    "power": "{{ 9 ** 9 ** 9 ** 9 ** 9 }}",
    "big power": "{{ 99999999999 ** 500 }}",
    "product": "{{ 2 ** 4000 * 2 ** 4000 }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "center": "{{ 'a'.center(10 ** 9) }}",
    "center filter": "{{ 'a' | center(10 ** 9) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "to_bytes": "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "round": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "loops": "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
    "long loop": "{% for i in range(10000) %}" + "x" * 5000 + "{% endfor %}",
    "concatenation": doubled("'x'", "a ~ a"),
    "addition": doubled("'xxxx'", "a + a"),
    "list addition": doubled("[1]", "a + a"),
    "nested lists": doubled("[1]", "[a, a]"),
    "nested tuples": doubled("(1, 2)", "(a, a)"),
    "nested mappings": doubled("{'k': 1}", "{'x': a, 'y': a}"),
    "join": doubled("'xxxx'", "[a, a] | join(a)"),
    "set blocks": "{% set a0 %}xxxx{% endset %}"
    + "".join(f"{{% set a{n} %}}{{{{ a{n - 1} }}}}{{{{ a{n - 1} }}}}{{% endset %}}" for n in range(1, 60))
    + "{{ a59 }}",
    "replace": "{{ 'aaaa'" + " | replace('a', 'aaaaaaaaaaaaaaaaaaaa')" * 30 + " }}",
    "compared": doubled("[1]", "[a, a]").replace("{{ a79 }}", "") + doubled("[1]", "[a, a]").replace("{{ a79 }}", "{{ a79 == a79 }}"),
    "sum": "{{ ([[1] * 1000] * 100) | sum(start=[]) }}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "minuses": "{{ " + "-" * 5000 + "1 }}",
    "brackets": "{{ " + "[ " * 5000 + "]" * 5000 + " }}",
    "nots": "{{ " + "not " * 5000 + "1 }}",
    "blocks": "{% for x in [1] %}" * 500 + "{% endfor %}" * 500,
    "terms": "{{ 1" + " + 1" * 20000 + " }}",
    "timedelta": "{{ timedelta(days=10 ** 15) }}",
    "template": "{{ a }}" + " " * 300_000,
    "digits": "{{ '9' * 100000 | int ** 2 }}",
}


def context(**more):
    return TemplateContext(overrides={"xs": [1, 2], "d": {"k": 1}, "opened": Opened(), "builtin": open, "a": 1, **more}, environment={})


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_gets_out(text):
    values = context()
    with pytest.raises(TemplateError):
        render(text, values)
    assert values.overrides["xs"] == [1, 2]
    assert values.overrides["d"] == {"k": 1}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_bounds(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(TemplateError) as caught:
        render(BOMBS[name], context())
    assert time.process_time() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert len(str(caught.value)) < 1_000


def test_variables_cannot_multiply_each_other():
    texts = {f"v{n}": f"{{{{ v{n + 1} }}}}{{{{ v{n + 1} }}}}" for n in range(60)} | {"v60": "xx"}
    lists = {f"v{n}": [f"{{{{ v{n + 1} }}}}"] * 2 for n in range(60)} | {"v60": "xx"}
    for variables in (texts, lists):
        start = time.process_time()
        with pytest.raises(TemplateError, match=r"too much work|longer than"):
            render("{{ v0 }}", TemplateContext(pipeline_variables=variables, environment={}))
        assert time.process_time() - start < 30


def test_a_long_chain_of_variables_is_refused_not_crashed():
    chain = {f"v{n}": f"{{{{ v{n + 1} }}}}" for n in range(2_000)} | {"v2000": 1}
    with pytest.raises(TemplateError, match="nested too deeply"):
        render("{{ v0 }}", TemplateContext(pipeline_variables=chain, environment={}))


def test_deep_data_is_refused():
    deep = "{{ a }}"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(TemplateError, match="nested deeper"):
        render(deep, context())
