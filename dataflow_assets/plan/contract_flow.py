"""Where the columns of contracts go: through which steps, into which tables, and from there on.

Here: one walk over all pipelines, upstream ones first, as far as SQL and options tell; what cannot be told is a use that may be. Not
here: one query (`plan.column_uses`), what is wrong with a use (`plan.contract_review`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataflow_assets.errors import Place
from dataflow_assets.plan.column_uses import Mention, Reading, read_query
from dataflow_assets.plan.contracts import Bound
from dataflow_assets.plan.findings import step_path
from dataflow_assets.plan.graph import topological
from dataflow_assets.plan.lineage import TableRef, mentions, table_ref, tables_in
from dataflow_assets.plan.pipelines import PipelineDraft
from dataflow_assets.plan.places import place_of_word
from dataflow_assets.plan.steps import Draft
from dataflow_assets.spec.column_types import ColumnType, spoken_type
from dataflow_assets.spec.project import Path_
from dataflow_assets.tables import TableName

Origin = tuple[str, str]
"""A column of a contract: the contract's name and the column's."""
_FIRST_INPUT = "input"


@dataclass(frozen=True)
class Flow:
    """What is known of the columns of a step's output or of a table."""

    columns: Mapping[str, frozenset[Origin]] = field(default_factory=dict)
    """Column -> the columns of contracts that it is made of."""
    complete: bool = False
    """Whether these are all its columns."""
    plain: Mapping[str, Origin] = field(default_factory=dict)
    """Those that are a column of a contract, unchanged."""
    casts: Mapping[str, ColumnType] = field(default_factory=dict)
    """Those whose type is said on the way."""
    hidden: frozenset[Origin] = frozenset()
    """Columns of contracts that may be in it under any name."""

    @property
    def origins(self) -> frozenset[Origin]:
        """Every column of a contract that is or may be in it."""
        return self.hidden.union(*self.columns.values())

    def only(self, names: Iterable[str]) -> Flow:
        """The same with these columns only."""
        kept = list(names)
        folded = {name.casefold(): name for name in self.columns}
        spelled = {name: folded.get(name.casefold(), name) for name in kept}
        return Flow(
            {name: self.columns.get(spelled[name], frozenset()) for name in kept},
            True,
            {name: self.plain[spelled[name]] for name in kept if spelled[name] in self.plain},
            {name: self.casts[spelled[name]] for name in kept if spelled[name] in self.casts},
            self.hidden,
        )


@dataclass(frozen=True)
class Use:
    """A step that uses a column of a contract. `sure` is False where it only may."""

    contract: str
    column: str
    pipeline: str
    step: str
    place: Place
    how: str
    sure: bool = True

    def __str__(self) -> str:
        return f"{self.pipeline}.{self.step} ({self.place}) {self.how}"


@dataclass(frozen=True)
class Stranger:
    """A step that names a column which the contract of the dataset does not have."""

    contract: str
    column: str
    pipeline: str
    step: str
    path: Path_
    place: Place


@dataclass(frozen=True)
class Declared:
    """An endpoint that says the type of a column which comes unchanged from a contract."""

    origin: Origin
    type: ColumnType
    pipeline: str
    step: str
    place: Place


@dataclass
class Flows:
    """The outcome of the walk."""

    uses: list[Use] = field(default_factory=list)
    strangers: list[Stranger] = field(default_factory=list)
    declared: list[Declared] = field(default_factory=list)
    made: dict[tuple[str, str], Flow] = field(default_factory=dict)
    """What each step that makes a contract's dataset is known to make, before its contract is looked at."""

    def uses_of(self, contract: str, column: str) -> list[Use]:
        """The uses of one column, the surest of each step; sure ones first, upstream ones before those that they feed."""
        found: dict[tuple[str, str], Use] = {}
        for use in self.uses:
            if (use.contract, use.column) == (contract, column):
                known = found.get((use.pipeline, use.step))
                if known is None or (not use.sure, use.how != "names it") < (not known.sure, known.how != "names it"):
                    found[use.pipeline, use.step] = use
        return sorted(found.values(), key=lambda use: not use.sure)


def follow(
    root: Path,
    drafts: Sequence[PipelineDraft],
    upstream: Mapping[str, Sequence[str]],
    bound: Sequence[Bound],
    promised: Mapping[str, Sequence[str]],
) -> Flows:
    """Walk all pipelines. `promised` are the columns of each contract, those of its accepted version included."""
    walk = _Walk(root, bound, promised)
    by_name = {draft.name: draft for draft in drafts}
    order = topological({name: [item for item in upstream.get(name, ()) if item in by_name] for name in by_name})
    for name in order:
        walk.pipeline(by_name[name])
    return walk.found


class _Walk:
    def __init__(self, root: Path, bound: Sequence[Bound], promised: Mapping[str, Sequence[str]]) -> None:
        self.root, self.promised = root, promised
        self.found = Flows()
        self.bound = {item.name: item for item in bound}
        self.of_step = {maker: item for item in bound for maker in item.makers}
        self.tables: list[tuple[TableRef, Flow, str]] = []
        """Tables with columns that come from contracts; and the contract of the table itself, empty when it has none."""
        for item in bound:
            if item.table is not None and not item.makers:
                self.tables.append((item.table, self._of_contract(item, Flow()), item.name))

    def _of_contract(self, item: Bound, made: Flow) -> Flow:
        """A dataset as its contract has it, with what is known of where its columns come from."""
        columns = {name: frozenset({(item.name, name)}) | made.columns.get(name, frozenset()) for name in self.promised[item.name]}
        more = (
            {} if item.contract.model.mode == "strict" else {name: origins for name, origins in made.columns.items() if name not in columns}
        )
        complete = item.contract.model.mode == "strict" or made.complete
        return Flow({**columns, **more}, complete, {name: (item.name, name) for name in columns}, {}, made.hidden)

    def pipeline(self, draft: PipelineDraft) -> None:
        """One pipeline, its steps in the order they run."""
        guarded = any(pipeline == draft.name for pipeline, _ in self.of_step)
        flows: dict[str, Flow] = {}
        for name, step in draft.steps.items():
            if step.options is None:
                flows[name] = Flow()
                continue
            made = _Step(self, draft, step, guarded).flow(flows)
            if item := self.of_step.get((draft.name, name)):
                self.found.made[draft.name, name] = made
                made = self._of_contract(item, made)
            flows[name] = made
            if (table := draft.writes.get(name)) is not None and made.origins:
                self.tables.append((table, made, item.name if item else ""))

    def flow_of(self, table: TableRef) -> tuple[Flow, str]:
        """What is known of a table that a step reads, and its contract; several writers of one table are laid over each other."""
        flows = [(flow, contract) for target, flow, contract in self.tables if table.is_read_from(target)]
        if not flows:
            return Flow(), ""
        flow, contract = flows[0]
        for other, name in flows[1:]:
            columns = {
                key: flow.columns.get(key, frozenset()) | other.columns.get(key, frozenset()) for key in {**flow.columns, **other.columns}
            }
            flow = replace(flow, columns=columns, complete=flow.complete and other.complete, hidden=flow.hidden | other.hidden)
            contract = contract or name
        return flow, contract


class _Step:
    """One step of the walk."""

    def __init__(self, walk: _Walk, draft: PipelineDraft, step: Draft, guarded: bool) -> None:
        self.walk, self.draft, self.step, self.guarded = walk, draft, step, guarded

    def flow(self, flows: Mapping[str, Flow]) -> Flow:
        """What the step makes of what it is given; its uses are noted on the way."""
        role = self.step.plugin.role
        given = [flows.get(name, Flow()) for name in self.step.model.depends_on]
        if role == "source":
            made = self._source()
        elif role == "transform":
            made = self._transform(given)
        else:
            made = given[0] if given else Flow()
            self._options(made)
        self._rules(made, "checks", self.step.model.checks)
        return made

    def _source(self) -> Flow:
        read = self.draft.reads.get(self.step.id)
        columns = list(getattr(self.step.options, "columns", None) or ())
        if read is not None and read.sql is not None:
            made = self._sql(read.sql, read.dialect, ("config", "query"), self._tables(read.sql, read.dialect))
            return made.only(columns) if columns else made
        flow, contract = self.walk.flow_of(read.table) if read is not None and read.table is not None else (Flow(), "")
        if columns:
            for name in columns:
                self._named(flow, name, ("config", "columns"), contract)
            return flow.only(columns)
        self._use(flow.origins - flow.hidden, ("config",), "takes every column")
        self._use(flow.hidden, ("config",), "may use it", sure=False)
        return flow

    def _tables(self, sql: str, dialect: str | None) -> dict[str, tuple[Flow, str]]:
        """Each table of the query of which something is known, as the SQL names it."""
        link = self.step.link
        if link is None or not any(mentions(sql, table) for table, *_ in self.walk.tables):
            return {}
        found = {}
        for schema, name in tables_in(sql, dialect):
            flow, contract = self.walk.flow_of(table_ref(self.step, link, TableName(name, schema), self.walk.root))
            if flow.columns or flow.hidden:
                found[f"{schema}.{name}" if schema else name] = (flow, contract)
        return found

    def _transform(self, given: Sequence[Flow]) -> Flow:
        names = self.step.model.depends_on
        query = getattr(self.step.options, "query", None)
        if self.step.plugin.kind == "sql" and isinstance(query, str):
            inputs = {name: (flow, "") for name, flow in zip(names, given, strict=True)}
            return self._sql(query, "duckdb", ("config", "query"), {**inputs, **({_FIRST_INPUT: (given[0], "")} if given else {})})
        hidden = frozenset[Origin]().union(*(flow.origins for flow in given))
        self._use(hidden, (), f"may use it ({self.step.plugin.kind})", sure=False)
        return Flow(hidden=hidden)

    def _sql(self, sql: str, dialect: str | None, path: Path_, tables: Mapping[str, tuple[Flow, str]]) -> Flow:
        """What a query makes, and its uses; nothing is parsed where nobody would learn anything from it."""
        known = {name: flow for name, (flow, _) in tables.items()}
        if not self.guarded and not any(flow.origins for flow in known.values()):
            return Flow()
        reading = read_query(sql, dialect=dialect, inputs={name: list(flow.columns) for name, flow in known.items() if flow.columns})
        everything = frozenset[Origin]().union(*(flow.origins for flow in known.values()))
        if reading is None:
            named = frozenset(origin for origin in everything if origin[1].casefold() in sql.casefold() or "*" in sql)
            self._use(named, path, "may use it (its SQL cannot be read here)", sure=False)
            return Flow(hidden=everything)
        self._read(reading, known, path)
        self._strangers(reading, tables, path)
        return self._made(reading, known)

    def _read(self, reading: Reading, known: Mapping[str, Flow], path: Path_) -> None:
        for mention in reading.mentions:
            flow = known.get(mention.table)
            if flow is not None:
                starred = not mention.line and mention.table in reading.whole
                how = "may name it" if not mention.sure else "takes every column" if starred else "names it"
                origins = flow.columns.get(mention.column, frozenset())
                self._use(origins, path, how, sure=mention.sure, line=mention.line, word=mention.column)
        for flow in known.values():
            self._use(flow.hidden, path, "may use it", sure=False)

    def _strangers(self, reading: Reading, tables: Mapping[str, tuple[Flow, str]], path: Path_) -> None:
        for mention in reading.strangers:
            _, contract = tables.get(mention.table, (Flow(), ""))
            if contract:
                self._stranger(contract, mention, path)

    def _stranger(self, contract: str, mention: Mention, path: Path_) -> None:
        full = step_path(self.step.index, *path)
        place = place_of_word(self.draft.findings.places, full, mention.column, line=mention.line)
        self.walk.found.strangers.append(Stranger(contract, mention.column, self.draft.name, self.step.id, full, place))

    def _made(self, reading: Reading, known: Mapping[str, Flow]) -> Flow:
        def origins(pairs: Iterable[tuple[str, str]]) -> Iterator[Origin]:
            for table, column in pairs:
                yield from known[table].columns.get(column, ()) if table in known else ()

        columns = {name: frozenset(origins(pairs)) for name, pairs in reading.outputs.items()}
        plain, casts = {}, {name: spoken_type(word) for name, word in reading.casts.items()}
        for name, (table, column) in reading.plain.items():
            if table in known and column in known[table].plain:
                plain[name] = known[table].plain[column]
            if table in known and column in known[table].casts:
                casts[name] = known[table].casts[column]
        hidden = frozenset[Origin]().union(*(flow.hidden for flow in known.values()))
        if reading.unplaced:
            hidden |= frozenset(origins((mention.table, mention.column) for mention in reading.mentions))
        is_open = any(not known[table].complete for table in reading.whole if table in known)
        return Flow(columns, reading.complete and not is_open, plain, casts, hidden)

    def _options(self, flow: Flow) -> None:
        """Columns that the options of an endpoint or a check name."""
        config = self.step.config
        if self.step.plugin.role == "endpoint":
            for key in ("upsert_keys", "event_time_column"):
                for name in _texts(config.get(key)):
                    self._named(flow, name, ("config", key), "")
            for name, written in getattr(self.step.options, "columns", {}).items():
                key = "schema" if "schema" in config else "columns"
                self._named(flow, name, ("config", key, name), "")
                if name in flow.plain and name not in flow.casts:
                    place = self._place(("config", key, name))
                    declared = Declared(flow.plain[name], spoken_type(written), self.draft.name, self.step.id, place)
                    self.walk.found.declared.append(declared)
            for name, origins in flow.columns.items():
                target = self.draft.writes.get(self.step.id) or "its target"
                self._use(origins, (), f"publishes it as {name!r} of {target}")
            self._use(flow.hidden, (), "may publish it", sure=False)
            return
        for name in _texts(config.get("required_columns")):
            self._named(flow, name, ("config", "required_columns"), "")
        rules = config.get("checks")
        self._rules(flow, "config", rules if isinstance(rules, list) else [], "checks")

    def _rules(self, flow: Flow, *where: Any) -> None:
        """Columns that rules name; `where` ends with the rules and their key within."""
        key, rules, *inside = where
        for number, rule in enumerate(rules):
            if isinstance(rule, Mapping):
                for name in (*_texts(rule.get("column")), *_texts(rule.get("columns"))):
                    self._named(flow, name, (key, *inside, number), "")

    def _named(self, flow: Flow, name: str, path: Path_, contract: str) -> None:
        """A column named outside SQL."""
        folded = {column.casefold(): column for column in flow.columns}
        if name.casefold() in folded:
            self._use(flow.columns[folded[name.casefold()]], path, "names it", word=name)
        elif contract:
            self._stranger(contract, Mention("", name), path)

    def _use(self, origins: Iterable[Origin], path: Path_, how: str, *, sure: bool = True, line: int = 0, word: str = "") -> None:
        """Note a use by this step of each column, but not of the contract that the step itself must keep."""
        own = self.walk.of_step.get((self.draft.name, self.step.id))
        for contract, column in sorted(origins):
            if own is None or own.name != contract:
                place = self._place(path, line=line, word=word)
                self.walk.found.uses.append(Use(contract, column, self.draft.name, self.step.id, place, how, sure))

    def _place(self, path: Path_, *, line: int = 0, word: str = "") -> Place:
        full = step_path(self.step.index, *path)
        places = self.draft.findings.places
        return place_of_word(places, full, word, line=line) if word else places.at(full)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
