"""Resources of Dagster's libraries in IO managers: the same table for both, secrets hidden, what cannot be taken over refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster_duckdb import DuckDBResource

from dataflow_assets import DuckDBIOManager, PostgresIOManager, SnowflakeIOManager
from dataflow_assets.assets.io_managers import ConnectorIOManager
from dataflow_assets.assets.library_resources import keys_of
from dataflow_assets.errors import DataflowError

ROWS = pl.DataFrame({"id": [1, 2, None], "note": ["a", "b", "c"]})


def _materialized(manager: ConnectorIOManager, instance: dg.DagsterInstance, **resources: Any) -> pl.DataFrame:
    """What a second asset was given of the first one's rows, when both also use the resource themselves."""
    seen: dict[str, pl.DataFrame] = {}
    keys = set(resources)

    @dg.asset(required_resource_keys=keys)
    def first(context) -> pl.DataFrame:
        _ask(context, keys)
        return ROWS

    @dg.asset(required_resource_keys=keys)
    def second(context, first: pl.DataFrame) -> None:
        _ask(context, keys)
        seen["rows"] = first

    assert dg.materialize([first, second], instance=instance, resources={"io_manager": manager, **resources}).success
    return seen["rows"]


def _ask(context: Any, keys: set[str]) -> None:
    for key in keys:
        with getattr(context.resources, key).get_connection() as connection:
            assert connection.cursor().execute("select 1").fetchone()[0] == 1


def test_a_duckdb_resource_and_the_io_manager_share_a_file(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_FILE", str(tmp_path / "warehouse.duckdb"))
    resource = DuckDBResource(database=dg.EnvVar("WAREHOUSE_FILE"), connection_config={"threads": 1, "memory_limit": "100MB"})
    manager = DuckDBIOManager(resource=resource, schema="mart")
    assert _materialized(manager, instance, duckdb=resource).equals(ROWS)
    with resource.process_config_and_initialize().get_connection() as connection:
        assert connection.execute("select count(*) from mart.first").fetchone() == (3,)


def test_a_snowflake_resource_gives_its_login(
    snowflake_keys: dict[str, Any], tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = pytest.importorskip("dagster_snowflake")
    known = {
        name: value for name, value in snowflake_keys.items() if name in {"account", "user", "database", "schema", "role", "warehouse"}
    }
    more = {name: value for name, value in snowflake_keys.items() if name in {"host", "port", "protocol"}}
    if "password" not in snowflake_keys:
        pytest.skip("the account is not entered by password")
    monkeypatch.setenv("SNOWFLAKE_PASSWORD", snowflake_keys["password"])
    resource = resources.SnowflakeResource(
        **known, password=dg.EnvVar("SNOWFLAKE_PASSWORD"), login_timeout=20, additional_snowflake_connection_args=more or None
    )
    manager = SnowflakeIOManager(resource=resource)
    try:
        assert _materialized(manager, instance).equals(ROWS)
    finally:
        manager.connector.close()


def test_what_a_snowflake_resource_says_becomes_keys_of_a_connection() -> None:
    resources = pytest.importorskip("dagster_snowflake")
    pem = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"
    common: dict[str, Any] = {"account": "a-b", "user": "loader", "schema": "RAW", "network_timeout": 60}
    resource = resources.SnowflakeResource(
        **common, private_key=base64.b64encode(pem.encode()).decode(), private_key_password="pass-of-the-key", autocommit=True
    )
    expected = {"account": "a-b", "user": "loader", "schema": "RAW", "statement_timeout": "60s"}
    assert keys_of("snowflake", resource) == {**expected, "private_key": pem, "private_key_passphrase": "pass-of-the-key"}
    with_token = resources.SnowflakeResource(**common, password="x", additional_snowflake_connection_args={"host": "h", "token": "t"})
    assert keys_of("snowflake", with_token) == {**expected, "password": "x", "host": "h", "token": "t"}


def test_keys_win_over_the_resource(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    resource = DuckDBResource(database=str(tmp_path / "one.duckdb"))
    manager = DuckDBIOManager(resource=resource, database=str(tmp_path / "other.duckdb"))
    assert _materialized(manager, instance).equals(ROWS)
    assert (tmp_path / "other.duckdb").exists()
    assert not (tmp_path / "one.duckdb").exists()


def test_no_secret_of_a_resource_is_shown() -> None:
    resources = pytest.importorskip("dagster_snowflake")
    resource = resources.SnowflakeResource(account="a", user="u", password="correct horse battery")
    shown = repr(SnowflakeIOManager(resource=resource))
    assert shown == "SnowflakeIOManager(resource=SnowflakeResource)"


@pytest.mark.parametrize(
    ("manager", "problem"),
    [
        (lambda: DuckDBIOManager(resource=DuckDBResource(database=":memory:")), "in memory"),
        (lambda: DuckDBIOManager(resource=DuckDBResource(database="x", connection_config={"motherduck_token": "t"})), "motherduck_token"),
        (lambda: DuckDBIOManager(resource=object()), "takes no object"),
        (lambda: PostgresIOManager(resource=DuckDBResource(database="x")), "kind postgres takes no DuckDBResource"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(manager: Any, problem: str) -> None:
    with pytest.raises(DataflowError, match=problem):
        manager().connector  # noqa: B018 - it is made when it is first asked for
