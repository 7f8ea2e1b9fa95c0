"""`dataflow quarantine`: the rows that checks have set aside: which there are, what is wrong with them, and publishing them after all.

Here: `list` and `show`. Not here: which units a command is about (`cli.held`), `replay` (`cli.replay`), reading (`execution.held`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.discard import discard
from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.held import Asked, shown_key, unit_data, unit_options
from dataflow_assets.cli.replay import replay
from dataflow_assets.cli.terminal import Session, plural, table
from dataflow_assets.cli.verb import VerbCommand, VerbGroup
from dataflow_assets.secrets import mask

if TYPE_CHECKING:
    from dataflow_assets.execution.held import HeldUnit
    from dataflow_assets.execution.session import Session as RunSession
    from dataflow_assets.plan.model import StepPlan

_HEADER = ("STEP", "WINDOW", "ROWS", "RULES", "SINCE", "WHERE")


@click.group("quarantine", cls=VerbGroup)
def command() -> None:
    """List, show, replay or discard the rows that checks with `on_failure: quarantine` have set aside."""


command.add_command(replay)
command.add_command(discard)


@command.command("list", cls=VerbCommand)
@unit_options
@click.pass_obj
def list_units(session: Session, /, **given: Any) -> int:
    """List what is set aside: endpoint, window, rows, the rules they broke and how often, since when, and where the rows are.

    One row may break several rules. Exits with 1 when a target cannot be asked.
    """
    asked = Asked.of(session, given)
    units = [unit for _, _, unit in asked.units(empty=True)]
    lines = [_line(unit) for unit in units if unit.rows]
    for line in table(lines, header=_HEADER if lines else ()):
        session.say(line)
    for unit in units:
        for note in unit.discarded:
            what = f"{note['rows']:,} discarded by {note['by']} on {note['at'][:10]}: {note['why']}"
            session.say(mask(f"{unit.pipeline}.{unit.step} {shown_key(unit)}: {what}"))
        if unit.unfinished and unit.rows:
            session.say(click.style(f"{unit.pipeline}.{unit.step} {shown_key(unit)}: not finished, ", fg="yellow") + "run the window again")
    total = sum(unit.rows for unit in units)
    session.say(f"{plural(total, 'row')} set aside." if total else "Nothing is set aside.")
    if total:
        name = next(f"{unit.pipeline}.{unit.step}" for unit in units if unit.rows)
        session.say(f"Next: dataflow quarantine show {name}   or, after a fix: dataflow quarantine replay {name}")
    return asked.close({"rows": total, "units": [unit_data(unit) for unit in units]})


def _line(unit: HeldUnit) -> tuple[str, ...]:
    rules = ", ".join(f"{rule} {count:,}" for rule, count in sorted(unit.rules.items()))
    since = f"{unit.entry.published_at:%Y-%m-%d %H:%M:%S}"
    return (f"{unit.pipeline}.{unit.step}", shown_key(unit), f"{unit.rows:,}", rules, since, str(unit.aside.table))


@command.command("show", cls=VerbCommand)
@unit_options
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many rows.")
@click.pass_obj
def show(session: Session, /, limit: int, **given: Any) -> int:
    """Show rows that are set aside: the rules each one broke, the value that did, and the whole row.

    With --json every row is there as it was, in the encoding that docs/quarantine.md describes.
    """
    asked = Asked.of(session, given)
    rows: list[dict[str, Any]] = []
    total = 0
    for opened, step, unit in asked.units():
        total += unit.rows
        rows += _rows(opened, step, unit, rule=given["rule"], limit=limit - len(rows))
    for row in rows:
        session.say(click.style(f"{row['step']} {row['window_key']}: {row['rules']}", fg="yellow"))
        where = f"{row['column_name']} = {row['value']!r}   " if row["column_name"] else ""
        session.say(f"  {where}{row['reason']}")
        session.say(f"  {json.dumps(row['row'], ensure_ascii=False)}")
    session.say(f"{plural(len(rows), 'row')} shown of {plural(total, 'row')} in {'these windows' if rows else 'quarantine'}.")
    if given["rule"] and not rows and not asked.errors:
        raise UsageFailed(f"no row is set aside by a rule {given['rule']!r}", hint="`dataflow quarantine list` names the rules")
    return asked.close({"rows": rows})


def _rows(opened: RunSession, step: StepPlan, unit: HeldUnit, *, rule: str | None, limit: int) -> list[dict[str, Any]]:
    from dataflow_assets.execution.held import breaking, held_rows

    found: list[dict[str, Any]] = []
    if limit > 0:
        with held_rows(opened, step, unit.aside, unit.key, unit.start) as reader:
            for batch in reader:
                for row in batch.filter(breaking(batch, rule)).slice(0, limit - len(found)).to_pylist():
                    text = row.pop("row_json")
                    row.pop("row_schema")
                    found.append({**row, "step": f"{unit.pipeline}.{row['step']}", "endpoint": unit.step, "row": json.loads(text)})
                if len(found) >= limit:
                    break
    return found
