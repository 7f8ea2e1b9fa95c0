"""`dataflow backfill`: load many windows, in pieces, with a plan before and a resume after.

Here: the options, the plan and the question, exit codes. Not here: planning and running (`operations.backfills`), what is shown on the way
(`cli.backfill_report`), `list`, `show` and `cancel` (`cli.backfill_list`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from dataflow_assets.cli.backfill_list import cancel, list_backfills, show
from dataflow_assets.cli.choosing import Chosen, choose, selection_options
from dataflow_assets.cli.failures import FAILED, OK, UsageFailed
from dataflow_assets.cli.interrupts import watching_interrupts
from dataflow_assets.cli.lean import collecting_garbage, defer_pandas
from dataflow_assets.cli.ranges import bounds, check_bound, retired_option, window_of
from dataflow_assets.cli.terminal import Session, plural
from dataflow_assets.cli.variables import read_variables, variable_options
from dataflow_assets.cli.verb import VerbCommand, VerbGroup
from dataflow_assets.plan.backfills import CHUNK, UNFINISHED, is_ordered
from dataflow_assets.tables import utc_now

if TYPE_CHECKING:
    import dagster as dg

    from dataflow_assets.operations.backfills.progress import Course
    from dataflow_assets.operations.backfills.records import Backfill, Records, Request
    from dataflow_assets.operations.backfills.work import Bounds, Manner, Planned
    from dataflow_assets.plan.model import PipelinePlan
    from dataflow_assets.windows import Window

_LATEST = "latest"
_SHARED = {"--json": 0, "--no-color": 0, "--project": 1, "--log-level": 1}


class BackfillGroup(VerbGroup):
    """`dataflow backfill orders` means `dataflow backfill start orders`; `list`, `show` and `cancel` are the other verbs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `start` before what names no verb."""
        at = 0
        while at < len(args) and args[at] in _SHARED:
            at += 1 + _SHARED[args[at]]
        if at >= len(args) or (args[at] not in self.commands and args[at] not in {"-h", "--help"}):
            args = [*args[:at], "start", *args[at:]]
        elif args[at] in {"-h", "--help"}:
            args = ["start", "--help"]
        return super().parse_args(ctx, args)


@click.group("backfill", cls=BackfillGroup)
def command() -> None:
    """Load many windows in pieces: missing, failed, stale or all of them."""


for verb in (list_backfills, show, cancel):
    command.add_command(verb)


@command.command("start", cls=VerbCommand)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@selection_options
@variable_options
@click.option("--start", metavar="TIME", callback=check_bound, help="Only windows from this moment on; inclusive.")
@click.option("--end", metavar="TIME", callback=check_bound, help="Only windows before this moment; exclusive.")
@click.option("--windows", "--window", "keys", multiple=True, metavar="KEYS", help="Only these windows; commas between keys.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N windows of each pipeline.")
@click.option(
    "--only",
    multiple=True,
    metavar="STATE",
    help="missing, failed, stale or all; may be repeated, or joined by commas. Default: missing,failed.",
)
@click.option("--order", type=click.Choice(["oldest", "newest"]), default="oldest", show_default=True, help="Which windows come first.")
@click.option("--chunk", type=click.IntRange(min=1), default=CHUNK, show_default=True, metavar="N", help="Windows per run.")
@click.option("--concurrency", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Runs at once.")
@click.option("--queue", is_flag=True, help="Let Dagster's daemon start the runs, with its limits and on its hosts.")
@click.option("--upstream", is_flag=True, help="With everything that the selected pipelines need.")
@click.option("--downstream", is_flag=True, help="With everything that needs the selected pipelines.")
@click.option("--fail-fast", is_flag=True, help="Begin nothing more once a window has failed.")
@retired_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--new", is_flag=True, help="Begin anew, also where the same backfill was interrupted.")
@click.option("--resume", is_flag=False, flag_value=_LATEST, metavar="[ID]", help="Go on with a backfill, by default the last one.")
@click.pass_obj
def start(session: Session, /, **given: Any) -> int:
    """Load windows in pieces: those that are missing or failed, or what --only says.

    First comes a plan: which windows, in how many runs, how many rows and how long by what earlier windows took. Upstream windows come
    before those that need them; a failed window does not stop others. Ctrl-C, a kill or a reboot lose nothing: --resume, or the same
    command, does exactly what is left. Other verbs: `dataflow backfill list`, `show ID`, `cancel ID`.
    """
    from dataflow_assets.assets.instance import open_instance
    from dataflow_assets.cli.logs import log_to_file

    defer_pandas()
    given["variables"] = read_variables(given["several"], given["single"])
    with ExitStack() as stack:
        if given["resume"]:
            project = session.load(given["variables"])
            instance = stack.enter_context(open_instance(project))
            return _Resumed(session, given, instance).go()
        chosen = choose(session, _selectors(given), given["exclude"], given["variables"])
        project = chosen.project
        stack.enter_context(log_to_file(project.root, project.model.logging))
        return _Begun(session, given, stack.enter_context(open_instance(project)), chosen).go()


def _selectors(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The selectors, each widened as `--upstream` and `--downstream` say."""
    before, after = "+" if given["upstream"] else "", "+" if given["downstream"] else ""
    words = tuple(word for text in (*given["selectors"], *given["select"]) for word in text.split())
    if (before or after) and not words:
        raise UsageFailed("--upstream and --downstream widen a selection, and nothing is selected", hint="name a pipeline")
    return tuple(",".join(f"{before}{term}{after}" for term in word.split(",")) for word in words)


def _only(given: Mapping[str, Any]) -> tuple[Any, ...]:
    words = [word.strip() for text in given["only"] for word in text.split(",") if word.strip()]
    for word in words:
        if word not in {"missing", "failed", "stale", "all"}:
            raise UsageFailed(f"--only {word!r}: there are missing, failed, stale and all")
    return tuple(dict.fromkeys(words)) or UNFINISHED


def _keys(given: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(key.strip() for text in given["keys"] for key in text.split(",") if key.strip())


def _manner(given: Mapping[str, Any], order: Any) -> Manner:
    from dataflow_assets.operations.backfills.work import Manner

    return Manner(given["chunk"], order, given["concurrency"], given["queue"], given["fail_fast"])


class _Working:
    """What beginning and resuming have in common: the run of what is left, and the closing words."""

    def __init__(self, session: Session, given: Mapping[str, Any], instance: dg.DagsterInstance) -> None:
        self.session, self.given, self.instance, self.now = session, given, instance, utc_now()

    def run(
        self,
        chosen: Chosen,
        backfill: Backfill,
        left: Mapping[str, Sequence[Window | None]],
        *,
        course: Course | None = None,
    ) -> int:
        """Work on it and say how it ended."""
        from dataflow_assets.cli.backfill_report import close, report_for
        from dataflow_assets.operations.backfills.work import work_on

        report = report_for(self.session, chosen, left)
        quiet = redirect_stdout(sys.stderr) if self.session.json else nullcontext()
        try:
            with watching_interrupts() as pressed, collecting_garbage(), quiet:
                totals = work_on(
                    chosen.project,
                    chosen.plan,
                    backfill,
                    left,
                    self.instance,
                    report,
                    _manner(self.given, backfill.request.order),
                    active=course.active if course else (),
                )
                totals.interrupted = totals.interrupted or (not totals.ok and pressed())
        finally:
            report.close()
        return close(self.session, chosen, backfill, totals, report=report, instance=self.instance)

    def ask(self, text: str) -> None:
        """Ask a person who watches. Raises Abort for no."""
        if not self.given["yes"] and not self.session.json and sys.stdin.isatty() and self.session.out.isatty():
            click.confirm(text, default=True, abort=True)


class _Begun(_Working):
    """A backfill from the beginning, unless the same one was interrupted."""

    def __init__(self, session: Session, given: Mapping[str, Any], instance: dg.DagsterInstance, chosen: Chosen) -> None:
        super().__init__(session, given, instance)
        self.chosen = chosen

    def go(self) -> int:
        """Plan, ask, run."""
        from dataflow_assets.cli.backfill_report import print_plan
        from dataflow_assets.operations.backfills.history import open_history
        from dataflow_assets.operations.backfills.records import Records
        from dataflow_assets.operations.backfills.work import begin, plan_pipeline

        request = self._request()
        if not self.given["new"] and not self.given["dry_run"] and (same := self._interrupted(request)):
            self.session.say(f"Backfill {same.id} of {same.created_at:%Y-%m-%d %H:%M} UTC was not finished: going on with it.")
            return _Resumed(self.session, {**self.given, "resume": same.id}, self.instance).go()
        with open_history(self.chosen.project, self.instance) as history:
            planned = [
                plan_pipeline(
                    self.chosen.project,
                    pipeline,
                    self._bounds(pipeline),
                    only=request.only,
                    last=request.last,
                    history=history,
                    now=self.now,
                    even_if_retired=self.given["even_if_retired"],
                )
                for pipeline in self.chosen.pipelines
            ]
        self._refuse_order(planned)
        print_plan(self.session, self.chosen, planned, _manner(self.given, request.order), dry_run=self.given["dry_run"])
        if any(item.error for item in planned):
            return FAILED
        total = sum(len(item.todos) for item in planned)
        if self.given["dry_run"] or not total:
            return OK
        self.ask(f"Load {plural(total, 'window')}?")
        backfill = begin(self.chosen.project, request, planned, self.chosen.parts, now=self.now)
        Records(self.instance).add(backfill)
        left = {item.pipeline.name: item.windows for item in planned if item.todos}
        return self.run(self.chosen, backfill, left)

    def _request(self) -> Request:
        from dataflow_assets.operations.backfills.records import Request

        given = self.given
        return Request(
            select=_selectors(given),
            exclude=given["exclude"],
            start=given["start"],
            end=given["end"],
            keys=self._known_keys(),
            last=given["last"],
            only=_only(given),
            order=given["order"],
            variables=given["variables"],
        )

    def _known_keys(self) -> tuple[str, ...]:
        from dataflow_assets.cli.due import Wish, refuse_unknown_keys

        keys = _keys(self.given)
        refuse_unknown_keys(self.chosen.pipelines, Wish(keys=keys), now=self.now)
        return keys

    def _bounds(self, pipeline: PipelinePlan) -> Bounds:
        from dataflow_assets.operations.backfills.work import Bounds

        start, end = bounds(pipeline, start=self.given["start"], end=self.given["end"])
        keys = _keys(self.given)
        if not keys:
            return Bounds(start, end)
        windows = [window for key in keys if (window := window_of(pipeline, key, now=self.now))]
        return Bounds(start, end, {pipeline.windows.cadence.key(window) for window in windows} if pipeline.windows else set())

    def _interrupted(self, request: Request) -> Backfill | None:
        """The newest backfill of the same request that was neither finished nor cancelled."""
        from dataflow_assets.operations.backfills.progress import course_of
        from dataflow_assets.operations.backfills.records import Records
        from dataflow_assets.operations.backfills.work import recorded

        wanted, name = recorded(request), self.chosen.project.model.project_name
        same = next((item for item in Records(self.instance).all() if item.project == name and item.request == wanted), None)
        if same is None or same.cancelled_at is not None or (set(same.windows) - self.chosen.plan.by_name.keys()):
            return None
        course = course_of(self.chosen.project, self.chosen.plan, same, self.instance, now=self.now)
        return same if course.left else None

    def _refuse_order(self, planned: Sequence[Planned]) -> None:
        for item in planned:
            if self.given["order"] == "newest" and len(item.todos) > 1 and is_ordered(item.pipeline):
                raise UsageFailed(
                    f"--order newest: {item.pipeline.name} appends or upserts, and its windows may not overtake each other",
                    hint="leave --order out",
                )


class _Resumed(_Working):
    """What is left of a backfill that was begun before."""

    def go(self) -> int:
        """Find it, ask what is left, run that."""
        from dataflow_assets.cli.backfill_report import print_left
        from dataflow_assets.operations.backfills.progress import course_of
        from dataflow_assets.operations.backfills.records import Records
        from dataflow_assets.operations.backfills.work import refuse_second_driver

        backfill = self._find(Records(self.instance))
        variables = {**backfill.request.variables, **self.given["variables"]}
        chosen = choose(self.session, tuple(backfill.windows), (), variables)
        course = course_of(chosen.project, chosen.plan, backfill, self.instance, now=self.now)
        refuse_second_driver(course)
        print_left(self.session, course, dry_run=self.given["dry_run"])
        left = {item.name: item.left for item in course.pipelines if item.left}
        if self.given["dry_run"] or not left:
            return OK
        self.ask(f"Load {plural(course.left, 'window')}?")
        if backfill.cancelled_at is not None:
            backfill = Records(self.instance).uncancel(backfill)
        return self.run(chosen, backfill, left, course=course)

    def _find(self, records: Records) -> Backfill:
        name = self.session.load(self.given["variables"]).model.project_name
        if self.given["resume"] != _LATEST:
            found = records.get(self.given["resume"])
            if found.project != name:
                raise UsageFailed(f"backfill {found.id} is one of project {found.project}, and this is {name}")
            return found
        mine = [item for item in records.all() if item.project == name and item.cancelled_at is None]
        if not mine:
            raise UsageFailed(f"project {name} has no backfill to go on with", hint="begin one: dataflow backfill --dry-run")
        return mine[0]
