"""Values in SQL: bound wherever they stand, and refused where a value cannot stand. DuckDB is asked whether the value arrived."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow_assets.errors import TemplateError
from dataflow_assets.spec.templates import TemplateContext, render_query
from dataflow_assets.tables import Bind
from dataflow_assets.windows import Window

EVIL = "'; drop table x; --"
VALUES = {
    "a": 1,
    "evil": EVIL,
    "xs": [1, 2],
    "empty": [],
    "n": None,
    "d": {"k": 1},
    "day": date(2024, 1, 2),
    "moment": datetime(2024, 1, 2, 3, tzinfo=UTC),
    "t": "orders",
}


def double_quoted(name):
    return '"' + name.replace('"', '""') + '"'


def back_quoted(name):
    return "`" + name.replace("`", "``") + "`"


def query(text, *, quote=double_quoted, **more):
    return render_query(
        text, TemplateContext(overrides={**VALUES, **more}, environment={}, timezone="Europe/Berlin"), quote_identifier=quote
    )


def shown(text, **options):
    return query(text, **options).render(lambda number: f"${number}")


@pytest.fixture(scope="module")
def duck():
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize(
    ("text", "statement", "values"),
    [
        ("select 1", "select 1", []),
        ("select {{ a }}", "select $1", [1]),
        ("select '{{ a }}', '{{ evil }}'", "select $1, $2", [1, EVIL]),
        ("x like '%{{ t }}%'", "x like $1", ["%orders%"]),
        ("x = 'it''s {{ t }}'", "x = $1", ["it's orders"]),
        ("x = '{{ a }}''{{ a }}'", "x = $1", ["1'1"]),
        ("x = '' and y = {{ a }}", "x = '' and y = $1", [1]),
        ("x in ({{ xs }})", "x in ($1, $2)", [1, 2]),
        ("x in {{ xs }}", "x in ($1, $2)", [1, 2]),
        ("x = any([{{ xs }}])", "x = any([$1, $2])", [1, 2]),
        ("x is {{ n }} or y = '{{ n }}'", "x is $1 or y = $2", [None, None]),
        ("-- it's {{ a }} \nselect {{ a }}", "-- it's  \nselect $1", [1]),
        ("/* ' {{ a }} /* \" */ */ select {{ a }}", "/* '  /* \" */ */ select $1", [1]),
        ("from {{ t | identifier }} where a={{ a }}", 'from "orders" where a=$1', [1]),
        ("from {{ 'main.or\"ders' | identifier }}", 'from "main"."or""ders"', []),
        ("from {{ ('t_' ~ a) | identifier }}_x", 'from "t_1"_x', []),
        ('select "{{ t }}.x"', 'select "orders.x"', []),
        ('select "a""{{ t }}"', 'select "a""orders"', []),
        ("$$ it's {{ t }} $$", "$1", [" it's orders "]),
        ("$q$ $$ {{ t }} $q$, {{ a }}", "$1, $2", [" $$ orders ", 1]),
        ("a$b$c = {{ a }}", "a$b$c = $1", [1]),
        ("x > date '{{ day }}'", "x > CAST($1 AS DATE)", [date(2024, 1, 2)]),
        ("x > DATE'{{ moment }}'", "x > CAST($1 AS DATE)", [date(2024, 1, 2)]),
        ("x > timestamp '{{ moment }}'", "x > CAST($1 AS TIMESTAMP)", [datetime(2024, 1, 2, 3)]),
        (
            "x > timestamp  with time zone '{{ moment }}'",
            "x > CAST($1 AS TIMESTAMP WITH TIME ZONE)",
            [datetime(2024, 1, 2, 3, tzinfo=UTC)],
        ),
        ("interval '{{ a }} days'", "CAST($1 AS INTERVAL)", ["1 days"]),
        ("interval '{{ a }}' day + 1", "CAST($1 AS INTERVAL) + 1", ["1 day"]),
        ("x >= {{ today() }}::date", "x >= $1::date", None),
        ("{% for x in xs %}{% if not loop.first %} or {% endif %}x = {{ x }}{% endfor %}", "x = $1 or x = $2", [1, 2]),
        ("{% if a %}a = {{ a }}{% endif %}", "a = $1", [1]),
        ("E'it\\'s' || {{ a }}", "E'it\\'s' || $1", [1]),
        ("5 % {{ a }} ? :x %s $1", "5 % $1 ? :x %s $1", [1]),
        ("x # '{{ a }}' ", "x # $1 ", [1]),
        ("limit {{ a }} -- {{ evil }}", "limit $1 -- ", [1]),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}", []),
    ],
)
def test_queries(text, statement, values):
    found = shown(text)
    assert found[0] == statement
    if values is not None:
        assert found[1] == values
        assert [type(value) for value in found[1]] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "statement", "values"),
    [
        ('select "it\'s {{ t }}", `{{ t }}`', "select $1, `orders`", ["it's orders"]),
        ("select 'it\\'s {{ t }}' # '{{ a }}", "select $1 # '", ["it's orders"]),
        ("/* /* {{ a }} */ {{ a }}", "/* /*  */ $1", [1]),
        ("'100\\%{{ t }}\\n'", "$1", ["100\\%orders\n"]),
    ],
)
def test_queries_of_dialects_with_backticks(text, statement, values):
    assert shown(text, quote=back_quoted) == (statement, values)


NAME_NEEDED = "stands where SQL needs a name, and values are bound, not pasted"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from {{ t }}", f"{{{{ t }}}} {NAME_NEEDED}\n  -> write {{{{ t | identifier }}}};"),
        ("from -- c\n{{ t }}", NAME_NEEDED),
        ("from x_{{ t }}", NAME_NEEDED),
        ("from {{ t }}_x", NAME_NEEDED),
        ("from s.{{ t }}", NAME_NEEDED),
        ("where {{ t }}.x = 1", NAME_NEEDED),
        ("order by {{ t }}", NAME_NEEDED),
        ("insert into {{ t }}", NAME_NEEDED),
        ("{{ a }}{{ a }}", NAME_NEEDED),
        ("in ({{ empty }})", "the list {{ empty }} is empty, and SQL has no empty list\n  -> guard it: {% if empty %} ... {% endif %}"),
        ("in ('{{ xs }}')", "{{ xs }} is a list inside quotes\n  -> write in ({{ xs }}) without quotes"),
        ("'x{{ xs }}'", "{{ xs }} is a list inside quotes\n  -> join it to text first: | join(', ')"),
        ("{{ d }}", "{{ d }} is a dict, which cannot be bound in SQL"),
        ("in ({{ [d] }})", "{{ [d] }} is a dict, which cannot be bound in SQL"),
        ("'%{{ n }}'", "{{ n }} is null and stands inside text"),
        ("'{{ a }}", "{{ a }} stands in a quote that is never closed\n  -> close the '"),
        ('"{{ a }}', "{{ a }} stands in a quote that is never closed"),
        ("E'{{ a }}'", "{{ a }} stands in a E'...' string\n  -> use plain quotes around it"),
        ("date /* c */ '{{ day }}'", "a comment stands between date and its literal"),
        ("from {{ '' | identifier }}", "'' is not an SQL identifier"),
        ("from {{ 'a\\u0000b' | identifier }}", "is not an SQL identifier"),
        ('select "{{ n }}"', "{{ n }} is null and stands inside text"),
        ("select {{ nope }}", "'nope' is unknown"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(TemplateError) as caught:
        query(text)
    assert message in str(caught.value)


def test_windows_reach_the_database_as_moments(duck):
    window = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    context = TemplateContext(window=window, window_key="k", environment={}, timezone="America/New_York")
    text = "select timestamptz '2024-01-01 12:00:00+00' >= '{{ window.start }}', timestamp '{{ batch_end }}' = timestamp '2024-01-02'"
    statement, values = render_query(text, context, quote_identifier=double_quoted).render(lambda number: f"${number}")
    assert duck.execute(statement, values).fetchone() == (True, True)


TEXTS = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(TEXTS | st.text(alphabet="'\"\\;-/*$%{}#` \n\tx"))
@example(EVIL)
@example("{{ 1 }}")
@example("\\'")
@example("$$")
def test_whatever_the_text_is_it_arrives(duck, value):
    parts = (
        "select {{ v }} as a, '{{ v }}' as b, 'x''{{ v }}%' as c, $q$<{{ v }}>$q$ as d, -- {{ v }}\n{{ v ~ '!' }} as e, "
        "{{ v }} in ({{ [v, 'z'] }}) as f /* {{ v }} */"
    )
    statement, values = query(parts, v=value).render(lambda number: f"${number}")
    row = duck.execute(statement, values).fetchone()
    assert row == (value, value, f"x'{value}%", f"<{value}>", f"{value}!", True)


@given(
    st.integers(-(2**62), 2**62)
    | st.booleans()
    | st.dates()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(-1000, 1000, places=3)
)
def test_whatever_the_value_is_it_arrives(duck, value):
    statement, values = query("select {{ v }}, '{{ v }}'", v=value).render(lambda number: f"${number}")
    row = duck.execute(statement, values).fetchone()
    assert row == (value, value)


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40))
@example('a"b')
@example("'; drop table x; --".replace(" ", "_"))
def test_whatever_the_name_is_it_names(duck, name):
    statement, values = query('select 7 as {{ [n] | identifier }}, 8 as "{{ n }}!"', n=name).render(lambda number: f"${number}")
    result = duck.execute(statement, values)
    assert [column[0] for column in result.description] == [name, f"{name}!"]


@given(
    st.lists(
        st.sampled_from(
            ["'", '"', "--", "/*", "*/", "$$", "$q$", "\n", "\\", "#", "`", "x ", "'{{ v }}'", "{{ v }}", "{{ v | identifier }}"]
        ),
        max_size=12,
    )
)
def test_a_value_is_never_text_of_the_statement(pieces):
    try:
        found = query(" ".join(pieces), v="SECRET VALUE", quote=lambda name: '"quoted"' if "SECRET" in name else double_quoted(name))
    except TemplateError:
        return
    assert "SECRET" not in "".join(part for part in found.parts if not isinstance(part, Bind))


def test_decimals_are_kept():
    assert shown("select {{ v }}", v=Decimal("1.10"))[1] == [Decimal("1.10")]
