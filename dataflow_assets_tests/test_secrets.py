"""Secrets: what is registered, stands in a URL or beside a telling key is never shown."""

import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets import secrets
from dataflow_assets.errors import DataflowError, Place, PlanError, Problem, WriteFailed
from dataflow_assets.secrets import MASK, looks_secret, mask, mask_line, register_secret, register_written

HARD = ["p@ss/w:rd", "50% off + more", 'it\'s "quoted"', "back\\slash\ttab", "zwölf-Boxkämpfer", "a{b}$c^(d)"]


@pytest.fixture(autouse=True)
def nothing_registered() -> None:
    """Session-wide servers have passwords too."""
    secrets._registered.clear()


@pytest.mark.parametrize("value", HARD)
def test_a_registered_value_is_masked_however_it_is_written(value: str) -> None:
    register_secret(value)
    for form in (value, quote(value, safe=""), quote_plus(value), repr(value), json.dumps(value), f"x{value}y", repr({"k": value})):
        shown = mask(f"before {form} after")
        assert value not in shown
        assert MASK in shown
        assert shown.startswith("before ")
        assert shown.endswith(" after")


@settings(deadline=None)
@given(st.text(min_size=3, max_size=20))
def test_no_registered_value_survives(value: str) -> None:
    try:
        register_secret(value)
        assert mask(f"[{value}] {value}{value}").replace(MASK, "") in {"[] ", "[]"} or value in f"[{MASK}] {MASK}{MASK}"
    finally:
        secrets._registered.clear()


def test_the_longer_of_two_secrets_goes_first() -> None:
    register_secret("hunter")
    register_secret("hunter2-long")
    assert mask("hunter2-long") == MASK


def test_very_short_values_do_not_mask_all_text() -> None:
    register_secret("ab")
    register_secret("")
    assert mask("abab") == "abab"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me:****@host/db"),
        ("postgresql+psycopg2://me:p@s:s@host:5432/db?x=1", "postgresql+psycopg2://me:****@host:5432/db?x=1"),
        ("redis://:pw@host", "redis://:****@host"),
        ("https://host:8080/path@2", "https://host:8080/path@2"),
        ("host=h password=pw dbname=d", "host=h password=**** dbname=d"),
        ("password='a b c' user=u", "password=**** user=u"),
        ("{'host': 'h', 'password': 'pw'}", "{'host': 'h', 'password': ****}"),
        ('{"api_key": "pw", "n": 1}', '{"api_key": ****, "n": 1}'),
        ("DB_PASSWORD=pw", "DB_PASSWORD=****"),
        ("x?access_token=pw&y=1", "x?access_token=****&y=1"),
        ("PWD: pw", "PWD: ****"),
        ("tokens are counted", "tokens are counted"),
        ("upsert_keys=id", "upsert_keys=id"),
    ],
)
def test_telling_places_are_masked_without_registration(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_masking_twice_changes_nothing() -> None:
    text = mask("postgresql://me:pw@host password=x 'token': 'y'")
    assert mask(text) == text


def test_masking_long_text_is_fast() -> None:
    text = "a-" * 20_000 + "pass" * 10_000 + "://" * 5_000
    started = time.process_time()
    mask(text)
    assert time.process_time() - started < 20


def test_errors_mask_message_hint_and_source_line() -> None:
    register_secret("s3cret-value")
    error = WriteFailed("no s3cret-value here", hint="try s3cret-value")
    assert "s3cret-value" not in f"{error} {error!r} {error.args} {error.hint} {error.message}"
    problem = Problem(Place("a.yml", 1, 1), "bad s3cret-value", "not s3cret-value", "password: s3cret-value")
    assert "s3cret-value" not in str(problem)
    assert "s3cret-value" not in f"{PlanError([problem])} {PlanError([problem])!r}"
    assert "s3cret-value" not in str(DataflowError("x", hint="s3cret-value"))


@pytest.mark.parametrize(
    "key", ["password", "DB_PASSWORD", "db_pwd", "api_key", "apikey", "AWS_SECRET_ACCESS_KEY", "token", "private_key", "dsn", "PG_DSN"]
)
def test_keys_that_look_secret(key: str) -> None:
    assert looks_secret(key)


@pytest.mark.parametrize("key", ["host", "keyword", "upsert_keys", "user", "tokenizer", "port"])
def test_keys_that_do_not(key: str) -> None:
    assert not looks_secret(key)


@pytest.mark.parametrize(
    ("url", "echoed"),
    [
        ("postgresql://u:p%40ss%2Fword@h:5432/d", "password p@ss/word is wrong"),
        ("postgresql://u:p%40ss%2Fword@h:5432/d", "no host in u:p%40ss%2Fword@h"),
        ("postgresql://u:begin/p@ss:finish@h/d", 'invalid integer value "begin" for connection option "port"'),
        ("mysql://u:begin#middle@h/d", "cannot resolve u:begin"),
        ("redis://:begin?finish@h", "no such thing as begin?finish"),
    ],
)
def test_the_password_of_a_url_is_masked_as_a_driver_tells_it(url: str, echoed: str) -> None:
    register_secret(url)
    shown = mask(echoed)
    assert MASK in shown
    assert not [part for part in ("p@ss", "p%40", "word is", "begin", "finish", "middle") if part in shown]


def test_the_host_of_a_url_is_no_secret() -> None:
    register_secret("postgresql://loader:correct-horse@db.internal:5432/warehouse?application_name=a@b")
    assert mask("db.internal:5432/warehouse is away, loader") == "db.internal:5432/warehouse is away, loader"


def test_what_is_left_of_a_long_secret_is_masked() -> None:
    register_secret("correct-horse-battery-staple")
    assert mask("value 'correct-horse-batt...' is too long") == "value '****batt...' is too long"
    assert mask("...rse-battery-staple") == "...rse-****"
    assert mask("correct horse battery") == "correct horse battery"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("    password: it's a, b & c", "    password: ****"),
        ("  dsn: postgresql://u:p@s/s w@h/d", "  dsn: ****"),
        ("  url: postgresql://u:p@s/s w@h/d?x=1", "  url: postgresql://u:****@h/d?x=1"),
        ("  db: {type: postgres, 'api_key': a b, port: 1}", "  db: {type: postgres, 'api_key': ****"),
        ("  password: \"{{ env_var('PW') }}\"", "  password: ****"),
        ("  storage_options: {region: eu}", "  storage_options: {region: eu}"),
        ("  token_of: x", "  token_of: ****"),
        ("  type: postgres", "  type: postgres"),
    ],
)
def test_a_written_line_shows_no_secret(line: str, shown: str) -> None:
    assert mask_line(line) == shown


def test_secrets_that_are_written_out_are_known_at_once() -> None:
    block = {"a": {"type": "postgres", "password": "correct-horse", "dsn": "{{ env_var('X') }}"}, "b": {"url": "x://u:battery-staple@h"}}
    register_written({**block, "c": {"password": "postgres", "storage_options": {"secret": "s3cret-of-it"}}})
    assert mask("correct-horse battery-staple s3cret-of-it postgres env_var('X')") == "**** **** **** postgres env_var('X')"
