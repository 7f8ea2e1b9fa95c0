"""`dataflow quarantine`: listing, showing and replaying through the command, and what run and status say."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pytest

from dataflow_assets_tests.cli.conftest import LINES, Answer, ProjectFolder, windowed

Call = Callable[..., Answer]
RULE = "{column: value, min_value: 0, on_failure: quarantine}"


def limited(name: str, *, table: str, low: int = 0, mode: str = "") -> str:
    """Three daily windows with a rule that sets rows aside."""
    text = windowed(name, table=table).replace("{column: value, min_value: 0}", RULE.replace("min_value: 0", f"min_value: {low}"))
    text = text.replace("depends_on: [read]", "depends_on: [read]\n    quarantine: {max_share: 100%}").replace(
        f"{{table: {table}}}", f"{{table: {table}{mode}}}"
    )
    return text.replace("event_time_column: at\n", "").replace("rows.csv}", "rows.csv, event_time_column: at}") if mode else text


@pytest.fixture
def aside(project: ProjectFolder) -> ProjectFolder:
    """`first` replaces its windows, `log` appends them; two rows are below the limit."""
    for path in (project.root / "pipelines").iterdir():
        path.unlink()
    project.pipeline("first", limited("first", table="totals"))
    project.pipeline("log", limited("log", table="log", mode=", mode: append"))
    project.rows(lines=[*LINES[:2], LINES[2].replace("Z,20", "Z,-20"), LINES[3].replace("Z,30", "Z,-30"), LINES[4]])
    return project


def rows(project: ProjectFolder, table: str) -> list[tuple[int, int]]:
    with duckdb.connect(str(next(project.root.glob("**/*.duckdb")))) as connection:
        return connection.execute(f"SELECT id, value FROM {table} ORDER BY id").fetchall()


def test_from_the_first_bad_row_to_its_replay(aside: ProjectFolder, call: Call) -> None:
    options = ("--project", aside.root)
    ran = call("run", *options)
    assert ran.code == 0, ran.out
    assert "1 of 2 rows" in ran.out
    assert "publish: 1 row quarantined in main.totals__quarantine" in ran.out
    assert rows(aside, "totals") == rows(aside, "log") == [(1, 10), (4, 40)]

    status = call("status", *options)
    assert "first: 2 rows in quarantine: dataflow quarantine list first" in status.out
    listed = call("quarantine", "list", *options).out
    assert [line.split()[:5] for line in listed.splitlines()[1:5]] == [
        [f"{name}.publish", day, "1", "value_range", "1"] for name in ("first", "log") for day in ("2024-01-01", "2024-01-02")
    ]
    assert "4 rows set aside." in listed
    shown = call("quarantine", "show", "first", "--rule", "value_range", "--window", "2024-01-01", "--json", *options).json
    (row,) = shown["rows"]
    assert (row["rules"], row["column_name"], row["value"], row["row"]["id"]) == ("value_range", "value", "-20", 2)
    told = call("quarantine", "show", "log", "--limit", "1", *options).out
    assert "value = '-20'   value: range at least 0" in told
    assert '"value": -20' in told
    assert "1 row shown of 2 rows" in told
    assert call("quarantine", "show", "--rule", "no_such", *options).code == 2
    assert "Nothing is set aside." in call("quarantine", "list", "--window", "2024-01-03", *options).out

    assert "0 rows left the quarantine, 2 rows stay." in call("quarantine", "replay", "log", *options).out
    aside.pipeline("first", limited("first", table="totals", low=-25))
    aside.pipeline("log", limited("log", table="log", low=-25, mode=", mode: append"))
    replayed = call("quarantine", "replay", "--json", *options)
    assert replayed.code == 0, replayed.err
    units = {(unit["step"], unit["key"][-2:]): (unit["way"], unit["released"], unit["left"]) for unit in replayed.json["units"]}
    assert units == {
        ("first.publish", "01"): ("window", 1, 0),
        ("first.publish", "02"): ("window", 0, 1),
        ("log.publish", "01"): ("rows", 1, 0),
        ("log.publish", "02"): ("rows", 0, 1),
    }
    assert rows(aside, "totals") == rows(aside, "log") == [(1, 10), (2, -20), (4, 40)]

    assert call("quarantine", "discard", "log", *options).code == 2  # without a reason
    assert "log.publish 2024-01-02: 1 row discarded\n" in call("quarantine", "discard", "log", "--why", "a test", *options).out
    left = call("quarantine", "list", "log", *options).out
    assert "log.publish 2024-01-02: 1 discarded by" in left
    assert ": a test\n" in left
    document = call("quarantine", "list", "log", "--json", *options).json
    assert (document["ok"], document["rows"], document["units"][0]["discarded"][0]["rows"]) == (True, 0, 1)
    assert "Nothing is set aside." in call("quarantine", "replay", "log", *options).out


def test_a_budget_that_is_used_up_fails_the_run_and_says_what_to_do(aside: ProjectFolder, call: Call) -> None:
    (aside.root / "pipelines" / "log.yml").unlink()
    aside.pipeline("first", limited("first", table="totals").replace("100%", "10%"))
    ran = call("run", "--project", aside.root)
    assert ran.code == 1
    assert "1 of 2 rows (50 %) would be quarantined, beyond the budget of max_share 10 %: value_range (1)" in ran.out
    assert "--window 2024-01-01" in ran.out


def test_a_source_that_has_lost_rows_is_not_replayed(aside: ProjectFolder, call: Call) -> None:
    options = ("--project", aside.root)
    call("run", "--select", "first", *options)
    aside.pipeline("first", limited("first", table="totals", low=-50))
    aside.rows(lines=[LINES[0], *LINES[3:]])
    answer = call("quarantine", "replay", "first", *options)
    assert answer.code == 1
    assert "the sources hold 0 rows, and held 2 when it was published" in answer.out
    assert rows(aside, "totals") == [(1, 10), (4, 40)]
