"""The words of `to:`: another dataset in which values must be found.

Here: the model and its refusals. Not here: whether the dataset exists (the plan), the rule over a stream (`checks._lookup`).
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from dataflow_assets.spec.base import Model, Names
from dataflow_assets.tables import DatasetRef


class To(Model):
    """A dataset and the columns of it that hold the values: a step of this pipeline, an endpoint of another, or a table."""

    step: str | None = Field(None, description="a step of this pipeline, or with pipeline an endpoint of that one")
    pipeline: str | None = Field(
        None, description="another pipeline, whose published rows are looked at; step may be left out where it has one endpoint"
    )
    connection: str | None = Field(None, description="a connection, with table")
    table: str | None = Field(None, description="a table of the connection")
    column: str | None = Field(None, description="the column of it; default: named as here")
    columns: Names | None = Field(None, description="its columns, in the order of columns here")

    @model_validator(mode="after")
    def _names_one_dataset(self) -> Self:
        if self.column is not None and self.columns is not None:
            raise ValueError("write `column` or `columns`, not both")
        if self.connection is not None or self.table is not None:
            if self.step is not None or self.pipeline is not None:
                raise ValueError("name a step, or a table of a connection, not both")
            if self.connection is None or self.table is None:
                raise ValueError("a table needs both `connection` and `table`")
        elif self.step is None and self.pipeline is None:
            raise ValueError("name a dataset: `step: customers`, `pipeline: shop` with `step`, or `connection: warehouse` with `table`")
        return self

    def dataset(self, columns: tuple[str, ...]) -> DatasetRef:
        """The dataset with the columns that answer those of the rule."""
        own = (self.column,) if self.column is not None else tuple(self.columns or columns)
        return DatasetRef(own, self.step, self.pipeline, self.connection, self.table)
