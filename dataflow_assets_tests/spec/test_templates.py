"""What templates can say, what they give, and how their refusals read."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, Field

from dataflow_assets.errors import TemplateError
from dataflow_assets.secrets import mask
from dataflow_assets.spec.base import Model, SqlText, sql_fields
from dataflow_assets.spec.template_values import Day, Identifier
from dataflow_assets.spec.templates import TemplateContext, list_names, render, render_connection, rendered_config
from dataflow_assets.windows import Window

NOW = datetime(2024, 3, 10, 23, 30, tzinfo=UTC)


def context(**changes):
    values = {
        "project_variables": {"a": 1, "p": "project", "region": "eu"},
        "pipeline_variables": {
            "p": "pipeline",
            "b": "{{ a + 1 }}",
            "c": "x{{ b }}",
            "one": "{{ two }}",
            "two": "{{ three }}",
            "three": "{{ one }}",
            "xs": [1, "{{ b }}", 3],
            "d": {"k": "v", "items": 5},
            "n": None,
            "start_date": "{{ state.get('last_processed_date', days_ago(7)) }}",
            "broken": "{{ nothing_like_it }}",
        },
        "environment": {"HOME": "/h", "SHOP_PASSWORD": "s3cret-value", "BRACES": "{{ a }}"},
        "now": NOW,
        "timezone": "Europe/Berlin",
        "steps": {"load": {"row_count": 3}},
    }
    return TemplateContext(**{**values, **changes})


WINDOWED = {
    "window": Window(datetime(2023, 12, 31, 23, tzinfo=UTC), datetime(2024, 1, 1, 23, tzinfo=UTC)),
    "window_key": "2024-01-01",
    "batch_period": "day",
    "event_time_column": "ts",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("{{ a }}", 1),
        ("{{ a }}\n", 1),
        (" {{ a }}", " 1"),
        ("{{ p }}", "pipeline"),
        ("{{ b }}", 2),
        ("{{ c }}", "x2"),
        ("{{ xs }}", [1, 2, 3]),
        ("{{ d.k }}{{ d.items }}", "v5"),
        ("{{ d['k'] }}", "v"),
        ("{{ n }}", None),
        ("{{ n or '' }}x", "x"),
        ("{{ a == 1 }}", True),
        ("is {{ a == 1 }}", "is true"),
        ("{{ var('b') }}", 2),
        ("{{ var('zz', 3) }}", 3),
        ("{{ var('zz', none) }}", None),
        ("{{ zz | default('x') }}", "x"),
        ("{{ zz is defined }}", False),
        ("{{ env_var('HOME') }}", "/h"),
        ("{{ env_var('UNSET_X', '') }}", ""),
        ("{{ today() }}", date(2024, 3, 11)),
        ("{{ yesterday() }} {{ days_ago(10) }}", "2024-03-10 2024-03-01"),
        ("{{ today()[:7] }}", "2024-03"),
        ("{{ today() | replace('-', '') }}", "20240311"),
        ("{{ (today() - timedelta(days=1)).isoformat() }}", "2024-03-10"),
        ("at {{ now() }}", "at 2024-03-11T00:30:00+01:00"),
        ("{{ now() }}", NOW),
        ("{{ steps.load.row_count }}", 3),
        ("{{ '2024-01-01' | as_datetime }}", datetime(2023, 12, 31, 23, tzinfo=UTC)),
        ("{{ '2024-01-01T05:00:00+00:00' | as_date }}", date(2024, 1, 1)),
        ("{{ ('2024-01-31' | as_date) + timedelta(days=1) }}", date(2024, 2, 1)),
        ("{% if a == 1 %}yes{% else %}no{% endif %}", "yes"),
        ("{% for x in xs %}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}", "1,2,3"),
        ("{% set y = [1, 2] %}{{ y | join('+') }}", "1+2"),
        ("{% set y %}a{{ a }}{% endset %}{{ y }}", "a1"),
        ("{{ xs | map('string') | list }}", ["1", "2", "3"]),
        ("{{ xs | sum }}", 6),
        ("{{ 'a' ~ 1 }}", "a1"),
        ("{# a comment #}", ""),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ 's.t' | identifier }}", Identifier(("s", "t"))),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ timedelta(1) }}", timedelta(days=1)),
        ("{{ p | upper }}", "PIPELINE"),
        ("{{ p.startswith('pipe') }}", True),
    ],
)
def test_values(text, value):
    found = render(text, context())
    assert found == value
    assert type(found) is type(value) or isinstance(found, type(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ window.start }}", WINDOWED["window"].start),
        ("{{ window.start.strftime('%Y/%m/%d') }}", "2024/01/01"),
        ("{{ batch_start.isoformat() }}", "2024-01-01T00:00:00+01:00"),
        ("{{ batch_end - batch_start }}", timedelta(days=1)),
        ("{{ window.key }} {{ batch_period }} {{ event_time_column }}", "2024-01-01 day ts"),
        ("{{ var('batch_start') }}", WINDOWED["window"].start),
    ],
)
def test_windows(text, value):
    assert render(text, context(**WINDOWED)) == value


def test_precedence_is_command_line_then_pipeline_then_project():
    assert render("{{ region }} {{ p }}", context()) == "eu pipeline"
    assert render("{{ region }} {{ p }}", context(overrides={"p": "cli", "region": "us"})) == "us cli"
    assert render("{{ b }}", context(overrides={"a": 10})) == 11


def test_dft_s_incremental_idiom():
    assert render("{{ var('start_date') }}", context()) == date(2024, 3, 4)
    kept = context(state={"last_processed_date": "2024-02-02"})
    assert render("from {{ var('start_date') }}", kept) == "from 2024-02-02"
    assert render("{{ incremental.get_date_range_to_process() }}", kept) == (date(2024, 2, 3), date(2024, 3, 10))
    assert render("{{ incremental.get_date_range_to_process(default_lookback_days=2)[0] }}", context()) == date(2024, 3, 9)
    assert render("{{ incremental.get_date_range_to_process('2024-01-01', '2024-01-05').end }}", kept) == date(2024, 1, 5)
    assert render("{{ state.get('other') }}", kept) is None


def test_structures_and_other_values_are_kept():
    value = {"a": ["{{ a }}", {"b": "{{ p }}"}], "n": None, "d": date(2024, 1, 1), "f": 1.5}
    assert render(value, context()) == {"a": [1, {"b": "pipeline"}], "n": None, "d": date(2024, 1, 1), "f": 1.5}


def test_data_that_holds_braces_is_never_evaluated():
    hostile = "{{ env_var('SHOP_PASSWORD') }}{% for x in range(10) %}"
    full = context(overrides={"o": hostile}, state={"s": hostile}, environment={"E": hostile}, steps={"x": {"v": hostile}})
    for text in ("{{ o }}", "{{ var('o') }}", "{{ state.get('s') }}", "{{ env_var('E') }}", "{{ steps.x.v }}"):
        assert render(text, full) == hostile
        assert render(f"<{text}>", full) == f"<{hostile}>"
    assert render("{{ inner }}", context(overrides={"o": hostile}, pipeline_variables={"inner": "{{ o }}"})) == hostile


def test_unused_variables_are_never_rendered():
    assert render("{{ a }}", context()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ regoin }}", "'regoin' is unknown\n  -> did you mean 'region'?"),
        (
            "{{ zzz }}",
            "'zzz' is unknown\n  -> set it under `variables:`, with --vars zzz=..., or write {{ var('zzz', default) }}",
        ),
        ("{{ todya() }}", "'todya' is unknown\n  -> did you mean 'today'?"),
        ("{{ var('regon') }}", "no variable 'regon'\n  -> did you mean 'region'?"),
        ("{{ var('zzz') }}", "no variable 'zzz'\n  -> set it under `variables:`, or write var('zzz', default)"),
        ("{{ env_var('HOM') }}", "the environment variable HOM is not set\n  -> did you mean 'HOME'?"),
        (
            "{{ env_var('QQQQ') }}",
            "the environment variable QQQQ is not set\n  -> set it: put QQQQ=... into .env or export it; or write env_var('QQQQ', default)",
        ),
        (
            "{{ window.start }}",
            "'window' is unknown: this pipeline has no windows\n  -> add `windows: {every: day, begin: ...}` to the pipeline",
        ),
        ("{{ steps.laod.row_count }}", "the mapping has no 'laod'\n  -> did you mean 'load'?"),
        ("{{ d.zz }}", "the mapping has no 'zz'\n  -> known: items, k"),
        (
            "{{ one }}",
            "variable three: the variable 'one' refers to itself: one -> two -> three -> one\n  -> give one of them a plain value",
        ),
        (
            "{{ broken }}",
            "variable broken: 'nothing_like_it' is unknown\n"
            "  -> set it under `variables:`, with --vars nothing_like_it=..., or write {{ var('nothing_like_it', default) }}",
        ),
        ("x{{ n }}", "{{ n }} is null and stands inside text\n  -> give it a value, or write {{ n or '' }}"),
        ("x{{ xs }}", "{{ xs }} is a collection and stands inside text\n  -> join it: {{ xs | join(', ') }}"),
        (
            "{{ today }}",
            "not allowed in a template: today is a function: write today()\n"
            "  -> templates offer plain values, if, for and the listed functions and filters",
        ),
        (
            "{{ a",
            "malformed template: unexpected end of template, expected 'end of print statement'., in: {{ a\n"
            "  -> check the braces and quotes; braces that are no template go between {% raw %} and {% endraw %}",
        ),
        (
            "{{ 'x' | as_date }}",
            "the template fails: Invalid isoformat string: 'x', in: {{ 'x' | as_date }}\n"
            "  -> check the types of its values; `| as_date`, `| int` convert",
        ),
        ("{{ '' | identifier }}", None),
        ("{{ ['a', ''] | identifier }}", None),
        ("{{ 3 | identifier }}", None),
        ("{{ 'a\\nb' | identifier }}", None),
        ("{{ ('a' * 300) | identifier }}", None),
    ],
)
def test_messages(text, message):
    with pytest.raises(TemplateError) as caught:
        render(text, context())
    if message is not None:
        assert str(caught.value) == message


def test_the_key_is_named():
    with pytest.raises(TemplateError, match=r"`a\.0\.password`: 'nope' is unknown"):
        render({"a": [{"password": "{{ nope }}"}]}, context())
    with pytest.raises(TemplateError, match=r"`query`: variable three: the variable 'one' refers to itself"):
        rendered_config({"query": "select {{ one }}"}, context(), sql_fields={"query"}, quote_identifier=repr)


def test_connections_read_the_environment_in_both_spellings():
    block = {
        "type": "postgres",
        "password": "${SHOP_PASSWORD}",
        "port": "${SHOP_PORT:-5432}",
        "home": "{{ env_var('HOME') }}",
        "url": "http://${HOME}/x",
        "braces": "${BRACES}",
        "nested": {"list": ["${HOME}", "${BRACES}"]},
        "number": 5,
        "money": "$5 {x}",
    }
    assert render_connection(block, context()) == {
        "type": "postgres",
        "password": "s3cret-value",
        "port": "5432",
        "home": "/h",
        "url": "http:///h/x",
        "braces": "{{ a }}",
        "nested": {"list": ["/h", "{{ a }}"]},
        "number": 5,
        "money": "$5 {x}",
    }
    assert "s3cret-value" not in mask("it is s3cret-value")


def test_a_missing_variable_of_a_connection_is_named():
    with pytest.raises(TemplateError, match="the environment variable SHOP_PASWORD is not set") as caught:
        render_connection({"password": "${SHOP_PASWORD}"}, context())
    assert "SHOP_PASSWORD" in caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_rendered_config_keeps_sql_apart():
    config = {"query": "select {{ a }}", "table": "t_{{ region }}", "n": 3}
    rendered = rendered_config(config, context(), sql_fields={"query"}, quote_identifier=repr)
    assert rendered.options == {"query": "select {{ a }}", "table": "t_eu", "n": 3}
    assert rendered.queries["query"].render(lambda number: f"${number}") == ("select $1", [1])


def test_names_of_a_template():
    assert list_names("{{ a }} {{ var('zz') }} {% if b %}{{ c.d }}{% endif %}") == {"a", "zz", "b", "c", "var"}
    assert list_names("no template") == frozenset()
    with pytest.raises(TemplateError):
        list_names("{{ a")


def test_one_context_serves_several_threads():
    shared = context(pipeline_variables={f"v{n}": f"{{{{ v{n + 1} }}}}" for n in range(30)} | {"v30": "{{ today() }}"})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: render(f"{{{{ v{n % 30} }}}}", shared), range(200)))
    assert set(found) == {date(2024, 3, 11)}


def test_secrets_do_not_show_in_a_context():
    assert "s3cret" not in repr(context())


def test_days_behave_as_dates_and_as_text():
    day = Day(2024, 3, 1)
    assert isinstance(day + timedelta(days=1), Day)
    assert str(day) == "2024-03-01"
    assert f"{day}" == "2024-03-01"
    assert day == date(2024, 3, 1)


@given(st.text())
def test_text_without_marks_is_itself(text):
    if not any(mark in text for mark in ("{{", "{%", "{#")):
        assert render(text, TemplateContext()) == text


@given(st.text(alphabet="{}%# \"'|.~()[]abx1+-*/=!<>,\n\\_", max_size=40))
def test_any_template_renders_or_is_refused(text):
    with suppress(TemplateError):
        render("{{" + text, TemplateContext(environment={}))


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.floats(allow_nan=False), lambda inner: st.lists(inner, max_size=3), max_leaves=8
    )
)
def test_a_lone_expression_gives_the_value_itself(value):
    assert render("{{ v }}", TemplateContext(overrides={"v": value}, environment={})) == value


def test_importing_templates_loads_no_jinja():
    code = (
        "import sys, dataflow_assets.spec.load, dataflow_assets.spec.templates as t\n"
        "t.render({'a': 'plain'}, t.TemplateContext())\n"
        "wrong = {'jinja2', 'dagster', 'duckdb', 'pandas', 'polars', 'sqlglot', 'pyarrow.parquet', 'dotenv'} & set(sys.modules)\n"
        "sys.exit(str(wrong) if wrong else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sql_fields_are_found_under_every_spelling():
    class Options(Model):
        query: SqlText
        before: SqlText | None = Field(None, validation_alias=AliasChoices("before", "pre_sql"))
        table: str = ""

    assert sql_fields(Options) == {"query", "before", "pre_sql"}
