"""What a run left, judged by what the test expects.

Here: rows, counts, errors, failed checks, in the lines that a reader gets. Not here: the run (`testing.bench`), comparing rows
(`testing.comparing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from dataflow_assets.errors import CheckFailed, DataflowError
from dataflow_assets.protocols import CheckResult
from dataflow_assets.spec.data_tests import ExpectModel
from dataflow_assets.storage.casts import is_text, plain_type
from dataflow_assets.testing.bench import Ran
from dataflow_assets.testing.binding import BoundTest
from dataflow_assets.testing.comparing import compare, shown
from dataflow_assets.testing.tables import Written, expected_rows

_SAMPLES = 3


def judge(bound: BoundTest, ran: Ran) -> list[str]:
    """What is not as expected, a few lines; none when all is."""
    expect = bound.test.model.expect
    found = [*_checks(expect, ran), *_error(expect, ran)]
    if ran.error is not None and not _may_fail(expect):
        return found
    return [*found, *_count(expect, ran), *_rows(bound, ran), *_types(expect, ran.rows)]


def _may_fail(expect: ExpectModel) -> bool:
    return expect.error is not None or bool(expect.failed_checks)


def _error(expect: ExpectModel, ran: Ran) -> Iterator[str]:
    if expect.error is not None:
        if ran.error is None:
            yield f"an error with {expect.error!r} was expected, and there was none"
        elif expect.error not in str(ran.error):
            yield f"an error with {expect.error!r} was expected, and it was: {_told(ran)}"
    elif ran.error is not None and not (isinstance(ran.error, CheckFailed) and expect.failed_checks):
        yield f"the run failed{f' in window {ran.key}' if ran.key not in {'', 'all'} else ''}: {_told(ran)}"


def _told(ran: Ran) -> str:
    error = ran.error
    return str(error) if isinstance(error, DataflowError) else f"{type(error).__name__}: {error}"


def _checks(expect: ExpectModel, ran: Ran) -> Iterator[str]:
    if expect.failed_checks is None:
        if isinstance(ran.error, CheckFailed) and expect.error is None:
            yield from (_sampled(result) for result in ran.failed_checks if result.samples)
        return
    failed = {result.name: result for result in ran.failed_checks}
    known = {result.name for result in ran.checks}
    for name in dict.fromkeys(expect.failed_checks):
        if name not in failed:
            yield f"the check {name!r} was expected to fail, and it {'passed' if name in known else 'was not run'}"
    for name in failed.keys() - set(expect.failed_checks):
        yield f"the check {name!r} failed, which was not expected: {_sampled(failed[name])}"


def _sampled(result: CheckResult) -> str:
    rows = "".join(f"\n    {shown(row)}" for row in result.samples[:_SAMPLES])
    return f"{result.description or result.name}: {result.failed:,} of {result.checked:,} rows{rows}"


def _count(expect: ExpectModel, ran: Ran) -> Iterator[str]:
    if expect.row_count is not None and ran.rows.num_rows != expect.row_count:
        yield f"{expect.row_count:,} rows were expected, found {ran.rows.num_rows:,}"


def _rows(bound: BoundTest, ran: Ran) -> list[str]:
    expect = bound.test.model.expect
    if not expect.form:
        return []
    with TemporaryDirectory(prefix="dataflow-test-") as scratch:
        expected = expected_rows(Written(bound.test, expect, ("expect",)), scratch=Path(scratch))
    if expected and not ran.rows.num_columns:
        return [f"{len(expected):,} rows were expected, and nothing was published"]
    difference = compare(
        ran.rows,
        expected,
        columns=list(expect.columns) or None,
        keys=bound.keys,
        ordered=expect.ordered,
        approx=expect.approx,
        from_text=expect.form == "csv",
    )
    return difference.lines()


def _types(expect: ExpectModel, rows: pa.Table) -> Iterator[str]:
    from dataflow_assets.storage.type_names import arrow_type

    for name, written in expect.columns.items():
        if not written:
            continue
        if name not in rows.column_names:
            if not expect.form:
                yield f"column {name!r} is expected, but was not found"
            continue
        kind, wanted = plain_type(rows.schema.field(name).type), arrow_type(written)
        if kind != wanted and not (is_text(kind) and is_text(wanted)):
            yield f"column {name!r} is {kind}, expected {written}"
