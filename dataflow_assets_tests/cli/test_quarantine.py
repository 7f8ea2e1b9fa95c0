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
    text = text.replace("depends_on: [read]", "depends_on: [read]\n    quarantine: {max_share: 60%}").replace(
        f"{{table: {table}}}", f"{{table: {table}{mode}}}"
    )
    return text.replace("event_time_column: at\n", "").replace("rows.csv}", "rows.csv, event_time_column: at}") if mode else text


@pytest.fixture
def aside(project: ProjectFolder) -> ProjectFolder:
    """`first` replaces its windows, `log` appends them; one row of 1 January is below the limit."""
    for path in (project.root / "pipelines").iterdir():
        path.unlink()
    project.pipeline("first", limited("first", table="totals"))
    project.pipeline("log", limited("log", table="log", mode=", mode: append"))
    project.rows(lines=[LINES[0], LINES[1], LINES[2].replace("Z,20", "Z,-20"), *LINES[3:]])
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
    assert rows(aside, "totals") == rows(aside, "log") == [(1, 10), (3, 30), (4, 40)]

    status = call("status", *options)
    assert "first: 1 row in quarantine: dataflow quarantine list first" in status.out
    listed = call("quarantine", "list", *options)
    assert [line.split()[:6] for line in listed.out.splitlines()[1:3]] == [
        ["first.publish", "2024-01-01", "1", "value_range", "1", listed.out.splitlines()[1].split()[5]],
        ["log.publish", "2024-01-01", "1", "value_range", "1", listed.out.splitlines()[2].split()[5]],
    ]
    assert "2 rows set aside." in listed.out
    shown = call("quarantine", "show", "first", "--rule", "value_range", "--json", *options).json
    (row,) = shown["rows"]
    assert (row["rules"], row["column_name"], row["value"], row["row"]["id"]) == ("value_range", "value", "-20", 2)
    told = call("quarantine", "show", "log", *options).out
    assert "value = '-20'   value: range at least 0" in told
    assert '"value": -20' in told
    assert call("quarantine", "show", "--rule", "no_such", *options).code == 2
    assert "Nothing is set aside." in call("quarantine", "list", "--window", "2024-01-02", *options).out

    kept = call("quarantine", "replay", *options)
    assert "0 rows left the quarantine, 2 rows stay." in kept.out
    aside.pipeline("first", limited("first", table="totals", low=-50))
    aside.pipeline("log", limited("log", table="log", low=-50, mode=", mode: append"))
    replayed = call("quarantine", "replay", "--json", *options)
    assert replayed.code == 0, replayed.err
    units = {unit["step"]: (unit["way"], unit["released"], unit["left"]) for unit in replayed.json["units"]}
    assert units == {"first.publish": ("window", 1, 0), "log.publish": ("rows", 1, 0)}
    assert rows(aside, "totals") == rows(aside, "log") == [(1, 10), (2, -20), (3, 30), (4, 40)]
    assert call("quarantine", "list", "--json", *options).json == {"ok": True, "rows": 0, "units": [], "errors": []}
    assert "Nothing is set aside." in call("quarantine", "replay", *options).out


def test_a_budget_that_is_used_up_fails_the_run_and_says_what_to_do(aside: ProjectFolder, call: Call) -> None:
    (aside.root / "pipelines" / "log.yml").unlink()
    aside.pipeline("first", limited("first", table="totals").replace("60%", "10%"))
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
    assert rows(aside, "totals") == [(1, 10), (3, 30), (4, 40)]
