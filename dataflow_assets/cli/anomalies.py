"""`dataflow anomalies`: what the metric checks flagged, what people said of it, and how often settings would have alerted.

Here: the verbs `list`, `ack` and `backtest`, and how they print. Not here: finding anomalies (`execution.anomalies`), the replay
(`anomalies.replay`), the file of acknowledgements (`spec.acknowledgements`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.anomaly_report import anomaly_data, backtest_data, backtest_lines, print_list
from dataflow_assets.cli.choosing import Chosen, choose, find_pipeline, selection_options
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed, describe, explain
from dataflow_assets.cli.lean import collecting_garbage
from dataflow_assets.cli.terminal import Session
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand, VerbGroup

if TYPE_CHECKING:
    from dataflow_assets.execution.anomalies import Anomaly, Watched
    from dataflow_assets.plan.model import PipelinePlan


@click.group("anomalies", cls=VerbGroup)
def command() -> None:
    """List what the metric checks flagged, acknowledge it, and try settings on the past."""


@command.command("list", cls=VerbCommand)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--open", "only_open", is_flag=True, help="Leave out what is acknowledged.")
@selection_options
@variable_options
@click.pass_obj
def show(session: Session, /, selectors: tuple[str, ...], only_open: bool, **given: tuple[str, ...]) -> int:
    """List the windows that metric checks flagged: open, blocking their window, or acknowledged.

    Exits with 1 when a target cannot be asked.
    """
    chosen = _chosen(session, selectors, given)
    found: list[Anomaly] = []
    errors = []
    for pipeline in chosen.pipelines:
        try:
            found += _of_pipeline(chosen, pipeline)
        except Exception as error:  # noqa: BLE001 - whatever a system answers, the other pipelines are shown
            errors.append({"pipeline": pipeline.name, "error": {**describe(error), "text": explain(error)}})
    shown = [item for item in found if not only_open or item.state in {"open", "blocked"}]
    unknown = _unknown(chosen)
    session.emit({"ok": not errors, "anomalies": [anomaly_data(item) for item in shown], "unknown": unknown, "errors": errors})
    if not session.json:
        print_list(session, shown, unknown, errors)
    return FAILED if errors else OK


@command.command("ack", cls=VerbCommand)
@click.argument("name", metavar="PIPELINE.STEP")
@click.argument("metric")
@click.option("--window", "windows", metavar="KEY", multiple=True, required=True, help="The window; may be repeated. `list` shows keys.")
@click.option(
    "--expected", "verdict", flag_value="expected", help="Such a value may come again: it is learned from, and a blocked window passes."
)
@click.option(
    "--level-shift", "verdict", flag_value="level_shift", help="A new level begins with this window: nothing before it is learned from."
)
@click.option("--note", default="", help="Why; kept with it.")
@click.option("--by", default=None, help="Who says so; default: the user of this machine.")
@variable_options
@click.pass_obj
def acknowledge(session: Session, /, name: str, metric: str, windows: tuple[str, ...], verdict: str | None, **given: Any) -> int:
    """Say what an anomaly was. It is written into acknowledged.yml in the project, to be committed and deployed like a pipeline."""
    from dataflow_assets.spec.acknowledgements import Acknowledgement, add_acknowledgement
    from dataflow_assets.tables import utc_now

    if verdict is None:
        raise UsageFailed("is it --expected or a --level-shift?", hint="expected: may come again; level shift: the new normal")
    project = session.load(read_variables(given["several"], given["single"]))
    pipeline, step = find_pipeline(project, name)
    now = utc_now()
    _refuse_unknown_metric(project, pipeline, step, metric, now=now)
    by = given["by"] if given["by"] is not None else _user()
    items = [
        Acknowledgement.model_validate(
            {"pipeline": pipeline.name, "step": step, "metric": metric, "window": _key(pipeline, key), "verdict": verdict, "by": by}
            | {"note": given["note"], "at": now.replace(microsecond=0)}
        )
        for key in windows
    ]
    file = [add_acknowledgement(project.root, item) for item in items][-1]
    session.emit({"ok": True, "file": str(file), "acknowledged": [item.model_dump(mode="json") for item in items]})
    for item in items:
        session.say(f"{name} {metric} {item.window}: {item.verdict.replace('_', ' ')}, in {file.name}; commit it with the project")
    session.say(f"Next: dataflow run --select {pipeline.name} --window {items[-1].window}  (when it blocked the window)")
    return OK


@command.command("backtest", cls=VerbCommand)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--metric", "metrics", multiple=True, help="Only this metric; may be repeated.")
@click.option("--budget", type=click.FloatRange(min=0), help="Find the mildest settings that alert at most this often a year.")
@click.option("--from-target", is_flag=True, help="Measure a metric without history in what its target holds, window by window.")
@selection_options
@variable_options
@click.pass_obj
@collecting_garbage()
def replayed(
    session: Session,
    /,
    selectors: tuple[str, ...],
    metrics: tuple[str, ...],
    budget: float | None,
    from_target: bool,
    **given: tuple[str, ...],
) -> int:
    """Replay the history of each metric: how often its check would have alerted, and where.

    Nothing is run and nothing written: the numbers come from the ledgers. With --budget it also looks for `sensitivity` and
    `ignore_small_changes` that keep to so many alerts a year; exits with 1 when nothing does.
    """
    from dataflow_assets.anomalies.replay import backtest, within_budget

    chosen = _chosen(session, selectors, given)
    documents, kept = [], True
    for item in _histories(chosen, metrics, from_target=from_target):
        result = backtest(item.history, item.settings, parts=item.judged_parts)
        better = within_budget(item.history, item.settings, budget=budget, parts=item.judged_parts) if budget is not None else None
        kept = kept and (budget is None or better is not None)
        documents.append(backtest_data(item, result, better))
        for line in backtest_lines(item, result, better, budget=budget):
            session.say(line)
    session.emit({"ok": kept, "budget": budget, "metrics": documents})
    if not documents:
        session.say("No metric is watched here: add an `anomaly:` to the checks of a step.")
    return OK if kept else FAILED


def _histories(chosen: Chosen, metrics: Sequence[str], *, from_target: bool) -> Iterator[Watched]:
    """The chosen metrics with their histories; of those without, what the target says, when that is wanted."""
    from dataflow_assets.execution.anomalies import watched_histories, watched_metrics
    from dataflow_assets.execution.remeasuring import remeasured
    from dataflow_assets.tables import utc_now

    now = utc_now()
    known = [item for plan in chosen.pipelines for item in watched_metrics(chosen.project, plan, now=now) if _is_chosen(chosen, item)]
    _refuse_unknown_names(metrics, [item.options.metric_name for item in known])
    for plan in chosen.pipelines:
        asked = [item for item in watched_histories(chosen.project, plan, now=now) if _is_chosen(chosen, item)]
        asked = [item for item in asked if not metrics or item.options.metric_name in metrics]
        new = [item for item in asked if from_target and not item.history]
        measured = {item.name: item for item in remeasured(chosen.project, plan, new, now=now)}
        yield from (measured.get(item.name, item) for item in asked)


def _chosen(session: Session, selectors: tuple[str, ...], given: dict[str, tuple[str, ...]]) -> Chosen:
    variables = read_variables(given["several"], given["single"])
    return choose(session, (*selectors, *given["select"]), given["exclude"], variables)


def _is_chosen(chosen: Chosen, item: Watched) -> bool:
    return item.step in chosen.parts.get(item.pipeline.name, {item.step})


def _of_pipeline(chosen: Chosen, pipeline: PipelinePlan) -> Iterator[Anomaly]:
    from dataflow_assets.execution.anomalies import anomalies
    from dataflow_assets.tables import utc_now

    return (item for item in anomalies(chosen.project, pipeline, now=utc_now()) if _is_chosen(chosen, item.watched))


def _unknown(chosen: Chosen) -> list[dict[str, Any]]:
    """Acknowledgements that meet no metric any more."""
    from dataflow_assets.execution.anomalies import unknown_acknowledgements, watched_metrics
    from dataflow_assets.tables import utc_now

    watched = [item for pipeline in chosen.pipelines for item in watched_metrics(chosen.project, pipeline, now=utc_now())]
    names = [pipeline.name for pipeline in chosen.pipelines]
    return [one.model_dump(mode="json") for one in unknown_acknowledgements(chosen.project, watched, names)]


def _refuse_unknown_metric(project: Any, pipeline: PipelinePlan, step: str | None, metric: str, *, now: Any) -> None:
    from dataflow_assets.execution.anomalies import watched_metrics
    from dataflow_assets.plan.names import suggest

    watched = watched_metrics(project, pipeline, now=now)
    steps = sorted({item.step for item in watched})
    if step not in steps:
        raise UsageFailed(
            f"{pipeline.name}{'.' + step if step else ''} watches no metric",
            hint=f"write {pipeline.name}. and one of {', '.join(steps) or 'none'}",
        )
    names = [item.options.metric_name for item in watched if item.step == step]
    if metric not in names:
        raise UsageFailed(f"{pipeline.name}.{step} has no metric {metric!r}", hint=suggest(metric, names, noun="metrics"))


def _refuse_unknown_names(metrics: Sequence[str], names: Sequence[str]) -> None:
    from dataflow_assets.plan.names import suggest

    for metric in metrics:
        if metric not in names:
            raise UsageFailed(f"no selected step has a metric {metric!r}", hint=suggest(metric, names, noun="metrics"))


def _key(pipeline: PipelinePlan, text: str) -> str:
    """The key of the window that is meant. Raises UsageFailed when the pipeline has no such window."""
    if pipeline.windows is None:
        return text
    cadence = pipeline.windows.cadence
    try:
        return cadence.key(cadence.window(text))
    except ValueError as error:
        raise UsageFailed(f"{pipeline.name} has no window {text!r}: {error}", hint="`dataflow anomalies list` shows the keys") from None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
