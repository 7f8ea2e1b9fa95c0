"""Columns that no Arrow table makes, as databases have them: their tallies inside are those of the rows that are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from dataflow_assets.canonical import agree
from dataflow_assets.connectors.postgres import Connector as PostgresConnector
from dataflow_assets.connectors.postgres import PostgresConnection, PostgresSource
from dataflow_assets.protocols import ConnectionContext, Reconciles
from dataflow_assets.tables import Query, ReadRequest
from dataflow_assets_tests.connectors.comparing import locally, unequal
from dataflow_assets_tests.connectors.test_clickhouse import connect as connect_clickhouse
from dataflow_assets_tests.connectors.test_mysql import open_connector as connect_mysql
from dataflow_assets_tests.services.clickhouse import ClickHouseServer
from dataflow_assets_tests.services.mysql import connect as mysql_session

POSTGRES = """
CREATE TABLE odd (
    id int PRIMARY KEY, padded char(8), free numeric, whole numeric(20, 0), wide numeric(50, 10), cash money, tag uuid, body jsonb,
    span interval, mood text COLLATE "C", bits bit(5), address inet, local timestamp, instant timestamptz(3), clock time,
    far date, single real,
    numbers int[]
);
INSERT INTO odd VALUES
    (1, 'ab', 1.500, 100, 12345678901234567890123456789012345678.5, 12.50, gen_random_uuid(), '{"b": 1, "a": [1, null]}',
     '1 day 2 hours', 'é', B'10101', '10.0.0.1', '2024-03-10 12:00:00.000001', '1960-01-01 00:00:00.123+05', '23:59:59.999999',
     '0001-01-01', 0.1, '{1,2}'),
    (2, '', 100, -7, -0.0000000001, -0.01, NULL, '[]', NULL, '', B'00000', NULL, '9999-12-31', '0101-03-15', '00:00', '9999-12-31', 'NaN',
     NULL),
    (3, NULL, 0.000, 0, 0, 0, NULL, NULL, NULL, 'a ', NULL, NULL, NULL, NULL, NULL, NULL, '-0', '{}')
"""
MYSQL = """
CREATE TABLE odd (
    id INT PRIMARY KEY, year_ YEAR, bits BIT(5), flag BIT(1), zeros INT(8) UNSIGNED ZEROFILL, big BIGINT UNSIGNED,
    western VARCHAR(20) CHARACTER SET latin1, folded VARCHAR(20) COLLATE utf8mb4_general_ci, kind ENUM('a', 'B'), parts SET('x',
    'y'), document JSON,
    padded CHAR(6), raw VARBINARY(8), price DECIMAL(30, 6), whole DECIMAL(10, 0), clock TIME(3), moment DATETIME(3),
    stamp TIMESTAMP(6) NULL, day DATE, yes TINYINT(1)
) CHARACTER SET utf8mb4
"""
MYSQL_ROWS = """
INSERT INTO odd VALUES
    (1, 2024, b'10101', 1, 42, 18446744073709551615, 'é', 'Ab', 'B', 'x,y', '{"a": 1}', 'ab', X'00ff', 1.500000, 100, '23:59:59.999',
     '2024-03-10 12:00:00.123', '2024-03-10 12:00:00.000001', '1969-12-31', TRUE),
    (2, 1999, b'0', 0, 0, 0, '', '', 'a', '', '[]', '', X'', -0.000001, 0, '00:00:00', '1000-01-01', NULL, '9999-12-31', FALSE),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL)
"""
CLICKHOUSE = """
CREATE TABLE {name} (
    id Int32, tag UUID, kind Enum8('a' = 1, 'b' = 2), low LowCardinality(Nullable(String)), fixed FixedString(4), huge Int128, day Date,
    moment DateTime, local DateTime('America/New_York'), fine DateTime64(9, 'UTC'), price Decimal(18, 4), small Float32, yes Bool,
    address IPv4, unsigned UInt64, days Array(Int32)
) ENGINE = MergeTree ORDER BY id
"""
CLICKHOUSE_ROWS = """
INSERT INTO {name} VALUES
    (1, '00000000-0000-0000-0000-000000000001', 'a', 'é', 'ab', -170141183460469231731687303715884105728, '2024-03-10',
     '2024-03-10 01:02:03', '2024-03-10 01:02:03', '1969-12-31 23:59:59.999999999', 1.5, 0.1, true, '10.0.0.1',
     18446744073709551615, [1]),
    (2, '00000000-0000-0000-0000-000000000002', 'b', NULL, '', 100, '1970-01-01', '1970-01-01 00:00:00', '1970-01-02 00:00:00',
     '2024-01-01 00:00:00.123456789', -100, -0.0, false, '0.0.0.0', 0, [])
"""


def differing(connector: Any, request: ReadRequest) -> tuple[list[str], set[str]]:
    """The columns whose tally inside is another than that of the rows read, and those that the system leaves to be streamed."""
    assert isinstance(connector, Reconciles)
    with connector.read(request) as reader:
        read = reader.read_all()
    with connector.compare_source(request) as there, locally(read) as here:
        assert there.schema.names == read.schema.names
        agreed = agree(read.schema, there.schema, names=("here", "there"))
        assert agreed.left_out == ()
        has_key = request.query is None and connector.kind != "clickhouse"
        assert list(there.primary_key()) == (["id"] if has_key else [])
        return unequal(agreed.columns, here, there)


def test_postgres(postgres_dsn: str):
    with psycopg.connect(postgres_dsn, autocommit=True) as session:
        session.execute(POSTGRES.encode())
    connector = PostgresConnector(PostgresConnection(dsn=postgres_dsn), ConnectionContext("shop", Path()))
    assert differing(connector, ReadRequest(PostgresSource(table="odd"))) == ([], {"numbers"})
    query = Query.of("SELECT id, padded || 'x' AS joined, free * 2.50 AS twice, now() > local AS past FROM odd -- a comment")
    assert differing(connector, ReadRequest(PostgresSource(query="x"), query=query)) == ([], set())
    connector.close()


def test_mysql(mysql_user_dsn: str):
    with mysql_session(mysql_user_dsn) as session, session.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = ''")
        cursor.execute(MYSQL)
        cursor.execute(MYSQL_ROWS)
        session.commit()
    connector = connect_mysql(mysql_user_dsn)
    assert differing(connector, ReadRequest(connector.Source(table="odd"))) == ([], set())
    connector.close()


@pytest.mark.parametrize("query", [False, True])
def test_clickhouse(clickhouse: ClickHouseServer, query: bool):
    client = clickhouse.client()
    client.command(CLICKHOUSE.format(name=f"odd_{query}"))
    client.command(CLICKHOUSE_ROWS.format(name=f"odd_{query}"))
    connector = connect_clickhouse(clickhouse.url)
    text = Query.of(f"SELECT * FROM odd_{query} WHERE id > 0")
    request = ReadRequest(connector.Source(query="x"), query=text) if query else ReadRequest(connector.Source(table=f"odd_{query}"))
    assert differing(connector, request) == ([], {"days"})
    connector.close()
