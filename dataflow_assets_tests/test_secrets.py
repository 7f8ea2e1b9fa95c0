"""Secrets: what is registered, stands in a URL or beside a telling key is never shown."""

import json
import time
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_assets import secrets
from dataflow_assets.errors import DataflowError, Place, PlanError, Problem, WriteFailed
from dataflow_assets.secrets import MASK, looks_secret, mask, register_secret

HARD = ["p@ss/w:rd", "50% off + more", 'it\'s "quoted"', "back\\slash\ttab", "zwölf-Boxkämpfer", "a{b}$c^(d)"]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Let no test's secrets mask the text of another."""
    before = set(secrets._registered)
    yield
    secrets._registered.clear()
    secrets._registered.update(before)


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
