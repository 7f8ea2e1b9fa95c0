"""What the user may write in a contract: the columns, types, nullability, rules and owner that a dataset promises.

Here: the pydantic model of a contract document, and the rules that it stands for. Not here: what a type's word means
(`spec.column_types`), reading files (`spec.contract_files`), the language of a rule (`checks`, asked in `plan`), which step it is
about (`plan.contracts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from dataflow_assets.spec.base import Model
from dataflow_assets.spec.column_types import ColumnType, parse_type
from dataflow_assets.spec.project import Path_, Places

CONTRACT_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


class ContractColumn(Model):
    """One column. Every other key is a rule about it, as in an item of `checks:`: `unique`, `min_value`, `regex` and so on."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, validate_default=True)

    type: str = Field(
        "any",
        validation_alias=AliasChoices("type", "dtype"),
        description="bigint, int, double, decimal(18,2), text, varchar(50), boolean, date, timestamp ...; default: any type",
    )
    nullable: bool = Field(True, description="whether it may hold nulls")
    description: str = Field("", description="shown in the UI")
    rules: list[dict[str, Any]] = Field(default_factory=list, description="rules that need a name or severity of their own")

    @model_validator(mode="before")
    @classmethod
    def _not_null_is_nullable(cls, data: Any) -> Any:
        """A bare type is a column of that type, nothing at all one of any type; `not_null: true` is `nullable: false`."""
        if data is None or isinstance(data, str):
            return {"type": data} if data else {}
        if not isinstance(data, dict) or not isinstance(data.get("not_null"), bool):
            return data
        rest = {key: value for key, value in data.items() if key != "not_null"}
        return {**rest, "nullable": False} if data["not_null"] else rest

    @field_validator("type")
    @classmethod
    def _type_is_known(cls, value: str) -> str:
        parse_type(value)
        return value

    @property
    def kind(self) -> ColumnType:
        """What `type` means."""
        return parse_type(self.type)

    @property
    def own_rules(self) -> Mapping[str, Any]:
        """The keys that are rules."""
        return self.model_extra or {}


def _by_name(value: Any) -> Any:
    """Columns as older schemas list them, `[{name: id, dtype: int}]`, by their names."""
    if not isinstance(value, list):
        return value
    columns: dict[str, Any] = {}
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise ValueError("an item of the list `columns` needs a `name`; or write columns: {id: bigint, note: text}")
        if item["name"] in columns:
            raise ValueError(f"column {item['name']!r} is listed twice")
        columns[item["name"]] = {key: text for key, text in item.items() if key != "name"}
    return columns


Columns = Annotated[
    dict[str, ContractColumn],
    BeforeValidator(_by_name, json_schema_input_type=dict[str, ContractColumn | str | None] | list[dict[str, Any]]),
]


class ContractTerms(Model):
    """What is promised of a dataset, whoever publishes it."""

    mode: Literal["strict", "lenient"] = Field("lenient", description="strict: columns beyond the contract are refused; lenient: allowed")
    enforce: Literal["error", "warn"] = Field("error", description="warn: what breaks the contract is reported, and published")
    columns: Columns = Field(min_length=1, description="column -> its type, or a block; or a list of blocks, each with its name")
    rules: list[dict[str, Any]] = Field(default_factory=list, description="rules about several columns or the number of rows")

    @model_validator(mode="after")
    def _rules_stay_with_the_dataset(self) -> Self:
        for item, _ in rule_items(self):
            if "to" in item:
                about = item.get("column") or item.get("columns") or "the rows"
                raise ValueError(f"the rule about {about} looks at another dataset (`to`): write it in `checks:` of the step")
        return self


class ContractModel(ContractTerms):
    """One contract document."""

    noun: ClassVar[str] = "a contract"

    contract: str = Field("", validation_alias=AliasChoices("contract", "name"), description="its name; default: the file's stem")
    version: int = Field(1, ge=1, description="raised when a promise becomes smaller: whoever reads the dataset can tell")
    dataset: str | None = Field(
        None, description="pipeline/step that makes the dataset, or a pipeline that has one endpoint; either this or table"
    )
    table: str | None = Field(
        None, description="connection.schema.table, or the path of a file, of a dataset that no pipeline of the project publishes"
    )
    owner: str | None = Field(None, description="an e-mail address, or team:name")
    description: str = Field("", description="shown in the UI")

    @field_validator("contract")
    @classmethod
    def _name_is_a_name(cls, value: str) -> str:
        if value and not CONTRACT_NAME.match(value):
            raise ValueError(f"{value!r} is not the name of a contract: use letters, digits, _, - and .")
        return value

    @model_validator(mode="after")
    def _one_dataset(self) -> Self:
        if (self.dataset is None) == (self.table is None):
            raise ValueError("a contract is about one dataset: write either `dataset: pipeline/step` or `table: connection.schema.table`")
        return self


@dataclass(frozen=True)
class LoadedContract:
    """One contract document with its places. A contract built in Python has the place of the call."""

    model: ContractModel
    places: Places

    @property
    def name(self) -> str:
        """The contract's name."""
        return self.model.contract


def rule_items(terms: ContractTerms) -> Iterator[tuple[dict[str, Any], Path_]]:
    """Each rule as an item of a validator's `checks:`, with the path at which it is written in the contract."""
    for name, column in terms.columns.items():
        path: Path_ = ("columns", name)
        if not column.nullable:
            yield {"column": name, "not_null": True}, path
        if column.own_rules:
            yield {"column": name, **column.own_rules}, path
        if column.kind.family == "text" and column.kind.width is not None and "max_length" not in column.own_rules:
            yield {"column": name, "max_length": column.kind.width}, path
        for number, rule in enumerate(column.rules):
            yield {**({} if "columns" in rule else {"column": name}), **rule}, (*path, "rules", number)
    for number, rule in enumerate(terms.rules):
        yield dict(rule), ("rules", number)
