"""The MySQL connector against a real server: the contract, and what only MySQL does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import ValidationError

from dataflow_assets import discovery
from dataflow_assets.connectors.mysql import Connector, MySQLConnection, MySQLEndpoint, MySQLSource
from dataflow_assets.errors import MissingDriver, ValueRefused, WriteFailed
from dataflow_assets.protocols import ConnectionContext
from dataflow_assets.tables import SchemaPolicy, Target, WriteMode
from dataflow_assets_tests.connectors.arrow_types import COLUMNS, FLOATS, NESTED
from dataflow_assets_tests.connectors.contract import ConnectorContract
from dataflow_assets_tests.connectors.contract_base import pairs
from dataflow_assets_tests.connectors.contract_schema import SchemaKillPromises, SchemaPromises
from dataflow_assets_tests.connectors.dropped import DroppedPromises
from dataflow_assets_tests.connectors.harness import Harness, Lossy, assert_same_column, assert_same_rows, day, events, failing, unit
from dataflow_assets_tests.connectors.kills import KillPromises
from dataflow_assets_tests.services.mysql import SECRET, MySQLServer, ask, parts_of


@dataclass
class MySQLHarness(Harness):
    """MySQL keeps 64 characters of a name, and none above U+FFFF."""

    dsn: str = ""
    secret: str | None = SECRET
    longest_name: int | None = 64
    hostile_columns: Sequence[str] = tuple(name.replace("\U0001f600", "\u263a") for name in Harness.hostile_columns)
    hostile_tables: Sequence[str] = tuple(name.replace("\U0001f600", "\u263a") for name in Harness.hostile_tables)
    _connector: Connector | None = field(default=None, repr=False)

    @property
    def connector(self) -> Connector:
        if self._connector is None:
            self._connector = open_connector(self.dsn)
        return self._connector

    def make_target(
        self, name: str, mode: WriteMode, *, keys: Sequence[str] = (), window_column: str | None = None, **options: Any
    ) -> Target:
        endpoint = MySQLEndpoint(table=name, **options)
        return Target(self.connector.target_table(endpoint), mode, endpoint, tuple(keys), window_column)

    def source_options(self, name: str) -> MySQLSource:
        return MySQLSource(table=name)


def open_connector(dsn: str, **options: Any) -> Connector:
    """A connector for a DSN."""
    parts = {name: value for name, value in parts_of(dsn).items() if value}
    return Connector(MySQLConnection(**parts, **options), ConnectionContext("warehouse", Path()))


@pytest.fixture
def harness(mysql_user_dsn: str, tmp_path: Path) -> Any:
    made = MySQLHarness(tmp_path, dsn=mysql_user_dsn)
    yield made
    made.connector.close()


_EPOCH = "TIMESTAMP holds 1970-01-01 00:00:01 to 2038-01-19 03:14:07"
_FINE = "MySQL keeps microseconds"


class TestMySQL(ConnectorContract):
    """The contract."""

    lossy: ClassVar[dict[str, Lossy]] = {
        "decimal_76_10": Lossy("MySQL keeps 65 digits"),
        **dict.fromkeys(FLOATS, Lossy("MySQL has no NaN and no infinity")),
        **dict.fromkeys(NESTED, Lossy("MySQL has no nested types; JSON text goes into a JSON column")),
        "duration_us": Lossy("MySQL has no durations"),
        "time_ns_fine": Lossy(_FINE),
        "timestamp_ns_fine": Lossy(_FINE),
        **{f"instant_{zone}{unit}": Lossy(_EPOCH) for zone in ("", "new_york_") for unit in ("s", "ms", "us", "ns")},
        "instant_ns_fine": Lossy(_FINE),
    }

    @pytest.fixture
    def harness(self, harness: MySQLHarness) -> MySQLHarness:
        return harness


class TestMySQLSchemas(SchemaPromises):
    """Columns that change."""

    @pytest.fixture
    def harness(self, harness: MySQLHarness) -> MySQLHarness:
        return harness


class TestMySQLDropped(DroppedPromises):
    """A table dropped by hand."""

    def drop(self, harness: Harness, table: str) -> None:
        assert isinstance(harness, MySQLHarness)
        ask(harness.dsn, f"DROP TABLE {table}")


class TestMySQLKilled(KillPromises, SchemaKillPromises):
    """Processes."""

    kind = "mysql"

    @pytest.fixture
    def place(self, mysql_user_dsn: str) -> str:
        return mysql_user_dsn


# -- the target table


def test_a_table_that_a_failed_publish_made_is_taken_away(harness: MySQLHarness) -> None:
    target = harness.make_target("things", WriteMode.APPEND)
    claim = harness.connector.claim(target, day(0), attempt="first")
    with pytest.raises(WriteFailed):
        harness.connector.publish(failing(harness.request(events(day(0)), target, claim)))
    assert ask(harness.dsn, "SHOW TABLES") == (("_dataflow_ledger",), ("_dataflow_schemas",))


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE things (id BIGINT, at TIMESTAMP(6) NULL, note TEXT) ENGINE=MyISAM",
        "CREATE VIEW things AS SELECT 1 AS id, now() AS at, 'x' AS note",
    ],
)
def test_only_innodb_tables_are_written(mysql_dsn: str, harness: MySQLHarness, made: str) -> None:
    ask(mysql_dsn, made)
    with pytest.raises(WriteFailed, match="InnoDB") as caught:
        harness.publish(events(day(0)), harness.make_target("things", WriteMode.APPEND), day(0))
    assert not caught.value.transient


def test_upsert_without_a_unique_index_says_what_to_type(harness: MySQLHarness) -> None:
    harness.publish(pairs((1, "a")), harness.make_target("pairs", WriteMode.APPEND), unit("one"))
    upsert = harness.make_target("pairs", WriteMode.UPSERT, keys=["key"])
    with pytest.raises(WriteFailed) as caught:
        harness.publish(pairs((1, "b")), upsert, unit("two"))
    ask(harness.dsn, caught.value.hint)
    harness.publish(pairs((1, "b"), (2, "c")), upsert, unit("two"))
    assert_same_rows(pairs((1, "b"), (2, "c")), harness.rows(upsert))


@pytest.mark.parametrize(
    "definition",
    [
        "`key` BIGINT UNIQUE, `value` VARCHAR(9) UNIQUE",
        "`key` BIGINT, `value` VARCHAR(9), UNIQUE (`key`, `value`)",
        "`key` BIGINT, `value` VARCHAR(9), KEY (`key`)",
    ],
)
def test_upsert_is_refused_unless_one_unique_index_fits(harness: MySQLHarness, definition: str) -> None:
    """With `value` unique too, the row (2, a) would overwrite (1, a) and leave no row with key 2."""
    ask(harness.dsn, f"CREATE TABLE pairs ({definition})", "INSERT INTO pairs VALUES (1, 'a')")
    with pytest.raises(WriteFailed, match="unique index"):
        harness.publish(pairs((2, "a")), harness.make_target("pairs", WriteMode.UPSERT, keys=["key"]), unit())
    assert ask(harness.dsn, "SELECT * FROM pairs") == ((1, "a"),)


def test_upsert_beside_a_number_that_counts_up(harness: MySQLHarness) -> None:
    ask(
        harness.dsn,
        "CREATE TABLE pairs (id INT AUTO_INCREMENT PRIMARY KEY, `key` BIGINT UNIQUE, `value` TEXT)",
        "INSERT INTO pairs VALUES (7, 1, 'a')",
    )
    harness.publish(pairs((1, "b"), (2, "c")), harness.make_target("pairs", WriteMode.UPSERT, keys=["key"]), unit())
    assert ask(harness.dsn, "SELECT id, `value` FROM pairs WHERE `key` = 1") == ((7, "b"),)
    assert ask(harness.dsn, "SELECT count(*) FROM pairs") == ((2,),)


def test_upsert_of_keys_alone_leaves_the_rows(harness: MySQLHarness) -> None:
    target = harness.make_target("keys", WriteMode.UPSERT, keys=["key"])
    for number in range(2):
        harness.publish(pairs((1, None), (2, None)).select(["key"]), target, unit(str(number)))
    assert harness.rows(target).num_rows == 2


def test_keys_of_a_made_table_are_equal_only_when_they_are_the_same(harness: MySQLHarness) -> None:
    target = harness.make_target("tags", WriteMode.UPSERT, keys=["tag"])
    tags = pa.table({"tag": ["a", "A", "a ", "\u00e4", "a", "e\u0301", "\u00e9"], "n": range(7)})
    harness.publish(tags, target, unit())
    assert sorted(harness.rows(target)["n"].to_pylist()) == [1, 2, 3, 4, 5, 6]


def test_keys_of_another_table_are_equal_when_its_collation_says_so(harness: MySQLHarness) -> None:
    ask(harness.dsn, "CREATE TABLE tags (tag VARCHAR(9) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT)", "INSERT INTO tags VALUES ('A', 0)")
    harness.publish(
        pa.table({"tag": ["a", "\u00e4", "b"], "n": [1, 2, 3]}), harness.make_target("tags", WriteMode.UPSERT, keys=["tag"]), unit()
    )
    assert ask(harness.dsn, "SELECT n FROM tags ORDER BY n") == ((2,), (3,))


def test_rows_that_a_unique_index_would_drop_are_refused(harness: MySQLHarness) -> None:
    """LOAD DATA LOCAL leaves such rows out and only warns."""
    ask(harness.dsn, "CREATE TABLE pairs (`key` BIGINT UNIQUE, `value` TEXT)")
    with pytest.raises(WriteFailed, match="Duplicate") as caught:
        harness.publish(pairs((1, "a"), (1, "b")), harness.make_target("pairs", WriteMode.APPEND), unit())
    assert "upsert" in caught.value.hint
    assert ask(harness.dsn, "SELECT count(*) FROM pairs") == ((0,),)


def test_auto_create_off_says_what_to_type(harness: MySQLHarness) -> None:
    target = harness.make_target("things", WriteMode.APPEND, auto_create=False)
    with pytest.raises(WriteFailed, match="does not exist") as caught:
        harness.publish(events(day(0)), target, day(0))
    ask(harness.dsn, caught.value.hint)
    harness.publish(events(day(0)), target, day(0))
    assert_same_rows(events(day(0)), harness.rows(target))


def test_a_name_beyond_the_basic_plane_is_refused(harness: MySQLHarness) -> None:
    for table, name in (("things", "\U0001f600"), ("\U0001f600", "id")):
        with pytest.raises(ValueRefused, match="character"):
            harness.publish(pa.table({name: [1]}), harness.make_target(table, WriteMode.APPEND), unit())


def test_a_servers_own_database_is_one_table_however_it_is_said(harness: MySQLHarness) -> None:
    database = parts_of(harness.dsn)["database"]
    said, unsaid = (harness.make_target("things", WriteMode.APPEND, **given) for given in ({"table_schema": database}, {}))
    harness.publish(events(day(0)), unsaid, day(0))
    assert harness.publish(events(day(0)), said, day(0), "second").already


# -- without LOAD DATA LOCAL


@pytest.fixture
def no_local_infile(mysql_server: MySQLServer) -> Iterator[None]:
    ask(mysql_server.dsn, "SET GLOBAL local_infile = 0")
    yield
    ask(mysql_server.dsn, "SET GLOBAL local_infile = 1")


@pytest.mark.usefixtures("no_local_infile")
@pytest.mark.parametrize("mode", list(WriteMode))
def test_a_server_that_takes_no_local_files_gets_inserts(harness: MySQLHarness, mode: WriteMode) -> None:
    keys = ["id"] if mode is WriteMode.UPSERT else []
    target = harness.make_target("things", mode, keys=keys, window_column="at" if mode is WriteMode.REPLACE_WINDOW else None)
    for _ in range(2):
        harness.publish(events(day(0), rows=50_000), target, day(0))
    assert_same_rows(events(day(0), rows=50_000), harness.rows(target))


@pytest.mark.usefixtures("no_local_infile")
@pytest.mark.parametrize(
    "case", ["string", "string_long", "string_nul", "binary", "bool", "uint64", "decimal_38_38", "time_us", "timestamp_us", "date"]
)
def test_inserts_keep_values_too(harness: MySQLHarness, case: str) -> None:
    table = pa.table({"id": range(len(COLUMNS[case])), "v": COLUMNS[case]})
    target = harness.make_target("values", WriteMode.APPEND)
    harness.publish(table, target, unit())
    assert_same_column(COLUMNS[case], harness.rows(target).sort_by("id")["v"])


@pytest.mark.usefixtures("no_local_infile")
def test_a_row_larger_than_a_packet_is_refused_by_name(harness: MySQLHarness) -> None:
    with pytest.raises(WriteFailed, match="max_allowed_packet"):
        harness.publish(pa.table({"v": ["x" * 20_000_000]}), harness.make_target("things", WriteMode.APPEND), unit())
    assert ask(harness.dsn, "SHOW TABLES") == (("_dataflow_ledger",), ("_dataflow_schemas",))


# -- keys


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"dsn": "mysql+pymysql://u:p%40ss@h:3307/d?ssl_mode=required"}, {"host": "h", "port": 3307, "database": "d", "password": b"p@ss"}),
        ({"url": "mariadb://u@h/d"}, {"host": "h", "port": 3306, "database": "d", "user": "u"}),
        ({"port": "3307", "user": "u", "password": "p w'\u00e9", "charset": "utf8"}, {"port": 3307, "password": "p w'\u00e9".encode()}),
        ({"database": "d"}, {"host": "localhost", "port": 3306, "charset": "utf8mb4"}),
        ({"unix_socket": "/run/s", "ssl_mode": "disabled"}, {"unix_socket": "/run/s", "ssl_disabled": True}),
        ({"ssl_mode": "verify_identity"}, {"ssl": {"ca": None, "check_hostname": True, "verify_mode": True}}),
    ],
)  # fmt: skip
def test_connection_keys(given: dict[str, Any], expected: dict[str, Any]) -> None:
    connector = Connector(MySQLConnection.model_validate(given), ConnectionContext("x", Path()))
    assert expected.items() <= connector._parameters().items() or expected == {name: connector._parameters()[name] for name in expected}


@pytest.mark.parametrize(
    "given",
    [
        *({"dsn": "postgresql://h/d"}, {"dsn": "mysql://h/d?local_infile=1"}, {"dsn": "mysql://h/d", "host": "x"}, {"hots": "x"}),
        *({"port": "many"}, {"lock_timeout": "soon"}, {"charset": "latin1"}, {"ssl_mode": "sometimes"}),
    ],
)
def test_connection_keys_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MySQLConnection.model_validate(given)


def test_it_is_found_by_both_names() -> None:
    assert discovery.find("connectors", "mariadb") is discovery.find("connectors", "mysql") is Connector


def test_a_missing_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDriver, match="pymysql"):
        Connector(MySQLConnection(), ConnectionContext("x", Path())).probe()


def test_evolve_in_a_table_made_by_hand(harness: MySQLHarness) -> None:
    """What a change of type would take away, an index, a default, a comment, keeps the column as it is; a collation stays."""
    ask(
        harness.dsn,
        "CREATE TABLE hand (id INT NOT NULL, told INT COMMENT 'by hand', flag BOOLEAN, code VARCHAR(5) COLLATE utf8mb4_unicode_ci,"
        " note VARCHAR(5) COLLATE utf8mb4_unicode_ci NOT NULL, n DECIMAL(6,2), KEY (told)) ENGINE=InnoDB",
    )
    target = replace(harness.make_target("hand", WriteMode.APPEND), schema_policy=SchemaPolicy.EVOLVE)
    table = pa.table({"id": [2**40], "told": [1], "flag": [True], "note": ["longer than five"], "n": pa.array([Decimal("12345.678")])})
    done = harness.publish(table.append_column("code", pa.array(["short"])), target, unit("a"))
    assert {(change.action, change.column) for change in done.schema_changes} == {("widened", "id"), ("widened", "note"), ("widened", "n")}
    shown = {row[0]: (row[1], row[2], row[3]) for row in ask(harness.dsn, "SHOW FULL COLUMNS FROM hand")}
    assert shown["id"] == ("bigint(20)", None, "NO")
    assert shown["note"] == ("longtext", "utf8mb4_unicode_ci", "NO")
    assert shown["n"] == ("decimal(8,3)", None, "YES")
    assert shown["flag"][0] == "tinyint(1)"
    with pytest.raises(ValueRefused, match="told"):
        harness.publish(table.set_column(1, "told", pa.array([2**40])).append_column("code", pa.array(["x"])), target, unit("b"))
