"""Unit tests for data as users write them: `tests/*.yml`, one document for each test.

Here: the models of a test, reading the files of a project, and the refusals that one document can decide by itself. Not here: what
a test says of a pipeline (`testing.binding`), running it (`testing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from dataflow_assets.errors import Problem, SpecError
from dataflow_assets.spec import yaml
from dataflow_assets.spec.base import Model, Names
from dataflow_assets.spec.problems import validated
from dataflow_assets.spec.project import Places, Project

FORMS = ("rows", "csv", "sql", "parquet")
Property = Literal["run_twice", "split_window", "permute", "late"]
Moment = datetime | date | str


class TableModel(Model):
    """A small table, written down in one of four ways."""

    rows: list[dict[str, Any]] | None = Field(None, description="the rows, each as column: value; a column that a row leaves out is null")
    csv: str | None = Field(None, description="a CSV file, relative to the test's file; or the text itself, in several lines")
    sql: str | None = Field(None, description="one SELECT of DuckDB that makes the rows out of nothing, as in SELECT 1 AS id")
    parquet: str | None = Field(None, description="a Parquet file, relative to the test's file")
    columns: dict[str, str] = Field(
        default_factory=dict, description="column -> int64, decimal(12,2), string, timestamp[UTC] ...; others by their values"
    )

    @property
    def form(self) -> str:
        """Which of the four it is, empty for none."""
        return next((name for name in FORMS if getattr(self, name) is not None), "")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        written = [name for name in FORMS if getattr(self, name) is not None]
        if len(written) != 1 and not isinstance(self, ExpectModel):
            raise ValueError(
                f"rows are written in one way, as {', '.join(FORMS[:-1])} or {FORMS[-1]}; here are {' and '.join(written) or 'none'}"
            )
        if len(written) > 1:
            raise ValueError(f"rows are written in one way; here are {' and '.join(written)}")
        return self


def _list_is_rows(value: Any) -> Any:
    return {"rows": value} if isinstance(value, list) else value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | Mapping | RangeModel) else [value]


def _names_are_columns(value: Any) -> Any:
    return dict.fromkeys(value, "") if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


TableText = Annotated[TableModel, BeforeValidator(_list_is_rows, json_schema_input_type=TableModel | list[dict[str, Any]])]


class ExpectModel(TableModel):
    """What the tested step must give, or how it must fail."""

    columns: Annotated[dict[str, str], BeforeValidator(_names_are_columns, json_schema_input_type=dict[str, str] | list[str])] = Field(
        default_factory=dict, description="compare only these columns: a list, or column -> type, which must then be exactly that"
    )
    ordered: bool = Field(False, description="whether the order of the rows counts; not for a table")
    keys: Names = Field(default_factory=list, description="the columns that identify a row, to tell changed rows; default: upsert_keys")
    approx: float = Field(0.0, ge=0, description="how far numbers may be apart, relative and absolute, such as 1e-9")
    row_count: int | None = Field(None, ge=0, description="how many rows there are, in place of the rows or beside them")
    error: str | None = Field(None, description="a part of the message with which the run must fail")
    failed_checks: list[str] | None = Field(None, description="the checks that must fail, all of them and no others; [] for none")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.form and self.row_count is None and self.error is None and self.failed_checks is None:
            raise ValueError(f"expects nothing: write one of {', '.join(FORMS)}, row_count, error, failed_checks")
        return self


class RangeModel(Model):
    """Windows one after the other."""

    start: Moment = Field(description="the beginning of the first window")
    end: Moment = Field(description="the end of the last window")


class DataTestModel(Model):
    """One test: given these rows, the pipeline makes those."""

    noun: ClassVar[str] = "a test"

    test: str = Field(validation_alias=AliasChoices("test", "name"), description="its name, unique in the project")
    description: str = Field("", description="for readers")
    pipeline: str = Field(description="the pipeline whose steps are run")
    step: str | None = Field(None, description="the step whose rows are expected; default: the pipeline's only endpoint")
    window: Annotated[list[Moment] | RangeModel, BeforeValidator(_as_list, json_schema_input_type=list[Moment] | Moment | RangeModel)] = (
        Field(
            default_factory=list,
            description="the beginning of the window to run, a list, or {start, end}; needed when the pipeline has windows",
        )
    )
    variables: dict[str, Any] = Field(
        default_factory=dict, validation_alias=AliasChoices("vars", "variables"), description="variables, as --vars gives them"
    )
    now: datetime | None = Field(None, description="what now(), today() and their kind say; default: the end of the last window")
    given: dict[str, TableText] = Field(default_factory=dict, description="step -> the rows it gives; what lies before it is not run")
    existing: TableText | None = Field(None, description="what the target of the tested endpoint already holds")
    expect: Annotated[ExpectModel, BeforeValidator(_list_is_rows, json_schema_input_type=ExpectModel | list[dict[str, Any]])] = Field(
        description="what the step must give"
    )
    properties: list[Property] = Field(
        default_factory=list, description="what must make no difference: run_twice, split_window, permute, late"
    )

    @field_validator("test")
    @classmethod
    def _test_has_a_name(cls, value: str) -> str:
        if not value.strip() or not value.isprintable() or set(value) & set("[]/*"):
            raise ValueError(f"{value!r} is not the name of a test: use words, without [ ] / *")
        return value.strip()

    @model_validator(mode="after")
    def _properties_need_rows(self) -> Self:
        if self.properties and (self.expect.error is not None or self.expect.failed_checks):
            raise ValueError("properties compare the rows of runs, and this run is expected to fail: write a test of their own for them")
        return self


@dataclass(frozen=True)
class LoadedTest:
    """One test with the places it was written at. A test built in Python has the place of the call."""

    model: DataTestModel
    places: Places

    @property
    def name(self) -> str:
        """The test's name."""
        return self.model.test

    @property
    def file(self) -> Path:
        """The file it is written in."""
        return Path(self.places.file)

    def problem(self, path: tuple[str | int, ...], message: str, *, hint: str = "") -> Problem:
        """A problem of this test, at the key `path`."""
        return self.places.problem(path, f"test {self.name!r}: {message}", hint=hint)


def folder_of_tests(project: Project) -> Path:
    """Where the project's tests lie."""
    return project.root / project.model.tests_dir


def files_in(folder: Path) -> list[Path]:
    """Every .yml and .yaml file below `folder`, hidden ones left out."""
    found = (path for path in folder.rglob("*") if path.suffix in {".yml", ".yaml"} and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def load_tests(files: Sequence[Path]) -> list[LoadedTest]:
    """The tests of these files, in their order. Raises SpecError with everything that is wrong in all of them."""
    problems: list[Problem] = []
    tests = [test for file in files for test in _read(file, problems)]
    if problems := problems + same_names(tests):
        raise SpecError(problems)
    return tests


def same_names(tests: Sequence[LoadedTest]) -> list[Problem]:
    """A problem for each test whose name another one has."""
    first: dict[str, LoadedTest] = {}
    problems = []
    for test in tests:
        if other := first.get(test.name):
            where = other.places.at(("test",))
            problems.append(test.places.problem(("test",), f"the test {test.name!r} is also at {where}", hint="rename one of them"))
        first.setdefault(test.name, test)
    return problems


def _read(file: Path, problems: list[Problem]) -> list[LoadedTest]:
    parsed = yaml.read(file)
    problems += parsed.problems
    made = [_made(document, problems) for document in parsed.documents]
    return [test for test in made if test is not None]


def _made(document: yaml.Document, problems: list[Problem]) -> LoadedTest | None:
    model = validated(DataTestModel, document.data, document.places, problems)
    return None if model is None else LoadedTest(model, document.places)
