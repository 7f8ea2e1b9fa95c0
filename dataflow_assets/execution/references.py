"""Opening the other datasets that checks look at.

Here: a stage of this window, what another pipeline has published, a table of a connection, each as a stream. Not here: whether they
exist by their names (`plan.references`), what a check does with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pyarrow as pa

from dataflow_assets.errors import ReadFailed
from dataflow_assets.execution.connections import validated
from dataflow_assets.execution.session import RunRequest, Session
from dataflow_assets.execution.work import Work, producer_of
from dataflow_assets.tables import DatasetRef, ReadRequest

Opener = Callable[[DatasetRef], AbstractContextManager[pa.RecordBatchReader]]


def opener(work: Work) -> Opener:
    """What opens other datasets for the checks of a window: its own steps' rows of the same window, others' rows of all windows."""

    def open_dataset(dataset: DatasetRef) -> AbstractContextManager[pa.RecordBatchReader]:
        if dataset.connection is not None:
            return _table(work, dataset)
        return _staged(work, dataset) if dataset.pipeline is None else _published(work, dataset)

    return open_dataset


@contextmanager
def _staged(work: Work, dataset: DatasetRef) -> Iterator[pa.RecordBatchReader]:
    step = work.pipeline.by_id[str(dataset.step)]
    stage = work.stages.get(step.id) or work.stages.get(producer_of(work.pipeline, step).id)
    if stage is None:
        raise ReadFailed(f"step {step.id} has no rows in this window yet", hint="put the rule on a step that is made after it")
    known = all(name in stage.schema.names for name in dataset.columns)
    with stage.as_input(step.id).open_reader(dataset.columns if known else None) as reader:
        yield reader


@contextmanager
def _published(work: Work, dataset: DatasetRef) -> Iterator[pa.RecordBatchReader]:
    request = work.session.request
    other = work.pipeline.looks_at[str(dataset.pipeline)]
    endpoint = other.by_id[dataset.step] if dataset.step is not None else other.endpoints[0]
    with closing(Session(RunRequest(request.project, other, (), attempt=request.attempt, now=request.now))) as session:
        target = session.target(endpoint, work.window if other.windows else None)
        with session.connector(endpoint).read_target(target, None) as reader:
            yield reader


@contextmanager
def _table(work: Work, dataset: DatasetRef) -> Iterator[pa.RecordBatchReader]:
    connector = work.session.connector_to(str(dataset.connection))
    options = validated(
        connector.Source, {"table": dataset.table, "columns": list(dataset.columns)}, where=f"connection {dataset.connection!r}"
    )
    with connector.read(ReadRequest(options, columns=dataset.columns)) as reader:
        yield reader
