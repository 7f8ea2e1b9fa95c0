"""The contracts of the project that a command is about, and a use of one as data.

Here: loading them, finding one by name. Not here: the verbs (`cli.contract`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow_assets.cli.failures import UsageFailed
from dataflow_assets.cli.terminal import Session

if TYPE_CHECKING:
    from dataflow_assets.plan.contract_flow import Use
    from dataflow_assets.plan.contract_review import Review
    from dataflow_assets.plan.contracts import Bound


def read_review(session: Session) -> Review:
    """The contracts of the project. Raises SpecError for files that cannot be read and for contracts that are wrong."""
    from dataflow_assets.errors import PlanError, SpecError
    from dataflow_assets.plan.contract_review import Review
    from dataflow_assets.plan.contracts import bind_contracts

    project = session.load()
    review = Review(project)
    failed = [problem for failure in project.failures if failure.name.startswith("contract_") for problem in failure.problems]
    if problems := [*failed, *review.accepted.problems]:
        raise SpecError(problems)
    wrong = [problem for found in bind_contracts(project, review.drafts).problems.values() for problem in found]
    if wrong:
        raise PlanError(list(dict.fromkeys(wrong)))
    return review


def named(review: Review, name: str) -> Bound:
    for item in review.bound:
        if item.name == name:
            return item
    raise unknown(name, review.models)


def unknown(name: str, known: Mapping[str, Any]) -> UsageFailed:
    from dataflow_assets.plan.names import suggest

    return UsageFailed(f"there is no contract {name!r}", hint=suggest(name, known, noun="contracts") or "write one into contracts/")


def use_data(use: Use) -> dict[str, Any]:
    return {
        "pipeline": use.pipeline,
        "step": use.step,
        "file": use.place.file,
        "line": use.place.line,
        "column": use.place.column,
        "how": use.how,
        "sure": use.sure,
    }
