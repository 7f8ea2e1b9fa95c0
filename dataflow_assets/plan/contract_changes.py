"""What differs between two versions of a contract, and which differences break somebody.

Here: the table of changes and verdicts in docs/contracts.md, as code. Not here: who is broken (`plan.contract_flow`), when that is
refused (`plan.contract_review`).

A promise that becomes smaller breaks those who rely on it, and needs a higher version; one that becomes larger asks more of the
pipeline that makes the dataset, which its own check holds it to.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dataflow_assets.spec.column_types import ColumnType, holds, is_narrower, is_wider, satisfies, spoken_type
from dataflow_assets.spec.contracts import ContractColumn, ContractModel, ContractTerms, rule_items
from dataflow_assets.spec.project import Path_
from dataflow_assets.tables import ColumnVersion

Topic = Literal["added", "removed", "type", "nullable", "rule", "mode", "enforce", "dataset", "said"]


class Verdict(enum.StrEnum):
    """What a change means. `breaking` for those who read, `stricter` for those who write, `compatible` for both."""

    BREAKING = "breaking"
    STRICTER = "stricter"
    COMPATIBLE = "compatible"


@dataclass(frozen=True)
class Change:
    """One difference. `column` is empty for one about the dataset; `path` is where the newer contract says it."""

    topic: Topic
    verdict: Verdict
    sentence: str
    column: str = ""
    before: Any = None
    after: Any = None
    path: Path_ = ()


def changes(old: ContractModel, new: ContractModel) -> list[Change]:
    """Every difference from `old` to `new`, breaking ones first."""
    found = [*_columns(old, new), *_rules(old, new), *_terms(old, new), *_said(old, new)]
    order = list(Verdict)
    return sorted(found, key=lambda change: order.index(change.verdict))


def breaking(found: Sequence[Change]) -> list[Change]:
    """Those that need a higher version."""
    return [change for change in found if change.verdict is Verdict.BREAKING]


def _columns(old: ContractTerms, new: ContractTerms) -> Iterator[Change]:
    for name, column in old.columns.items():
        if name not in new.columns:
            near = _renamed(name, column, old, new)
            yield Change(
                "removed", Verdict.BREAKING, f"column {name!r} ({column.kind}) is removed{near}", name, str(column.kind), None, ("columns",)
            )
    for name, column in new.columns.items():
        path: Path_ = ("columns", name)
        if name not in old.columns:
            yield Change("added", Verdict.STRICTER, f"column {name!r} ({column.kind}) is added", name, None, str(column.kind), path)
            continue
        before = old.columns[name]
        if before.kind != column.kind:
            verdict, how = type_verdict(before.kind, column.kind)
            sentence = f"column {name!r} is {how} from {before.kind} to {column.kind}"
            yield Change("type", verdict, sentence, name, str(before.kind), str(column.kind), (*path, "type"))
        if before.nullable != column.nullable:
            verdict = Verdict.BREAKING if column.nullable else Verdict.STRICTER
            sentence = f"column {name!r} may {'now' if column.nullable else 'no longer'} hold nulls"
            yield Change("nullable", verdict, sentence, name, before.nullable, column.nullable, (*path, "nullable"))


def _renamed(name: str, column: ContractColumn, old: ContractTerms, new: ContractTerms) -> str:
    """A column that went while exactly one of its type came may be the same under another name."""
    came = [other for other, item in new.columns.items() if other not in old.columns and item.kind == column.kind]
    return f" (renamed to {came[0]!r}? to those who read it that is the same)" if len(came) == 1 and column.kind.family != "any" else ""


def type_verdict(old: ColumnType, new: ColumnType) -> tuple[Verdict, str]:
    """A wider type breaks only those who are known not to take it; a narrower one breaks the rows that are published already."""
    if is_wider(new, old):
        return (Verdict.BREAKING, "no longer promised") if new.family == "any" else (Verdict.COMPATIBLE, "widened")
    return Verdict.BREAKING, "narrowed" if is_narrower(new, old) and old.family != "any" else "changed"


def _terms(old: ContractModel, new: ContractModel) -> Iterator[Change]:
    if old.mode != new.mode:
        loosened = new.mode == "lenient"
        sentence = "columns beyond the contract are " + ("now allowed (lenient)" if loosened else "now refused (strict)")
        yield Change("mode", Verdict.BREAKING if loosened else Verdict.STRICTER, sentence, "", old.mode, new.mode, ("mode",))
    if old.enforce != new.enforce:
        loosened = new.enforce == "warn"
        sentence = f"what breaks the contract is {'only reported' if loosened else 'not published'} from now on"
        yield Change("enforce", Verdict.BREAKING if loosened else Verdict.STRICTER, sentence, "", old.enforce, new.enforce, ("enforce",))
    before, after = old.dataset or old.table, new.dataset or new.table
    if before != after:
        path: Path_ = ("dataset",) if new.dataset else ("table",)
        yield Change("dataset", Verdict.BREAKING, f"the contract is about {after} in place of {before}", "", before, after, path)


def _said(old: ContractModel, new: ContractModel) -> Iterator[Change]:
    for key in ("owner", "description"):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            yield Change("said", Verdict.COMPATIBLE, f"{key} is {after!r}, was {before!r}", "", before, after, (key,))
    for name, column in new.columns.items():
        if name in old.columns and old.columns[name].description != column.description:
            sentence = f"column {name!r} is described anew"
            path: Path_ = ("columns", name, "description")
            yield Change("said", Verdict.COMPATIBLE, sentence, name, old.columns[name].description, column.description, path)


_RuleKey = tuple[str, str]
"""Columns and key of a rule."""
_MARKS = frozenset({"column", "columns", "check", "name", "description", "not_null"})
_MODIFIERS = frozenset(
    {"severity", "blocking", "on_failure", "where", "max_failed", "warn_above", "group_by", "kwargs", "whole", "relative_to"}
)
"""Keys that change what the rules of an item mean, and are no rule by themselves."""
_DEFAULTS = {"severity": "error", "blocking": True}
_ALIASES = {
    **dict.fromkeys(("accepted_values", "values"), "allowed_values"),
    "pattern": "regex",
    "not_pattern": "not_regex",
    "forbidden_values": "rejected_values",
}
_LOWER, _UPPER = ("min_", "above"), ("max_", "below")


@dataclass(frozen=True)
class _Said:
    """What one rule says: its value, and the modifiers of its item."""

    value: Any
    modifiers: Mapping[str, Any]
    path: Path_


def _rules(old: ContractTerms, new: ContractTerms) -> Iterator[Change]:
    """Rules by what they say of which columns; their names and descriptions do not count."""
    before, after = _rule_values(old), _rule_values(new)
    gone = set(old.columns) - set(new.columns)
    for (columns, key), said in after.items():
        was = before.get((columns, key))
        if was is None:
            yield _rule(Verdict.STRICTER, "added", columns, key, None, said.value, said.path)
        elif was.value != said.value:
            verdict, how = _tighter(key, was.value, said.value)
            yield _rule(verdict, how, columns, key, was.value, said.value, said.path)
        elif was.modifiers != said.modifiers:
            verdict, how = _modified(was.modifiers, said.modifiers)
            changed = ", ".join(sorted({*was.modifiers, *said.modifiers} - _same(was.modifiers, said.modifiers)))
            yield _rule(verdict, f"{how} by {changed}", columns, key, True, None, said.path)
    for (columns, key), said in before.items():
        if (columns, key) not in after and not set(columns.split(", ")) & gone:
            where: Path_ = ("columns", columns) if columns in new.columns else ("rules",)
            yield _rule(Verdict.BREAKING, "removed", columns, key, said.value, None, where)


def _rule_values(terms: ContractTerms) -> dict[_RuleKey, _Said]:
    found: dict[_RuleKey, _Said] = {}
    for item, path in rule_items(terms):
        if _said_by_type(item, path, terms):
            continue
        several = item.get("columns") or item.get("column") or ()
        columns = ", ".join([several] if isinstance(several, str) else several)
        said = {_ALIASES.get(key, key): value for key, value in item.items() if key not in _MARKS | _MODIFIERS}
        modifiers = {key: value for key, value in item.items() if key in _MODIFIERS and value != _DEFAULTS.get(key)}
        if item.get("check") and not said:
            said[str(item["check"])] = True
        if item.get("not_null"):
            said["not_null"] = True
        for key, value in said.items():
            found[columns, key] = _Said(_plain(value), _plain(modifiers), path)
    return found


def _plain(value: Any) -> Any:
    """A value as the accepted version keeps it: dates and times are text there."""
    return json.loads(json.dumps(value, default=str))


def _same(was: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    return {key for key in was if key in now and was[key] == now[key]}


def _modified(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Every modifier makes a rule milder: fewer rows, some allowed failures, a warning only. One that goes makes it stricter."""
    smaller = set(now.items()) < set(was.items()) if _hashable(was) and _hashable(now) else False
    return (Verdict.STRICTER, "tightened") if smaller else (Verdict.BREAKING, "loosened or changed")


def _hashable(values: Mapping[str, Any]) -> bool:
    return not any(isinstance(value, list | dict) for value in values.values())


def _said_by_type(item: Mapping[str, Any], path: Path_, terms: ContractTerms) -> bool:
    """`varchar(50)` is a rule of length too, and `nullable: false` one of nulls; as changes they are said once."""
    if len(path) != 2 or path[0] != "columns":
        return False
    own = terms.columns[str(path[1])].own_rules
    return len(item) == 2 and ("not_null" in item or ("max_length" in item and "max_length" not in own))


def _tighter(key: str, was: Any, value: Any) -> tuple[Verdict, str]:
    """Whether a rule asks more or less than before; one that cannot be told is taken for less."""
    smaller: bool | None = None
    if key in {"allowed_values", "rejected_values"} and isinstance(was, list) and isinstance(value, list):
        now, then = ({json.dumps(item, default=str) for item in items} for items in (value, was))
        smaller = now < then if key == "allowed_values" else now > then
    elif _ordered(was, value) and key.startswith((*_LOWER, *_UPPER)):
        smaller = value > was if key.startswith(_LOWER) else value < was
    if smaller is None:
        return Verdict.BREAKING, "changed"
    return (Verdict.STRICTER, "tightened") if smaller else (Verdict.BREAKING, "loosened")


def _ordered(one: Any, two: Any) -> bool:
    """Numbers, or two dates in the form whose order is that of their text; text such as `2h` or `0.5%` has an order of its own."""
    if isinstance(one, str) and isinstance(two, str):
        return len(one) == len(two) and all(re.fullmatch(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?", text) for text in (one, two))
    return all(isinstance(item, int | float) and not isinstance(item, bool) for item in (one, two))


def _rule(verdict: Verdict, how: str, columns: str, key: str, before: Any, after: Any, path: Path_) -> Change:
    values = {"added": f" ({after!r})", "removed": f" ({before!r})"}.get(how, f" from {before!r} to {after!r}")
    values = "" if True in (before, after) and None in (before, after) else values
    sentence = f"rule {key}{f' of {columns}' if columns else ''} is {how}{values}"
    return Change("rule", verdict, sentence, columns if ", " not in columns else "", before, after, path)


def published_changes(contract: ContractModel, published: Sequence[ColumnVersion]) -> list[Change]:
    """How the columns of a published table differ from what its contract promises, by the words of its system."""
    found: list[Change] = []
    there = {column.name.casefold(): column for column in published}
    for name, column in contract.columns.items():
        held = there.pop(name.casefold(), None)
        if held is None:
            found.append(Change("removed", Verdict.BREAKING, f"column {name!r} is promised, and not in the table", name, str(column.kind)))
            continue
        actual = spoken_type(held.type)
        if not satisfies(actual, column.kind):
            roomy = holds(actual, column.kind)  # the system may have no narrower one, and the check holds the rows to the contract
            sentence = f"column {name!r} is {held.type} in the table, {'wider than the promised' if roomy else 'promised is'} {column.kind}"
            verdict = Verdict.COMPATIBLE if roomy else Verdict.BREAKING
            found.append(Change("type", verdict, sentence, name, str(column.kind), held.type))
        if held.nullable and not column.nullable:
            sentence = f"column {name!r} may hold nulls by its table; the contract's check refuses them"
            found.append(Change("nullable", Verdict.COMPATIBLE, sentence, name, False, True))
    for held in there.values():
        verdict = Verdict.BREAKING if contract.mode == "strict" else Verdict.COMPATIBLE
        found.append(Change("added", verdict, f"column {held.name!r} ({held.type}) is not in the contract", held.name, None, held.type))
    return sorted(found, key=lambda change: list(Verdict).index(change.verdict))


def as_document(found: Sequence[Change], *, version_from: Any, version_to: Any) -> Mapping[str, Any]:
    """The comparison with the keys of the older systems: added, removed, type_changes, nullable_changes, version_from, version_to."""

    def pairs(topic: str) -> dict[str, dict[str, Any]]:
        return {
            change.column: {"from": change.before, "to": change.after, "verdict": change.verdict.value}
            for change in found
            if change.topic == topic
        }

    return {
        "version_from": version_from,
        "version_to": version_to,
        "added": [change.column for change in found if change.topic == "added"],
        "removed": [change.column for change in found if change.topic == "removed"],
        "type_changes": pairs("type"),
        "nullable_changes": pairs("nullable"),
        "other_changes": [
            {"topic": change.topic, "column": change.column, "change": change.sentence, "verdict": change.verdict.value}
            for change in found
            if change.topic in {"rule", "mode", "enforce", "dataset", "said"}
        ],
        "breaking": [change.sentence for change in breaking(found)],
    }
