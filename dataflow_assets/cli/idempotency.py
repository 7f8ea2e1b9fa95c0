"""`dataflow run --idempotency-key`: one key, one run, one outcome.

Here: what counts as the same request, and printing the outcome of an earlier call. Not here: the record and the lock
(`assets.idempotency`), running (`cli.run`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dataflow_assets.cli.closing import summary
from dataflow_assets.cli.failures import FAILED, INTERRUPTED
from dataflow_assets.cli.terminal import Session, plain

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.assets.idempotency import KeyedCall
    from dataflow_assets.spec.project import Project

_OF_THE_REQUEST = ("select", "exclude", "start", "end", "keys", "full_refresh", "max_windows", "even_if_paused")


def run_once(
    session: Session,
    project: Project,
    instance: dg.DagsterInstance,
    key: str,
    *,
    given: Mapping[str, Any],
    go: Callable[[KeyedCall], tuple[int, Mapping[str, Any]]],
) -> int:
    """The outcome of the first call with this key: `go` runs and gives its exit code and document, if there was none yet.

    A call that was interrupted, or whose process died, leaves no outcome: the next one with its key goes on.
    """
    from dataflow_assets.assets.idempotency import checked_key, keyed_call
    from dataflow_assets.assets.instance import dagster_home

    asked = {name: given.get(name) for name in _OF_THE_REQUEST} | {"variables": dict(project.overrides)}
    if given.get("even_if_retired"):
        asked["even_if_retired"] = True  # only where it is said: keys of calls before there was such an option stay good

    def waiting() -> None:
        session.say(f"Another call with the idempotency key {key} is under way: waiting for its outcome")

    home, name = dagster_home(project), project.model.project_name
    with keyed_call(instance, home, name, checked_key(key), asked=asked, waiting=waiting) as call:
        if call.outcome is not None:
            return _repeat(session, call.outcome, stream=bool(given.get("json_lines")))
        code, document = go(call)
        if code != INTERRUPTED:
            call.keep(plain(document))
        return code


def _repeat(session: Session, document: Mapping[str, Any], *, stream: bool) -> int:
    """Print what the first call came to."""
    from dataflow_assets.cli.terminal import as_json

    said = {**document, "repeated": True}
    if stream:
        session.write(as_json({"event": "done", **said}) + "\n")
    else:
        session.emit(said)
    session.say(f"Nothing is started: the idempotency key {document['idempotency_key']} was used at {document['first_at'][:19]} UTC.")
    session.say("The outcome of that call:\n")
    for pipeline in document.get("pipelines", ()):
        run = f", run {pipeline['run_id']}" if pipeline.get("run_id") else ""
        reason = f" ({pipeline['reason']})" if pipeline.get("reason") else ""
        session.say(f"  {pipeline['name']}: {pipeline['status']}{reason}{run}")
    session.say()
    for line in summary(document["totals"], seconds=document["totals"]["seconds"]):
        session.say(line)
    code = int(document["exit_code"])
    session.say("Next: dataflow retry" if code == FAILED else "Next: dataflow status")
    return code
